"""Several answers to one request, of which the client gets one.

Strategy: what tells a client who answers (the first chunk, the role) leaves with the first answer, and no other's ever does: a
stream has one identity. Content waits for the last verdict, or with `rest` only what has not left is taken from a new answer.
Usage is that of all answers together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunk_edits import with_usage
from luthien_asgi.chunks import Chunk, Part, finish_reason_of, openai_fields, provider_fields, read_part, usage_of
from luthien_asgi.errors import BackendError, QueueFullError
from luthien_asgi.held import HeldChunks
from luthien_asgi.lanes import THINKING
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.verdicts import Defer, Resample
from luthien_asgi.wire.anthropic_message import is_unknown
from luthien_asgi.wire.usage import anthropic_usage
from luthien_asgi.writer import Sink, is_of_a_policy

__all__ = ["SampleSink", "Samples", "added"]

_NOTHING: Final[Mapping[str, Any]] = {}


class Samples:
    """Counts the answers of one transaction, and what they used."""

    def __init__(self, model: str, *, limit: int) -> None:
        self.model = model
        """Who writes the answer that streams."""
        self.dropped = 0
        self.spent: Mapping[str, Any] = _NOTHING
        """What the dropped answers used, with OpenAI's names."""
        self.own_spent: Mapping[str, Any] = _NOTHING
        """The same in fields of the provider's own."""
        self.thinking_left = False
        """Whether thinking of an answer that may be dropped has left."""
        self._limit = limit
        self._taken: Counter[int] = Counter()

    def may(self, plan: PolicyPlan, verdict: Resample | Defer) -> bool:
        """Tell whether another answer may be asked for because of this verdict."""
        if self.dropped >= self._limit or self.thinking_left:
            return False
        return self.model != verdict.model if isinstance(verdict, Defer) else self._taken[id(plan)] < verdict.n

    def drop(self, plan: PolicyPlan | None, verdict: Resample | Defer, usage: Mapping[str, Any] | None) -> None:
        """Note that an answer is dropped."""
        self.dropped += 1
        self._taken[id(plan)] += 1
        self.spent = added(self.spent, usage or _NOTHING)
        if isinstance(verdict, Defer):
            self.model = verdict.model


class SampleSink:
    """Stands between the last step and the queue, for a policy that may have answers dropped."""

    def __init__(self, sink: Sink, samples: Samples, *, holds: bool, settings: StreamSettings) -> None:
        self._sink = sink
        self._samples = samples
        self._holds = holds
        self._max_bytes = settings.queue_bytes
        self._held = HeldChunks()
        self._own: Mapping[str, Any] = _NOTHING
        self._left: set[int] = set()
        """The choices of which content has left, so that only calls may follow."""
        self._begun: set[int] = set()
        """The choices that the client knows of, or will."""
        self._finished: set[int] = set()

    async def put(self, chunk: Chunk, part: Part) -> None:
        """Send a chunk on, keep it, or leave it out. Raises `QueueFullError` for an answer too large to be held."""
        if chunk.choices:
            self._begun.add(part.choice)
            if finish_reason_of(chunk) is not None:
                self._finished.add(chunk.choices[0].index)
        if part.kind is None and finish_reason_of(chunk) is None and usage_of(chunk) is None:
            if self._holds and part.event is not None and is_unknown(part.event):
                self._hold(chunk, part)
            elif not self._samples.dropped:
                await self._sink.put(chunk, part)
            return
        if usage_of(chunk) is not None:
            chunk = self._with_all_usage(chunk)
        if self._holds:
            self._hold(chunk, part)
            return
        if self._samples.dropped and part.choice in self._left and _is_rest_of(part):
            return
        if part.kind is not None and not self._samples.dropped:
            self._left.add(part.choice)
            self._samples.thinking_left |= part.kind in THINKING
        await self._sink.put(chunk, part)

    def offer(self, chunk: Chunk, text: str) -> bool:
        """Never take a short cut: each chunk is looked at."""
        del chunk, text
        return False

    def takes_run(self, run: Run) -> bool:
        """Never take a run: each chunk is looked at."""
        del run
        return False

    def put_run(self, run: Run) -> None:
        """Take none."""

    async def end_text(self, choice: int) -> None:
        """Do nothing: what follows says it to the client."""

    async def release(self) -> None:
        """Send on what was held: the answer is the client's. Raises `BackendError` where it lacks a choice that has begun."""
        if self._samples.dropped and self._begun - self._finished:
            msg = "The provider's new answer has fewer choices than the one that was dropped."
            raise BackendError(msg)
        held, self._held = self._held, HeldChunks()
        for chunk in held:
            await self._sink.put(chunk, read_part(chunk))

    def drop(self) -> None:
        """Forget what was held."""
        self._held = HeldChunks()
        self._finished.clear()
        self._samples.own_spent = added(self._samples.own_spent, self._own)
        self._own = _NOTHING

    def _hold(self, chunk: Chunk, part: Part) -> None:
        self._held.append(chunk, part)
        if self._held.size > self._max_bytes:
            msg = "The answer holds more content for a policy's verdict than the limit allows."
            raise QueueFullError(msg)

    def _with_all_usage(self, chunk: Chunk) -> Chunk:
        self._own = openai_fields(chunk).get("usage") or self._own
        if not self._samples.dropped:
            return chunk
        spent, rider = self._samples.spent, dict(provider_fields(chunk))
        if isinstance(event := rider.get("anthropic"), Mapping) and isinstance(event.get("usage"), Mapping):
            before = {name: value for name, value in anthropic_usage(spent).items() if name in event["usage"]}
            rider["anthropic"] = {**event, "usage": added(before, event["usage"])}
        if extras := openai_fields(chunk):
            rider["openai"] = {**extras, "usage": added(self._samples.own_spent, extras.get("usage", _NOTHING))}
        return with_usage(chunk, added(spent, usage_of(chunk) or _NOTHING), rider)


def _is_rest_of(part: Part) -> bool:
    """Tell whether a chunk belongs to what the client has of another answer already: all but calls, and what a policy says."""
    return part.kind not in {None, BlockKind.TOOL_CALL} and not is_of_a_policy(part)


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return two usages added up: numbers of the same name, at any depth; of anything else the later one's."""
    found = dict(one)
    for name, value in other.items():
        known = found.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            found[name] = added(known, value)
        elif _is_number(value) and _is_number(known):
            found[name] = known + value
        elif value is not None:
            found[name] = value
    return found


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
