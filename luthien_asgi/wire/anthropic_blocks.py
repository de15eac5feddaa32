"""Writes the events of one Anthropic answer in their order: message, blocks one at a time with numbers of our own, end.

Strategy: every event asks the transition table first; then it goes to the output, which is either SSE frames or one body. What an
output is told is the event itself, so that a `stream: false` answer cannot differ from a streamed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from luthien_asgi import jsontext
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Part
from luthien_asgi.wire.anthropic_states import Event, State, StreamState
from luthien_asgi.wire.framing import framed

__all__ = ["AnthropicFrames", "AnthropicOutput", "BlockWriter", "says_nothing"]

_DELTA_EVENTS: Final[Mapping[str, Event]] = {
    "text_delta": Event.TEXT_DELTA,
    "thinking_delta": Event.THINKING_DELTA,
    "signature_delta": Event.SIGNATURE_DELTA,
    "input_json_delta": Event.INPUT_JSON_DELTA,
}
_START_EVENTS: Final[Mapping[str, Event]] = {
    "text": Event.START_TEXT,
    "thinking": Event.START_THINKING,
    "redacted_thinking": Event.START_REDACTED,
    "tool_use": Event.START_TOOL_USE,
}
_TEXT_DELTA: Final = ("text_delta", "text")
_TEXT_TAIL: Final = b"}}\n\n"


def says_nothing(part: Part) -> bool:
    """Tell whether a part is a text block's opening or fragment, and holds nothing of that block's content."""
    if part.text or part.kind is not BlockKind.TEXT:
        return False
    said = {} if part.event is None else part.event.get("content_block") or part.event.get("delta") or {}
    return not any(value for name, value in said.items() if name != "type")


class AnthropicOutput(Protocol):
    """Takes the events one by one."""

    def event(self, event: Mapping[str, Any]) -> list[bytes]:
        """Take one event."""
        ...

    def texts(self, index: int, kind: tuple[str, str], texts: Sequence[str]) -> list[bytes]:
        """Take deltas of the block with that number, at least one; `kind` is their type and the field of their text."""
        ...


class AnthropicFrames:
    """Writes SSE frames: the event's name is its type."""

    def __init__(self) -> None:
        self._head = b""
        self._head_of: tuple[int, tuple[str, str]] | None = None

    def event(self, event: Mapping[str, Any]) -> list[bytes]:
        """Return the event's frame."""
        return [b"event: %s\ndata: %s\n\n" % (event["type"].encode(), jsontext.dumps(event))]

    def texts(self, index: int, kind: tuple[str, str], texts: Sequence[str]) -> list[bytes]:
        """Return the frames of the deltas, joined; what is the same in a block's frames is written once."""
        if self._head_of != (index, kind):
            self._head_of = (index, kind)
            start = b'{"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
            self._head = b"event: content_block_delta\ndata: " + start % (index, kind[0].encode(), kind[1].encode())
        return [framed(self._head, texts, _TEXT_TAIL)]


class BlockWriter:
    """Keeps the order and the numbers. Raises `StreamStateError` for what is not allowed now."""

    def __init__(self, out: AnthropicOutput) -> None:
        self._out = out
        self._state = StreamState()
        self._index = -1
        self.tools_sent = False
        """Whether a tool_use block was begun."""

    @property
    def state(self) -> State:
        """Where the stream stands."""
        return self._state.state

    def start(self, event: Mapping[str, Any]) -> list[bytes]:
        """Write `message_start`."""
        self._state.go(Event.MESSAGE_START)
        return self._out.event(event)

    def open(self, block: Mapping[str, Any], *, provider_order: bool, extras: Mapping[str, Any] | None = None) -> list[bytes]:
        """Begin a block. With `provider_order` it may stand after a tool_use block: its provider put it there.

        `extras` are further fields of the event, of a provider that says more than we know.
        """
        if provider_order:
            self._state.go(Event.PROVIDER_ORDER)
        start = _START_EVENTS.get(block["type"], Event.START_OTHER)
        self._state.go(start)
        self._index += 1
        self.tools_sent = self.tools_sent or start is Event.START_TOOL_USE
        return self._out.event({**(extras or {}), "type": "content_block_start", "index": self._index, "content_block": block})

    def text(self, text: str) -> list[bytes]:
        """Write a text delta."""
        return self.texts(_TEXT_DELTA, (text,))

    def texts(self, kind: tuple[str, str], texts: Sequence[str]) -> list[bytes]:
        """Write fragments of the open block; `kind` is the type of their deltas, and the field of their text."""
        self._state.go(_DELTA_EVENTS[kind[0]])
        return self._out.texts(self._index, kind, texts)

    def delta(self, delta: Mapping[str, Any], *, extras: Mapping[str, Any] | None = None) -> list[bytes]:
        """Write a delta of the open block."""
        in_other = self.state in {State.OTHER, State.OTHER_AFTER_TOOL}
        self._state.go(Event.OTHER_DELTA if in_other else _DELTA_EVENTS.get(delta["type"], Event.OTHER_DELTA))
        return self._out.event({**(extras or {}), "type": "content_block_delta", "index": self._index, "delta": delta})

    def close(self) -> list[bytes]:
        """End the open block."""
        self._state.go(Event.BLOCK_STOP)
        return self._out.event({"type": "content_block_stop", "index": self._index})

    def pass_through(self, event: Mapping[str, Any]) -> list[bytes]:
        """Write an event that the grammar does not know, as it came."""
        self._state.go(Event.PASS_THROUGH)
        return self._out.event(event)

    def end(self, message_delta: Mapping[str, Any]) -> list[bytes]:
        """Write `message_delta` and `message_stop`."""
        self._state.go(Event.MESSAGE_DELTA)
        frames = self._out.event(message_delta)
        self._state.go(Event.MESSAGE_STOP)
        return frames + self._out.event({"type": "message_stop"})

    def error(self, error: Mapping[str, Any]) -> list[bytes]:
        """Write the error event."""
        self._state.go(Event.ERROR)
        return self._out.event({"type": "error", "error": error})
