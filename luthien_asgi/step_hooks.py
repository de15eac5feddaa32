"""The hooks of a step's policies, save those that judge: called, checked, and forgiven where errors pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunk_edits import detached
from luthien_asgi.chunks import Chunk, Part, read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.errors import ApiError, PolicyError
from luthien_asgi.hooks import keepalive
from luthien_asgi.judging import Contexts, Judge
from luthien_asgi.lanes import Lane
from luthien_asgi.pipeline import Step
from luthien_asgi.plans import Hook, PolicyPlan
from luthien_asgi.terms import Terms

__all__ = ["StepHooks", "part_of"]


class StepHooks:
    """Calls hooks for one step of one answer."""

    def __init__(self, step: Step, terms: Terms, judge: Judge) -> None:
        self._step = step
        self._terms = terms
        self._judge = judge

    def contexts(self, text: Callable[[str], Chunk]) -> Contexts:
        """Return the contexts of the step's policies; `text` makes the chunks that they may add."""
        ctx = self._terms.ctx
        return {id(plan): StreamContext.of(ctx, keepalive=keepalive, text=text, owner=plan.owner) for plan in self._step.members}

    async def call(self, plan: PolicyPlan, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a hook returns. Raises `PolicyError`, also for another `ApiError` that the hook raised."""
        try:
            return await self._terms.hooks.call(plan, hook, *args)
        except ApiError as error:
            raise _as_policy_error(error) from error

    def begin(self, plan: PolicyPlan, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Call a hook; what it returns may have to be waited for with `finish`. Raises `PolicyError`."""
        try:
            return self._terms.hooks.begin(plan, hook, *args)
        except ApiError as error:
            raise _as_policy_error(error) from error

    async def finish(self, plan: PolicyPlan, hook: Hook, result: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a hook returned in the end. Raises `PolicyError`."""
        try:
            return await self._terms.hooks.finish(plan, hook, result)
        except ApiError as error:
            raise _as_policy_error(error) from error

    async def watch(self, plan: PolicyPlan, chunk: Chunk, lane: Lane) -> None:
        """Show a chunk to a policy that does not change it."""
        if plan.on_chunk_added is None or id(plan) in lane.unchecked:
            return
        try:
            # An observer gets a copy: what it may not change, it cannot change by editing in place.
            await self.call(plan, plan.on_chunk_added, detached(chunk), lane.contexts[id(plan)])
        except PolicyError as error:
            self.require_tolerance(plan, plan.on_chunk_added, lane, error)

    async def last_words(self, plan: PolicyPlan, ctx: StreamContext) -> str:
        """Return what a policy adds at the end of the answer."""
        if plan.on_stream_complete is None:
            return ""
        try:
            return self._text_of(plan, plan.on_stream_complete, await self.call(plan, plan.on_stream_complete, ctx))
        except PolicyError as error:
            self.require_tolerance(plan, plan.on_stream_complete, None, error)
            return ""

    def require_tolerance(self, plan: PolicyPlan, hook: Hook, lane: Lane | None, error: PolicyError) -> None:
        """Record that a hook failed, and raise its error again unless such errors pass."""
        self._judge.note_failure(plan, hook, lane.block.block() if lane is not None else None, error)
        if not (plan.passes_errors or self._terms.shadow):
            raise error
        if lane is not None:
            lane.unchecked.add(id(plan))

    def _text_of(self, plan: PolicyPlan, hook: Hook, words: Iterable[Chunk] | None) -> str:
        parts = [part_of(plan, chunk) for chunk in self.chunks(plan, hook, words)] if words is not None else []
        if any(part.kind is not BlockKind.TEXT for part in parts):
            msg = f"The policy {plan.name} may only add text at the end of an answer."
            raise PolicyError(msg)
        return "".join([part.text for part in parts])

    def chunks(self, plan: PolicyPlan, hook: Hook, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Return what a hook returned, or raise `PolicyError` when that is not chunks, or more than there may be."""
        if isinstance(chunks, list | tuple) and len(chunks) <= self._terms.hooks.items:
            checked = list(chunks)
        elif isinstance(chunks, str | bytes | dict) or not isinstance(chunks, Iterable):
            msg = f"The policy {plan.name} returned {type(chunks).__name__}, not chunks."
            raise PolicyError(msg)
        else:
            checked = self._drawn(plan, hook, chunks)
        for chunk in checked:
            if not hasattr(chunk, "choices"):
                msg = f"The policy {plan.name} returned {type(chunk).__name__} where a chunk is expected."
                raise PolicyError(msg)
        return checked

    def _drawn(self, plan: PolicyPlan, hook: Hook, chunks: Iterable[Chunk]) -> list[Chunk]:
        try:
            return self._terms.hooks.drawn(plan, hook, chunks)
        except ApiError as error:
            raise _as_policy_error(error) from error

    def note_change(self, plan: PolicyPlan, lane: Lane) -> None:
        """Record that a policy rewrote a block as it flowed."""
        self._judge.note_change(plan, lane.block.block())


def _as_policy_error(error: ApiError) -> PolicyError:
    if isinstance(error, PolicyError):
        return error
    return PolicyError(error.message, status=error.status, type=error.type, code=error.code)


def part_of(plan: PolicyPlan, chunk: Chunk) -> Part:
    """Return what a chunk says. Raises `PolicyError` for one that is a chunk by its looks only."""
    try:
        part = read_part(chunk)
    except Exception as error:
        msg = f"The policy {plan.name} returned a chunk that cannot be read."
        raise PolicyError(msg) from error
    if not isinstance(part.text, str):
        msg = f"The policy {plan.name} returned a chunk whose text is {type(part.text).__name__}."
        raise PolicyError(msg)
    return part
