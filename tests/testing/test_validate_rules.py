"""Every rule has a stream that breaks it and nothing else: no rule without a test, and no test without its rule's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from luthien_asgi.testing import validate_body, validate_stream
from luthien_asgi.testing.framing import MAX_EVENT
from luthien_asgi.testing.validate import BODY_RULES, RULES
from luthien_asgi.testing.violations import MAX_VIOLATIONS

Events = list[Any]


def sse(events: Events, *, named: bool) -> bytes:
    """Frame events; bytes are a frame already, and text is data that is not JSON."""
    frames = []
    for event in events:
        if isinstance(event, bytes):
            frames.append(event)
            continue
        name = f"event: {event['type']}\n" if named else ""
        frames.append(f"{name}data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
    return b"".join(frames)


def fresh(value: Any) -> Any:
    """Return a copy whose parts are not shared, so that a change is made in one place."""
    return json.loads(json.dumps(value))


# --- legal streams, one a wire ------------------------------------------------------------------------------------------------


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, *, choice: int = 0, **fields: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": choice, "delta": delta, "finish_reason": finish, "logprobs": None}]
    shared = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, "usage": None}
    return shared | fields


def call(index: int, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **fields}]}


ROLE = {"role": "assistant", "content": ""}
OPEN = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
OPENAI: Events = [
    chunk(ROLE),
    chunk({"content": "Hi"}),
    chunk(call(0, **OPEN)),
    chunk(call(0, function={"arguments": '{"a": 1}'})),
    chunk({}, "tool_calls"),
    chunk(usage=USAGE),
    "[DONE]",
]


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ending(reason: str | None = "tool_use", **fields: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": 9},
    } | fields


MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
ANTHROPIC: Events = [
    {"type": "message_start", "message": MESSAGE},  # 0
    {"type": "ping"},
    start(0, type="thinking", thinking="", signature=""),  # 2
    delta(0, "thinking_delta", thinking="hm"),
    delta(0, "signature_delta", signature="s"),
    stop(0),
    start(1, type="text", text=""),  # 6
    delta(1, "text_delta", text="Hi"),
    stop(1),
    start(2, type="tool_use", id="toolu_1", name="f", input={}),  # 9
    delta(2, "input_json_delta", partial_json='{"a": 1}'),
    stop(2),
    ending(),  # 12
    {"type": "message_stop"},
]


def response(status: str, **fields: Any) -> dict[str, Any]:
    shared = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m", "output": [], "usage": None}
    return shared | fields


TEXT_ITEM = {"id": "i0", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
PART = {"type": "output_text", "text": "Hi", "annotations": []}
CALL_ITEM = {"id": "i1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "", "status": "in_progress"}
DONE_TEXT = TEXT_ITEM | {"status": "completed", "content": [PART]}
DONE_CALL = CALL_ITEM | {"status": "completed", "arguments": '{"a": 1}'}
RESPONSES_USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def of(item: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": item, "item_id": f"i{item}", **fields}


RESPONSES: Events = [
    {"type": "response.created", "response": response("in_progress")},  # 0
    {"type": "response.in_progress", "response": response("in_progress")},
    {"type": "response.output_item.added", "output_index": 0, "item": TEXT_ITEM},  # 2
    of(0, "content_part.added", content_index=0, part=PART | {"text": ""}),
    of(0, "output_text.delta", content_index=0, delta="Hi"),  # 4
    of(0, "output_text.done", content_index=0, text="Hi"),
    of(0, "content_part.done", content_index=0, part=PART),  # 6
    {"type": "response.output_item.done", "output_index": 0, "item": DONE_TEXT},
    {"type": "response.output_item.added", "output_index": 1, "item": CALL_ITEM},  # 8
    of(1, "function_call_arguments.delta", delta='{"a": 1}'),
    of(1, "function_call_arguments.done", arguments='{"a": 1}'),  # 10
    {"type": "response.output_item.done", "output_index": 1, "item": DONE_CALL},
    {
        "type": "response.completed",
        "response": response("completed", output=[DONE_TEXT, DONE_CALL], usage=RESPONSES_USAGE),
    },
]
LEGAL = {"openai": OPENAI, "anthropic": ANTHROPIC, "responses": RESPONSES}


def framed(wire: Any, events: Events) -> bytes:
    """Frame a wire's events; those of Responses are numbered where they have no number of their own."""
    if wire == "responses":
        numbered = [event for event in events if isinstance(event, dict)]
        for number, event in enumerate(numbered):
            event.setdefault("sequence_number", number)
    return sse(events, named=wire != "openai")


