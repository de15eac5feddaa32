"""What was measured, told: lines while it runs, tables, and what of two documents and the plot is made of a results file.

    python tests/benchmarks/report.py [FILE]            # the tables and the bars, on the console
    python tests/benchmarks/report.py [FILE] --readme   # README.md, tests/benchmarks/README.md and the plot, made anew
    python tests/benchmarks/report.py [FILE] --check    # exit status 1 when they are not what the file makes of them

FILE is what `run.py --json` wrote; `results.json` beside this file is the one that is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any, Final

import bars
import plot
from results import Results, Sample, Verdict
from rich.console import Console
from rich.table import Table

__all__ = ["console_tables", "heading", "line"]

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]
_PLOT: Final = _ROOT / "docs" / "benchmarks.svg"
_MARK: Final = "<!-- benchmarks: {} -->"
NAMES: Final = {
    "direct": "no gateway",
    "aio": "aiohttp + msgspec (floor `aio`)",
    "raw": "Starlette + httpx relay (floor `raw`)",
    "plain": "plain `acompletion` + sse-starlette",
    "none O-O": "**luthien**, no policy",
    "jsonl O-O": "**luthien**, recorder",
    "replace O-O": "**luthien**, `ReplaceText`",
    "rewrite O-O": "**luthien**, `ReplaceText` + recorder",
    "held O-O": "**luthien**, judged tool call",
    "tensorzero": "TensorZero",
    "portkey": "Portkey",
    "litellm": "LiteLLM's proxy",
    "litellm A-O": "LiteLLM's proxy, `/v1/messages`",
}
_OTHERS: Final = ("direct", "aio", "tensorzero", "raw", "portkey", "plain", "litellm", "litellm A-O")
_MAIN: Final = ("aio", "tensorzero", "none O-O", "rewrite O-O", "held O-O", "raw", "portkey", "plain", "litellm")
_PAIRS: Final = ("O-O", "O-A", "A-O", "A-A")
_OURS: Final = tuple(f"{layer} {pair}" for layer in ("none", "rewrite", "held") for pair in _PAIRS)


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    load: str
    figure: str
    less: float = 0.0
    """Taken off each value."""
    full: str = "–"
    """What stands where nothing was measured."""


@dataclass(frozen=True, slots=True)
class _Sheet:
    title: str
    columns: Sequence[_Column]
    subjects: Sequence[str]


_JUDGE_MS: Final = 200
_WIDTH: Final = 120
"""Columns of a document's text."""
_CPU: Final = (
    _Column("CPU µs a chunk, burst", "burst", "chunk_us"),
    _Column("marginal", "burst", "marginal_us"),
    _Column("fixed ms a request", "burst", "fixed_ms"),
    _Column("events a stream", "burst", "events"),
)
_README: Final = _Sheet(
    "",
    (
        _Column("CPU µs a chunk, burst", "burst", "chunk_us"),
        _Column("CPU ms a request", "burst", "fixed_ms"),
        _Column("CPU µs a chunk, 100 paced", "paced-100", "chunk_us", full="full"),
        _Column("added ms a chunk, p50", "paced-100", "added_p50_ms", full="full"),
        _Column("KB an open stream", "footprint", "open_kb"),
    ),
    _MAIN,
)
_SHEETS: Final = (
    _Sheet("A burst: 8 streams at a time, 200 deltas each in one write", _CPU, (*_OTHERS, "jsonl O-O", "replace O-O", *_OURS)),
    *(
        _Sheet(
            f"{count} paced: {count} streams, 200 deltas each, one every 20 ms",
            (
                _Column("first chunk ms", load, "first_ms"),
                _Column("added ms p50", load, "added_p50_ms"),
                _Column("p99", load, "added_p99_ms"),
                _Column("hold − 200 ms", load, "hold_p50_ms", less=_JUDGE_MS),
                _Column("CPU µs a chunk", load, "chunk_us"),
                _Column("time / ideal", load, "stretch_p50"),
            ),
            (*_OTHERS, *_OURS),
        )
        for count in (1, 20, 100, 300)
        for load in (f"paced-{count}",)
    ),
    _Sheet(
        "Memory: a fresh process, 300 streams open",
        (
            _Column("KB an open stream", "footprint", "open_kb"),
            _Column("RSS MB, idle", "footprint", "idle_mb"),
            _Column("RSS MB, 300 open", "footprint", "rss_mb"),
        ),
        (*_OTHERS, *_OURS),
    ),
)


def name(subject: str) -> str:
    """Return a subject's name for a reader."""
    if subject in NAMES:
        return NAMES[subject]
    layer, _, pair = subject.rpartition(" ")
    formats = {"O": "OpenAI", "A": "Anthropic"}
    return f"{NAMES[f'{layer} O-O']}, {formats[pair[0]]} on {formats[pair[-1]]}"


