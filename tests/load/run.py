"""The load laboratory: whether a server under many streams, with faults at both ends, loses, mixes up and keeps nothing.

    python tests/load/run.py                 # all of it, about six minutes
    python tests/load/run.py crowd --server uvicorn-worker
    python tests/load/run.py kills --seed 7

Prints a table of verdicts and figures. The exit status is 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import uvloop
from client import IMPATIENT, Patience
from ledger import Verdict
from loads import Load, Order, crowd, kills, opened, rounds
from plan import Shape
from rich.console import Console
from rich.table import Table
from server import SERVERS

__all__ = ["main", "raise_limit", "show"]

_GUNICORN: Final = "gunicorn-asgi"
_MARKS: Final = {True: "[green]pass[/]", False: "[bold red]FAIL[/]", None: ""}


@dataclass(frozen=True, slots=True)
class _Kind:
    run: Callable[[Load], Awaitable[list[Verdict]]]
    server: str
    streams: int
    at_once: int
    faults: float
    shape: Shape
    """Of which a stream has two thirds of the deltas at least."""
    patience: Patience = IMPATIENT


_KINDS: Final[Mapping[str, _Kind]] = {
    "slice": _Kind(crowd, _GUNICORN, 100, 100, 0.33, Shape(8, 1.0)),
    "crowd": _Kind(crowd, _GUNICORN, 1000, 1000, 0.1, Shape(45, 1.0), Patience()),
    "rounds": _Kind(rounds, "uvicorn", 2000, 200, 0.25, Shape(10, 0.2)),
    "kills": _Kind(kills, _GUNICORN, 2000, 200, 0.25, Shape(16, 0.25)),
}
_ALL: Final = ("crowd", "rounds", "kills")


def raise_limit() -> None:
    """Allow as many open files as the system lets us: a stream has two sockets here, and two in its worker."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def show(title: str, verdicts: list[Verdict], samples: list[str], console: Console) -> bool:
    """Print a table; tell whether everything passed."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("what", "measured", ""):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        table.add_row(verdict.what, verdict.measured, _MARKS[verdict.passed])
    console.print(table)
    for sample in samples:
        console.print(f"  {sample[:600]}", markup=False, soft_wrap=True)
    return all(verdict.passed is not False for verdict in verdicts)


async def _measured(kind: _Kind, order: Order) -> tuple[list[Verdict], list[str]]:
    async with opened(order, kind.patience) as load:
        return await kind.run(load), load.ledger.samples


def _run(name: str, arguments: argparse.Namespace, console: Console) -> bool:
    kind = _KINDS[name]
    server = arguments.server or kind.server
    streams = arguments.streams or kind.streams
    order = Order(
        server=server,
        workers=1 if server == "uvicorn" else arguments.workers,
        streams=streams,
        at_once=min(streams, arguments.at_once or kind.at_once),
        faults=kind.faults if arguments.faults is None else arguments.faults,
        seed=arguments.seed,
        shape=Shape(arguments.deltas or kind.shape.deltas, kind.shape.pace),
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        verdicts, samples = runner.run(_measured(kind, order))
    return show(f"{name}: {streams} streams, {order.workers} x {server}, seed {order.seed}", verdicts, samples, console)


def main() -> int:
    """Run the loads that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loads", nargs="*", choices=[*_KINDS, []], help="which; without any crowd, rounds and kills")
    parser.add_argument("--server", choices=list(SERVERS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--streams", type=int)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--deltas", type=int)
    parser.add_argument("--faults", type=float, help="the share of streams with which something goes wrong")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    raise_limit()
    console = Console(width=None if sys.stdout.isatty() else 160)
    passed = [_run(name, arguments, console) for name in arguments.loads or _ALL]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
