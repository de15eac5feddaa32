"""Policies: what a user of the package writes.

A policy names the kinds of block it cares about in `handles` and overrides the hooks it needs. `None` from a hook means "no
opinion". One policy object serves all requests at once: its fields are configuration; what belongs to one transaction lives in
`ctx`. Hooks may be plain functions; one decorated with `@blocking` runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk
from luthien_asgi.verdicts import Allow, Defer, Deny, Escalate, Replace, Resample, Stop, Verdict

if TYPE_CHECKING:
    from luthien_asgi.context import PolicyContext, StreamContext
    from luthien_asgi.errors import ApiError
    from luthien_asgi.request import ChatRequest
    from luthien_asgi.runs import Run

__all__ = [
    "Allow",
    "Defer",
    "Deny",
    "Escalate",
    "Handling",
    "Hold",
    "Observe",
    "Policy",
    "Replace",
    "Resample",
    "Stop",
    "ThreadWork",
    "Transform",
    "Verdict",
    "blocking",
]


@dataclass(frozen=True, slots=True)
class Observe:
    """The policy sees the block's chunks as they pass; they leave at once."""


@dataclass(frozen=True, slots=True)
class Transform:
    """What `on_chunk_added` and `on_block_end` return goes on instead of the chunk."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing of the block leaves before `on_block_complete` gave its verdict."""


Handling = Observe | Transform | Hold


_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_BLOCKING: Final = "__luthien_blocking__"


def blocking(hook: _Hook) -> _Hook:
    """Mark a plain (not async) hook as one that may block: it runs in a bounded thread pool and not on the event loop."""
    setattr(hook, _BLOCKING, True)
    return hook


def is_blocking(hook: Callable[..., Any]) -> bool:
    """Tell whether a hook was marked with `@blocking`."""
    return bool(getattr(hook, _BLOCKING, False))


_Result = TypeVar("_Result")


class ThreadWork(Generic[_Result]):
    """What a plain hook returns whose work may be small or large, when it is large: the work, for a thread of the hooks.

    `call` does it and returns what the hook would have; `stop` is called when nobody waits for it any more, and has it end.
    """

    __slots__ = ("call", "stop")

    def __init__(self, call: Callable[[], _Result], stop: Callable[[], None]) -> None:
        self.call = call
        self.stop = stop

    def __await__(self) -> Generator[Any, Any, _Result]:
        """Wait for it outside of the hooks' own threads, where something else than their caller does."""
        try:
            return (yield from asyncio.to_thread(self.call).__await__())
        finally:
            self.stop()


class Policy:
    """The hooks, each with its promise. Override what is needed; a hook that is not overridden costs nothing.

    Every transaction ends in exactly one of `on_stream_complete` and `on_error`, also when the client asked for `stream: false`:
    there is one path.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {}
    """How each kind of block is handled. Kinds that are not named pass by without a hook being called."""

    verdicts: Collection[type[Verdict]] = (Allow, Replace, Deny, Stop)
    """What `on_block_complete` may return; anything else is an error. A policy that names fewer costs less and goes together with
    more others; one that names `Resample` or `Defer` has the whole answer held until its last block is judged."""

    rest: bool = False
    """With `Resample` or `Defer`: text leaves as it comes, and only what has not left (tool calls) is taken from the new answer.
    Where thinking has left, the calls are denied instead: those of one answer do not go with the thinking of another."""

    asks: Sequence[str] = ()
    """The models of the configuration that the policy asks or defers to; one that is not there is refused at the start."""

    def on_request(
        self, request: ChatRequest, ctx: PolicyContext
    ) -> Awaitable[ChatRequest | Deny | None] | ChatRequest | Deny | None:
        """See the request before the backend is called; return a changed one, `Deny`, or None.

        A `Deny` reaches the client as an error with status 403, and the backend is never called. Where the hook runs `concurrent`
        it is being called already, and a client that has pings by then gets the error event.
        """

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Awaitable[Iterable[Chunk] | None] | Iterable[Chunk] | None:
        """See one chunk of a handled block as it arrives.

        For a `Transform` kind the returned chunks go on instead of it (an empty iterable keeps it back); None lets it pass. For
        `Observe` and `Hold` the result is ignored. `luthien_asgi.with_text(chunk, text)` gives a changed copy.
        A chunk may hold side data of the block (a citation, annotations, logprobs) and no text.
        """

    def on_run_added(self, run: Run, ctx: StreamContext) -> Sequence[str] | None:
        """See several chunks of a `Transform` block that came together: what `on_chunk_added` would do with each, at once.

        It is for speed. Override it beside `on_chunk_added` and to the same effect: that is still called for every chunk that
        comes alone, with logprobs, citations or the like, or in a class that overrides it and not this. `run.texts` are the
        chunks' texts in their order, `run.part.choice` and `run.part.kind` say where they belong. Return a list or tuple of the
        texts that go on instead, one chunk each (an empty text is left out, so an empty list keeps all back); None lets the run
        pass. Anything else ends the answer. A plain function: not `async`, not `@blocking`.
        """

    def on_block_end(self, block: Block, ctx: StreamContext) -> Awaitable[Iterable[Chunk] | None] | Iterable[Chunk] | None:
        """Flush what was kept back of a `Transform` block, before the block closes. `ctx.text(...)` makes a chunk."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Awaitable[Verdict | None] | Verdict | None:
        """Judge one whole block, as the provider wrote it. Called exactly once for each block of a handled kind.

        Nothing of a `Hold` block has left before the verdict. For `Observe` and `Transform` kinds what left has left, and
        `Deny` means "stop here".
        """

    def on_stream_complete(self, ctx: StreamContext) -> Awaitable[Iterable[Chunk] | None] | Iterable[Chunk] | None:
        """See the end of the answer; text chunks returned here are placed where the wire allows it (before tool calls)."""

    def on_error(self, error: ApiError, ctx: PolicyContext) -> Awaitable[None] | None:
        """See what ended a transaction that failed. Observe only: the error reaches the client whatever happens here."""
