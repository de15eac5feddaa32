"""The complaint of the history checks, and what both wires check alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["HistoryError", "known_fields", "require", "unique"]


class HistoryError(Exception):
    """The real API answers 400 to this history; the message is what it says."""


def require(holds: object, complaint: str) -> None:
    """Raise `HistoryError` unless the condition holds."""
    if not holds:
        raise HistoryError(complaint)


def known_fields(value: Mapping[str, Any], known: Collection[str], complaint: str) -> None:
    """Raise `HistoryError` for the first field that is not known; `complaint` has `{}` in its place."""
    for name in value:
        require(name in known, complaint.format(name))


def unique(values: Iterable[str], complaint: str) -> None:
    """Raise `HistoryError` for the first value that comes twice; `complaint` has `{}` in its place."""
    seen: set[str] = set()
    for value in values:
        require(value not in seen, complaint.format(value))
        seen.add(value)
