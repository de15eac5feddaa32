"""Let real clients run a tool through the gateway, past an allowing, a denying and a judging policy, on both kinds of backend.

    python tests/clients/run.py claude-code|codex|pydantic-ai|langchain|vercel|all [--only WORDS] [--latest] [--keep FOLDER]

What a client needs is installed on first use (see README.md here). Nothing leaves this machine but those installations.
Exit status 0: all is well, skipped clients apart; 1: a case failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from acceptance.checks import Report
from acceptance.clients import CLIENTS
from acceptance.installs import MissingError
from acceptance.stage import Stage, stage
from rich.console import Console
from rich.markup import escape


def run_client(name: str, stage: Stage, console: Console, *, only: str, latest: bool) -> bool:
    """Run one client's cases and print each; tell whether all is well."""
    wanted = [case for case in CLIENTS[name].cases if all(word in case.name for word in only.split())]
    if not CLIENTS[name].cases:
        console.print(f"[yellow]skipped[/] {name}: the gateway does not answer its API")
        return True
    good, noted = True, set[str]()
    try:
        for report in stage.reports(name, wanted, latest=latest):
            show(report, noted, console)
            good = good and not report.problems
    except MissingError as error:
        console.print(f"[yellow]skipped[/] {name}: {error}")
    return good


def show(report: Report, noted: set[str], console: Console) -> None:
    """Print a case's report; a note that was printed before is not printed again."""
    new = [note for note in report.notes if note not in noted]
    noted.update(new)
    console.print(f"[{'red]FAILED' if report.problems else 'green]ok    '}[/] {report.case.name}", highlight=False)
    for line in [*report.problems, *(f"({note})" for note in new)]:
        console.print(f"       {escape(line)}", highlight=False, soft_wrap=True)


@contextmanager
def folder_of(keep: Path | None) -> Iterator[Path]:
    """Yield the folder of the run: the one to keep, or a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="luthien-clients-") as name:
            yield Path(name)
        return
    keep.mkdir(parents=True, exist_ok=False)
    yield keep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("client", choices=[*CLIENTS, "all"])
    parser.add_argument("--only", default="", metavar="WORDS", help="only cases whose name holds each of these words")
    parser.add_argument("--latest", action="store_true", help="the newest versions instead of the pinned ones")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for configurations, logs, records, transcripts")
    given = parser.parse_args(arguments)
    console = Console()
    names = [*CLIENTS] if given.client == "all" else [given.client]
    with folder_of(given.keep) as folder, stage(folder.resolve()) as running:
        good = [run_client(name, running, console, only=given.only, latest=given.latest) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
