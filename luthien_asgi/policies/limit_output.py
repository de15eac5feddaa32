"""A policy that bounds an answer: its length, its blocks and its tool calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk, Part, read_part
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.policies.checks import checked_choice, checked_count, checked_message
from luthien_asgi.policy import Allow, Deny, Handling, Hold, Observe, Policy, Replace, Stop, Transform, Verdict
from luthien_asgi.request import ChatRequest

__all__ = ["LimitOutput"]

_MESSAGE: Final = "[The answer was cut off here: it is longer than allowed.]"
_BYTES: Final = 4
"""Bytes of UTF-8 that count as a token: what English text and code come to, roughly, with every tokenizer in use."""
_LEAST_THINKING: Final = 1024
"""The smallest `thinking.budget_tokens` (Anthropic API reference)."""
_CALL: Final = BlockKind.TOOL_CALL
_SPOKEN: Final = frozenset({BlockKind.TEXT, BlockKind.REFUSAL})


class LimitOutput(Policy):
    """Cut an answer that grows beyond a limit, and say so in it.

    - `tokens`: text, thinking, refusals and tool arguments together, estimated while they stream: four bytes of UTF-8 count as
      one token. Text is cut at the limit, wherever the provider cut it; a call that goes beyond it is denied; thinking cannot be
      cut, so the answer ends after it.
    - `tool_calls`: calls beyond that number are denied. `blocks`: texts, thoughts, refusals and calls beyond that number.
    - `per`: `choice` (each of OpenAI's `n` choices has the limits to itself) or `answer` (they share them).
    - `max_tokens`: what a request may ask for; what is more, or not said, is set to it (and the budget for thinking below it).
      The provider counts that exactly, and ends the answer itself: it is what bounds the cost. The others bound what is seen:
      the rest of a text that was cut is still read, up to its end.
    - `message` is the text at which the answer ends, or that stands for the calls that were denied.

    Where there is one choice, or all share the limits, the answer ends with the text that was cut, and calls before it are not
    made. Otherwise that choice says no more, and the others go on. A refusal is cut without a message. Blocks of tools that ran
    at the provider are not counted.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {
        BlockKind.TEXT: Transform(),
        BlockKind.REFUSAL: Transform(),
        BlockKind.THINKING: Observe(),
        BlockKind.REDACTED_THINKING: Observe(),
        BlockKind.TOOL_CALL: Hold(),
    }
    verdicts = (Allow, Deny, Replace, Stop)

    def __init__(
        self,
        *,
        tokens: int | None = None,
        tool_calls: int | None = None,
        blocks: int | None = None,
        max_tokens: int | None = None,
        per: str = "choice",
        message: str = _MESSAGE,
    ) -> None:
        self.tokens = checked_count(tokens, "tokens")
        self.tool_calls = checked_count(tool_calls, "tool_calls")
        self.blocks = checked_count(blocks, "blocks")
        self.max_tokens = checked_count(max_tokens, "max_tokens")
        if self.tokens is self.tool_calls is self.blocks is self.max_tokens is None:
            msg = "give tokens, tool_calls, blocks or max_tokens: without any of them nothing is limited"
            raise ValueError(msg)
        if self.max_tokens == 0:
            msg = "max_tokens must be at least 1: providers refuse less"
            raise ValueError(msg)
        self.per = checked_choice(per, "per", ("choice", "answer"))
        self.message = checked_message(message)

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest | None:
        """Lower what the request asks for to `max_tokens`."""
        del ctx
        return None if self.max_tokens is None else _capped(request, self.max_tokens)

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Count, and let of a text go on what is within the limit."""
        part = read_part(chunk)
        count = self._count(ctx, part.choice)
        if part.kind is _CALL:
            self._note_call(count, part)
            return None
        if part.kind not in _SPOKEN:
            count.spent += _cost(part.text)
            return None
        if not count.over and self.blocks is not None and count.begun >= self.blocks:
            count.over = "blocks"
        kept = "" if count.over else self._within(count, part.text)
        count.spent += _cost(part.text)
        if not count.over and kept == part.text:
            return None
        count.over = count.over or "tokens"
        return (with_text(chunk, kept),) if kept or part.phase == "open" else ()

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Say in a choice that goes on beside others why it says no more."""
        count = self._count(ctx, block.choice)
        if not count.over or count.said or self._stops(ctx) or block.kind is not BlockKind.TEXT:
            return None
        count.said = True
        return (ctx.text(self.message),)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        """Deny calls beyond the limits; end the answer after a text or a thought that went beyond one."""
        count = self._count(ctx, block.choice)
        if block.kind is _CALL:
            return self._call_verdict(count, f"{block.choice} {block.id}")
        count.ended += 1
        if not count.over and self.blocks is not None and count.begun > self.blocks:
            count.over = "blocks"
        if not count.over and self._is_spent(count):
            count.over = "tokens"
        if not count.over or block.kind is BlockKind.REFUSAL or not self._stops(ctx):
            return None  # a refusal is an end of its own: formats do not agree on where a text beside it stands
        return Stop(self.message, reason=f"more {count.over} than allowed")

    # --- counting -----------------------------------------------------------------------------------------------------

    def _counts(self) -> dict[int, _Count]:
        """Make one transaction's state: what has come of each choice."""
        return {}

    def _count(self, ctx: PolicyContext, choice: int) -> _Count:
        return ctx.state(self._counts).setdefault(choice if self.per == "choice" else 0, _Count())

    def _stops(self, ctx: PolicyContext) -> bool:
        return self.per == "answer" or ctx.request.choices == 1

    def _is_spent(self, count: _Count) -> bool:
        return self.tokens is not None and count.spent > self.tokens * _BYTES

    def _within(self, count: _Count, text: str) -> str:
        return text if self.tokens is None else _cut(text, self.tokens * _BYTES - count.spent)

    def _note_call(self, count: _Count, part: Part) -> None:
        """Note what a call's fragment means, in the stream's order: judges may run in another one."""
        where = (part.choice, part.source)
        if part.id or where not in count.open:
            count.open[where] = self._open_call(count, part)
        name = count.open[where]
        count.spent += _cost(part.text)
        if self._is_spent(count):
            count.late.setdefault(name, "tokens")

    def _open_call(self, count: _Count, part: Part) -> str:
        name = f"{part.choice} {part.id}"
        if count.open.get((part.choice, part.source)) == name:
            return name
        reason = count.over
        if self.blocks is not None and count.begun >= self.blocks:
            reason = "blocks"
        if self.tool_calls is not None and count.calls >= self.tool_calls:
            reason = "tool_calls"
        count.calls += 1
        if reason:
            count.late.setdefault(name, reason)  # of two calls with one id both are late if one is
        count.names.add(name)
        return name

    def _call_verdict(self, count: _Count, name: str) -> Verdict | None:
        limit = count.late.get(name) if name in count.names else "tool_calls"
        if limit is None:
            return None
        reason = f"more {limit} than allowed"
        is_first = next(iter(count.late), name) == name
        return Deny(self.message, reason=reason) if is_first else Replace((), reason=reason)  # it is said once


@dataclass(slots=True)
class _Count:
    """What has come of one choice, or of all."""

    spent: int = 0
    """Bytes."""
    ended: int = 0
    """Blocks that ended and are no calls."""
    calls: int = 0
    """Calls that began."""
    over: str = ""
    """The limit that a text went beyond: nothing is said after it."""
    said: bool = False
    names: set[str] = field(default_factory=set)
    """The calls by choice and id."""
    open: dict[tuple[int, Any], str] = field(default_factory=dict)
    """The call that a fragment without an id belongs to, by choice and place."""
    late: dict[str, str] = field(default_factory=dict)
    """The calls beyond a limit, and which one, in the order in which they went beyond it."""

    @property
    def begun(self) -> int:
        """Blocks before the one that is being written, if that is no call."""
        return self.ended + self.calls


def _cost(text: str) -> int:
    """Return a text's bytes in UTF-8; the first half of a split pair counts for both, so that it does not matter who split it."""
    if text.isascii():
        return len(text)
    halves = sum(1 if character < "\udc00" else -3 for character in text if "\ud800" <= character <= "\udfff")
    return len(text.encode("utf-8", "surrogatepass")) + halves


def _cut(text: str, room: int) -> str:
    """Return the longest beginning of a text that takes no more than so many bytes."""
    if _cost(text) <= room:
        return text
    for place, character in enumerate(text):
        room -= _cost(character)
        if room < 0:
            return text[:place]
    return text


def _capped(request: ChatRequest, limit: int) -> ChatRequest | None:
    names = [name for name in ("max_completion_tokens", "max_tokens", "max_output_tokens") if request.body.get(name) is not None]
    usual = {"openai": "max_completion_tokens", "anthropic": "max_tokens", "responses": "max_output_tokens"}[request.wire]
    changed = request
    for name in names or [usual]:
        given = request.body.get(name)
        if not isinstance(given, int) or given > limit:
            changed = changed.with_field(name, limit)
    thinking = request.body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    if isinstance(budget, int) and budget >= limit and isinstance(thinking, Mapping):
        enough = limit > _LEAST_THINKING
        changed = changed.with_field("thinking", {**thinking, "budget_tokens": limit - 1} if enough else {"type": "disabled"})
    return changed if changed is not request else None
