"""A policy that replaces text in a stream, wherever the provider cut it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk, Part, delta_fields, read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.policy import Handling, Policy, Transform

__all__ = ["ReplaceText"]


class ReplaceText(Policy):
    """Replace strings in the model's text.

    `replacements` is a list of pairs `[old, new]`, applied one after the other: what the first pair wrote, the second one sees.
    They are plain strings; upper and lower case differ, and no character has a special meaning.

    The client gets what `str.replace` would have made of each whole block, however the text was cut into chunks. Kept back is
    only the end of a chunk that may be the beginning of a match, and at the latest until the block ends. Citations and their like
    are dropped where they speak of text that was replaced. Tool calls, thinking and refusals are left alone.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TEXT: Transform()}

    def __init__(self, *, replacements: Sequence[Sequence[str]]) -> None:
        self.replacements = tuple(_pair(entry) for entry in _listed(replacements))
        if not self.replacements:
            msg = "replacements is empty: nothing would ever be replaced"
            raise ValueError(msg)

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send on what cannot be the beginning of a match any more."""
        part = read_part(chunk)
        block = self._progress(ctx, part.choice)
        if not part.text:
            return () if self._speaks_of_a_match(chunk, part, block) else None
        was_empty = block.is_empty
        text = block.feed(part.text)
        if text == part.text and was_empty and block.is_empty:
            return None
        return (with_text(chunk, text),) if text or part.phase == "open" else ()

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send on what was kept back."""
        progress = ctx.state(self._open_blocks).pop(block.choice, None)
        rest = progress.flush() if progress is not None else ""
        return (ctx.text(rest),) if rest else None

    def _open_blocks(self) -> dict[int, _Progress]:
        """Make one transaction's state: the open text block of each choice."""
        return {}

    def _progress(self, ctx: StreamContext, choice: int) -> _Progress:
        blocks = ctx.state(self._open_blocks)
        if choice not in blocks:
            blocks[choice] = _Progress(self.replacements)
        return blocks[choice]

    def _speaks_of_a_match(self, chunk: Chunk, part: Part, block: _Progress) -> bool:
        annotations = delta_fields(chunk).get("annotations")
        if part.phase != "delta" or (part.event is None and annotations is None):
            return False
        side_data = f"{part.event}{annotations}"
        return block.changed or any(repr(old)[1:-1] in side_data for old, _ in self.replacements)


class _Progress:
    """One text block on its way through all replacements."""

    def __init__(self, replacements: Sequence[tuple[str, str]]) -> None:
        self.stages = [_Stage(old, new) for old, new in replacements]

    @property
    def is_empty(self) -> bool:
        return not any(stage.kept for stage in self.stages)

    @property
    def changed(self) -> bool:
        return any(stage.changed for stage in self.stages)

    def feed(self, text: str) -> str:
        for stage in self.stages:
            text = stage.feed(text)
        return text

    def flush(self) -> str:
        text = ""
        for stage in self.stages:
            text = stage.feed(text) + stage.flush()
        return text


class _Stage:
    """One replacement in one text block."""

    def __init__(self, old: str, new: str) -> None:
        self.old = old
        self.new = new
        self.kept = ""
        self.changed = False

    def feed(self, text: str) -> str:
        *before, rest = (self.kept + text).split(self.old)
        self.changed = self.changed or bool(before)
        keep = _overlap(rest, self.old)
        self.kept = rest[len(rest) - keep :]
        return self.new.join([*before, rest[: len(rest) - keep]])

    def flush(self) -> str:
        rest, self.kept = self.kept, ""
        return rest


def _overlap(text: str, old: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `old`, and not all of it."""
    longest = min(len(text), len(old) - 1)
    return next((size for size in range(longest, 0, -1) if old.startswith(text[-size:])), 0)


def _listed(replacements: object) -> Sequence[object]:
    if isinstance(replacements, Sequence) and not isinstance(replacements, str):
        return replacements
    msg = f"replacements must be a list of pairs [old, new], not {replacements!r}"
    raise ValueError(msg)


def _pair(entry: object) -> tuple[str, str]:
    match entry:
        case [str() as old, str() as new] if old:
            return old, new
    msg = f"a replacement must be a pair of strings [old, new] with a non-empty old, not {entry!r}"
    raise ValueError(msg)