def line(sample: Sample) -> str:
    """Return one sample as a line."""
    figures = "  ".join(f"{figure} {_number(value)}" for figure, value in sample.figures.items())
    wrong = f"  WRONG: {dict(sample.wrong)}" if sample.wrong else ""
    return f"{sample.load:10} {sample.round + 1}  {sample.subject:12} {figures}{wrong}"


def heading(setting: Mapping[str, Any]) -> str:
    """Return what was measured where."""
    packages = ", ".join(f"{package} {number}" for package, number in setting["packages"].items())
    others = ", ".join(f"{peer} {number}" for peer, number in setting["peers"].items())
    return f"{setting['date']}, Python {setting['python']}, {setting['machine']}; {packages}; {others}"


def console_tables(results: Results, verdicts: Sequence[Verdict]) -> Iterator[Table]:
    """Return all that was measured, and the bars."""
    for sheet in _SHEETS:
        rows = list(_rows(sheet, results))
        if rows:
            table = Table("", *(column.title for column in sheet.columns), title=f"{sheet.title} (median, least–most)")
            for row in rows:
                table.add_row(*(cell.replace("`", "").replace("**", "") for cell in row))
            yield table
    bar_table = Table("bar", "measured", "", "moonshot", title="Bars")
    for verdict in verdicts:
        bar_table.add_row(
            verdict.bar, verdict.measured, "[green]PASS[/]" if verdict.passed else "[bold red]FAIL[/]", verdict.moonshot
        )
    yield bar_table


def _rows(sheet: _Sheet, results: Results) -> Iterator[list[str]]:
    for subject in sheet.subjects:
        cells = []
        for column in sheet.columns:
            values = [value - column.less for value in results.values(column.load, subject, column.figure)]
            cells.append(_spread(values) if values else column.full)
        if any(cell not in ("–", "full") for cell in cells):
            yield [name(subject), *cells]


def _spread(values: Sequence[float]) -> str:
    return f"{_number(median(values))} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 9.95 else f"{value:.2f}"


def _markdown(sheet: _Sheet, results: Results) -> list[str]:
    titles = ["", *(column.title for column in sheet.columns)]
    rows = list(_rows(sheet, results))
    if not rows:
        return []
    return ["| " + " | ".join(cells) + " |" for cells in (titles, ["---", *["---:"] * (len(titles) - 1)], *rows)]


def _bars_markdown(results: Results) -> list[str]:
    rows = [
        f"| {verdict.bar} | {verdict.measured} | {'pass' if verdict.passed else '**missed**'} | {verdict.moonshot} |"
        for verdict in bars.verdicts(results)
    ]
    return ["| bar | measured | | moonshot |", "| --- | --- | --- | --- |", *rows]


def _readme(results: Results) -> str:
    setting = results.setting
    where = f"Measured on {setting['date']}: Python {setting['python']}, {setting['machine']}."
    versions = [f"LiteLLM {setting['packages']['litellm']}"]
    versions += [f"{NAMES[peer]} {number}" for peer, number in setting["peers"].items() if peer != "litellm"]
    return "\n".join([*_markdown(_README, results), "", fill(f"{where} {'; '.join(versions)}.", _WIDTH)])


def _sheets(results: Results) -> str:
    parts = [fill(heading(results.setting), _WIDTH), ""]
    parts += ["### The bars", "", *_bars_markdown(results), ""]
    for sheet in _SHEETS:
        if table := _markdown(sheet, results):
            parts += [f"### {sheet.title}", "", *table, ""]
    return "\n".join(parts).rstrip()


def _replaced(file: Path, made: str) -> str:
    """Return a document with what was made between its two marks. Raises `ValueError` for a document without them."""
    begin, end = _MARK.format("begin"), _MARK.format("end")
    before, found, rest = file.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{file} lacks {begin} … {end}")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def documents(results: Results) -> dict[Path, str]:
    """Return the plot, and the documents that have generated parts, as they are to be."""
    made = {_ROOT / "README.md": _readme(results), _HERE / "README.md": _sheets(results)}
    return {_PLOT: plot.draw(results), **{file: _replaced(file, text) for file, text in made.items()}}


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=_HERE / "results.json", help="what run.py --json wrote")
    parser.add_argument("--readme", action="store_true", help="make the generated parts of the documents and the plot anew")
    parser.add_argument("--check", action="store_true", help="tell whether they are as the file makes them")
    arguments = parser.parse_args()
    results = Results.load(arguments.file)
    if arguments.check:
        return int(any(not file.exists() or file.read_text() != text for file, text in documents(results).items()))
    if arguments.readme:
        for file, text in documents(results).items():
            file.write_text(text)
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=150)
    verdicts = list(bars.verdicts(results))
    for table in console_tables(results, verdicts):
        console.print(table)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
