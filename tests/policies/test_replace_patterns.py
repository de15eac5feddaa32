"""`ReplaceText` with expressions and cases: what the client gets is what `regex.sub` makes of the whole block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.policies import ReplaceText
from luthien_asgi.policies.probes import probe_of
from luthien_asgi.policies.replacements import cased_like
from luthien_asgi.request import WireName
from luthien_asgi.testing import chunks, run_policy, text_chunk


def texts(policy: ReplaceText, *pieces: str) -> list[str]:
    """Return the texts that go on instead of a block's pieces."""
    nobody: Any = None
    ctx = StreamContext(transaction_id="t", request=nobody, keepalive=lambda: None, text=text_chunk)
    left: list[str] = []
    for piece in pieces:
        result = policy.on_chunk_added(text_chunk(piece), ctx)
        left += [piece] if result is None else [read_part(chunk).text for chunk in result]
    return left + [read_part(chunk).text for chunk in policy.on_block_end(Block(kind=BlockKind.TEXT), ctx) or ()]


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    """Return a text in pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    return [piece for piece in (*pieces, text) if piece]


def matching(pattern: str, new: str = "_", **flags: bool) -> ReplaceText:
    return ReplaceText(replacements=[{"pattern": pattern, "new": new, **flags}])


@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_expression_matches_across_chunks(client: WireName, stream: bool) -> None:
    """Nothing of a match reaches the client, in any format."""
    policy = matching(r"\b(\d{3})-\d{4}\b", r"\1-****")
    run = await run_policy(policy, chunks("call 55", "5-12", "34 or 5", "55-12345"), client=client, stream=stream)
    assert run.text == "call 555-**** or 555-12345"
    assert not any(b"34 or" in frame or b"555-1234 " in frame for frame in run.frames)


@pytest.mark.parametrize(
    ("pattern", "pieces", "expected"),
    [
        ("hello", ["say hel", "lo", " you"], ["say ", "_", " you"]),
        ("foo|foobar", ["a foo", "bar"], ["a _", "bar"]),
        ("foobar|foo", ["a foo", "bar"], ["a ", "_"]),
        (r"\w+", ["one t", "wo"], ["_ ", "_"]),
        (r"a+?", ["xa", "a"], ["x_", "_"]),
        (r"cat\b", ["a cat", "s", " cat."], ["a ", "cats", " _."]),
        (r"end$", ["the end", "\n", "x end"], ["the ", "end\nx ", "_"]),
        (r"(?m)^> ", ["> a\n", "> ", "b > c"], ["_a\n", "_", "b > c"]),
        (r"(?<=a)b", ["a", "b", "ab", "b"], ["a", "_", "a_", "b"]),
        (r"a(?!b)", ["a", "b a", "c"], ["ab ", "_c"]),
        (r"(\w)\1", ["hel", "lo"], ["he", "_", "o"]),
        (r"x*", ["ab", "x"], ["_a_b", "__"]),
        (r"\A.", ["ab", "cd"], ["_b", "cd"]),
        (r"(?s)a.*z", ["xa", "b", "zz", "y"], ["x", "_y"]),
    ],
)
def test_no_more_is_kept_back_than_the_expression_needs(pattern: str, pieces: list[str], expected: list[str]) -> None:
    """What is settled leaves with its own chunk; the parts are what `regex.sub` gives."""
    got = texts(matching(pattern), *pieces)
    assert got == expected
    assert "".join(got) == re.sub(pattern, "_", "".join(pieces))


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?|(a)|(b))c", r"a\Kb", r"(a(?:(?1))?b)", r"(?:ab){e<=1}", r"\X", r"a(*SKIP)b", r"(?<=a*)b", r"(?<=\b)b", "(?x)a # b",
        "(?V1)a", "[[a]b",
    ],
)  # fmt: skip
def test_an_expression_that_is_not_understood_waits_for_the_whole_block(pattern: str) -> None:
    """Then its result is right as well: it comes at the block's end. What is understood has a probe."""
    text = "abcabb ab é"
    got = texts(matching(pattern), *text)
    assert "".join(got) == regex.sub(pattern, "_", text)
    if probe_of(pattern) is None:
        assert len(got) == 1


