"""Server-sent events, read and written as bytes.

The lines are split as the WHATWG's HTML standard says (section 9.2.6): at LF, CR and CRLF, and nowhere else. U+2028, U+2029,
U+0085, VT and FF are ordinary characters of the data. A byte order mark at the start is skipped, wherever packets cut it.

Deliberate differences from the standard:

1. A comment, and an event without any data line, is an event whose data is None: a sign of life that callers may count.
2. An event that the end of the stream cuts before its blank line is delivered if it has data: providers leave that line out.
3. `id` and `retry` are ignored: nobody reconnects to an answer.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from luthien_asgi.errors import BackendError

__all__ = ["COMMENT", "SSEDecoder", "SSEEvent", "frame", "read_block"]

COMMENT: Final = b": ping\n\n"
"""A frame that every client ignores: a keepalive."""

_BOM: Final = b"\xef\xbb\xbf"


class SSEEvent(NamedTuple):
    """One event of a stream."""

    event: str
    """The value of the `event:` line, empty without one."""
    data: bytes | None
    """The data lines, joined with LF; None for a comment or an event without data."""


_SIGN_OF_LIFE: Final = SSEEvent("", None)


class SSEDecoder:
    """Bytes in, events out, for any way of cutting the bytes; linear time, also when one event comes in thousands of packets.

    An event larger than `frame_bytes` ends the stream: `feed` returns what came before it and sets `error`, which the next call
    raises.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._limit = frame_bytes
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._at_start = True
        self._mark = b""
        self._skip_lf = False
        self.error: BackendError | None = None

    def feed(self, data: bytes) -> list[SSEEvent]:
        """Return the events that end in these bytes. Raises the `BackendError` that an earlier call left in `error`."""
        events: list[SSEEvent] = []
        for block in self.blocks(data):
            read_block(block, events)
        return events

    def blocks(self, data: bytes) -> list[bytes]:
        """Return the same events unread, for `read_block`: the lines of each, joined by LF."""
        if self.error is not None:
            raise self.error
        if self._at_start:
            data = self._without_mark(data)
        if self._skip_lf or b"\r" in data:
            data = self._with_line_feeds(data)
        comments: list[bytes] = []
        if self._tail:
            if not self._completes_tail(data):
                self._keep(data, comments)
                return comments
            data = b"".join((*self._tail, data))
        blocks = data.split(b"\n\n")
        tail = blocks.pop()
        if blocks and len(max(blocks, key=len)) > self._limit:
            blocks = self._before_refused(blocks)
        self._tail, self._tail_size = [], 0
        if tail and self.error is None:
            self._keep(tail, comments)
        return blocks + comments if comments else blocks

    def close(self) -> list[SSEEvent]:
        """Return the event that the end of the stream left without its blank line, if it has data."""
        if self.error is not None:
            raise self.error
        events: list[SSEEvent] = []
        _read_lines(b"".join(self._tail), events)
        self._tail, self._tail_size = [], 0
        return [event for event in events if event.data is not None]

    def _without_mark(self, data: bytes) -> bytes:
        data = self._mark + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._mark = data
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Make every line end in LF. A CR at the end of the packet ends its line at once; an LF that follows it belongs to it."""
        if self._skip_lf and data:
            data = data.removeprefix(b"\n")
            self._skip_lf = False
        if data.endswith(b"\r"):
            self._skip_lf = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _completes_tail(self, data: bytes) -> bool:
        return b"\n\n" in data or (data.startswith(b"\n") and self._tail[-1].endswith(b"\n"))

    def _keep(self, data: bytes, comments: list[bytes]) -> None:
        """Keep the beginning of an event. A comment is over at its line's end: it may be all that comes for a minute."""
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        if b"\n" in data and self._tail[0][:1] in {b":", b"\n"}:
            rest = _take_comments(b"".join(self._tail), comments)
            self._tail, self._tail_size = ([rest] if rest else []), len(rest)
        if self._tail_size > self._limit + 1:  # the line break at its end does not count
            self._refuse()

    def _before_refused(self, blocks: list[bytes]) -> list[bytes]:
        """Return what came before the first event that is too large, and refuse that."""
        self._refuse()
        return blocks[: next(place for place, block in enumerate(blocks) if len(block) > self._limit)]

    def _refuse(self) -> None:
        self.error = BackendError(f"the provider sent an event of more than {self._limit} bytes (frame_bytes)")


def read_block(block: bytes, events: list[SSEEvent]) -> None:
    """Append the event of a block of lines, or the signs of life in it."""
    if block.startswith(b"data: ") and b"\n" not in block:
        events.append(SSEEvent("", block[6:]))
        return
    name, _, data = block.partition(b"\n")
    if name.startswith(b"event: ") and data.startswith(b"data: ") and b"\n" not in data:
        events.append(SSEEvent(name[7:].decode("utf-8", "replace"), data[6:]))
    else:
        _read_lines(block, events)


def _read_lines(block: bytes, events: list[SSEEvent]) -> None:
    name, data, fields = "", [], 0
    for line in block.split(b"\n"):
        if line.startswith(b":"):
            events.append(_SIGN_OF_LIFE)
            continue
        field, _, value = line.partition(b":")
        fields += bool(field)
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    if data:
        events.append(SSEEvent(name, b"\n".join(data)))
    elif fields:
        events.append(_SIGN_OF_LIFE)


def _take_comments(tail: bytes, comments: list[bytes]) -> bytes:
    """Take the whole comment lines at the beginning, each a block of its own, and return what follows them."""
    start = len(tail) - len(tail.lstrip(b"\n"))
    while tail.startswith(b":", start) and (end := tail.find(b"\n", start)) >= 0:
        comments.append(tail[start:end])
        start = end + 1
    return tail[start:]


def frame(data: bytes, event: str | None = None) -> bytes:
    """Return the frame of one event. Raises `ValueError` for data that holds a line break: it would end the event."""
    if b"\n" in data or b"\r" in data:
        msg = "the data of a server-sent event is one line"
        raise ValueError(msg)
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
