"""The bar of what a finished stream leaves: nothing.

A fresh process answers stream after stream, and its memory is looked at ten times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import linear_regression
from typing import Final

import uvloop
from fleet import Fleet
from load import Target, fire
from measuring import warm_up
from results import Verdict
from rich.console import Console
from shapes import SHORT
from subjects import OURS, Subject

__all__ = ["measure"]

_SUBJECT: Final = Subject(OURS, "rewrite")
_STREAMS: Final = 5000
"""In the first thousand LiteLLM and the allocator still grow."""
_LOOKS: Final = 10
_STEP: Final = _STREAMS // _LOOKS
_BAR: Final = 0.01
"""Of the process's memory: what an allocator adds and gives back without anything being kept is less than that."""
_SETTLE: Final = 0.3
_LIMIT: Final = 300.0


def measure(servers: Fleet, *, console: Console) -> list[Verdict]:
    """Return the verdict: the slope between a tenth of the streams and all of them."""
    with servers.running([OURS]) as running:
        child, port = running[OURS]
        warm_up(servers, _SUBJECT, running)
        target = servers.target(_SUBJECT, SHORT, port)
        looks, wrong = [], 0
        for _ in range(_LOOKS):
            wrong += _answered(target, _STEP)
            time.sleep(_SETTLE)
            looks.append(child.memory_kb())
    console.print(f"memory after each {_STEP} streams, MB: " + ", ".join(f"{look / 1024:.2f}" for look in looks))
    return [_verdict(looks, wrong)]


def _answered(target: Target, streams: int) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(fire(target, streams=range(streams), at_once=8, ramp=0, limit=_LIMIT))
    return tally.faults.total()


def _verdict(looks: Sequence[float], wrong: int) -> Verdict:
    slope = linear_regression([_STEP * number for number in range(len(looks))], looks).slope
    grown = slope * _STEP * (len(looks) - 1)
    jumps = max(abs(after - before) for before, after in pairwise(looks))
    bar = f"memory from {_STEP} to {_STREAMS} streams grows by less than {_BAR * 100:.0f} %"
    measured = f"{grown:+.0f} KB, {slope * 1024:+.0f} bytes a stream (largest step {jumps:.0f} KB)"
    return Verdict(bar, measured, grown <= _BAR * looks[0] and not wrong)
