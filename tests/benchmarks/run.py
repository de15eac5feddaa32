"""Measure what the middleware costs, beside what does less and beside other gateways, and hold it to its bars.

    python tests/benchmarks/run.py [--quick] [--rounds N] [--only NAME ...] [--everything] [--json FILE]

Exit status 0: all bars are passed; 1: one is not; 2: it cannot be measured here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import bars
import imports
import inside
import memory
import peers
import report
from fleet import Fleet, fleet
from measuring import Running, footprint, measure, warm_up
from results import Results, Sample, Verdict
from rich.console import Console
from setting import setting
from subjects import BARS_NEED, DIRECT, LOADS, OURS, Load, Subject, subjects

_WIDTH: Final = 150
"""Columns where the output is no terminal."""
_CHECKS: Final = ("import", "inside", "memory")
_FOOTPRINT: Final = "footprint"
_NAMES: Final = (*LOADS, _FOOTPRINT, *_CHECKS)
_FOOTPRINT_STREAMS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of a burst of one length."""
    footprints: int
    """Rounds of fresh processes."""
    inside_rounds: int
    held: int
    """Bytes of a held block."""


FULL: Final = Effort(rounds=5, seconds=1.0, footprints=5, inside_rounds=21, held=1 << 20)
QUICK: Final = Effort(rounds=2, seconds=0.5, footprints=1, inside_rounds=7, held=1 << 18)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: loads with their subjects, footprints, checks."""

    effort: Effort
    loads: list[tuple[Load, list[Subject]]]
    footprints: list[Subject]
    checks: list[str]

    def servers(self) -> list[str]:
        """Return who has to be up for the loads."""
        return list(dict.fromkeys(subject.server for _, asked in self.loads for subject in asked if subject.server != DIRECT))


def plan(arguments: argparse.Namespace, there: Sequence[str]) -> Plan:
    """Return what the command line asks for."""
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds:
        effort = replace(effort, rounds=arguments.rounds, footprints=arguments.rounds)
    named = [name for name in arguments.only if name in _NAMES] or list(_NAMES)
    asked = {name for name in arguments.only if name not in _NAMES}

    def chosen(load: str) -> list[Subject]:
        found = subjects(load, peers=there, everything=arguments.everything) if load in named else []
        if arguments.quick:
            found = [subject for subject in found if subject.key in BARS_NEED.get(load, ())]
        return [subject for subject in found if not asked or {subject.key, subject.server, subject.layer} & asked]

    loads = [(load, found) for load in LOADS.values() if (found := chosen(load.name))]
    checks = [] if asked else [name for name in _CHECKS if name in named]
    return Plan(effort=effort, loads=loads, footprints=chosen(_FOOTPRINT), checks=checks)


def run_loads(planned: Plan, servers: Fleet, results: Results, console: Console) -> None:
    """Put the loads on the servers, all of them up and one at a time asked, in turns within each round, there and back."""
    with servers.running(planned.servers()) as running:
        for load, asked in planned.loads:
            for subject in asked:
                warm_up(servers, subject, running)
            for number, subject in _turns(planned.effort.rounds, asked):
                results.samples.append(_told(servers, load, subject, running, number, planned.effort, console))
            results.keep()


def _turns(rounds: int, asked: Sequence[Subject]) -> Iterator[tuple[int, Subject]]:
    for number in range(rounds):
        for subject in asked if number % 2 == 0 else reversed(asked):
            yield number, subject


def _told(
    servers: Fleet, load: Load, subject: Subject, running: Running, number: int, effort: Effort, console: Console
) -> Sample:
    sample = measure(servers, load, subject, running, number=number, seconds=effort.seconds)
    console.print(report.line(sample), markup=False, highlight=False)
    return sample


def run_footprints(planned: Plan, servers: Fleet, results: Results, console: Console) -> None:
    """Weigh open streams in fresh processes."""
    for number in range(planned.effort.footprints):
        for subject in planned.footprints:
            sample = footprint(servers, subject, number=number, streams=_FOOTPRINT_STREAMS)
            results.samples.append(sample)
            console.print(report.line(sample), markup=False, highlight=False)
        results.keep()


def run_checks(planned: Plan, servers: Fleet, results: Results, console: Console) -> None:
    """Measure what is no load."""
    if "import" in planned.checks:
        table, verdicts = imports.measure()
        console.print(table)
        results.checks += verdicts
    if "inside" in planned.checks:
        # A chunk that goes through the executor by itself is one that came by itself: in a burst they go as runs.
        delta = results.values("paced-100", "none O-O", "chunk_us") or [_DELTA_US]
        tables, verdicts = inside.measure(min(delta), rounds=planned.effort.inside_rounds, held=planned.effort.held)
        console.print(*tables, sep="\n")
        results.checks += verdicts
    if "memory" in planned.checks:
        results.checks += memory.measure(servers, console=console)


def _known(there: Sequence[str]) -> list[str]:
    """Return what `--only` may say: loads and checks, then servers, layers and their ways."""
    every = [subject for load in (*LOADS, _FOOTPRINT) for subject in subjects(load, peers=there, everything=True)]
    return list(dict.fromkeys([*_NAMES, *(name for one in every for name in (one.server, one.layer, one.key) if name)]))


def _unknown(arguments: argparse.Namespace, there: Sequence[str]) -> list[str]:
    known = _known(there)
    return [name for name in arguments.only if name not in known]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds of what the bars need, in about four minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each load (default {FULL.rounds})")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(_NAMES)}, and of servers and layers"
    )
    parser.add_argument("--everything", action="store_true", help="every layer and pair of formats under every load, in an hour")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all rounds; report.py makes tables and the plot of it")
    return parser.parse_args()


def main() -> int:
    """Run as a program."""
    arguments = _arguments()
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    if importlib.util.find_spec(OURS + "_asgi") is None:
        console.print("luthien_asgi is not installed: run `tox -e bench`, or `pip install '.[fast]'` first", markup=False)
        return 2
    place = os.environ.get(peers.VARIABLE)
    home = Path(place).resolve() if place else None
    there = {peer.name: (peer, home / peer.name) for peer in peers.installed(home) if home}
    results = Results(setting(there), file=arguments.json)
    console.print(report.heading(results.setting))
    planned = plan(arguments, list(there))
    if unknown := _unknown(arguments, list(there)):
        console.print(f"--only knows nothing of {', '.join(unknown)}; it knows {', '.join(_known(list(there)))}", markup=False)
        return 2
    try:
        with fleet(there) as servers:
            run_loads(planned, servers, results, console)
            run_footprints(planned, servers, results, console)
            run_checks(planned, servers, results, console)
    except (RuntimeError, subprocess.SubprocessError) as error:
        console.print(f"cannot measure: {error}", markup=False)
        return 2
    finally:
        results.keep()
    return _end(results, console)


def _end(results: Results, console: Console) -> int:
    verdicts: list[Verdict] = list(bars.verdicts(results))
    for table in report.console_tables(results, verdicts):
        console.print(table)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


_DELTA_US: Final = 100.0
"""What a delta that comes alone costs in the server, roughly, where no paced load of this run says it."""

if __name__ == "__main__":
    sys.exit(main())