@pytest.mark.parametrize("wire", LEGAL)
def test_a_legal_stream_has_no_violation(wire: Any) -> None:
    """What the mutations below begin with."""
    assert validate_stream(wire, framed(wire, fresh(LEGAL[wire]))) == []


# --- mutations ----------------------------------------------------------------------------------------------------------------

Mutation = Callable[[Events], Events | bytes | None]


def put(place: int, *events: Any) -> Mutation:
    return lambda legal: [*legal[:place], *events, *legal[place:]]


def without(*places: int) -> Mutation:
    return lambda legal: [event for place, event in enumerate(legal) if place not in places]


def instead(place: int, *events: Any) -> Mutation:
    return lambda legal: [*legal[:place], *events, *legal[place + 1 :]]


def changed(place: int, *path: Any, to: Any) -> Mutation:
    """Set what is at a path of one event."""

    def mutate(legal: Events) -> Events:
        at = legal[place]
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = to
        return legal

    return mutate


def dropped(place: int, *path: Any) -> Mutation:
    def mutate(legal: Events) -> Events:
        at = legal[place]
        for name in path[:-1]:
            at = at[name]
        del at[path[-1]]
        return legal

    return mutate


def both(*mutations: Mutation) -> Mutation:
    def mutate(legal: Events) -> Events:
        for mutation in mutations:
            result = mutation(legal)
            assert isinstance(result, list)
            legal = result
        return legal

    return mutate


def raw(wire: str, change: Callable[[bytes], bytes]) -> Mutation:
    return lambda legal: change(framed(wire, legal))


def framing(wire: str) -> list[tuple[str, Mutation]]:
    """What is wrong with the framing, on any wire."""
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    return [
        ("byte-order-mark", raw(wire, lambda stream: b"\xef\xbb\xbf" + stream)),
        ("utf-8", raw(wire, lambda stream: stream + b": \xff\n\n")),
        ("sse-field", raw(wire, lambda stream: b"foo: 1\n" + stream)),
        ("id-or-retry", raw(wire, lambda stream: b"id: 1\n" + stream)),
        ("id-or-retry", raw(wire, lambda stream: b"retry: 10\n" + stream)),
        ("no-data", raw(wire, lambda stream: b"event: x\n\n" + stream)),
        ("no-data", raw(wire, lambda stream: b"data:\n\n" + stream)),
        ("blank-line", raw(wire, lambda stream: stream.replace(b"\n\n", b"\n\n\n", 1))),
        ("unfinished-event", raw(wire, lambda stream: stream[:-1])),
        ("event-too-large", raw(wire, lambda stream: b":" + b" " * MAX_EVENT + b"\n\n" + stream)),
        ("after-end", lambda legal: [*legal, legal[1]]),
        ("json", put(1, b"event: ping\ndata: {\n\n" if wire != "openai" else b"data: {\n\n")),
        ("json", put(1, b"event: ping\ndata: []\n\n" if wire != "openai" else b"data: []\n\n")),
        ("json", put(1, b"event: ping\ndata: " * (wire != "openai") + b"data: " * (wire == "openai") + deep + b"\n\n")),
        ("too-many", put(0, *[b"\n"] * (MAX_VIOLATIONS + 1))),
    ]


