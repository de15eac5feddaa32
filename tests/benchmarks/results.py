"""What was measured, as values and as a file: every round of everything, so that tables, bars and plot can be made again.

The file is one JSON object: `setting` (versions, machine, when), `samples` (one a load, subject and round) and `checks` (bars of
measurements that are not rounds of a load: import, executor, memory).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Results", "Sample", "Verdict", "spread"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar, what was measured, and whether that passes."""

    bar: str
    measured: str
    passed: bool
    moonshot: str = ""
    """What would be better still; with a mark behind it where that is reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One load on one subject in one round.

    Figures, those that the load has: `chunk_us` (CPU, all of it over all deltas), `marginal_us` and `fixed_ms` (a burst's, from
    two lengths), `share` (of the core), `events` (that the client got, a stream), `first_ms` (request to first delta, p50),
    `added_p50_ms` and `added_p99_ms` (a delta's way from the provider's write to the client's read), `hold_min_ms`, `hold_p50_ms`
    and `hold_p99_ms` (from the provider's write of a tool call to the end), `stretch_p50` and `stretch_max` (a stream's time over
    its ideal), `rss_mb`, `idle_mb`, and `open_kb` (an open stream's, above the idle process).
    """

    load: str
    subject: str
    round: int
    figures: Mapping[str, float]
    right: int
    """Streams that were as they should be."""
    wrong: Mapping[str, int]
    """Those that were not, by what was wrong."""
    others_share: float = 0.0
    """CPU share of the servers that were not asked meanwhile, all together."""


@dataclass(slots=True)
class Results:
    """A run."""

    setting: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)
    checks: list[Verdict] = field(default_factory=list)
    file: Path | None = None
    """Where `keep` puts it."""

    def rounds(self, load: str, subject: str) -> list[Sample]:
        """Return a subject's rounds, in order."""
        found = [sample for sample in self.samples if (sample.load, sample.subject) == (load, subject)]
        return sorted(found, key=lambda sample: sample.round)

    def values(self, load: str, subject: str, figure: str) -> list[float]:
        """Return one figure of a subject's rounds; empty when it was not measured."""
        return [sample.figures[figure] for sample in self.rounds(load, subject) if figure in sample.figures]

    def ratios(self, load: str, subject: str, other: str, figure: str) -> list[float]:
        """Return a figure of one subject over another's, round by round, over the rounds that both have."""
        theirs = {sample.round: sample.figures[figure] for sample in self.rounds(load, other) if sample.figures.get(figure)}
        mine = [sample for sample in self.rounds(load, subject) if figure in sample.figures and sample.round in theirs]
        return [sample.figures[figure] / theirs[sample.round] for sample in mine]

    def keep(self) -> None:
        """Write all of it, if there is a file for it: a run may end early."""
        if self.file is None:
            return
        samples, checks = (",\n".join(json.dumps(asdict(value)) for value in values) for values in (self.samples, self.checks))
        setting = json.dumps(self.setting)
        self.file.write_text(f'{{"setting": {setting},\n"samples": [\n{samples}\n],\n"checks": [\n{checks}\n]}}\n')

    @classmethod
    def load(cls, file: Path) -> Results:
        """Read what `keep` wrote."""
        data = json.loads(file.read_text())
        samples = [Sample(**sample) for sample in data["samples"]]
        return cls(data["setting"], samples, [Verdict(**check) for check in data["checks"]], file)


def spread(values: Sequence[float], *, digits: int | None = None) -> str:
    """Return the median, and the extremes behind it: of three digits, or so many behind the point."""
    middle = median(values)
    if digits is None:
        digits = 0 if abs(middle) >= 100 else 1 if abs(middle) >= 10 else 2
    return f"{middle:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
