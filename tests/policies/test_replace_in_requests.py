"""`ReplaceText` in requests: every text that the model reads, and JSON that stays JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthien_asgi.policies import ReplaceText
from luthien_asgi.request import WireName
from luthien_asgi.testing import ToolCall, chunks, run_policy

ARGUMENTS = '{"Acme": ["Acme \\u0041cme \\"x\\"", 1.50, 1e5, {"deep": "Acme"}], "n": 12345678901234567890}'
CHANGED = '{"Acme": ["Initech Initech \\"x\\"", 1.50, 1e5, {"deep": "Initech"}], "n": 12345678901234567890}'

MESSAGES: dict[str, dict[str, Any]] = {
    "openai": {
        "messages": [
            {"role": "system", "content": "You work for Acme."},
            {"role": "user", "content": [{"type": "text", "text": "Acme?"}], "name": "Acme"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "Acme!"},
        ]
    },
    "anthropic": {
        "system": [{"type": "text", "text": "You work for Acme."}],
        "messages": [
            {"role": "user", "content": "Acme?"},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {"Acme": ["Acme", {"b": 1.5}]}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "Acme!"}]}],
            },
        ],
    },
    "responses": {
        "instructions": "You work for Acme.",
        "input": [
            {"role": "user", "content": "Acme?"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ARGUMENTS},
            {"type": "function_call_output", "call_id": "c1", "output": "Acme!"},
        ],
    },
}


async def sent(policy: ReplaceText, client: WireName) -> dict[str, Any]:
    """Return the body that the backend was asked with."""
    run = await run_policy(policy, chunks("Acme says hello"), client=client, request=MESSAGES[client])
    assert run.status == 200
    assert run.text == ("Initech says hello" if policy.where == "both" else "Acme says hello")
    return dict(run.backend.calls[0].request.body)


@pytest.mark.parametrize("where", ["request", "both"])
async def test_texts_results_and_arguments_are_changed(where: Any) -> None:
    """In each format, with the names of fields and the numbers as they were written."""
    policy = ReplaceText(replacements=[["Acme", "Initech"]], where=where)
    openai = await sent(policy, "openai")
    system, user, assistant, tool = openai["messages"]
    assert system["content"] == "You work for Initech."
    assert user == {"role": "user", "content": [{"type": "text", "text": "Initech?"}], "name": "Acme"}
    assert assistant["tool_calls"][0]["function"]["arguments"] == CHANGED
    assert tool["content"] == "Initech!"
    anthropic = await sent(policy, "anthropic")
    assert anthropic["system"][0]["text"] == "You work for Initech."
    assert anthropic["messages"][1]["content"][0]["input"] == {"Acme": ["Initech", {"b": 1.5}]}
    assert anthropic["messages"][2]["content"][0]["content"][0]["text"] == "Initech!"
    responses = await sent(policy, "responses")
    assert "Acme?" not in json.dumps(responses)


async def test_without_where_the_request_is_left_alone() -> None:
    """The default is the response; a request's record has no verdict of a policy that does not look at it."""
    run = await run_policy(ReplaceText(replacements=[["Hello", "x"], ["a", "b"]]), chunks("a"))
    assert run.backend.calls[0].request.body["messages"][0]["content"] == "Hello"
    assert run.text == "b"
    assert "on_request" not in [record.hook for record in run.verdicts]


async def test_a_policy_of_requests_does_not_see_the_answer() -> None:
    """It handles no kind of block, so answers pass as if there were no policy."""
    policy = ReplaceText(replacements=[["Acme", "Initech"]], where="request")
    assert policy.handles == {}
    assert type(policy).__name__ == "ReplaceText"
    run = await run_policy(policy, chunks("Acme", ToolCall("c1", "f", '{"a": "Acme"}')))
    assert (run.text, run.tool_calls[0].arguments) == ("Acme", {"a": "Acme"})


async def test_arguments_that_are_not_json_are_changed_as_text() -> None:
    """A history may hold what a model wrote wrongly; it stays wrong, and changed."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "Acme'}}
    history = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": ""}]
    policy = ReplaceText(replacements=[["Acme", "Initech"]], where="request")
    run = await run_policy(policy, chunks("ok"), request={"messages": history})
    got = run.backend.calls[0].request.body["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert got == '{"a": "Initech'


async def test_a_replacement_with_quotes_keeps_the_json() -> None:
    """What is put into a string is written as JSON has it."""
    policy = ReplaceText(replacements=[["Acme", 'the "A"\n\ud83d']], where="request")
    run = await run_policy(policy, chunks("ok"), client="openai", request=MESSAGES["openai"])
    got = run.backend.calls[0].request.body["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(got)["Acme"][1:3] == [1.5, 1e5]
    assert json.loads(got)["Acme"][3] == {"deep": 'the "A"\n\ud83d'}
