"""Writes what goes on to the client into the queue, and makes the chunks that a policy adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from luthien_asgi.assembler import OpenBlock
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk, ChunkFactory, Part, content_size, text_size
from luthien_asgi.errors import BackendError, PolicyError
from luthien_asgi.queues import StreamQueue
from luthien_asgi.runs import Run

__all__ = ["ChunkMaker", "QueueSink", "Sink", "is_of_a_policy"]


class Sink(Protocol):
    """Where chunks go: the next step's answer, or the queue to the client."""

    async def put(self, chunk: Chunk, part: Part) -> None:
        """Send a chunk on; `part` is what it says. Raises `ApiError` for what cannot go on."""
        ...

    def offer(self, chunk: Chunk, text: str) -> bool:
        """Send a chunk that holds nothing but text on if that can be done at once; tell whether it was."""
        ...

    def takes_run(self, run: Run) -> bool:
        """Tell whether a run like this one could be put now: there is room, and nobody wants its chunks one by one."""
        ...

    def put_run(self, run: Run) -> None:
        """Send a run on at once. Only after `takes_run` was true of one with the same part. Raises `ApiError`."""
        ...

    async def end_text(self, choice: int) -> None:
        """Say that the text, thinking or refusal of a choice that has no boundary of its own is over."""
        ...


class QueueSink:
    """Puts chunks into `policy_out`, and bounds the answer as a whole."""

    def __init__(self, out: StreamQueue[Chunk | Run], *, max_bytes: int) -> None:
        self._out = out
        self._size = 0
        self._max_bytes = max_bytes

    async def put(self, chunk: Chunk, part: Part) -> None:
        """Send a chunk on. Raises `QueueFullError`, and `BackendError` beyond `max_bytes`."""
        size = content_size(part, chunk)
        self._count(size)
        if not self._out.offer(chunk, size):
            await self._out.put(chunk, size)

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._max_bytes:
            msg = "The answer is larger than one answer may be."
            raise BackendError(msg)

    def offer(self, chunk: Chunk, text: str) -> bool:
        """Send a chunk that holds nothing but text on if there is room for it now; tell whether there was."""
        size = text_size(text)
        if self._size + size > self._max_bytes or not self._out.offer(chunk, size):
            return False
        self._size += size
        return True

    def takes_run(self, run: Run) -> bool:
        """Tell whether there is room."""
        return self._size + run.size <= self._max_bytes and self._out.has_room(run.size, len(run))

    def put_run(self, run: Run) -> None:
        """Send a run on. A policy may have made it longer than it was when there was room: it goes on nevertheless.

        Raises `BackendError` beyond `max_bytes`.
        """
        self._count(run.size)
        self._out.hand(run, run.size, len(run))

    async def end_text(self, choice: int) -> None:
        """Do nothing: what follows says it to the client."""


class ChunkMaker:
    """Makes chunks with the identity of the stream, or the transaction's where the backend has not given one yet.

    One for all steps of a transaction: the blocks that policies write have numbers of their own, and none has another's.
    """

    def __init__(self, make_chunk: ChunkFactory, *, fallback_id: str, model: str, created: int) -> None:
        self._make_chunk = make_chunk
        self._identity = {"id": fallback_id, "created": created, "model": model}
        self._made = 0

    def adopt(self, chunk: Chunk) -> None:
        """Take the identity of the backend's stream from its first chunk."""
        if chunk.id:
            self._identity["id"] = chunk.id
            self._identity["created"] = chunk.created
        self._identity["model"] = chunk.model or self._identity["model"]

    def fragment(self, block: OpenBlock, text: str) -> Chunk:
        """Return a chunk with more of a block that is being written. Raises `PolicyError` for thinking and other kinds."""
        rider = {"kind": str(block.kind), "phase": "delta", "index": block.source} if block.bounded else None
        return self._chunk(block.choice, _delta(block, text), rider)

    def plain_text(self, text: str, choice: int = 0) -> Chunk:
        """Return a text chunk that belongs to no block of the backend's."""
        return self._chunk(choice, {"content": text}, None)

    def finish(self, choice: int, reason: str) -> Chunk:
        """Return a finish chunk, for an answer that a policy ended."""
        return self._chunk(choice, {}, None, finish_reason=reason)

    def role(self, choice: int) -> Chunk:
        """Return the chunk that begins a choice."""
        return self._chunk(choice, {"role": "assistant"}, None)

    def whole(self, block: Block, choice: int) -> list[Chunk]:
        """Return the chunks of a block that a policy wrote: open, content, close, with a number of its own.

        Raises `PolicyError` for a kind that a policy cannot write: thinking is signed by its provider.
        """
        self._made += 1
        source = -self._made
        rider = {"kind": str(block.kind), "index": source}
        opened, deltas = _written(block, source)
        return [
            self._chunk(choice, opened, {**rider, "phase": "open"}),
            *(self._chunk(choice, delta, {**rider, "phase": "delta"}) for delta in deltas),
            self._chunk(choice, {}, {**rider, "phase": "close"}),
        ]

    def _chunk(
        self, choice: int, delta: dict[str, Any], rider: Mapping[str, Any] | None, *, finish_reason: str | None = None
    ) -> Chunk:
        data: dict[str, Any] = {
            **self._identity,
            "choices": [{"index": choice, "delta": delta, "finish_reason": finish_reason, "logprobs": None}],
        }
        if rider is not None:
            data["provider_specific_fields"] = dict(rider)
        return self._make_chunk(data)


def is_of_a_policy(part: Part) -> bool:
    """Tell whether a chunk is of a block that a policy wrote: their numbers are negative."""
    return part.source is not None and part.source < 0


def _delta(block: OpenBlock, text: str) -> dict[str, Any]:
    if block.kind is BlockKind.TEXT:
        return {"content": text}
    if block.kind is BlockKind.REFUSAL:
        return {"refusal": text}
    if block.kind is BlockKind.TOOL_CALL:
        body = {"custom": {"input": text}} if block.custom else {"function": {"arguments": text}}
        return {"tool_calls": [{"index": block.source or 0, **body}]}
    msg = f"A policy cannot add text to a {block.kind} block."
    raise PolicyError(msg)


def _written(block: Block, source: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block.kind is BlockKind.TEXT:
        return {"content": ""}, [{"content": block.text}]
    if block.kind is BlockKind.REFUSAL:
        return {"refusal": ""}, [{"refusal": block.text}]
    if block.kind is BlockKind.TOOL_CALL:
        return _written_call(block, source)
    msg = f"A policy cannot write a {block.kind} block."
    raise PolicyError(msg)


def _written_call(block: Block, source: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    key, field, type_ = ("custom", "input", "custom") if block.custom else ("function", "arguments", "function")
    opening = {"index": source, "id": block.id, "type": type_, key: {"name": block.name, field: ""}}
    deltas = [{"tool_calls": [{"index": source, key: {field: block.text}}]}] if block.text else []
    return {"tool_calls": [opening]}, deltas