MUTATIONS: dict[str, list[tuple[str, Mutation]]] = {
    "openai": [
        *framing("openai"),
        ("event-name", raw("openai", lambda stream: b"event: message\n" + stream)),
        ("field", changed(1, "choices", 0, "delta", "content", to=1)),
        ("field", changed(1, "choices", 0, "index", to=True)),
        ("field", changed(5, "usage", "prompt_tokens", to="3")),
        ("unknown-field", changed(1, "choices", 0, "delta", "reasoning", to="x")),
        ("unknown-value", changed(4, "choices", 0, "finish_reason", to="eos")),
        ("not-ended", without(4, 5, 6)),
        ("done", without(6)),
        ("object", dropped(1, "object")),
        ("identity", changed(1, "id", to="d")),
        ("identity", changed(5, "model", to="n")),
        ("no-choice", put(0, chunk())),
        ("choice-order", put(0, chunk(ROLE, choice=1), chunk({}, "stop", choice=1))),
        ("role-missing", dropped(0, "choices", 0, "delta", "role")),
        ("role-repeated", changed(1, "choices", 0, "delta", "role", to="assistant")),
        ("after-finish", put(5, chunk({"content": "more"}))),
        ("finish-repeated", put(5, chunk({}, "tool_calls"))),
        ("finish-null", dropped(1, "choices", 0, "finish_reason")),
        ("finish-missing", without(4)),
        ("tool-index", both(*(changed(place, "choices", 0, "delta", "tool_calls", 0, "index", to=1) for place in (2, 3)))),
        ("tool-index", put(4, chunk({"tool_calls": [{"function": {"arguments": "x"}}]}))),
        ("tool-open", dropped(2, "choices", 0, "delta", "tool_calls", 0, "id")),
        ("tool-open", changed(2, "choices", 0, "delta", "tool_calls", 0, "function", "name", to=None)),
        ("tool-continued", changed(3, "choices", 0, "delta", "tool_calls", 0, "id", to="call_1")),
        ("tool-continued", changed(3, "choices", 0, "delta", "tool_calls", 0, "type", to=None)),
        ("tool-continued", changed(3, "choices", 0, "delta", "tool_calls", 0, "function", to=None)),
        ("tool-id", put(4, chunk(call(1, **OPEN)))),
        ("tool-json", changed(3, "choices", 0, "delta", "tool_calls", 0, "function", "arguments", to="{")),
        ("tool-finish", without(2, 3)),
        ("list-delta", put(1, chunk({"annotations": [{}]}), chunk({"annotations": [{}]}))),
        ("list-delta", put(1, *[chunk({"audio": {"id": "a", "parts": [{"index": 0}, {}]}})] * 2)),
        ("own-field", changed(1, "provider_specific_fields", to={})),
        ("own-field", changed(1, "choices", 0, "delta", "thinking_blocks", to=[])),
        ("usage-null", dropped(1, "usage")),
        ("usage-choices", changed(5, "choices", to=[{"index": 0, "delta": {}, "finish_reason": None}])),
        ("usage-repeated", put(6, chunk(usage=USAGE))),
        ("usage-last", put(6, chunk({}))),
        ("usage-missing", without(5)),
        ("usage-total", changed(5, "usage", "total_tokens", to=8)),
        ("error-after-finish", lambda legal: [*legal[:6], {"error": {"message": "x", "type": "server_error"}}]),
    ],
    "anthropic": [
        *framing("anthropic"),
        ("event-name", raw("anthropic", lambda stream: stream.replace(b"event: ping\n", b"", 1))),
        ("event-name", raw("anthropic", lambda stream: stream.replace(b"event: ping\n", b"event: pong\n", 1))),
        ("field", put(7, delta(1, "text_delta", text=1))),
        ("field", dropped(6, "content_block", "text")),
        ("field", dropped(0, "message", "usage")),
        ("unknown-field", changed(7, "delta", "more", to=1)),
        ("unknown-type", put(1, {"type": "soon"})),
        ("unknown-type", put(12, start(3, type="soon", text=""), delta(3, "text_delta", text="x"), stop(3))),
        ("unknown-type", put(10, delta(2, "soon_delta"))),
        ("unknown-value", changed(12, "delta", "stop_reason", to="bored")),
        ("not-ended", without(13)),
        ("message-first", without(0)),
        ("message-twice", put(1, {"type": "message_start", "message": MESSAGE})),
        ("message-fresh", changed(0, "message", "stop_reason", to="end_turn")),
        ("block-index", both(*(changed(place, "index", to=3) for place in (9, 10, 11)))),
        ("block-overlap", without(5)),
        ("block-not-open", put(12, delta(2, "input_json_delta", partial_json=""))),
        ("block-not-open", put(9, stop(1))),
        ("block-unstopped", without(11)),
        ("block-fresh", changed(6, "content_block", "text", to="Hi")),
        ("delta-fits", put(7, delta(1, "thinking_delta", thinking="x"))),
        ("delta-fits", put(10, delta(2, "text_delta", text="x"))),
        ("signature", put(5, delta(0, "signature_delta", signature="t"))),
        ("signature", put(5, delta(0, "thinking_delta", thinking="t"))),
        ("unsigned", without(4)),
        ("empty-text", without(7)),
        ("after-tool", put(12, start(3, type="text", text=""), delta(3, "text_delta", text="x"), stop(3))),
        ("tool-id", put(12, start(3, type="tool_use", id="toolu_1", name="f", input={}), stop(3))),
        ("tool-json", changed(10, "delta", "partial_json", to="{x")),
        ("tool-json", changed(10, "delta", "partial_json", to="[]")),
        ("tool-stop", without(9, 10, 11)),
        ("tool-stop", changed(12, "delta", "stop_reason", to="end_turn")),
        ("stop-sequence", changed(12, "delta", "stop_sequence", to="###")),
        ("stop-reason", changed(12, "delta", "stop_reason", to=None)),
        ("message-delta", without(12)),
        ("message-delta", put(13, ending())),
        ("after-message-delta", put(13, start(3, type="tool_use", id="t", name="f", input={}), stop(3))),
        ("usage-missing", dropped(12, "usage")),
        ("usage-zero", changed(0, "message", "usage", "input_tokens", to=0)),
    ],
    "responses": [
        *framing("responses"),
        ("event-name", raw("responses", lambda stream: stream.replace(b"event: response.completed\n", b"", 1))),
        ("field", put(4, of(0, "output_text.delta", content_index=0))),
        ("field", dropped(0, "response", "output")),
        ("unknown-field", changed(4, "more", to=1)),
        ("unknown-type", put(1, {"type": "response.soon"})),
        ("unknown-value", changed(2, "item", "status", to="bored")),
        ("not-ended", without(12)),
        ("created-first", without(0)),
        ("created-twice", put(1, {"type": "response.created", "response": response("in_progress")})),
        ("sequence", changed(4, "sequence_number", to=9)),
        ("identity", changed(1, "response", "id", to="resp_2")),
        ("status", changed(1, "response", "status", to="completed")),
        (
            "item-index",
            both(without(8, 9, 10, 11), put(8, {"type": "response.output_item.added", "output_index": 2, "item": CALL_ITEM})),
        ),
        ("item-not-open", put(8, of(0, "content_part.added", content_index=1, part=PART))),
        ("item-not-open", changed(4, "item_id", to="i9")),
        ("item-changed", both(changed(11, "item", "name", to="g"), changed(12, "response", "output", 1, "name", to="g"))),
        ("part-index", put(6, of(0, "content_part.added", content_index=2, part=PART))),
        ("part-not-open", put(3, of(0, "output_text.delta", content_index=0, delta=""))),
        ("part-not-open", put(7, of(0, "content_part.done", content_index=0, part=PART))),
        ("delta-fits", put(4, of(0, "refusal.delta", content_index=0, delta="x"))),
        ("delta-fits", put(4, of(0, "function_call_arguments.delta", delta="x"))),
        ("delta-fits", put(4, of(0, "web_search_call.searching"))),
        ("text-done", changed(5, "text", to="Ho")),
        ("text-done", changed(10, "arguments", to="{}")),
        ("text-done", put(6, of(0, "output_text.delta", content_index=0, delta=""))),
        ("text-done", without(5)),
        ("part-done", changed(6, "part", "text", to="Ho")),
        (
            "item-done",
            both(
                changed(7, "item", "content", 0, "text", to="Ho"),
                changed(12, "response", "output", 0, "content", 0, "text", to="Ho"),
            ),
        ),
        ("item-done", without(6)),
        ("item-done", both(changed(7, "item", "content", to=[]), changed(12, "response", "output", 0, "content", to=[]))),
        ("item-unfinished", without(11)),
        ("output", changed(12, "response", "output", 0, "content", 0, "text", to="Ho")),
        ("output", changed(12, "response", "output", to=[DONE_TEXT])),
        ("call-id", put(12, {"type": "response.output_item.added", "output_index": 2, "item": CALL_ITEM | {"id": "i2"}})),
        (
            "tool-json",
            both(
                changed(9, "delta", to="{"),
                changed(10, "arguments", to="{"),
                changed(11, "item", "arguments", to="{"),
                changed(12, "response", "output", 1, "arguments", to="{"),
            ),
        ),
        ("usage-missing", changed(12, "response", "usage", to=None)),
        ("usage-total", changed(12, "response", "usage", "total_tokens", to=8)),
    ],
}
ALSO = {
    "call-id": {"item-unfinished", "output"},
    "item-index": {"output"},
    "item-unfinished": {"output"},
    "list-delta": {"unknown-field"},
    "too-many": {"blank-line"},
    "usage-missing": {"field"},
}
"""What a mutation cannot avoid breaking beside its rule."""


