"""The first bar: what importing the package costs."""

from __future__ import annotations

import json
import subprocess
import sys
from math import inf
from statistics import median
from typing import Final

from results import Verdict, spread
from rich.table import Table

__all__ = ["measure"]

_BAR_MS: Final = 150.0
_RUNS: Final = 7
_LIMIT: Final = 60.0
_STATEMENTS: Final = {
    "import luthien_asgi": (f"< {_BAR_MS:.0f} ms, without litellm", _BAR_MS),
    "from luthien_asgi import LuthienMiddleware, LiteLLMBackend, Policy": ("without litellm", inf),
}
"""The first has the bar of time. The second loads what the first leaves for later: its time is shown; LiteLLM waits there too."""


def measure() -> tuple[Table, list[Verdict]]:
    """Return the times of fresh processes, and the verdicts."""
    table = Table("statement", "wall ms (min, max)", "litellm in sys.modules", title="Import, in a fresh process")
    verdicts = []
    for statement, (bar, limit) in _STATEMENTS.items():
        times, loaded = _times(statement)
        table.add_row(statement, spread(times), "yes" if loaded else "no")
        verdicts.append(Verdict(f"{statement}: {bar}", f"{median(times):.1f} ms", median(times) < limit and not loaded))
    return table, verdicts


def _times(statement: str) -> tuple[list[float], bool]:
    code = (
        "import json, sys, time; began = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps([(time.perf_counter() - began) * 1000, 'litellm' in sys.modules]))"
    )
    runs = [_run(code) for _ in range(_RUNS)]
    return [milliseconds for milliseconds, _ in runs], any(loaded for _, loaded in runs)


def _run(code: str) -> tuple[float, bool]:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=_LIMIT)
    milliseconds, loaded = json.loads(done.stdout)
    return milliseconds, loaded