_ATOMS = st.sampled_from(
    ["a", "b", "c", ".", r"\w", "[ab]", "[^a]", " ", r"\s", r"\d", r"\b", r"\B", "$", "^", r"\Z", r"\A", "\n"]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?", "+?", "??", "{0,2}?", "*+", "?+"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, counts).map("(?:{0[0]}){0[1]}".format),
        inner.map("({})".format),
        inner.map("(?={})".format),
        inner.map("(?!{})".format),
        inner.map("(?>{})".format),
        inner.map("(?i:{})".format),
        st.sampled_from(["(?<=a)", "(?<!ab)", "(?<=^|b)", r"(?<!\w)", r"(?P<c>\w)(?P=c)", r"(?<=a\b)"]),
    )


@given(
    pattern=st.recursive(_ATOMS, _larger, max_leaves=6),
    flags=st.sampled_from(["", "(?i)", "(?m)", "(?s)"]),
    text=st.text("aabbcA 1\n", min_size=1, max_size=12),
    sizes=st.lists(st.integers(1, 4), max_size=12),
)
@settings(max_examples=600, deadline=None)
def test_any_expression_gives_the_same_for_any_cut(pattern: str, flags: str, text: str, sizes: list[int]) -> None:
    """Fragment invariance, with the library's own substitution as the oracle."""
    policy = matching(flags + pattern, r"<\g<0>>")
    assert "".join(texts(policy, *cut(text, sizes))) == regex.sub(flags + pattern, r"<\g<0>>", text)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_case_gives_the_same_for_any_cut(data: st.DataObject) -> None:
    """`ignore_case`, with `re` as the oracle; strings and expressions in one list."""
    old = data.draw(st.text("abß.", min_size=1, max_size=4))
    text = data.draw(st.text("aAbBß.", max_size=12))
    policy = ReplaceText(replacements=[[old, "x"], {"pattern": "x+", "new": "y"}], ignore_case=True)
    expected = re.sub("(?i)x+", "y", re.sub(re.escape(old), "x", text, flags=re.IGNORECASE))
    assert "".join(texts(policy, *cut(text, data.draw(st.lists(st.integers(1, 4), max_size=8))))) == expected


@given(text=st.text("a👍🏽é", max_size=8), sizes=st.lists(st.integers(1, 3), max_size=16))
@settings(max_examples=150, deadline=None)
def test_a_character_that_was_cut_in_two_is_found(text: str, sizes: list[int]) -> None:
    """A provider may cut between two escapes: each half is a surrogate then."""
    units = text.encode("utf-16-le")
    halves = "".join(units[place : place + 2].decode("utf-16-le", "surrogatepass") for place in range(0, len(units), 2))
    for policy in (ReplaceText(replacements=[["👍🏽", "ok"]]), matching("👍🏽", "ok")):
        left = "".join(texts(policy, *cut(halves, sizes)))
        assert left.encode("utf-16-le", "surrogatepass").decode("utf-16-le") == text.replace("👍🏽", "ok")


def test_a_half_character_at_the_end_is_not_lost() -> None:
    """What never became a character leaves as it came."""
    assert texts(ReplaceText(replacements=[["x", "y"]]), "a\ud83d", "b") == ["a", "\ud83db"]
    assert texts(ReplaceText(replacements=[["x", "y"]]), "a\ud83d") == ["a", "\ud83d"]


