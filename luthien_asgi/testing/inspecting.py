"""Reads what people have of a stream (an event stream, a log of its events, what `curl -i` printed, a body) and validates it.

Strategy: the beginning of the data says which form it has and which wire it is; the rest is read piece by piece, so a stream of
any length needs the memory of one event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, Literal

from luthien_asgi import jsontext
from luthien_asgi.testing.framing import MAX_EVENT, Frame, Framing
from luthien_asgi.testing.shapes_anthropic import EVENTS as ANTHROPIC_EVENTS
from luthien_asgi.testing.validate import RULES, StreamValidator, ValidatedWire, read_body
from luthien_asgi.testing.violations import Place, Sink, Violation

__all__ = ["Inspection", "UnreadableError", "inspect"]

Form = Literal["stream", "events", "body"]
_HEAD: Final = 256 * 1024
"""Bytes from which form and wire are told."""
_PIECE: Final = 1024 * 1024


class UnreadableError(ValueError):
    """The data is nothing that can be validated; the message says why."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in a file."""

    wire: ValidatedWire
    form: Form
    """`stream` is an event stream, `events` a log with one event's JSON a line, `body` an answer that was not streamed."""
    violations: list[Violation]
    summary: Mapping[str, Any]


def inspect(file: BinaryIO, *, wire: ValidatedWire | None = None, strict: bool = True) -> Inspection:
    """Validate what a file holds. Without `wire` it is told from the data. Raises `UnreadableError`."""
    head = file.read(_HEAD)
    skipped = _headers(head)
    lines, head = head.count(b"\n", 0, skipped), head[skipped:]
    if not head.strip():
        msg = "there is nothing in it"
        raise UnreadableError(msg)
    if head.lstrip().startswith(b"{") and b"\n" not in head.strip():
        head += file.readline(MAX_EVENT - len(head))
    form = _form_of(head)
    wire = wire or _wire_of(head, form)
    if form == "body":
        return _inspect_body(head, file, wire, strict=strict)
    validator = StreamValidator(wire, strict=strict)
    if form == "stream":
        validator.feed(head)
        while piece := file.read(_PIECE):
            validator.feed(piece)
    else:
        _read_log(validator, _lines(head, file))
    validator.end()
    return Inspection(wire, form, _moved(validator.violations, skipped, lines), validator.summary())


def _moved(violations: list[Violation], offset: int, lines: int) -> list[Violation]:
    """Return the violations with their places in the file, where headers come before the stream."""
    return [replace(each, offset=each.offset + offset, line=each.line + lines) for each in violations]


def _headers(head: bytes) -> int:
    """Return how many bytes of response headers there are: more than one block of them after a `100 Continue`."""
    position = 0
    while head.startswith(b"HTTP/", position):
        ends = [(found, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (found := head.find(mark, position)) >= 0]
        if not ends:
            msg = "there are headers, and no body"
            raise UnreadableError(msg)
        position = sum(min(ends))
    return position


# --- form and wire ------------------------------------------------------------------------------------------------------------


def _form_of(head: bytes) -> Form:
    start = head.lstrip()
    if not start.startswith((b"{", b"[")):
        return "stream"
    first, _, rest = start.partition(b"\n")
    event = _object(first)
    if event is None:
        return "body"
    return "events" if rest.strip() or _is_event(event) else "body"


def _is_event(value: Mapping[str, Any]) -> bool:
    kind = value.get("type")
    named = isinstance(kind, str) and (kind.startswith("response.") or (kind in ANTHROPIC_EVENTS and kind != "error"))
    return named or value.get("object") == "chat.completion.chunk"


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = jsontext.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _wire_of(head: bytes, form: Form) -> ValidatedWire:
    for data in _first_data(head, form):
        if data.strip() == b"[DONE]":
            return "openai"
        value = _object(data)
        if value is not None and (wire := _wire_of_value(value)) is not None:
            return wire
    for mark, wire in _MARKS.items():
        if mark in head:
            return wire
    msg = "it is none of the three wires, or its beginning does not show which: say it with --wire"
    raise UnreadableError(msg)


_MARKS: Final[Mapping[bytes, ValidatedWire]] = {
    b'"chat.completion': "openai",
    b'"type":"response.': "responses",
    b'"message_start"': "anthropic",
    b'"object":"response"': "responses",
    b'"type":"message"': "anthropic",
}
"""What shows the wire of a first event that is longer than the beginning, or of a body."""


def _first_data(head: bytes, form: Form) -> Iterator[bytes]:
    if form == "stream":
        yield from (frame.data for frame in Framing(Sink(RULES["openai"], strict=True)).feed(head) if not frame.comment)
        # The beginning may hold no whole event.
        yield head.rpartition(b"data:")[2]
    else:
        yield head
        yield from head.splitlines()


def _wire_of_value(value: Mapping[str, Any]) -> ValidatedWire | None:
    kind, what = value.get("type"), value.get("object")
    if what in ("chat.completion.chunk", "chat.completion") or isinstance(value.get("choices"), list):
        return "openai"
    if what == "response" or "sequence_number" in value or (isinstance(kind, str) and kind.startswith("response.")):
        return "responses"
    if kind == "message" or (isinstance(kind, str) and kind in ANTHROPIC_EVENTS):
        return "anthropic"
    return "openai" if isinstance(value.get("error"), dict) else None


# --- the forms ----------------------------------------------------------------------------------------------------------------


def _inspect_body(head: bytes, file: BinaryIO, wire: ValidatedWire, *, strict: bool) -> Inspection:
    body = head + file.read(MAX_EVENT)
    if len(body) > MAX_EVENT:
        msg = f"the body has more than {MAX_EVENT} bytes"
        raise UnreadableError(msg)
    report = read_body(wire, body, strict=strict)
    if report.summary.get("ended") == "unreadable":
        raise UnreadableError(report.violations[-1].message)
    return Inspection(wire, "body", report.violations, report.summary)


def _read_log(validator: StreamValidator, lines: Iterator[tuple[Place, bytes]]) -> None:
    """Take each line for an event. A log has neither names nor `[DONE]`: they are put in."""
    place = Place(0, 0, 0)
    for place, line in lines:
        event = _object(line) or {}
        name = event.get("type") if validator.wire != "openai" else None
        validator.take_event(Frame(place, name=name if isinstance(name, str) else None, data=line))
    if validator.wire == "openai" and validator.summary()["ended"] == "cut off":
        validator.take_event(Frame(Place(validator.events, place.offset, place.line), data=b"[DONE]"))
        validator.events -= 1


def _lines(head: bytes, file: BinaryIO) -> Iterator[tuple[Place, bytes]]:
    """Yield the lines that are not blank. One that is too long is cut, which is then no JSON."""
    number = offset = 0
    for line, (data, length) in enumerate(_raw_lines(head, file), 1):
        if data.strip():
            number += 1
            yield Place(number, offset, line), data
        offset += length


def _raw_lines(head: bytes, file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each line, and how many bytes it really has."""
    *whole, begun = head.split(b"\n")
    yield from ((line, len(line) + 1) for line in whole)
    line = begun + file.readline(MAX_EVENT - len(begun))
    while line:
        length, end = len(line), line.endswith(b"\n")
        while not end and (more := file.readline(_PIECE)):
            length, end = length + len(more), more.endswith(b"\n")
        yield line, length
        line = file.readline(MAX_EVENT)
