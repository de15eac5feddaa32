"""`ReplaceText`: what the client gets is what `str.replace` makes of the whole block, however it was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.policies import ReplaceText
from luthien_asgi.request import WireName
from luthien_asgi.testing import ToolCall, build_chunk, chunks, finish, role, run_policy, text_chunk

WIRES: Final[tuple[WireName, ...]] = ("openai", "anthropic")


def context() -> StreamContext:
    """Return a stream's context without a stream; no hook of this policy looks at its request."""
    request: Any = None
    return StreamContext(transaction_id="t", request=request, keepalive=lambda: None, text=text_chunk)


def sent(policy: ReplaceText, pieces: Sequence[str | Chunk], ctx: StreamContext | None = None) -> list[Chunk]:
    """Return what goes on instead of one block's chunks."""
    ctx = ctx or context()
    left: list[Chunk] = []
    for piece in pieces:
        chunk = text_chunk(piece) if isinstance(piece, str) else piece
        result = policy.on_chunk_added(chunk, ctx)
        left += [chunk] if result is None else list(result)
    return left + list(policy.on_block_end(Block(kind=BlockKind.TEXT), ctx) or ())


def texts(policy: ReplaceText, *pieces: str) -> list[str]:
    return [read_part(chunk).text for chunk in sent(policy, pieces)]


@pytest.mark.parametrize("client", WIRES)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_match_across_chunks_is_replaced_as_a_whole(client: WireName, stream: bool) -> None:
    """No part of a match reaches the client, streaming or not, in either format."""
    policy = ReplaceText(replacements=[["hello", "bye"]])
    run = await run_policy(policy, chunks("hel", "lo wor", "ld"), client=client, stream=stream)
    assert run.text == "bye world"
    assert not any(b"hel" in frame for frame in run.frames)


@pytest.mark.parametrize("client", WIRES)
async def test_the_beginning_of_a_match_at_the_end_is_flushed_before_the_block_ends(client: WireName) -> None:
    """What was kept back is not lost, and stays in its own block."""
    run = await run_policy(
        ReplaceText(replacements=[["hello", "bye"]]), chunks("say hel", ToolCall("c1", "f", "{}")), client=client
    )
    assert [(block.kind, block.text) for block in run.blocks] == [(BlockKind.TEXT, "say hel"), (BlockKind.TOOL_CALL, "{}")]


async def test_choices_that_are_interleaved_do_not_mix() -> None:
    """Each choice has its own place in a match."""
    script = [role(), role(choice=1), text_chunk("he"), text_chunk("he", choice=1), text_chunk("llo"), text_chunk("y", choice=1)]
    policy = ReplaceText(replacements=[["hello", "bye"]])
    run = await run_policy(policy, [*script, finish(), finish(choice=1)], request={"n": 2})
    assert [(block.choice, block.text) for block in run.blocks] == [(0, "bye"), (1, "hey")]


async def test_transactions_that_share_a_policy_do_not_mix() -> None:
    """A policy object keeps nothing of a transaction."""
    policy = ReplaceText(replacements=[["hello", "bye"]])
    first, second = context(), context()
    policy.on_chunk_added(text_chunk("hel"), first)
    assert [read_part(chunk).text for chunk in sent(policy, ["lo"], second)] == ["lo"]
    assert [read_part(chunk).text for chunk in sent(policy, ["lo"], first)] == ["bye"]


async def test_two_policies_in_one_transaction_do_not_mix() -> None:
    """Each has its own state in the same context."""
    one, two, ctx = ReplaceText(replacements=[["ab", "1"]]), ReplaceText(replacements=[["ac", "2"]]), context()
    one.on_chunk_added(text_chunk("a"), ctx)
    assert [read_part(chunk).text for chunk in sent(two, ["b"], ctx)] == ["b"]


@pytest.mark.parametrize(
    ("replacements", "pieces", "expected"),
    [
        ([["end", "END"]], ["the e", "nd"], "the END"),
        ([[".*", "x"], ["(", "["]], ["a.", "*b(", "c"], "axb[c"),
        ([["👍🏽", "ok"]], ["so 👍", "🏽!"], "so ok!"),
        ([["a", "b"], ["b", "c"]], ["a", "b"], "cc"),
        ([["b", "c"], ["a", "b"]], ["a", "b"], "bc"),
        ([["aab", "x"]], ["a", "a", "a", "b"], "ax"),
        ([["aa", "a"]], ["aaa", "aa"], "aaa"),
        ([["secret", ""]], ["my sec", "ret!"], "my !"),
    ],
)
def test_plain_strings_are_replaced_in_order(replacements: list[list[str]], pieces: list[str], expected: str) -> None:
    """Regex characters, emoji, overlaps, empty replacements; the second pair sees what the first one wrote."""
    assert "".join(texts(ReplaceText(replacements=replacements), *pieces)) == expected


