"""What can go wrong with an answer on its way, and replies that are no answers.

`after` counts the events that are sent before the fault (pings and the role chunk are events); None is before the response's
headers. A fault whose place is behind the last event happens at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from luthien_asgi import jsontext

__all__ = ["Disconnect", "ErrorEvent", "Failure", "Fault", "Garbage", "RawStream", "Reset", "Stall", "Truncate", "recording"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Silence until the request's `release()` is called, or the client leaves."""

    after: int | None = None


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
class Garbage:
    """Bytes that are no HTTP (before the headers) or no event (after them) are sent; then the answer goes on."""

    after: int | None = None
    data: bytes = b"data: {]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEvent:
    """An error event in the wire's shape, after which the response ends. Not streaming, it is an error response."""

    after: int = 0
    type: str = "overloaded_error"
    message: str = "Overloaded"
    status: int = 529
    """The status when the request does not stream."""


Fault = Stall | Reset | Disconnect | Truncate | Garbage | ErrorEvent


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
