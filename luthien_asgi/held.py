"""Chunks that wait, held in little more than the space of their text.

Strategy: a chunk object takes a kilobyte and a half, and a token's text four bytes, but one chunk of a block differs from the one
before in its text alone. So of such a run the first chunk is kept, and of the others their text, joined, and where it was cut.
When they leave, they are made again, each with its own text and all that they had beside it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final

from luthien_asgi.chunks import Chunk, Part, content_size, read_part, text_size
from luthien_asgi.likeness import is_like, made_like
from luthien_asgi.runs import Run, is_fragment

__all__ = ["Fragments", "HeldChunks"]

_BATCH: Final = 256
"""Fragments that are joined at a time."""
_SMALL: Final = 65_536
"""Characters of such a batch; one that has more holds large fragments, and they stay as they are."""
_MARK: Final = 255
"""Instead of a length that does not fit into a byte."""
_CUT: Final = 2
"""Bytes counted for a chunk of which only the text is kept, beside its content."""


class Fragments(list[str]):
    """The fragments of a text: a list of strings that together are the text, those of long ago in other cuts than they came."""

    __slots__ = ("_done", "last", "size")

    def __init__(self, fragments: Iterable[str] = ()) -> None:
        super().__init__()
        self.size = 0
        """Characters."""
        self.last = ""
        """What was added last."""
        self._done = 0
        for text in fragments:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a fragment."""
        super().append(text)
        self.size += len(text)
        self.last = text
        if len(self) - self._done >= _BATCH:
            tail = self[self._done :]
            if sum(map(len, tail)) < _SMALL:
                self[self._done :] = ["".join(tail)]
            self._done = len(self)


def _like(first: Chunk, text: str, other: str, _: str) -> Any:  # noqa: ANN401 - a chunk in the place of its data
    return made_like(first, text, other)


def _itself(chunk: Any) -> Chunk:  # noqa: ANN401
    made: Chunk = chunk
    return made


class HeldChunks:
    """Chunks in their order."""

    __slots__ = ("_fragments", "_large", "_lengths", "_owned", "_runs", "_text_size", "is_sure", "size")

    def __init__(self, chunks: Iterable[Chunk] = ()) -> None:
        self.size = 0
        """Bytes that they are counted with."""
        self._runs: list[tuple[Chunk, str, int]] = []
        """The first chunk of each run, its text, and how many there are."""
        self._lengths = bytearray()
        self._large = array("Q")
        self._fragments = Fragments()
        self._owned = True
        self._text_size = 0
        self.is_sure = False
        """Whether it was seen where the last chunk has its text: its like with another text came, and differed there alone."""
        for chunk in chunks:
            self.append(chunk, read_part(chunk))

    def share(self, fragments: Fragments) -> None:
        """Take the text from a block, which is given each chunk's text before the chunk comes here; so it is there once.

        Call it before the first chunk. A chunk whose text the block was not given ends that: what is held here has its own then.
        """
        self._fragments, self._owned = fragments, False

    def append(self, chunk: Chunk, part: Part) -> int:
        """Add a chunk; `part` is what it says. Return the bytes that it is counted with."""
        self._add_text(part.text)
        first, text, count = self._runs[-1] if self._runs else (None, "", 0)
        if first is not None and part.text and is_like(chunk, part.text, first, text):
            self._runs[-1] = (first, text, count + 1)
            self.is_sure = self.is_sure or part.text != text
            size = content_size(part, chunk) - text_size("") + _CUT
        else:
            self.is_sure = False
            self._runs.append((chunk, part.text, 1))
            size = content_size(part, chunk)
        self.size += size
        return size

    def append_like(self, text: str) -> int:
        """Add a chunk that is like the one before, with another text, if `is_sure`. Return the bytes that it is counted with."""
        self._add_text(text)
        first, first_text, count = self._runs[-1]
        self._runs[-1] = (first, first_text, count + 1)
        size = len(text) + _CUT
        self.size += size
        return size

    def items(self) -> Iterator[Chunk | Run]:
        """Return the chunks as they came, those that are fragments and nothing else as runs."""
        texts = self._texts()
        for first, text, count in tuple(self._runs):
            said = tuple(islice(texts, count))
            if count == 1:
                yield first
            elif is_fragment(first) and any(other != text for other in said):
                yield Run(read_part(first)._replace(text=""), said, partial(_like, first, text), make=_itself)
            else:
                yield from (made_like(first, text, other) for other in said)

    def __iter__(self) -> Iterator[Chunk]:
        """Return the chunks as they came: the same objects, or their like."""
        texts = self._texts()
        for first, text, count in tuple(self._runs):
            if count == 1:
                next(texts)
                yield first
            else:
                # The first of a run does not leave itself: whoever gets it may change it.
                yield from (made_like(first, text, next(texts)) for _ in range(count))

    def _add_text(self, text: str) -> None:
        if not self._owned and not self._is_given(text):
            self._fragments, self._owned = Fragments(self._texts()), True
        if self._owned:
            self._fragments.append(text)
        length = len(text)
        self._lengths.append(min(length, _MARK))
        if length >= _MARK:
            self._large.append(length)
        self._text_size += length

    def _is_given(self, text: str) -> bool:
        """Tell whether the block grew by this text and by nothing else since the last chunk."""
        given = self._fragments
        return given.size == self._text_size + len(text) and (not text or given.last == text)

    def _texts(self) -> Iterator[str]:
        """Return the text of each chunk."""
        pieces, large = iter(tuple(self._fragments)), iter(tuple(self._large))
        piece, place = "", 0
        for length in bytes(self._lengths):
            wanted = next(large) if length == _MARK else length
            text = piece[place : place + wanted]
            place += wanted
            while len(text) < wanted:
                piece, place = next(pieces), wanted - len(text)
                text += piece[:place]
            yield text
