"""The validators' own promises: places, cuts, levels, bounds, and that nothing in a stream makes them raise."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.testing import StreamValidator, Violation, check_body, check_stream, validate_body, validate_stream
from luthien_asgi.testing.framing import MAX_EVENT
from luthien_asgi.testing.validate import RULES
from luthien_asgi.testing.violations import MAX_VIOLATIONS

WIRES: list[Any] = list(RULES)


def chunk(**fields: Any) -> dict[str, Any]:
    """A chunk of an OpenAI stream."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | fields


def openai(*events: Any) -> bytes:
    return b"".join(b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events)


FINISH = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
LEGAL = openai(chunk(), FINISH, b"[DONE]")


def test_a_violation_says_where() -> None:
    """The event with comments counted, the line, and the byte, whatever ends the lines."""
    for end in (b"\n", b"\r", b"\r\n"):
        stream = b": ping\n\n" + openai(chunk(), chunk(id="d"), FINISH | {"id": "d"}, b"[DONE]")
        stream = stream.replace(b"\n", end)
        identity = next(violation for violation in validate_stream("openai", stream) if violation.rule == "identity")
        assert (identity.event, identity.line) == (3, 5)
        assert stream[identity.offset :].startswith(b'data: {"id": "d"')
        assert str(identity) == f"event 3, line 5, byte {identity.offset}: error: identity: id was 'c' and is 'd'"


def test_what_is_wrong_is_told_when_it_comes() -> None:
    """`feed` returns what is new; `end` what is missing."""
    validator = StreamValidator("openai")
    assert validator.feed(openai(chunk())) == []
    (again,) = validator.feed(openai(chunk()))
    assert again.rule == "role-repeated"
    (missing,) = validator.end()
    assert missing.rule == "not-ended"
    assert validator.violations == [again, missing]
    assert (validator.events, validator.comments) == (2, 0)


def test_an_error_raises_and_a_warning_does_not() -> None:
    """`check_stream` and `check_body` are for tests."""
    check_stream("openai", openai(chunk(more=1), FINISH, b"[DONE]"))
    with pytest.raises(ValueError, match=r"the openai stream is not legal:\nevent 2, .*role-repeated"):
        check_stream("openai", openai(chunk(), chunk(), FINISH, b"[DONE]"))
    check_body("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "x"}})
    with pytest.raises(ValueError, match="the anthropic body is not legal"):
        check_body("anthropic", b"{}")


def test_a_provider_may_what_a_gateway_may_not() -> None:
    """What real providers are known to do is a warning in their streams."""
    stream = openai(chunk(), chunk(), FINISH, b"[DONE]")
    assert [violation.severity for violation in validate_stream("openai", stream)] == ["error"]
    assert [violation.severity for violation in validate_stream("openai", stream, strict=False)] == ["warning"]


@pytest.mark.parametrize(
    ("include_usage", "nulls", "rules"),
    [
        (True, True, []),
        (False, False, []),
        (None, True, ["usage-missing"]),
        (None, False, []),
        (True, False, ["usage-null"]),
        (False, True, ["usage-null"]),
    ],
)
def test_the_request_says_whether_usage_is_due(include_usage: bool | None, nulls: bool, rules: list[str]) -> None:
    """Asked for, every chunk has `usage: null`; not asked for, none has. Where it is not known, the first chunk shows it."""
    fields: dict[str, Any] = {"usage": None} if nulls else {}
    end = [chunk(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})] if include_usage else []
    stream = openai(chunk(**fields), FINISH | fields, *end, b"[DONE]")
    assert sorted({violation.rule for violation in validate_stream("openai", stream, include_usage=include_usage)}) == rules


