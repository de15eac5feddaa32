"""Every policy that ships, held to what every policy promises: by the one line of an author's test, and by drawn answers.

`TABLE` has a row for each policy in `luthien_asgi.policies.__all__`; one without a row fails. The first test runs
`assert_policy_holds` with the row; the others draw an answer and its cuts, and say what the client has by an oracle of its own:
the same answer, uncut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthien_asgi import Policy, policies
from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.request import WireName
from luthien_asgi.testing import (
    Answer,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    assert_policy_holds,
    chunks,
    run_policy_sync,
    verdict_on,
)
from luthien_asgi.testing.proof.cuts import Cut, units
from luthien_asgi.testing.proof.next_turn import complaint
from luthien_asgi.testing.proof.outcomes import Outcome, strings_in
from luthien_asgi.testing.proof.stage import CLIENTS, PROVIDERS, ProofBackend, decoded, events_of


@dataclass(frozen=True)
class Row:
    """How one policy is tried."""

    make: Callable[[], Policy]
    triggers: Sequence[str]
    """Texts that it reacts to: they are among what is drawn."""
    canary: str = ""
    """A text that must not get out, and the fields in which the policy looks for it."""
    canary_in: Sequence[str] = ()
    judges: Mapping[str, Any] = field(default_factory=dict)
    """What its models say, by name."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `assert_policy_holds`."""


def judge_of(word: str, found: Mapping[str, Any], otherwise: Mapping[str, Any]) -> Callable[[BackendCall], str]:
    """A judge that looks for a word in what it is asked about: the last of the data."""

    def judge(call: BackendCall) -> str:
        shown = call.request.body["messages"][-1]["content"].rpartition("<data ")[2]
        return verdict_on(call.request.body, **(found if word in shown else otherwise))

    return judge


KEY = "a key of sixteen characters or more"
MAIL = "alice@example.com"
TABLE: dict[str, Row] = {
    "AllowModels": Row(lambda: policies.AllowModels(allow=["*"]), ["scripted"]),
    "GuardShell": Row(
        policies.GuardShell,
        ["rm -rf /"],
        more={"answers": [ToolCall("call_1", "bash", {"command": "rm -rf /"})], "max_block": 2.0},
    ),
    "GuardSql": Row(
        lambda: policies.GuardSql(dialect="postgres"),
        ["DROP TABLE x"],
        more={"answers": [ToolCall("call_1", "run_sql", {"sql": "DROP TABLE x"})], "max_block": 2.0},
    ),
    "LimitOutput": Row(lambda: policies.LimitOutput(tokens=12, tool_calls=1, blocks=3), ["word word word"]),
    "Redact": Row(
        lambda: policies.Redact(where="response", key=KEY),
        [MAIL, "4111 1111 1111 1111"],
        canary=MAIL,
        canary_in=["text", "tool_arguments", "logprobs", "annotations", "citations", "refusal"],
    ),
    "DenyTools": Row(
        lambda: policies.DenyTools(names=["bash"], patterns={"*": "sword(fish|play)"}),
        ["swordfish", "bash"],
        canary="swordfish",
        canary_in=["tool_arguments"],
    ),
    "PlainRules": Row(
        lambda: policies.PlainRules(rules=["No fish."], model="judge", kinds=["text", "tool_call", "refusal"]),
        ["swordfish"],
        canary="swordfish",
        canary_in=["text", "tool_arguments", "refusal", "annotations", "citations"],
        judges={"judge": judge_of("swordfish", {"violated": [1]}, {"violated": []})},
    ),
    "ReplaceText": Row(
        lambda: policies.ReplaceText(replacements=[["hello", "bye"], ["a.b", "🙂"], ["aab", "x"]]),
        ["hello", "hellhello", "aaab", "a.b"],
        canary="hello",
        canary_in=["text", "logprobs", "annotations", "citations"],
        more={"holds_back": 4},
    ),
    "ToolCallJudge": Row(
        lambda: policies.ToolCallJudge(model="judge"),
        ["swordfish"],
        canary="swordfish",
        canary_in=["tool_arguments"],
        judges={"judge": judge_of("swordfish", {"score": 1}, {"score": 0})},
    ),
    "TrustedMonitor": Row(
        lambda: policies.TrustedMonitor(monitor="judge", thresholds={"resample": 0.5, "deny": 0.9}, resamples=1),
        ["swordfish", "sword"],
        canary="swordfish",
        canary_in=["tool_arguments"],
        judges={"judge": judge_of("sword", {"score": 0.6}, {"score": 0})},
    ),
    "UpperCase": Row(policies.UpperCase, ["straße", "ŉ"], more={"holds_back": 0}),
}

POLICIES = sorted(policies.__all__)
shipped = pytest.mark.parametrize("name", POLICIES)


def test_every_policy_that_ships_has_a_row() -> None:
    """And there is no row without a policy."""
    assert sorted(TABLE) == POLICIES


@shipped
def test_it_holds(name: str) -> None:
    """The one line of an author's test; what a policy must not let out is tried in every place where it looks."""
    row = TABLE[name]
    proof = assert_policy_holds(
        row.make(),
        examples=row.triggers,
        canary=row.canary,
        canary_in=row.canary_in or None,
        judges=row.judges,
        cuts=1,
        **row.more,
    )
    assert proof.answers >= len(row.triggers) * 3
    assert bool(proof.canary_runs) == bool(row.canary)


# --- drawn answers ----------------------------------------------------------------------------------------------------------

LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs"])
NAMES = st.sampled_from(["read", "bash", "search_web"])


def texts(row: Row) -> st.SearchStrategy[str]:
    """A text with the policy's triggers in it, whole, in part and beside each other."""
    parts = [part for trigger in row.triggers for part in (trigger, trigger[: len(trigger) // 2], trigger[len(trigger) // 2 :])]
    piece = st.one_of(st.sampled_from(parts), st.text(LETTERS, max_size=8))
    return st.lists(piece, min_size=1, max_size=5).map("".join).filter(str.strip)


@st.composite
def answers(draw: st.DrawFn, row: Row) -> Answer:
    """An answer of every shape that a provider may give."""
    text = texts(row)
    calls = [
        ToolCall(f"call_{number}", draw(NAMES), {draw(text): [draw(text), {"n": 1}]}) for number in range(draw(st.integers(0, 2)))
    ]
    if not calls and draw(st.integers(0, 4)) == 0:
        return Answer(Refusal(draw(text)))
    thinking = [Thinking(draw(text), signature="c2ln")] if draw(st.booleans()) else []
    return Answer(*thinking, *([Text(draw(text))] if not calls or draw(st.booleans()) else []), *calls)


@st.composite
def cuts(draw: st.DrawFn, answer: Answer) -> Cut:
    """Any cut of it."""
    sizes = [len(units(part.text if isinstance(part, ToolCall) else "".join(part.fragments))) for part in answer.parts]  # type: ignore[union-attr]
    return Cut(tuple(tuple(sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=6)))) for size in sizes))


def outcome(row: Row, answer: Answer, provider: WireName, client: WireName, stream: bool) -> tuple[Outcome, Any]:
    backend = ProofBackend(decoded(events_of(answer, provider), provider), wire=provider, judges=row.judges)
    run = run_policy_sync(row.make(), backend, client=client, stream=stream)
    return Outcome.of(run), run


drawn = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@shipped
@pytest.mark.parametrize("provider", PROVIDERS)
def test_any_cut_of_any_answer_is_the_same_and_legal_and_goes_on(name: str, provider: WireName) -> None:
    """However it is cut, to any client, streamed or not: what the client has, the verdicts, and a next turn that is accepted."""
    row = TABLE[name]

    @drawn
    @given(data=st.data(), client=st.sampled_from(CLIENTS), stream=st.booleans())
    def holds(data: st.DataObject, client: WireName, stream: bool) -> None:
        answer = data.draw(answers(row))
        expected, run = outcome(row, answer, provider, client, True)
        got, _ = outcome(row, data.draw(cuts(answer)).of(answer), provider, client, stream)
        assert not expected.against(got)
        if run.error is None:
            assert complaint(client, run.body) is None

    holds()


@shipped
def test_what_must_not_get_out_never_does(name: str) -> None:
    """Inside any answer, among its other words, in any cut."""
    row = TABLE[name]
    if not row.canary:
        pytest.skip("it keeps nothing in")
    kinds = {"text": Text, "tool_arguments": ToolCall, "thinking": Thinking, "refusal": Refusal}
    fields = [kind for kind in row.canary_in if kind in kinds]

    @drawn
    @given(data=st.data(), client=st.sampled_from(CLIENTS), stream=st.booleans(), provider=st.sampled_from(PROVIDERS))
    def holds(data: st.DataObject, client: WireName, stream: bool, provider: WireName) -> None:
        kept = data.draw(st.sampled_from(fields))
        said = data.draw(texts(row)) + " " + row.canary + " " + data.draw(texts(row))
        part: Any = ToolCall("call_1", "read", {"a": said}) if kept == "tool_arguments" else kinds[kept](said)
        answer = Answer(part, ToolCall("call_2", "read", {"b": 1}))
        _, run = outcome(row, data.draw(cuts(answer)).of(answer), provider, client, stream)
        assert not any(row.canary in text for text in strings_in(run.body))
        assert row.canary.encode() not in b"".join(run.frames)

    holds()


# --- what a policy says it does -------------------------------------------------------------------------------------------------


def test_replace_text_is_str_replace() -> None:
    """What the class promises, by an oracle that has no cuts at all."""
    row = TABLE["ReplaceText"]

    @drawn
    @given(data=st.data(), text=texts(row))
    def holds(data: st.DataObject, text: str) -> None:
        answer = Answer(Text(text))
        cut = data.draw(cuts(answer)).of(answer)
        _, run = outcome(row, cut, "openai", "openai", True)
        assert run.text == text.replace("hello", "bye").replace("a.b", "🙂").replace("aab", "x")

    holds()


def test_deny_tools_is_its_pattern() -> None:
    """A call is denied if and only if its name is on the list or its arguments match, whatever else is in the answer."""
    row = TABLE["DenyTools"]

    @drawn
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        answer = data.draw(answers(row))
        calls = [part for part in answer.parts if isinstance(part, ToolCall)]
        fine = [call.name for call in calls if call.name != "bash" and not re.search("sword(fish|play)", call.text)]
        _, run = outcome(row, data.draw(cuts(answer)).of(answer), "anthropic", "anthropic", True)
        assert [block.name for block in run.tool_calls] == fine

    holds()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_character_that_a_provider_cut_in_two_is_one(client: WireName) -> None:
    """Beyond U+FFFF JSON writes two escapes, and providers cut between them."""
    policy = policies.ReplaceText(replacements=[["🙂", "smile"]])
    assert run_policy_sync(policy, chunks("a \ud83d", "\ude42 b"), client=client).text == "a smile b"
