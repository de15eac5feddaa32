"""What the policies say to a request, before the backend is called or beside that call.

Strategy: the same tree of policies as for blocks. Each policy sees the request as the one before let it out; those together see
the same one. A policy in shadow gets a copy at its place, and nobody waits for it. What runs beside the backend can only deny.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luthien_asgi.context import PolicyContext
from luthien_asgi.errors import ApiError, PolicyError, PolicyTimeout, RequestDenied
from luthien_asgi.hooks import HookCaller
from luthien_asgi.pipeline import InTurn, Node, Pipeline, Step
from luthien_asgi.plans import Hook, PolicyPlan
from luthien_asgi.policy import Deny
from luthien_asgi.recorder import Transaction, VerdictRecord
from luthien_asgi.replacements import check_texts
from luthien_asgi.request import ChatRequest
from luthien_asgi.shadow import Shadows

__all__ = ["RequestJudge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestJudge:
    """Asks `on_request`. With no `log` nothing is recorded."""

    pipeline: Pipeline
    hooks: HookCaller
    ctx: PolicyContext
    log: Transaction | None
    shadows: Shadows | None = None

    @property
    def has_concurrent(self) -> bool:
        """Whether a policy speaks beside the call of the backend."""
        return any(plan.charge.concurrent for plan in self.pipeline.in_charge)

    async def before(self, *, everybody: bool = False) -> ChatRequest:
        """Return the request as the policies want it sent. Raises `RequestDenied`, and `PolicyError` when one fails.

        `everybody`: those too that are to run beside the backend, because it is not called.
        """
        request = self.ctx.request
        for step in self.pipeline.steps:
            self._show(step, request)
            request = await self._ask(step.node, request, concurrent=None if everybody else False)
        return request

    async def beside(self) -> None:
        """Let those speak that run beside the call of the backend. Raises `RequestDenied` and `PolicyError`."""
        request = self.ctx.request
        for step in self.pipeline.steps:
            if await self._ask(step.node, request, concurrent=True) is not request:
                msg = "A policy changed a request that was sent already: one that is concurrent can only deny it."
                raise PolicyError(msg)

    async def _ask(self, node: Node, request: ChatRequest, *, concurrent: bool | None) -> ChatRequest:
        if isinstance(node, PolicyPlan):
            skipped = concurrent is not None and node.charge.concurrent is not concurrent
            return request if node.on_request is None or skipped else await self._ask_one(node, node.on_request, request)
        if isinstance(node, InTurn):
            for each in node.nodes:
                request = await self._ask(each, request, concurrent=concurrent)
            return request
        return await self._ask_at_once(node.nodes, request, concurrent=concurrent)

    async def _ask_at_once(self, nodes: Sequence[Node], request: ChatRequest, *, concurrent: bool | None) -> ChatRequest:
        """Ask all; the first of the list that refuses is heard, however fast the others are."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._ask(each, request, concurrent=concurrent)) for each in nodes]
        try:
            said = [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        changed = [each for each in said if each is not request]
        if len(changed) > 1:
            msg = "Two policies changed the request at the same time: put them into a Chain."
            raise PolicyError(msg)
        return changed[0] if changed else request

    async def _ask_one(self, plan: PolicyPlan, hook: Hook, request: ChatRequest) -> ChatRequest:
        began = time.monotonic()
        try:
            said = await self.hooks.call(plan, hook, request, self._view(plan, request))
            _check_said(plan, said)
        except ApiError as error:
            if not (plan.passes_errors and isinstance(error, PolicyError)):
                self._note(plan, _failure(error), "fail", error.message, began)
                raise
            self._note(plan, _failure(error), "allow", error.message, began)
            if self.log is not None:
                self.log.let_through(plan.name)
            return request
        if isinstance(said, Deny):
            self._note(plan, "deny", "deny", said.reason, began)
            raise RequestDenied(said.message)
        verdict = "replace" if said is not None and said is not request else "allow"
        self._note(plan, verdict, verdict, "", began)
        return said if said is not None else request

    def _view(self, plan: PolicyPlan, request: ChatRequest) -> PolicyContext:
        return replace(self.ctx, request=request, _owner=plan.owner)

    def _show(self, step: Step, request: ChatRequest) -> None:
        if self.shadows is None:
            return
        for shadow in step.shadows:
            for plan in shadow.members:
                if plan.on_request is not None:
                    self.shadows.start(self._ask_in_shadow(plan, plan.on_request, request))

    async def _ask_in_shadow(self, plan: PolicyPlan, hook: Hook, request: ChatRequest) -> None:
        began = time.monotonic()
        try:
            said = await self.hooks.call(plan, hook, request, self._view(plan, request))
            _check_said(plan, said)
        except ApiError as error:
            self._note(plan, _failure(error), "allow", error.message, began, mode="shadow")
            return
        verdict = "deny" if isinstance(said, Deny) else "replace" if said is not None and said is not request else "allow"
        reason = said.reason if isinstance(said, Deny) else ""
        self._note(plan, verdict, "allow", reason, began, mode="shadow")

    def _note(self, plan: PolicyPlan, verdict: str, action: str, reason: str, began: float, *, mode: str = "enforce") -> None:
        if self.log is None:
            return
        self.log.verdicts.append(
            VerdictRecord(
                policy=plan.name,
                hook="on_request",
                verdict=verdict,
                action=action,
                mode=mode,
                reason=reason,
                seconds=round(time.monotonic() - began, 6),
            )
        )


def _check_said(plan: PolicyPlan, said: object) -> None:
    if said is not None and not isinstance(said, Deny | ChatRequest):
        msg = f"The policy {plan.name} returned {type(said).__name__} from on_request, not a request."
        raise PolicyError(msg)
    if isinstance(said, Deny):
        check_texts(plan, said)


def _failure(error: ApiError) -> str:
    return "timeout" if isinstance(error, PolicyTimeout) else "error"
