"""The bar of a judge: while it holds a tool call for a fifth of a second, the text before the call keeps its timing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from apps import CALLING
from fleet import OURS, Server, Weight, weigh
from policies import JUDGE_SECONDS
from report import Verdict, counted
from rich.console import Console
from rich.table import Table

__all__ = ["measure"]

_BAR_MS: Final = 1.0
_STREAMS: Final = 20
_RAMP: Final = 1.0
"""Seconds over which the streams begin."""
_LIMIT: Final = 15.0
_LAYERS: Final = (("LuthienMiddleware, no policy", "none"), (f"  and a judge of {JUDGE_SECONDS * 1000:.0f} ms", "judge"))


def measure(servers: Mapping[str, Server], *, rounds: int, console: Console) -> tuple[Table, list[Verdict]]:
    """Return the rounds and the verdicts; the layers take turns."""
    done: list[tuple[str, Weight]] = []
    for number in range(rounds):
        console.print(f"judged, round {number + 1} of {rounds}")
        for name, layer in _LAYERS if number % 2 == 0 else reversed(_LAYERS):
            target = servers[OURS].ours(CALLING, layer=layer)
            done.append((name, weigh(servers[OURS], target, streams=_STREAMS, at_once=_STREAMS, ramp=_RAMP, limit=_LIMIT)))
    return _table(done), _verdicts([weight for name, weight in done if name == _LAYERS[1][0]])


def _verdicts(judged: Sequence[Weight]) -> list[Verdict]:
    added = median(median(weight.tally.added or [float("inf")]) for weight in judged) * 1000
    shortest = min((hold for weight in judged for hold in weight.tally.holds), default=0.0)
    wrong = sum(weight.tally.faults.total() for weight in judged)
    name = f"judged: text before a held call, {_STREAMS} streams: added p50 at most {_BAR_MS:.0f} ms"
    held = f"judged: every call held for {JUDGE_SECONDS * 1000:.0f} ms, every stream right"
    return [
        Verdict(name, f"{added:.2f} ms", added <= _BAR_MS),
        Verdict(held, f"shortest {shortest * 1000:.1f} ms, wrong: {wrong}", shortest >= JUDGE_SECONDS and not wrong),
    ]


def _table(rounds: Sequence[tuple[str, Weight]]) -> Table:
    title = f"Judged: {_STREAMS} streams, {CALLING[0]} text deltas each, one every {CALLING[1]} ms, then a tool call"
    table = Table("server", "added ms p50", "p99", "call to end ms p50", "max", "wrong", title=title)
    for name, weight in rounds:
        added, holds = sorted(weight.tally.added), sorted(weight.tally.holds)
        shown = [_milliseconds(added, 0.5), _milliseconds(added, 0.99), _milliseconds(holds, 0.5), _milliseconds(holds, 1)]
        table.add_row(name, *shown, counted(weight.tally.faults))
    return table


def _milliseconds(ordered: Sequence[float], quantile: float) -> str:
    return f"{ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000:.2f}" if ordered else "–"
