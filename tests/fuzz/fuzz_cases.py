"""Cases by number, what is wrong with them, their smallest form, and their storage."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Final

from fuzz_check import complaint, difference
from fuzz_drive import CLIENTS, Case, Driver, HangError
from fuzz_mutations import mutated
from fuzz_policies import JUDGES, POLICIES
from fuzz_streams import Stream

__all__ = ["Failure", "attempt", "judged", "load", "make_case", "save", "shrunk"]

_VARIABLE: Final = re.compile(r"[\"'].*?[\"']|\d+|0x[0-9a-f]+|\{.*|\[.*")
_TRIES: Final = 400
"""How often a failing case is tried with less of it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case, and what is wrong with it."""

    case: Case
    complaint: str

    @property
    def kind(self) -> str:
        """The complaint without its particulars."""
        return self.case.client + ": " + _VARIABLE.sub("_", self.complaint)[:90]

    def __str__(self) -> str:
        return f"{self.complaint} ({self.case.backend} -> {self.case.client}, {self.case.policy}; {'; '.join(self.case.trail)})"


def make_case(streams: Sequence[Stream], seed: int, number: int) -> Case:
    """Return the case of that number: always the same one."""
    random = Random(f"{seed}:{number}")
    policy = random.choice(list(POLICIES))
    stream, packets, trail = mutated(streams, random, canary=policy in JUDGES)
    streamed = random.random() < 0.75
    room = random.choice((1, 2, 5, 10_000, 10_000))
    client = random.choice(CLIENTS)
    return Case(backend=stream.wire, client=client, stream=streamed, policy=policy, packets=packets, trail=trail, room=room)


def judged(driver: Driver, case: Case) -> tuple[Failure | None, str]:
    """Return the failure of a case, if it has one, and what became of it: `ended`, `failed`, or what it is a failure of."""
    try:
        outcome = driver.run(case)
    except HangError as error:
        return Failure(case, f"hang: {error}"), "hang"
    wrong = complaint(case, outcome) or difference(case, outcome, driver.run(replace(case, apart=True)))
    if wrong is not None:
        return Failure(case, wrong), wrong.partition(":")[0]
    failed = outcome.error is not None or (outcome.frames and b'"error":{' in outcome.frames[-1])
    return None, "failed" if failed else "ended"


def attempt(case: Case) -> Failure | None:
    """Return the failure of one case, on a loop of its own."""
    driver = Driver()
    try:
        return judged(driver, case)[0]
    finally:
        driver.close()


def shrunk(failure: Failure) -> Failure:
    """Return a smaller case that fails in the same way: fewer events, in one packet each."""
    best, tries = failure, 0
    pieces = _pieces(failure.case.packets)
    step = max(1, len(pieces) // 2)
    best = _same(best, pieces) or best
    while step and tries < _TRIES:
        at = 0
        while at < len(pieces) and tries < _TRIES:
            fewer = pieces[:at] + pieces[at + step :]
            tries += 1
            smaller = _same(failure, fewer)
            if smaller is None:
                at += step
            else:
                best, pieces = smaller, fewer
        step //= 2
    return best


def _pieces(packets: Sequence[bytes]) -> list[bytes]:
    *whole, rest = b"".join(packets).split(b"\n\n")
    return [piece + b"\n\n" for piece in whole] + ([rest] if rest else [])


def _same(failure: Failure, packets: Sequence[bytes]) -> Failure | None:
    found = attempt(replace(failure.case, packets=list(packets)))
    return found if found is not None and found.kind == failure.kind else None


def save(failure: Failure, folder: Path) -> Path:
    """Store a case as JSON, its bytes as Latin-1 text, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    case: dict[str, Any] = {**asdict(failure.case), "packets": [packet.decode("latin-1") for packet in failure.case.packets]}
    text = json.dumps({"complaint": failure.complaint, **case}, indent=1)
    path = folder / f"{failure.case.client}-{sha256(text.encode()).hexdigest()[:8]}.json"
    path.write_text(text + "\n")
    return path


def load(path: Path) -> Case:
    """Return a stored case."""
    fields = json.loads(path.read_text())
    fields.pop("complaint", None)
    return Case(**{**fields, "packets": [packet.encode("latin-1") for packet in fields["packets"]]})
