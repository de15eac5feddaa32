"""One case through decoder, executor and encoder, without a network, a clock or a thread.

Strategy: the real parts in the order in which the middleware puts them, on an event loop that counts its steps. Nothing here
waits for the outside, so a loop that has nothing ready hangs for ever: that is seen at once and exactly, and no time is measured.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from fuzz_policies import POLICIES

from luthien_asgi.backend.chunks import build
from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.backend.stream import BodySource, ChunkStream, RawSource, StreamInfo
from luthien_asgi.context import NullObservability, PolicyContext
from luthien_asgi.errors import ApiError
from luthien_asgi.executor import PolicyExecutor
from luthien_asgi.formatter import ClientFormatter, FinalBlocks
from luthien_asgi.hooks import HookCaller
from luthien_asgi.opening import BackendOpening
from luthien_asgi.orchestrator import PolicyOrchestrator
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.queues import End, Failed, StreamQueue
from luthien_asgi.recorder import Begin, Transaction
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.anthropic import AnthropicWire
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.bodies import anthropic_body_chunks, openai_body_chunks
from luthien_asgi.wire.decoding import parse
from luthien_asgi.wire.openai import OpenAIWire
from luthien_asgi.wire.openai_decoder import OpenAIDecoder
from luthien_asgi.wire.responses import ResponsesWire

__all__ = ["CLIENTS", "Case", "Driver", "HangError", "Outcome"]

_STEPS: Final = 200_000
"""Steps of the event loop; a case of a hundred events takes a few hundred."""
_SETTINGS: Final = StreamSettings()
_DECODERS: Final[Mapping[str, Any]] = {"openai": OpenAIDecoder, "anthropic": AnthropicDecoder}
_BODIES: Final[Mapping[str, Any]] = {"openai": openai_body_chunks, "anthropic": anthropic_body_chunks}
_WIRES: Final[Mapping[str, Any]] = {"openai": OpenAIWire(), "anthropic": AnthropicWire(), "responses": ResponsesWire()}
_MESSAGES: Final = [{"role": "user", "content": "x"}]
_REQUESTS: Final[Mapping[str, dict[str, Any]]] = {
    "openai": {"model": "m", "messages": _MESSAGES, "n": 3, "stream_options": {"include_usage": True}},
    "anthropic": {"model": "m", "messages": _MESSAGES, "max_tokens": 64},
    "responses": {"model": "m", "input": "x", "tools": [{"type": "custom", "name": "get_weather"}]},
}
CLIENTS: Final = tuple(_WIRES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One stream, and how it is asked for."""

    backend: str
    client: str
    stream: bool
    policy: str
    packets: Sequence[bytes]
    trail: Sequence[str] = ()
    room: int = 10_000
    """Items in each of the two queues."""
    apart: bool = False
    """Whether the provider's events are read one by one, so that nothing travels as a run."""
    whole: bool = False
    """Whether the packets are one JSON body, of a provider that does not stream."""


@dataclass(slots=True)
class Outcome:
    """What became of a case: frames, a body, or an error that came before either."""

    frames: list[bytes] = field(default_factory=list)
    body: dict[str, Any] | None = None
    error: ApiError | None = None
    judged: list[str] = field(default_factory=list)
    """What the blocks of the backend were, as a policy sees them."""
    record: list[str] = field(default_factory=list)
    """What else the record holds: what left, the usage, the notes, the verdicts."""
    escapes: list[str] = field(default_factory=list)
    """What was logged as an error of ours, and exceptions that are not an `ApiError`."""


class HangError(RuntimeError):
    """Nothing will ever happen again, or too much does."""


class _Loop(asyncio.SelectorEventLoop):
    """Counts its steps, and never waits."""

    steps = 0

    def _run_once(self) -> None:
        self.steps += 1
        ready: Any = getattr(self, "_ready", ())
        if not ready:
            raise HangError("nothing is ready, and nothing ever will be")
        if self.steps > _STEPS:
            raise HangError(f"not done after {_STEPS} steps")
        super()._run_once()  # type: ignore[misc]  # the loop's own step


class _Escapes(logging.Handler):
    """Takes what the package logs as its own error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.outcome = Outcome()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception that goes with the record."""
        error = record.exc_info[1] if record.exc_info else None
        self.outcome.escapes.append(f"{record.getMessage()}: {error!r}")


