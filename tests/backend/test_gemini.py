"""Gemini behind LiteLLM's own iteration: its thought signatures go to the client and come back to the provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from luthien_asgi import LuthienMiddleware, Policy
from luthien_asgi.testing import ASGIDriver, accumulate_anthropic, accumulate_openai

SIGNATURE = "EpoCCpcCAb4+9v/3aGVsbG8="
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOLS: Mapping[str, Any] = {
    "openai": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    "anthropic": [{"name": "f", "input_schema": SCHEMA}],
}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
ACCUMULATORS = {"openai": accumulate_openai, "anthropic": accumulate_anthropic}


def reply(kit: Any, asked: Any) -> Any:
    """Call a tool with a signature behind it; quote the result once it is there."""
    has_result = "function_response" in json.dumps(asked.body)
    part = {"text": "done"} if has_result else {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": SIGNATURE}
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    answer = {"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0, "finishReason": "STOP"}]}
    body = json.dumps({**answer, "usageMetadata": usage})
    if "streamGenerateContent" in asked.path:
        return kit.reply(f"data: {body}\n\n".encode())
    return kit.reply(body.encode(), content_type="application/json")


async def ask(app: Any, client: str, messages: list[Any], *, stream: bool) -> dict[str, Any]:
    request = {"model": "m", "messages": messages, "max_tokens": 99, "tools": TOOLS[client], "stream": stream}
    fetched = await ASGIDriver(app).fetch("POST", PATHS[client], json=request)
    assert fetched.status == 200, fetched.body
    return dict(ACCUMULATORS[client](fetched.body).body) if stream else fetched.json()


def stored(client: str, answer: dict[str, Any]) -> list[Any]:
    """Return what a client adds to its history: the answer as it got it, and the tool's result."""
    if client == "openai":
        message = answer["choices"][0]["message"]
        kept = {name: message[name] for name in ("role", "content", "tool_calls")}
        return [kept, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "5"}]
    [call] = [block for block in answer["content"] if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "5"}
    return [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": [result]}]


async def nothing_behind(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError((scope, receive, send))


async def test_thought_signatures_make_the_round_trip(lab: Any, kit: Any) -> None:
    """Two turns, both clients, streaming or not, from the provider and to it: the signature is what Gemini wrote."""
    provider = await lab.provider(lambda asked: reply(kit, asked))
    for streams in (True, False):
        backend = lab.calling("gemini/gemini-3-pro-preview", provider.url, stream=streams)
        app = LuthienMiddleware(nothing_behind, policy=Policy(), backend=backend, auth=None)
        for client in TOOLS:
            for stream in (True, False):
                messages: list[Any] = [{"role": "user", "content": "x"}]
                messages += stored(client, await ask(app, client, messages, stream=stream))
                await ask(app, client, messages, stream=stream)
                turn = next(content for content in provider.asked[-1].body["contents"] if content["role"] == "model")
                [part] = [part for part in turn["parts"] if "function_call" in part]
                assert part["thoughtSignature"] == SIGNATURE, (client, stream, streams)
                assert "__thought__" not in json.dumps(provider.asked[-1].body)
        await app.aclose()
