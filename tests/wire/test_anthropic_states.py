"""The transition table of Anthropic's stream: what is legal passes, everything else raises."""

import itertools

import pytest

from luthien_asgi.errors import StreamStateError
from luthien_asgi.wire.anthropic_states import EVENT_TRIGGERED_TRANSITIONS, Event, State, StreamState

STARTS = {
    Event.START_TEXT: [Event.TEXT_DELTA],
    Event.START_THINKING: [Event.THINKING_DELTA, Event.SIGNATURE_DELTA],
    Event.START_REDACTED: [],
    Event.START_TOOL_USE: [Event.INPUT_JSON_DELTA],
    Event.START_OTHER: [Event.OTHER_DELTA],
}


def run(*events: Event) -> State:
    state = StreamState()
    for event in events:
        state.go(event)
    return state.state


@pytest.mark.parametrize("start", STARTS)
def test_each_kind_of_block_runs_through(start: Event) -> None:
    """Start, its own deltas, stop, and the end of the message."""
    events = [Event.MESSAGE_START, start, *STARTS[start], Event.BLOCK_STOP, Event.MESSAGE_DELTA, Event.MESSAGE_STOP]
    assert run(*events) is State.DONE


def test_every_state_has_an_entry_and_every_state_can_be_reached() -> None:
    """The table is whole: no state without a row, none that nothing leads to."""
    assert set(EVENT_TRIGGERED_TRANSITIONS) == set(State)
    reached = {following for row in EVENT_TRIGGERED_TRANSITIONS.values() for following in row.values()}
    assert reached | {State.IDLE} == set(State)


def test_blocks_do_not_overlap() -> None:
    """While a block is open no other can begin."""
    for first, second in itertools.product(STARTS, STARTS):
        with pytest.raises(StreamStateError):
            run(Event.MESSAGE_START, first, second)


@pytest.mark.parametrize("start", STARTS)
def test_a_delta_of_another_kind_is_refused(start: Event) -> None:
    """A delta's type fits its block's."""
    for delta in {Event.TEXT_DELTA, Event.THINKING_DELTA, Event.SIGNATURE_DELTA, Event.INPUT_JSON_DELTA} - set(STARTS[start]):
        with pytest.raises(StreamStateError):
            run(Event.MESSAGE_START, start, delta)


@pytest.mark.parametrize("start", [Event.START_TEXT, Event.START_THINKING, Event.START_REDACTED])
def test_nothing_but_tools_follows_a_tool(start: Event) -> None:
    """[tool, text] is refused by the provider in the next turn; its own order and server tools are not."""
    tool = (Event.MESSAGE_START, Event.START_TOOL_USE, Event.BLOCK_STOP)
    with pytest.raises(StreamStateError, match="not allowed in state AFTER_TOOL"):
        run(*tool, start)
    with pytest.raises(StreamStateError):
        run(*tool, Event.START_OTHER, Event.BLOCK_STOP, start)
    assert run(*tool, Event.START_TOOL_USE) is State.TOOL_USE
    assert run(*tool, Event.PROVIDER_ORDER, start) is not State.AFTER_TOOL


def test_a_signature_is_the_last_word_of_its_block() -> None:
    """It is never split and nothing is thought after it."""
    signed = (Event.MESSAGE_START, Event.START_THINKING, Event.SIGNATURE_DELTA)
    for event in (Event.SIGNATURE_DELTA, Event.THINKING_DELTA):
        with pytest.raises(StreamStateError):
            run(*signed, event)


@pytest.mark.parametrize("start", STARTS)
def test_a_delta_to_come_is_for_every_block(start: Event) -> None:
    """Wherever it stands in it."""
    assert run(Event.MESSAGE_START, start, Event.OTHER_DELTA, *STARTS[start], Event.OTHER_DELTA, Event.BLOCK_STOP) in {
        State.BETWEEN,
        State.AFTER_TOOL,
    }


def test_an_error_needs_its_open_block_closed() -> None:
    """What is open is closed before the error; nothing follows it."""
    with pytest.raises(StreamStateError):
        run(Event.MESSAGE_START, Event.START_TEXT, Event.ERROR)
    assert run(Event.ERROR) is State.FAILED
    assert run(Event.MESSAGE_START, Event.START_TEXT, Event.BLOCK_STOP, Event.ERROR) is State.FAILED


@pytest.mark.parametrize("end", [(Event.MESSAGE_START, Event.MESSAGE_DELTA, Event.MESSAGE_STOP), (Event.ERROR,)])
@pytest.mark.parametrize("event", Event)
def test_nothing_follows_the_end(end: tuple[Event, ...], event: Event) -> None:
    """There is one terminal sequence."""
    with pytest.raises(StreamStateError):
        run(*end, event)


def test_a_refused_event_leaves_the_state_as_it_was() -> None:
    """After a refusal the stream can still be ended in order."""
    state = StreamState()
    state.go(Event.MESSAGE_START)
    with pytest.raises(StreamStateError):
        state.go(Event.TEXT_DELTA)
    assert state.state is State.BETWEEN
