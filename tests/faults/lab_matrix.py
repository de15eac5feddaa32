"""The matrix as text, and as the document that ships."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lab_cell import Cell
from lab_rows import WIRES, Row
from lab_table import GROUPS

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN: Final = "<!-- written by tests/faults/run.py --markdown -->"
END: Final = "<!-- end -->"
_TITLES: Final = {"provider": "Providers", "client": "Clients", "policy": "Policies", "recorder": "Recorders"}
FORMS: Final = tuple((wire, stream) for wire in WIRES for stream in (True, False))


def matrix(rows: Sequence[Row], cells: Sequence[Cell], servers: Sequence[str]) -> Iterator[str]:
    """Yield a line for each fault."""
    marks = _marks(cells)
    width = max((len(row.name) for row in rows), default=0)
    yield " " * width + "  " + "  ".join(f"{server:14}" for server in servers)
    for row in rows:
        yield f"{row.name:{width}}  " + "  ".join(f"{_shown(marks, row, server):14}" for server in servers)


def details(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield what is wrong with each cell that is not right, and what was wrong with each that was right alone."""
    for cell in cells:
        yield from (f"x {cell}: {complaint[:600]}" for complaint in cell.wrong)
        yield from (f"~ {cell}: {complaint[:600]}" for complaint in cell.beside)


def _marks(cells: Sequence[Cell]) -> dict[tuple[str, str, str, bool], str]:
    return {(cell.row.name, *cell.column): cell.mark for cell in cells}


def _shown(marks: dict[tuple[str, str, str, bool], str], row: Row, server: str) -> str:
    return "".join(marks.get((row.name, server, wire, stream), " ") for wire, stream in FORMS)


def document(rows: Sequence[Row], cells: Sequence[Cell], servers: Sequence[str]) -> str:
    """Return the matrix as Markdown."""
    marks, lines = _marks(cells), []
    for group in GROUPS:
        lines += [f"### {_TITLES[group]}", "", f"| fault | {' | '.join(servers)} |", "| --- |" + " --- |" * len(servers)]
        for row in rows:
            if row.group == group:
                shown = (_shown(marks, row, server).replace(" ", "-") for server in servers)
                lines.append(f"| {row.name} | " + " | ".join(f"`{one}`" for one in shown) + " |")
        lines.append("")
    red = sum(bool(cell.wrong) for cell in cells)
    return "\n".join([*lines, f"{len(rows)} faults, {len(cells)} cells, {red} wrong.", ""])


def write_document(rows: Sequence[Row], cells: Sequence[Cell], servers: Sequence[str]) -> None:
    """Put the matrix into the document."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{document(rows, cells, servers)}\n{END}{after}")
