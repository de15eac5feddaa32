"""Events that differ from one another in one text alone: found in their bytes, and read without parsing each.

Strategy: of an event that was parsed it is known where in its bytes the text stands. Another event with the same bytes before and
after it, and one JSON string between them, parses to the same but for that string: a parser is at the same place of the same
grammar where the text begins and where it ends. So of such events only the texts are decoded, all of a packet at once.

Providers pad their events, so that their length tells nothing about the text. Of spaces before an event's last brace (Anthropic)
any number is the same to a parser; a string of letters and digits after the text (OpenAI's `obfuscation`) may be any such string.
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
_STRING: Final = rb'(?:[^"\\]|\\.)*'
_PADDING: Final = re.compile(rb'"obfuscation"[ \t]*:[ \t]*"([A-Za-z0-9]*)"')
_VALUES: Final = {
    name: re.compile(rb'"' + name.encode() + rb'"[ \t]*:[ \t]*"(' + _STRING + rb')"')
    for name in ("content", "reasoning_content", "reasoning", "arguments", "text", "thinking", "partial_json", "refusal")
}


class Template:
    """What is the same in all events of a run.

    `part` and `data` are those of `Run`. Make one with `of`.
    """

    __slots__ = ("_after", "_before", "_data", "_least", "_padded", "_part")

    def __init__(
        self,
        before: bytes,
        after: bytes,
        part: Part,
        data: Callable[[str, str], dict[str, Any]],
        padded: re.Pattern[bytes] | None,
    ) -> None:
        self._before, self._after = before, after
        self._least = len(before) + len(after)
        self._part, self._data = part, data
        self._padded = padded
        """What an event that is padded with a string matches: it gives the text and the padding."""

    @classmethod
    def of(cls, block: bytes, name: str, text: str, part: Part, data: Callable[[str, str], dict[str, Any]]) -> Template | None:
        """Return the template of an event that was read, or None where its text cannot be told from its bytes.

        `block` is the event's lines; `name` the field of its JSON object, at any depth, that holds `text`.
        """
        block = _without_spaces(block)
        places = list(_VALUES[name].finditer(block))
        if not places:
            return None
        start, end = places[-1].span(1)  # the last one: beside a text stands its type, before it
        json = block.find(b"data:") + len(b"data:")
        if not _is_hole(block[json:start], block[end:], name, text, block[json:]):
            return None
        before, after = block[:start], block[end:]
        if b'"obfuscation"' not in after:
            return cls(before, after, part, data, None)
        padding = _PADDING.search(after)
        if padding is None:
            return None
        between, rest = after[: padding.start(1)], after[padding.end(1) :]
        if not _is_hole(block[json:end] + between, rest, "obfuscation", padding[1].decode(), block[json:]):
            return None
        pattern = re.escape(before) + b"(%s)" % _STRING + re.escape(between) + b"([A-Za-z0-9]*)" + re.escape(rest)
        return cls(before, after, part, data, re.compile(pattern))

    def run(self, blocks: Sequence[bytes], start: int) -> tuple[Run | None, int]:
        """Return the run of the events from `start` on that are like this one, and the place of the next event."""
        paddings: list[str] | None = None
        if self._padded is None:
            bodies = self._bodies(blocks, start)
        else:
            bodies, paddings = self._padded_bodies(blocks, start, self._padded)
        if not bodies:
            return None, start
        texts = _decoded(bodies)
        if not texts:
            return None, start
        if paddings is not None:
            paddings = paddings[: len(texts)]
        return Run(self._part, texts, self._data, paddings=paddings), start + len(texts)

    def _bodies(self, blocks: Sequence[bytes], start: int) -> list[bytes]:
        before, after, least = self._before, self._after, self._least
        first, last = len(before), -len(after)
        bodies: list[bytes] = []
        for place in range(start, len(blocks)):
            block = blocks[place]
            if block.endswith(b" }"):
                block = _without_spaces(block)
            if not (len(block) > least and block.startswith(before) and block.endswith(after)):
                break
            bodies.append(block[first:last])
        return bodies

    @staticmethod
    def _padded_bodies(blocks: Sequence[bytes], start: int, pattern: re.Pattern[bytes]) -> tuple[list[bytes], list[str]]:
        bodies: list[bytes] = []
        paddings: list[str] = []
        for place in range(start, len(blocks)):
            found = pattern.fullmatch(_without_spaces(blocks[place]))
            if found is None or not found[1]:
                break
            bodies.append(found[1])
            paddings.append(found[2].decode())
        return bodies, paddings


def _without_spaces(block: bytes) -> bytes:
    """Return an event's lines without spaces before the last brace: it ends the JSON object, so they are in no string."""
    return block[:-1].rstrip(b" ") + b"}" if block.endswith(b" }") else block


def _one(body: bytes) -> str | None:
    """Return the text of a JSON string without its quotes, or None if it is none."""
    try:
        return _text(b'"' + body + b'"')
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _decoded(bodies: list[bytes]) -> list[str]:
    """Return the texts of JSON strings without their quotes, up to the first that is none."""
    if len(bodies) == 1:
        text = _one(bodies[0])
        return [] if text is None else [text]
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
