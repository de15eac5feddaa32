"""Blocks that a policy rewrites as they flow.

Where the policy fails and its errors pass, the block goes on as the provider writes it, with what the policy had kept back, as
far as that can be told: text that it had neither changed nor let out, or what its own `on_block_end` still gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterable, Sequence
from types import NoneType
from typing import Any

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunk_edits import annotations_apart, with_text, without_logprobs, without_side_data
from luthien_asgi.chunks import Chunk, Part, delta_field, finish_reason_of, has_logprobs, read_part
from luthien_asgi.errors import PolicyError
from luthien_asgi.halves import ends_in_half, holds_half, joined
from luthien_asgi.lanes import Lane
from luthien_asgi.pipeline import Step
from luthien_asgi.plans import Hook, PolicyPlan
from luthien_asgi.runs import Run
from luthien_asgi.step_hooks import StepHooks, part_of
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
        elif delta_field(chunk, "annotations"):
            text, annotations = annotations_apart(chunk)
            return [
                *await self.rewritten(lane, text, read_part(text)),
                *await self.rewritten(lane, annotations, read_part(annotations)),
            ]
        elif (whole := self._whole(lane, chunk, part)) is not chunk:
            chunk, part = whole, read_part(whole)
            if not part.text:
                return []
        return await self._asked(plan, plan.on_chunk_added, lane, chunk, part)

    async def _asked(self, plan: PolicyPlan, hook: Hook, lane: Lane, chunk: Chunk, part: Part) -> list[Chunk]:
        try:
            begun = self._hooks.begin(plan, hook, chunk, lane.contexts[id(plan)])
        except PolicyError as error:
            return await self._failed(plan, hook, lane, chunk, error)
        lane.plain = not inspect.isawaitable(begun)
        return await self._finished(plan, hook, lane, chunk, part, begun)

    async def finished(self, lane: Lane, chunk: Chunk, part: Part, begun: Awaitable[Any]) -> list[Chunk]:
        """Return what goes on instead of a chunk, whose hook `take_plain` has begun."""
        plan = self._step.members[0]
        hook = plan.on_chunk_added
        assert hook is not None  # noqa: S101 - it has begun
        lane.plain = False
        return await self._finished(plan, hook, lane, chunk, part, begun)

    async def _finished(self, plan: PolicyPlan, hook: Hook, lane: Lane, chunk: Chunk, part: Part, begun: Any) -> list[Chunk]:  # noqa: ANN401 - what the hook returned
        before = lane.changed or bool(lane.behind)
        try:
            result = await self._hooks.finish(plan, hook, begun)
            goes_on = [chunk] if result is None else self._checked_parts(plan, hook, lane, result)
        except PolicyError as error:
            return await self._failed(plan, hook, lane, chunk, error)
        text = "".join([read_part(new).text for new in goes_on])
        if text != part.text or (text and before):
            # What comes with a fragment speaks of it as it was cut.
            goes_on = [without_side_data(new) for new in goes_on]
        self._note_sent(lane, part.text, text)
        return goes_on

    async def _failed(self, plan: PolicyPlan, hook: Hook, lane: Lane, chunk: Chunk, error: PolicyError) -> list[Chunk]:
        self._hooks.require_tolerance(plan, hook, lane, error)
        if not lane.changed:
            lane.behind.add(read_part(chunk).text)
        return await self._recovered(plan, lane, chunk)

    def _whole(self, lane: Lane, chunk: Chunk, part: Part) -> Chunk:
        """Return a chunk with whole characters, and without what the policy could not judge."""
        if has_logprobs(chunk):
            self._terms.log.note("left out, because the policy could not judge it: logprobs")
            chunk = without_logprobs(chunk)
        if not lane.half and not ends_in_half(part.text):
            return chunk
        text, lane.half = joined((lane.half, part.text)), ""
        if ends_in_half(text):
            text, lane.half = text[:-1], text[-1]
        return with_text(chunk, text)

    @staticmethod
    def _note_sent(lane: Lane, came: str, sent: str) -> None:
        if lane.changed:
            return
        lane.behind.add(came)
        if not lane.behind.take(sent):
            lane.changed = True
            lane.behind.clear()

    def is_strict(self, lane: Lane) -> bool:
        """Tell whether a failure of the lane's policy ends the answer: then nothing has to be made good."""
        plan = self._step.transformer(lane.block.kind)
        return plan is not None and plan.on_chunk_added is not None and not (plan.passes_errors or self._terms.shadow)

    def can_take(self, lane: Lane, text: str) -> bool:
        """Tell whether `take_plain` can take a fragment of a lane: one of whole characters, by a hook that needs no waiting."""
        return lane.plain and not lane.half and not lane.unchecked and not ends_in_half(text)

    def take_plain(self, lane: Lane, chunk: Chunk, text: str) -> list[Chunk] | Awaitable[Any]:
        """Return what goes on instead of a chunk that is plain text, or what `finished` has to wait for. Raises `PolicyError`."""
        plan = self._step.members[0]
        hook = plan.on_chunk_added
        assert hook is not None  # noqa: S101 - it was called for this lane before
        try:
            result = self._hooks.begin(plan, hook, chunk, lane.contexts[id(plan)])
            if result is None and not lane.behind:
                return [chunk]
            if not isinstance(result, list | tuple | NoneType) and inspect.isawaitable(result):
                return result
            goes_on = [chunk] if result is None else self._checked_parts(plan, hook, lane, result)
        except PolicyError as error:
            self._hooks.require_tolerance(plan, hook, lane, error)
            raise
        self._note_sent(lane, text, "".join([read_part(new).text for new in goes_on]))
        return goes_on

    def can_take_run(self, lane: Lane) -> bool:
        """Tell whether `take_run` can take fragments of a lane."""
        return self._step.members[0].on_run_added is not None and not lane.unchecked

    def take_run(self, lane: Lane, run: Run) -> Run:
        """Return what goes on instead of a run, perhaps an empty one. Raises `PolicyError`."""
        plan = self._step.members[0]
        hook = plan.on_run_added
        assert hook is not None  # noqa: S101 - `can_take_run` was true
        if lane.half or holds_half("".join(run.texts)):
            run = run.with_texts(self._whole_texts(lane, run.texts))
            if not run.texts:
                return run
        try:
            result = self._hooks.begin(plan, hook, run, lane.contexts[id(plan)])
            if result is None and not lane.behind:
                return run
            texts = run.texts if result is None else self._checked_texts(plan, result)
        except PolicyError as error:
            self._hooks.require_tolerance(plan, hook, lane, error)
            raise
        self._note_sent(lane, "".join(run.texts), "".join(texts))
        return run.with_texts(texts)

    @staticmethod
    def _whole_texts(lane: Lane, texts: Iterable[str]) -> list[str]:
        """Return texts with whole characters; the first half of one waits for the next text."""
        whole = []
        for text in texts:
            new, lane.half = joined((lane.half, text)), ""
            if ends_in_half(new):
                new, lane.half = new[:-1], new[-1]
            if new:
                whole.append(new)
        return whole

    async def rest(self, lane: Lane, block: Block) -> list[Chunk]:
        """Return what the policy had kept back of a block that ends."""
        plan = self._step.transformer(lane.block.kind)
        if plan is None:
            return []
        kept: list[Chunk] = []
        if lane.half and plan.on_chunk_added is not None and id(plan) not in lane.unchecked:
            half = self._terms.make.fragment(lane.block, lane.half)
            kept = await self._asked(plan, plan.on_chunk_added, lane, half, read_part(half))
        if plan.on_block_end is not None and id(plan) not in lane.unchecked:
            try:
                result = await self._hooks.call(plan, plan.on_block_end, block, lane.contexts[id(plan)])
                rest = self._checked_parts(plan, plan.on_block_end, lane, result) if result is not None else []
                self._note_sent(lane, "", "".join([read_part(new).text for new in rest]))
                kept += rest
            except PolicyError as error:
                self._hooks.require_tolerance(plan, plan.on_block_end, lane, error)
                kept += self._unsent(lane)
        if lane.changed or lane.behind:
            self._hooks.note_change(plan, lane)
        return kept

    async def _recovered(self, plan: PolicyPlan, lane: Lane, chunk: Chunk) -> list[Chunk]:
        if unsent := self._unsent(lane):
            return unsent
        if plan.on_block_end is not None and lane.changed:
            try:
                kept = await self._hooks.call(plan, plan.on_block_end, lane.block.block(), lane.contexts[id(plan)])
                return [*self._checked_parts(plan, plan.on_block_end, lane, kept or ()), chunk]
            except PolicyError:
                self._terms.log.note(f"what the policy {plan.name} kept back of a block when it failed may be lost")
        return [chunk]

    def _unsent(self, lane: Lane) -> list[Chunk]:
        """Return the text that the policy had neither changed nor let out when it failed."""
        rest = lane.behind.clear()
        return [self._terms.make.fragment(lane.block, rest)] if rest and not lane.changed else []

    def _checked_texts(self, plan: PolicyPlan, texts: Sequence[str]) -> Sequence[str]:
        """Return a hook's texts without empty ones, or raise `PolicyError` where they are something else, or too many."""
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            msg = f"The policy {plan.name} returned something else than texts from on_run_added."
            raise PolicyError(msg)
        if len(texts) > self._terms.hooks.items:
            msg = f"The policy {plan.name} returned {len(texts)} texts from on_run_added (hook_items)."
            raise PolicyError(msg)
        return [text for text in texts if text]

    def _checked_parts(self, plan: PolicyPlan, hook: Hook, lane: Lane, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Return a hook's chunks as parts of their block, or raise `PolicyError` when one is something else."""
        checked = self._hooks.chunks(plan, hook, chunks)
        for chunk in checked:
            part = part_of(plan, chunk)
            if part.kind not in {None, lane.block.kind} or part.choice != lane.block.choice or not chunk.choices:
                msg = f"The policy {plan.name} put something else than its {lane.block.kind} into a block."
                raise PolicyError(msg)
            if finish_reason_of(chunk) is not None or _is_of_another_call(part, lane):
                msg = f"The policy {plan.name} put a finish reason, or more of another call, into a block."
                raise PolicyError(msg)
        return checked


def _is_of_another_call(part: Part, lane: Lane) -> bool:
    return part.kind is BlockKind.TOOL_CALL and part.source is not None and part.source != lane.block.source
