"""Assembles blocks from chunks, per choice, kind, provider's index and id.

Sans-IO. A provider that draws boundaries (Anthropic) is taken at its word. For the others: text, thinking, refusals and blocks of
kind other end when something else of their choice begins; tool calls may interleave and end at the finish reason; an index that
is reused with another id is another call.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Part
from luthien_asgi.errors import BackendError
from luthien_asgi.halves import joined

__all__ = ["BlockAssembler", "OpenBlock", "Step"]


@dataclass(slots=True, eq=False)
class OpenBlock:
    """A block that is being written."""

    kind: BlockKind
    choice: int
    index: int
    """Position among the blocks of the choice."""
    source: int | None
    bounded: bool
    """Whether the provider itself says where the block ends."""
    id: str = ""
    name: str = ""
    signature: str = ""
    custom: bool = False
    key: tuple[int, int | None] = (0, None)
    """Under which it is found while it is open."""
    fragments: list[str] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    """The provider's own events, where the common format does not hold all of them."""

    def add(self, part: Part) -> None:
        """Take what a chunk says about the block."""
        if part.text:
            self.fragments.append(part.text)
        if part.signature:
            self.signature = part.signature
        self.id = self.id or part.id
        self.name = self.name or part.name
        if part.event is not None and _says_more(part):
            self.events.append(part.event)

    def block(self) -> Block:
        """Return the block as it stands."""
        return Block(
            kind=self.kind,
            text=joined(self.fragments),
            id=self.id,
            name=self.name,
            signature=self.signature,
            choice=self.choice,
            index=self.index,
            custom=self.custom,
            raw={"events": list(self.events)} if self.events else None,
        )


_STANDARD = {
    BlockKind.TEXT: frozenset({"type", "text"}),
    BlockKind.THINKING: frozenset({"type", "thinking", "signature"}),
    BlockKind.REDACTED_THINKING: frozenset({"type", "data"}),
    BlockKind.TOOL_CALL: frozenset({"type", "id", "name", "input"}),
}


_OPENING = frozenset({"type", "index", "content_block"})
"""What an event says that opens a block, beside the block itself."""


def _says_more(part: Part) -> bool:
    """Tell whether a provider's event says more than the common format holds; the opening of an ordinary block does not."""
    if part.kind is BlockKind.OTHER or part.phase != "open" or part.event is None:
        return True
    block = part.event.get("content_block")
    if not isinstance(block, Mapping) or not _OPENING.issuperset(part.event):
        return True
    written = {name for name, value in block.items() if value not in (None, [], {}, "")}
    return not _STANDARD.get(part.kind or BlockKind.OTHER, frozenset()).issuperset(written)


class Step(NamedTuple):
    """What one chunk means: blocks that end before it, the block it belongs to, and whether it begins or ends that."""

    ended: tuple[OpenBlock, ...] = ()
    block: OpenBlock | None = None
    opened: bool = False
    closes: bool = False


_NOTHING = Step()
_UNBOUNDED = -1
_Key = tuple[int, int | None]


