"""A policy that has a trusted model watch an untrusted one: the protocols of AI control, over a stream."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Literal

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.names import shown_name
from luthien_asgi.policies.audit_budget import AuditBudget
from luthien_asgi.policies.call_questions import CallQuestion, malformed_of
from luthien_asgi.policies.checks import (
    checked_choice,
    checked_message,
    checked_model,
    checked_number,
    checked_text,
    checked_whole,
)
from luthien_asgi.policies.judge_model import JudgeModel, View
from luthien_asgi.policies.judge_prompts import SUSPICIOUS_CALLS, filled, template_of
from luthien_asgi.policies.judge_replies import Score, read_score
from luthien_asgi.policy import Handling, Hold, Policy
from luthien_asgi.verdicts import Allow, Defer, Deny, Escalate, Resample, Verdict

__all__ = ["TrustedMonitor"]

_MESSAGE: Final = "[The call of {name} was denied by a policy.]"
_QUESTION: Final = "May {name} be called? A monitor gave the call {score} of 1 for suspicion: {explanation}"
_MEASURES: Final[Mapping[str, type[Verdict]]] = {"resample": Resample, "defer": Defer, "escalate": Escalate, "deny": Deny}
"""From the mildest to the strictest."""


@dataclass(slots=True)
class _Samples:
    """What one transaction's answers were given so far."""

    scores: dict[int, list[float]] = field(default_factory=dict)
    """By the answer's number."""
    redrawn: set[int] = field(default_factory=set)
    """Answers that this policy wanted drawn again."""

    def redrawn_before(self, sample: int) -> int:
        return sum(each < sample for each in self.redrawn)


class TrustedMonitor(Policy):
    """Score each tool call of an untrusted model with a trusted one, and act by the score.

    `monitor` is a model of the configuration; it is asked once for each call of the `tools` and says from 0 to 1 how suspicious
    the call is. `thresholds` say what is done from which score on; any of them may be left out, below all of them a call is
    allowed:

    - `resample`: the answer is dropped and drawn again, up to `resamples` times in a transaction;
    - `defer`: the answer is dropped and written by `trusted`, another model of the configuration;
    - `escalate`: a person decides (`approvals`), while the call waits: `timeout` seconds, then `unanswered` holds;
    - `deny`: the call is denied.

    Each threshold is higher than the one before. A measure that is used up gives way to the next stricter one that has a
    threshold, and the last of all is to deny: nothing that reached a threshold passes because something ran out.

    The protocols: *trusted monitoring*, its *audit budget* and asking trusted people about the most suspicious outputs are from
    "AI Control: Improving Safety Despite Intentional Subversion" (2023); *defer-to-trusted* and *defer-to-resample*, for agents
    that act step by step, from "Ctrl-Z: Controlling AI Agents via Resampling" (2025). Here samples are drawn one after the
    other and the first one below the thresholds is taken. The least suspicious of several that all exceed them is not: a
    dropped answer cannot come back (its calls do not go with another one's thinking and text), and "Retrying vs Resampling in
    AI Control" (2026) found little in it. That paper is also why a new sample is not told what was wrong with the last, and why
    neither score nor explanation are in the default `message`: a model that reads why it was caught learns to hide better. And
    as there (in Ctrl-Z it is the least suspicious one) the most suspicious sample counts: one that reaches `escalate` is
    escalated, whatever came before.

    `audit_budget` bounds how often a person is asked: a share of the calls scored (0.02: one in fifty), over all transactions
    of this process, see `AuditBudget`; in Python also an `AuditBudget` that several policies share. A call that finds it spent
    is denied. None: no bound.

    What `trusted` writes is allowed without a score, also where a client asked for that model itself; `score_trusted: true`
    scores it. `rest: true` lets text leave as it comes and draws only the calls anew; otherwise an answer waits as a whole
    where the thresholds have `resample` or `defer`. Arguments that are not JSON, or name something twice, are denied unscored.
    The scores of all samples are in the record. `instructions`, `template`, what the judge sees, and when it has failed: as for
    `ToolCallJudge`.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts: Collection[type[Verdict]] = (Allow, Resample, Defer, Escalate, Deny)

    def __init__(
        self,
        *,
        monitor: str,
        thresholds: Mapping[str, float],
        trusted: str | None = None,
        resamples: int = 2,
        audit_budget: float | AuditBudget | None = None,
        rest: bool = False,
        score_trusted: bool = False,
        tools: Sequence[str] = ("*",),
        instructions: str | None = None,
        template: str | None = None,
        context_blocks: int = 12,
        context_characters: int = 2000,
        max_characters: int = 50_000,
        message: str = _MESSAGE,
        question: str = _QUESTION,
        timeout: float | None = None,
        unanswered: Literal["deny", "allow"] = "deny",
        temperature: float | None = 0.0,
        max_tokens: int = 1024,
        attempts: int = 2,
    ) -> None:
        self.judge = JudgeModel.of("monitor", monitor, temperature=temperature, max_tokens=max_tokens, attempts=attempts)
        self.calls = CallQuestion.of(
            instructions=instructions if instructions is not None else SUSPICIOUS_CALLS,
            tools=tools,
            template=template,
            view=View.of(context_blocks=context_blocks, context_characters=context_characters, max_characters=max_characters),
        )
        self.thresholds = _checked_thresholds(thresholds)
        self.trusted = None if trusted is None else checked_model(trusted, "trusted")
        if "defer" in self.thresholds and self.trusted is None:
            msg = "the threshold defer needs trusted: the model that writes the answer instead"
            raise ValueError(msg)
        self.resamples = checked_whole(resamples, "resamples", low=1)
        self.budget = audit_budget if audit_budget is None or isinstance(audit_budget, AuditBudget) else AuditBudget(audit_budget)
        self.score_trusted = bool(score_trusted)
        self.message = template_of("message", checked_message(message), known=_PLACES)
        self.escalation = _escalation(question, unanswered, timeout)
        # Only what this configuration can say: one that never draws anew need not hold whole answers.
        self.verdicts = (Allow, Deny, *(_MEASURES[name] for name in self.thresholds if name != "deny"))
        self.rest = bool(rest)
        self.asks = (self.judge.model, *([self.trusted] if self.trusted is not None and "defer" in self.thresholds else ()))

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        """Score a call and act by its score."""
        if not self.calls.concerns(block):
            return None
        if not self.score_trusted and self.trusted is not None and ctx.model == self.trusted:
            return Allow(reason="written by the trusted model")
        if problem := malformed_of(block):
            return Deny(self._filled(self.message, block, None), reason=problem)
        score = await self.judge.ask(ctx, self.calls.question(block, ctx), read_score)
        if self.budget is not None:
            self.budget.earn()
        samples = self._samples(ctx)
        reason = _reason(score, samples, ctx.sample)
        samples.scores.setdefault(ctx.sample, []).append(score.value)
        return self._verdict(block, ctx, score, reason)

    def _verdict(self, block: Block, ctx: StreamContext, score: Score, reason: str) -> Verdict:
        measures = [*self.thresholds]
        reached = [place for place, name in enumerate(measures) if score.value >= self.thresholds[name]]
        if not reached:
            return Allow(reason=reason)
        message = self._filled(self.message, block, score)
        for name in measures[reached[-1] :]:
            if name == "resample" and self._may_resample(ctx):
                # A deferral counts as one of the dropped answers too.
                return Resample(n=self.resamples + 1, message=message, reason=reason)
            if name == "defer" and self.trusted is not None and ctx.model != self.trusted:
                return Defer(self.trusted, message=message, reason=reason)
            if name == "escalate" and (self.budget is None or self.budget.spend()):
                asked = self._filled(self.escalation.question, block, score)
                return replace(self.escalation, question=asked, message=message, reason=reason)
        return Deny(message, reason=reason)

    def _may_resample(self, ctx: StreamContext) -> bool:
        samples = self._samples(ctx)
        if samples.redrawn_before(ctx.sample) >= self.resamples:
            return False
        samples.redrawn.add(ctx.sample)
        return True

    def _samples(self, ctx: StreamContext) -> _Samples:
        """Return what is known of this transaction's answers: in the scratchpad, which outlives those that are dropped."""
        kept: _Samples = ctx.scratchpad.setdefault(f"TrustedMonitor {id(self):x}", _Samples())
        return kept

    @staticmethod
    def _filled(template: str, block: Block, score: Score | None) -> str:
        value, explanation = (f"{score.value:g}", score.explanation) if score is not None else ("", "")
        return filled(template, {"name": shown_name(block.name), "score": value, "explanation": explanation})


