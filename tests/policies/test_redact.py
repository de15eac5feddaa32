"""`Redact` in the middleware: what the provider gets, what the client gets, and what is put back."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi import JsonlRecorder
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.policies import Redact
from luthien_asgi.recorder import Begin
from luthien_asgi.request import WireName
from luthien_asgi.testing import (
    Refusal,
    ScriptedBackend,
    Thinking,
    ToolCall,
    build_chunk,
    chunks,
    finish,
    role,
    run_policy,
    run_policy_sync,
    text_chunk,
)

KEY: Final = "a key of sixteen characters or more"
MAIL: Final = "alice@example.com"
SECRET: Final = "sk-proj-a1B2c3D4e5F6g7H8i9J0"
WIRES: Final[tuple[WireName, ...]] = ("openai", "anthropic", "responses")


def placeholder(value: str) -> str:
    """Return what stands for a value under the tests' key."""
    return Redact(key=KEY).mask(value)


def asked(client: WireName, text: str) -> dict[str, Any]:
    """Return the fields of a request in which the user says a text."""
    return {"input": text} if client == "responses" else {"messages": [{"role": "user", "content": text}]}


# --- placeholders ------------------------------------------------------------------------------------------------------------


def test_a_value_has_one_placeholder_and_nobody_can_tell_whose() -> None:
    """The same with the same key, in every process; another with another key, and with each process's own."""
    assert re.fullmatch(r"\[EMAIL_[0-9a-f]{10}\]", placeholder(MAIL))
    assert Redact(key=KEY).mask(f"{MAIL} {MAIL}") == f"{placeholder(MAIL)} {placeholder(MAIL)}"
    assert placeholder("bob@example.com") != placeholder(MAIL)
    assert len({Redact(key=KEY + "2").mask(MAIL), Redact().mask(MAIL), Redact().mask(MAIL), placeholder(MAIL)}) == 4


def test_masking_twice_is_masking_once() -> None:
    """A placeholder is no value, whatever stands around it."""
    text = f"{MAIL} https://u:pass@h {SECRET} 4111111111111111 +49 170 1234567 DE89370400440532013000 Bearer {SECRET}"
    policy = Redact(key=KEY)
    assert policy.mask(policy.mask(text)) == policy.mask(text) != text


def test_values_to_keep_are_kept() -> None:
    """An address of one's own is no secret."""
    assert Redact(keep=["help@example.com"]).mask("help@example.com") == "help@example.com"


# --- the request -------------------------------------------------------------------------------------------------------------

HISTORY: Final[dict[str, dict[str, Any]]] = {
    "openai": {
        "user": MAIL,
        "metadata": {"from": MAIL},
        "messages": [
            {"role": "system", "content": f"Write to {MAIL}."},
            {"role": "user", "content": [{"type": "text", "text": MAIL}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "send", "arguments": json.dumps({MAIL: ["\u0001", MAIL], "n": 4111111111111111})},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": f'{{"to": "{MAIL}"}}'},
        ],
        "tools": [
            {"type": "function", "function": {"name": "send", "description": f"as {MAIL}", "parameters": {"type": "object"}}}
        ],
    },
    "anthropic": {
        "metadata": {"user_id": MAIL},
        "system": f"Write to {MAIL}.",
        "messages": [
            {"role": "user", "content": MAIL},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "send", "input": {MAIL: [MAIL], "n": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": MAIL}]},
        ],
        "tools": [{"name": "send", "description": f"as {MAIL}", "input_schema": {"type": "object"}}],
    },
    "responses": {
        "metadata": {"from": MAIL},
        "instructions": f"Write to {MAIL}.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": MAIL}]},
            {"type": "function_call", "call_id": "c1", "name": "send", "arguments": json.dumps({"to": MAIL})},
            {"type": "function_call_output", "call_id": "c1", "output": MAIL},
        ],
    },
}


@pytest.mark.parametrize("client", WIRES)
async def test_nothing_of_a_value_reaches_the_provider(client: WireName) -> None:
    """Texts of all roles, results, arguments, tools and other fields; the rest is what the client sent."""
    run = await run_policy(Redact(key=KEY), chunks("ok"), client=client, request=HISTORY[client])
    assert run.status == 200, run.body
    sent = json.dumps(run.backend.calls[0].request.body)
    assert MAIL not in sent
    assert "4111111111111111" not in sent
    assert sent.count(placeholder(MAIL)) == json.dumps(HISTORY[client]).count(MAIL)
    assert run.text == "ok"


