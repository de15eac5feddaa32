"""What was judged as one call leaves as one, and nothing is added to it that nobody judged: not by a repeated id or number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from luthien_asgi.policies import DenyTools, GuardShell
from luthien_asgi.request import WireName
from luthien_asgi.testing import ScriptedBackend, build_chunk, run_policy
from luthien_asgi.testing.proof.stage import decoded
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder

EVIL = '{"command": "rm -rf /"}'
CLIENTS: tuple[WireName, ...] = ("openai", "anthropic", "responses")


def openai(*deltas: dict[str, Any], finish: str = "tool_calls") -> list[bytes]:
    """Return the events of an OpenAI stream with these deltas."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [*({"index": 0, "delta": delta} for delta in deltas), {"index": 0, "delta": {}, "finish_reason": finish}]
    return [*(b"data: " + json.dumps({**head, "choices": [one]}).encode() + b"\n\n" for one in choices), b"data: [DONE]\n\n"]


def call(index: int | None, id: str | None, name: str | None, text: str, kind: str = "function") -> dict[str, Any]:  # noqa: A002
    body = {"arguments" if kind == "function" else "input": text} | ({"name": name} if name else {})
    entry = {"index": index, "id": id, "type": kind, kind: body}
    return {"tool_calls": [{field: value for field, value in entry.items() if value is not None}]}


RETURNS = {
    "an id comes back": openai(call(0, "a", "bash", ""), call(0, "b", "forbidden", "{}"), call(0, "a", None, EVIL)),
    "it comes back twice": openai(
        call(0, "a", "bash", ""), call(0, "b", "forbidden", "{}"), call(0, "b", None, ""), call(0, "a", None, EVIL)
    ),
    "half of it": openai(
        call(0, "a", "bash", '{"command": "r'), call(0, "b", "forbidden", "{}"), call(0, "a", None, 'm -rf /"}')
    ),
    "free text": openai(
        call(0, "a", "bash", "echo; rm -r", "custom"), call(0, "b", "forbidden", "{}"), call(0, "a", None, "f /", "custom")
    ),
    "with another number between": openai(
        call(0, "a", "bash", ""), call(1, "c", "fine", "{}"), call(0, "b", "forbidden", "{}"), call(0, "a", None, EVIL)
    ),
    "under a name again": openai(call(0, "a", "bash", ""), call(0, "b", "forbidden", "{}"), call(0, "a", "fine", EVIL)),
}


async def calls_of(
    events: Sequence[bytes], policy: Any, client: WireName, *, stream: bool, provider: WireName = "openai"
) -> tuple[list[tuple[str, str]], str]:
    run = await run_policy(policy, ScriptedBackend(decoded(events, provider), wire=provider), client=client, stream=stream)
    return [(each.name, each.text) for each in run.tool_calls], str(run.error or "")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", RETURNS)
async def test_a_call_that_comes_back_is_refused(name: str, client: WireName, stream: bool) -> None:
    """Another took its place, so it was judged; what is added then would be a part of it at the client."""
    policies = (DenyTools(names=["forbidden"], patterns={"bash": r"rm\s", "*": r"rm\s+-rf"}), GuardShell())
    for policy in policies:
        calls, error = await calls_of(RETURNS[name], policy, client, stream=stream)
        assert not any("rm -rf" in text for _, text in calls)
        assert "another one had taken its place" in error


