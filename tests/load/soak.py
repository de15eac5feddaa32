"""The soak: a constant, mixed load with faults at both ends for as long as is asked, and a line every ten seconds.

    python tests/load/soak.py --minutes 30

Each line is of all workers together: resident memory, descriptors and tasks as they are then, and of the streams how many are
open, were over and were wrong. At the end all is held to the bounds of `run.py`, the growth of memory among them, from the line
through what was seen after the warm-up, a fifth of the time, when it was ten minutes at least. The exit status is 1 when a bound
is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Final

import uvloop
from client import IMPATIENT
from holding import held
from ledger import Verdict
from loads import Load, Order, growth, opened
from plan import Plan, Shape, plans
from rich.console import Console
from run import raise_limit, show
from server import SERVERS, State

_EVERY: Final = 10.0
_WARM_SHARE: Final = 0.2
_TELLS: Final = 10.0
"""Minutes from which the line through the memory is held to its bound: before, it is the allocator's and the caches' way up."""
_SHAPE: Final = Shape(20, 0.5)
_HEAD: Final = f"{'s':>6} {'RSS MB':>8} {'files':>6} {'tasks':>6} {'open':>6} {'done':>8} {'wrong':>6}"


class _Log:
    """What is printed, and remembered for the line through it."""

    def __init__(self, load: Load, console: Console) -> None:
        self._load, self._console = load, console
        self._started = monotonic()
        self.looks: dict[int, list[tuple[float, float]]] = {}
        console.print(_HEAD)

    async def write(self) -> None:
        """Print a line now and every ten seconds, until cancelled."""
        while True:
            self._take(await asyncio.to_thread(self._load.server.states))
            await asyncio.sleep(_EVERY)

    def _take(self, states: Iterable[State]) -> None:
        states, ledger, seconds = list(states), self._load.ledger, monotonic() - self._started
        for state in states:
            self.looks.setdefault(state.pid, []).append((seconds, state.rss_mb))
        memory = sum(state.rss_mb for state in states)
        files = sum(sum(state.files.values()) for state in states)
        tasks, taken = sum(state.tasks for state in states), sum(state.slots for state in states)
        done, wrong = len(ledger.outcomes), ledger.wrong.total()
        self._console.print(
            f"{seconds:6.0f} {memory:8.1f} {files:6d} {tasks:6d} {taken:6d} {done:8d} {wrong:6d}", highlight=False
        )


def _until(planned: Iterator[Plan], deadline: float) -> Iterator[Plan]:
    while monotonic() < deadline:
        yield next(planned)


async def soak(order: Order, *, minutes: float, console: Console) -> bool:
    """Run it; tell whether everything held."""
    seconds = minutes * 60
    async with opened(order, IMPATIENT) as load:
        log = _Log(load, console)
        planned = plans(seed=order.seed, shape=order.shape, faults=order.faults)
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(log.write())
            await load.drive(_until(planned, monotonic() + seconds), done=load.ledger.take, ramp=min(10.0, seconds / 4))
            writing.cancel()
        after = await load.settled()
        warm = {pid: [look for look in looks if look[0] >= seconds * _WARM_SHARE] for pid, looks in log.looks.items()}
        verdicts: list[Verdict] = [
            *load.ledger.streams(),
            *load.ledger.times(load.provider),
            *load.recorded(),
            *held(load.before, after, load.peak.memory_mb),
            *(
                growth(pid, looks, over=f"{minutes * (1 - _WARM_SHARE):g} min", binding=minutes >= _TELLS)
                for pid, looks in warm.items()
            ),
        ]
        return show(f"soak: {minutes:g} min, {order.workers} x {order.server}", verdicts, load.ledger.samples, console)


def main() -> int:
    """Soak as long as is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--server", choices=list(SERVERS), default="gunicorn-asgi")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=150)
    parser.add_argument("--faults", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    raise_limit()
    workers = 1 if asked.server == "uvicorn" else asked.workers
    order = Order(
        server=asked.server,
        workers=workers,
        streams=0,
        at_once=asked.at_once,
        faults=asked.faults,
        seed=asked.seed,
        shape=_SHAPE,
    )
    console = Console(width=None if sys.stdout.isatty() else 160)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(soak(order, minutes=asked.minutes, console=console)) else 1


if __name__ == "__main__":
    sys.exit(main())