async def test_arguments_stay_json() -> None:
    """Names and strings are masked where they stand, a number becomes a string, escapes stay."""
    run = await run_policy(Redact(key=KEY), chunks("ok"), request=HISTORY["openai"])
    call = run.backend.calls[0].request.body["messages"][2]["tool_calls"][0]["function"]
    mail, card = placeholder(MAIL), placeholder("4111111111111111")
    assert call["arguments"] == json.dumps({mail: ["\u0001", mail], "n": card})


async def test_an_escape_hides_nothing() -> None:
    """Neither in JSON nor in what is nearly JSON."""
    for arguments in ('{"a": "alice\\u0040example.com"}', '{"a": "alice\\u0040example.com'):
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        history = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": ""}]
        run = await run_policy(Redact(key=KEY), chunks("ok"), request={"messages": history})
        got = run.backend.calls[0].request.body["messages"][0]["tool_calls"][0]["function"]["arguments"]
        assert got.startswith(f'{{"a": "{placeholder(MAIL)}')


async def test_thinking_that_cannot_be_masked_is_refused() -> None:
    """Its signature would not fit any more; with `pass` it goes on."""
    thinking = {"type": "thinking", "thinking": f"ask {MAIL}", "signature": "c2ln"}
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "ok"}]},
        {"role": "user", "content": "go on"},
    ]
    run = await run_policy(Redact(), chunks("ok"), client="anthropic", request={"messages": history})
    assert run.status == 403
    assert run.backend.calls == []
    run = await run_policy(Redact(thinking="pass"), chunks("ok"), client="anthropic", request={"messages": history})
    assert run.status == 200


# --- the answer --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", WIRES)
@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_of_a_value_reaches_the_client(client: WireName, stream: bool) -> None:
    """Text, refusals and tool arguments, in every format."""
    script = chunks(
        "Write to ali", "ce@exam", "ple.com.", ToolCall("c1", "send", f'{{"to": "{MAIL}", "n": 1.50}}', cuts=(11, 19))
    )
    run = await run_policy(Redact(where="response", key=KEY), script, client=client, stream=stream)
    assert run.text == f"Write to {placeholder(MAIL)}."
    assert [call.arguments for call in run.tool_calls] == [{"to": placeholder(MAIL), "n": 1.5}]
    assert not any(word in frame for frame in run.frames for word in (b"alice", b"exam", b"ple.com"))


async def test_a_refusal_is_masked() -> None:
    """It is text like any other."""
    run = await run_policy(Redact(where="response", key=KEY), chunks(Refusal(f"No, {MAIL}!")))
    assert run.refusal == f"No, {placeholder(MAIL)}!"


@pytest.mark.parametrize(("title", "kept"), [("a page", True), (f"by {MAIL}", False), ("", True)])
async def test_side_data_that_tells_of_a_value_is_left_out(title: str, kept: bool) -> None:
    """A citation beside a text that stays as it is, and one by itself."""
    annotations = [{"type": "url_citation", "url_citation": {"title": title, "url": "https://x"}}]
    script = [role()]
    for delta in ({"content": "see. ", "annotations": annotations}, {"annotations": annotations}):
        choices = [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]
        script.append(build_chunk({"id": "m", "created": 1, "model": "x", "choices": choices}))
    run = await run_policy(Redact(where="response", kinds=["email"]), [*script, finish()])
    assert run.text == "see. "
    assert any(b"url_citation" in frame for frame in run.frames) is kept
    assert not any(b"alice" in frame for frame in run.frames)


async def test_every_choice_is_masked_by_itself() -> None:
    """What one choice keeps back is no part of another's value."""
    script = [role(), role(choice=1), text_chunk("alice@exam"), text_chunk("bob", choice=1), text_chunk("ple.com"), text_chunk("@x.org", choice=1)]  # fmt: skip  # noqa: E501
    run = await run_policy(Redact(where="response", key=KEY), [*script, finish(), finish(choice=1)], request={"n": 2})
    assert [block.text for block in run.blocks] == [placeholder(MAIL), placeholder("bob@x.org")]


