"""Writes the events of one Responses answer in their order: items one at a time, in each its parts, with numbers of our own.

Strategy: as in `luthien_asgi.wire.anthropic_blocks`, every event asks the transition table first and goes to an output then,
which writes frames or keeps the last response. What was said is kept, because done events and the last response repeat it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from luthien_asgi import jsontext
from luthien_asgi.errors import StreamStateError
from luthien_asgi.wire.responses_items import CallItem, Item, Message, PartKind, Reasoning, Status
from luthien_asgi.wire.responses_states import Event, State, StreamState

__all__ = ["ItemWriter", "ResponsesCollector", "ResponsesFrames", "ResponsesOutput"]

_PLAIN_TAIL: Final = b"}\n\n"
_LOGGED_TAIL: Final = b',"logprobs":[]}\n\n'


class ResponsesOutput(Protocol):
    """Takes the events one by one; the sequence number is the output's own."""

    def event(self, kind: str, fields: Mapping[str, Any]) -> list[bytes]:
        """Take one event."""
        ...

    def delta(self, kind: str, place: Mapping[str, Any], text: str, *, logged: bool) -> list[bytes]:
        """Take a fragment of text that has nothing beside it."""
        ...


class ResponsesFrames:
    """Writes SSE frames: the event's name is its type."""

    def __init__(self) -> None:
        self._sequence = 0
        self._place: Mapping[str, Any] | None = None
        self._head = b""
        self._middle = b""

    def event(self, kind: str, fields: Mapping[str, Any]) -> list[bytes]:
        """Return the event's frame."""
        said = jsontext.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return [b"event: %s\ndata: %s\n\n" % (kind.encode(), said)]

    def delta(self, kind: str, place: Mapping[str, Any], text: str, *, logged: bool) -> list[bytes]:
        """Return the frame of a fragment; what is the same in all frames of a text is written once."""
        if self._place is not place:
            self._place, name = place, kind.encode()
            self._head = b'event: %s\ndata: {"type":"%s","sequence_number":' % (name, name)
            self._middle = b"," + jsontext.dumps(place)[1:-1] + b',"delta":'
        number, self._sequence = self._sequence, self._sequence + 1
        tail = _LOGGED_TAIL if logged else _PLAIN_TAIL
        return [b"".join((self._head, b"%d" % number, self._middle, jsontext.dumps(text), tail))]


class ResponsesCollector:
    """Keeps the last response, which is the body of a `stream: false` answer."""

    def __init__(self) -> None:
        self.response: dict[str, Any] | None = None

    def event(self, kind: str, fields: Mapping[str, Any]) -> list[bytes]:
        """Keep the response of an event that has one; there is no frame."""
        del kind
        self.response = fields.get("response") or self.response
        return []

    def delta(self, kind: str, place: Mapping[str, Any], text: str, *, logged: bool) -> list[bytes]:
        """Do nothing: the text is in the item."""
        del kind, place, text, logged
        return []


@dataclass(slots=True)
class _Text:
    """The text that is open: a part of an item, or a call's own."""

    kind: PartKind
    place: dict[str, Any]
    fragments: list[str] = field(default_factory=list)
    length: int = 0
    logprobs: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)

    def part(self, text: str) -> dict[str, Any]:
        if not self.kind.logged:
            return {"type": self.kind.type, self.kind.field: text}
        return {"type": self.kind.type, "annotations": list(self.annotations), "logprobs": list(self.logprobs), "text": text}


