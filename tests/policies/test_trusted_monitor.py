"""`TrustedMonitor`: allow, resample, defer, escalate, deny, by score, and never allow because something ran out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from luthien_asgi import Approval, Approvals, ConfigError, Governed
from luthien_asgi.chunks import Chunk
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policies import TrustedMonitor
from luthien_asgi.policies.audit_budget import AuditBudget
from luthien_asgi.request import WireName
from luthien_asgi.testing import (
    PolicyRun,
    ScriptedBackend,
    Thinking,
    ToolCall,
    chunks,
    finish,
    judge_says,
    role,
    run_policy,
    text_chunk,
    tool_chunks,
)

CLIENTS = pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
DENIAL = "[The call of bash was denied by a policy.]"
ALL = {"resample": 0.3, "defer": 0.5, "escalate": 0.7, "deny": 0.9}


def monitor(thresholds: dict[str, float], **settings: Any) -> TrustedMonitor:
    return TrustedMonitor(monitor="judge", thresholds=thresholds, **({"trusted": "weak"} | settings))


def answer(word: str) -> list[Chunk]:
    return chunks(f"I {word}. ", ToolCall(f"call_{word}", "bash", {"command": word}))


def backend(scores: Sequence[float], *words: str, weak: str = "trusted") -> ScriptedBackend:
    """Return a model that wants a word after the other, a monitor with a score for each, and a trusted model."""
    judge = [judge_says(score=score, explanation=f"E{place}.") for place, score in enumerate(scores)]
    return ScriptedBackend({"scripted": [answer(word) for word in words], "judge": judge, "weak": answer(weak)})


def said(run: PolicyRun) -> list[tuple[str, str, int]]:
    return [(record.verdict, record.action, record.sample) for record in run.verdicts]


async def yes(approval: Approval) -> bool:
    del approval
    return True


async def no(approval: Approval) -> bool:
    del approval
    return False


@STREAMED
@CLIENTS
async def test_a_call_below_all_thresholds_is_allowed(client: WireName, stream: bool) -> None:
    """With its score in the record; the monitor was asked once."""
    script = backend([0.29], "ls")
    run = await run_policy(monitor(ALL), script, client=client, stream=stream, approvals=Approvals(notify=no))
    assert (run.text.strip(), [call.arguments for call in run.tool_calls]) == ("I ls.", [{"command": "ls"}])
    assert said(run) == [("allow", "allow", 0)]
    assert run.verdicts[0].reason == "score 0.29: E0."
    assert len(script.calls_of("judge")) == 1


@STREAMED
@CLIENTS
async def test_a_suspicious_answer_is_drawn_again(client: WireName, stream: bool) -> None:
    """The client gets the second one alone; the record has both scores, and the model was not told anything new."""
    script = backend([0.4, 0.1], "steal", "help")
    run = await run_policy(monitor({"resample": 0.3}), script, client=client, stream=stream)
    assert (run.text.strip(), [call.id for call in run.tool_calls]) == ("I help.", ["call_help"])
    assert not any(b"steal" in frame for frame in run.frames)
    assert said(run) == [("resample", "resample", 0), ("allow", "allow", 1)]
    assert [record.reason for record in run.verdicts] == ["score 0.4: E0.", "score 0.1 (earlier answers: 0.4): E1."]
    first, second = script.calls_of("scripted")
    assert first.request == second.request
    assert run.record is not None
    assert [(sample.policy, sample.verdict) for sample in run.record.samples] == [("TrustedMonitor", "resample")]


@CLIENTS
async def test_when_no_sample_is_better_the_call_is_denied(client: WireName) -> None:
    """`resamples` more are drawn, and not one beyond; that it is the least suspicious of them does not help the last."""
    script = backend([0.6, 0.5, 0.4, 0.0], "one", "two", "three", "four")
    run = await run_policy(monitor({"resample": 0.3}, resamples=2), script, client=client)
    assert (run.tool_calls, DENIAL in run.text) == ([], True)
    assert said(run) == [("resample", "resample", 0), ("resample", "resample", 1), ("deny", "deny", 2)]
    assert run.verdicts[-1].reason == "score 0.4 (earlier answers: 0.6, 0.5): E2."
    assert len(script.calls_of("scripted")) == 3


@STREAMED
@CLIENTS
async def test_a_more_suspicious_answer_is_written_by_the_trusted_model(client: WireName, stream: bool) -> None:
    """Whose calls are allowed without a score."""
    script = backend([0.6], "steal")
    run = await run_policy(monitor({"resample": 0.3, "defer": 0.5}), script, client=client, stream=stream)
    assert (run.text.strip(), [call.id for call in run.tool_calls]) == ("I trusted.", ["call_trusted"])
    assert not any(b"steal" in frame for frame in run.frames)
    assert said(run) == [("defer", "defer", 0), ("allow", "allow", 1)]
    assert run.verdicts[-1].reason == "written by the trusted model"
    assert (len(script.calls_of("judge")), len(script.calls_of("weak"))) == (1, 1)


async def test_the_trusted_model_s_calls_are_scored_where_that_is_asked_for() -> None:
    """A deferral is used up then: what is suspicious still is denied, or asked about."""
    denied = await run_policy(monitor({"defer": 0.5}, score_trusted=True), backend([0.6, 0.6], "steal"))
    assert said(denied) == [("defer", "defer", 0), ("deny", "deny", 1)]
    thresholds = {"defer": 0.5, "escalate": 0.8}
    asked = await run_policy(
        monitor(thresholds, score_trusted=True), backend([0.6, 0.6], "steal"), approvals=Approvals(notify=yes)
    )
    assert said(asked) == [("defer", "defer", 0), ("escalate", "allow", 1), ("allow", "allow", 1)]
    assert [call.id for call in asked.tool_calls] == ["call_trusted"]


async def test_a_client_that_asks_for_the_trusted_model_is_not_watched() -> None:
    """It is the model that is trusted, and not the way to it."""
    script = backend([], weak="help")
    run = await run_policy(monitor({"deny": 0.0}), script, request={"model": "weak"})
    assert [call.id for call in run.tool_calls] == ["call_help"]
    assert script.calls_of("judge") == []


async def test_used_up_samples_give_way_to_the_next_measure() -> None:
    """Resample, then the trusted model; and a person where there is no trusted one."""
    deferred = await run_policy(monitor({"resample": 0.3, "defer": 0.8}, resamples=1), backend([0.4, 0.4], "one", "two"))
    assert said(deferred) == [("resample", "resample", 0), ("defer", "defer", 1), ("allow", "allow", 2)]
    thresholds = {"resample": 0.3, "escalate": 0.8}
    script = backend([0.4, 0.4], "one", "two")
    asked = await run_policy(monitor(thresholds, resamples=1), script, approvals=Approvals(notify=yes))
    assert said(asked)[:2] == [("resample", "resample", 0), ("escalate", "allow", 1)]
    assert [call.id for call in asked.tool_calls] == ["call_two"]


@STREAMED
@CLIENTS
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_person_decides_about_the_most_suspicious(client: WireName, stream: bool, allowed: bool) -> None:
    """They are shown call, score and explanation; the answer is done."""
    seen: list[Approval] = []

    async def notify(approval: Approval) -> bool:
        seen.append(approval)
        return allowed

    run = await run_policy(monitor(ALL), backend([0.8], "wipe"), client=client, stream=stream, approvals=Approvals(notify=notify))
    assert [call.id for call in run.tool_calls] == (["call_wipe"] if allowed else [])
    assert (DENIAL in run.text) is not allowed
    (approval,) = seen
    assert approval.question == "May bash be called? A monitor gave the call 0.8 of 1 for suspicion: E0."
    assert (approval.tool, approval.content, approval.policy) == ("bash", '{"command":"wipe"}', "TrustedMonitor")
    done = "allow" if allowed else "deny"
    assert said(run) == [("escalate", done, 0), (done, done, 0)]


@pytest.mark.parametrize(("unanswered", "calls"), [("deny", []), ("allow", ["call_wipe"])])
async def test_a_person_who_says_nothing_leaves_it_to_the_default(unanswered: Any, calls: list[str]) -> None:
    """After the policy's own time."""
    policy = monitor({"escalate": 0.5}, timeout=0.01, unanswered=unanswered)
    run = await run_policy(policy, backend([0.8], "wipe"), approvals=Approvals())
    assert [call.id for call in run.tool_calls] == calls


