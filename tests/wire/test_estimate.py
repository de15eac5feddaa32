"""The guess of a request's input tokens: near enough, never 0, linear."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.wire.estimate import estimate_tokens


def openai(*messages: Any, **fields: Any) -> ChatRequest:
    return ChatRequest(wire="openai", body={"model": "m", "messages": list(messages), **fields})


def anthropic(*messages: Any, **fields: Any) -> ChatRequest:
    return ChatRequest(wire="anthropic", body={"model": "m", "max_tokens": 1, "messages": list(messages), **fields})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_it_is_never_nothing() -> None:
    """An empty conversation still costs a token."""
    assert estimate_tokens(openai()) == 1
    assert estimate_tokens(ChatRequest(wire="openai", body={})) == 1


def test_four_characters_are_a_token() -> None:
    """Text counts alike wherever it stands: plain, in parts, in the system prompt, in arguments, in results."""
    assert 1000 <= estimate_tokens(openai(user("word" * 1000))) <= 1010
    assert estimate_tokens(anthropic(user([{"type": "text", "text": "word" * 1000}]))) == estimate_tokens(
        openai(user("word" * 1000))
    )
    assert 1000 <= estimate_tokens(anthropic(user(""), system="word" * 1000)) <= 1010
    call = {"id": "1", "function": {"name": "f", "arguments": "word" * 1000}}
    assert 1000 <= estimate_tokens(openai({"role": "assistant", "content": None, "tool_calls": [call]})) <= 1010
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "word" * 1000}]}
    assert 1000 <= estimate_tokens(anthropic(user([result]))) <= 1010


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_tools_count(wire: WireName) -> None:
    """Definitions of tools are input too."""
    body = {"model": "m", "messages": [user("x")], "tools": [{"name": "f", "description": "word" * 1000}]}
    assert estimate_tokens(ChatRequest(wire=wire, body=body)) > 1000


def test_images_and_files_count_flat_whatever_their_size() -> None:
    """A megabyte of base64 is not a quarter of a million tokens."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a" * 1_000_000}}
    assert 1000 < estimate_tokens(anthropic(user([image]))) < 2000
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "a" * 1_000_000}}
    assert estimate_tokens(openai(user([part, part]))) == 1600 + estimate_tokens(openai(user([part])))
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "a" * 1_000_000}}
    assert 2000 < estimate_tokens(anthropic(user([document]))) < 5000


def test_half_an_emoji_counts() -> None:
    """Lone surrogates in text and tools do not stop the count."""
    tools = [{"name": "f", "description": "\ud83d"}]
    assert estimate_tokens(anthropic(user("\ud83d" * 8), tools=tools)) > 2
