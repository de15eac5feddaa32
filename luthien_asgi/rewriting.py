"""Blocks that a policy rewrites as they flow.

Where the policy fails and its errors pass, the block goes on as the provider writes it, with what the policy had kept back, as
far as that can be told: text that it had neither changed nor let out, or what its own `on_block_end` still gives.
"""

from __future__ import annotations

from collections.abc import Iterable

from luthien_asgi.blocks import Block
from luthien_asgi.chunk_edits import without_side_data
from luthien_asgi.chunks import Chunk, Part, finish_reason_of, read_part
from luthien_asgi.errors import PolicyError
from luthien_asgi.lanes import Lane
from luthien_asgi.pipeline import Step
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.step_hooks import StepHooks, checked_chunks
from luthien_asgi.terms import Terms

__all__ = ["Rewriter"]


class Rewriter:
    """Calls the hooks of a step's rewriting policy."""

    def __init__(self, step: Step, hooks: StepHooks, terms: Terms) -> None:
        self._step = step
        self._hooks = hooks
        self._terms = terms

    async def rewritten(self, lane: Lane, chunk: Chunk, part: Part) -> list[Chunk]:
        """Return what goes on instead of a chunk. Raises `PolicyError`."""
        plan = self._step.transformer(lane.block.kind)
        if plan is None or plan.on_chunk_added is None or id(plan) in lane.unchecked:
            return [chunk]
        if not part.text:
            if part.phase != "delta" or part.id or part.name:
                return [chunk]
            if lane.changed:
                # Citations of a text that was changed point nowhere.
                return []
        try:
            result = await self._hooks.call(plan, plan.on_chunk_added, chunk, lane.contexts[id(plan)])
            goes_on = [chunk] if result is None else _checked_parts(plan, lane, result)
        except PolicyError as error:
            self._hooks.require_tolerance(plan, plan.on_chunk_added, lane, error)
            return await self._recovered(plan, lane, chunk)
        texts = [read_part(new).text for new in goes_on]
        if plan.passes_errors:
            lane.let_out += texts
        if "".join(texts) != part.text:
            lane.changed = True
            goes_on = [without_side_data(new) for new in goes_on]
        return goes_on

    async def rest(self, lane: Lane, block: Block) -> list[Chunk]:
        """Return what the policy had kept back of a block that ends."""
        plan = self._step.transformer(lane.block.kind)
        if plan is None:
            return []
        kept: list[Chunk] = []
        if plan.on_block_end is not None and id(plan) not in lane.unchecked:
            try:
                result = await self._hooks.call(plan, plan.on_block_end, block, lane.contexts[id(plan)])
                kept = _checked_parts(plan, lane, result) if result is not None else []
            except PolicyError as error:
                self._hooks.require_tolerance(plan, plan.on_block_end, lane, error)
                kept = self._unsent(lane)
        if lane.changed:
            self._hooks.note_change(plan, lane)
        return kept

    async def _recovered(self, plan: PolicyPlan, lane: Lane, chunk: Chunk) -> list[Chunk]:
        if unsent := self._unsent(lane):
            return unsent
        before = "".join(lane.block.fragments[:-1])
        if plan.on_block_end is not None and "".join(lane.let_out) != before:
            try:
                kept = await self._hooks.call(plan, plan.on_block_end, lane.block.block(), lane.contexts[id(plan)])
                return [*_checked_parts(plan, lane, kept or ()), chunk]
            except PolicyError:
                self._terms.log.note(f"what the policy {plan.name} kept back of a block when it failed may be lost")
        return [chunk]

    def _unsent(self, lane: Lane) -> list[Chunk]:
        """Return the text that the policy had neither changed nor let out when it failed."""
        text, out = "".join(lane.block.fragments), "".join(lane.let_out)
        rest = text.removeprefix(out) if text.startswith(out) else ""
        return [self._terms.make.fragment(lane.block, rest)] if rest else []


def _checked_parts(plan: PolicyPlan, lane: Lane, chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return a hook's chunks as parts of their block, or raise `PolicyError` when one is something else."""
    checked = checked_chunks(plan, chunks)
    for chunk in checked:
        kind = read_part(chunk).kind
        if kind not in {None, lane.block.kind} or not chunk.choices or finish_reason_of(chunk) is not None:
            msg = f"The policy {plan.name} put something else than its {lane.block.kind} into a block."
            raise PolicyError(msg)
    return checked
