"""Which Anthropic requests are let in, and that a refusal names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits
from luthien_asgi.wire import anthropic_request

USER = {"role": "user", "content": "hi"}


def parse(value: Any, limits: Limits | None = None) -> ChatRequest:
    return anthropic_request.parse(json.dumps(value).encode(), limits=limits or Limits())


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 5, "messages": [USER], **fields}


def content(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return body(messages=[{"role": role, "content": list(blocks)}])


def refused(value: Any, limits: Limits | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(value, limits)
    return caught.value


def test_what_claude_code_sends_is_kept_as_received() -> None:
    """Beta fields, cache marks, system messages in mid-conversation, tools with and without a type."""
    full = body(
        stream=True,
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        messages=[USER, {"role": "assistant", "content": "x"}, {"role": "system", "content": "mid"}, USER],
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": "u"},
        tools=[{"name": "f", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "web_search"}],
        mcp_servers=[],
        temperature=1,
        top_k=3,
        speed=None,
    )
    request = parse(full)
    assert request.body == full
    assert (request.wire, request.stream, request.max_tokens) == ("anthropic", True, 5)


@pytest.mark.parametrize("missing", ["model", "messages", "max_tokens"])
def test_required_fields_are_required(missing: str) -> None:
    """What the Messages API requires is required here, `max_tokens` too."""
    value = {name: inner for name, inner in body().items() if name != missing}
    assert refused(value).param == missing
    assert refused({**value, missing: None}).param == missing


@pytest.mark.parametrize("value", [0, -1, "5", 5.0, True, False, [], None])
def test_max_tokens_is_a_whole_number_of_at_least_one(value: Any) -> None:
    """Booleans, strings and fractions are no numbers of tokens."""
    error = refused(body(max_tokens=value))
    assert (error.status, error.param) == (400, "max_tokens")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (body(messages=[]), "messages"),
        (body(messages=[3]), "messages[0]"),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages[0].role"),
        (body(messages=[{"role": "developer", "content": "x"}]), "messages[0].role"),
        (body(messages=[{"role": "user"}]), "messages[0].content"),
        (body(tools=[{"name": "f", "input_schema": {}, "description": {}}]), "tools[0].description"),
        (body(messages=[{"role": "user", "content": 3}]), "messages[0].content"),
        (content(3), "messages[0].content[0]"),
        (content([]), "messages[0].content[0]"),
        (content({"text": "x"}), "messages[0].content[0].type"),
        (content({"type": "text", "text": None}), "messages[0].content[0].text"),
        (content({"type": "tool_use", "id": "a", "name": "f", "input": "{}"}, role="assistant"), "messages[0].content[0].input"),
        (content({"type": "thinking", "thinking": "x", "signature": 3}, role="assistant"), "messages[0].content[0].signature"),
        (content({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (content({"type": "tool_result", "tool_use_id": "a", "content": 3}), "messages[0].content[0].content"),
        (content({"type": "tool_result", "tool_use_id": "a", "content": [[]]}), "messages[0].content[0].content[0]"),
        (content({"type": "tool_result", "tool_use_id": "a", "is_error": "yes"}), "messages[0].content[0].is_error"),
        (content({"type": "image", "source": "u"}), "messages[0].content[0].source"),
        (body(system=3), "system"),
        (body(system=[{"type": "text"}]), "system[0].text"),
        (body(stream="true"), "stream"),
        (body(stop_sequences="x"), "stop_sequences"),
        (body(thinking=True), "thinking"),
        (body(tools=[{"name": "f"}]), "tools[0].input_schema"),
        (body(tools=[{"name": 3, "input_schema": {}}]), "tools[0].name"),
        (body(metadata="u"), "metadata"),
    ],
)
def test_a_wrong_field_is_named(value: Any, param: str) -> None:
    """The 400 has the path of the field in `param` and in its message."""
    error = refused(value)
    assert (error.status, error.param) == (400, param)
    assert param in error.message


def test_thinking_that_nobody_signed_is_accepted() -> None:
    """A client keeps what another provider thought as it came, without a signature; which provider takes it is not said here."""
    unsigned = [{"type": "thinking", "thinking": "x"}, {"type": "thinking", "thinking": "x", "signature": ""}]
    assert parse(content(*unsigned, role="assistant")).body["messages"][0]["content"] == unsigned


@pytest.mark.parametrize(
    "name", ["api_base", "api_key", "fallbacks", "extra_headers", "litellm_session_id", "betas", "workspace_id", "n", "stop"]
)
def test_what_is_no_field_of_the_format_is_refused_by_name(name: str) -> None:
    """Server settings, headers of the API and the other format's fields are not accepted."""
    assert refused(body(**{name: ["x"]})).param == name


def test_limits_are_named() -> None:
    """Size, number of messages and of tools."""
    assert refused(body(), Limits(body_bytes=20)).status == 413
    assert refused(body(messages=[USER] * 3), Limits(messages=2)).param == "messages"
    tool = {"name": "f", "input_schema": {}}
    assert refused(body(tools=[tool] * 3), Limits(tools=2)).param == "tools"


def test_counting_needs_no_max_tokens() -> None:
    """A request to count tokens is a chat request without what only an answer needs."""
    raw = json.dumps({"model": "m", "messages": [USER]}).encode()
    assert anthropic_request.parse_count(raw, limits=Limits()).max_tokens is None
    with pytest.raises(RequestError):
        anthropic_request.parse_count(b'{"model":"m","messages":[]}', limits=Limits())
