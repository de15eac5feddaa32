"""A block's chunks on their way through a text window."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from luthien_asgi.chunk_edits import with_text, without_side_data
from luthien_asgi.chunks import Chunk, Part, delta_field
from luthien_asgi.json_strings import strings_of
from luthien_asgi.policies.windows import TextWindow

__all__ = ["through"]


def through(chunk: Chunk, part: Part, window: TextWindow, *, told: Callable[[str], bool]) -> Iterable[Chunk] | None:
    """Return what goes on instead of a chunk, or None for the chunk as it is.

    `told` says whether a string of the side data (a citation, an annotation) tells of what is replaced: then it is left out.
    """
    if not part.text:
        return () if part.phase == "delta" and _tells(chunk, part, window, told) else None
    was_empty = window.is_empty
    text = window.feed(part.text)
    if text == part.text and was_empty and window.is_empty:
        return (without_side_data(chunk),) if _tells(chunk, part, window, told) else None
    return (with_text(chunk, text),) if text or part.phase == "open" else ()


def _tells(chunk: Chunk, part: Part, window: TextWindow, told: Callable[[str], bool]) -> bool:
    side_data = (part.event, delta_field(chunk, "annotations"))
    return side_data != (None, None) and (window.changed or any(told(text) for text in strings_of(side_data)))
