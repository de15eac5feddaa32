"""One load on one server, in figures: what `results.Sample` has."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import uvloop
from fleet import Fleet
from load import Tally, Target, fire, for_seconds
from processes import Child
from results import Sample
from shapes import BURST, OPEN, SHORT, Shape
from subjects import Load, Subject

__all__ = ["Running", "footprint", "measure", "warm_up"]

Running = Mapping[str, tuple[Child, int]]
_SETTLE: Final = 0.25
"""Seconds for what a server still does after the last byte, which is part of its cost."""
_RAMP: Final = 1.0
"""Seconds over which paced streams begin."""
_GRACE: Final = 12.0
"""Seconds that paced streams may take beyond their ideal time."""
_LIMIT: Final = 60.0
"""Seconds that any other load may take."""
_WARM_UP: Final = 24
_LOOK: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Weight:
    tally: Tally
    cpu: float
    """Seconds of the server's process tree."""
    others: float
    """The same of the servers that are not asked."""
    wall: float


def warm_up(fleet: Fleet, subject: Subject, running: Running) -> None:
    """Let a server get to know what it will be asked. Raises `RuntimeError` with an answer of its when that is not right."""
    target = fleet.target(subject, _held(SHORT, subject), _port(subject, running))
    tally = _fire(target, range(_WARM_UP), at_once=8, limit=_LIMIT)
    if tally.faults:
        raise RuntimeError(f"{subject.key}: {dict(tally.faults)}: {tally.sample[:2000]!r}")


def measure(fleet: Fleet, load: Load, subject: Subject, running: Running, *, number: int, seconds: float) -> Sample:
    """Put a load on a subject. `seconds`: how long a burst of each length lasts; paced streams have their own time."""
    weigh = _weigher(subject, running)
    port = _port(subject, running)
    if load.shape is None:
        figures, weights = _burst(lambda shape: fleet.target(subject, _held(shape, subject), port), weigh, load.at_once, seconds)
    else:
        figures, weights = _paced(fleet.target(subject, _held(load.shape, subject), port), weigh, load.at_once)
    if subject.server in running:
        figures["rss_mb"] = running[subject.server][0].memory_kb() / 1024
    else:
        figures = {name: value for name, value in figures.items() if name not in ("chunk_us", "share")}
    return Sample(
        load=load.name,
        subject=subject.key,
        round=number,
        figures=figures,
        right=sum(weight.tally.right for weight in weights),
        wrong=dict(sum((weight.tally.faults for weight in weights), Counter[str]())),
        others_share=sum(weight.others for weight in weights) / sum(weight.wall for weight in weights),
    )


def _held(shape: Shape, subject: Subject) -> Shape:
    return replace(shape, call=True) if subject.layer == "held" else shape


def _port(subject: Subject, running: Running) -> int:
    return running[subject.server][1] if subject.server in running else 0


_Weigh = Callable[[Target, Iterable[int], int, float, float], _Weight]


def _weigher(subject: Subject, running: Running) -> _Weigh:
    asked = [child for name, (child, _) in running.items() if name == subject.server]
    idle = [child for name, (child, _) in running.items() if name != subject.server]

    def weigh(target: Target, streams: Iterable[int], at_once: int, ramp: float, limit: float) -> _Weight:
        before, idle_before, began = _cpu(asked), _cpu(idle), time.monotonic()
        tally = _fire(target, streams, at_once=at_once, ramp=ramp, limit=limit)
        wall = time.monotonic() - began
        time.sleep(_SETTLE)
        return _Weight(tally, _cpu(asked) - before, _cpu(idle) - idle_before, wall)

    return weigh


def _cpu(children: Iterable[Child]) -> float:
    return sum(child.cpu_seconds() for child in children)


def _fire(target: Target, streams: Iterable[int], *, at_once: int, limit: float, ramp: float = 0) -> Tally:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(fire(target, streams=streams, at_once=at_once, ramp=ramp, limit=limit))


def _burst(
    target: Callable[[Shape], Target], weigh: _Weigh, at_once: int, seconds: float
) -> tuple[dict[str, float], Sequence[_Weight]]:
    long, short = (
        weigh(target(shape), for_seconds(seconds, at_least=2 * at_once), at_once, 0, _LIMIT) for shape in (BURST, SHORT)
    )
    figures = {"chunk_us": long.cpu * 1e6 / max(1, long.tally.deltas), "share": long.cpu / long.wall}
    if long.tally.right and short.tally.right:
        figures["events"] = long.tally.events / long.tally.right
        slope = (long.cpu / long.tally.right - short.cpu / short.tally.right) / (BURST.deltas - SHORT.deltas)
        figures["marginal_us"] = slope * 1e6
        figures["fixed_ms"] = (short.cpu / short.tally.right - slope * SHORT.deltas) * 1e3
    return {**figures, **_holds(long.tally)}, (long, short)


def _paced(target: Target, weigh: _Weigh, at_once: int) -> tuple[dict[str, float], Sequence[_Weight]]:
    ideal = target.shape.ideal
    weight = weigh(target, range(at_once), at_once, _RAMP if at_once > 1 else 0, ideal + _RAMP + _GRACE)
    tally = weight.tally
    figures = {"chunk_us": weight.cpu * 1e6 / max(1, tally.deltas), "share": weight.cpu / weight.wall, **_holds(tally)}
    if tally.right:
        figures |= {
            "events": tally.events / tally.right,
            "first_ms": _quantile(tally.firsts, 0.5) * 1e3,
            "added_p50_ms": _quantile(tally.added, 0.5) * 1e3,
            "added_p99_ms": _quantile(tally.added, 0.99) * 1e3,
            "stretch_p50": _quantile(tally.totals, 0.5) / ideal,
            "stretch_max": max(tally.totals) / ideal,
        }
    return figures, (weight,)


def _holds(tally: Tally) -> dict[str, float]:
    if not tally.holds:
        return {}
    return {
        "hold_min_ms": min(tally.holds) * 1e3,
        "hold_p50_ms": _quantile(tally.holds, 0.5) * 1e3,
        "hold_p99_ms": _quantile(tally.holds, 0.99) * 1e3,
    }


def _quantile(values: Sequence[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def footprint(fleet: Fleet, subject: Subject, *, number: int, streams: int) -> Sample:
    """Weigh open streams in a fresh process that is warm: the most memory while all are open, above what it had idle."""
    with fleet.running([subject.server]) as running:
        child, port = running[subject.server]
        for _ in range(2):
            warm_up(fleet, subject, running)
        time.sleep(_SETTLE)
        idle = child.memory_kb()
        target = fleet.target(subject, _held(OPEN, subject), port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            tally, most = runner.run(_watched(child, target, streams))
    figures = {"idle_mb": idle / 1024, "rss_mb": most / 1024}
    if not tally.faults:
        figures["open_kb"] = (most - idle) / streams
    return Sample(
        load="footprint", subject=subject.key, round=number, figures=figures, right=tally.right, wrong=dict(tally.faults)
    )


async def _watched(child: Child, target: Target, streams: int) -> tuple[Tally, float]:
    """Return what came of the streams, and the most memory while they were open."""
    most = child.memory_kb()

    async def watch() -> None:
        nonlocal most
        while True:
            await asyncio.sleep(_LOOK)
            most = max(most, child.memory_kb())

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        tally = await fire(target, streams=range(streams), at_once=streams, ramp=_RAMP, limit=_LIMIT)
        watching.cancel()
    return tally, most