@pytest.mark.parametrize(("wire", "rule", "mutation"), [(w, r, m) for w, cases in MUTATIONS.items() for r, m in cases])
def test_a_stream_that_breaks_a_rule_is_told_its_name(wire: Any, rule: str, mutation: Mutation) -> None:
    """And no other name, but where one wrong makes another."""
    mutated = mutation(fresh(LEGAL[wire]))
    data = mutated if isinstance(mutated, bytes) else framed(wire, mutated or [])
    found = validate_stream(wire, data, include_usage=True if wire == "openai" else None)
    names = {violation.rule for violation in found}
    assert rule in names, found
    assert names <= {rule} | ALSO.get(rule, set()), found


@pytest.mark.parametrize("wire", RULES)
def test_every_rule_of_a_stream_is_broken_above(wire: Any) -> None:
    """A rule without a stream that breaks it is not known to work."""
    assert {rule for rule, _ in MUTATIONS[wire]} == set(RULES[wire])


# --- bodies -------------------------------------------------------------------------------------------------------------------

COMPLETION: dict[str, Any] = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        }
    ],
    "usage": USAGE,
}
WHOLE_MESSAGE = MESSAGE | {
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ],
    "stop_reason": "tool_use",
}
BODIES = {
    "openai": COMPLETION,
    "anthropic": WHOLE_MESSAGE,
    "responses": response("completed", output=[DONE_TEXT, DONE_CALL], usage=RESPONSES_USAGE),
}