@pytest.mark.parametrize("client", WIRES)
async def test_thinking_with_a_value_is_denied_whole(client: WireName) -> None:
    """It cannot be changed; without a value, and with `pass`, it comes through."""
    run = await run_policy(Redact(where="response"), chunks(Thinking(f"ask {MAIL}", signature="c2ln"), "ok"), client=client)
    assert run.thinking == ""
    assert "ok" in run.text
    assert not any(b"alice" in frame for frame in run.frames)
    assert [record.reason for record in run.verdicts if record.verdict == "deny"] == ["a thinking holds a value that is masked"]
    for policy, thinking in ((Redact(where="response"), "hm"), (Redact(where="response", thinking="pass"), f"ask {MAIL}")):
        run = await run_policy(policy, chunks(Thinking(thinking, signature="c2ln"), "ok"), client=client)
        assert (run.thinking, run.text) == (thinking, "ok")


@pytest.mark.parametrize(
    ("call", "denied"),
    [
        (ToolCall("c1", "f", f'{{"a": "{MAIL}'), True),
        (ToolCall("c1", "f", '{"a": "alice\\u0040example.com'), True),
        (ToolCall("c1", "f", f'["{MAIL}"]'), True),
        (ToolCall("c1", MAIL, "{}"), True),
        (ToolCall("c1", "f", '{"a": '), False),
        (ToolCall("c1", "f", ""), False),
    ],
)
async def test_a_call_that_cannot_be_masked_is_denied(call: ToolCall, denied: bool) -> None:
    """Arguments that are no JSON object, and a name."""
    run = await run_policy(Redact(where="response"), chunks(call))
    assert len(run.tool_calls) == (0 if denied else 1)
    assert not any(b"alice" in frame for frame in run.frames)


async def test_a_call_without_a_value_leaves_as_it_came() -> None:
    """With its own cuts."""
    run = await run_policy(Redact(where="response"), chunks(ToolCall("c1", "f", '{"a": 1.50, "b": [ ]}', cuts=(3, 9))))
    assert run.tool_calls[0].text == '{"a": 1.50, "b": [ ]}'
    assert [record.verdict for record in run.verdicts] == ["allow"]


# --- restoring ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", WIRES)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", ["request", "both"])
async def test_what_the_model_repeats_is_restored(client: WireName, stream: bool, where: Any) -> None:
    """In text, across cuts, and in tool arguments; the provider saw placeholders only."""
    mail, secret = placeholder(MAIL), placeholder(SECRET)
    script = chunks("Ask ", mail[:4], mail[4:], f" ({secret})", ToolCall("c1", "send", f'{{"to": "<{mail}>"}}', cuts=(14,)))
    policy = Redact(where=where, key=KEY, restore=True)
    run = await run_policy(policy, script, client=client, stream=stream, request=asked(client, f"{MAIL} {SECRET}"))
    assert run.text == f"Ask {MAIL} ({SECRET})"
    assert [call.arguments for call in run.tool_calls] == [{"to": f"<{MAIL}>"}]
    assert MAIL not in json.dumps(run.backend.calls[0].request.body)


async def test_an_original_is_escaped_as_json_has_it() -> None:
    """A key of many lines in an argument."""
    pem = '-----BEGIN PRIVATE KEY-----\n"\\MIIEowIBAAKCAQEA1234567890\n-----END PRIVATE KEY-----'
    policy = Redact(key=KEY, restore=True)
    script = chunks(ToolCall("c1", "write", json.dumps({"file": policy.mask(pem)})))
    run = await run_policy(policy, script, request=asked("openai", pem))
    assert run.tool_calls[0].arguments == {"file": pem}


async def test_only_values_of_this_request_are_restored() -> None:
    """A placeholder that the model, or the client, has from elsewhere stays one."""
    policy = Redact(key=KEY, restore=True)
    await run_policy(policy, chunks("ok"), request=asked("openai", MAIL))
    script = chunks(placeholder(MAIL), ToolCall("c1", "f", f'{{"a": "{placeholder(MAIL)}"}}'))
    run = await run_policy(policy, script, request=asked("openai", f"bob@example.com {placeholder(MAIL)}"))
    assert run.text == placeholder(MAIL)
    assert run.tool_calls[0].arguments == {"a": placeholder(MAIL)}


