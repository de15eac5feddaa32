"""Asks the policy about one block, and settles what is done: the verdict and the enforced action are two things."""

from __future__ import annotations

import time
from dataclasses import dataclass

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.errors import ApiError, PolicyError, PolicyTimeout
from luthien_asgi.hooks import HookCaller, PolicyPlan
from luthien_asgi.policy import Allow, Deny, Hold, Replace, Stop, Verdict
from luthien_asgi.recorder import Transaction, VerdictRecord

__all__ = ["Judge", "Judgement"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is done about a block, or why the answer cannot go on."""

    action: Verdict
    error: ApiError | None = None


_ALLOWED = Judgement(Allow())


class Judge:
    """Calls `on_block_complete` and records what it said."""

    def __init__(self, plan: PolicyPlan, hooks: HookCaller, log: Transaction) -> None:
        self._plan = plan
        self._hooks = hooks
        self._log = log

    async def judge(self, block: Block, ctx: StreamContext) -> Judgement:
        """Return what is done about a block. Never raises but for cancellation: an error is part of the judgement."""
        hook = self._plan.on_block_complete
        if hook is None:
            return _ALLOWED
        began = time.monotonic()
        try:
            verdict = self._checked(block, await self._hooks.call(self._plan.name, hook, block, ctx))
        except ApiError as error:
            judgement = self._failed(block, error)
            said = "timeout" if isinstance(error, PolicyTimeout) else "error"
            self._record(block, said, judgement, error.message, time.monotonic() - began)
            return judgement
        judgement = Judgement(self._enforced(block, verdict))
        self._record(block, type(verdict).__name__.lower(), judgement, verdict.reason, time.monotonic() - began)
        return judgement

    def _checked(self, block: Block, verdict: object) -> Verdict:
        if verdict is None:
            return Allow()
        if not isinstance(verdict, Allow | Replace | Deny | Stop):
            msg = f"The policy {self._plan.name} returned {type(verdict).__name__} from on_block_complete, not a verdict."
            raise PolicyError(msg)
        if isinstance(verdict, Replace):
            self._check_replacement(block, verdict)
        return verdict

    def _check_replacement(self, block: Block, verdict: Replace) -> None:
        if not isinstance(self._plan.handles.get(block.kind), Hold):
            msg = f"The policy {self._plan.name} replaced a {block.kind} block that it does not hold."
            raise PolicyError(msg)
        for new in verdict.blocks:
            writable = new.kind in {BlockKind.TEXT, BlockKind.TOOL_CALL, BlockKind.REFUSAL}
            if not writable:
                msg = f"The policy {self._plan.name} replaced a block by one of a kind that only a provider writes."
                raise PolicyError(msg)
            if new.kind is BlockKind.TOOL_CALL and not _is_whole_call(new):
                msg = f"The policy {self._plan.name} replaced a block by a tool call that has no name or no JSON object."
                raise PolicyError(msg)

    def _enforced(self, block: Block, verdict: Verdict) -> Verdict:
        """A block that is not held has left already: denying it means to stop here."""
        if isinstance(verdict, Deny) and not isinstance(self._plan.handles.get(block.kind), Hold):
            return Stop(verdict.message, verdict.reason)
        return verdict

    def _failed(self, block: Block, error: ApiError) -> Judgement:
        """A judge of a held tool call that fails blocks that call and the conversation goes on; anything else ends the answer."""
        held = isinstance(self._plan.handles.get(block.kind), Hold)
        if block.kind is BlockKind.TOOL_CALL and held and not isinstance(error, PolicyTimeout):
            return Judgement(Deny(f"The call of {block.name} was blocked: the policy {self._plan.name} could not check it."))
        return Judgement(Stop(""), error)

    def _record(self, block: Block, said: str, judgement: Judgement, reason: str, seconds: float) -> None:
        action = "fail" if judgement.error is not None else type(judgement.action).__name__.lower()
        self._log.verdicts.append(
            VerdictRecord(
                policy=self._plan.name,
                hook="on_block_complete",
                verdict=said,
                action=action,
                reason=reason,
                kind=str(block.kind),
                choice=block.choice,
                index=block.index,
                tool=block.name,
                seconds=round(seconds, 6),
            )
        )


def _is_whole_call(block: Block) -> bool:
    """Tell whether a call that a policy wrote is one that a client can run."""
    if not block.name:
        return False
    if block.custom or not block.text:
        return True
    try:
        return isinstance(jsontext.loads(block.text), dict)
    except ValueError:
        return False
