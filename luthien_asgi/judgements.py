"""What is done about a block, and which of several judgements that is: by rank and place in the list, never by speed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.errors import ApiError
from luthien_asgi.pipeline import InTurn, Node
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.verdicts import RANKS, Allow, Defer, Deny, Escalate, Resample, Stop, Verdict, rank_of

__all__ = ["ALLOWED", "Judgement", "brought_together", "heard_at_once", "strongest_of", "warnings_of"]

_FAILED: Final = len(RANKS)
"""The rank of a failure that ends the answer: no verdict overrules it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is done about a block, or why the answer cannot go on."""

    action: Verdict
    error: ApiError | None = None
    warnings: tuple[str, ...] = ()
    """What the client is told about a call that was let through unchecked."""
    plan: PolicyPlan | None = None
    """Whose verdict it is."""
    otherwise: Judgement | None = None
    """What holds where a person allows what was escalated."""
    failed: bool = False
    """The policy did not say it, but failed."""

    @property
    def rank(self) -> int:
        """The place among verdicts; a failure overrules all."""
        return _FAILED if self.error is not None else rank_of(self.action)


ALLOWED: Final = Judgement(Allow())


async def heard_at_once(tasks: Sequence[asyncio.Task[Judgement]], strongest: Sequence[int]) -> list[Judgement]:
    """Return what matters of what was said, the first of the list last among equals.

    Whoever can say nothing that overrules what is said already is not waited for; neither counts that such a one failed, since it
    might as well have been cancelled before.
    """
    pending = set(tasks)
    while True:
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        said = {place: task.result() for place, task in enumerate(tasks) if task.done()}
        overruled = _overruled(said, strongest)
        pending = {task for place, task in enumerate(tasks) if not task.done() and place not in overruled}
        if not pending:
            return [each for place, each in reversed(said.items()) if not (each.failed and place in overruled)]


def _overruled(said: Mapping[int, Judgement], strongest: Sequence[int]) -> set[int]:
    """Return the places of the list whose verdict does not matter any more.

    With Allow and Replace others may have something to add, and where a person allows what was escalated the others are heard.
    """
    final = [(each.rank, -place) for place, each in said.items() if not each.failed and _is_final(each.action)]
    best = max(final, default=(-1, 0))
    return {place for place, rank in enumerate(strongest) if (rank, -place) < best}


def _is_final(verdict: Verdict) -> bool:
    return isinstance(verdict, Resample | Defer | Deny | Stop)


def strongest_of(node: Node, kind: BlockKind) -> int:
    """Return the rank of the strongest verdict that can be expected of a node about a kind of block."""
    if isinstance(node, PolicyPlan):
        asked = node.on_block_complete is not None and kind in node.handles
        return max(map(rank_of, node.verdicts)) if asked else 0
    strongest = max((strongest_of(each, kind) for each in node.nodes), default=0)
    # Those in turn have a person asked at once, who may deny.
    return max(strongest, rank_of(Deny)) if isinstance(node, InTurn) and strongest >= rank_of(Escalate) else strongest


def brought_together(heard: Sequence[Judgement]) -> Judgement:
    """Return what is done where several have spoken: the strongest, and below it what holds where a person allows that."""
    warnings = warnings_of(heard)
    below = ALLOWED
    for each in sorted(chain.from_iterable(map(_unrolled, heard)), key=lambda judgement: judgement.rank):
        below = replace(each, warnings=warnings, otherwise=below)
    return below


def warnings_of(heard: Sequence[Judgement]) -> tuple[str, ...]:
    """Return all warnings, in their order."""
    return tuple(warning for each in heard for warning in each.warnings)


def _unrolled(judgement: Judgement) -> list[Judgement]:
    """Return a judgement and what holds instead of it where a person allows it, the strongest last."""
    below = _unrolled(judgement.otherwise) if judgement.otherwise is not None else []
    return [*below, judgement]
