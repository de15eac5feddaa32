"""Cutting an answer: the same words in other fragments.

Strategy: a cut is a list of places in the text of each part, in UTF-16 code units, as JSON's `\\uXXXX` escapes count them: so a
character beyond U+FFFF can be cut into two halves, as providers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from luthien_asgi.testing.parts import Answer, Part, Redacted, Refusal, Text, Thinking, ToolCall

__all__ = ["WHOLE", "Cut", "everywhere", "joined", "once", "pieces", "randomly", "shrunk", "text_of", "units"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where each part of an answer is cut: one tuple of places a part, in code units; parts without one stay whole."""

    places: tuple[tuple[int, ...], ...] = ()

    def of(self, answer: Answer) -> Answer:
        """Return the answer cut like this."""
        cut = [_cut(part, self.places[n] if n < len(self.places) else ()) for n, part in enumerate(answer.parts)]
        return Answer(*cut, finish=answer.finish, usage=answer.usage, id=answer.id, model=answer.model)


WHOLE: Final = Cut()


def units(text: str) -> str:
    """Return a text with each character beyond U+FFFF as its two halves."""
    data = text.encode("utf-16-le", "surrogatepass")
    return "".join(chr(int.from_bytes(data[at : at + 2], "little")) for at in range(0, len(data), 2))


def joined(text: str) -> str:
    """Return a text in which two halves beside each other are the character that they are together."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def text_of(part: Part) -> str:
    """Return what can be cut of a part."""
    match part:
        case Text() | Thinking() | Refusal():
            return "".join(part.fragments)
        case ToolCall():
            return part.text
        case Redacted():
            return ""


def pieces(text: str, places: Sequence[int]) -> list[str]:
    """Return a text in the fragments that the places give; none is empty."""
    said = units(text)
    marks = sorted({place for place in places if 0 < place < len(said)} | {0, len(said)})
    return [joined(said[start:end]) for start, end in pairwise(marks)]


def everywhere(answer: Answer, *, halves: bool = True) -> Cut:
    """Return the cut at every place; without `halves` no character is cut in two."""
    return _each(answer, halves, lambda places: places)


def randomly(answer: Answer, random: Random, *, halves: bool = True) -> Cut:
    """Return a few cuts somewhere."""
    return _each(answer, halves, lambda places: random.sample(places, min(len(places), random.randint(1, 4))))


def once(answer: Answer, number: int, *, halves: bool = True) -> Iterator[Cut]:
    """Yield every cut of one part, by its number, in two."""
    for place in _places(text_of(answer.parts[number]), halves=halves):
        yield Cut(((),) * number + ((place,),))


def shrunk(cut: Cut) -> Iterator[Cut]:
    """Yield cuts with one place less, for whoever looks for the smallest that still fails."""
    for number, places in enumerate(cut.places):
        for place in places:
            fewer = tuple(other for other in places if other != place)
            yield Cut((*cut.places[:number], fewer, *cut.places[number + 1 :]))


def _each(answer: Answer, halves: bool, choose: Callable[[Sequence[int]], Sequence[int]]) -> Cut:
    return Cut(tuple(tuple(sorted(choose(_places(text_of(part), halves=halves)))) for part in answer.parts))


def _places(text: str, *, halves: bool) -> Sequence[int]:
    said = units(text)
    every = range(1, len(said))
    return every if halves else [place for place in every if not "\udc00" <= said[place] <= "\udfff"]


def _cut(part: Part, places: Sequence[int]) -> Part:
    if isinstance(part, ToolCall):
        # A pair of halves that stays together becomes one character again when its JSON is read.
        return ToolCall(part.id, part.name, units(part.text), cuts=places)
    fragments = pieces(text_of(part), places)
    match part:
        case Text():
            return Text(*fragments)
        case Thinking():
            return Thinking(*fragments, signature=part.signature)
        case Refusal():
            return Refusal(*fragments)
        case Redacted():
            return part
