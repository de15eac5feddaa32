"""The second bar: the CPU time of a delta where nothing slows the server down but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from apps import BURST
from fleet import FLOOR, OURS, PLAIN, Server, weigh
from load import Target
from report import Verdict, counted, spread
from rich.console import Console
from rich.table import Table

__all__ = ["measure"]

_BAR: Final = 1 / 12
_REPLACE_BAR: Final = 1.15
_AT_ONCE: Final = 8
_LIMIT: Final = 120.0
_WARM_UP: Final = 16
_LIVE: Final = 2
"""The row of the middleware without a policy; its recorder's and its ReplaceText's come next."""
_LAYERS: Final = (
    ("LuthienMiddleware, no policy", "none", "openai", "openai"),
    ("  and JsonlRecorder", "jsonl", "openai", "openai"),
    ("  and ReplaceText", "replace", "openai", "openai"),
    ("  and a policy on tool calls only", "tools", "openai", "openai"),
    ("  and a policy without hooks", "hookless", "openai", "openai"),
    ("  OpenAI client, Anthropic backend", "none", "openai", "anthropic"),
    ("  Anthropic client, OpenAI backend", "none", "anthropic", "openai"),
    ("  Anthropic client and backend", "none", "anthropic", "anthropic"),
)


@dataclass(slots=True)
class _Row:
    """One server, asked in one way."""

    name: str
    server: Server
    target: Target
    streams: int
    """Of a round."""
    costs: list[float] = field(default_factory=list)
    """CPU microseconds a delta, by round."""
    faults: Counter[str] = field(default_factory=Counter)

    def over(self, other: _Row) -> float:
        """Return the median of the rounds' ratios."""
        return median(self.ratios(other))

    def ratios(self, other: _Row) -> list[float]:
        """Return the rounds' ratios."""
        return [mine / theirs for mine, theirs in zip(self.costs, other.costs, strict=True)]


def measure(
    servers: Mapping[str, Server], *, rounds: int, streams: int, plain_streams: int, console: Console
) -> tuple[Table, list[Verdict], float]:
    """Return the costs, the verdicts, and the CPU microseconds of a delta without a policy.

    The rows take turns within each round, and every second round goes backwards.
    """
    rows = _rows(servers, streams=streams, plain_streams=plain_streams)
    for row in rows:
        weigh(row.server, row.target, streams=_WARM_UP, at_once=_AT_ONCE, limit=_LIMIT)
    for number in range(rounds):
        console.print(f"burst, round {number + 1} of {rounds}")
        for row in rows if number % 2 == 0 else reversed(rows):
            _add_round(row)
    return _table(rows), _verdicts(rows), median(rows[_LIVE].costs)


def _rows(servers: Mapping[str, Server], *, streams: int, plain_streams: int) -> list[_Row]:
    ours, plain, floor = servers[OURS], servers[PLAIN], servers[FLOOR]
    return [
        _Row("litellm.acompletion + sse-starlette", plain, plain.theirs(BURST), plain_streams),
        _Row("Starlette + httpx, bytes relayed", floor, floor.theirs(BURST), streams),
        *(
            _Row(name, ours, ours.ours(BURST, layer=layer, client=client, provider=provider), streams)
            for name, layer, client, provider in _LAYERS
        ),
    ]


def _add_round(row: _Row) -> None:
    weight = weigh(row.server, row.target, streams=row.streams, at_once=_AT_ONCE, limit=_LIMIT)
    row.faults += weight.tally.faults
    row.costs.append(weight.cpu * 1e6 / weight.tally.deltas if weight.tally.deltas else float("nan"))


def _verdicts(rows: Sequence[_Row]) -> list[Verdict]:
    plain, live, replace = rows[0], rows[_LIVE], rows[_LIVE + 2]
    ratio = live.over(plain)
    faults = sum((row.faults for row in rows), Counter[str]())
    return [
        Verdict("burst: CPU a delta without policy over the plain handler's, at most 1/12", _fraction(ratio), ratio <= _BAR),
        Verdict(
            f"burst: ReplaceText with two strings over no policy, at most {_REPLACE_BAR}",
            spread(replace.ratios(live), digits=2),
            replace.over(live) <= _REPLACE_BAR,
        ),
        Verdict("burst: every stream right", f"wrong: {counted(faults)}", not faults),
    ]


def _table(rows: Sequence[_Row]) -> Table:
    title = f"Burst: {BURST[0]} deltas a stream, {_AT_ONCE} streams at a time"
    table = Table("server", "CPU µs a delta (min, max)", "over plain", "over relay", "over no policy", "wrong", title=title)
    for row in rows:
        over = [f"{row.over(rows[1]):.2f}", f"{row.over(rows[_LIVE]):.2f}"]
        table.add_row(row.name, spread(row.costs), _fraction(row.over(rows[0])), *over, counted(row.faults))
    return table


def _fraction(ratio: float) -> str:
    return f"1/{1 / ratio:.1f}"
