"""The order of Anthropic's stream events, as one table.

The rule that keeps this file honest: whether an event is allowed is decided here and nowhere else. An entry that is missing from
`EVENT_TRIGGERED_TRANSITIONS` is the error; nobody writes the error cases. What the table says:

- `message_start` is first and once; blocks do not overlap; a delta fits its block; after `message_delta`
  comes `message_stop` alone.
- A signature is the last word of a thinking block; redacted thinking has none after its start. A delta of a type to come
  (`OTHER_DELTA`) is no such word.
- Once a tool_use block is out, only tool_use may follow: a client stores the order and the provider refuses it in the next turn.
  Blocks of kind other, which ran at the provider, are exempt, and so is an order that the provider itself wrote
  (`PROVIDER_ORDER`).
- An error may come at any time before the end, once the open block is closed, and is the end.
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
    BETWEEN = auto()
    AFTER_TOOL = auto()
    TEXT = auto()
    THINKING = auto()
    SIGNED = auto()
    REDACTED = auto()
    TOOL_USE = auto()
    OTHER = auto()
    OTHER_AFTER_TOOL = auto()
    ENDING = auto()
    DONE = auto()
    FAILED = auto()


class Event(Enum):
    """What is about to be sent. `PROVIDER_ORDER` sends nothing: it says that the next block stands where the provider put it."""

    MESSAGE_START = auto()
    PROVIDER_ORDER = auto()
    START_TEXT = auto()
    START_THINKING = auto()
    START_REDACTED = auto()
    START_TOOL_USE = auto()
    START_OTHER = auto()
    TEXT_DELTA = auto()
    THINKING_DELTA = auto()
    SIGNATURE_DELTA = auto()
    INPUT_JSON_DELTA = auto()
    OTHER_DELTA = auto()
    BLOCK_STOP = auto()
    PASS_THROUGH = auto()
    MESSAGE_DELTA = auto()
    MESSAGE_STOP = auto()
    ERROR = auto()


_STARTS: Final[Mapping[Event, State]] = {
    Event.START_TEXT: State.TEXT,
    Event.START_THINKING: State.THINKING,
    Event.START_REDACTED: State.REDACTED,
    Event.START_TOOL_USE: State.TOOL_USE,
    Event.START_OTHER: State.OTHER,
}

EVENT_TRIGGERED_TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = MappingProxyType(
    {
        State.IDLE: {
            Event.MESSAGE_START: State.BETWEEN,
            Event.ERROR: State.FAILED,
        },
        State.BETWEEN: {
            **_STARTS,
            Event.PROVIDER_ORDER: State.BETWEEN,
            Event.PASS_THROUGH: State.BETWEEN,
            Event.MESSAGE_DELTA: State.ENDING,
            Event.ERROR: State.FAILED,
        },
        State.AFTER_TOOL: {
            Event.START_TOOL_USE: State.TOOL_USE,
            Event.START_OTHER: State.OTHER_AFTER_TOOL,
            Event.PROVIDER_ORDER: State.BETWEEN,
            Event.PASS_THROUGH: State.AFTER_TOOL,
            Event.MESSAGE_DELTA: State.ENDING,
            Event.ERROR: State.FAILED,
        },
        State.TEXT: {
            Event.TEXT_DELTA: State.TEXT,
            Event.OTHER_DELTA: State.TEXT,
            Event.PASS_THROUGH: State.TEXT,
            Event.BLOCK_STOP: State.BETWEEN,
        },
        State.THINKING: {
            Event.THINKING_DELTA: State.THINKING,
            Event.OTHER_DELTA: State.THINKING,
            Event.SIGNATURE_DELTA: State.SIGNED,
            Event.PASS_THROUGH: State.THINKING,
            Event.BLOCK_STOP: State.BETWEEN,
        },
        State.SIGNED: {
            Event.OTHER_DELTA: State.SIGNED,
            Event.PASS_THROUGH: State.SIGNED,
            Event.BLOCK_STOP: State.BETWEEN,
        },
        State.REDACTED: {
            Event.OTHER_DELTA: State.REDACTED,
            Event.PASS_THROUGH: State.REDACTED,
            Event.BLOCK_STOP: State.BETWEEN,
        },
        State.TOOL_USE: {
            Event.INPUT_JSON_DELTA: State.TOOL_USE,
            Event.OTHER_DELTA: State.TOOL_USE,
            Event.PASS_THROUGH: State.TOOL_USE,
            Event.BLOCK_STOP: State.AFTER_TOOL,
        },
        State.OTHER: {
            Event.OTHER_DELTA: State.OTHER,
            Event.PASS_THROUGH: State.OTHER,
            Event.BLOCK_STOP: State.BETWEEN,
        },
        State.OTHER_AFTER_TOOL: {
            Event.OTHER_DELTA: State.OTHER_AFTER_TOOL,
            Event.PASS_THROUGH: State.OTHER_AFTER_TOOL,
            Event.BLOCK_STOP: State.AFTER_TOOL,
        },
        State.ENDING: {
            Event.MESSAGE_STOP: State.DONE,
            Event.ERROR: State.FAILED,
        },
        State.DONE: {},
        State.FAILED: {},
    }
)


class StreamState(Machine[State, Event]):
    """Where one stream stands."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(EVENT_TRIGGERED_TRANSITIONS, State.IDLE)
