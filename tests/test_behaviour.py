"""The numbered cases of a correct stream, each in all its forms: both clients, both backends' wires, streamed and not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthien_asgi import Block, BlockKind, Deny, Hold, Policy, StreamContext, StreamSettings, Transform, read_part, with_text
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import BackendError
from luthien_asgi.policies import ReplaceText
from luthien_asgi.policy import Verdict
from luthien_asgi.request import WireName
from luthien_asgi.testing import (
    PolicyRun,
    Redacted,
    Refusal,
    ScriptedBackend,
    Text,
    Thinking,
    ToolCall,
    check_history,
    chunks,
    finish,
    role,
    run_policy,
    run_policy_sync,
    sse_events,
    text_chunk,
    thinking_chunks,
    tool_chunks,
    usage,
)
from luthien_asgi.testing.chunk_builders import build_chunk
from luthien_asgi.testing.parts import Usage

CLIENTS: list[WireName] = ["openai", "anthropic"]
both = pytest.mark.parametrize("client", CLIENTS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])


class Nothing(Policy):
    """Has no opinion."""


class HoldAll(Policy):
    """Holds every block and lets it through."""

    handles: ClassVar = dict.fromkeys(BlockKind, Hold())

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return None


class DenyCalls(Policy):
    """Lets no call of these names through."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self, *names: str) -> None:
        self.names = names

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny(f"{block.name} is denied.") if block.name in self.names else None


passing = pytest.mark.parametrize("policy", [Nothing(), HoldAll()], ids=["none", "holding"])


def events(run: PolicyRun) -> list[dict[str, Any]]:
    """The data of the run's events, without [DONE] and comments."""
    data = [event.data for event in sse_events(b"".join(run.frames))]
    return [json.loads(text) for text in data if text and text != "[DONE]"]


def shape(run: PolicyRun) -> list[str]:
    """An Anthropic stream in brief: `start#0 text`, `delta#0 text_delta`, `stop#0`, …"""
    brief = []
    for event in events(run):
        kind = event["type"]
        if kind == "content_block_start":
            brief.append(f"start#{event['index']} {event['content_block']['type']}")
        elif kind == "content_block_delta":
            brief.append(f"delta#{event['index']} {event['delta']['type']}")
        elif kind == "content_block_stop":
            brief.append(f"stop#{event['index']}")
        elif kind == "message_delta":
            brief.append(f"message_delta({event['delta']['stop_reason']})")
        else:
            brief.append(kind)
    return brief


def kinds(run: PolicyRun) -> list[str]:
    return [str(block.kind) for block in run.blocks]


# --- 1 to 10: what passes -------------------------------------------------------------------------------------------------


@passing
async def test_case_1_two_texts(policy: Policy) -> None:
    """Role, two text chunks, finish, one [DONE]; message_start, block, message_delta, message_stop."""
    openai = await run_policy(policy, chunks("Hi", "!"), request={"stream_options": None})
    deltas = [choice["delta"] for event in events(openai) for choice in event["choices"]]
    assert [delta.get("content") for delta in deltas if delta.get("content")] == ["Hi", "!"]
    assert sum("role" in delta for delta in deltas) == 1
    assert "role" in deltas[0]
    assert b"".join(openai.frames).count(b"[DONE]") == 1
    anthropic = await run_policy(policy, chunks("Hi", "!"), client="anthropic")
    text = ["start#0 text", "delta#0 text_delta", "delta#0 text_delta", "stop#0"]
    assert shape(anthropic) == ["message_start", *text, "message_delta(end_turn)", "message_stop"]


@passing
async def test_case_2_a_tool_call_alone_has_no_empty_text_before_it(policy: Policy) -> None:
    """The first block is tool_use#0."""
    run = await run_policy(policy, chunks(ToolCall("c", "f", "{}")), client="anthropic")
    assert shape(run)[1] == "start#0 tool_use"
    assert kinds(run) == ["tool_call"]


@passing
async def test_case_3_text_then_a_call_in_pieces(policy: Policy) -> None:
    """Text closes before the call; `input` is {} at its start; the stop reason is tool_use."""
    run = await run_policy(policy, chunks("a", ToolCall("c", "f", '{"x":1}', cuts=(2, 4))), client="anthropic")
    start = next(e for e in events(run) if e["type"] == "content_block_start" and e["index"] == 1)
    assert start["content_block"]["input"] == {}
    assert shape(run)[1:4] == ["start#0 text", "delta#0 text_delta", "stop#0"]
    assert shape(run).count("delta#1 input_json_delta") == 3
    assert run.tool_calls[0].arguments == {"x": 1}
    assert run.stop_reason == "tool_use"


