"""Runs: chunks of one block that came together and differ in their text alone.

Strategy: most of an answer is fragments of one text, and what is done for a chunk is nearly always done for its text. So what a
provider wrote together travels as one object from its decoder to the client's frames, as long as nobody needs the chunks one by
one. A run stands for its chunks: whoever wants them gets them, real ones, and the client gets a frame for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from luthien_asgi.chunks import (
    Chunk,
    ChunkFactory,
    Part,
    finish_reason_of,
    openai_fields,
    read_part,
    standard_side_data,
    text_size,
    usage_of,
)

__all__ = ["Run", "is_fragment"]


def is_fragment(chunk: Chunk) -> bool:
    """Tell whether a chunk is a fragment of a block's text and says nothing else, so that it and others like it can be a run."""
    part = read_part(chunk)
    if not part.text or part.phase != "delta" or part.event is not None or part.id or part.name or part.signature:
        return False
    return not (openai_fields(chunk) or standard_side_data(chunk) or finish_reason_of(chunk) or usage_of(chunk))


class Run:
    """At least one chunk. Each has a text of its own, none of them empty, and says nothing beside it.

    Args:
        part: What each chunk is, but for its text.
        texts: The text of each.
        data: Returns the data (the shape in `luthien_asgi.chunks`) of the chunk with a text and a padding.
        paddings: What the provider padded each event with (letters and digits), so that its length tells nothing; None where
            it does not.
        make: Builds chunks. A decoder, which knows of no chunks, leaves it out; see `made_by`.
    """

    __slots__ = ("_data", "_make", "characters", "paddings", "part", "texts")

    def __init__(
        self,
        part: Part,
        texts: Sequence[str],
        data: Callable[[str, str], dict[str, Any]],
        *,
        paddings: Sequence[str] | None = None,
        make: ChunkFactory | None = None,
    ) -> None:
        self.part = part
        self.texts = texts
        self.paddings = paddings
        self.characters = sum(map(len, texts))
        """Of all texts together."""
        self._data = data
        self._make = make

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def size(self) -> int:
        """How many bytes the chunks are counted with in queues."""
        return self.characters + len(self.texts) * text_size("")

    def made_by(self, make: ChunkFactory) -> Run:
        """Let this run's chunks be built by a factory."""
        self._make = make
        return self

    def with_texts(self, texts: Sequence[str]) -> Run:
        """Return the run of chunks like these with other texts, perhaps more or fewer."""
        paddings = None if self.paddings is None else list(islice(cycle(self.paddings), len(texts)))
        return Run(self.part, texts, self._data, paddings=paddings, make=self._make)

    def first(self) -> Chunk:
        """Return the first chunk."""
        return self.with_texts(self.texts[:1]).chunks()[0]

    def after(self, count: int) -> Run:
        """Return the run without its first `count` chunks, of which there are more."""
        paddings = None if self.paddings is None else self.paddings[count:]
        return Run(self.part, self.texts[count:], self._data, paddings=paddings, make=self._make)

    def data(self) -> list[dict[str, Any]]:
        """Return the data of each chunk."""
        data = self._data
        if self.paddings is None:
            return [data(text, "") for text in self.texts]
        return [data(text, padding) for text, padding in zip(self.texts, self.paddings, strict=True)]

    def chunks(self) -> list[Chunk]:
        """Return the chunks."""
        make = self._make
        assert make is not None  # noqa: S101 - the backend's stream says who makes them
        return [make(data) for data in self.data()]