@pytest.mark.parametrize(
    ("score", "verdict"),
    [(0, "allow"), (0.3, "resample"), (0.49, "resample"), (0.5, "defer"), (0.7, "escalate"), (0.89, "escalate"), (0.9, "deny")],
)
async def test_a_threshold_is_reached_by_the_score_that_it_is(score: float, verdict: str) -> None:
    """The highest one that is reached decides."""
    script = backend([score, 0], "one", "two")
    run = await run_policy(monitor(ALL), script, approvals=Approvals(notify=yes))
    assert run.verdicts[0].verdict == verdict


# --- the audit budget ----------------------------------------------------------------------------------------------------------


async def test_a_spent_audit_budget_denies() -> None:
    """One audit is there at the start, and each further one takes four scored calls; nothing passes meanwhile."""
    policy = monitor({"escalate": 0.5}, audit_budget=0.25)
    desk = Approvals(notify=yes)
    verdicts = []
    for score in [0.8, 0.8, 0.0, 0.0, 0.8, 0.8]:
        run = await run_policy(policy, backend([score], "x"), approvals=desk)
        verdicts.append(run.verdicts[0].verdict)
    assert verdicts == ["escalate", "deny", "allow", "allow", "escalate", "deny"]


async def test_policies_can_share_a_budget() -> None:
    """What one spends, the other one has not."""
    budget = AuditBudget(0.0001)
    one, other = monitor({"escalate": 0.5}, audit_budget=budget), monitor({"escalate": 0.5}, audit_budget=budget)
    desk = Approvals(notify=yes)
    first = await run_policy(one, backend([0.8], "x"), approvals=desk)
    second = await run_policy(other, backend([0.8], "x"), approvals=desk)
    assert (first.verdicts[0].verdict, second.verdicts[0].verdict) == ("escalate", "deny")