@both
@streamed_or_not
@passing
async def test_cases_5_6_and_8_calls_in_one_piece_two_at_a_time_and_without_arguments(
    policy: Policy, client: WireName, stream: bool
) -> None:
    """Every call arrives with its own id, name and arguments, whatever the chunks were."""
    whole = [
        build_chunk_with_call(0, "a", "f", '{"x":1}'),
        build_chunk_with_call(1, "b", "g", ""),
    ]
    run = await run_policy(policy, [role(), *whole, finish("tool_calls"), usage()], client=client, stream=stream)
    assert [(c.id, c.name, c.arguments) for c in run.tool_calls] == [("a", "f", {"x": 1}), ("b", "g", {})]


def build_chunk_with_call(index: int, id: str, name: str, arguments: str) -> Chunk:  # noqa: A002
    call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    delta = {"tool_calls": [call]}
    choices = [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]
    return build_chunk({"id": "chatcmpl-1", "created": 1, "model": "m", "choices": choices})


@both
@streamed_or_not
@passing
async def test_case_7_interleaved_calls(policy: Policy, client: WireName, stream: bool) -> None:
    """Deltas 0, 1, 0, 1 are two calls, each with its whole JSON."""
    first, second = tool_chunks("a", "f", '{"x"', ":1}", index=0), tool_chunks("b", "g", '{"y"', ":2}", index=1)
    mixed = [chunk for pair in zip(first, second, strict=True) for chunk in pair]
    run = await run_policy(policy, [role(), *mixed, finish("tool_calls")], client=client, stream=stream)
    assert [(c.id, c.name, c.arguments) for c in run.tool_calls] == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]


@both
@streamed_or_not
@passing
async def test_case_9_text_after_a_call(policy: Policy, client: WireName, stream: bool) -> None:
    """Nothing is lost, and an Anthropic client never gets text behind a tool_use."""
    run = await run_policy(
        policy, [role(), *tool_chunks("a", "f", "{}"), text_chunk("after"), finish("tool_calls")], client=client, stream=stream
    )
    assert kinds(run) == ["text", "tool_call"]
    assert run.text == "after"


@both
@streamed_or_not
async def test_case_10_usage_after_the_finish(client: WireName, stream: bool) -> None:
    """Real numbers arrive, in the client's own fields."""
    run = await run_policy(Nothing(), chunks("x", tokens=Usage(input=5, output=7)), client=client, stream=stream)
    names = ("prompt_tokens", "completion_tokens") if client == "openai" else ("input_tokens", "output_tokens")
    assert [run.usage[name] for name in names] == [5, 7]


async def test_usage_is_only_for_openai_clients_that_ask() -> None:
    """Without include_usage there is no usage chunk."""
    run = await run_policy(Nothing(), chunks("x"), request={"stream_options": None})
    assert not any("usage" in event and event["usage"] for event in events(run))


async def test_the_anthropic_message_start_has_an_estimate_of_its_input() -> None:
    """`input_tokens` at the start is not 0: clients watch it to know when to compact."""
    start = events(await run_policy(Nothing(), chunks("x"), client="anthropic"))[0]
    assert start["message"]["usage"]["input_tokens"] > 0


# --- 11 to 15: ends -------------------------------------------------------------------------------------------------------


@both
@passing
async def test_cases_11_and_12_a_stream_that_breaks_off(policy: Policy, client: WireName) -> None:
    """What was allowed is delivered, then the error event; no happy end."""
    for script in ([role(), text_chunk("a"), text_chunk("b")], [role(), text_chunk("a"), text_chunk("b"), BackendError("x")]):
        run = await run_policy(policy, script, client=client)
        raw = b"".join(run.frames)
        assert run.error is not None
        assert b"[DONE]" not in raw
        assert b"message_stop" not in raw
        assert run.text == ("" if isinstance(policy, HoldAll) else "ab")


class Shout(Policy):
    """Fails on its second chunk."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        if read_part(chunk).text == "b":
            raise KeyError("secret")
        return [chunk]


@both
async def test_case_13_a_hook_that_raises(client: WireName) -> None:
    """As a backend that breaks off; the exception's text stays inside."""
    run = await run_policy(Shout(), chunks("a", "b", "c"), client=client)
    assert run.error is not None
    assert run.text == "a"
    assert b"secret" not in b"".join(run.frames)
    assert run.record is not None
    assert run.record.error is not None
    assert "Shout failed in on_chunk_added" in run.record.error["message"]


