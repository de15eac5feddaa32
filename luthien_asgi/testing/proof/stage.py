"""Runs one answer through a policy in the real middleware, whatever the provider's wire, the cut, the client and the form.

Strategy: the answer is written as its provider writes it and read by the package's own decoder, so a policy gets the chunks that
it would get from that provider: one by one, out of packets that cut characters in two, and every second time as they come when
they come together, with runs among them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, overload

from luthien_asgi.approvals import Approvals
from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk
from luthien_asgi.compose import Composable, Governed
from luthien_asgi.policy import Handling, Policy, Transform
from luthien_asgi.request import WireName
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing.backend import ScriptedBackend, ScriptedStream, Step
from luthien_asgi.testing.chunk_builders import build_chunk, chunks
from luthien_asgi.testing.kit import PolicyRun, run_policy
from luthien_asgi.testing.parts import Answer
from luthien_asgi.testing.proof.cuts import WHOLE, Cut
from luthien_asgi.testing.wires import RENDERERS
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.openai_decoder import OpenAIDecoder

__all__ = ["CLIENTS", "PROVIDERS", "Case", "Judges", "ProofBackend", "Stage", "decoded", "events_of", "handles_of"]

CLIENTS: Final[tuple[WireName, ...]] = ("openai", "anthropic", "responses")
PROVIDERS: Final[tuple[WireName, ...]] = ("openai", "anthropic")
_PACKET: Final = 61
"""Bytes of a packet: no multiple of a character's length."""
_FRAME_BYTES: Final = 1 << 24
_ASKED: Final = {"model": "scripted", "stream_options": {"include_usage": True}}

Judges = Mapping[str, Callable[[BackendCall], str]]
"""What a judge says to a call, by the name of its model: a policy's own calls of the backend."""


@dataclass(frozen=True, slots=True)
class Case:
    """One answer on one way."""

    answer: Answer
    cut: Cut = WHOLE
    provider: WireName = "openai"
    client: WireName = "openai"
    stream: bool = True

    def but(self, **changes: Any) -> Case:  # noqa: ANN401 - any field
        """Return the case with other fields."""
        return replace(self, **changes)


class ProofBackend(ScriptedBackend):
    """Answers with the answer, and a judge's model with what its judge says. `watch` is called whenever a chunk is asked for."""

    def __init__(
        self, steps: Sequence[Step | Run], *, wire: WireName, judges: Judges, watch: Callable[[], object] | None = None
    ) -> None:
        chunks_alone = [step for step in steps if not isinstance(step, Run)]
        super().__init__(chunks_alone, wire=wire, names=("scripted", *judges))
        self._together = steps if len(chunks_alone) < len(steps) else ()
        self.judge_calls = 0
        """How often a policy asked a judge."""
        self._judges = judges
        self._watch = watch

    async def open(self, call: BackendCall) -> ScriptedStream:
        """Return the answer, or a judge's."""
        judge = self._judges.get(call.request.model)
        if judge is not None:
            self.judge_calls += 1
            return ScriptedStream(chunks(judge(call)), sent=dict(call.request.body))
        stream = await super().open(call)
        if self._together:
            return _Together(stream, self._together)
        return stream if self._watch is None else _Watched(stream, self._watch)


class _Watched(ScriptedStream):
    """A stream that says when its next chunk is asked for: what came before has passed the policy."""

    def __init__(self, stream: ScriptedStream, watch: Callable[[], object]) -> None:
        super().__init__((), sent=stream.sent)
        self._stream = stream
        self._watch = watch

    async def __anext__(self) -> Chunk:
        waits = self._watch()
        if asyncio.iscoroutine(waits):
            await waits
        return await self._stream.__anext__()

    async def aclose(self) -> None:
        """Close the stream under it."""
        await self._stream.aclose()
        await super().aclose()