class _Response:
    """As much of an HTTP response as is read of one."""

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.stream = self._sent(packets)

    async def _sent(self, packets: Sequence[bytes]) -> AsyncIterator[bytes]:
        for packet in packets:
            yield packet

    async def aclose(self) -> None:
        """Do nothing."""


class _Backend:
    """Opens the case's stream."""

    def __init__(self, case: Case) -> None:
        self._case = case

    async def start(self) -> None:
        """Be ready."""

    async def open(self, call: BackendCall) -> ChunkStream:
        wire: Any = self._case.backend
        info = StreamInfo(wire=wire, decoder=wire, headers={}, sent={}, ignored=(), notes=(), close_timeout=1.0)
        if self._case.whole:
            return ChunkStream(BodySource(_BODIES[wire](parse(b"".join(self._case.packets)), 7)), info)
        decoder = _DECODERS[wire](1 << 20, 7)
        if self._case.apart:
            decoder._tries = 1 << 30  # it expects no event to be like another
        return ChunkStream(RawSource(_Response(self._case.packets), decoder), info)


class Driver:
    """Runs cases one after the other on one loop."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._escapes = _Escapes()
        self._log = logging.getLogger("luthien_asgi")
        self._log.addHandler(self._escapes)
        self._log.propagate = False

    def run(self, case: Case) -> Outcome:
        """Return what became of a case. Raises `HangError`."""
        outcome = self._escapes.outcome = Outcome()
        self._loop.steps = 0
        try:
            self._loop.run_until_complete(_answered(case, outcome))
        except HangError:
            self._loop = _Loop()
            raise
        except Exception as error:
            outcome.escapes.append(repr(error))
        return outcome

    def close(self) -> None:
        """Give the log back."""
        self._log.removeHandler(self._escapes)
        self._log.propagate = True
        self._loop.close()


async def _answered(case: Case, outcome: Outcome) -> None:
    wire: Any = case.client
    request = ChatRequest(wire=wire, body={**_REQUESTS[wire], "stream": case.stream})
    ctx = PolicyContext(transaction_id="t1", request=request)
    begin = Begin(id="t1", at=0.0, wire=wire, path="/", model="m", stream=case.stream, client="", request=request.body)
    log = Transaction(begin)
    backend: Any = _Backend(case)
    async with asyncio.TaskGroup() as tasks:
        opening = BackendOpening(backend, BackendCall(request=request), settings=_SETTINGS, log=log)
        opening.start(tasks)
        await opening.wait(60.0)
        if opening.error is not None:
            outcome.error = opening.error
        else:
            await _through(case, opening, ctx, log, outcome)
        await opening.aclose()
    outcome.judged = [repr(block) for block in log.backend_blocks]
    verdicts = [replace(verdict, seconds=0.0) for verdict in log.verdicts]
    said = (log.final_blocks, log.usage, log.notes, log.ignored, log.finish_reasons, log.unchecked, verdicts)
    outcome.record = [repr(each) for each in said]
    if outcome.error is not None:
        outcome.body = _WIRES[wire].error_body(outcome.error, request_id="t1")


async def _through(case: Case, opening: BackendOpening, ctx: PolicyContext, log: Transaction, outcome: Outcome) -> None:
    executor = PolicyExecutor(
        pipeline=Pipeline.of(POLICIES[case.policy]),
        hooks=HookCaller(timeout=60.0, threads=1),
        make_chunk=build,
        settings=_SETTINGS,
    )
    encoder = _WIRES[case.client].encoder(ctx.request, settings=_SETTINGS, id="t1", created=7)
    formatter = ClientFormatter(encoder=encoder, settings=_SETTINGS, final=FinalBlocks(log, wanted=True))
    obs = NullObservability()
    if not case.stream:
        orchestrator = PolicyOrchestrator(executor=executor, formatter=formatter, settings=_SETTINGS)
        try:
            outcome.body = await orchestrator.collect(opening, ctx=ctx, obs=obs, log=log)
        except ApiError as error:
            outcome.error = error
        return
    out, sse = (StreamQueue[Any](max_items=case.room, max_bytes=1 << 26, timeout=60.0) for _ in range(2))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(executor.process(opening, out, client=ctx.request.wire, ctx=ctx, obs=obs, log=log))
        tasks.create_task(formatter.process(out, sse, obs=obs))
        while not isinstance(item := await sse.get(), End | Failed):
            outcome.frames.append(item)
