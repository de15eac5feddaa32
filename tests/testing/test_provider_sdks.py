"""The scripted provider against the official SDKs: oracles that are not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from luthien_asgi.testing import (
    Answer,
    ErrorEvent,
    Failure,
    Redacted,
    Refusal,
    ScriptedProvider,
    Text,
    Thinking,
    ToolCall,
    Usage,
    tool_loop_script,
)

USER: list[Any] = [{"role": "user", "content": "Hi"}]
TOOL = ToolCall("call_1", "get_weather", {"city": "Zürich 🏔"}, cuts=(1, 5, 12))
RICH = Answer(
    Thinking("hm", "m", signature="sig"),
    Redacted("opaque"),
    Text("Hel", "lo"),
    TOOL,
    ToolCall("call_2", "now", ""),
    usage=Usage(input=5, output=7, cache_read=3, cache_write=2),
)


def openai_of(provider: ScriptedProvider) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=provider.url + "/v1", api_key="k", max_retries=0)


def anthropic_of(provider: ScriptedProvider) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", max_retries=0)


async def chat(client: openai.AsyncOpenAI, history: Any) -> Any:
    """Stream an answer through the SDK's accumulator."""
    async with client.chat.completions.stream(model="m", messages=history, stream_options={"include_usage": True}) as stream:
        return await stream.get_final_completion()


async def messages(client: anthropic.AsyncAnthropic, history: Any) -> Any:
    """Stream an answer through the SDK's accumulator."""
    async with client.messages.stream(model="m", max_tokens=9, messages=history) as stream:
        return await stream.get_final_message()


@pytest.fixture
async def rich() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(RICH) as provider:
        yield provider


@pytest.mark.parametrize("streamed", [True, False])
async def test_openai_sdk_reads_every_part(rich: ScriptedProvider, streamed: bool) -> None:
    """Text, reasoning, two tool calls, finish and usage are what the script says."""
    async with openai_of(rich) as client:
        got = await chat(client, USER) if streamed else await client.chat.completions.create(model="m", messages=USER)
    message = got.choices[0].message
    assert (message.content, message.reasoning_content, got.choices[0].finish_reason) == ("Hello", "hmm", "tool_calls")
    assert [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls] == [
        ("call_1", "get_weather", TOOL.text),
        ("call_2", "now", ""),
    ]
    assert (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.prompt_tokens_details.cached_tokens) == (10, 7, 3)


@pytest.mark.parametrize("streamed", [True, False])
async def test_anthropic_sdk_reads_every_part(rich: ScriptedProvider, streamed: bool) -> None:
    """Thinking with its signature, redacted data, text, two tool calls, stop reason and usage are what the script says."""
    async with anthropic_of(rich) as client:
        got = await messages(client, USER) if streamed else await client.messages.create(model="m", max_tokens=9, messages=USER)
    thinking, redacted, text, weather, now = got.content
    assert (thinking.thinking, thinking.signature, redacted.data, text.text) == ("hmm", "sig", "opaque", "Hello")
    assert (weather.id, weather.name, weather.input) == ("call_1", "get_weather", {"city": "Zürich 🏔"})
    assert (now.name, now.input, got.stop_reason) == ("now", {}, "tool_use")
    assert (got.usage.input_tokens, got.usage.output_tokens, got.usage.cache_read_input_tokens) == (5, 7, 3)


async def test_openai_sdk_reads_a_refusal() -> None:
    """A refusal is in `refusal`, and there is no content."""
    async with ScriptedProvider(Answer(Refusal("I ", "won't"))) as provider, openai_of(provider) as client:
        message = (await chat(client, USER)).choices[0].message
    assert message.refusal == "I won't"
    assert not message.content


async def test_anthropic_sdk_reads_a_refusal() -> None:
    """A refusal is a stop reason."""
    async with ScriptedProvider(Answer(Refusal("no"))) as provider, anthropic_of(provider) as client:
        assert (await messages(client, USER)).stop_reason == "refusal"


async def test_sdks_raise_their_own_errors_for_a_failure() -> None:
    """529 is the Anthropic SDK's OverloadedError, 429 the OpenAI SDK's RateLimitError, message and headers kept."""
    async with ScriptedProvider([Failure(529), Failure(429, headers={"retry-after": "3"})]) as provider:
        async with anthropic_of(provider) as client:
            with pytest.raises(anthropic.APIStatusError) as overloaded:
                await client.messages.create(model="m", max_tokens=9, messages=USER)
        async with openai_of(provider) as other:
            with pytest.raises(openai.RateLimitError) as limited:
                await other.chat.completions.create(model="m", messages=USER)
    assert (overloaded.value.status_code, overloaded.value.body["error"]["type"]) == (529, "overloaded_error")
    assert limited.value.response.headers["retry-after"] == "3"


async def test_sdks_raise_for_an_error_event() -> None:
    """Both SDKs raise when the event comes, with the error's message."""
    async with ScriptedProvider(Answer("Hello", faults=[ErrorEvent(after=3, message="boom")])) as provider:
        async with openai_of(provider) as client:
            with pytest.raises(openai.APIError, match="boom"):
                await chat(client, USER)
        async with anthropic_of(provider) as other:
            with pytest.raises(anthropic.APIError, match="boom"):
                await messages(other, USER)


async def test_openai_sdk_runs_the_tool_loop() -> None:
    """Turn 1 calls the tool; what the SDK stored, sent back with the result, is accepted and quoted."""
    async with ScriptedProvider(tool_loop_script()) as provider, openai_of(provider) as client:
        message = (await chat(client, USER)).choices[0].message
        call = message.tool_calls[0].model_dump(exclude={"function": {"parsed_arguments"}})
        stored = {"role": "assistant", "content": message.content, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "21 °C"}
        assert (await chat(client, [*USER, stored, result])).choices[0].message.content == "The tool said: 21 °C"


async def test_anthropic_sdk_runs_the_tool_loop() -> None:
    """Turn 1 calls the tool; what the SDK stored, sent back with the result, is accepted and quoted."""
    async with ScriptedProvider(tool_loop_script()) as provider, anthropic_of(provider) as client:
        message = await messages(client, USER)
        stored = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}
        result = {"type": "tool_result", "tool_use_id": message.content[-1].id, "content": "21 °C"}
        answer = await messages(client, [*USER, stored, {"role": "user", "content": [result]}])
    assert answer.content[0].text == "The tool said: 21 °C"


async def test_the_tool_loop_refuses_a_history_that_the_api_refuses() -> None:
    """A tool call without its result is a 400 in both SDKs."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    async with ScriptedProvider(tool_loop_script()) as provider:
        async with openai_of(provider) as client:
            with pytest.raises(openai.BadRequestError, match="did not have response messages: c"):
                await chat(client, [*USER, {"role": "assistant", "tool_calls": [call]}, *USER])
        async with anthropic_of(provider) as other:
            with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks immediately after: c"):
                await messages(other, [*USER, {"role": "assistant", "content": [use]}, *USER])


async def test_sdks_list_models_and_count_tokens() -> None:
    """The other routes answer in the shape that each SDK reads."""
    async with ScriptedProvider({"m": Answer("x")}) as provider:
        async with openai_of(provider) as client:
            assert [model.id async for model in client.models.list()] == ["m"]
        async with anthropic_of(provider) as other:
            assert [model.id async for model in other.models.list()] == ["m"]
            assert (await other.messages.count_tokens(model="m", messages=USER)).input_tokens > 0