def test_an_error_event_ends_a_stream() -> None:
    """On each wire, with nothing else; not even a finish before it."""
    error = {"error": {"message": "x", "type": "server_error", "param": None, "code": None}}
    assert validate_stream("openai", openai(chunk(), error)) == []
    event = {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}
    assert validate_stream("anthropic", b"event: error\n" + openai(event)) == []
    assert validate_stream("responses", b"event: error\n" + openai({"type": "error", "message": "x", "sequence_number": 0})) == []


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "model_context_window_exceeded"])
def test_a_call_that_was_cut_off_need_not_parse(reason: str) -> None:
    """Where the answer was cut, its last call was."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    events = [
        {"type": "message_start", "message": message | {"stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    stream = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    assert validate_stream("anthropic", stream) == []


# --- hostile streams ----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def grown(value: Any, randomly: random.Random, other: Any) -> Any:
    """Return a value with one of its parts taken out or replaced."""
    if isinstance(value, dict) and value and randomly.random() < 0.8:
        name = randomly.choice(list(value))
        if randomly.random() < 0.2:
            return {key: item for key, item in value.items() if key != name}
        return value | {name: grown(value[name], randomly, other)}
    if isinstance(value, list) and value and randomly.random() < 0.8:
        place = randomly.randrange(len(value))
        return [*value[:place], grown(value[place], randomly, other), *value[place + 1 :]]
    return other


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), other=json_values)
def test_nothing_in_a_stream_makes_a_validator_raise(wire: Any, seed: int, other: Any) -> None:
    """Events of all three wires with parts replaced, left out, doubled and out of order; and the same as a body."""
    randomly = random.Random(seed)
    events = [grown(randomly.choice(EVENTS), randomly, other) for _ in range(randomly.randrange(1, 12))]
    named = [f"event: {event.get('type') if isinstance(event, dict) else ''}\n" if wire != "openai" else "" for event in events]
    stream = "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(named, events, strict=True)).encode(
        "utf-8", "replace"
    )
    validator = StreamValidator(wire)
    validator.feed(stream)
    validator.end()
    json.dumps(validator.summary())
    for event in events:
        validate_body(wire, json.dumps(event).encode())


MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "x"}],
    "usage": {},
}
ITEM = {"id": "i", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
RESPONSE = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [ITEM], "usage": {}}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
EVENTS: list[Any] = [
    chunk(usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
    chunk(choices=[{"index": 0, "delta": {"tool_calls": [CALL], "annotations": [{}]}, "finish_reason": "tool_calls"}]),
    {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"tool_calls": [CALL]}, "finish_reason": "stop"}],
    },
    {"error": {"message": "x", "type": "y"}},
    {"type": "message_start", "message": MESSAGE},
    MESSAGE,
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 1}},
    {"type": "error", "error": {"type": "x", "message": "y"}},
    {"type": "response.created", "response": RESPONSE | {"status": "in_progress"}},
    {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
    {"type": "response.output_item.added", "output_index": 0, "item": {"id": "i", "type": "message", "content": []}},
    {
        "type": "response.content_part.added",
        "output_index": 0,
        "item_id": "i",
        "content_index": 0,
        "part": {"type": "output_text"},
    },
    {"type": "response.output_text.delta", "output_index": 0, "item_id": "i", "content_index": 0, "delta": "x"},
    {"type": "response.output_text.done", "output_index": 0, "item_id": "i", "content_index": 0, "text": "y"},
    {"type": "response.content_part.done", "output_index": 0, "item_id": "i", "content_index": 0, "part": {"text": "y"}},
    {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "i", "delta": "x"},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": RESPONSE},
    RESPONSE,
]


@pytest.mark.parametrize("wire", WIRES)
@given(data=st.binary(max_size=200))
def test_bytes_of_any_kind_are_read(wire: Any, data: bytes) -> None:
    """A violation at the least, since no such stream ends."""
    assert validate_stream(wire, data)
    assert validate_body(wire, data)


def test_huge_indices_take_no_room() -> None:
    """They are reported, and nothing is made for what lies before them."""
    call = {"index": 10**30, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    delta = {"role": "assistant", "content": None, "tool_calls": [call]}
    stream = openai(chunk(choices=[{"index": 10**12, "delta": delta, "finish_reason": None}]))
    assert {"choice-order", "tool-index"} <= {violation.rule for violation in validate_stream("openai", stream)}


def test_a_line_of_a_hundred_megabytes_is_not_kept() -> None:
    """Of one event, at most the documented bound is in memory, however it is cut."""
    validator, piece = StreamValidator("openai"), b"x" * (1024 * 1024)
    tracemalloc.start()
    try:
        validator.feed(b"data: ")
        for _ in range(100):
            validator.feed(piece)
        found = validator.feed(b"\n\n" + LEGAL)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [violation.rule for violation in found] == ["event-too-large"]
    assert validator.end() == []
    assert peak < 2 * MAX_EVENT


def test_the_list_of_violations_has_an_end() -> None:
    """And messages quote a value's beginning only."""
    events = [chunk(**{"more" * 50_000: 1})] * 20 + [b"{"] * (MAX_VIOLATIONS + 500)
    found = validate_stream("openai", openai(*events))
    assert (len(found), found[-1].rule) == (MAX_VIOLATIONS + 1, "too-many")
    assert max(len(violation.message) for violation in found) < 300


def test_a_message_is_one_printable_line() -> None:
    """What a stream says cannot steer a terminal."""
    hostile = "\x1b[2J\r\n\u202e\x9b"
    stream = openai(
        chunk(id=hostile, model=hostile), chunk(**{hostile: 1}), hostile.encode(), {"error": {"message": 1, "type": hostile}}
    )
    messages = [str(violation) for violation in validate_stream("openai", stream) + validate_stream("responses", stream)]
    assert messages
    assert all(message.isprintable() for message in messages)


def test_violations_are_values() -> None:
    """They compare and hash, so a test can keep a list of them."""
    one = Violation(rule="identity", message="x", event=1, offset=0)
    assert one == Violation(rule="identity", message="x", event=1, offset=0)
    assert str(one.__class__(rule="field", message="y", event=0, offset=0)) == "error: field: y"
