"""Asks a person about a block that a policy escalated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthien_asgi.blocks import Block
from luthien_asgi.context import PolicyContext
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.verdicts import Escalate

if TYPE_CHECKING:
    from luthien_asgi.approvals import Approvals

__all__ = ["DeskPerson"]


@dataclass(frozen=True, slots=True)
class DeskPerson:
    """Whoever answers at the desk, for one transaction."""

    desk: Approvals
    ctx: PolicyContext

    async def decide(self, plan: PolicyPlan, question: Escalate, block: Block) -> tuple[bool, str]:
        """Return whether the block may go on, and who said so and why."""
        approval = self.desk.draft(
            transaction_id=self.ctx.transaction_id,
            policy=plan.name,
            question=question.question,
            block=block,
            client=self.ctx.client,
            model=self.ctx.request.model,
            default=question.default,
            timeout=question.timeout,
        )
        decision = await self.desk.decide(approval)
        return decision.allowed, f"{decision.by}: {decision.reason}" if decision.reason else decision.by
