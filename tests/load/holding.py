"""What the workers hold when a load is over, beside what they held before it: slots, tasks, files, objects, memory."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, linear_regression
from time import monotonic
from typing import Final

from ledger import Verdict
from provider import Provider
from server import Server, State

__all__ = ["Peak", "growth", "held", "kept", "more_than", "settled"]

_QUIET: Final = 30.0
"""Seconds in which a server has to be as it was before, once all is over."""
_LOOK: Final = 0.25
_GROWTH: Final = 0.01
"""Of a worker's memory: an allocator's breath is less."""
_BACK: Final = 1.25
"""By how much a worker's memory may differ after a load: it had room for as many streams before, but had met no fault yet."""
_POOLS: Final = frozenset({"asyncio", "uvloop"})
"""Threads of the event loop itself: as many as it ever needed at once, a few more than there are processors at most."""
_FEWEST: Final = 4
"""Looks that make a line with an error."""


class Peak:
    """Looks at the workers' memory from time to time, without asking them, and at how many answers are under way."""

    def __init__(self, server: Server, provider: Provider) -> None:
        self._server, self._provider = server, provider
        self.memory_mb: dict[int, float] = {}
        self.answering = 0
        self.late = 0.0
        """Seconds by which this process itself was late at most: what it measures cannot be better than that."""

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            for pid, memory in self._server.memory_mb().items():
                self.memory_mb[pid] = max(memory, self.memory_mb.get(pid, 0))
            self.answering = max(self.answering, self._provider.answering)
            due = monotonic() + _LOOK
            await asyncio.sleep(_LOOK)
            self.late = max(self.late, monotonic() - due)


async def settled(server: Server, provider: Provider, before: Iterable[State] = ()) -> list[State]:
    """Return what the workers hold once they hold no more than `before`, memory as near as is asked, or after a while anyhow."""
    deadline = monotonic() + _QUIET
    known = _Known(before)
    while True:
        provider.close_idle()
        await asyncio.sleep(_LOOK)
        states = await asyncio.to_thread(server.states)
        if (len(states) >= known.workers and all(map(known.is_as_before, states))) or monotonic() > deadline:
            return states


class _Known:
    """What was held before; a worker that began later is held to what another held that had hardly begun."""

    def __init__(self, before: Iterable[State]) -> None:
        self._states = {state.pid: state for state in before}
        self.workers = max(1, len(self._states))

    def of(self, state: State) -> State:
        """Return what a worker is compared with: itself, when there is nothing else."""
        return self._states.get(state.pid) or next(iter(self._states.values()), state)

    def is_as_before(self, state: State) -> bool:
        """Tell whether a worker holds no more than it did."""
        before = self.of(state)
        return not state.slots and not more_than(state, before) and state.rss_mb < _BACK * before.rss_mb


def more_than(state: State, before: State) -> dict[str, int]:
    """Return what a worker holds more than before."""
    more = {"slots": state.slots - before.slots, "tasks": state.tasks - before.tasks}
    more |= {f"files: {kind}": count - before.files.get(kind, 0) for kind, count in state.files.items()}
    named = {name: count for name, count in state.threads.items() if name not in _POOLS}
    more |= {f"threads: {name}": count - before.threads.get(name, 0) for name, count in named.items()}
    more |= {kind: count - before.objects.get(kind, 0) for kind, count in state.objects.items()}
    return {what: count for what, count in more.items() if count > 0}


def held(before: Iterable[State], after: Sequence[State], peak: Mapping[int, float]) -> list[Verdict]:
    """Return the lines of the table."""
    known = _Known(before)
    found = []
    for state in after:
        was = known.of(state)
        more = more_than(state, was)
        memory = f"{was.rss_mb:.1f} before, {peak.get(state.pid, 0):.1f} most, {state.rss_mb:.1f} after"
        within = state.rss_mb < _BACK * was.rss_mb
        found.append(Verdict(f"worker {state.pid}: resident memory comes back to what it was, MB", memory, within))
        left = ", ".join(f"{what} +{count}" for what, count in more.items()) or "nothing"
        slots = f"{state.tasks} tasks, {sum(state.files.values())} files, {state.slots} slots taken; left over"
        found.append(Verdict(f"worker {state.pid}: leaves nothing behind", f"{slots}: {left}", not more and not state.slots))
    return found or [Verdict("workers that answer", "none", passed=False)]


def growth(pid: int, looks: Sequence[tuple[float, float]], *, over: str, binding: bool = True) -> Verdict:
    """Hold a worker's resident memory, in MB, to a line that does not rise, as far as what it breathes lets one tell.

    Passed is what grows by less than a hundredth, or by less than twice the line's own standard error. `binding`: whether there
    was time enough for that to say anything.
    """
    grown, unsure = _grown(looks)
    seen = ", ".join(f"{memory:.0f}" for _, memory in looks[:: max(1, len(looks) // 12)])
    what = f"worker {pid}: memory over {over} grows by less than {_GROWTH:.0%}, or no more than is sure"
    passed = grown < max(_GROWTH * looks[0][1], unsure) if binding else None
    return Verdict(what, f"{grown:+.1f} ± {unsure:.1f} MB ({seen})", passed)


def kept(pid: int, looks: Sequence[tuple[float, float]]) -> Verdict:
    """Hold what a worker's Python objects have to less than a block a stream; `looks`: streams so far, and blocks."""
    grown, unsure = _grown(looks)
    streams = looks[-1][0] - looks[0][0]
    seen = ", ".join(f"{blocks:.0f}" for _, blocks in looks)
    what = f"worker {pid}: Python's memory over {streams:.0f} streams grows by less than a block a stream"
    return Verdict(what, f"{grown:+.0f} ± {unsure:.0f} blocks ({seen})", grown < streams)


def _grown(looks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return by how much the line rises from the first look to the last, and twice its standard error."""
    slope, error = _line(looks)
    span = looks[-1][0] - looks[0][0]
    return slope * span, 2 * error * span


def _line(looks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of the line through some points, and its standard error."""
    if len(looks) < _FEWEST:
        return 0.0, math.inf
    (slope, start), xs = linear_regression(*zip(*looks, strict=True)), [x for x, _ in looks]
    rest = sum((y - start - slope * x) ** 2 for x, y in looks)
    middle = fmean(xs)
    return slope, math.sqrt(rest / (len(looks) - 2) / sum((x - middle) ** 2 for x in xs))
