"""The frames of an event stream, with their numbers and offsets, and what is wrong with the framing itself.

Strategy: bytes in, in any cut; lines end at LF, CR and CRLF as the WHATWG's standard says (section 9.2.6). A frame is a comment
or an event. Nothing is raised: what cannot be read is reported and left out. An event of more than `MAX_EVENT` bytes is counted
and thrown away while it comes, so that memory is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from luthien_asgi.testing.violations import Place, Sink, quoted

__all__ = ["MAX_EVENT", "Frame", "Framing"]

MAX_EVENT: Final = 32 * 1024 * 1024
"""Bytes of one event that are looked at. The largest real ones, whole images in base64, have a few million."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Frame:
    """A comment or an event."""

    place: Place
    comment: bool = False
    name: str | None = None
    """The value of `event:`; None without such a line."""
    data: bytes = b""


class Framing:
    """Cuts one stream into frames. Feed it bytes, then call `end`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._line: list[bytes] = []
        self._held = 0
        self._offset = 0
        self._begin = 0
        self._line_begin = 0
        self._lines = 0
        self._first_line = 1
        self._number = 0
        self._after_cr = False
        self._name: str | None = None
        self._data: list[bytes] = []
        self._size = 0
        self._fields = False
        self._comment = False
        self._skipped = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now."""
        position = 0
        if self._after_cr and data:
            position = 1 if data.startswith(b"\n") else 0
            self._after_cr = False
            self._line_begin += position
        for match in _LINE_END.finditer(data, position):
            self._hold(data[position : match.start()])
            yield from self._take_line(self._offset + match.end())
            position = match.end()
        self._hold(data[position:])
        self._after_cr = data.endswith(b"\r") if data else self._after_cr
        self._offset += len(data)

    def end(self) -> Iterator[Frame]:
        """Yield what the end of the stream cuts off, if it has data; the sink is at the stream's end afterwards."""
        if self._held:
            yield from self._take_line(self._offset)
        if self._fields or self._comment:
            begun = self._place()
            self._sink.report("unfinished-event", "the stream ends before the blank line that ends an event", place=begun)
            yield from self._dispatch()
        self._sink.place = Place(self._number, self._offset, self._lines)

    def _place(self) -> Place:
        return Place(self._number + 1, self._begin, self._first_line)

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held + self._size > MAX_EVENT:
            self._skipped = True
            self._line.clear()
            self._data.clear()
        if piece and not self._skipped:
            self._line.append(piece)

    def _take_line(self, following: int) -> Iterator[Frame]:
        line, blank = b"".join(self._line), not self._held
        self._line.clear()
        self._held = 0
        begin, self._line_begin = self._line_begin, following
        self._lines += 1
        if not (self._fields or self._comment):
            self._begin, self._first_line = begin, self._lines
        if self._skipped and not blank:
            self._fields = True
        elif line:
            self._take_field(line)
        elif self._fields or self._comment:
            yield from self._dispatch()
        else:
            self._sink.report("blank-line", "a blank line where no event is", place=self._place())

    def _take_field(self, line: bytes) -> None:
        if self._number == 0 and not (self._fields or self._comment) and line.startswith(_BOM):
            self._sink.report("byte-order-mark", "the stream begins with a byte order mark", place=self._place())
            line = line[len(_BOM) :]
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            self._comment = True
            self._decoded(line)
            return
        self._fields = True
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._name = self._decoded(value)
        elif name in {b"id", b"retry"}:
            self._sink.report("id-or-retry", f"the event has a line {quoted(line)}", place=self._place())
        else:
            self._sink.report("sse-field", f"a line that clients ignore: {quoted(line)}", place=self._place())

    def _decoded(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self._sink.report("utf-8", f"byte {error.start} of a line is not UTF-8: {quoted(data)}", place=self._place())
            return data.decode(errors="replace")

    def _dispatch(self) -> Iterator[Frame]:
        place, fields, skipped = self._place(), self._fields, self._skipped
        frame = Frame(place, not fields, self._name, b"\n".join(self._data))
        has_data = bool(self._data)
        self._number += 1
        self._name, self._size, self._fields, self._comment, self._skipped = None, 0, False, False, False
        self._data.clear()
        if skipped:
            self._sink.report("event-too-large", f"an event of more than {MAX_EVENT} bytes is not looked at", place=place)
        elif fields and not (has_data and frame.data):
            what = "an empty `data:`" if has_data else "no `data:`"
            self._sink.report("no-data", f"an event with {what}", place=place)
        else:
            yield frame
