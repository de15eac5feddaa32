"""One policy object serves all requests at once: it keeps nothing of a transaction, mixes up no two of them, and never blocks.

Strategy: fields are compared whenever the backend is asked for its next chunk, since what is put back in the end was wrong for as
long as another stream could see it; two answers go through the object step by step beside each other; and a callback that comes
round with every turn of the event loop sees how long one turn took.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from luthien_asgi.compose import Composable
from luthien_asgi.testing.kit import PolicyRun
from luthien_asgi.testing.parts import Answer
from luthien_asgi.testing.proof.counterexample import Counterexample
from luthien_asgi.testing.proof.cuts import Cut
from luthien_asgi.testing.proof.outcomes import Outcome
from luthien_asgi.testing.proof.snapshot import Snapshot, changes, snapshot
from luthien_asgi.testing.proof.stage import Case, Stage
from luthien_asgi.testing.waiting import Signal

__all__ = ["Sharing"]

WRITES: Final = "the policy writes on itself while it serves (what belongs to one transaction lives in `ctx.state`)"
MIXES: Final = "two streams at once on one policy object get in each other's way"
BLOCKS: Final = "a hook blocks the event loop (make it async, or mark it with `@blocking`)"
_TRIES: Final = 5
"""How often a slow turn of the loop is measured again: the machine may have been busy, a hook that blocks does it each time."""


@dataclass(slots=True)
class Sharing:
    """Holds one policy to what one object must be for many streams."""

    stage: Stage
    ignoring: Collection[str] = ()
    max_block: float = 0.1

    async def check(self, answers: Sequence[tuple[Answer, Cut]]) -> None:
        """Raise `Counterexample` for the first thing that is shared and should not be; each answer comes with its finest cut."""
        cases = [Case(answer, cut=cut) for answer, cut in answers]
        for case in cases:
            await self._check_fields(case)
            await self._check_blocking(case)
        for first, second in zip(cases, [*cases[1:], *cases[:1]], strict=True):
            await self._check_beside([first, second])

    async def _check_fields(self, case: Case) -> None:
        policy = self.stage.make()
        before = snapshot(policy)
        seen: list[str] = []

        def look() -> None:
            if not seen:
                seen.extend(self._changes(before, policy))

        await self.stage.run(case, watch=look, policy=policy)
        look()
        if seen:
            raise Counterexample(WRITES, case, "\n  ".join(seen[:5]))

    def _changes(self, before: Snapshot, policy: Composable) -> list[str]:
        return list(changes(before, snapshot(policy), ignoring=self.ignoring))

    async def _check_beside(self, cases: Sequence[Case]) -> None:
        alone = [Outcome.of(await self.stage.run(case, together=False)) for case in cases]
        policy, gate = self.stage.make(), _Gate(len(cases))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._through(gate, place, case, policy)) for place, case in enumerate(cases)]
        for case, expected, task in zip(cases, alone, tasks, strict=True):
            if difference := expected.against(Outcome.of(task.result())):
                raise Counterexample(MIXES, case, difference)

    async def _through(self, gate: _Gate, place: int, case: Case, policy: Composable) -> PolicyRun:
        try:
            return await self.stage.run(case, watch=lambda: gate.step(place), policy=policy)
        finally:
            gate.leave(place)

    async def _check_blocking(self, case: Case) -> None:
        longest = await self._longest_turn(case)
        for _ in range(_TRIES - 1):
            if longest <= self.max_block:
                return
            longest = min(longest, await self._longest_turn(case))
        if longest > self.max_block:
            raise Counterexample(BLOCKS, case, f"for {longest:.3f} s; {self.max_block} s are allowed (`max_block`)")

    async def _longest_turn(self, case: Case) -> float:
        return await _longest_turn(lambda: self.stage.run(case))


class _Gate:
    """Lets several streams go on step by step: nobody begins a step before all others have come to it or are done."""

    def __init__(self, streams: int) -> None:
        self._steps = [0] * streams
        self._signal = Signal()

    async def step(self, place: int) -> None:
        """Wait for the others."""
        self._steps[place] += 1
        self._signal.notify()
        mine = self._steps[place]
        await self._signal.until(lambda: min(self._steps) >= mine)

    def leave(self, place: int) -> None:
        """Wait for nothing any more, and let nobody wait."""
        self._steps[place] = 1 << 62
        self._signal.notify()


async def _longest_turn(run: Callable[[], Awaitable[object]]) -> float:
    """Return the longest time in seconds that one turn of the event loop took meanwhile."""
    loop = asyncio.get_running_loop()
    with _own_time() as clock:
        longest, last, going = 0.0, clock(), True

        def turn() -> None:
            nonlocal longest, last
            now = clock()
            longest, last = max(longest, now - last), now
            if going:
                loop.call_soon(turn)

        loop.call_soon(turn)
        try:
            await run()
        finally:
            going = False
        return max(longest, clock() - last)


@contextmanager
def _own_time() -> Iterator[Callable[[], float]]:
    """Give a clock in seconds that stands still while this thread could run and others had the processor.

    Where the system does not say how long that was (Linux does, in `schedstat`), it is the time of the wall.
    """
    try:
        waited = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        yield time.perf_counter
        return
    try:
        yield lambda: time.perf_counter() - int(os.pread(waited, 100, 0).split()[1]) / 1e9
    finally:
        os.close(waited)
