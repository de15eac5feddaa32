"""Blocks that a policy rewrites as they flow: whole characters, and side data that does not depend on the cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from luthien_asgi import Block, BlockKind, Deny, Hold, Policy, Transform, Verdict, read_part, with_text
from luthien_asgi.halves import ends_in_half, joined
from luthien_asgi.policies import ReplaceText, UpperCase
from luthien_asgi.request import WireName
from luthien_asgi.testing import build_chunk, chunks, run_policy

CLIENTS: Sequence[WireName] = ("openai", "anthropic", "responses")
HIGH, LOW = "\ud83d", "\ude42"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_character_that_was_cut_in_halves_is_whole_for_a_policy(client: WireName, *, stream: bool) -> None:
    """Both for one that rewrites and for one that judges."""
    policy = ReplaceText(replacements=[["🙂", "X"]])
    assert (await run_policy(policy, chunks(f"a{HIGH}", f"{LOW}b"), client=client, stream=stream)).text == "aXb"
    assert (await run_policy(UpperCase(), chunks("\ud801", "\udc28"), client=client, stream=stream)).text == "𐐀"

    class NoSmiles(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        def on_block_complete(self, block: Block, ctx: Any) -> Verdict | None:
            return Deny("no") if "🙂" in block.text else None

    assert (await run_policy(NoSmiles(), chunks(f"a{HIGH}", f"{LOW}b"), client=client, stream=stream)).text == "no"


@pytest.mark.parametrize("text", [[f"a{HIGH}"], ["a", HIGH, "b"], [f"a{LOW}", "b"]])
async def test_a_half_without_its_other_is_not_lost(text: list[str]) -> None:
    """It goes where it was, and the policy sees it at the latest when the block ends."""
    seen: list[str] = []

    class Sees(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_chunk_added(self, chunk: Any, ctx: Any) -> None:
            seen.append(read_part(chunk).text)

    run = await run_policy(Sees(), chunks(*text))
    assert "".join(seen) == run.text == "".join(text)


async def test_side_data_is_kept_as_long_as_nothing_was_changed() -> None:
    """A citation of a text that was only kept back for a while stays; after a change it goes, wherever the cuts are."""
    citation = build_chunk({"choices": [{"index": 0, "delta": {"annotations": [{"type": "url_citation"}]}}]})
    for cut in (["say he"], ["say ", "he"], ["say h", "e"]):
        script = chunks(*cut, "x")
        run = await run_policy(ReplaceText(replacements=[["hello", "bye"]]), [*script[:-3], citation, *script[-3:]])
        assert (run.text, b"url_citation" in b"".join(run.frames)) == ("say hex", True)
        script = chunks("hello ", *cut, "x")
        run = await run_policy(ReplaceText(replacements=[["hello", "bye"]]), [*script[:-3], citation, *script[-3:]])
        assert (run.text, b"url_citation" in b"".join(run.frames)) == ("bye say hex", False)


async def test_annotations_beside_text_are_shown_to_a_policy_apart() -> None:
    """One that speaks of a match goes, although the text it came with has none."""
    for title, there in (("hello", False), ("other", True)):
        delta = {"content": "One text", "annotations": [{"type": "url_citation", "url_citation": {"title": title}}]}
        script = chunks("x")
        script[1] = build_chunk({"choices": [{"index": 0, "delta": delta}]})
        run = await run_policy(ReplaceText(replacements=[["hello", "bye"]]), script)
        assert (run.text, title.encode() in b"".join(run.frames)) == ("One text", there)


async def test_text_and_annotations_of_one_chunk_are_two_for_a_hook() -> None:
    """What it does about the one does not touch the other."""
    seen: list[tuple[str, bool]] = []

    class Sees(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_chunk_added(self, chunk: Any, ctx: Any) -> None:
            seen.append((read_part(chunk).text, bool(chunk.choices[0].delta.get("annotations"))))

    script = chunks("x")
    script[1] = build_chunk({"choices": [{"index": 0, "delta": {"content": "said", "annotations": [{"type": "url_citation"}]}}]})
    run = await run_policy(Sees(), script)
    assert (run.text, seen) == ("said", [("said", False), ("", True)])


async def test_log_probabilities_do_not_pass_a_policy_that_rewrites() -> None:
    """They hold tokens that it was not asked about; the record says that they were left out."""
    logprobs = {"content": [{"token": "fine", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    chunk = build_chunk({"choices": [{"index": 0, "delta": {"content": "fine"}, "logprobs": logprobs}]})
    for before in ([], ["a", "b", "c"]):
        script = chunks(*before, "x")
        run = await run_policy(UpperCase(), [*script[: len(before) + 1], chunk, *script[len(before) + 2 :]])
        assert b"logprob" not in b"".join(run.frames).replace(b'"logprobs":null', b"")
        assert run.text == "".join(before).upper() + "FINE"
        assert run.record is not None
        assert "left out, because the policy could not judge it: logprobs" in run.record.notes


async def test_a_change_is_noted_wherever_in_the_text_it_is() -> None:
    """Also when many chunks have passed before it; and none is where nothing was changed."""
    citation = build_chunk({"choices": [{"index": 0, "delta": {"annotations": [{"type": "url_citation"}]}}]})
    for text, expected, said in (("hello", "bye", ["replace"]), ("other", "other", [])):
        script = chunks("a", "b", "c", text)
        run = await run_policy(ReplaceText(replacements=[["hello", "bye"]]), [*script[:-2], citation, *script[-2:]])
        assert (run.text, [record.verdict for record in run.verdicts]) == (f"abc{expected}", said)
        assert (b"url_citation" in b"".join(run.frames)) is not bool(said)


def test_halves_that_meet_are_one_character() -> None:
    """And nothing else is changed."""
    assert joined(["a", HIGH, LOW, "b"]) == "a🙂b"
    assert joined([LOW, HIGH]) == LOW + HIGH
    assert joined(["ä", "𐐨"]) == "ä𐐨"
    assert [ends_in_half(text) for text in ("", "a", HIGH, LOW, "🙂")] == [False, False, True, False, False]


async def test_a_hook_may_be_slow_for_some_chunks_only() -> None:
    """A plain hook that returns an awaitable now and then is waited for then."""

    class Now(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_chunk_added(self, chunk: Any, ctx: Any) -> Any:
            return self.slow(chunk) if read_part(chunk).text in {"d", "e"} else [chunk]

        async def slow(self, chunk: Any) -> Any:
            return [with_text(chunk, read_part(chunk).text.upper())]

    assert (await run_policy(Now(), chunks(*"abcdefg"))).text == "abcDEfg"
