"""The author's kit: chunks, the backend without a network, and policies in three lines."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest

from luthien_asgi import (
    Approval,
    Approvals,
    BackendError,
    Block,
    BlockKind,
    Chain,
    ConfigError,
    Deny,
    Escalate,
    Governed,
    Hold,
    Policy,
)
from luthien_asgi.chunks import finish_reason_of, has_role, read_part, usage_of
from luthien_asgi.policies import ToolCallJudge
from luthien_asgi.testing import (
    Redacted,
    Refusal,
    ScriptedBackend,
    Text,
    Thinking,
    ToolCall,
    chunks,
    judge_says,
    run_policy,
    run_policy_sync,
    text_chunk,
    tool_chunks,
    verdict_on,
)

CLIENTS = pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
CALL = ToolCall("call_1", "bash", {"command": "rm -rf /"}, cuts=(5,))


class NoBash(Policy):
    """Denies a tool by its name."""

    handles = {BlockKind.TOOL_CALL: Hold()}  # noqa: RUF012 - as an author would write it

    def on_block_complete(self, block: Block, ctx: Any) -> Deny | None:
        return Deny("[bash is not allowed]") if block.name == "bash" else None


def test_chunks_are_a_whole_answer() -> None:
    """Role, two texts, finish and usage, as real `ModelResponseStream` objects of one identity."""
    made = chunks("Hel", "lo")
    assert {type(chunk).__name__ for chunk in made} == {"ModelResponseStream"}
    assert [read_part(chunk).text for chunk in made] == ["", "Hel", "lo", "", ""]
    assert (has_role(made[0]), finish_reason_of(made[3]), usage_of(made[4])) == (
        True,
        "stop",
        {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in made}) == 1


def test_chunks_of_every_part() -> None:
    """One part a chunk; tool calls are numbered; the finish follows from the parts."""
    made = chunks(Thinking("hm", signature="s"), Redacted("d"), Text("a"), Refusal("no"), CALL, ToolCall("call_2", "now", ""))
    parts = [read_part(chunk) for chunk in made[1:-2]]
    assert [str(part.kind) for part in parts] == [
        *["thinking"] * 2,
        "redacted_thinking",
        "text",
        "refusal",
        *["tool_call"] * 4,
    ]
    assert [part.signature for part in parts[:3]] == ["", "s", "d"]
    assert [part.source for part in parts if part.kind is BlockKind.TOOL_CALL] == [0, 0, 0, 1]
    assert finish_reason_of(made[-2]) == "tool_calls"
    assert finish_reason_of(chunks("x", finish_reason=None)[-1]) is None


def test_tool_chunks_keep_their_fragments() -> None:
    """The name comes first, each fragment is a chunk."""
    assert [read_part(chunk).text for chunk in tool_chunks("c", "f", '{"a"', ":1}")] == ["", '{"a"', ":1}"]


@STREAMED
@CLIENTS
async def test_a_policy_without_an_opinion_lets_the_answer_through(client: Any, stream: bool) -> None:
    """What the backend said is what the client got: text, thinking, calls, finish, usage."""
    run = await run_policy(Policy(), chunks(Thinking("hm", signature="s"), "Hel", "lo", CALL), client=client, stream=stream)
    assert (run.status, run.text, run.thinking, run.error) == (200, "Hello", "hm", None)
    (call,) = run.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_1", "bash", {"command": "rm -rf /"})
    reasons = {"openai": ("tool_calls", None), "anthropic": (None, "tool_use"), "responses": (None, None)}
    assert (run.finish_reason, run.stop_reason) == reasons[client]
    assert 7 in run.usage.values()
    assert run.record is not None
    assert run.record.ending == "completed"


@STREAMED
@CLIENTS
async def test_a_denied_call_does_not_reach_the_client(client: Any, stream: bool) -> None:
    """The policy's own message does, and the verdict is there to assert on."""
    run = await run_policy(NoBash(), chunks("Look: ", CALL), client=client, stream=stream)
    assert run.tool_calls == []
    assert "[bash is not allowed]" in run.text
    assert [(verdict.verdict, verdict.tool) for verdict in run.verdicts if verdict.verdict == "deny"] == [("deny", "bash")]


@CLIENTS
async def test_a_refused_call_is_an_error_with_its_status(client: Any) -> None:
    """In a list of answers an exception is the provider's refusal."""
    run = await run_policy(Policy(), [BackendError("slow down", status=429)], client=client)
    assert (run.status, run.text, run.blocks) == (429, "", ())
    assert run.error is not None
    assert "slow down" in run.error["message"]


@CLIENTS
async def test_an_answer_that_breaks_off_ends_in_an_error_event(client: Any) -> None:
    """What came before arrived; there is no good end."""
    run = await run_policy(Policy(), [*chunks("Hel", finish_reason=None), BackendError("broken")], client=client)
    assert (run.status, run.text) == (200, "Hel")
    assert run.error is not None
    assert run.frames


async def test_the_request_is_the_authors_to_complete() -> None:
    """Fields are added to the least that the wire wants; the backend's calls are there to look at."""
    run = await run_policy(Policy(), chunks("x"), request={"temperature": 0.5})
    (call,) = run.backend.calls
    assert (call.request.body["temperature"], call.request.model) == (0.5, "scripted")


