"""Print the matrix of every fault at every server in every format.

    python tests/faults/run.py [--servers NAME,…] [--only TEXT] [--group NAME,…] [--quick] [--markdown] [--log DIR]

One line a fault; for each server six marks: chat completions, messages and responses, each streamed and then not. `.` is right,
`~` was right alone and not beside others (a busy machine, or a race), `x` is wrong, a blank makes no sense. The exit status is 1
if there is an `x`. `--quick` runs one server; `--markdown` writes the matrix into docs/faults.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab import opened, run_server
from lab_cell import Cell
from lab_matrix import details, matrix, write_document
from lab_rows import Row
from lab_servers import COMMANDS
from lab_table import GROUPS, all_rows


def main() -> int:
    """Run, print, and return the exit status."""
    asked = _arguments()
    rows = [row for row in all_rows() if asked.only in row.name and row.group in asked.group.split(",")]
    servers = ["uvicorn"] if asked.quick else asked.servers.split(",")
    begun = time.monotonic()
    cells, complaints = asyncio.run(_run(servers, rows, asked.log))
    print("\n".join([*matrix(rows, cells, servers), "", *details(cells), *complaints]))
    red = sum(bool(cell.wrong) for cell in cells)
    print(f"{len(rows)} faults, {len(cells)} cells, {red} red, in {time.monotonic() - begun:.0f} s")
    if asked.markdown:
        write_document(rows, cells, servers)
    return 1 if red or complaints else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=",".join(COMMANDS), help="of these servers only")
    parser.add_argument("--group", default=",".join(GROUPS), help="of these groups only")
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument("--quick", action="store_true", help="uvicorn alone")
    parser.add_argument("--markdown", action="store_true", help="write docs/faults.md")
    parser.add_argument("--log", type=Path, help="folder for the servers' logs")
    return parser.parse_args()


async def _run(servers: Sequence[str], rows: Sequence[Row], logs: Path | None) -> tuple[list[Cell], list[str]]:
    """Run all servers at the same time, each in the two configurations that its rows want."""
    async with opened() as lab:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(run_server(lab, kind, mine, policied=policied, logs=logs))
                for kind in servers
                for policied in (False, True)
                if (mine := [row for row in rows if row.policied == policied])
            ]
        cells = [cell for task in running for cell in task.result()[0]]
        complaints = [complaint for task in running for complaint in task.result()[1]]
        complaints += [f"x a redirect was followed: {request.path}" for request in lab.elsewhere.requests]
        return cells, complaints


if __name__ == "__main__":
    sys.exit(main())
