"""The plot: labelled bars on a logarithmic scale, written as SVG by hand, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from statistics import median
from typing import Final

from results import Results

__all__ = ["draw"]

_WIDTH: Final = 920
_LABELS: Final = 190
_PANEL: Final = 300
_GAP: Final = 54
_TOP: Final = 84
_ROW: Final = 30
_BAR: Final = 18
_BOTTOM: Final = 62
_STYLE: Final = """
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #24292f }
  .page { fill: #ffffff }
  .title { font-size: 14px; font-weight: 600 } .small { font-size: 11px; fill: #57606a } .end { text-anchor: end }
  .mid { text-anchor: middle } .ours { font-weight: 600 } .grid { stroke: #d0d7de; stroke-width: 1 }
  .floor-bar { fill: #8c959f } .peer-bar { fill: #bf8700 } .ours-bar { fill: #0969da }
  .spread { stroke: #24292f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .spread { stroke: #e6edf3 }
    .page { fill: #0d1117 } .floor-bar { fill: #6e7681 } .peer-bar { fill: #d29922 } .ours-bar { fill: #4493f8 }
  }
"""
_ROWS: Final = (
    ("aio", "floor: aiohttp + msgspec", "floor"),
    ("raw", "floor: Starlette + httpx", "floor"),
    ("none O-O", "luthien, no policy", "ours"),
    ("rewrite O-O", "luthien, text policy + record", "ours"),
    ("held O-O", "luthien, judged tool call", "ours"),
    ("tensorzero", "TensorZero (Rust)", "peer"),
    ("portkey", "Portkey (node)", "peer"),
    ("plain", "plain acompletion", "floor"),
    ("litellm", "LiteLLM's proxy", "peer"),
)


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    load: str
    figure: str


_NOTES: Final = (
    "Less is better; logarithmic scales. Bar: median of the rounds; line: least to most. OpenAI's format, 200 deltas a stream.",
    "Grey: without a gateway. Blue: luthien_asgi. Amber: other gateways, passing on what comes, without any policy.",
)
_PANELS: Final = (
    _Panel("CPU per chunk (burst), µs", "burst", "chunk_us"),
    _Panel("Added latency, 100 paced (p50), ms", "paced-100", "added_p50_ms"),
)


def draw(results: Results) -> str:
    """Return the plot."""
    rows = [row for row in _ROWS if any(results.values(panel.load, row[0], panel.figure) for panel in _PANELS)]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">',
        "<title>CPU per chunk and added latency per chunk of luthien_asgi, floors and other gateways</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
        *_labels(rows),
    ]
    for number, panel in enumerate(_PANELS):
        parts += _panel(results, panel, rows, left=_LABELS + 14 + number * (_PANEL + _GAP))
    for number, note in enumerate(_NOTES):
        parts.append(_text(14, height - 14 - 16 * (len(_NOTES) - 1 - number), note, "small"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _labels(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    for number, (_, label, kind) in enumerate(rows):
        yield _text(_LABELS, _middle(number) + 4, label, "end ours" if kind == "ours" else "end")


def _panel(results: Results, panel: _Panel, rows: Sequence[tuple[str, str, str]], *, left: float) -> Iterator[str]:
    found = [results.values(panel.load, subject, panel.figure) for subject, _, _ in rows]
    seen = [value for values in found for value in values if value > 0]
    if not seen:
        return
    low, high = floor(log10(min(seen)) - 0.05), ceil(log10(max(seen)))

    def place(value: float) -> float:
        return left + (log10(max(value, 10**low)) - low) / (high - low) * _PANEL

    yield _text(left, _TOP - 50, panel.title, "title")
    bottom = _TOP + _ROW * len(rows)
    for power in range(low, high + 1):
        x = place(10**power)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP - 14}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text(x, _TOP - 22, f"{10**power:g}", "small mid")
    for number, ((_, _, kind), values) in enumerate(zip(rows, found, strict=True)):
        y = _middle(number)
        if not values:
            yield _text(left + 6, y + 4, "not put under this load", "small")
            continue
        yield from _bar(left, y, place, values, kind)


def _bar(left: float, y: float, place: Callable[[float], float], values: Sequence[float], kind: str) -> Iterator[str]:
    end, least, most = (place(value) for value in (median(values), min(values), max(values)))
    yield f'<rect class="{kind}-bar" x="{left:.1f}" y="{y - _BAR / 2:.1f}" width="{end - left:.1f}" height="{_BAR}" rx="2"/>'
    if most - least > 1:
        yield f'<line class="spread" x1="{least:.1f}" y1="{y:.1f}" x2="{most:.1f}" y2="{y:.1f}"/>'
    yield _text(max(end, most) + 6, y + 4, _number(median(values)), "ours" if kind == "ours" else "")


def _middle(number: int) -> float:
    return _TOP + _ROW * number + _ROW / 2


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
