"""The items of a Responses answer, as they are added and as they are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from luthien_asgi.wire.responses_states import Event

__all__ = ["ARGUMENTS", "INPUT", "REFUSAL", "SUMMARY", "TEXT", "CallItem", "Item", "Message", "PartKind", "Reasoning", "Status"]

Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True, slots=True)
class PartKind:
    """What one kind of text is called, and which events carry it."""

    type: str
    field: str
    """The name of its text, in the part and in the done event."""
    delta: Event
    done: Event
    add_part: Event | None = None
    """None for text that an item has without parts."""
    part_done: Event | None = None
    index: str = "content_index"
    logged: bool = False
    """Whether its events have log probabilities."""


TEXT: Final = PartKind(
    "output_text", "text", Event.TEXT_DELTA, Event.TEXT_DONE, Event.ADD_TEXT, Event.PART_DONE, "content_index", logged=True
)
REFUSAL: Final = PartKind("refusal", "refusal", Event.REFUSAL_DELTA, Event.REFUSAL_DONE, Event.ADD_REFUSAL, Event.PART_DONE)
SUMMARY: Final = PartKind(
    "summary_text",
    "text",
    Event.SUMMARY_DELTA,
    Event.SUMMARY_DONE,
    Event.ADD_SUMMARY,
    Event.SUMMARY_PART_DONE,
    "summary_index",
)
ARGUMENTS: Final = PartKind("function_call", "arguments", Event.ARGUMENTS_DELTA, Event.ARGUMENTS_DONE)
INPUT: Final = PartKind("custom_tool_call", "input", Event.INPUT_DELTA, Event.INPUT_DONE)


class Item(Protocol):
    """One item of the output."""

    @property
    def prefix(self) -> str:
        """The beginning of its id."""
        ...

    @property
    def adding(self) -> Event:
        """The event that adds it."""
        ...

    def written(self, status: Status) -> dict[str, Any]:
        """Return the item as it is now, without its id."""
        ...


@dataclass(slots=True)
class Message:
    """What the model says."""

    content: list[dict[str, Any]] = field(default_factory=list)
    prefix: str = "msg"
    adding: Event = Event.ADD_MESSAGE

    def written(self, status: Status) -> dict[str, Any]:
        """Return the item as it is now, without its id."""
        return {"type": "message", "status": status, "content": list(self.content), "role": "assistant"}


@dataclass(slots=True)
class Reasoning:
    """What the model thought: for people in the summary, for the next request in `sealed`."""

    content: list[dict[str, Any]] = field(default_factory=list)
    sealed: str = ""
    """The encrypted content."""
    prefix: str = "rs"
    adding: Event = Event.ADD_REASONING

    def written(self, status: Status) -> dict[str, Any]:
        """Return the item as it is now, without its id. Reasoning has no status, and no encrypted content until there is some."""
        del status
        sealed = {"encrypted_content": self.sealed} if self.sealed else {}
        return {"type": "reasoning", **sealed, "summary": list(self.content)}


@dataclass(slots=True)
class CallItem:
    """A call of one of the client's tools."""

    kind: PartKind
    call_id: str
    name: str
    namespace: str = ""
    text: str = ""

    @property
    def prefix(self) -> str:
        """The beginning of its id."""
        return "ctc" if self.kind is INPUT else "fc"

    @property
    def adding(self) -> Event:
        """The event that adds it."""
        return Event.ADD_CUSTOM_CALL if self.kind is INPUT else Event.ADD_FUNCTION_CALL

    def written(self, status: Status) -> dict[str, Any]:
        """Return the item as it is now, without its id."""
        named: Mapping[str, str] = {"namespace": self.namespace} if self.namespace else {}
        said = {"type": self.kind.type, "status": status, self.kind.field: self.text}
        return {**said, "call_id": self.call_id, "name": self.name, **named}
