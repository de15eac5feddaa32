"""The order of the Responses API's stream events, as one table.

As in `luthien_asgi.wire.anthropic_states`, whether an event is allowed is decided here and nowhere else: an entry that is missing
from `EVENT_TRIGGERED_TRANSITIONS` is the error. What the table says:

- `response.created` and `response.in_progress` are first and once.
- One item at a time, and in it one part at a time. The protocol numbers its events so that items could overlap, but OpenAI sends
  them one after the other, and clients that take an event for the last item's (LangChain's) break at anything else.
- A text's done event comes once and before its part's; a part's before its item's; a good end has no open item.
- An error may come at any time, with an item open or not, and `response.failed` alone may follow it. An item that is open then
  stays so: a client that runs a call when its item is done must not run half of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from luthien_asgi.wire.machine import Machine

__all__ = ["EVENT_TRIGGERED_TRANSITIONS", "Event", "State", "StreamState"]


class State(Enum):
    """Where the stream stands."""

    IDLE = auto()
    CREATED = auto()
    BETWEEN = auto()
    MESSAGE = auto()
    TEXT = auto()
    TEXT_WRITTEN = auto()
    REFUSAL = auto()
    REFUSAL_WRITTEN = auto()
    REASONING = auto()
    SUMMARY = auto()
    SUMMARY_WRITTEN = auto()
    FUNCTION_CALL = auto()
    CUSTOM_CALL = auto()
    CALL_WRITTEN = auto()
    ERRED = auto()
    DONE = auto()


class Event(Enum):
    """What is about to be sent; the value is the event's `type`, with the item's or the part's behind it where that matters."""

    CREATED = "response.created"
    IN_PROGRESS = "response.in_progress"
    ADD_MESSAGE = "response.output_item.added message"
    ADD_REASONING = "response.output_item.added reasoning"
    ADD_FUNCTION_CALL = "response.output_item.added function_call"
    ADD_CUSTOM_CALL = "response.output_item.added custom_tool_call"
    ADD_TEXT = "response.content_part.added output_text"
    ADD_REFUSAL = "response.content_part.added refusal"
    ADD_SUMMARY = "response.reasoning_summary_part.added"
    TEXT_DELTA = "response.output_text.delta"
    ANNOTATION = "response.output_text.annotation.added"
    TEXT_DONE = "response.output_text.done"
    REFUSAL_DELTA = "response.refusal.delta"
    REFUSAL_DONE = "response.refusal.done"
    PART_DONE = "response.content_part.done"
    SUMMARY_DELTA = "response.reasoning_summary_text.delta"
    SUMMARY_DONE = "response.reasoning_summary_text.done"
    SUMMARY_PART_DONE = "response.reasoning_summary_part.done"
    ARGUMENTS_DELTA = "response.function_call_arguments.delta"
    ARGUMENTS_DONE = "response.function_call_arguments.done"
    INPUT_DELTA = "response.custom_tool_call_input.delta"
    INPUT_DONE = "response.custom_tool_call_input.done"
    ITEM_DONE = "response.output_item.done"
    COMPLETED = "response.completed"
    INCOMPLETE = "response.incomplete"
    ERROR = "error"
    FAILED = "response.failed"

    @property
    def type(self) -> str:
        """The event's `type`."""
        return self.value.partition(" ")[0]


_ERROR: Final[Mapping[Event, State]] = {Event.ERROR: State.ERRED}

EVENT_TRIGGERED_TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        State.IDLE: {Event.CREATED: State.CREATED},
        State.CREATED: {Event.IN_PROGRESS: State.BETWEEN},
        State.BETWEEN: {
            Event.ADD_MESSAGE: State.MESSAGE,
            Event.ADD_REASONING: State.REASONING,
            Event.ADD_FUNCTION_CALL: State.FUNCTION_CALL,
            Event.ADD_CUSTOM_CALL: State.CUSTOM_CALL,
            Event.COMPLETED: State.DONE,
            Event.INCOMPLETE: State.DONE,
            **_ERROR,
        },
        State.MESSAGE: {
            Event.ADD_TEXT: State.TEXT,
            Event.ADD_REFUSAL: State.REFUSAL,
            Event.ITEM_DONE: State.BETWEEN,
            **_ERROR,
        },
        State.TEXT: {
            Event.TEXT_DELTA: State.TEXT,
            Event.ANNOTATION: State.TEXT,
            Event.TEXT_DONE: State.TEXT_WRITTEN,
            **_ERROR,
        },
        State.TEXT_WRITTEN: {Event.PART_DONE: State.MESSAGE, **_ERROR},
        State.REFUSAL: {
            Event.REFUSAL_DELTA: State.REFUSAL,
            Event.REFUSAL_DONE: State.REFUSAL_WRITTEN,
            **_ERROR,
        },
        State.REFUSAL_WRITTEN: {Event.PART_DONE: State.MESSAGE, **_ERROR},
        State.REASONING: {
            Event.ADD_SUMMARY: State.SUMMARY,
            Event.ITEM_DONE: State.BETWEEN,
            **_ERROR,
        },
        State.SUMMARY: {
            Event.SUMMARY_DELTA: State.SUMMARY,
            Event.SUMMARY_DONE: State.SUMMARY_WRITTEN,
            **_ERROR,
        },
        State.SUMMARY_WRITTEN: {Event.SUMMARY_PART_DONE: State.REASONING, **_ERROR},
        State.FUNCTION_CALL: {
            Event.ARGUMENTS_DELTA: State.FUNCTION_CALL,
            Event.ARGUMENTS_DONE: State.CALL_WRITTEN,
            **_ERROR,
        },
        State.CUSTOM_CALL: {
            Event.INPUT_DELTA: State.CUSTOM_CALL,
            Event.INPUT_DONE: State.CALL_WRITTEN,
            **_ERROR,
        },
        State.CALL_WRITTEN: {Event.ITEM_DONE: State.BETWEEN, **_ERROR},
        State.ERRED: {Event.FAILED: State.DONE},
        State.DONE: {},
    }
)


class StreamState(Machine[State, Event]):
    """Where one stream stands."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(EVENT_TRIGGERED_TRANSITIONS, State.IDLE)