@pytest.mark.parametrize(
    ("matched", "new", "expected"),
    [
        ("hello", "bye", "bye"),
        ("Hello", "bye", "Bye"),
        ("HELLO", "bye", "BYE"),
        ("hello", "Bye", "bye"),
        ("Hello", "bye NOW", "Bye now"),
        ("Hello World", "bye moon", "Bye Moon"),
        ("Hello world", "bye moon", "Bye moon"),
        ("hELLO", "bye", "bye"),
        ("iPhone", "Pixel", "Pixel"),
        ("A", "an", "An"),
        ("42", "Bye", "Bye"),
        ("É", "ça", "Ça"),
        ("ÉTÉ", "straße", "STRASSE"),
        ("Don't", "'do'", "'Do'"),
        ("Hello", "", ""),
    ],
)
def test_the_case_of_the_match_is_taken_over(matched: str, new: str, expected: str) -> None:
    """Small, capitals, first letter, each word; other mixtures say nothing."""
    assert cased_like(matched, new) == expected


def test_case_is_a_setting_of_all_entries_and_of_one() -> None:
    """An entry's own word counts."""
    every = ReplaceText(replacements=[["hello", "bye"], {"old": "you", "new": "me", "match_case": False}], match_case=True)
    assert "".join(texts(every, "HEL", "LO Hello hello you You")) == "BYE Bye bye me You"
    one = ReplaceText(replacements=[{"old": "hello", "new": "bye", "ignore_case": True}, ["you", "me"]])
    assert "".join(texts(one, "HEL", "LO you You")) == "bye me You"
    made = ReplaceText(replacements=[{"pattern": r"(\w+)-(\w+)", "new": r"\2 \1", "match_case": True}])
    assert "".join(texts(made, "AB-CD Ab-Cd")) == "CD AB Cd Ab"


@pytest.mark.parametrize("new", [r"\1", r"[\g<1>\g<n>]", r"a\\b\n\t\.", r"\g<0>\g<0>", "", r"\2"])
def test_a_template_says_what_re_has_it_say(new: str) -> None:
    """Groups, those that took no part, and escapes."""
    pattern, text = r"(?P<n>a)(b)?", "ab ac"
    assert "".join(texts(matching(pattern, new), *text)) == re.sub(pattern, new, text)


def test_an_expression_that_backtracks_without_end_is_stopped() -> None:
    """Its time is bounded; the answer ends with an error and not with the text."""
    with pytest.raises(TimeoutError):
        texts(matching(r"(?:(?:a|a)+b?)+(?!\w)c"), "a" * 60 + "x")


def test_a_text_kept_back_for_long_takes_time_in_proportion() -> None:
    """A megabyte in pieces of sixteen characters, all of it kept back: searched a few times and not at each piece."""
    policy = matching(r"(?s)<secret>.*?</secret>")
    got = texts(policy, "x<secret>", *["0123456789abcdef"] * 65_536, "</secret>y")
    assert "".join(got) == "x_y"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replacements": [{"pattern": "(", "new": ""}]}, r"the pattern '\(' cannot be used: missing \)"),
        ({"replacements": [{"pattern": "", "new": ""}]}, "a pattern must be a regular expression that is not empty"),
        ({"replacements": [{"pattern": 1, "new": ""}]}, "a pattern must be a regular expression"),
        ({"replacements": [{"pattern": "(?r)a", "new": ""}]}, "cannot search backwards"),
        ({"replacements": [{"pattern": "a", "new": r"\1"}]}, "there is no group 1"),
        ({"replacements": [{"pattern": "a", "new": r"\g<x>"}]}, "there is no group x"),
        ({"replacements": [{"pattern": "a", "new": r"\q"}]}, "a backslash is written twice"),
        ({"replacements": [{"pattern": "a", "new": "\\"}]}, "a backslash is written twice"),
        ({"replacements": [{"pattern": "a"}]}, "a mapping with old or pattern, and new"),
        ({"replacements": [{"pattern": "a", "old": "b", "new": ""}]}, "a mapping with old or pattern, and new"),
        ({"replacements": [{"old": 1, "new": ""}]}, "non-empty old"),
        ({"replacements": [{"old": "a", "new": "", "case": True}]}, "a replacement has no 'case'"),
        ({"replacements": [["a", "b"]], "ignore_case": "yes"}, "must be true or false, not 'yes'"),
        ({"replacements": [["a", "b"]], "where": "answer"}, "where must be request, response or both, not 'answer'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match=message):
        ReplaceText(**arguments)
