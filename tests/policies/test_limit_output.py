"""`LimitOutput`: an answer ends where its limit is, however it was cut, and ends as the wire wants it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.policies import LimitOutput
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.testing import (
    ScriptedBackend,
    Text,
    Thinking,
    ToolCall,
    chunks,
    finish,
    role,
    run_policy,
    run_policy_sync,
    text_chunk,
    tool_chunks,
    usage,
)

WIRES: Final[tuple[WireName, ...]] = ("openai", "anthropic", "responses")
MESSAGE: Final = "[The answer was cut off here: it is longer than allowed.]"


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{name}", name, arguments)


@pytest.mark.parametrize("client", WIRES)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_text_is_cut_at_the_limit(client: WireName, stream: bool) -> None:
    """Sixteen bytes for four tokens, then the message; the rest never leaves."""
    run = await run_policy(LimitOutput(tokens=4), chunks("0123456", "789abcdefGH", "IJ canary"), client=client, stream=stream)
    assert run.text == f"0123456789abcdef\n\n{MESSAGE}" if client == "openai" else run.text.startswith("0123456789abcdef")
    assert run.text.endswith(MESSAGE)
    assert "G" not in run.text
    assert not any(b"canary" in frame for frame in run.frames)
    assert run.finish_reason == ("stop" if client == "openai" else None)
    assert run.stop_reason == ("end_turn" if client == "anthropic" else None)
    assert run.record is not None
    assert run.record.ending == "stopped"
    assert [record.reason for record in run.verdicts if record.verdict == "stop"] == ["more tokens than allowed"]


@pytest.mark.parametrize("client", WIRES)
async def test_an_answer_within_its_limits_is_let_be(client: WireName) -> None:
    """To the byte, and with its chunks as they came."""
    policy = LimitOutput(tokens=4, tool_calls=0, blocks=1)
    run = await run_policy(policy, chunks("01234567", "89abcdef"), client=client)
    assert run.text == "0123456789abcdef"
    pieces = [text_chunk("0123"), text_chunk("4567")]
    assert [LimitOutput(tokens=2).on_chunk_added(piece, context()) for piece in pieces] == [None, None]


@pytest.mark.parametrize("client", WIRES)
@pytest.mark.parametrize("stream", [True, False])
async def test_calls_beyond_the_limit_are_denied(client: WireName, stream: bool) -> None:
    """The first ones survive; the message is said once."""
    answer = chunks("Let me see.", call("a"), call("b"), call("c"), call("d", x="canary"))
    run = await run_policy(LimitOutput(tool_calls=2), answer, client=client, stream=stream)
    assert [found.name for found in run.tool_calls] == ["a", "b"]
    assert run.text.count(MESSAGE) == 1
    assert run.text.startswith("Let me see.")
    assert not any(b"canary" in frame for frame in run.frames)
    assert [record.verdict for record in run.verdicts if record.kind == "tool_call"] == ["allow", "allow", "deny", "replace"]


async def test_no_calls_at_all() -> None:
    """A limit of none; the answer ends like text."""
    run = await run_policy(LimitOutput(tool_calls=0, message="No tools."), chunks(call("a")))
    assert (run.text, run.tool_calls, run.finish_reason) == ("No tools.", [], "stop")


async def test_a_call_beyond_the_tokens_is_denied() -> None:
    """Arguments count; what came before it is let be."""
    answer = chunks("0123", call("a", x="y"), ToolCall("call_b", "b", {"x": "y" * 100}, cuts=(5, 50)))
    run = await run_policy(LimitOutput(tokens=10), answer)
    assert [found.name for found in run.tool_calls] == ["a"]
    assert run.text == f"0123\n\n{MESSAGE}"


@pytest.mark.parametrize("client", WIRES)
async def test_calls_before_a_text_that_is_cut_are_not_made(client: WireName) -> None:
    """The answer ends with the text."""
    answer = [role(), *tool_chunks("call_a", "a", "{}"), text_chunk("0" * 50), finish("tool_calls"), usage()]
    run = await run_policy(LimitOutput(tokens=2), answer, client=client)
    assert run.tool_calls == []
    assert run.text.endswith(MESSAGE)


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_thinking_counts_and_ends_the_answer_when_it_is_over(client: WireName) -> None:
    """It is not cut: half of it would not be accepted again."""
    answer = chunks(Thinking("0" * 30, "1" * 30, signature="s"), Text("never said"), call("a"))
    run = await run_policy(LimitOutput(tokens=10), answer, client=client)
    assert run.thinking == "0" * 30 + "1" * 30
    assert (run.text, run.tool_calls) == (MESSAGE, [])


@pytest.mark.parametrize(
    ("limit", "text", "names"),
    [
        (4, "onetwo", ["a", "b"]),
        (3, f"onetwo{MESSAGE}", ["a"]),
        (2, f"one{MESSAGE}", []),
        (1, f"one{MESSAGE}", []),
        (0, MESSAGE, []),
    ],
)
async def test_blocks_beyond_the_limit_are_not_said(limit: int, text: str, names: list[str]) -> None:
    """Texts and calls alike; a text beyond it ends the answer, so the calls before it are not made."""
    answer = [role(), text_chunk("one"), *tool_chunks("1", "a", "{}"), text_chunk("two"), *tool_chunks("2", "b", "{}", index=1)]
    run = await run_policy(LimitOutput(blocks=limit), [*answer, finish("tool_calls"), usage()])
    assert run.text.replace("\n\n", "") == text
    assert [found.name for found in run.tool_calls] == names


def two_choices() -> list[Chunk]:
    said = [text_chunk(text, choice=choice) for text in ("0123", "4567", "89ab") for choice in (0, 1) if choice or text == "0123"]
    return [role(), role(choice=1), *said, finish(), finish(choice=1), usage()]


async def test_each_choice_has_its_limits_to_itself() -> None:
    """One that is cut says no more; the other goes on."""
    run = await run_policy(LimitOutput(tokens=2), two_choices(), request={"n": 2})
    contents = [choice["message"]["content"] for choice in run.body["choices"]]
    assert contents == ["0123", f"01234567{MESSAGE}"]
    assert [choice["finish_reason"] for choice in run.body["choices"]] == ["stop", "stop"]


async def test_choices_can_share_the_limits() -> None:
    """Then what goes beyond them ends the whole answer."""
    run = await run_policy(LimitOutput(tokens=2, per="answer"), two_choices(), request={"n": 2})
    contents = [choice["message"]["content"] or "" for choice in run.body["choices"]]
    assert "".join(contents).replace(MESSAGE, "").replace("\n", "") == "01230123"


async def test_a_call_with_another_one_s_id_is_no_way_around() -> None:
    """What cannot be told apart is denied together."""
    answer = [role(), *tool_chunks("x", "a", "{}"), *tool_chunks("x", "b", "{}", index=1), finish("tool_calls"), usage()]
    run = await run_policy(LimitOutput(tool_calls=1), answer)
    assert run.tool_calls == []


async def test_streams_do_not_share_what_they_count() -> None:
    """One policy object, one answer after the other."""
    policy = LimitOutput(tokens=4, tool_calls=1)
    backend = ScriptedBackend(chunks("0123456789", call("a")))
    runs = [await run_policy(policy, backend) for _ in range(3)]
    assert [(run.text, len(run.tool_calls)) for run in runs] == [("0123456789", 1)] * 3


# --- cuts ------------------------------------------------------------------------------------------------------------------


def context(choices: int = 1) -> StreamContext:
    request = ChatRequest(wire="openai", body={"model": "m", "messages": [], "n": choices})
    return StreamContext(transaction_id="t", request=request, keepalive=lambda: None, text=text_chunk)


def sent(policy: LimitOutput, pieces: Sequence[str]) -> str:
    ctx = context()
    left: list[Chunk] = []
    for piece in pieces:
        chunk = text_chunk(piece)
        goes_on = policy.on_chunk_added(chunk, ctx)
        left += [chunk] if goes_on is None else goes_on
    return "".join(read_part(chunk).text for chunk in left)


@given(st.text(max_size=60), st.sets(st.integers(0, 59)), st.integers(0, 12))
def test_the_cut_of_the_stream_changes_nothing(text: str, cuts: set[int], tokens: int) -> None:
    """The longest beginning of the text that fits, whoever cut it where."""
    places = [0, *sorted(place for place in cuts if 0 < place < len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    kept = sent(LimitOutput(tokens=tokens), [piece for piece in pieces if piece])
    room = tokens * 4
    assert text.startswith(kept)
    assert len(kept.encode()) <= room
    assert kept == text or len(text[: len(kept) + 1].encode()) > room


def test_half_a_character_does_not_matter_either() -> None:
    """A pair that the provider split over two chunks counts as one character."""
    for before in range(9):
        whole = sent(LimitOutput(tokens=2), ["a" * before + "😀b"])
        split = sent(LimitOutput(tokens=2), ["a" * before + "\ud83d", "\ude00b"])
        assert split.encode("utf-16", "surrogatepass") == whole.encode("utf-16", "surrogatepass")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 39), max_size=6, unique=True),
    st.integers(0, 14),
    st.sampled_from(["openai", "anthropic"]),
    st.booleans(),
)
def test_a_whole_answer_comes_out_the_same_for_every_cut(cuts: list[int], tokens: int, client: WireName, stream: bool) -> None:
    """Text and calls, streamed and not, as one chunk each or in many."""
    text = "The quick brown fox jumps über den Hund."
    arguments = '{"path": "/tmp/abc", "depth": 12345678}'
    places = sorted(cuts)
    pieces = [text[start:end] for start, end in pairwise([0, *places, len(text)]) if start < end]
    policy = LimitOutput(tokens=tokens, tool_calls=1)
    cut = chunks(*pieces, ToolCall("1", "a", arguments, cuts=places), ToolCall("2", "b", arguments))
    whole = chunks(text, ToolCall("1", "a", arguments), ToolCall("2", "b", arguments))
    runs = [run_policy_sync(policy, answer, client=client, stream=way) for answer, way in ((cut, stream), (whole, True))]
    first, second = [(run.text, [(found.name, found.text) for found in run.tool_calls], run.finish_reason) for run in runs]
    assert first == second


# --- the request -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "fields", "changed"),
    [
        ("openai", {}, {"max_completion_tokens": 100}),
        ("openai", {"max_tokens": 50}, {}),
        ("openai", {"max_tokens": 500}, {"max_tokens": 100}),
        ("openai", {"max_tokens": 50, "max_completion_tokens": 500}, {"max_completion_tokens": 100}),
        ("openai", {"max_tokens": None}, {"max_completion_tokens": 100}),
        ("responses", {}, {"max_output_tokens": 100}),
        ("responses", {"max_output_tokens": 101}, {"max_output_tokens": 100}),
        ("anthropic", {"max_tokens": 100}, {}),
        ("anthropic", {"max_tokens": 5000}, {"max_tokens": 100}),
        (
            "anthropic",
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"max_tokens": 100, "thinking": {"type": "disabled"}},
        ),
    ],
)
def test_a_request_asks_for_no_more_than_it_may(wire: WireName, fields: dict[str, Any], changed: dict[str, Any]) -> None:
    """What is less stays, what is not said is set."""
    nobody: Any = None
    request = ChatRequest(wire=wire, body={"model": "m", **fields})
    said = LimitOutput(max_tokens=100).on_request(request, nobody)
    assert (said.body if said is not None else request.body) == {"model": "m", **fields, **changed}
    assert (said is None) is (not changed)


def test_a_budget_for_thinking_stays_below_the_limit() -> None:
    """Providers refuse one that does not."""
    nobody: Any = None
    thinking = {"type": "enabled", "budget_tokens": 9000}
    request = ChatRequest(wire="anthropic", body={"model": "m", "max_tokens": 9999, "thinking": thinking})
    said = LimitOutput(max_tokens=2000).on_request(request, nobody)
    assert said is not None
    assert said.body == {"model": "m", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "give tokens, tool_calls, blocks or max_tokens"),
        ({"tokens": -1}, "tokens must be a whole number that is not negative, not -1"),
        ({"tool_calls": True}, "tool_calls must be a whole number"),
        ({"blocks": 1.5}, "blocks must be a whole number"),
        ({"max_tokens": "9"}, "max_tokens must be a whole number"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"tokens": 1, "per": "block"}, "per must be one of choice, answer, not 'block'"),
        ({"tokens": 1, "message": ""}, "message must be a text"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match=re.escape(message)):
        LimitOutput(**config)