def test_only_the_end_that_may_begin_a_match_is_kept_back() -> None:
    """Text that cannot become a match leaves with its own chunk."""
    assert texts(ReplaceText(replacements=[["hello", "bye"]]), "he", "y, h", "e", "llo") == ["hey, ", "bye"]


def test_a_chunk_that_stays_as_it_is_is_the_same_object() -> None:
    """Nothing is copied, and log probabilities stay with their text."""
    chunk = text_chunk("nothing here")
    assert sent(ReplaceText(replacements=[["hello", "bye"]]), [chunk]) == [chunk]


def test_the_chunk_that_came_is_not_changed() -> None:
    """A changed chunk is a copy: what the model said stays what it said."""
    chunk = text_chunk("hello")
    (left,) = sent(ReplaceText(replacements=[["hello", "bye"]]), [chunk])
    assert (read_part(chunk).text, read_part(left).text) == ("hello", "bye")


def event_chunk(phase: str, event: dict[str, Any] | None = None, text: str = "") -> Chunk:
    """Return a chunk as the Anthropic decoder builds it for a text block."""
    rider = {"kind": "text", "phase": phase, "index": 0} | ({"anthropic": event} if event else {})
    delta = {"content": text} if text else {}
    choices = [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]
    return build_chunk({"id": "m", "created": 1, "model": "x", "choices": choices, "provider_specific_fields": rider})


def test_boundaries_of_a_block_pass() -> None:
    """A block's beginning and end arrive also when its text is kept back."""
    opening, closing = event_chunk("open", text="hel"), event_chunk("close")
    left = sent(ReplaceText(replacements=[["hello", "bye"]]), [opening, closing])
    assert [(read_part(chunk).phase, read_part(chunk).text) for chunk in left] == [("open", ""), ("close", ""), ("delta", "hel")]


def test_citations_that_speak_of_a_match_are_dropped() -> None:
    """A citation quotes the text that was replaced; one that does not passes until then."""

    def citation(text: str) -> Chunk:
        return event_chunk(
            "delta", {"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": {"cited_text": text}}}
        )

    harmless, telling, later = citation("good"), citation("a 'secret'"), citation("good")
    left = sent(ReplaceText(replacements=[["'secret'", "…"]]), [harmless, telling, "'secret'", later])
    assert left[0] is harmless
    assert [read_part(chunk).text for chunk in left[1:]] == ["…"]


def test_annotations_that_speak_of_a_match_are_dropped() -> None:
    """The OpenAI form of the same."""
    choices = [{"index": 0, "delta": {"annotations": [{"title": "secret"}]}, "finish_reason": None, "logprobs": None}]
    chunk = build_chunk({"id": "m", "created": 1, "model": "x", "choices": choices})
    assert sent(ReplaceText(replacements=[["secret", "…"]]), [chunk]) == []
    assert sent(ReplaceText(replacements=[["other", "…"]]), [chunk]) == [chunk]


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_cut_gives_the_same_text(data: st.DataObject) -> None:
    """Fragment invariance, with `str.replace` as the oracle."""
    pairs = data.draw(
        st.lists(st.tuples(st.text("ab", min_size=1, max_size=4), st.text("abc", max_size=3)), min_size=1, max_size=3)
    )
    pieces = data.draw(st.lists(st.text("abc", min_size=1, max_size=6), max_size=8))
    expected = "".join(pieces)
    for old, new in pairs:
        expected = expected.replace(old, new)
    assert "".join(texts(ReplaceText(replacements=pairs), *pieces)) == expected


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ([], "replacements is empty"),
        ("ab", "must be a list of pairs"),
        ({"a": "b"}, "must be a list of pairs"),
        (["ab"], "must be a pair of strings"),
        ([["a"]], "must be a pair of strings"),
        ([["", "x"]], "with a non-empty old"),
        ([["a", 1]], "must be a pair of strings"),
    ],
)
def test_replacements_that_make_no_sense_are_refused(replacements: Any, message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match=message):
        ReplaceText(replacements=replacements)
