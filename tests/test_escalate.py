"""`Escalate`: a person decides while the block is held and the client gets pings; and what policies ask models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from luthien_asgi import (
    Approval,
    Approvals,
    BackendError,
    Block,
    BlockKind,
    ConfigError,
    Decision,
    Deny,
    Escalate,
    Governed,
    Hold,
    KeyAuth,
    LuthienMiddleware,
    MemoryRecorder,
    Paths,
    Policy,
    Replace,
    Stop,
    StreamContext,
    StreamSettings,
    Together,
    Verdict,
)
from luthien_asgi.request import WireName
from luthien_asgi.testing import ScriptedBackend, ToolCall, chunks, run_policy
from luthien_asgi.testing.driver import ASGIDriver

CLIENTS: Sequence[WireName] = ("openai", "anthropic", "responses")
BASH = ToolCall("c1", "bash", {"command": "rm -rf /"})
OPERATOR = {"authorization": "Bearer operator-key"}


class AskMe(Policy):
    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Escalate,)

    def __init__(self, **escalation: Any) -> None:
        self.escalation = {"question": "May it?", **escalation}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
        return Escalate(**self.escalation)


class Says(Policy):
    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.verdicts = (type(verdict),)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
        return self.verdict


def desk(answer: Any = None, **settings: Any) -> Approvals:
    async def notify(approval: Approval) -> Any:
        return answer

    return Approvals(notify=notify, **settings)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_person_decides(client: WireName, *, stream: bool, allowed: bool) -> None:
    """Allowed, the call leaves as it came; denied, its message does. Both verdicts are recorded."""
    policy = AskMe(message="Alice said no.")
    run = await run_policy(policy, chunks("so", BASH), client=client, stream=stream, approvals=desk(allowed))
    if allowed:
        assert ([call.text for call in run.tool_calls], run.text) == (['{"command":"rm -rf /"}'], "so")
    else:
        assert (run.tool_calls, run.text) == ([], "so\n\nAlice said no.")
    action = "allow" if allowed else "deny"
    assert [(record.hook, record.verdict, record.action, record.reason) for record in run.verdicts] == [
        ("on_block_complete", "escalate", action, ""),
        ("approval", action, action, "callback"),
    ]


@pytest.mark.parametrize("default", ["allow", "deny"])
async def test_nobody_answers(default: Any) -> None:
    """The timeout's default decides: the policy's own time, or the desk's."""
    for policy, approvals in (
        (AskMe(default=default, timeout=0.01), Approvals()),
        (AskMe(default=default), Approvals(timeout=0.01)),
    ):
        run = await run_policy(policy, chunks(BASH), approvals=approvals)
        assert len(run.tool_calls) == (default == "allow")
        assert run.verdicts[1].reason.startswith("timeout")


async def test_nobody_answers_a_policy_that_said_no_default() -> None:
    """Silence is a no."""
    run = await run_policy(AskMe(timeout=0.01), chunks(BASH), approvals=Approvals())
    assert (run.tool_calls, run.verdicts[1].verdict) == ([], "deny")