class Erase(Policy):
    """Lets no text through."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        return [with_text(chunk, "")]


@both
@streamed_or_not
async def test_case_14_an_answer_that_a_policy_emptied(client: WireName, stream: bool) -> None:
    """A short notice instead of an empty answer, with its finish."""
    run = await run_policy(
        Erase(), chunks("a", "b"), client=client, stream=stream, settings=StreamSettings(empty_notice="[gone]")
    )
    assert run.text == "[gone]"
    assert (run.finish_reason or run.stop_reason) in {"stop", "end_turn"}


# --- 16 to 18: thinking -----------------------------------------------------------------------------------------------------


@streamed_or_not
@passing
async def test_cases_16_and_17_thinking_and_redacted_thinking(policy: Policy, stream: bool) -> None:
    """Thinking is closed with its signature before the text; redacted thinking comes whole; bit-exact."""
    script = chunks(Thinking("Hm", "m", signature="c2ln"), Redacted("cmVk"), "Hi")
    run = await run_policy(policy, script, client="anthropic", stream=stream)
    assert [(str(b.kind), b.text, b.signature) for b in run.blocks] == [
        ("thinking", "Hmm", "c2ln"),
        ("redacted_thinking", "", "cmVk"),
        ("text", "Hi", ""),
    ]
    if stream:
        assert shape(run)[1:6] == [
            "start#0 thinking", "delta#0 thinking_delta", "delta#0 thinking_delta", "delta#0 signature_delta", "stop#0",
        ]  # fmt: skip


@both
@passing
async def test_thinking_is_reasoning_content_once(policy: Policy, client: WireName) -> None:
    """A thinking delta carries its text twice in the common format, and leaves once."""
    run = await run_policy(policy, chunks(Thinking("Hmm", signature="s"), "Hi"), client=client)
    assert run.thinking == "Hmm"
    assert b"thinking_blocks" not in b"".join(run.frames)


async def test_a_signature_alone_is_a_thinking_block() -> None:
    """Signature-only thinking arrives as such."""
    run = await run_policy(Nothing(), [role(), *thinking_chunks(signature="c2ln"), text_chunk("x"), finish()], client="anthropic")
    assert [(str(b.kind), b.signature) for b in run.blocks] == [("thinking", "c2ln"), ("text", "")]


@pytest.mark.parametrize("policy", [Nothing(), DenyCalls()], ids=["none", "judge"])
async def test_a_signature_after_the_text_began_is_inside_its_block(policy: Policy) -> None:
    """The late signature some backends send is put where it belongs, and the text follows."""
    script = [role(), *thinking_chunks("Hm"), text_chunk("a"), *thinking_chunks(signature="c2ln"), text_chunk("b"), finish()]
    run = await run_policy(policy, script, client="anthropic")
    assert [(str(b.kind), b.text, b.signature) for b in run.blocks] == [("thinking", "Hm", "c2ln"), ("text", "ab", "")]


@both
@streamed_or_not
async def test_case_18_thinking_first_tool_last(client: WireName, stream: bool) -> None:
    """A judge that allows changes nothing of the order."""
    script = chunks(Thinking("Hm", signature="s"), ToolCall("c", "f", "{}"))
    run = await run_policy(HoldAll(), script, client=client, stream=stream)
    assert kinds(run) == ["thinking", "tool_call"]


# --- 19 to 21: verdicts -----------------------------------------------------------------------------------------------------


@both
@streamed_or_not
async def test_case_19_the_only_call_is_denied(client: WireName, stream: bool) -> None:
    """Text, message, no tool; the stop reason follows; the usage stays."""
    run = await run_policy(DenyCalls("bad"), chunks("On it.", ToolCall("c", "bad")), client=client, stream=stream)
    assert kinds(run) == (["text"] if client == "openai" else ["text", "text"])
    assert run.text == "On it.\n\nbad is denied."
    assert (run.finish_reason or run.stop_reason) in {"stop", "end_turn"}
    assert run.usage


@both
@streamed_or_not
@pytest.mark.parametrize("order", [("ok", "bad"), ("bad", "ok")])
async def test_case_20_one_of_two_calls_is_denied(client: WireName, stream: bool, order: tuple[str, str]) -> None:
    """The message before the call that survives, whichever came first."""
    script = chunks(ToolCall("1", order[0]), ToolCall("2", order[1]))
    run = await run_policy(DenyCalls("bad"), script, client=client, stream=stream)
    assert kinds(run) == ["text", "tool_call"]
    assert run.tool_calls[0].name == "ok"
    assert (run.finish_reason or run.stop_reason) in {"tool_calls", "tool_use"}
    raw = b"".join(run.frames)
    assert raw.index(b"bad is denied") < raw.index(b'"ok"')


class Raises(DenyCalls):
    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        raise KeyError("judge down")


@both
async def test_case_21_a_judge_that_raises_blocks(client: WireName) -> None:
    """The call is blocked with a message that a person can read."""
    run = await run_policy(Raises(), chunks(ToolCall("1", "bash")), client=client)
    assert run.error is None
    assert run.tool_calls == []
    assert "bash was blocked" in run.text
    assert [(v.verdict, v.action) for v in run.verdicts] == [("error", "deny")]


@pytest.mark.parametrize("script", [
    chunks("On it.", ToolCall("toolu_1", "bad")),
    chunks(ToolCall("toolu_1", "ok"), ToolCall("toolu_2", "bad")),
    chunks(Thinking("Hm", signature="s"), ToolCall("toolu_1", "bad"), ToolCall("toolu_2", "ok")),
], ids=["all denied", "one denied", "with thinking"])  # fmt: skip
@both
async def test_the_turn_after_a_denial_is_accepted_by_a_strict_provider(client: WireName, script: list[Chunk]) -> None:
    """What the client stored, and the results of the calls that survived, are a legal history."""
    run = await run_policy(DenyCalls("bad"), script, client=client, stream=False)
    history: list[dict[str, Any]] = [{"role": "user", "content": "x"}]
    if client == "openai":
        message = run.body["choices"][0]["message"]
        history.append({k: v for k, v in message.items() if k in {"role", "content", "tool_calls"} and v is not None})
        history += [{"role": "tool", "tool_call_id": c.id, "content": "done"} for c in run.tool_calls]
    else:
        history.append({"role": "assistant", "content": run.body["content"]})
        results = [{"type": "tool_result", "tool_use_id": c.id, "content": "done"} for c in run.tool_calls]
        history.append({"role": "user", "content": results or "go on"})
    assert check_history(client, {"model": "m", "max_tokens": 10, "messages": history}) is None


# --- 22 to 25: transforming ---------------------------------------------------------------------------------------------------


@both
@streamed_or_not
async def test_cases_22_and_23_a_replacement_across_chunks(client: WireName, stream: bool) -> None:
    """No part of a match leaks, what was kept back is flushed, and characters mean themselves."""
    policy = ReplaceText(replacements=[["hello", "bye"], ["a.b", "🙂"]])
    run = await run_policy(policy, chunks("hel", "lo wor", "ld axb a.", "b"), client=client, stream=stream)
    assert run.text == "bye world axb 🙂"


@both
async def test_case_25_streamed_and_not_are_the_same(client: WireName) -> None:
    """The same text, the same verdicts, the same blocks in the record."""
    script = chunks("On it.", ToolCall("1", "bad"), ToolCall("2", "ok", '{"a":1}'))
    runs = [await run_policy(DenyCalls("bad"), script, client=client, stream=stream) for stream in (True, False)]
    assert runs[0].text == runs[1].text
    assert [v.verdict for v in runs[0].verdicts] == [v.verdict for v in runs[1].verdicts]
    assert [b.as_record() for b in (runs[0].record or fail()).final_blocks] == [
        b.as_record() for b in (runs[1].record or fail()).final_blocks
    ]


def fail() -> Any:
    pytest.fail("no record")


# --- 35 to 38 -----------------------------------------------------------------------------------------------------------------


class Canary(Policy):
    """Denies every block that the canary is in."""

    handles: ClassVar = dict.fromkeys(BlockKind, Hold())

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("[removed]") if "CANARY" in block.text + block.name else None


@both
@streamed_or_not
@pytest.mark.parametrize(
    "part",
    [Text("x CAN", "ARY y"), Thinking("CAN", "ARY", signature="s"), Refusal("CAN", "ARY"), ToolCall("1", "CANARY"),
     ToolCall("1", "f", '{"a":"CANARY"}', cuts=(8,))],
    ids=["text", "thinking", "refusal", "tool name", "tool arguments"],
)  # fmt: skip
async def test_case_35_a_canary_is_caught_wherever_it_is(client: WireName, stream: bool, part: Any) -> None:
    """Nothing of it is in the client's bytes."""
    run = await run_policy(Canary(), chunks("Hi", part), client=client, stream=stream)
    assert b"CANARY" not in b"".join(run.frames)
    assert "[removed]" in run.text


