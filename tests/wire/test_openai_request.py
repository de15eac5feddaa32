"""Which OpenAI requests are let in, and that a refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits
from luthien_asgi.wire import openai_request

USER = {"role": "user", "content": "hi"}


def parse(value: Any, limits: Limits | None = None) -> ChatRequest:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return openai_request.parse(raw, limits=limits or Limits())


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def refused(value: Any, limits: Limits | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(value, limits)
    return caught.value


def test_a_body_is_kept_as_received() -> None:
    """What is accepted is the client's own body, field by field."""
    full = body(temperature=1, stop=None, stream=True, metadata={"a": "b"}, top_k=3, chat_template_kwargs={"x": 1})
    request = parse(full)
    assert request.body == full
    assert (request.wire, request.model, request.stream) == ("openai", "m", True)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"NaN", b'{"model": NaN}', b"{" * 200_000, b"[" * 200_000])
def test_what_is_not_json_is_a_400(raw: bytes) -> None:
    """Garbage is refused with a message, whatever its depth."""
    error = refused(raw)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert "JSON" in error.message


@pytest.mark.parametrize("value", [[], "x", 3, None, True])
def test_a_body_must_be_an_object(value: Any) -> None:
    """JSON that is no object is refused."""
    assert "JSON object" in refused(value).message


def test_a_body_over_the_limit_is_a_413() -> None:
    """The size limit is named."""
    error = refused(body(), Limits(body_bytes=10))
    assert (error.status, error.type) == (413, "request_too_large")
    assert "body_bytes" in error.message


def test_nesting_over_the_limit_is_refused() -> None:
    """The depth limit is named; what is at the limit passes."""
    deep: Any = {}
    for _ in range(10):
        deep = {"a": deep}
    value = body(chat_template_kwargs=deep)
    assert parse(value, Limits(json_depth=12)).body == value
    assert "json_depth" in refused(value, Limits(json_depth=11)).message
    assert "json_depth" in refused(b'{"x":' + b"[" * 500 + b"]" * 500 + b"}").message


def test_too_many_messages_or_tools_are_refused() -> None:
    """The limits of messages and tools are named."""
    assert refused(body(messages=[USER] * 3), Limits(messages=2)).param == "messages"
    tools = [{"type": "function", "function": {"name": "f"}}] * 3
    assert refused(body(tools=tools), Limits(tools=2)).param == "tools"
    assert parse(body(messages=[USER] * 2, tools=tools[:2]), Limits(messages=2, tools=2))


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"messages": [USER]}, "model"),
        ({"model": None, "messages": [USER]}, "model"),
        ({"model": " ", "messages": [USER]}, "model"),
        ({"model": 3, "messages": [USER]}, "model"),
        ({"model": "m"}, "messages"),
        (body(messages=[]), "messages"),
        (body(messages=None), "messages"),
        (body(messages={}), "messages"),
        (body(messages=["hi"]), "messages[0]"),
        (body(messages=[USER, []]), "messages[1]"),
        (body(messages=[{"content": "hi"}]), "messages[0].role"),
        (body(messages=[{"role": 3, "content": "hi"}]), "messages[0].role"),
        (body(messages=[{"role": "root", "content": "hi"}]), "messages[0].role"),
        (body(messages=[{"role": "user"}]), "messages[0].content"),
        (body(messages=[{"role": "user", "content": None}]), "messages[0].content"),
        (body(messages=[{"role": "user", "content": 3}]), "messages[0].content"),
        (body(messages=[{"role": "user", "content": {"type": "text", "text": ""}}]), "messages[0].content"),
        (body(messages=[{"role": "user", "content": [["a"]]}]), "messages[0].content[0]"),
        (body(messages=[{"role": "user", "content": ["a"]}]), "messages[0].content[0]"),
        (body(messages=[{"role": "user", "content": [{}]}]), "messages[0].content[0].type"),
        (body(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
        (body(messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]), "messages[0].content[0].text"),
        (body(messages=[{"role": "assistant", "tool_calls": {}}]), "messages[0].tool_calls"),
        (body(messages=[{"role": "assistant", "tool_calls": [1]}]), "messages[0].tool_calls[0]"),
        (body(messages=[{"role": "assistant", "tool_calls": [{"id": "1"}]}]), "messages[0].tool_calls[0].function"),
        (
            body(messages=[{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]}]),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (body(messages=[{"role": "assistant", "thinking_blocks": 3}]), "messages[0].thinking_blocks"),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
        (body(stream="yes"), "stream"),
        (body(stream=1), "stream"),
        (body(n=0), "n"),
        (body(n=True), "n"),
        (body(n=1.5), "n"),
        (body(max_tokens="9"), "max_tokens"),
        (body(max_tokens=False), "max_tokens"),
        (body(temperature="hot"), "temperature"),
        (body(temperature=True), "temperature"),
        (body(stop=3), "stop"),
        (body(tools={}), "tools"),
        (body(tools=[3]), "tools[0]"),
        (body(tools=[{"type": "function"}]), "tools[0].function"),
        (body(tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]), "tools[0].function.parameters"),
        (body(functions=[{}]), "functions[0].name"),
        (body(stream_options=[]), "stream_options"),
    ],
)
def test_a_wrong_field_is_named(value: Any, param: str) -> None:
    """The 400 has the path of the field in `param` and in its message."""
    error = refused(value)
    assert (error.status, error.param) == (400, param)
    assert param in error.message


