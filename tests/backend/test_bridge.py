"""Models that a provider offers through its Responses API only are reached by LiteLLM's bridge, on a plain install too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthien_asgi.backend import BackendCall
from luthien_asgi.backend.bridge import NOTE
from luthien_asgi.errors import BackendError
from luthien_asgi.request import ChatRequest

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f"}
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": []}
USAGE = {
    "input_tokens": 3,
    "output_tokens": 4,
    "total_tokens": 7,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 2},
}


def events(*, cut: bool = False) -> list[dict[str, Any]]:
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    whole = {**MESSAGE, "status": "completed", "content": [{**part, "text": "Hello"}]}
    called = {**CALL, "arguments": '{"x":1}', "status": "completed"}
    said: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**RESPONSE, "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**MESSAGE, "status": "in_progress", "content": []}},
        {"type": "response.content_part.added", **at, "part": part},
        {"type": "response.output_text.delta", **at, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "Hello", "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
        {"type": "response.output_item.added", "output_index": 1, "item": {**called, "arguments": "", "status": "in_progress"}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 1, "delta": '{"x":1}'},
        {"type": "response.function_call_arguments.done", "item_id": "fc_1", "output_index": 1, "arguments": '{"x":1}'},
        {"type": "response.output_item.done", "output_index": 1, "item": called},
        {
            "type": "response.completed",
            "response": {**RESPONSE, "status": "completed", "output": [whole, called], "usage": USAGE},
        },
    ]
    return [{**event, "sequence_number": place} for place, event in enumerate(said[:-1] if cut else said)]


def responses(**fields: Any) -> BackendCall:
    body = {"model": "m", "input": "hi", "tools": [TOOL], **fields}
    return BackendCall(request=ChatRequest(wire="responses", body=body))


@pytest.mark.parametrize("model", ["openai/responses/gpt-5-codex", "openai/gpt-5-codex", "openai/o3-pro"])
async def test_a_model_of_the_responses_api_alone_is_reached(lab: Any, kit: Any, model: str) -> None:
    """Text, call, finish and usage arrive; nothing is to be stored there; the record says which way it went."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*events())))
    stream = await lab.calling(model, provider.url).open(responses(instructions="sys", reasoning={"effort": "high"}))
    chunks = [chunk.model_dump(exclude_none=True) for chunk in await kit.collect(stream)]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello"
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    assert (calls[0]["name"], "".join(call["arguments"] for call in calls)) == ("f", '{"x":1}')
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice.get("finish_reason")]
    assert reasons == ["tool_calls"]
    assert chunks[-1]["usage"]["total_tokens"] == 7
    asked = provider.asked[0]
    assert asked.path == "/v1/responses"
    assert (asked.body["store"], asked.body["instructions"], asked.body["reasoning"]) == (False, "sys", {"effort": "high"})
    assert stream.decoder == "litellm"
    assert NOTE in stream.notes


async def test_a_model_that_refuses_tools_in_chat_completions_is_reached(lab: Any, kit: Any) -> None:
    """Newer models of OpenAI's take function tools with reasoning in the Responses API only, whichever format the client has."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*events())))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    backend = lab.calling("openai/gpt-5.4", provider.url)
    await kit.collect(await backend.open(kit.ask(tools=tools, reasoning_effort="high")))
    assert provider.asked[0].path == "/v1/responses"


async def test_another_model_does_not_take_the_bridge(lab: Any, kit: Any) -> None:
    """Chat completions, with nothing added."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    await kit.collect(await lab.calling("openai/gpt-4o", provider.url).open(responses()))
    assert provider.asked[0].path == "/v1/chat/completions"
    assert "store" not in provider.asked[0].body


async def test_an_answer_that_is_cut_off_there_is_an_error(lab: Any, kit: Any) -> None:
    """No finish reason is invented."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*events(cut=True))))
    stream = await lab.calling("openai/gpt-5-codex", provider.url).open(responses())
    chunks, error = await kit.until_error(stream)
    assert isinstance(error, BackendError)
    assert all(choice.finish_reason is None for chunk in chunks for choice in chunk.choices)


async def test_an_error_there_keeps_its_status(lab: Any, kit: Any) -> None:
    """And its words."""
    body = json.dumps({"error": {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}).encode()
    provider = await lab.provider(lambda _: kit.reply(body, status=429, content_type="application/json"))
    with pytest.raises(BackendError) as caught:
        await lab.calling("openai/gpt-5-codex", provider.url).open(responses())
    assert (caught.value.status, caught.value.message) == (429, "slow down")