async def test_case_35_a_canary_in_the_second_choice_and_in_logprobs() -> None:
    """Side data goes with its block, in every choice."""
    logprobs = {"content": [{"token": "CANARY", "logprob": -1.0, "bytes": None, "top_logprobs": []}], "refusal": None}
    choices = [{"index": 1, "delta": {"content": "CANARY"}, "finish_reason": None, "logprobs": logprobs}]
    hot = build_chunk({"id": "c", "created": 1, "model": "m", "choices": choices})
    script = [role(), role(choice=1), text_chunk("fine"), hot, finish(), finish(choice=1)]
    run = await run_policy(Canary(), script, request={"n": 2})
    raw = b"".join(run.frames)
    assert b"CANARY" not in raw
    assert b"fine" in raw


def cut(text: str, places: Sequence[int]) -> list[str]:
    marks = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(marks)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, 100), max_size=12), client=st.sampled_from(CLIENTS), stream=st.booleans())
def test_case_36_the_result_does_not_depend_on_the_cuts(places: list[int], client: WireName, stream: bool) -> None:
    """Text and arguments cut anywhere end in the same answer, replaced and judged alike."""
    text, arguments = "say hello, hello! héllo 🙂 hel", '{"cmd":"echo \\u00e9 🙂 hello"}'
    pieces = tool_chunks("c1", "run", *cut(arguments, places))
    script = [role(), *[text_chunk(piece) for piece in cut(text, places)], *pieces, finish("tool_calls"), usage()]
    run = run_policy_sync(ReplaceText(replacements=[["hello", "bye"]]), script, client=client, stream=stream)
    assert run.text == text.replace("hello", "bye")
    assert run.tool_calls[0].arguments == {"cmd": "echo é 🙂 hello"}


