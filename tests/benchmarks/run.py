"""Measure what the middleware costs, beside a plain handler and a byte relay, and hold it to its bars.

    python tests/benchmarks/run.py [--quick]

Exit status 0: all bars are passed; 1: one is not; 2: it cannot be measured here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import burst
import imports
import inside
import judged
import paced
from fleet import fleet
from report import Verdict, verdict_table
from rich.console import Console

_PACKAGES: Final = ("luthien-asgi", "litellm", "uvicorn", "starlette", "sse-starlette", "httpx")
_WIDTH: Final = 150
"""Columns where the output is no terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured."""

    rounds: int
    streams: int
    """Burst streams of a round."""
    plain_streams: int
    """The same for the plain handler, which takes its time."""
    paced_rounds: int
    judged_rounds: int
    inside_rounds: int
    held: int
    """Bytes of a held block."""


FULL: Final = Effort(rounds=7, streams=200, plain_streams=32, paced_rounds=5, judged_rounds=7, inside_rounds=21, held=1 << 20)
QUICK: Final = Effort(rounds=3, streams=80, plain_streams=16, paced_rounds=3, judged_rounds=1, inside_rounds=7, held=1 << 18)


def measure(effort: Effort, console: Console) -> list[Verdict]:
    """Measure everything, print the tables, return the verdicts."""
    import_table, verdicts = imports.measure()
    console.print(import_table)
    with fleet() as servers:
        burst_table, burst_verdicts, delta_cost = burst.measure(
            servers, rounds=effort.rounds, streams=effort.streams, plain_streams=effort.plain_streams, console=console
        )
        console.print(burst_table)
        paced_table, paced_verdicts = paced.measure(servers, rounds=effort.paced_rounds, console=console)
        console.print(paced_table)
        judged_table, judged_verdicts = judged.measure(servers, rounds=effort.judged_rounds, console=console)
        console.print(judged_table)
    inside_tables, inside_verdicts = inside.measure(delta_cost, rounds=effort.inside_rounds, held=effort.held)
    console.print(*inside_tables, sep="\n")
    return [*verdicts, *burst_verdicts, *paced_verdicts, *judged_verdicts, *inside_verdicts]


def setting() -> str:
    """Return what is measured where."""
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores, {packages}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer streams and rounds, in about two minutes")
    effort = QUICK if parser.parse_args().quick else FULL
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    if importlib.util.find_spec("luthien_asgi") is None:
        console.print("luthien_asgi is not installed: run `tox -e bench`, or `pip install .` first")
        return 2
    console.print(setting())
    try:
        verdicts = measure(effort, console)
    except (RuntimeError, subprocess.SubprocessError) as error:
        console.print(f"cannot measure: {error}", markup=False)
        return 2
    console.print(verdict_table(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
