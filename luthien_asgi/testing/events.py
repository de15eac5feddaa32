"""Reading an event stream as a client does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["SSEEvent", "frames_of", "sse_events"]


class SSEEvent(NamedTuple):
    """One event of a stream. A comment line is an event named `:`, its text as data."""

    event: str
    data: str


def sse_events(body: bytes, *, comments: bool = False) -> list[SSEEvent]:
    """Parse a complete event stream. Raises `ValueError` when it ends within an event."""
    text = body.decode()
    *frames, rest = text.replace("\r\n", "\n").split("\n\n")
    if rest:
        msg = f"the stream ends within an event: {rest!r}"
        raise ValueError(msg)
    return [event for frame in frames for event in _events_of(frame) if comments or event.event != ":"]


def _events_of(frame: str) -> Iterator[SSEEvent]:
    name, data = "", []
    for line in frame.split("\n"):
        field_name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not field_name:
            yield SSEEvent(":", value)
        elif field_name == "event":
            name = value
        elif field_name == "data":
            data.append(value)
    if data:
        yield SSEEvent(name, "\n".join(data))


def frames_of(parts: Sequence[bytes]) -> list[bytes]:
    """Return the frames of a stream, whatever parts it was sent in."""
    return [frame + b"\n\n" for frame in b"".join(parts).split(b"\n\n") if frame]
