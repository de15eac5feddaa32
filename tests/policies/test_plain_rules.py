"""`PlainRules`: rules in English, one question a block, and nothing of a block before its verdict."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from luthien_asgi import BlockKind, Chain, ConfigError, Governed, LuthienMiddleware
from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.chunks import Chunk
from luthien_asgi.compose import Composable
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policies import PlainRules, UpperCase
from luthien_asgi.policies.judge_prompts import NONCE
from luthien_asgi.request import WireName
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import (
    ASGIDriver,
    Refusal,
    ScriptedBackend,
    Thinking,
    ToolCall,
    chunks,
    finish,
    judge_says,
    role,
    run_policy,
    text_chunk,
    verdict_on,
)

CLIENTS = pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
RULES = ["No medical advice.", "Nothing about canaries."]
WITHHELD = "[A policy withheld this part of the answer.]"


def rules(**settings: Any) -> PlainRules:
    return PlainRules(**({"rules": RULES, "model": "judge"} | settings))


def canaries(call: BackendCall) -> list[Chunk]:
    """A judge that finds the second rule violated by whatever names a canary."""
    text = call.request.body["messages"][-1]["content"]
    return chunks(verdict_on(call.request.body, violated=[2] if "canary" in text else [], explanation="I looked."))


def data_of(call: BackendCall) -> list[Any]:
    system, text = (message["content"] for message in call.request.body["messages"])
    nonce = NONCE.search(system)
    assert nonce is not None
    parts = [part.split(f"\n</data {nonce[0]}>")[0] for part in text.split(f"<data {nonce[0]}>\n")[1:]]
    return [json.loads(line) for part in parts for line in part.split("\n")]


@STREAMED
@CLIENTS
async def test_what_violates_no_rule_goes_on(client: WireName, stream: bool) -> None:
    """Text and call arrive; the judge was asked once about each, and about all rules together."""
    answer = chunks("Hel", "lo", ToolCall("c", "bash", {"command": "ls"}))
    backend = ScriptedBackend({"scripted": answer, "judge": canaries})
    run = await run_policy(rules(), backend, client=client, stream=stream)
    assert (run.text, [call.name for call in run.tool_calls]) == ("Hello", ["bash"])
    asked = backend.calls_of("judge")
    assert [data_of(call)[-1].get("text") or data_of(call)[-1]["tool"] for call in asked] == ["Hello", "bash"]
    assert all(
        "1. No medical advice.\n2. Nothing about canaries." in str(call.request.body).replace("\\n", "\n") for call in asked
    )
    assert [record.reason for record in run.verdicts] == ["no rule violated: I looked."] * 2


@STREAMED
@CLIENTS
async def test_a_text_that_violates_a_rule_is_withheld(client: WireName, stream: bool) -> None:
    """Not a byte of it leaves; the rule is in the record, and not in what the client sees."""
    backend = ScriptedBackend({"scripted": chunks("A ca", "nary ", "sings."), "judge": canaries})
    run = await run_policy(rules(), backend, client=client, stream=stream)
    assert run.text == WITHHELD
    assert not any(word in frame for frame in run.frames for word in (b"nary", b"sings", b"looked", b"Nothing about"))
    assert [(record.verdict, record.action, record.reason) for record in run.verdicts] == [
        ("deny", "deny", "violates rule 2 (Nothing about canaries.): I looked.")
    ]
    assert len(backend.calls_of("judge")) == 1


@STREAMED
@CLIENTS
async def test_a_call_that_violates_a_rule_is_withheld_alone(client: WireName, stream: bool) -> None:
    """What is beside it goes on."""
    calls = [ToolCall("c1", "bash", {"command": "ls"}), ToolCall("c2", "bash", {"command": "canary"})]
    run = await run_policy(rules(), {"scripted": chunks("Hi.", *calls), "judge": canaries}, client=client, stream=stream)
    assert run.text == f"Hi.\n\n{WITHHELD}"
    assert [call.id for call in run.tool_calls] == ["c1"]
    assert not any(b"canary" in frame for frame in run.frames)


@CLIENTS
async def test_the_answer_stops_where_it_is_to_stop(client: WireName) -> None:
    """`stop` ends it at the first violation: the call after it is gone, the text before it has left."""
    answer = chunks("canary", ToolCall("c1", "bash", {}))
    run = await run_policy(rules(action="stop", message="No more."), {"scripted": answer, "judge": canaries}, client=client)
    assert (run.text, run.tool_calls, run.record is not None and run.record.ending) == ("No more.", [], "stopped")


@CLIENTS
async def test_the_message_can_take_a_block_s_place(client: WireName) -> None:
    """`replace`: of a text and of a call alike, and the record says so."""
    answer = chunks("canary", ToolCall("c1", "bash", {"a": "canary"}))
    run = await run_policy(rules(action="replace", message="[-]"), {"scripted": answer, "judge": canaries}, client=client)
    assert (run.text, run.tool_calls) == ("[-]\n\n[-]", [])
    assert [record.action for record in run.verdicts] == ["replace", "replace"]


async def test_the_message_names_rules_and_explanation_where_it_is_told_to() -> None:
    """Every rule once, in their order, whatever the judge wrote how often."""
    judge = judge_says(violated=[2, 1, 2], explanation="Both {rules}.")
    policy = rules(message="Violated: {rules} ({explanation})")
    run = await run_policy(policy, {"scripted": chunks("x"), "judge": judge})
    assert run.text == "Violated: No medical advice.; Nothing about canaries. (Both {rules}.)"


@CLIENTS
async def test_thinking_and_refusals_are_judged_where_they_are_named(client: WireName) -> None:
    """And nothing else: text and calls of this configuration pass unasked and unheld."""
    policy = rules(kinds=["thinking", "refusal"])
    answer = chunks(Thinking("a canary", signature="s"), "canary", Refusal("I refuse."))
    backend = ScriptedBackend({"scripted": answer, "judge": canaries})
    run = await run_policy(policy, backend, client=client)
    assert run.thinking == ""
    assert "canary" in run.text
    assert [data_of(call)[-1]["kind"] for call in backend.calls_of("judge")] == ["thinking", "refusal"]
    assert set(policy.handles) == {BlockKind.THINKING, BlockKind.REFUSAL}
    assert set(PlainRules.handles) == {BlockKind.TEXT, BlockKind.TOOL_CALL}


async def test_blocks_of_every_choice_are_judged() -> None:
    """The second choice's text is denied alone."""
    answer = [role(), role(choice=1), text_chunk("fine"), text_chunk("canary", choice=1), finish(), finish(choice=1)]
    run = await run_policy(rules(), {"scripted": answer, "judge": canaries}, request={"n": 2})
    assert [block.text for block in run.blocks] == ["fine", WITHHELD]


