"""What the three validators share: reading a frame's JSON, the rules of events on every wire, and text that is added up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeGuard

from luthien_asgi import jsontext
from luthien_asgi.testing.framing import Frame
from luthien_asgi.testing.violations import Sink, quoted

__all__ = [
    "MAX_DEPTH",
    "MAX_TEXT",
    "Grammar",
    "Grown",
    "check_name",
    "check_total",
    "is_index",
    "is_json_object",
    "read_event",
    "too_deep",
]

MAX_DEPTH: Final = 200
"""Levels of nesting of an event that are looked at; real ones have about ten."""
MAX_TEXT: Final = 32 * 1024 * 1024
"""Characters of one text that are added up; what is longer is counted and not compared."""


class Grammar(Protocol):
    """One wire's rules for one stream."""

    def take(self, frame: Frame) -> None:
        """Take an event."""

    def end(self) -> None:
        """The stream is over: report what is missing."""

    def summary(self) -> Mapping[str, Any]:
        """Return what the stream held."""
        ...


def read_event(frame: Frame, sink: Sink) -> dict[str, Any] | None:
    """Return the frame's data parsed, or None after reporting why it cannot be."""
    try:
        text = frame.data.decode()
    except UnicodeDecodeError as error:
        sink.report("utf-8", f"byte {error.start} of the data is not UTF-8: {quoted(frame.data[error.start :])}")
        text = frame.data.decode(errors="replace")
    try:
        event = jsontext.loads(text)
    except ValueError:
        sink.report("json", f"the data is not JSON: {quoted(text)}")
        return None
    if not isinstance(event, dict):
        sink.report("json", f"the data must be an object, not {quoted(event)}")
        return None
    if too_deep(frame.data, event):
        sink.report("json", f"the data is nested more than {MAX_DEPTH} levels deep")
        return None
    return event


def too_deep(data: bytes, value: object) -> bool:
    """Tell whether a parsed value is nested too deeply to be walked; cheap for what has few brackets."""
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH and jsontext.depth_of(value, MAX_DEPTH) > MAX_DEPTH


def is_index(value: object) -> TypeGuard[int]:
    """Tell whether a value is a number that can be an index; `true` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_json_object(text: str) -> bool:
    """Tell whether a text is a JSON object."""
    try:
        return isinstance(jsontext.loads(text), dict)
    except ValueError:
        return False


def check_total(sink: Sink, usage: Mapping[str, Any], one: str, other: str) -> None:
    """Check that total_tokens is the sum of the two fields."""
    first, second, total = usage.get(one), usage.get(other), usage.get("total_tokens")
    if isinstance(first, int) and isinstance(second, int) and isinstance(total, int) and first + second != total:
        counts = f"{one} is {quoted(first)}, {other} is {quoted(second)}"
        sink.report("usage-total", f"total_tokens is {quoted(total)}, {counts}")


def check_name(frame: Frame, event: Mapping[str, Any], sink: Sink) -> None:
    """Check that `event:` is the type in the data. SDKs skip an event without a name in silence."""
    if frame.name is None:
        sink.report("event-name", f"no `event:` line; the type is {quoted(event.get('type'))}")
    elif frame.name != event.get("type"):
        sink.report("event-name", f"`event:` says {quoted(frame.name)}, the data's type is {quoted(event.get('type'))}")


class Grown:
    """A text that grows by fragments. Beyond `MAX_TEXT` only its length is known."""

    __slots__ = ("_parts", "length")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.length = 0

    def add(self, fragment: object) -> None:
        """Add a fragment; what is no string counts for nothing."""
        if not isinstance(fragment, str) or not fragment:
            return
        self.length += len(fragment)
        if self.length <= MAX_TEXT:
            self._parts.append(fragment)
        else:
            self._parts.clear()

    @property
    def text(self) -> str | None:
        """The text, or None when it is too long to be kept."""
        return "".join(self._parts) if self.length <= MAX_TEXT else None