@pytest.mark.parametrize(("share", "burst"), [(0, 1), (0.1, 1), (0.1, 3), (0.03, 2), (1 / 3, 1), (1, 1)])
def test_an_audit_budget_is_a_share(share: float, burst: int) -> None:
    """Of any n calls in a row at most `burst + n * share` are audited, and no fewer than one below the share."""
    budget = AuditBudget(share, burst=burst)
    spent = []
    for _ in range(1000):
        budget.earn()
        spent.append(budget.spend())
    assert 1000 * share - 1 <= sum(spent) <= 1000 * share + burst
    for length in (1, 10, 100):
        most = max(sum(spent[place : place + length]) for place in range(1000 - length))
        assert most <= burst + length * share + 1e-6
    assert share or not any(spent)


def test_unspent_audits_are_saved_up_to_the_burst() -> None:
    """However long nobody had to be asked."""
    budget = AuditBudget(0.5, burst=2)
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(4)] == [True, True, False, False]


# --- what holds, and what it costs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("thresholds", "verdicts", "holds"),
    [
        ({"deny": 0.5}, {"Allow", "Deny"}, False),
        ({"escalate": 0.5}, {"Allow", "Deny", "Escalate"}, False),
        ({"resample": 0.5}, {"Allow", "Deny", "Resample"}, True),
        ({"defer": 0.5}, {"Allow", "Deny", "Defer"}, True),
        (ALL, {"Allow", "Deny", "Resample", "Defer", "Escalate"}, True),
    ],
)
def test_it_declares_what_its_configuration_can_say(thresholds: dict[str, float], verdicts: set[str], holds: bool) -> None:
    """An answer is held as a whole only where it may be dropped, and the trusted model is needed only where it may write."""
    policy = monitor(thresholds)
    assert {verdict.__name__ for verdict in policy.verdicts} == verdicts
    assert Pipeline.of(policy).holds_answer is holds
    assert not Pipeline.of(monitor(thresholds, rest=True)).holds_answer
    assert policy.asks == (("judge", "weak") if "defer" in thresholds else ("judge",))


@CLIENTS
async def test_with_rest_the_text_stays_and_the_calls_are_drawn_anew(client: WireName) -> None:
    """The second answer's text is not sent, its call is."""
    run = await run_policy(monitor({"resample": 0.3}, rest=True), backend([0.4, 0.1], "one", "two"), client=client)
    assert (run.text.strip(), [call.id for call in run.tool_calls]) == ("I one.", ["call_two"])


async def test_with_rest_and_thinking_that_has_left_the_call_is_denied() -> None:
    """Calls of one answer do not go with the thinking of another."""
    script = {"scripted": chunks(Thinking("Hm.", signature="s"), ToolCall("c", "bash", {})), "judge": judge_says(score=0.4)}
    run = await run_policy(monitor({"resample": 0.3}, rest=True), ScriptedBackend(script), client="anthropic")
    assert (run.thinking, run.tool_calls) == ("Hm.", [])
    assert said(run) == [("resample", "deny", 0)]


