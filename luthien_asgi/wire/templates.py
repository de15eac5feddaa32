"""Events that differ from one another in one text alone: found in their bytes, and read without parsing each.

Strategy: of an event that was parsed it is known where in its bytes the text stands. Another event with the same bytes before and
after it, and one JSON string between them, parses to the same but for that string: a parser is at the same place of the same
grammar where the text begins and where it ends. So of such events only the texts are decoded, all of a packet at once. That it
is this string which becomes the chunk's text, and nothing else, is tried out: the event is read once with another in its place.

Providers pad their events, so that their length tells nothing about the text. Of spaces before an event's last brace (Anthropic)
any number is the same to a parser; a string of letters and digits after the text (OpenAI's `obfuscation`) may be any such string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from luthien_asgi.chunks import Part
from luthien_asgi.errors import BackendError
from luthien_asgi.runs import Run

__all__ = ["Template"]

_texts: Final = msgspec.json.Decoder(list[str]).decode
_text: Final = msgspec.json.Decoder(str).decode
_BETWEEN: Final = b'","'
_PROBES: Final = ("\u2307", "\u2308")
"""What stands for the text when it is tried out where that is: the first, unless that is the text."""
_PADDING: Final = ("aB3", 64)
"""What stands for the padding then, and how long one is at most: a longer one may be more than padding."""
_LARGEST: Final = 16_384
"""Bytes of the largest event that gets a template: to find the text in one takes a hundred times its size of memory."""
_STRING: Final = rb'(?:[^"\\]|\\.)*'
_PADDED: Final = re.compile(rb'"obfuscation"[ \t]*:[ \t]*"([A-Za-z0-9]*)"')
_VALUES: Final = {
    name: re.compile(rb'"' + name.encode() + rb'"[ \t]*:[ \t]*"(' + _STRING + rb')"')
    for name in ("content", "reasoning_content", "arguments", "text", "thinking", "partial_json", "refusal")
}


class Template:
    """What is the same in all events of a run.

    `part` and `data` are those of `Run`. Make one with `of`.
    """

    __slots__ = ("_after", "_before", "_between", "_data", "_least", "_part")

    def __init__(
        self, before: bytes, between: bytes | None, after: bytes, part: Part, data: Callable[[str, str], dict[str, Any]]
    ) -> None:
        self._before, self._between, self._after = before, between, after
        """Between the text and the padding; None where there is no padding."""
        self._least = len(before) + len(between or b"") + len(after)
        self._part, self._data = part, data

    @classmethod
    def of(
        cls,
        block: bytes,
        name: str,
        text: str,
        part: Part,
        data: Callable[[str, str], dict[str, Any]],
        *,
        padded: bool,
        read: Callable[[bytes], Sequence[dict[str, Any]]],
    ) -> Template | None:
        """Return the template of an event that was read, or None where its text cannot be told from its bytes.

        `block` is the event's lines; `name` the field of its JSON object, at any depth, that holds `text`. `padded` tells
        whether a padding is part of its chunk, `read` returns the chunks of an event in its place, or raises `BackendError`.
        """
        if len(block) > _LARGEST:
            return None
        block = _without_spaces(block)
        places = [place for place in _VALUES[name].finditer(block) if _one(place[1]) == text]
        if not places:
            return None
        start, end = places[-1].span(1)  # the last one: beside a text stands its type, before it
        before, between, after = block[:start], None, block[end:]
        if padded:
            padding = _PADDED.search(after)
            if padding is None:
                return None
            between, after = after[: padding.start(1)], after[padding.end(1) :]
        probe, pad = _PROBES[text == _PROBES[0]], _PADDING[0] if padded else ""
        try:
            found = read(before + probe.encode() + (between or b"") + pad.encode() + after)
        except BackendError:
            return None
        return cls(before, between, after, part, data) if found == [data(probe, pad)] else None

    def run(self, blocks: Sequence[bytes], start: int) -> tuple[Run | None, int]:
        """Return the run of the events from `start` on that are like this one, and the place of the next event."""
        paddings: list[str] | None = None
        if self._between is None:
            bodies = self._bodies(blocks, start)
        else:
            bodies, paddings = self._padded_bodies(blocks, start, self._between)
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

    def _padded_bodies(self, blocks: Sequence[bytes], start: int, between: bytes) -> tuple[list[bytes], list[str]]:
        before, after, least = self._before, self._after, self._least
        first, last = len(before), -len(after)
        bodies: list[bytes] = []
        paddings: list[str] = []
        for place in range(start, len(blocks)):
            block = _without_spaces(blocks[place])
            if not (len(block) > least and block.startswith(before) and block.endswith(after)):
                break
            # A padding holds no quote, and what is between begins with one: so the last one there is the one before the padding.
            body, found, padding = block[first:last].rpartition(between)
            if not (found and body and _is_padding(padding)):
                break
            bodies.append(body)
            paddings.append(padding.decode())
        return bodies, paddings


def _is_padding(padding: bytes) -> bool:
    return not padding or (padding.isalnum() and len(padding) <= _PADDING[1])


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