async def test_the_next_turn_has_the_same_placeholders() -> None:
    """The client keeps the original, and what goes to the provider is what went there before."""
    policy = Redact(key=KEY, restore=True)
    backend = ScriptedBackend([chunks(f"Hello {placeholder(MAIL)}"), chunks("ok")])
    first = await run_policy(policy, backend, request=asked("openai", MAIL))
    assert first.text == f"Hello {MAIL}"
    history = [
        {"role": "user", "content": MAIL},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "so?"},
    ]
    await run_policy(policy, backend, request={"messages": history})
    assert [message["content"] for message in backend.calls[1].request.body["messages"]] == [
        placeholder(MAIL),
        f"Hello {placeholder(MAIL)}",
        "so?",
    ]


async def test_with_both_the_model_s_own_values_are_masked() -> None:
    """What was not in the request is not the client's."""
    policy = Redact(where="both", key=KEY, restore=True)
    run = await run_policy(policy, chunks(f"{placeholder(MAIL)}, {MAIL}, bob@x.org"), request=asked("openai", MAIL))
    assert run.text == f"{MAIL}, {MAIL}, {placeholder('bob@x.org')}"


@given(
    parts=st.lists(
        st.sampled_from(["MAIL", "SECRET", MAIL, SECRET, " ", ".", "[", "[EMAIL_", "é", '"', "\\"]), min_size=1, max_size=6
    ),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    where=st.sampled_from(["request", "both", "response"]),
    client=st.sampled_from(WIRES),
)
@settings(max_examples=60, deadline=None)
def test_any_cut_of_text_and_arguments_gives_the_same(parts: list[str], sizes: list[int], where: Any, client: WireName) -> None:
    """Fragment invariance in the middleware, with what is done to the whole as the oracle."""
    policy = Redact(where=where, key=KEY, restore=where != "response")
    said = "a" + "".join(parts).replace("MAIL", placeholder(MAIL)).replace("SECRET", placeholder(SECRET)) + "z"
    arguments = json.dumps({"a": said})
    pieces, place = [], 0
    for size in sizes * len(said):
        pieces.append(said[place : place + size])
        place += size
    cuts = tuple(range(sizes[0], len(arguments), sizes[0]))
    script = chunks(*(piece for piece in pieces if piece), ToolCall("c1", "f", arguments, cuts=cuts))
    run = run_policy_sync(policy, script, client=client, request=asked(client, f"{MAIL} {SECRET}"))
    expected = said if where == "request" else Redact(key=KEY).mask(said)
    if where != "response":
        expected = expected.replace(placeholder(MAIL), MAIL).replace(placeholder(SECRET), SECRET)
    assert run.text == expected
    assert run.tool_calls[0].arguments == {"a": expected}


# --- what is around it -------------------------------------------------------------------------------------------------------


def test_what_it_handles_is_what_it_needs() -> None:
    """A policy of requests alone costs an answer nothing."""
    assert Redact().handles == {}
    assert set(Redact(restore=True).handles) == {BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.TOOL_CALL}
    assert BlockKind.THINKING in Redact(where="both").handles
    assert BlockKind.THINKING not in Redact(where="both", thinking="pass").handles


async def test_a_record_is_masked_with_the_same_placeholders(tmp_path: Any) -> None:
    """`mask` goes to the recorder."""
    policy = Redact(key=KEY)
    recorder = JsonlRecorder(tmp_path / "r.jsonl", mask=policy.mask)
    await recorder.start()
    begin = Begin(id="t", at=0.0, wire="openai", path="/", model="m", stream=True, client="", request=asked("openai", MAIL))
    await recorder.begin(begin)
    await recorder.aclose()
    line = (tmp_path / "r.jsonl").read_text()
    assert MAIL not in line
    assert placeholder(MAIL) in line


def test_a_block_that_ran_at_the_provider_is_denied_when_it_holds_a_value() -> None:
    """It cannot be changed."""
    nobody: Any = None
    policy = Redact(where="response")
    held = Block(kind=BlockKind.OTHER, raw={"events": [{"content_block": {"type": "x", "content": [{"text": MAIL}]}}]})
    assert policy.on_block_complete(held, nobody) is not None
    assert policy.on_block_complete(Block(kind=BlockKind.OTHER, raw={"events": [{"a": "b"}]}), nobody) is None
