"""Asks the policies of a step about one block, and settles what is done: the verdict and the enforced action are two things.

Strategy: the tree of policies is walked. Those in turn hear each other's replacements; those at once run beside each other, and
`judgements` finds the verdict that overrules the others. A person is asked when nothing overrules that.
Records are written at the end, when it is known what was done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.errors import ApiError, PolicyError, PolicyTimeout
from luthien_asgi.flag import Flag
from luthien_asgi.hooks import HookCaller
from luthien_asgi.judgements import ALLOWED, Judgement, brought_together, heard_at_once, strongest_of, warnings_of
from luthien_asgi.names import shown_name
from luthien_asgi.pipeline import AtOnce, InTurn, Node, Step
from luthien_asgi.plans import Hook, PolicyPlan
from luthien_asgi.policy import Hold
from luthien_asgi.recorder import Transaction, VerdictRecord
from luthien_asgi.replacements import check_replacement, check_texts
from luthien_asgi.verdicts import Allow, Defer, Deny, Escalate, Replace, Resample, Stop, Verdict, rank_of

__all__ = ["Contexts", "Judge", "Person", "Redraws"]

Contexts = Mapping[int, StreamContext]
"""The contexts of a step's policies, by the `id` of their plans."""


class Person(Protocol):
    """Whoever is asked when a policy escalates."""

    async def decide(self, plan: PolicyPlan, question: Escalate, block: Block) -> tuple[bool, str]:
        """Return whether the block may go on, and who said so and why."""
        ...


class Redraws(Protocol):
    """Counts the answers that were dropped."""

    def may(self, plan: PolicyPlan, verdict: Resample | Defer) -> bool:
        """Tell whether another answer may be asked for because of this verdict."""
        ...


@dataclass(slots=True)
class _Said:
    """What one policy said; `action` is known when all have spoken."""

    plan: PolicyPlan
    hook: str
    verdict: str
    reason: str
    seconds: float
    action: str = ""


@dataclass(slots=True, kw_only=True)
class Judge:
    """Asks `on_block_complete` and records what was said and done."""

    step: Step
    hooks: HookCaller
    log: Transaction
    person: Person | None = None
    redraws: Redraws | None = None
    sample: int = 0
    shadow: bool = False
    """Nothing is done about what is said: it is recorded, and the block goes on."""

    async def judge(self, block: Block, contexts: Contexts, *, read: Flag | None = None) -> Judgement:
        """Return what is done about a block. Never raises but for cancellation: an error is part of the judgement.

        `read` is set when the answer was read to its end, of a block that is judged meanwhile: whether another one may be asked
        for depends on what has left by then, and not on what had left when the judge spoke.
        """
        inquiry = _Inquiry(self, contexts)
        found = await inquiry.resolved(await inquiry.ask(self.step.node, block), block)
        if read is not None and isinstance(found.action, Resample | Defer) and not self.shadow:
            await self._until(read, block, inquiry)
        judgement = self._enforced(block, found)
        if isinstance(judgement.action, Allow | Replace):
            for name in inquiry.passed:
                self.log.let_through(name)
        done = "fail" if judgement.error is not None else type(judgement.action).__name__.lower()
        for said in inquiry.said:
            self._record(block, said, said.action or done)
        return judgement

    async def _until(self, read: Flag, block: Block, inquiry: _Inquiry) -> None:
        try:
            await read.wait()
        except asyncio.CancelledError:
            for said in inquiry.said:
                self._record(block, said, "fail")
            raise

    def _enforced(self, block: Block, judgement: Judgement) -> Judgement:
        """Return what is done about a verdict: one that cannot be carried out becomes the next stricter one that can."""
        if self.shadow:
            return ALLOWED
        action, plan = judgement.action, judgement.plan
        if judgement.error is None and isinstance(action, Resample | Defer):
            if self.redraws is not None and plan is not None and self.redraws.may(plan, action):
                return judgement
            action = Deny(action.message, action.reason)
        # A block that is not held has left already: denying it means to stop here.
        held = isinstance(self.step.handles.get(block.kind), Hold)
        if isinstance(action, Deny) and not held:
            action = Stop(action.message, action.reason)
        # What did not go on was not let through.
        return replace(judgement, action=action, warnings=judgement.warnings if isinstance(action, Allow | Replace) else ())

    def note_change(self, plan: PolicyPlan, block: Block) -> None:
        """Record that a policy rewrote a block as it flowed."""
        done = "allow" if self.shadow else "replace"
        self._record(block, _Said(plan, "on_chunk_added", "replace", "", 0.0), done)

    def note_failure(self, plan: PolicyPlan, hook: Hook, block: Block | None, error: PolicyError) -> None:
        """Record that a hook failed which gives no verdict."""
        passes = plan.passes_errors or self.shadow
        if plan.passes_errors and not self.shadow:
            self.log.let_through(plan.name)
        said = "timeout" if isinstance(error, PolicyTimeout) else "error"
        about = block if block is not None else Block(kind=BlockKind.OTHER)
        self._record(about, _Said(plan, hook.__name__, said, error.message, 0.0), "allow" if passes else "fail")

    def _record(self, block: Block, said: _Said, done: str) -> None:
        self.log.verdicts.append(
            VerdictRecord(
                policy=said.plan.name,
                hook=said.hook,
                verdict=said.verdict,
                action=done,
                mode="shadow" if self.shadow else "enforce",
                reason=said.reason,
                kind=str(block.kind),
                choice=block.choice,
                index=block.index,
                tool=block.name,
                seconds=round(said.seconds, 6),
                sample=self.sample,
            )
        )


