"""What can go wrong with an answer on its way, and replies that are no answers.

`after` counts the events that are sent before the fault (pings and the role chunk are events); None is before the response's
headers. A fault whose place is behind the last event happens at the end, and a negative one counts from there: -1 is before the
last event, `[DONE]` or `message_stop`. Faults at one place happen in their order, so `Half(after=3), Stall(after=3)` is half a
frame and then silence. What goes wrong with the HTTP response as a whole is in `luthien_asgi.testing.http_faults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from luthien_asgi import jsontext
from luthien_asgi.testing.http_faults import HttpFault

__all__ = [
    "Again",
    "BadChunk",
    "Delay",
    "Disconnect",
    "Drip",
    "ErrorEvent",
    "EventFault",
    "Failure",
    "Fault",
    "Garbage",
    "Half",
    "LongLine",
    "RawStream",
    "Reset",
    "Stall",
    "Truncate",
    "recording",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Silence until the request's `release()` is called, or the client leaves."""

    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Silence for so many seconds, after which the answer goes on; also ended by `release()`, or by a client that leaves."""

    after: int | None = None
    seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """From here on the next `size` bytes of the connection go out one by one, so many seconds apart."""

    after: int | None = 0
    seconds: float = 0.05
    size: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The connection is reset (TCP RST)."""

    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The connection is closed (TCP FIN) without the end of the HTTP response."""

    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """The HTTP response ends properly, but the answer is not finished: HTTP has nothing to complain about."""

    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """The first part of the next event is sent alone; its rest follows, unless another fault at this place prevents it.

    It is cut after `at` bytes; by default in its middle, or inside its first character of several UTF-8 bytes (where it has none,
    in its middle too).
    """

    after: int = 0
    at: int | Literal["middle", "character"] = "middle"

    def of(self, event: bytes) -> int:
        """Return how many bytes of the event are sent at first."""
        if isinstance(self.at, int):
            return min(self.at, len(event))
        inside = next((place for place, byte in enumerate(event) if byte >= _UTF8_CONTINUED), None)
        return len(event) // 2 if inside is None or self.at == "middle" else inside + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Bytes that are no HTTP (before the headers) or no event (after them) are sent; then the answer goes on."""

    after: int | None = None
    data: bytes = b"data: {]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadChunk:
    """Bytes where HTTP's chunked coding has the size of the next chunk; then the answer goes on."""

    after: int = 0
    data: bytes = b"zz\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LongLine:
    """A line of `size` bytes, begun as data of an event. It is made while it is sent and never held; then the answer goes on."""

    after: int = 0
    size: int = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A second answer within the stream: all of its events, with an id of its own, from its first to its last.

    After 1000 it comes after the end (`[DONE]`, `message_stop`), after -1 before that.
    """

    after: int = 1000
    text: str = "second"
    id: str = "scripted-2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent:
    """An error event in the wire's shape, after which the response ends. Not streaming, it is an error response."""

    after: int = 0
    type: str = "overloaded_error"
    message: str = "Overloaded"
    status: int = 529
    """The status when the request does not stream."""


EventFault = Stall | Delay | Drip | Reset | Disconnect | Truncate | Half | Garbage | BadChunk | LongLine | Again | ErrorEvent
Fault = EventFault | HttpFault
_UTF8_CONTINUED = 0xC0
"""The first byte of a character of several bytes is this or more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error response in the wire's shape. `type` None is the one that goes with the status."""

    status: int
    type: str | None = None
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawStream:
    """These bytes as the response's body, whatever was asked for. One piece is one event for `faults`, and one write."""

    pieces: bytes | tuple[bytes, ...] | list[bytes]
    content_type: str = "text/event-stream"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    pace: float = 0.0

    @property
    def events(self) -> list[bytes]:
        """The pieces, one or many."""
        return [self.pieces] if isinstance(self.pieces, bytes) else list(self.pieces)


def recording(path: Path | str) -> RawStream:
    """Return a recorded stream, one piece an event.

    A `.jsonl` file has one event's JSON a line and is framed here: with `event:` where it is an Anthropic stream, with `[DONE]`
    at the end where it is an OpenAI one. Any other file is an event stream and sent byte for byte, save for a missing `[DONE]`.
    """
    data = Path(path).read_bytes()
    if Path(path).suffix != ".jsonl":
        return RawStream(_with_done(_split_events(data)))
    return RawStream(_with_done([_frame(line) for line in data.splitlines() if line.strip()]))


def _split_events(data: bytes) -> list[bytes]:
    end = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
    *whole, rest = data.split(end)
    return [event + end for event in whole] + ([rest.rstrip(b"\r\n") + end] if rest.strip() else [])


def _frame(line: bytes) -> bytes:
    kind = jsontext.loads(line).get("type")
    return (f"event: {kind}\n".encode() if kind else b"") + b"data: " + line + b"\n\n"


def _with_done(events: list[bytes]) -> list[bytes]:
    """Append `[DONE]` where the events are an OpenAI stream without it."""
    named = any(event.startswith(b"event:") or b"\nevent:" in event for event in events)
    done = any(line.startswith(b"data:") and line[5:].strip() == b"[DONE]" for event in events for line in event.splitlines())
    return events if named or done else [*events, b"data: [DONE]\n\n"]
