"""What came of a load: every outcome judged against its plan and against the records, and the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Final

from client import Outcome
from judge import complaints
from plan import FAULTS
from provider import Provider
from records import Transactions

__all__ = ["Ledger", "Verdict", "percent"]

_SAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the table."""

    what: str
    measured: str
    passed: bool | None = None
    """None: a figure, held to nothing."""


@dataclass(slots=True)
class Ledger:
    """The outcomes of a load. What they held is given up as soon as it is judged."""

    outcomes: list[Outcome] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    """Streams, by what was wrong with them."""
    samples: list[str] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    kills: list[float] = field(default_factory=list)
    """When workers were killed, `monotonic`."""
    _judging: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), repr=False)

    def keep(self, outcome: Outcome) -> None:
        """Take an outcome, and judge it later: `judge`."""
        self.outcomes.append(outcome)

    def take(self, outcome: Outcome) -> None:
        """Take an outcome and judge it in a thread: a large one takes a tenth of a second, in which nobody would be served."""
        self.keep(outcome)
        self._judging.submit(self._judge, outcome)

    def judge(self) -> None:
        """Judge what was kept."""
        for outcome in self.outcomes:
            self._judge(outcome)

    def finish(self) -> None:
        """Wait until what was taken is judged."""
        self._judging.submit(int).result()

    def _judge(self, outcome: Outcome) -> None:
        try:
            found = complaints(outcome, killed=self.killed, kills=self.kills)
        except Exception as error:  # of what nobody thought of: it must not pass for right
            found = [f"cannot be judged: {error!r}"]
        outcome.body = b""
        if found:
            self.wrong[found[0].partition(":")[0]] += 1
            if len(self.samples) < _SAMPLES:
                self.samples.append(f"{outcome.plan}: " + "; ".join(found))

    # --- the table -------------------------------------------------------------------------------------------------------------

    def streams(self) -> list[Verdict]:
        """Return what the clients saw."""
        faults = Counter(outcome.plan.fault for outcome in self.outcomes if outcome.plan.fault)
        cut = sum(outcome.how == "cut" and outcome.plan.fault != "deaf" for outcome in self.outcomes)
        seen = [
            Verdict("streams", f"{len(self.outcomes)}, with a fault {faults.total()}", bool(self.outcomes)),
            Verdict("faults", ", ".join(f"{fault} {faults[fault]}" for fault in FAULTS if faults[fault]) or "none"),
            Verdict("streams that were wrong: none", _told(self.wrong), not self.wrong),
        ]
        if self.kills:
            seen.append(Verdict("workers killed; streams that were cut by it", f"{len(self.kills)}; {cut}", bool(self.kills)))
        return seen

    def times(self, provider: Provider) -> list[Verdict]:
        """Return the figures that are times."""
        well = [outcome for outcome in self.outcomes if not outcome.plan.fault and outcome.plan.stream and outcome.added]
        added = [nanoseconds / 1e6 for outcome in well for nanoseconds in outcome.added]
        begun = [(outcome.began - outcome.asked) * 1e3 for outcome in well]
        left = [
            (provider.closed[outcome.plan.number] - outcome.ended) * 1e3
            for outcome in self.outcomes
            if outcome.how == "left" and outcome.plan.number in provider.closed
        ]
        return [
            Verdict(f"added to each of {len(added)} deltas, ms", _percentiles(added)),
            Verdict("from the request to the response's head, ms", _percentiles(begun)),
            Verdict(f"upstream closed after the client left ({len(left)}), ms", _percentiles(left)),
        ]

    def recorded(self, found: Transactions, wrong: Sequence[str]) -> list[Verdict]:
        """Return what the records say; `wrong` is what is the matter with them."""
        self.samples += wrong[:_SAMPLES]
        endings = Counter(ending for ends in found.ends.values() for ending, _ in ends)
        return [
            Verdict("transactions recorded", f"{len(found.begins)} begun; {_told(endings)}"),
            Verdict("records that are wrong or missing: none", str(len(wrong)), not wrong),
        ]


def percent(values: Sequence[float], percentile: int) -> float:
    """Return a percentile of some values, 0 of none."""
    return quantiles(values, n=100, method="inclusive")[percentile - 1] if len(values) > 1 else sum(values)


def _percentiles(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"p50 {percent(values, 50):.2f}, p99 {percent(values, 99):.1f}, most {max(values):.1f}"


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.most_common()) or "none"


def failed(verdicts: Iterable[Verdict]) -> Collection[str]:
    """Return what did not pass."""
    return [verdict.what for verdict in verdicts if verdict.passed is False]
