"""Policies: what a user of the package writes.

A policy names the kinds of block it cares about in `handles` and overrides the hooks it needs. `None` from a hook means "no
opinion". One policy object serves all requests at once: its fields are configuration; what belongs to one transaction lives in
`ctx`. Hooks may be plain functions; one decorated with `@blocking` runs in a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk

if TYPE_CHECKING:
    from luthien_asgi.context import PolicyContext, StreamContext
    from luthien_asgi.errors import ApiError
    from luthien_asgi.request import ChatRequest

__all__ = [
    "Allow",
    "Deny",
    "Handling",
    "Hold",
    "Observe",
    "Policy",
    "Replace",
    "Stop",
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


@dataclass(frozen=True, slots=True)
class Allow:
    """The block goes on as it came."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Replace:
    """These blocks go on instead. Only for a kind that is held."""

    blocks: Sequence[Block]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """The block does not reach the client, which sees `message` as text. From `on_request`: the request is refused with a 403."""

    message: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """The answer ends here; the client sees `message` as text. What came before has left."""

    message: str
    reason: str = ""


Verdict = Allow | Replace | Deny | Stop

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_BLOCKING: Final = "__luthien_blocking__"


def blocking(hook: _Hook) -> _Hook:
    """Mark a plain (not async) hook as one that may block: it runs in a bounded thread pool and not on the event loop."""
    setattr(hook, _BLOCKING, True)
    return hook


def is_blocking(hook: Callable[..., Any]) -> bool:
    """Tell whether a hook was marked with `@blocking`."""
    return bool(getattr(hook, _BLOCKING, False))


class Policy:
    """The hooks, each with its promise. Override what is needed; a hook that is not overridden costs nothing.

    Every transaction ends in exactly one of `on_stream_complete` and `on_error`, also when the client asked for `stream: false`:
    there is one path.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {}
    """How each kind of block is handled. Kinds that are not named pass by without a hook being called."""

    def on_request(
        self, request: ChatRequest, ctx: PolicyContext
    ) -> Awaitable[ChatRequest | Deny | None] | ChatRequest | Deny | None:
        """See the request before the backend is called; return a changed one, `Deny`, or None.

        A `Deny` reaches the client as an error with status 403, and the backend is never called.
        """

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Awaitable[Iterable[Chunk] | None] | Iterable[Chunk] | None:
        """See one chunk of a handled block as it arrives.

        For a `Transform` kind the returned chunks go on instead of it (an empty iterable keeps it back); None lets it pass. For
        `Observe` and `Hold` the result is ignored. `luthien_asgi.with_text(chunk, text)` gives a changed copy.
        A chunk may hold side data of the block (a citation, annotations, logprobs) and no text.
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