_PLACES: Final = ("name", "score", "explanation")


def _reason(score: Score, samples: _Samples, sample: int) -> str:
    earlier = [max(scores) for number, scores in sorted(samples.scores.items()) if number < sample]
    before = f" (earlier answers: {', '.join(f'{value:g}' for value in earlier)})" if earlier else ""
    return f"score {score.value:g}{before}: {score.explanation}"


def _escalation(question: object, unanswered: object, timeout: float | None) -> Escalate:
    """Return what a person is asked, as a template. Raises `ValueError`."""
    text = template_of("question", checked_text(question, "question"), known=_PLACES)
    allows = checked_choice(unanswered, "unanswered", ("deny", "allow")) == "allow"
    return Escalate(text, default="allow" if allows else "deny", timeout=timeout)


def _checked_thresholds(thresholds: object) -> dict[str, float]:
    """Return the thresholds from the mildest measure to the strictest. Raises `ValueError`."""
    if not isinstance(thresholds, Mapping) or not thresholds:
        msg = f"thresholds must map {', '.join(_MEASURES)} to scores, at least one of them, not {thresholds!r}"
        raise ValueError(msg)
    for name in thresholds:
        checked_choice(name, "a threshold", tuple(_MEASURES))
    found = {
        name: checked_number(thresholds[name], f"thresholds.{name}", low=0, high=1) for name in _MEASURES if name in thresholds
    }
    names = [*found]
    for milder, stricter in itertools.pairwise(names):
        if found[milder] >= found[stricter]:
            msg = f"the threshold {stricter} must be higher than {milder}, or {milder} would never apply"
            raise ValueError(msg)
    return found