@both
@passing
async def test_case_37_what_passes_keeps_its_boundaries(policy: Policy, client: WireName) -> None:
    """The same number of content chunks, cut at the same places."""
    fragments = ["Hel", "lo ", "wor", "ld"]
    run = await run_policy(policy, chunks(*fragments), client=client)
    if client == "openai":
        got = [c["delta"]["content"] for e in events(run) for c in e["choices"] if c["delta"].get("content")]
    else:
        got = [e["delta"]["text"] for e in events(run) if e["type"] == "content_block_delta"]
    assert got == fragments


async def test_case_38_a_judge_is_asked_once_a_block() -> None:
    """Calls equal blocks, not chunks."""
    asked: list[str] = []

    class Count(HoldAll):
        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
            asked.append(str(block.kind))
            return None

    script = chunks(Thinking("a", "b"), "c", "d", "e", ToolCall("1", "f", '{"a":1}', cuts=(1, 2, 3)), ToolCall("2", "g"))
    await run_policy(Count(), script)
    assert asked == ["thinking", "text", "tool_call", "tool_call"]


# --- identity -----------------------------------------------------------------------------------------------------------------


async def test_id_model_and_created_are_the_same_in_every_chunk_of_a_stream() -> None:
    """Also in those that a policy wrote."""
    run = await run_policy(DenyCalls("bad"), chunks("a", ToolCall("1", "bad")))
    assert len({(e["id"], e["created"], e["model"], e["object"]) for e in events(run)}) == 1


async def test_each_choice_has_its_role_and_its_finish_once() -> None:
    """n > 1: interleaved choices keep apart, each begins with its role and ends with its reason."""
    script = [role(), role(choice=1), text_chunk("a"), text_chunk("b", choice=1), finish("length", choice=1), finish(), usage()]
    run = await run_policy(Nothing(), script, request={"n": 2})
    seen = [(c["index"], "role" in c["delta"], c["finish_reason"]) for e in events(run) for c in e["choices"]]
    assert [s for s in seen if s[1]] == [(0, True, None), (1, True, None)]
    assert sorted(s for s in seen if s[2]) == [(0, False, "stop"), (1, False, "length")]


async def test_stop_reasons_map_back() -> None:
    """stop, length and content_filter reach an Anthropic client in its own words."""
    for reason, expected in {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}.items():
        run = await run_policy(Nothing(), chunks("x", finish_reason=reason), client="anthropic")
        assert run.stop_reason == expected


async def test_a_forced_tool_choice_that_says_stop_is_tool_use() -> None:
    """OpenAI says `stop` for a forced tool choice; an Anthropic client needs tool_use."""
    run = await run_policy(Nothing(), chunks(ToolCall("1", "f"), finish_reason="stop"), client="anthropic")
    assert run.stop_reason == "tool_use"


async def test_the_backend_is_closed_after_every_ending() -> None:
    """Whatever happened, the stream was closed once it ended."""
    for policy, script in [(Nothing(), chunks("a")), (Shout(), chunks("b")), (Canary(), chunks("CANARY"))]:
        backend = ScriptedBackend(script)
        await run_policy(policy, backend)
        assert all(stream.closed.is_set() for stream in backend.streams)