class _Together(ScriptedStream):
    """A stream that gives runs as they are (a `RunStream`)."""

    def __init__(self, stream: ScriptedStream, steps: Sequence[Step | Run]) -> None:
        super().__init__((), sent=stream.sent)
        self._stream = stream
        self._left = deque(steps)

    async def __anext__(self) -> Chunk:
        item = await self.next_run()
        if not isinstance(item, Run):
            return item
        first, *rest = item.chunks()
        self._left.extendleft(reversed(rest))
        return first

    async def next_run(self) -> Chunk | Run:
        """Return the next chunk or run."""
        item = self.take_ready()
        if item is None:
            raise StopAsyncIteration
        return item

    def take_ready(self) -> Chunk | Run | None:
        """Return the next chunk or run; only the end is waited for."""
        item = self._left.popleft() if self._left else None
        if isinstance(item, Exception):
            raise item
        return None if isinstance(item, asyncio.Event) else item

    async def aclose(self) -> None:
        """Close the stream under it."""
        self._left.clear()
        await self._stream.aclose()
        await super().aclose()


@dataclass(slots=True)
class Stage:
    """Makes the policy, runs cases through it, and counts them."""

    make: Callable[[], Composable]
    judges: Judges = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    settings: StreamSettings | None = None
    approvals: Callable[[], Approvals] | None = None
    """Makes the desk of one run, at which persons decide."""
    runs: int = 0

    async def run(
        self,
        case: Case,
        *,
        watch: Callable[[], object] | None = None,
        policy: Composable | None = None,
        together: bool | None = None,
    ) -> PolicyRun:
        """Run a case through the policy, or through the one given. Raises `ValueError` for an answer that is not legal.

        `together` says whether its fragments come as runs; by default they do every second time, and never with `watch`.

        Raises `LookupError` for a judge that has nothing to say: the model's own answer in its place would prove nothing.
        """
        if together is None:
            together = watch is None and self.runs % 2 == 1
        steps = decoded(events_of(case.cut.of(case.answer), case.provider), case.provider, together=together)
        return await self.play(case, steps, watch=watch, policy=policy)

    async def play(
        self,
        case: Case,
        steps: Sequence[Chunk | Run],
        *,
        watch: Callable[[], object] | None = None,
        policy: Composable | None = None,
    ) -> PolicyRun:
        """Run chunks in the place of the case's answer."""
        self.runs += 1
        backend = ProofBackend(steps, wire=case.provider, judges=self.judges, watch=watch)
        used = self.make() if policy is None else policy
        run = await run_policy(
            used,
            backend,
            client=case.client,
            stream=case.stream,
            request=self.request,
            settings=self.settings,
            approvals=self.approvals() if self.approvals is not None else None,
        )
        for call in run.record.calls if run.record is not None else ():
            if call.model not in self.judges:
                msg = f"{call.policy} asks the model {call.model!r}: say with `judges` what it answers"
                raise LookupError(msg)
        return run


def handles_of(policy: Composable) -> dict[BlockKind, Handling]:
    """Return how a policy handles each kind; of several the one that may change most."""
    if isinstance(policy, Policy):
        return dict(policy.handles)
    found: dict[BlockKind, Handling] = {}
    for inner in (policy.policy,) if isinstance(policy, Governed) else policy.policies:
        for kind, handling in handles_of(inner).items():
            found[kind] = handling if isinstance(handling, Transform) else found.get(kind, handling)
    return found


def events_of(answer: Answer, provider: WireName) -> list[bytes]:
    """Return the events of an answer as its provider writes them."""
    return RENDERERS[provider].events(answer, _ASKED)


@overload
def decoded(events: Sequence[bytes], provider: WireName, *, together: Literal[False] = False) -> list[Chunk]: ...
@overload
def decoded(events: Sequence[bytes], provider: WireName, *, together: bool) -> Sequence[Chunk | Run]: ...
def decoded(events: Sequence[bytes], provider: WireName, *, together: bool = False) -> Sequence[Chunk | Run]:
    """Return the chunks that the package reads from a provider's events; with `together` as runs where that goes."""
    decoder = (AnthropicDecoder if provider == "anthropic" else OpenAIDecoder)(_FRAME_BYTES, 1_700_000_000)
    data = b"".join(events)
    if together:
        read = [*decoder.feed_runs(data), *decoder.finish()]
        return [item.made_by(build_chunk) if isinstance(item, Run) else build_chunk(item) for item in read]
    found = [part for at in range(0, len(data), _PACKET) for part in decoder.feed(data[at : at + _PACKET])]
    return [build_chunk(part) for part in (*found, *decoder.finish())]