class ItemWriter:
    """Keeps the order, the numbers and what was said. Raises `StreamStateError` for what is not allowed now."""

    def __init__(self, out: ResponsesOutput) -> None:
        self._out = out
        self._state = StreamState()
        self._item: Item | None = None
        self._id = ""
        self._text: _Text | None = None
        self.stem = ""
        """What the ids of items are made of."""
        self.output: list[dict[str, Any]] = []
        """The items that are done."""

    @property
    def state(self) -> State:
        """Where the stream stands."""
        return self._state.state

    @property
    def length(self) -> int:
        """How many characters the open text has."""
        return self._text.length if self._text is not None else 0

    def response(self, event: Event, response: Mapping[str, Any]) -> list[bytes]:
        """Write an event that has the whole response."""
        return self._event(event, {"response": response})

    def error(self, error: Mapping[str, Any]) -> list[bytes]:
        """Write the error event."""
        return self._event(Event.ERROR, {"error": error})

    # --- items ------------------------------------------------------------------------------------------------------------

    def add(self, item: Item) -> list[bytes]:
        """Add an item; a call's own text is open then."""
        self._item, self._id = item, f"{item.prefix}_{self.stem}_{len(self.output)}"
        frames = self._event(item.adding, {"output_index": len(self.output), "item": self._written("in_progress")})
        if isinstance(item, CallItem):
            self._text = _Text(item.kind, {"item_id": self._id, "output_index": len(self.output)})
        return frames

    def done(self, status: Status) -> list[bytes]:
        """End the open item, and its text before."""
        frames = self.close_part()
        written = self._written(status)
        frames += self._event(Event.ITEM_DONE, {"output_index": len(self.output), "item": written})
        self.output.append(written)
        self._item = None
        return frames

    def _written(self, status: Status) -> dict[str, Any]:
        return {} if self._item is None else {"id": self._id, **self._item.written(status)}

    # --- texts ------------------------------------------------------------------------------------------------------------

    def open_part(self, kind: PartKind) -> list[bytes]:
        """Make sure that a part of that kind is open in the open item."""
        if self._text is not None and self._text.kind is kind:
            return []
        frames = self.close_part()
        parts = self._item.content if isinstance(self._item, Message | Reasoning) else ()
        place = {"item_id": self._id, "output_index": len(self.output), kind.index: len(parts)}
        text = _Text(kind, place)
        if kind.add_part is not None:
            frames += self._event(kind.add_part, {**place, "part": text.part("")})
        self._text = text
        return frames

    def fragment(self, fragment: str, logprobs: Sequence[Any] = ()) -> list[bytes]:
        """Write a fragment of the open text."""
        at = self._opened()
        self._state.go(at.kind.delta)
        at.fragments.append(fragment)
        at.length += len(fragment)
        kind = at.kind.delta.type
        if not logprobs:
            return self._out.delta(kind, at.place, fragment, logged=at.kind.logged)
        at.logprobs += logprobs
        return self._out.event(kind, {**at.place, "delta": fragment, "logprobs": list(logprobs)})

    def annotate(self, annotation: Mapping[str, Any]) -> list[bytes]:
        """Write an annotation of the open text."""
        at = self._opened()
        fields = {**at.place, "annotation_index": len(at.annotations), "annotation": annotation}
        frames = self._event(Event.ANNOTATION, fields)
        at.annotations.append(annotation)
        return frames

    def close_part(self) -> list[bytes]:
        """End the open text, if there is one."""
        at, self._text = self._text, None
        if at is None:
            return []
        text, kind = "".join(at.fragments), at.kind
        logged = {"logprobs": at.logprobs} if kind.logged else {}
        if isinstance(self._item, CallItem):
            self._item.text = text
            named = {"name": self._item.name} if kind.done is Event.ARGUMENTS_DONE else {}
            return self._event(kind.done, {**at.place, kind.field: text, **named})
        frames = self._event(kind.done, {**at.place, kind.field: text, **logged})
        part = at.part(text)
        if kind.part_done is not None:
            frames += self._event(kind.part_done, {**at.place, "part": part})
        if isinstance(self._item, Message | Reasoning):
            self._item.content.append(part)
        return frames

    def _opened(self) -> _Text:
        if self._text is None:
            msg = f"no text is open in state {self.state.name}"
            raise StreamStateError(msg)
        return self._text

    def _event(self, event: Event, fields: Mapping[str, Any]) -> list[bytes]:
        self._state.go(event)
        return self._out.event(event.type, fields)
