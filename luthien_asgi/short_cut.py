"""The short cut for what most chunks are: fragments of a text whose way is known, because its block is open and flows.

Strategy: nothing is waited for here. A text that nobody looks at goes on; one that a policy rewrites goes through a hook that
returns at once. What cannot be brought to its end (no room, a hook that has to be waited for) is finished by who may wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, Part, plain_text, read_part
from luthien_asgi.lanes import Lane
from luthien_asgi.outlet import Outlet
from luthien_asgi.policy import Transform
from luthien_asgi.rewriting import Rewriter
from luthien_asgi.runs import Run

__all__ = ["ShortCut"]


class ShortCut:
    """One step's short cut. `transparent`: nobody looks at blocks, so every text of a choice that has begun goes on."""

    def __init__(self, outlet: Outlet, rewriter: Rewriter, *, transparent: bool, hold_run: Callable[[Lane, Run], None]) -> None:
        """Make the short cut; `hold_run` keeps a run until its block is settled."""
        self._hold_run = hold_run
        self._outlet = outlet
        self._rewriter = rewriter
        self._transparent = transparent
        self._lanes: dict[int, Lane] = {}
        """By choice, the block of its last chunk, if its fragments go on at once, as they are or as a policy rewrites them."""
        self._left_over: list[Chunk] = []
        self._begun: Awaitable[Any] | None = None
        """What a policy's hook returned that has to be waited for."""

    def open(self, lane: Lane, part: Part) -> None:
        """Let the fragments that follow this one, which was sent or is kept back, take the short cut, if they may."""
        self._lanes.pop(part.choice, None)
        if not (part.text or part.id) or lane.dropped or lane.watchers:
            return
        if not isinstance(lane.handling, Transform) or (lane.opening is None and self._rewriter.is_strict(lane)):
            self._lanes[part.choice] = lane

    def close(self, lane: Lane) -> None:
        """Let no fragment of this block take it any more: it has ended."""
        if self._lanes.get(lane.block.choice) is lane:
            del self._lanes[lane.block.choice]

    def take(self, chunk: Chunk) -> bool:
        """Take a chunk, where that can be done at once; tell whether it was. Raises `PolicyError`."""
        plain = plain_text(chunk)
        if plain is None:
            return False
        choice, text = plain
        if self._transparent:
            return choice in self._outlet.choices and self._outlet.offer(chunk, text)
        lane = self._lanes.get(choice)
        if lane is None or lane.block.kind is not BlockKind.TEXT or lane.block.bounded or lane.held or lane.waits:
            return False
        if not isinstance(lane.handling, Transform):
            if not self._outlet.offer(chunk, text):
                return False
            lane.block.fragments.append(text)
            return True
        if not self._rewriter.can_take(lane, text):
            return False
        lane.block.fragments.append(text)
        taken = self._rewriter.take_plain(lane, chunk, text)
        if not isinstance(taken, list):
            self._begun = taken
            return False
        self._left_over = taken
        return not taken or self._pass_left_over()

    def takes_run(self, run: Run) -> bool:
        """Tell whether a run like this one can take the short cut now, through all that follows."""
        if self.is_unfinished:
            return False
        if self._transparent:
            return run.part.choice in self._outlet.choices and self._outlet.takes_run(run)
        lane = self._lane_of(run.part)
        if lane is None or (isinstance(lane.handling, Transform) and not self._rewriter.can_take_run(lane)):
            return False
        if lane.held or lane.waits:
            return not isinstance(lane.handling, Transform) and run.paddings is None
        return self._outlet.takes_run(run)

    def put_run(self, run: Run) -> None:
        """Take a run that `takes_run` was asked about. Raises `ApiError`."""
        lane = None if self._transparent else self._lane_of(run.part)
        if lane is not None and (lane.held or lane.waits):
            self._hold_run(lane, run)
            return
        if lane is not None:
            lane.block.fragments.extend(run.texts)
            if isinstance(lane.handling, Transform):
                run = self._rewriter.take_run(lane, run)
        if run.texts:
            self._outlet.put_run(run)

    def _lane_of(self, part: Part) -> Lane | None:
        """Return the block that a part goes on with, if that takes the short cut."""
        lane = self._lanes.get(part.choice)
        if lane is None or lane.block.kind is not part.kind or lane.block.source != part.source:
            return None
        return None if lane.block.signature and not lane.block.bounded else lane

    @property
    def is_unfinished(self) -> bool:
        """Whether the last chunk was begun and not brought to its end."""
        return bool(self._left_over) or self._begun is not None

    async def rest(self, chunk: Chunk, part: Part) -> tuple[Lane, list[Chunk]]:
        """Return what of an unfinished chunk has still to go on, and in which block. Raises `PolicyError`."""
        lane = self._lanes[part.choice]
        left_over, self._left_over = self._left_over, []
        begun, self._begun = self._begun, None
        return lane, left_over if begun is None else await self._rewriter.finished(lane, chunk, part, begun)

    def _pass_left_over(self) -> bool:
        """Send on what a rewriting policy gave, as far as there is room now; tell whether that was all."""
        while self._left_over:
            text = read_part(self._left_over[0]).text
            if not self._outlet.offer(self._left_over[0], text):
                return False
            del self._left_over[0]
        return True
