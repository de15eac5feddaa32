"""The bars: what the figures are held to, each a ratio of rounds of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from layers import LAYERS
from policies import JUDGE_SECONDS
from results import Results, Verdict, spread

__all__ = ["verdicts"]

TEXT: Final = "rewrite O-O"
"""`ReplaceText` and a JsonlRecorder, OpenAI client and backend: what most bars are about."""
_PASS: Final = "none O-O"
_HELD: Final = "held O-O"


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure, as values of the rounds; its median must not be above `limit`."""

    name: str
    values: Callable[[Results], Sequence[float]]
    limit: float
    moonshot: float | None = None
    fraction: bool = False
    """Told as 1/n."""
    unit: str = ""

    def verdict(self, results: Results) -> Verdict | None:
        """Return the verdict; None when it was not measured."""
        values = self.values(results)
        if not values:
            return None
        reached = median(values)
        return Verdict(
            f"{self.name}: at most {self._told(self.limit)}",
            self._shown(values),
            reached <= self.limit,
            "" if self.moonshot is None else f"{self._told(self.moonshot)} {'✓' if reached <= self.moonshot else '–'}",
        )

    def _told(self, value: float) -> str:
        return f"1/{1 / value:.0f}" if self.fraction else f"{value:g}{self.unit}"

    def _shown(self, values: Sequence[float]) -> str:
        if self.fraction:
            return f"1/{1 / median(values):.1f} (1/{1 / min(values):.1f}–1/{1 / max(values):.1f})"
        return spread(values) + self.unit


def _ratio(load: str, subject: str, other: str, figure: str) -> Callable[[Results], Sequence[float]]:
    return lambda results: results.ratios(load, subject, other, figure)


def _values(load: str, subject: str, figure: str) -> Callable[[Results], Sequence[float]]:
    return lambda results: results.values(load, subject, figure)


_BARS: Final = (
    Bar(
        "burst, text policy + recorder, CPU a chunk over plain",
        _ratio("burst", TEXT, "plain", "chunk_us"),
        1 / 25,
        1 / 40,
        True,
    ),
    Bar("burst, text policy + recorder, CPU a chunk over raw", _ratio("burst", TEXT, "raw", "chunk_us"), 1.6, 1.0),
    Bar("burst, marginal CPU a chunk over TensorZero's", _ratio("burst", TEXT, "tensorzero", "marginal_us"), 2.0, 1.0),
    Bar("burst, fixed CPU a request over plain's", _ratio("burst", TEXT, "plain", "fixed_ms"), 0.4, 0.2),
    Bar("100 paced, CPU a chunk over raw", _ratio("paced-100", TEXT, "raw", "chunk_us"), 1.1, 0.7),
    Bar("300 paced on one core, median stream over its ideal time", _values("paced-300", TEXT, "stretch_p50"), 1.3, 1.1),
    Bar("20 paced, added latency p50 over aio", _ratio("paced-20", TEXT, "aio", "added_p50_ms"), 2.5, 1.5),
    Bar("100 paced, added latency p50 over aio", _ratio("paced-100", TEXT, "aio", "added_p50_ms"), 2.5, 1.5),
    Bar("burst, Anthropic client on OpenAI backend over O-O", _ratio("burst", "rewrite A-O", TEXT, "chunk_us"), 1.3, 1.0),
    Bar("burst, Anthropic client and backend over O-O", _ratio("burst", "rewrite A-A", TEXT, "chunk_us"), 1.3, 1.0),
    Bar("memory of an open paced stream", _values("footprint", TEXT, "open_kb"), 60, 25, unit=" KB"),
    Bar("burst, no policy, CPU a chunk over plain", _ratio("burst", _PASS, "plain", "chunk_us"), 1 / 12, fraction=True),
    Bar("burst, ReplaceText over no policy", _ratio("burst", "replace O-O", _PASS, "chunk_us"), 1.15),
    Bar("100 paced, no policy, slowest stream over its ideal time", _values("paced-100", _PASS, "stretch_max"), 1.1),
    Bar("20 paced, text before a held call, added latency p50", _values("paced-20", _HELD, "added_p50_ms"), 1.0, unit=" ms"),
)


def verdicts(results: Results) -> Iterator[Verdict]:
    """Return what can be said of what was measured, and that a gateway was missing."""
    for bar in _BARS:
        if verdict := bar.verdict(results):
            yield verdict
    if results.samples:
        yield from _right(results)
        if results.setting["peers"]["tensorzero"] == "not installed":
            yield Verdict("burst, marginal CPU a chunk over TensorZero's", "– (TensorZero is not installed)", True)
    yield from results.checks


def _right(results: Results) -> Iterator[Verdict]:
    ours = [sample for sample in results.samples if sample.subject.split()[0] in LAYERS]
    wrong = {f"{sample.subject} {fault}": count for sample in ours for fault, count in sample.wrong.items()}
    streams = sum(sample.right for sample in ours)
    told = ", ".join(f"{count} {fault}" for fault, count in wrong.items()) or f"none of {streams}"
    yield Verdict("our streams that were wrong or unfinished: none", told, not wrong)
    holds = [sample.figures["hold_min_ms"] for sample in ours if "hold_min_ms" in sample.figures]
    if holds:
        least = JUDGE_SECONDS * 1000
        yield Verdict(f"every judged call was held {least:.0f} ms", f"shortest {min(holds):.1f} ms", min(holds) >= least)
