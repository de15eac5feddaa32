"""What a chunk costs in bytecode instructions: the same on every machine and at any load, so that a test can hold it to a budget.

    python tests/benchmarks/instructions.py            # the numbers, beside their budgets
    python tests/benchmarks/instructions.py --update   # the numbers as the new budgets, into budgets.json

Strategy: every instruction of every Python frame is counted (`f_trace_opcodes`) while the middleware answers in this process
(`inprocess.py`), for a short and for a long answer: their difference over the chunks between them is the price of a chunk, the
fixed price of a request gone.

Not counted: the event loop's own turns, and what happens inside C (msgspec, `regex`), where a call is one instruction. For that
there is `ratios`: the CPU time of chunks that come together, most of which is C, over that of decoding and encoding the same
events with msgspec, the least of several turns each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import selectors
import sys
import tempfile
import time
from asyncio import base_events, events, selector_events
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import inprocess
import msgspec
from inprocess import CASES, Case, answered, app, pieces

__all__ = ["BUDGETS", "count", "ratios"]

BUDGETS: Final = Path(__file__).parent / "budgets.json"
_LENGTHS: Final = (20, 180)
_UNCOUNTED: Final = {module.__file__ for module in (base_events, events, selector_events, selectors, inprocess)} | {__file__}
_TIMED: Final = (20, 6000)
_TIMED_CASES: Final = (
    Case("openai", "openai", policy="replace"),
    Case("anthropic", "anthropic", policy="replace"),
    Case("openai", "openai", kind="tool call"),
)
_TURNS: Final = 12


class _Counter:
    """Counts the instructions of this thread between `start` and `stop`."""

    def __init__(self) -> None:
        self.instructions = 0

    def start(self) -> None:
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one such frame when tracing begins
        sys.settrace(self._called)

    def stop(self) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename in _UNCOUNTED:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._counted

    def _counted(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if event == "opcode":
            self.instructions += 1
        return self._counted


async def _price(case: Case, *, alone: bool, directory: Path) -> float:
    made = app(case, directory)
    await answered(made, case, pieces(case, _LENGTHS[0], alone=alone), _nothing)  # warm: what is looked up once
    counted = []
    for deltas in _LENGTHS:
        counter = _Counter()
        try:
            await answered(made, case, pieces(case, deltas, alone=alone), counter.start)
        finally:
            counter.stop()
        counted.append(counter.instructions)
    return (counted[1] - counted[0]) / (_LENGTHS[1] - _LENGTHS[0])


def _nothing() -> None:
    return None


def count() -> dict[str, dict[str, int]]:
    """Return the instructions of a chunk by case and arrival."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, case in enumerate(CASES):
            home = Path(directory) / str(number)
            home.mkdir()
            found[case.name] = {
                arrival: round(asyncio.run(_price(case, alone=arrival == "alone", directory=home)))
                for arrival in ("together", "alone")
            }
    return found


def ratios() -> dict[str, float]:
    """Return the CPU time of chunks that come together over that of msgspec's part, by case."""
    with tempfile.TemporaryDirectory() as directory:
        return {case.name: asyncio.run(_ratio(case, Path(directory))) for case in _TIMED_CASES}


async def _ratio(case: Case, directory: Path) -> float:
    made = app(case, directory)
    reads = [pieces(case, deltas, alone=False) for deltas in _TIMED]
    times: list[list[float]] = [[], [], []]
    for _ in range(_TURNS):
        gc.collect()
        gc.disable()
        for spent, answer in zip(times, reads, strict=False):
            began = time.process_time()
            await answered(made, case, answer, _nothing)
            spent.append(time.process_time() - began)
        began = time.process_time()
        _reference(reads[-1][-1])
        times[-1].append(time.process_time() - began)
        gc.enable()
    short, long, reference = map(min, times)
    return round((long - short) / reference, 2)


def _reference(data: bytes) -> bytes:
    decode, encode = msgspec.json.decode, msgspec.json.encode
    return b"".join(encode(decode(line[6:])) for line in data.split(b"\n") if line.startswith(b"data: {"))


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="make the numbers the budgets")
    parser.add_argument("--json", action="store_true", help="the numbers alone, for the test")
    arguments = parser.parse_args()
    found = {"instructions": count(), "ratios": ratios()}
    if arguments.json:
        sys.stdout.write(json.dumps(found))
        return 0
    budgets = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    for kind, numbers in found.items():
        for name, number in numbers.items():
            sys.stdout.write(f"{kind:13} {name:45} {number} (budget {budgets.get(kind, {}).get(name, '–')})\n")
    if arguments.update:
        BUDGETS.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
