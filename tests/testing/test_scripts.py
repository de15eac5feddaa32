"""The scripts that ship: the demonstration and the tool loop."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from luthien_asgi.testing import ScriptedProvider, accumulate_anthropic, accumulate_openai, demo_script, tool_loop_script

USER = {"role": "user", "content": "Tidy up"}
SHAPES = [("/v1/chat/completions", accumulate_openai), ("/v1/messages", accumulate_anthropic)]


async def ask(provider: ScriptedProvider, path: str, messages: list[Any]) -> httpx.Response:
    async with httpx.AsyncClient(timeout=5) as client:
        body = {"model": "m", "max_tokens": 9, "stream": True, "messages": messages}
        return await client.post(provider.url + path, json=body)


def calls_of(body: Any) -> list[tuple[str, str]]:
    if "choices" in body:
        return [(call["id"], call["function"]["name"]) for call in body["choices"][0]["message"]["tool_calls"]]
    return [(block["id"], block["name"]) for block in body["content"] if block["type"] == "tool_use"]


@pytest.mark.parametrize(("path", "accumulate"), SHAPES)
async def test_the_demonstration_begins_with_a_harmless_and_a_dangerous_call(path: str, accumulate: Any) -> None:
    """The second call is `bash` with `rm -rf /`; ids differ from turn to turn of a conversation."""
    async with ScriptedProvider(demo_script(pace=0)) as provider:
        first = accumulate((await ask(provider, path, [USER])).content)
        third = accumulate((await ask(provider, path, [USER, {"role": "assistant", "content": "Done."}, USER])).content)
    assert [name for _, name in calls_of(first.body)] == ["list_files", "bash"]
    assert "rm -rf /" in str(first.body)
    assert not {call[0] for call in calls_of(first.body)} & {call[0] for call in calls_of(third.body)}


async def test_the_demonstration_answers_tool_results_with_text() -> None:
    """Only the results since the last answer count, as strings or as blocks."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    openai = [USER, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "a.txt"}]
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "b.txt"}]}
    anthropic = [USER, {"role": "assistant", "content": [{"type": "tool_use", "id": "c"}]}, {"role": "user", "content": [result]}]
    async with ScriptedProvider(demo_script(pace=0)) as provider:
        chat = accumulate_openai((await ask(provider, SHAPES[0][0], openai)).content)
        message = accumulate_anthropic((await ask(provider, SHAPES[1][0], anthropic)).content)
        again = accumulate_openai(
            (await ask(provider, SHAPES[0][0], [*openai, {"role": "assistant", "content": "x"}, USER])).content
        )
    assert "a.txt" in chat.body["choices"][0]["message"]["content"]
    assert "b.txt" in message.body["content"][0]["text"]
    assert again.body["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(("path", "accumulate"), SHAPES)
async def test_the_tool_loop_calls_one_tool_first(path: str, accumulate: Any) -> None:
    """Text, then `get_weather`; on the OpenAI wire `max_tokens` is no obstacle."""
    async with ScriptedProvider(tool_loop_script()) as provider:
        got = accumulate((await ask(provider, path, [USER])).content)
    assert [name for _, name in calls_of(got.body)] == ["get_weather"]
