"""What a validator finds: rules by name, violations of them, and the sink that collects both within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

__all__ = ["MAX_VIOLATIONS", "Place", "Rule", "Severity", "Sink", "Violation", "joined", "quoted", "rules"]

Severity = Literal["error", "warning"]

MAX_VIOLATIONS: Final = 1000
"""Violations kept of one stream. A stream with more of them is not understood better by reading on."""
_QUOTED: Final = 60
"""Characters of a value that a message quotes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a wire. `error` is illegal; `warning` is legal, but known to trouble a client or unknown to this table."""

    name: str
    says: str
    severity: Severity = "error"
    """Of what a gateway emits (`strict=True`)."""
    provider: Severity = "error"
    """Of what a provider emits (`strict=False`): what real providers are known to do is a warning there."""


def rules(*each: Rule) -> Mapping[str, Rule]:
    """Return a table of rules by name."""
    return MappingProxyType({rule.name: rule for rule in each})


class Place(NamedTuple):
    """Where in a stream: the event's number (comments count) and line, both from 1, and the offset of its first byte."""

    event: int
    offset: int
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule broken at one place."""

    rule: str
    message: str
    event: int
    """Number of the event, from 1; comments count. 0 for a body that is not a stream."""
    offset: int
    """Offset in bytes of the event's first byte; at the end of a stream its length."""
    line: int = 0
    """Number of the event's first line, from 1. 0 for a body that is not a stream."""
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"event {self.event}, line {self.line}, byte {self.offset}: " if self.event else ""
        return f"{where}{self.severity}: {self.rule}: {self.message}"


class Sink:
    """Collects the violations of one stream. After `MAX_VIOLATIONS` it says so once and collects no more."""

    def __init__(self, table: Mapping[str, Rule], *, strict: bool) -> None:
        self.violations: list[Violation] = []
        self.place = Place(0, 0, 0)
        self._table = table
        self._strict = strict

    def report(self, rule: str, message: str, *, place: Place | None = None) -> None:
        """Add a violation at the current place, or at `place`."""
        if len(self.violations) > MAX_VIOLATIONS:
            return
        if len(self.violations) == MAX_VIOLATIONS:
            rule, message = "too-many", f"more than {MAX_VIOLATIONS} violations: the rest is not listed"
        known = self._table[rule]
        event, offset, line = place if place is not None else self.place
        severity = known.severity if self._strict else known.provider
        violation = Violation(rule=rule, message=message, event=event, offset=offset, line=line, severity=severity)
        self.violations.append(violation)

    def require(self, holds: object, rule: str, message: str) -> bool:
        """Report the violation unless the condition holds; tell whether it does. For messages that cost nothing to write."""
        if not holds:
            self.report(rule, message)
        return bool(holds)


def quoted(value: object) -> str:
    """Return a value as a message quotes it: one line, cut, printable, whatever it is and however large."""
    if isinstance(value, str):
        return _cut(repr(value[: _QUOTED + 1]))
    if isinstance(value, bytes):
        return _cut(repr(value[: _QUOTED + 1])[1:])
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a number of more than 256 bits"
    return "null" if value is None else repr(value)


def _cut(text: str) -> str:
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def joined(names: Iterable[object]) -> str:
    """Return the first names of a list, as a message says them."""
    shown = sorted(map(str, names))
    return ", ".join(shown[:8]) + (" …" if len(shown) > 8 else "")
