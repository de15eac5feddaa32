"""Events that differ from one another in one text alone: found in their bytes, and read without parsing each.

Strategy: of an event that was parsed it is known where in its bytes the text stands. Another event with the same bytes before and
after it, and one JSON string between them, parses to the same but for that string: a parser is at the same place of the same
grammar where the text begins and where it ends. So of such events only the texts are decoded, all of a packet at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from luthien_asgi import jsontext
from luthien_asgi.chunks import Part
from luthien_asgi.runs import Run

__all__ = ["Template"]

_texts: Final = msgspec.json.Decoder(list[str]).decode
_text: Final = msgspec.json.Decoder(str).decode
_BETWEEN: Final = b'","'
_PROBE: Final = "\u2307"
"""What stands for the text when it is tried out where that is."""
_VALUES: Final = {
    name: re.compile(rb'"' + name.encode() + rb'"[ \t]*:[ \t]*"((?:[^"\\]|\\.)*)"')
    for name in ("content", "reasoning_content", "reasoning", "arguments", "text", "thinking", "partial_json", "refusal")
}


class Template:
    """What is the same in all events of a run.

    `part` and `data` are those of `Run`. Make one with `of`.
    """

    __slots__ = ("_after", "_before", "_data", "_length", "_part")

    def __init__(self, before: bytes, after: bytes, part: Part, data: Callable[[str], dict[str, Any]]) -> None:
        self._before, self._after = before, after
        self._length = len(before) + len(after)
        self._part, self._data = part, data

    @classmethod
    def of(cls, block: bytes, name: str, text: str, part: Part, data: Callable[[str], dict[str, Any]]) -> Template | None:
        """Return the template of an event that was read, or None where its text cannot be told from its bytes.

        `block` is the event's lines; `name` the field of its JSON object, at any depth, that holds `text`.
        """
        places = list(_VALUES[name].finditer(block))
        if not places:
            return None
        found = places[-1]
        before, after = block[: found.start(1)], block[found.end(1) :]
        start = before.find(b"data:") + len(b"data:")
        if not _is_hole(before[start:], after, name, text, block[start:]):
            return None
        return cls(before, after, part, data)

    def run(self, blocks: Sequence[bytes], start: int) -> tuple[Run | None, int]:
        """Return the run of the events from `start` on that are like this one, and the place of the next event."""
        before, after, least = self._before, self._after, self._length
        stop, end = start, len(blocks)
        while stop < end and len(block := blocks[stop]) > least and block.startswith(before) and block.endswith(after):
            stop += 1
        if stop == start:
            return None, start
        first, last = len(before), -len(after)
        if stop == start + 1:
            text = _one(blocks[start][first:last])
            return (None, start) if text is None else (Run(self._part, (text,), self._data), stop)
        texts = _decoded([block[first:last] for block in blocks[start:stop]])
        return (Run(self._part, texts, self._data), start + len(texts)) if texts else (None, start)


def _one(body: bytes) -> str | None:
    """Return the text of a JSON string without its quotes, or None if it is none."""
    try:
        return _text(b'"' + body + b'"')
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _decoded(bodies: list[bytes]) -> list[str]:
    """Return the texts of JSON strings without their quotes, up to the first that is none."""
    joined = _BETWEEN.join(bodies)
    if b"\\" not in joined and joined.count(b'"') == 2 * (len(bodies) - 1):
        try:
            return _texts(b'["' + joined + b'"]')
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass  # one of them is no string: the rest may be
    texts: list[str] = []
    for body in bodies:
        text = _one(body)
        if text is None:
            break
        texts.append(text)
    return texts


def _is_hole(before: bytes, after: bytes, name: str, text: str, whole: bytes) -> bool:
    """Tell whether what stands between these bytes is the text and nothing but the text."""
    try:
        with_probe = jsontext.loads(before + _PROBE.encode() + after)
        found = _replaced(with_probe, name, text)
        return found == 1 and bool(with_probe == jsontext.loads(whole))
    except ValueError:
        return False


def _replaced(value: Any, name: str, text: str) -> int:  # noqa: ANN401 - any JSON
    """Put the text into the places of the probe; return how many there were, or more than one where it stands elsewhere."""
    found = 0
    if type(value) is dict:
        for key, inner in value.items():
            if inner == _PROBE:
                value[key] = text
                found += 1 if key == name else 2
            else:
                found += _replaced(inner, name, text)
    elif type(value) is list:
        for inner in value:
            found += 2 if inner == _PROBE else _replaced(inner, name, text)
    return found