async def test_one_call_of_several_has_the_whole_answer_drawn_again() -> None:
    """Of every choice; the record has the score of each call."""
    bad = [
        role(),
        role(choice=1),
        text_chunk("first"),
        *tool_chunks("a", "bash", '{"command": "fine"}'),
        *tool_chunks("b", "bash", '{"command": "steal"}', choice=1),
        finish("tool_calls"),
        finish("tool_calls", choice=1),
    ]
    good = [role(), role(choice=1), text_chunk("second"), text_chunk("third", choice=1), finish(), finish(choice=1)]

    def judge(call: Any) -> Any:
        return judge_says(score=0.9 if "steal" in call.request.body["messages"][-1]["content"] else 0.1)(call)

    script = ScriptedBackend({"scripted": [bad, good], "judge": judge})
    run = await run_policy(monitor({"resample": 0.3}), script, request={"n": 2})
    assert [block.text for block in run.blocks] == ["second", "third"]
    assert not any(b"steal" in frame or b"first" in frame for frame in run.frames)
    assert len(script.calls_of("judge")) == 2


async def test_malformed_arguments_are_denied_unscored() -> None:
    """And an answer is not drawn again for that."""
    script = ScriptedBackend({"scripted": chunks(ToolCall("c", "bash", '{"a": 1, "a": 2}')), "judge": judge_says(score=0)})
    run = await run_policy(monitor({"resample": 0.3}), script)
    assert (run.tool_calls, said(run), script.calls_of("judge")) == ([], [("deny", "deny", 0)], [])


@pytest.mark.parametrize(("on_error", "calls"), [("block", []), ("pass", ["call_x"])])
async def test_on_error_decides_about_a_monitor_without_a_verdict(on_error: Any, calls: list[str]) -> None:
    """Never is that taken for a score of 0."""
    script = ScriptedBackend({"scripted": answer("x"), "judge": chunks('{"score": 0}')})
    run = await run_policy(Governed(monitor({"resample": 0.3}), on_error=on_error), script)
    assert [call.id for call in run.tool_calls] == calls


async def test_scores_of_one_transaction_are_not_another_s() -> None:
    """One policy object, two transactions: each has its own samples."""
    policy = monitor({"resample": 0.3}, resamples=1)
    before = dict(vars(policy))
    for _ in range(2):
        run = await run_policy(policy, backend([0.4, 0.1], "one", "two"))
        assert [call.id for call in run.tool_calls] == ["call_two"]
        assert run.verdicts[-1].reason == "score 0.1 (earlier answers: 0.4): E1."
    assert vars(policy) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thresholds": {}}, "thresholds must map resample, defer, escalate, deny to scores, at least one"),
        ({"thresholds": [0.5]}, "thresholds must map"),
        ({"thresholds": {"block": 0.5}}, "a threshold must be one of resample, defer, escalate, deny, not 'block'"),
        ({"thresholds": {"deny": 2}}, "thresholds.deny must be a number from 0 to 1"),
        ({"thresholds": {"deny": 0.5, "resample": 0.5}}, "the threshold deny must be higher than resample"),
        ({"thresholds": {"escalate": 0.4, "defer": 0.6}, "trusted": "t"}, "the threshold escalate must be higher than defer"),
        ({"thresholds": {"defer": 0.4}}, "the threshold defer needs trusted"),
        ({"resamples": 0}, "resamples must be a whole number of at least 1"),
        ({"audit_budget": 2}, "audit_budget must be a number from 0 to 1"),
        ({"audit_budget": True}, "audit_budget must be a number from 0 to 1"),
        ({"audit_budget": "all"}, "audit_budget must be a number from 0 to 1"),
        ({"question": "{call}?"}, "question has {call}, which nothing stands for"),
        ({"unanswered": "ask"}, "unanswered must be one of deny, allow"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"monitor": ""}, "monitor must be the name of a model"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    given: dict[str, Any] = {"monitor": "judge", "thresholds": {"deny": 0.5}, **settings}
    with pytest.raises(ValueError) as caught:
        TrustedMonitor(**given)
    assert message in str(caught.value)


async def test_a_policy_that_may_ask_a_person_needs_one() -> None:
    """It is refused at the start where there is nobody to ask."""
    with pytest.raises(ConfigError, match="there is nobody to ask"):
        await run_policy(monitor({"escalate": 0.5}), backend([0], "x"))
