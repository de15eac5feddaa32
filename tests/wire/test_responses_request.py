"""Which Responses requests are let in, and that a refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits
from luthien_asgi.wire import responses_request
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "ok"}


def space(name: str, inner: str) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": [{"type": "function", "name": inner}]}


def parse(value: Any, limits: Limits | None = None) -> ChatRequest:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return responses_request.parse(raw, limits=limits or Limits())


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "hi", **fields}


def refused(value: Any, limits: Limits | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(value, limits)
    return caught.value


def test_a_body_is_kept_as_received() -> None:
    """What is accepted is the client's own body, field by field."""
    full = body(
        instructions="be brief",
        store=False,
        background=False,
        stream=True,
        previous_response_id=None,
        metadata={"a": "b"},
        max_output_tokens=9,
        input=[
            {"role": "user", "content": "hi"},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": None},
            CALL,
            OUTPUT,
            {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "free"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "x"}]},
            {"type": "item_of_the_future", "content": 7},
        ],
    )
    request = parse(full)
    assert request.body == full
    assert (request.wire, request.model, request.stream) == ("responses", "m", True)
    assert (request.max_tokens, request.include_usage, request.choices) == (9, True, 1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ],
)
def test_what_needs_a_store_or_machinery_of_openai_is_refused_by_name(fields: Any, param: str) -> None:
    """Nothing is stored here, and the message says so before anything is called."""
    error = refused(body(**fields))
    assert (error.status, error.param) == (400, param)
    assert error.message.startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": " "}, "model"),
        ({"input": None}, "input"),
        ({"input": {}}, "input"),
        ({"input": []}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"type": 3}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {}}]}]}, "input[0].content[0].image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": 1}]}]}, "input[0].content[0].file_data"),
        ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{**CALL, "name": None}]}, "input[0].name"),
        ({"input": [{**CALL, "call_id": 1}]}, "input[0].call_id"),
        ({"input": [{**CALL, "namespace": []}]}, "input[0].namespace"),
        ({"input": [{**OUTPUT, "output": None}]}, "input[0].output"),
        ({"input": [{**OUTPUT, "output": [[]]}]}, "input[0].output[0]"),
        ({"input": [{"type": "custom_tool_call", "call_id": "c", "name": "f"}]}, "input[0].input"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}, "input[0].summary[0].text"),
        ({"input": [{"type": "reasoning", "encrypted_content": {}}]}, "input[0].encrypted_content"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters"),
        ({"tools": [{"type": "function", "name": "f", "strict": "yes"}]}, "tools[0].strict"),
        ({"tools": [{"type": "custom", "name": "f", "format": "x"}]}, "tools[0].format"),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools[0].tools"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "namespace"}]}]}, "tools[0].tools[0].type"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]}, "tools[0].tools[0].name"),
        ({"tools": [{"type": "function", "name": "f" * 129}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "name": "n" * 129, "tools": []}]}, "tools[0].name"),
        ({"tools": [space("n" * 20, "f" * 53), space("n" * 20, "f" * 54)]}, "tools[1].tools[0].name"),
        ({"input": [{"type": "additional_tools", "tools": [space("n", "f" * 62)]}]}, "input[0].tools[0].tools[0].name"),
        ({"input": [CALL, {**CALL, "namespace": "n", "name": "f" * 62}]}, "input[1].name"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": []}, "tool_choice"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"verbosity": []}}, "text.verbosity"),
        ({"include": ["x", 3]}, "include[1]"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"messages": []}, "messages"),
        ({"api_base": "http://elsewhere"}, "api_base"),
    ],
)
def test_a_refusal_names_the_field(fields: Any, param: str) -> None:
    """Wrong types and missing fields, in every place that is read."""
    error = refused(body(**fields))
    assert (error.status, error.param, error.type) == (400, param, "invalid_request_error")


def test_limits_are_named() -> None:
    """Items, content parts, tools (those in a namespace counted one by one), size and depth."""
    inner = {"type": "function", "name": "f"}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [inner] * 3}
    cases = [
        (body(input=[CALL, OUTPUT]), Limits(messages=1), 400, "messages"),
        (body(input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}] * 3}]), Limits(parts=2), 400, "parts"),
        (body(tools=[{"type": "namespace", "name": "n", "tools": [inner] * 3}]), Limits(tools=2), 400, "tools"),
        (body(tools=[inner], tool_choice=allowed), Limits(tools=2), 400, "tool_choice.tools"),
        (body(input="x" * 100), Limits(body_bytes=50), 413, "body_bytes"),
        (body(input=[{"type": "future", "x": [[[[[]]]]]}]), Limits(json_depth=5), 400, "json_depth"),
    ]
    for value, limits, status, word in cases:
        error = refused(value, limits)
        assert error.status == status
        assert word in error.message


def test_names_are_taken_up_to_their_limits() -> None:
    """128 characters each, and with a namespace what makes one name of 64."""
    taken = body(
        tools=[{"type": "function", "name": "f" * 128}, space("n" * 128, "f" * 53), space("n", "f" * 61)],
        input=[{**CALL, "name": "f" * 128}, {**CALL, "namespace": "n" * 500, "name": "f"}],
    )
    assert parse(taken).body == taken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def paths_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, inner in entries for path in paths_of(inner, (*at, key)))]


FULL = body(
    instructions="be brief",
    include=["reasoning.encrypted_content"],
    metadata={"a": "b"},
    reasoning={"effort": "low", "summary": "auto"},
    text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}, "verbosity": "low"},
    tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    tools=[
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False, "description": "d"},
        {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "h"}]},
    ],
    input=[
        {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:x"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}], "content": [], "encrypted_content": "z"},
        {**CALL, "namespace": "n"},
        {**OUTPUT, "output": [{"type": "input_file", "file_data": "x", "filename": "n"}]},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "free"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
    ],
)


def with_value(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = with_value(value[path[0]], path[1:], new)
    return copied


@given(st.sampled_from(paths_of(FULL)[1:]), JSON)
def test_any_value_in_any_place_is_taken_or_refused_in_words(path: tuple[Any, ...], value: Any) -> None:
    """Whatever a client puts anywhere: a request, or a 400 that names a field; and what is taken can be viewed and converted."""
    request = taken(parse, json.dumps(with_value(FULL, path, value)).encode())
    if request is None:
        return
    assert [block.path for block in request.blocks()]
    assert all(isinstance(tool.name, str) for tool in request.tools())
    for convert in (to_openai, to_anthropic):
        converted = taken(convert, request)
        assert converted is None or converted.params["messages"]


def taken(make: Any, given: Any) -> Any:
    """Return what is made of a value, or None where it is refused with a 400 that names a field."""
    try:
        return make(given)
    except RequestError as error:
        return None if (error.status, bool(error.param)) == (400, True) else pytest.fail(f"{error.status} {error.message}")
