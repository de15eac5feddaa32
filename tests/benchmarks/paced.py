"""The third bar: a hundred streams at a model's pace, on one core, and none of them late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from apps import PACED
from fleet import FLOOR, OURS, PLAIN, Server, Weight, weigh
from load import Target
from report import Verdict, counted
from rich.console import Console
from rich.table import Table

__all__ = ["measure"]

_BAR: Final = 1.1
_STREAMS: Final = 100
_RAMP: Final = 1.0
"""Seconds over which the streams begin; then all of them are open together for as long again."""
_LIMIT: Final = 15.0
_IDEAL: Final = (PACED[0] - 1) * PACED[1] / 1000


@dataclass(frozen=True, slots=True)
class _Round:
    """A hundred streams."""

    name: str
    weight: Weight
    memory_mb: float

    @property
    def slowest(self) -> float:
        """The longest stream over its ideal time; infinite when one is wrong or missing.

        A stream's time is from the provider's write of the first delta to the stream's end at the client.
        """
        tally = self.weight.tally
        return max(tally.spans) / _IDEAL if tally.right == _STREAMS else float("inf")

    @property
    def late(self) -> int:
        """How many streams are over the bar, wrong or missing."""
        return _STREAMS - sum(span <= _BAR * _IDEAL for span in self.weight.tally.spans)


def measure(servers: Mapping[str, Server], *, rounds: int, console: Console) -> tuple[Table, list[Verdict]]:
    """Return the rounds and the verdict. The plain handler has one round, for comparison: it does not keep up."""
    ours, floor, plain = servers[OURS], servers[FLOOR], servers[PLAIN]
    turns = [
        ("LuthienMiddleware, no policy", ours, ours.ours(PACED)),
        ("Starlette + httpx, bytes relayed", floor, floor.theirs(PACED)),
    ]
    plan = [turn for _ in range(rounds) for turn in turns]
    plan.append(("litellm.acompletion + sse-starlette", plain, plain.theirs(PACED)))
    done = []
    for number, (name, server, target) in enumerate(plan, 1):
        console.print(f"paced, {number} of {len(plan)}")
        done.append(_round(name, server, target))
    return _table(done), [_verdict([entry for entry in done if entry.name == turns[0][0]])]


def _round(name: str, server: Server, target: Target) -> _Round:
    weight = weigh(server, target, streams=_STREAMS, at_once=_STREAMS, ramp=_RAMP, limit=_LIMIT)
    return _Round(name, weight, server.child.memory_mb())


def _verdict(ours: Sequence[_Round]) -> Verdict:
    """Return the verdict: in the middle round no stream is late, and in no round is one wrong or missing."""
    slowest = median(entry.slowest for entry in ours)
    wrong = sum(entry.weight.tally.faults.total() for entry in ours)
    bar = f"paced: {_STREAMS} streams on one core, each within {_BAR} of its ideal time"
    return Verdict(bar, f"slowest {slowest:.3f}, wrong: {wrong}", slowest <= _BAR and not wrong)


def _table(rounds: Sequence[_Round]) -> Table:
    title = f"Paced: {_STREAMS} streams together, {PACED[0]} deltas each, one every {PACED[1]} ms, the server on one core"
    table = Table(
        "server", "slowest / ideal", "late", "added ms p50", "p99", "CPU µs a delta", "CPU share", "RSS MB", "wrong", title=title
    )
    for entry in rounds:
        tally, added = entry.weight.tally, sorted(entry.weight.tally.added)
        table.add_row(
            entry.name,
            f"{entry.slowest:.3f}",
            str(entry.late),
            _milliseconds(added, 0.5),
            _milliseconds(added, 0.99),
            f"{entry.weight.cpu * 1e6 / max(1, tally.deltas):.0f}",
            f"{entry.weight.cpu / entry.weight.wall:.2f}",
            f"{entry.memory_mb:.0f}",
            counted(tally.faults),
        )
    return table


def _milliseconds(ordered: Sequence[float], quantile: float) -> str:
    return f"{ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000:.1f}" if ordered else "–"