class BlockAssembler:
    """Feeds on the parts of one answer.

    Args:
        most: Blocks that an answer may have; one more is a `BackendError`.
    """

    def __init__(self, *, most: int = sys.maxsize) -> None:
        self._most = most
        self._begun = 0
        self._bounded: dict[_Key, OpenBlock] = {}
        self._sequential: dict[int, OpenBlock] = {}
        self._tools: dict[_Key, OpenBlock] = {}
        self._last_tool: dict[int, OpenBlock] = {}
        self._counts: dict[int, int] = {}

    def feed(self, part: Part) -> Step:
        """Return what the part means. A part without a kind belongs to no block."""
        if part.phase != "delta" or (part.choice, part.source) in self._bounded:
            return self._feed_bounded(part)
        if part.kind is None:
            return _NOTHING
        if part.kind is BlockKind.TOOL_CALL:
            return self._feed_tool(part)
        return self._feed_sequential(part)

    def finish(self, choice: int) -> tuple[OpenBlock, ...]:
        """Return the blocks of a choice that its finish reason ends, in their order."""
        return self._end(block for block in self.open_blocks() if block.choice == choice)

    def end_text(self, choice: int) -> tuple[OpenBlock, ...]:
        """Return the text, thinking or refusal of a choice that is over although nothing has followed it yet."""
        current = self._sequential.get(choice)
        return self._end([current]) if current is not None else ()

    def open_blocks(self) -> list[OpenBlock]:
        """Return the blocks that have not ended, in the order in which they began."""
        blocks = [*self._bounded.values(), *self._sequential.values(), *self._tools.values()]
        return sorted(blocks, key=_place)

    def _feed_bounded(self, part: Part) -> Step:
        key = (part.choice, part.source)
        if part.phase == "open":
            unbounded = (self._sequential.get(part.choice), *self._tools.values(), self._bounded.get(key))
            ended = self._end(sorted((b for b in unbounded if b is not None and b.choice == part.choice), key=_place))
            block = self._bounded[key] = self._begin(part, bounded=True)
            return Step(ended, block, opened=True)
        known = self._bounded.get(key)
        if known is None:
            return _NOTHING
        known.add(part)
        if part.phase != "close":
            return Step(block=known)
        del self._bounded[key]
        return Step(block=known, closes=True)

    def _feed_tool(self, part: Part) -> Step:
        current = self._sequential.get(part.choice)
        ended = self._end([current]) if current is not None else ()
        known = self._known_tool(part)
        if known is not None:
            known.add(part)
            return Step(ended, known)
        key = (part.choice, part.source if part.source is not None else _UNBOUNDED - self._counts.get(part.choice, 0))
        replaced = self._tools.pop(key, None)
        block = self._tools[key] = self._last_tool[part.choice] = self._begin(part, bounded=False)
        block.key = key
        return Step((*ended, replaced) if replaced is not None else ended, block, opened=True)

    def _known_tool(self, part: Part) -> OpenBlock | None:
        known = self._last_tool.get(part.choice) if part.source is None else self._tools.get((part.choice, part.source))
        if known is not None and part.id and part.id != known.id:
            return None
        return known

    def _feed_sequential(self, part: Part) -> Step:
        current = self._sequential.get(part.choice)
        whole = part.kind is BlockKind.REDACTED_THINKING
        if current is not None and current.kind is part.kind and not whole and not self._signed(current, part):
            current.add(part)
            return Step(block=current)
        ended = self._end([current]) if current is not None else ()
        block = self._begin(part, bounded=False)
        if not whole:
            self._sequential[part.choice] = block
        return Step(ended, block, opened=True, closes=whole)

    @staticmethod
    def _signed(current: OpenBlock, part: Part) -> bool:
        """Tell whether a thinking block is over because it was signed and other thinking begins."""
        return bool(current.signature) and bool(part.text)

    def _begin(self, part: Part, *, bounded: bool) -> OpenBlock:
        self._begun += 1
        if self._begun > self._most:
            msg = f"the provider's answer has more than {self._most} blocks (answer_blocks)"
            raise BackendError(msg)
        index = self._counts.get(part.choice, 0)
        self._counts[part.choice] = index + 1
        kind = part.kind or BlockKind.OTHER
        key = (part.choice, part.source)
        block = OpenBlock(kind, part.choice, index, part.source, bounded, custom=part.custom, key=key)
        block.add(part)
        return block

    def _end(self, blocks: Iterable[OpenBlock]) -> tuple[OpenBlock, ...]:
        ended = tuple(blocks)
        for block in ended:
            table = self._bounded if block.bounded else self._tools
            if table.get(block.key) is block:
                del table[block.key]
            if self._sequential.get(block.choice) is block:
                del self._sequential[block.choice]
            if self._last_tool.get(block.choice) is block:
                del self._last_tool[block.choice]
        return ended


def _place(block: OpenBlock) -> tuple[int, int]:
    return block.choice, block.index