async def test_policy_timeout_does_not_run_while_a_person_decides() -> None:
    """It is the hook's time, and the hook has answered."""
    approvals = Approvals(timeout=0.2)
    run = await run_policy(
        Governed(AskMe(default="allow"), timeout=0.01),
        chunks(BASH),
        approvals=approvals,
        settings=StreamSettings(policy_timeout=0.01),
    )
    assert len(run.tool_calls) == 1


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_two_terminals(client: WireName) -> None:
    """The stream shows pings and no byte of the call; an operator lists what waits and answers it; the call leaves."""
    recorder = MemoryRecorder()
    app = LuthienMiddleware(
        _nothing,
        policy=AskMe(),
        backend=ScriptedBackend(chunks("text", BASH)),
        auth=None,
        recorder=recorder,
        approvals=Approvals(auth=KeyAuth({"alice": "operator-key"})),
        paths=Paths(approvals="/luthien/approvals"),
        settings=StreamSettings(ping_interval=0.02),
    )
    path = "/v1/chat/completions" if client == "openai" else "/v1/messages"
    body = {"model": "m", "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    driver, got = ASGIDriver(app), b""
    async with driver.request("POST", path, json=body) as answer:
        async for part in answer:
            got += part
            if got.count(b": ping" if client == "openai" else b"event: ping") >= 2:
                break
        assert b"rm -rf" not in got
        listed = await driver.fetch("GET", "/luthien/approvals", headers=OPERATOR)
        (waiting,) = listed.json()
        assert (waiting["tool"], waiting["content"], waiting["question"]) == ("bash", '{"command":"rm -rf /"}', "May it?")
        said = await driver.fetch(
            "POST", f"/luthien/approvals/{waiting['id']}", json={"decision": "allow", "reason": "fine"}, headers=OPERATOR
        )
        assert said.status == 200
        async for part in answer:
            got += part
    assert b"rm -rf" in got
    await app.aclose()
    (end,) = recorder.ended
    assert end.verdicts[1].reason == "operator:alice: fine"
    assert end.verdicts[1].seconds > 0.02


async def test_a_person_is_not_asked_what_somebody_else_has_denied() -> None:
    """Deny and Stop outrank the question; what is below it holds where the person allows."""
    asked: list[str] = []

    async def notify(approval: Approval) -> bool:
        asked.append(approval.tool)
        return True

    for verdict in (Deny("no"), Stop("stop")):
        run = await run_policy(Together([AskMe(), Says(verdict)]), chunks(BASH), approvals=Approvals(notify=notify))
        assert run.tool_calls == []
    assert asked == []
    other = Replace([Block(kind=BlockKind.TOOL_CALL, id="c9", name="ls")])
    run = await run_policy(Together([AskMe(), Says(other)]), chunks(BASH), approvals=Approvals(notify=notify))
    assert (asked, [call.name for call in run.tool_calls]) == (["bash"], ["ls"])


async def test_in_shadow_nobody_is_asked() -> None:
    """A question that changes nothing would be a waste of a person's time."""

    async def notify(approval: Approval) -> bool:
        raise LookupError(approval.id)

    run = await run_policy(Governed(AskMe(), mode="shadow"), chunks(BASH), approvals=Approvals(notify=notify))
    assert [(record.verdict, record.action, record.mode) for record in run.verdicts] == [("escalate", "allow", "shadow")]


def test_a_policy_that_asks_people_needs_a_desk() -> None:
    """Without one it would deny for ever, and nobody would know why."""
    with pytest.raises(ConfigError, match="AskMe may ask a person, and there is nobody to ask"):
        LuthienMiddleware(_nothing, policy=AskMe(), backend=ScriptedBackend(chunks("x")), auth=None)


@pytest.mark.parametrize("wrong", [{"default": "maybe"}, {"timeout": 0}])
def test_an_escalation_is_checked_as_it_is_made(wrong: Any) -> None:
    """A default that is neither, a time that is none."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Escalate("May it?", **wrong)


@pytest.mark.broken_off
async def test_a_client_that_leaves_takes_its_question_with_it() -> None:
    """Nobody decides about a call that nobody waits for."""
    waiting = asyncio.Event()

    async def notify(approval: Approval) -> Decision | None:
        waiting.set()
        return None

    approvals = Approvals(notify=notify)
    backend = ScriptedBackend(chunks("x", BASH))
    app = LuthienMiddleware(_nothing, policy=AskMe(), backend=backend, auth=None, approvals=approvals)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body) as answer:
        await waiting.wait()
        assert len(approvals.waiting()) == 1
        answer.disconnect()
    assert approvals.waiting() == []
    await app.aclose()


# --- asking models ----------------------------------------------------------------------------------------------------------


class Asks(Policy):
    """Denies a call that a model finds bad."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Deny,)
    asks = ("judge",)

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        answer = await ctx.ask("judge", block.text, system="Judge.", max_tokens=7, temperature=0.0)
        return Deny(answer.text) if answer.text != "fine" else None


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_policy_asks_a_model(client: WireName) -> None:
    """One call of the backend, without a policy; what it used is recorded apart from the answer's usage."""
    backend = ScriptedBackend([chunks("so", BASH), chunks("b", "ad")])
    run = await run_policy(Asks(), backend, client=client)
    assert (run.text, run.tool_calls) == ("so\n\nbad", [])
    body = backend.calls[1].request.body
    assert body["messages"] == [{"role": "system", "content": "Judge."}, {"role": "user", "content": '{"command":"rm -rf /"}'}]
    assert (body["model"], body["max_completion_tokens"], body["temperature"]) == ("judge", 7, 0.0)
    assert run.record is not None
    (call,) = run.record.calls
    assert (call.policy, call.model, call.usage) == (
        "Asks",
        "judge",
        {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    )
    assert run.record.usage == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    assert backend.streams[1].closed.is_set()


async def test_a_model_that_does_not_answer_is_the_policys_error() -> None:
    """The call is blocked, and the client hears nothing of the judge's own error."""
    backend = ScriptedBackend([chunks(BASH), BackendError("key sk-secret is wrong", status=401)])
    run = await run_policy(Asks(), backend)
    assert run.tool_calls == []
    assert run.text == "The call of bash was blocked: the policy Asks could not check it."
    assert run.record is not None
    assert (run.record.calls[0].error, run.record.calls[0].usage) == ("authentication_error", None)
    assert run.verdicts[0].reason == "The model that the policy Asks asks did not answer."


async def test_what_a_judge_writes_is_bounded() -> None:
    """A model that goes on and on is one that did not answer, and is not read any further."""
    judge = chunks(*["x" * 400_000] * 4)
    backend = ScriptedBackend([chunks(BASH), judge])
    run = await run_policy(Asks(), backend)
    assert run.text == "The call of bash was blocked: the policy Asks could not check it."
    assert run.record is not None
    assert run.record.calls[0].error == "api_error"
    assert backend.streams[1].closed.is_set()


async def test_each_chunk_of_a_judge_keeps_its_hook_alive() -> None:
    """A judge that writes slowly is not taken for one that hangs."""

    class Slowly(ScriptedBackend):
        async def open(self, call: Any) -> Any:
            stream = await super().open(call)
            return stream if call.request.model != "judge" else _Slow(stream)

    began = time.monotonic()
    backend = Slowly([chunks(BASH), chunks("f", "i", "n", "e")])
    run = await run_policy(Governed(Asks(), timeout=0.2), backend)
    assert [call.name for call in run.tool_calls] == ["bash"]
    assert time.monotonic() - began > 0.2


class _Slow:
    """Gives each chunk a while after the one before."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        chunk = await anext(self.stream)
        pause = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, pause.set_result, None)
        await pause
        return chunk

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_outside_a_transaction_there_is_nobody_to_ask() -> None:
    """A context that was made by hand says so."""
    from luthien_asgi import PolicyContext, PolicyError

    nobody: Any = None
    with pytest.raises(PolicyError, match="no backend"):
        await PolicyContext(transaction_id="t", request=nobody).ask("judge", "x")


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError(scope["type"])