@pytest.mark.parametrize("wire", BODIES)
def test_a_legal_body_has_no_violation(wire: Any) -> None:
    """Parsed or as bytes."""
    assert validate_body(wire, BODIES[wire]) == validate_body(wire, json.dumps(BODIES[wire]).encode()) == []


def at(*path: Any, to: Any) -> Mutation:
    """Change what is at a path of the body, which stands in a list for `changed`."""
    return changed(0, *path, to=to)


CALL = COMPLETION["choices"][0]["message"]["tool_calls"][0]
TOO_MANY = [{"index": 0, "message": {}, "finish_reason": "stop"}] * (MAX_VIOLATIONS + 1)
BODY_MUTATIONS: dict[str, list[tuple[str, Mutation]]] = {
    "openai": [
        ("json", lambda legal: b"{"),
        ("json", lambda legal: b'{"a":' * 300 + b"1" + b"}" * 300),
        ("field", at("choices", 0, "message", "role", to="user")),
        ("unknown-field", at("more", to=1)),
        (
            "unknown-type",
            both(at("choices", 0, "message", "tool_calls", 0, "type", to="x"), at("choices", 0, "finish_reason", to="stop")),
        ),
        ("unknown-value", at("choices", 0, "finish_reason", to="eos")),
        ("too-many", at("choices", to=TOO_MANY)),
        ("tool-finish", at("choices", 0, "message", "tool_calls", to=[])),
        ("tool-id", at("choices", 0, "message", "tool_calls", to=[CALL, CALL])),
        ("tool-json", at("choices", 0, "message", "tool_calls", 0, "function", "arguments", to="{")),
        ("usage-total", at("usage", "total_tokens", to=8)),
        ("own-field", at("choices", 0, "message", "thinking_blocks", to=[])),
        ("choice-order", at("choices", 0, "index", to=1)),
        ("no-choice", at("choices", to=[])),
    ],
    "anthropic": [
        ("json", lambda legal: b"[]"),
        ("field", at("model", to=1)),
        ("unknown-field", at("more", to=1)),
        ("unknown-type", at("content", 0, "type", to="soon")),
        ("unknown-value", at("stop_reason", to="bored")),
        ("too-many", at("content", to=[{"type": "tool_use"}] * (MAX_VIOLATIONS + 1))),
        ("after-tool", lambda legal: [legal[0] | {"content": legal[0]["content"][::-1]}]),
        ("tool-stop", at("stop_reason", to="end_turn")),
        ("tool-id", lambda legal: [legal[0] | {"content": [legal[0]["content"][2]] * 2}]),
        ("empty-text", at("content", 1, "text", to="")),
        ("unsigned", at("content", 0, "signature", to="")),
        ("stop-sequence", at("stop_sequence", to="###")),
        ("stop-reason", at("stop_reason", to=None)),
    ],
    "responses": [
        ("json", lambda legal: b"null"),
        ("field", at("object", to="x")),
        ("unknown-field", at("output", 0, "more", to=1)),
        ("unknown-type", at("output", 0, "type", to="soon")),
        ("unknown-value", at("output", 0, "status", to="bored")),
        ("too-many", at("output", to=[{}] * (MAX_VIOLATIONS + 1))),
        ("call-id", at("output", to=[DONE_CALL, DONE_CALL])),
        ("tool-json", at("output", 1, "arguments", to="{")),
        ("status", at("status", to="in_progress")),
        ("usage-missing", at("usage", to=None)),
        ("usage-total", at("usage", "total_tokens", to=8)),
    ],
}


@pytest.mark.parametrize(("wire", "rule", "mutation"), [(w, r, m) for w, cases in BODY_MUTATIONS.items() for r, m in cases])
def test_a_body_that_breaks_a_rule_is_told_its_name(wire: Any, rule: str, mutation: Mutation) -> None:
    """And no other name, but where one wrong makes another."""
    mutated = mutation([fresh(BODIES[wire])])
    names = {violation.rule for violation in validate_body(wire, mutated[0] if isinstance(mutated, list) else mutated)}  # type: ignore[arg-type]
    assert rule in names
    assert names == {rule} or rule == "too-many", names


@pytest.mark.parametrize("wire", BODY_RULES)
def test_every_rule_of_a_body_is_broken_above(wire: Any) -> None:
    """A rule without a body that breaks it is not known to work."""
    assert {rule for rule, _ in BODY_MUTATIONS[wire]} == set(BODY_RULES[wire])