def app_of(policy: Composable, backend: ScriptedBackend) -> LuthienMiddleware:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    settings = StreamSettings(ping_interval=0.01)
    return LuthienMiddleware(nothing, policy=policy, backend=backend, auth=None, settings=settings)


@pytest.mark.parametrize(("path", "ping"), [("/v1/chat/completions", b": "), ("/v1/messages", b"event: ping")])
async def test_the_client_gets_pings_while_the_judge_thinks(path: str, ping: bytes) -> None:
    """And nothing else of what is judged: the judge goes on when three have come, and then the text does."""
    gate = asyncio.Event()
    backend = ScriptedBackend({"scripted": chunks("A song."), "judge": lambda call: [*canaries(call)[:1], gate, *canaries(call)]})
    body = {"model": "scripted", "stream": True, "max_tokens": 9, "messages": [user("Hi")]}
    app = app_of(rules(), backend)
    async with ASGIDriver(app).request("POST", path, json=body) as response:
        before = b""
        while before.count(ping) < 3:
            before += await response.part() or b""
        gate.set()
        after = await response.read()
    await app.aclose()
    assert b"song" not in before
    assert b"song" in after


@pytest.mark.broken_off
async def test_a_client_that_leaves_takes_the_judge_with_it() -> None:
    """The judge's stream is closed, though it never answered."""
    backend = ScriptedBackend({"scripted": chunks("A song."), "judge": [asyncio.Event()]})
    body = {"model": "scripted", "stream": True, "messages": [user("Hi")]}
    app = app_of(rules(), backend)
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body) as response:
        while len(backend.streams) < 2:
            await response.part()
        response.disconnect()
    await app.aclose()
    assert [stream.closed.is_set() for stream in backend.streams] == [True, True]


# --- requests ------------------------------------------------------------------------------------------------------------------


@CLIENTS
async def test_a_request_that_violates_a_rule_is_refused(client: WireName) -> None:
    """With a 403; the model is never called, and the judge once."""
    backend = ScriptedBackend({"scripted": chunks("Hi"), "judge": canaries})
    fields = {"input": "Tell me of a canary."} if client == "responses" else {"messages": [user("Tell me of a canary.")]}
    run = await run_policy(rules(where="request"), backend, client=client, request=fields)
    assert (run.status, len(backend.calls_of("scripted")), len(backend.calls_of("judge"))) == (403, 0, 1)
    assert run.error is not None
    assert WITHHELD in run.error["message"]
    assert run.verdicts[0].reason == "violates rule 2 (Nothing about canaries.): I looked."


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


TOOL = {"type": "function", "function": {"name": "t", "description": "A canary's tool.", "parameters": {"type": "object"}}}
PLACES: dict[str, dict[str, Any]] = {
    "system": {"messages": [{"role": "system", "content": "canary"}, user("Hi")]},
    "earlier": {"messages": [user("canary"), {"role": "assistant", "content": "Yes?"}, user("Hi")]},
    "result": {
        "messages": [
            user("Hi"),
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "canary"},
        ]
    },
    "tool": {"messages": [user("Hi")], "tools": [TOOL]},
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_whole_request_is_judged(place: str) -> None:
    """Wherever it says something; what came before the model's last answer is left out only where that is asked for."""
    script = {"scripted": chunks("Hi"), "judge": canaries}
    whole = await run_policy(rules(where="request"), script, request=PLACES[place])
    assert whole.status == 403
    new = await run_policy(rules(where="request", only_new=True), script, request=PLACES[place])
    assert new.status == (403 if place in {"system", "result"} else 200)