def test_a_test_that_is_not_async() -> None:
    """`run_policy_sync` does the same."""
    assert run_policy_sync(Policy(), chunks("Hello")).text == "Hello"


async def test_answers_are_given_in_order_and_then_refused() -> None:
    """A list of answers answers one call each; a call too many says so."""
    backend = ScriptedBackend([chunks("1"), chunks("2")])
    assert [(await run_policy(Policy(), backend)).text for _ in range(2)] == ["1", "2"]
    assert (await run_policy(Policy(), backend)).status == 502
    assert len(backend.calls) == 3


async def test_a_stream_stalls_at_an_event_and_knows_its_reader() -> None:
    """Nothing comes before the event is set; `closed` says that the reader closed it."""
    gate = asyncio.Event()
    backend = ScriptedBackend([text_chunk("a"), gate, text_chunk("b")])
    run = await run_policy(Policy(), ScriptedBackend(chunks("x")))
    stream = await backend.open(run.backend.calls[0])
    assert read_part(await anext(stream)).text == "a"
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(anext(stream))
        await anyio.wait_all_tasks_blocked()
        assert (stream.given, waiting.done()) == (1, False)
        gate.set()
    assert read_part(waiting.result()).text == "b"
    await stream.aclose()
    assert stream.closed.is_set()


class AsksTwo(Policy):
    """Asks one model about each call, and another one about each text."""

    handles = {BlockKind.TOOL_CALL: Hold(), BlockKind.TEXT: Hold()}  # noqa: RUF012 - as an author would write it
    asks = ("one", "two")

    async def on_block_complete(self, block: Block, ctx: Any) -> Deny | None:
        answer = await ctx.ask("one" if block.kind is BlockKind.TOOL_CALL else "two", block.text or block.name)
        return Deny(f"[{answer.text}]") if answer.text.startswith("no") else None


async def test_each_model_has_its_answers_by_its_name() -> None:
    """One answer for every call, a list of them, or a function of the call; in whatever order they are asked."""
    script = ScriptedBackend(
        {
            "scripted": chunks("Hi", CALL, ToolCall("call_2", "ls", "")),
            "one": [chunks("no: first"), chunks("yes")],
            "two": lambda call: chunks(f"no: {call.request.body['messages'][0]['content']}"),
        }
    )
    run = await run_policy(AsksTwo(), script)
    assert run.text == "[no: Hi]\n\n[no: first]"
    assert [call.name for call in run.tool_calls] == ["ls"]
    assert script.models() == ("scripted", "one", "two")
    assert [len(script.calls_of(name)) for name in script.models()] == [1, 2, 1]


async def test_a_model_without_answers_is_not_there() -> None:
    """A policy that asks it is refused at the start, a client with a 404; one whose answers are used up fails by its name."""
    with pytest.raises(ConfigError, match="AsksTwo asks the model 'two', which is not configured"):
        await run_policy(AsksTwo(), {"scripted": chunks("Hi"), "one": chunks("yes")})
    run = await run_policy(Policy(), {"scripted": chunks("Hi")}, request={"model": "other"})
    assert (run.status, run.error is not None) == (404, True)
    used_up = await run_policy(Policy(), {"scripted": []})
    assert used_up.status == 502
    script = ScriptedBackend({"scripted": [chunks("1")]})
    await run_policy(Policy(), script)
    run = await run_policy(Policy(), script)
    assert run.error is not None
    assert "the script has 1 answers for 'scripted', this is call 2" in run.error["message"]


async def test_a_function_may_refuse_the_call() -> None:
    """It returns an exception, in a list or alone."""
    for script in (lambda _: BackendError("slow down", status=429), [lambda _: BackendError("slow down", status=429)]):
        assert (await run_policy(Policy(), script)).status == 429
    assert (await run_policy(Policy(), BackendError("slow down", status=429))).status == 429


async def test_people_can_be_asked_and_policies_composed() -> None:
    """`approvals` is the desk, and what is tested may be several policies."""

    class Asks(Policy):
        handles = {BlockKind.TOOL_CALL: Hold()}  # noqa: RUF012 - as an author would write it
        verdicts = (Escalate,)

        def on_block_complete(self, block: Block, ctx: Any) -> Escalate:
            return Escalate(f"{block.name}?")

    async def answer(approval: Approval) -> bool:
        return approval.question == "ls?"

    policy = Chain([Governed(NoBash(), mode="off"), Asks()])
    run = await run_policy(policy, chunks(CALL, ToolCall("call_2", "ls", "")), approvals=Approvals(notify=answer))
    assert [call.name for call in run.tool_calls] == ["ls"]


async def test_a_judge_says_what_a_test_wants() -> None:
    """With the nonce that it was asked for; a request that asks for no verdict is none."""
    run = await run_policy(ToolCallJudge(model="judge"), {"scripted": chunks(CALL), "judge": judge_says(score=1)})
    assert run.tool_calls == []
    with pytest.raises(ValueError, match="asks for no verdict"):
        verdict_on({"messages": [{"role": "user", "content": "verdict-0123456789abcdef"}]}, score=0)
    asked = {"system": [{"type": "text", "text": "Use verdict-0123456789abcdef."}], "messages": []}
    assert json.loads(verdict_on(asked, score=0))["nonce"] == "verdict-0123456789abcdef"