@pytest.mark.parametrize(
    "name",
    [
        "api_base",
        "base_url",
        "api_key",
        "custom_llm_provider",
        "callbacks",
        "extra_headers",
        "extra_body",
        "mock_response",
        "fallbacks",
        "timeout",
        "num_retries",
        "model_list",
        "litellm_params",
        "litellm_metadata",
        "aws_secret_access_key",
        "vertex_credentials",
        "azure_ad_token",
        "drop_params",
        "headers",
        "models",
        "allowed_openai_params",
        "success_callback",
        "user_api_key_dict",
        "provider",
        "no-log",
    ],
)
def test_what_steers_the_server_is_not_accepted_from_clients(name: str) -> None:
    """A field that would steer the gateway's own call is refused, and the message says whose it is."""
    error = refused(body(**{name: "x"}))
    assert (error.status, error.param) == (400, name)
    assert name in error.message
    assert "not accepted from clients" in error.message


def test_a_field_that_nobody_knows_is_refused_by_name() -> None:
    """Nothing unknown goes on to the provider, and a long name does not come back whole."""
    assert refused(body(tempratur=1)).param == "tempratur"
    assert len(refused(body(**{"x" * 5000: 1})).message) < 300
    assert refused(body(max_tokens_to_sample=1)).code == "unknown_parameter"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": None, "refusal": None, "function_call": None, "audio": None},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{broken"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}],
        },
        {"role": "user", "content": [{"type": "of_the_future", "x": 1}]},
        {"role": "developer", "content": [{"type": "text", "text": "x"}]},
        {"role": "function", "name": "f", "content": None},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}]},
        {"role": "user", "content": "\ud83d"},
    ],
)
def test_what_clients_send_is_accepted(message: dict[str, Any]) -> None:
    """Nulls that SDKs dump, malformed arguments that a model wrote, parts of the future, half an emoji: let in as they are."""
    assert parse(body(messages=[USER, message])).body["messages"][1] == message


def test_duplicate_keys_are_fine() -> None:
    """The last one counts, as in every JSON library."""
    assert parse(b'{"model":"a","model":"b","messages":[{"role":"user","content":""}]}').model == "b"


def test_counting_takes_a_chat_request() -> None:
    """The body of a request to count tokens is checked alike."""
    assert openai_request.parse_count(json.dumps(body()).encode(), limits=Limits()).model == "m"