async def test_both_are_judged_or_one_of_them() -> None:
    """What a configuration leaves out is not even a hook: nothing is asked and nothing recorded."""
    for where, hooks in (
        ("request", ["on_request"]),
        ("response", ["on_block_complete"]),
        ("both", ["on_request", "on_block_complete"]),
    ):
        backend = ScriptedBackend({"scripted": chunks("Hi"), "judge": canaries})
        run = await run_policy(rules(where=where), backend)
        assert [record.hook for record in run.verdicts] == hooks
        assert len(backend.calls_of("judge")) == len(hooks)


async def test_a_request_can_be_judged_beside_the_call_of_the_model() -> None:
    """The judge answers when the model was called, and the client still gets nothing of what that said."""
    called = asyncio.Event()

    def model(call: BackendCall) -> list[Chunk]:
        called.set()
        return chunks("A secret.")

    def judge(call: BackendCall) -> list[Any]:
        return [called, *canaries(call)]

    policy = Governed(rules(where="request"), concurrent=True)
    async with asyncio.timeout(20):
        run = await run_policy(policy, {"scripted": model, "judge": judge}, request={"messages": [user("canary")]})
    assert run.status == 403
    assert not any(b"secret" in frame for frame in run.frames)
    with pytest.raises(ConfigError, match="has no on_request"):
        Pipeline.of(Governed(rules(), concurrent=True))


@pytest.mark.parametrize(("on_error", "status"), [("block", 500), ("pass", 200)])
async def test_on_error_decides_about_a_request(on_error: Any, status: int) -> None:
    """A judge without a verdict, and a request that is too long to be judged."""
    policy = Governed(rules(where="request", max_characters=200), on_error=on_error)
    unread = await run_policy(policy, {"scripted": chunks("Hi"), "judge": chunks("?")})
    long = await run_policy(policy, {"scripted": chunks("Hi"), "judge": canaries}, request={"messages": [user("x" * 200)]})
    assert (unread.status, long.status) == (status, status)


# --- judges that fail, and settings --------------------------------------------------------------------------------------------


@STREAMED
@CLIENTS
@pytest.mark.parametrize(
    "said", [{}, {"violated": 1}, {"violated": [0]}, {"violated": [3]}, {"violated": [True]}, {"violated": ["1"]}]
)
async def test_a_text_without_a_verdict_does_not_leave(client: WireName, stream: bool, said: dict[str, Any]) -> None:
    """The answer ends in an error; with `pass` it goes on, marked."""
    script = {"scripted": chunks("canary"), "judge": judge_says(**said)}
    blocked = await run_policy(rules(), script, client=client, stream=stream)
    assert blocked.error is not None
    assert not any(b"canary" in frame for frame in blocked.frames)
    passed = await run_policy(Governed(rules(), on_error="pass"), script, client=client, stream=stream)
    assert (passed.text, passed.error) == ("canary", None)
    assert passed.record is not None
    assert passed.record.unchecked == ("PlainRules",)


async def test_the_judge_is_asked_again_where_it_cannot_be_read() -> None:
    """And then its verdict counts."""
    script = {"scripted": chunks("Hi"), "judge": [chunks("Hm."), judge_says(violated=[])]}
    run = await run_policy(rules(), script)
    assert run.text == "Hi"
    assert run.record is not None
    assert len(run.record.calls) == 2


async def test_it_sees_what_the_policy_before_it_let_out() -> None:
    """In a chain the text that is judged is the text that leaves."""
    run = await run_policy(Chain([UpperCase(), rules()]), {"scripted": chunks("canary"), "judge": canaries})
    assert run.text == "CANARY"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": []}, "rules must be a list of texts with at least one in it"),
        ({"rules": "No."}, "rules must be a list of texts"),
        ({"rules": ["a", " "]}, "rules[1] must be a text that is not blank"),
        ({"kinds": ["other"]}, "kinds must be one of text, tool_call, thinking, refusal"),
        ({"kinds": []}, "kinds must be a list of texts"),
        ({"where": "answer"}, "where must be request, response or both"),
        ({"action": "allow"}, "action must be one of deny, stop, replace"),
        ({"action": "stop", "where": "request"}, "a request can only be denied"),
        ({"action": "replace", "kinds": ["thinking"]}, "thinking cannot be replaced"),
        ({"message": "{score}"}, "message has {score}, which nothing stands for; there is {rules}, {explanation}"),
        ({"max_characters": 0}, "max_characters must be a whole number of at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError) as caught:
        rules(**settings)
    assert message in str(caught.value)


def test_what_it_may_say_follows_from_its_configuration() -> None:
    """So that it goes together with as many others as possible."""
    names = {action: {verdict.__name__ for verdict in rules(action=action).verdicts} for action in ("deny", "stop", "replace")}
    assert names == {"deny": {"Allow", "Deny"}, "stop": {"Allow", "Stop"}, "replace": {"Allow", "Replace"}}