MOVES = {
    "while it is open": openai(call(0, "a", "bash", ""), call(1, "a", None, EVIL)),
    "after its end": openai(call(0, "a", "bash", ""), call(0, "b", "fine", "{}"), call(1, "a", None, EVIL)),
    "half of it": openai(call(0, "a", "bash", '{"command": "r'), call(1, "a", None, 'm -rf /"}')),
    "to a number without an id": openai(call(0, "a", "bash", ""), call(1, None, "fine", ""), call(1, "a", None, EVIL)),
    "to another call's number": openai(call(0, "a", "bash", ""), call(1, "b", "fine", "{}"), call(1, "a", None, EVIL)),
    "with an empty name": openai(
        call(0, "a", "bash", ""),
        {"tool_calls": [{"index": 1, "id": "a", "type": "function", "function": {"name": "", "arguments": EVIL}}]},
    ),
    "free text": openai(call(0, "a", "bash", "echo; rm -r", "custom"), call(1, "a", None, "f /", "custom")),
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", MOVES)
async def test_a_call_that_goes_on_under_another_number_is_refused(name: str, client: WireName, stream: bool) -> None:
    """Without a name it is no call of its own: who puts calls together by their ids would make one of the two."""
    for policy in (DenyTools(names=["forbidden"], patterns={"bash": r"rm\s", "*": r"rm\s+-rf"}), GuardShell()):
        calls, error = await calls_of(MOVES[name], policy, client, stream=stream)
        assert not any("rm -rf" in text for _, text in calls)
        assert "The provider went on with a tool call under another number." in error


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_anthropic_block_with_a_known_id_and_no_name_is_refused(client: WireName) -> None:
    """Also where the provider opens it as a block: at a client of another format it is told by its id and number."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1}}
    said: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(({"name": "bash"}, {"name": ""})):
        start = {"type": "tool_use", "id": "toolu_a", "input": {}} | block
        said.append({"type": "content_block_start", "index": index, "content_block": start})
        delta = {"type": "input_json_delta", "partial_json": EVIL if index else "{}"}
        said.append({"type": "content_block_delta", "index": index, "delta": delta})
        said.append({"type": "content_block_stop", "index": index})
    said.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}})
    events = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in [*said, {"type": "message_stop"}]]
    calls, error = await calls_of(events, DenyTools(patterns={"bash": r"rm\s"}), client, stream=True, provider="anthropic")
    assert not any("rm" in text for _, text in calls)
    assert "The provider went on with a tool call under another number." in error


@pytest.mark.parametrize("client", CLIENTS)
async def test_ids_are_those_of_a_choice(client: WireName) -> None:
    """The same id in another choice is another call, also before its name comes."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas = [(0, call(0, "a", "one", "{}")), (1, call(1, "a", None, "")), (1, call(1, "a", "two", "{}"))]
    choices: list[dict[str, Any]] = [{"index": choice, "delta": delta} for choice, delta in deltas]
    choices += [{"index": index, "delta": {}, "finish_reason": "tool_calls"} for index in (0, 1)]
    events = [b"data: " + json.dumps({**head, "choices": [one]}).encode() + b"\n\n" for one in choices]
    calls, error = await calls_of([*events, b"data: [DONE]\n\n"], DenyTools(names=["none"]), client, stream=True)
    assert not error
    assert [name for name, _ in calls] == (["one", "two"] if client == "openai" else ["one"])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_that_its_provider_ended_cannot_be_gone_on_with(client: WireName, stream: bool) -> None:
    """A delta under the number of a block that was stopped belongs to nothing."""
    block = {"type": "tool_use", "id": "toolu_a", "name": "bash", "input": {}}
    late = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": EVIL}}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1}}
    said: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        late,
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    decoder = AnthropicDecoder(1 << 20, 1)
    data = decoder.feed(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in said))
    answer: list[Any] = [*map(build_chunk, data), *([decoder.error] if decoder.error else [])]
    run = await run_policy(
        DenyTools(patterns={"bash": r"rm\s"}), ScriptedBackend(answer, wire="anthropic"), client=client, stream=stream
    )
    assert not any("rm" in each.text for each in run.tool_calls)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_the_name_of_a_function_call_is_the_one_that_was_judged(client: WireName, stream: bool) -> None:
    """The form before tools: a client adds the pieces of its name up."""
    pieces = [{"function_call": {"name": "ba", "arguments": ""}}, {"function_call": {"name": "sh", "arguments": EVIL}}]
    answer = decoded(openai(*pieces, finish="function_call"), "openai")
    run = await run_policy(DenyTools(names=["bash", "sh"]), ScriptedBackend(answer), client=client, stream=stream)
    assert run.error is None
    if client == "openai":
        sent = b"".join(run.frames)
        assert sent.count(b'"name":') == sent.count(b'"name":"ba"') == 1
        assert stream or run.body["choices"][0]["message"]["function_call"] == {"name": "ba", "arguments": EVIL}
    else:
        assert [(each.name, json.loads(each.text)) for each in run.tool_calls] == [("ba", json.loads(EVIL))]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("turned", [False, True])
async def test_a_function_call_hides_no_tool_call(client: WireName, stream: bool, turned: bool) -> None:
    """Both forms in one answer: each is judged, also where their numbers and ids are made to look alike."""
    legacy: list[dict[str, Any]] = [{"function_call": {"name": "ok", "arguments": ""}}]
    tools = [call(0, "call_c_0" if turned else None, "bash", EVIL), call(2**31 - 1, None, "bash", EVIL)]
    pieces = [*tools, *legacy] if turned else [*legacy, *tools]
    for policy in (DenyTools(names=["bash"]), DenyTools(allow_only=["ok"]), GuardShell()):
        answer = decoded(openai(*pieces), "openai")
        run = await run_policy(policy, ScriptedBackend(answer), client=client, stream=stream)
        assert b"rm -rf" not in b"".join(run.frames)
        assert all(each.name == "ok" for each in run.tool_calls)


@pytest.mark.parametrize("client", CLIENTS)
async def test_calls_that_take_each_others_number_arrive(client: WireName) -> None:
    """Some providers give every call the number 0: each is a call, as long as none comes back."""
    events = openai(
        call(0, "a", "one", '{"n": 1}'), call(0, "b", "two", '{"n"'), call(0, "b", None, ": 2}"), call(0, "c", "three", "{}")
    )
    calls, error = await calls_of(events, DenyTools(names=["two"]), client, stream=True)
    assert not error
    assert [name for name, _ in calls] == ["one", "three"]