@dataclass(slots=True)
class _Inquiry:
    """One block's way through the tree of policies."""

    judge: Judge
    contexts: Contexts
    said: list[_Said] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    """Policies that failed and whose errors pass."""

    async def ask(self, node: Node, block: Block) -> Judgement:
        if isinstance(node, PolicyPlan):
            return await self._ask_one(node, block)
        if isinstance(node, InTurn):
            return await self._ask_in_turn(node.nodes, block)
        return await self._ask_at_once(node, block)

    async def resolved(self, judgement: Judgement, block: Block) -> Judgement:
        """Return a judgement in which nobody has to be asked any more."""
        while judgement.error is None and isinstance(judgement.action, Escalate) and not self.judge.shadow:
            judgement = await self._escalated(judgement, judgement.action, block)
        return judgement

    # --- one policy ---------------------------------------------------------------------------------------------------

    async def _ask_one(self, plan: PolicyPlan, block: Block) -> Judgement:
        hook = plan.on_block_complete
        if hook is None or block.kind not in plan.handles:
            return ALLOWED
        began = time.monotonic()
        try:
            said = await self.judge.hooks.call(plan, hook, block, self.contexts[id(plan)])
            if isinstance(said, Replace):
                said = replace(said, blocks=self.judge.hooks.drawn(plan, hook, said.blocks))
            verdict = _checked(plan, block, said)
        except ApiError as error:
            said = "timeout" if isinstance(error, PolicyTimeout) else "error"
            self.said.append(_Said(plan, hook.__name__, said, error.message, time.monotonic() - began))
            return self._failed(plan, block, error)
        except asyncio.CancelledError:
            self.said.append(_Said(plan, hook.__name__, "cancelled", "", time.monotonic() - began))
            raise
        self.said.append(_Said(plan, hook.__name__, type(verdict).__name__.lower(), verdict.reason, time.monotonic() - began))
        return Judgement(verdict, plan=plan)

    def _failed(self, plan: PolicyPlan, block: Block, error: ApiError) -> Judgement:
        """A judge of a held tool call that fails blocks that call and the conversation goes on; anything else ends the answer."""
        is_call = block.kind is BlockKind.TOOL_CALL
        if plan.passes_errors and not self.judge.shadow:
            self.passed.append(plan.name)
            warning = f"[The policy {plan.name} could not check the call of {shown_name(block.name)}: it was let through.]"
            return Judgement(Allow(), warnings=(warning,) if is_call else (), plan=plan)
        if is_call and isinstance(plan.handles.get(block.kind), Hold) and not isinstance(error, PolicyTimeout):
            message = f"The call of {shown_name(block.name)} was blocked: the policy {plan.name} could not check it."
            return Judgement(Deny(message), plan=plan, failed=True)
        return Judgement(Stop(""), error, plan=plan, failed=True)

    async def _escalated(self, judgement: Judgement, question: Escalate, block: Block) -> Judgement:
        plan, person = judgement.plan, self.judge.person
        if plan is None or person is None:
            return replace(judgement, action=Deny(question.message, question.reason))
        began = time.monotonic()
        allowed, reason = await person.decide(plan, question, block)
        verdict = "allow" if allowed else "deny"
        self.said.append(_Said(plan, "approval", verdict, reason, time.monotonic() - began))
        if not allowed:
            return replace(judgement, action=Deny(question.message, question.reason))
        rest = judgement.otherwise or Judgement(Allow(), plan=plan)
        return replace(rest, warnings=judgement.warnings + rest.warnings)

    # --- several ------------------------------------------------------------------------------------------------------

    async def _ask_in_turn(self, nodes: Sequence[Node], block: Block) -> Judgement:
        """Ask one after the other; what one replaces is what the next one sees."""
        blocks, last = [block], ALLOWED
        warnings: tuple[str, ...] = ()
        for node in nodes:
            heard = [await self.resolved(await self.ask(node, each), each) for each in blocks]
            warnings = (*warnings, *warnings_of(heard))
            # Equal verdicts: the first block's is heard.
            worst = max(heard, key=lambda each: each.rank, default=ALLOWED)
            if worst.rank > rank_of(Replace):
                return replace(worst, warnings=warnings)
            if worst.rank == rank_of(Replace):
                blocks = [new for old, each in zip(blocks, heard, strict=True) for new in _replaced(old, each)]
                last = replace(worst, action=Replace(blocks, worst.action.reason))
        return replace(last, warnings=warnings)

    async def _ask_at_once(self, node: AtOnce, block: Block) -> Judgement:
        """Ask all; what is done about the block is the same however fast each one is."""
        tasks = [asyncio.create_task(self.ask(each, block)) for each in node.nodes]  # noqa: TID251 - awaited below, whatever happens
        try:
            heard = await heard_at_once(tasks, [strongest_of(each, block.kind) for each in node.nodes])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return brought_together(heard)


def _replaced(block: Block, judgement: Judgement) -> Sequence[Block]:
    return judgement.action.blocks if isinstance(judgement.action, Replace) else [block]


def _checked(plan: PolicyPlan, block: Block, verdict: object) -> Verdict:
    if verdict is None:
        return Allow()
    if not isinstance(verdict, Verdict):
        msg = f"The policy {plan.name} returned {type(verdict).__name__} from on_block_complete, not a verdict."
        raise PolicyError(msg)
    if type(verdict) not in plan.verdicts:
        msg = f"The policy {plan.name} returned {type(verdict).__name__}, which its `verdicts` do not name."
        raise PolicyError(msg)
    check_texts(plan, verdict)
    if isinstance(verdict, Replace):
        check_replacement(plan, block, verdict)
    return verdict
