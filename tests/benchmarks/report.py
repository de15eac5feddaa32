"""What the measurements have in common when they are told: verdicts and numbers as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

__all__ = ["Verdict", "counted", "spread", "verdict_table"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar, what was measured, and whether that passes."""

    bar: str
    measured: str
    passed: bool


def spread(values: Sequence[float], *, digits: int = 1) -> str:
    """Return the median, and the extremes behind it."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}, {max(values):.{digits}f})"


def counted(faults: Mapping[str, int]) -> str:
    """Return how many streams were wrong, and how."""
    return ", ".join(f"{count} {fault}" for fault, count in faults.items()) or "none"


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return one row a bar."""
    table = Table("bar", "measured", "", title="Bars")
    for verdict in verdicts:
        table.add_row(verdict.bar, verdict.measured, "[green]PASS[/]" if verdict.passed else "[bold red]FAIL[/]")
    return table
