"""Whether the record is whole: one begin and one end for each transaction, each with its own stream's marker and no other's."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from client import Outcome
from judge import ENDINGS, MARKER

__all__ = ["Transactions", "complaints", "read_records"]

_BEHIND: Final = 2.0
"""Seconds by which a worker on a busy machine may hear later of a client that left than of an answer that ended."""


@dataclass(slots=True)
class Transactions:
    """Everything that is in the records, by id."""

    begins: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    """The markers in each begin."""
    ends: dict[str, list[tuple[str, list[bytes]]]] = field(default_factory=lambda: defaultdict(list))
    """The ending, and the markers, of each end."""
    torn: int = 0
    """Lines that a killed process left unfinished."""


def read_records(files: Iterable[Path]) -> Transactions:
    """Read all workers' files."""
    found = Transactions()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                _take(found, line)
    return found


def _take(found: Transactions, line: bytes) -> None:
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:
        found.torn += bool(line.strip())
        return
    markers = sorted(set(MARKER.findall(line)))
    if said["type"] == "checkpoint":
        return
    if said["type"] == "begin":
        plan = said["request"]["messages"][0]["content"].split(":")
        found.begins[said["id"]] += [b"%08d" % int(plan[1])]
    elif said["type"] == "end":
        found.ends[said["id"]].append((said["ending"], markers))


def complaints(
    found: Transactions, outcomes: Iterable[Outcome], *, finished: Mapping[int, float], killed: bool = False
) -> Iterator[str]:
    """Yield what is wrong. `finished`: when the provider had written all of an answer.

    Where workers were killed, lines may be torn, and what they had begun has been given its end by those that came after them.
    """
    if found.torn and not killed:
        yield f"{found.torn} torn lines"
    yield from _one_each(found)
    for outcome in outcomes:
        late = outcome.ended >= finished.get(outcome.plan.number, math.inf) - _BEHIND
        yield from _of_stream(found, outcome, late=late, killed=killed)


def _one_each(found: Transactions) -> Iterator[str]:
    for transaction in found.ends.keys() - found.begins.keys():
        yield f"{transaction}: an end without a begin"
    for transaction, numbers in found.begins.items():
        if len(numbers) != 1:
            yield f"{transaction}: {len(numbers)} begins"
        ends = found.ends.get(transaction, [])
        if len(ends) != 1:
            yield f"{transaction}: {len(ends)} ends"
        if any(set(markers) - set(numbers) for _, markers in ends):
            yield f"{transaction}: its end holds what belongs to another stream"


def _of_stream(found: Transactions, outcome: Outcome, *, late: bool, killed: bool) -> Iterator[str]:
    """Yield what is wrong with the record of a stream. `late`: its client left, if it did, when all had been written."""
    plan, transaction = outcome.plan, outcome.transaction
    if outcome.status and not transaction:
        yield f"stream {plan.number}: status {outcome.status} without a transaction's id"
    if not transaction:
        return
    if found.begins.get(transaction) != [b"%08d" % plan.number]:
        yield f"stream {plan.number}: its transaction {transaction} has begun as {found.begins.get(transaction)}"
        return
    endings = ENDINGS.get(plan.fault, {"failed"}) | ({"interrupted"} if killed else set())
    if (late and outcome.how == "left") or (plan.fault == "deaf" and outcome.how == "whole"):
        endings |= {"completed"}
    wrong = {ending for ending, _ in found.ends.get(transaction, [])} - endings
    if wrong:
        yield f"stream {plan.number} ({plan.fault or 'no fault'}, {outcome.how}): recorded as {wrong}"
