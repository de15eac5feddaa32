"""The order of Responses stream events: the table against the SDK, and what it refuses."""

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseStreamEvent

from luthien_asgi.errors import StreamStateError
from luthien_asgi.wire.responses_states import EVENT_TRIGGERED_TRANSITIONS, Event, State, StreamState

TEXT = [Event.ADD_MESSAGE, Event.ADD_TEXT, Event.TEXT_DELTA, Event.TEXT_DONE, Event.PART_DONE, Event.ITEM_DONE]
CALL = [Event.ADD_FUNCTION_CALL, Event.ARGUMENTS_DELTA, Event.ARGUMENTS_DONE, Event.ITEM_DONE]
BEGUN = [Event.CREATED, Event.IN_PROGRESS]


def after(*events: Event) -> StreamState:
    state = StreamState()
    for event in events:
        state.go(event)
    return state


def test_every_state_has_a_row_and_every_event_a_place() -> None:
    assert EVENT_TRIGGERED_TRANSITIONS.keys() == set(State)
    used = {event for row in EVENT_TRIGGERED_TRANSITIONS.values() for event in row}
    assert used == set(Event)


def test_every_event_is_one_that_the_sdk_knows() -> None:
    known = {get_args(member.model_fields["type"].annotation)[0] for member in get_args(get_args(ResponseStreamEvent)[0])}
    assert {event.type for event in Event} <= known


def test_a_whole_answer() -> None:
    reasoning = [Event.ADD_REASONING, Event.ADD_SUMMARY, Event.SUMMARY_DELTA, Event.SUMMARY_DONE]
    reasoning += [Event.SUMMARY_PART_DONE, Event.ITEM_DONE]
    assert after(*BEGUN, *reasoning, *TEXT, *CALL, *CALL, Event.COMPLETED).state is State.DONE


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ([], Event.IN_PROGRESS),
        ([], Event.ERROR),
        ([], Event.COMPLETED),
        ([Event.CREATED], Event.CREATED),
        ([Event.CREATED], Event.ADD_MESSAGE),
        (BEGUN, Event.TEXT_DELTA),
        (BEGUN, Event.ITEM_DONE),
        (BEGUN, Event.FAILED),
        ([*BEGUN, *TEXT[:1]], Event.ADD_FUNCTION_CALL),
        ([*BEGUN, *TEXT[:1]], Event.TEXT_DELTA),
        ([*BEGUN, *TEXT[:2]], Event.REFUSAL_DELTA),
        ([*BEGUN, *TEXT[:3]], Event.ITEM_DONE),
        ([*BEGUN, *TEXT[:3]], Event.COMPLETED),
        ([*BEGUN, *TEXT[:4]], Event.TEXT_DELTA),
        ([*BEGUN, *TEXT[:4]], Event.ANNOTATION),
        ([*BEGUN, *CALL[:2]], Event.INPUT_DELTA),
        ([*BEGUN, *CALL[:2]], Event.ITEM_DONE),
        ([*BEGUN, *CALL[:3]], Event.ARGUMENTS_DELTA),
        ([*BEGUN, Event.ERROR], Event.COMPLETED),
        ([*BEGUN, Event.ERROR], Event.ERROR),
        ([*BEGUN, Event.ERROR, Event.FAILED], Event.FAILED),
        ([*BEGUN, Event.COMPLETED], Event.ERROR),
        ([*BEGUN, Event.COMPLETED], Event.INCOMPLETE),
    ],
)
def test_what_the_table_refuses(before: list[Event], event: Event) -> None:
    state = after(*before)
    was: Any = state.state
    with pytest.raises(StreamStateError, match=f"{event.name} is not allowed in state {was.name}"):
        state.go(event)
    assert state.state is was


def test_an_error_may_come_at_any_time_once_the_response_began() -> None:
    for state, row in EVENT_TRIGGERED_TRANSITIONS.items():
        over = state in {State.IDLE, State.CREATED, State.ERRED, State.DONE}
        assert (Event.ERROR in row) != over
    assert EVENT_TRIGGERED_TRANSITIONS[State.ERRED] == {Event.FAILED: State.DONE}
