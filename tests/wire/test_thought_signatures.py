"""Gemini's thought signatures in the ids of tool calls: to each client, and back to each provider."""

from __future__ import annotations

import re
from typing import Any

import pytest

from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.thought_signatures import MOST_CHARACTERS, for_anthropic_client, for_backend
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

SIGNATURE = "Ep+/9v3aGVsbG88="
SIGNED = f"call_1__thought__{SIGNATURE}"


def history(name: str, **fields: Any) -> list[Any]:
    call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}, **fields}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": name, "content": "r"}]


def ids(messages: list[Any]) -> list[str]:
    return [messages[0]["tool_calls"][0]["id"], messages[1]["tool_call_id"]]


@pytest.mark.parametrize("signature", [SIGNATURE, "YQ==", "YWI=", "YWJj", "A" * MOST_CHARACTERS])
def test_a_signature_comes_back_from_an_anthropic_client_as_it_went(signature: str) -> None:
    """In the alphabet of Anthropic's ids meanwhile."""
    name = for_anthropic_client(f"call_1__thought__{signature}")
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", name)
    assert ids(for_backend(history(name), signed=True)) == [f"call_1__thought__{signature}"] * 2


def test_an_id_without_a_signature_stays() -> None:
    """The messages are the same objects."""
    assert for_anthropic_client("call_1") == "call_1"
    messages = [*history("call_1"), {"role": "user", "content": "__thought__"}, None]
    assert for_backend(messages, signed=True) == messages
    assert all(new is old for new, old in zip(for_backend(messages, signed=False), messages, strict=True))


@pytest.mark.parametrize("said", ["", "no base64!", "A" * (MOST_CHARACTERS + 1), "a__thought__b=c"])
def test_what_is_no_signature_is_taken_off(said: str) -> None:
    """It is the client's word, or the provider's; the call and its result keep one id."""
    name = f"call_1__thought__{said}"
    assert for_anthropic_client(name) == "call_1"
    assert ids(for_backend(history(name), signed=True)) == ["call_1", "call_1"]


def test_a_provider_that_is_not_gemini_gets_none() -> None:
    """Others bound the length of an id."""
    assert ids(for_backend(history(SIGNED), signed=False)) == ["call_1", "call_1"]


def test_a_signature_in_googles_own_place_is_understood() -> None:
    """`extra_content`, as Google's OpenAI endpoint gives it; anything else there stays."""
    google = {"google": {"thought_signature": SIGNATURE}}
    [call] = for_backend(history("call_1", extra_content=google), signed=True)[0]["tool_calls"]
    assert call["provider_specific_fields"] == {"thought_signature": SIGNATURE}
    assert "extra_content" not in call
    for odd in ({"google": {"thought_signature": 3}}, {"google": 3}, 3):
        messages = history("call_1", extra_content=odd)
        assert for_backend(messages, signed=True) == messages


def test_an_anthropic_backend_gets_plain_ids() -> None:
    """A history that began with Gemini goes on with Claude; call and result still belong together."""
    request = ChatRequest(wire="openai", body={"model": "m", "messages": history(SIGNED)})
    written = to_anthropic(request).params["messages"]
    assert written[1]["content"][0]["id"] == written[2]["content"][0]["tool_use_id"] == "call_1"


def test_the_conversion_keeps_an_id_as_the_client_sent_it() -> None:
    """Which provider it goes to is not the conversion's to know."""
    name = for_anthropic_client(SIGNED)
    blocks = [{"type": "tool_use", "id": name, "name": "f", "input": {}}]
    results = [{"type": "tool_result", "tool_use_id": name, "content": "r"}]
    messages = [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    written = to_openai(ChatRequest(wire="anthropic", body={"model": "m", "max_tokens": 1, "messages": messages})).params[
        "messages"
    ]
    assert ids(written) == [name, name]
