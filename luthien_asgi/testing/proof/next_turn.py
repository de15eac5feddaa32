"""The next turn of a conversation, as an application builds it from what its client stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.testing.strict import check_history
from luthien_asgi.wire.conversion import Converted
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

__all__ = ["complaint", "next_turn"]

_KEPT: Final = frozenset({"role", "content", "refusal", "tool_calls", "reasoning_content"})


def next_turn(client: WireName, body: Mapping[str, Any], *, question: str = "Hello") -> dict[str, Any]:
    """Return the body of the next request: the first choice's answer and a result for each of its calls, or a new question."""
    return {"model": "scripted", **_TURNS[client](body, question)}


def _openai(body: Mapping[str, Any], question: str) -> dict[str, Any]:
    said = body["choices"][0]["message"]
    message = {name: value for name, value in said.items() if name in _KEPT and value is not None}
    message = {"role": "assistant", "content": None} | message
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in said.get("tool_calls") or ()]
    following = results or [{"role": "user", "content": "Go on."}]
    return {"messages": [{"role": "user", "content": question}, message, *following]}


def _anthropic(body: Mapping[str, Any], question: str) -> dict[str, Any]:
    calls = [block["id"] for block in body["content"] if block["type"] == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call, "content": "done"} for call in calls]
    following = {"role": "user", "content": results or "Go on."}
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": body["content"]}, following]
    return {"max_tokens": 1024, "messages": messages}


def _responses(body: Mapping[str, Any], question: str) -> dict[str, Any]:
    results = [
        {"type": _RESULTS[item["type"]], "call_id": item["call_id"], "output": "done"}
        for item in body["output"]
        if item["type"] in _RESULTS
    ]
    following = results or [{"role": "user", "content": "Go on."}]
    return {"input": [{"role": "user", "content": question}, *body["output"], *following]}


_RESULTS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
_TURNS: Final = {"openai": _openai, "anthropic": _anthropic, "responses": _responses}


def complaint(client: WireName, body: Mapping[str, Any]) -> str | None:
    """Return why the next turn after an answer would be refused, by the client's own API or by a provider of either wire.

    The conversation goes to a provider through the gateway, and may go on at another one: so each wire's own request is checked.
    Thinking that no provider signed is left out on the way to Anthropic's, as the gateway does for every client.
    """
    turn = next_turn(client, body)
    if client == "responses" and (refused := check_history(client, turn)):
        return f"the API says: {refused}"
    request = ChatRequest(wire=client, body=turn)
    for wire, convert in _CONVERSIONS.items():
        if refused := check_history(wire, {**convert(request).params, "model": "scripted"}):
            return f"a provider of the {wire} wire says: {refused}"
    return None


_CONVERSIONS: Final[Mapping[WireName, Callable[[ChatRequest], Converted]]] = {"openai": to_openai, "anthropic": to_anthropic}
