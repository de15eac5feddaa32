"""The figures of the documents are those of the run that is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
REPORT: Final = [sys.executable, str(ROOT / "tests" / "benchmarks" / "report.py")]


def test_the_documents_tell_what_was_measured() -> None:
    """Tables and plot are as `report.py` makes them of `results.json`; `report.py --readme` makes them anew."""
    assert subprocess.run([*REPORT, "--check"], timeout=60).returncode == 0


def test_the_bars_are_told_on_the_console() -> None:
    """One row a bar, from the file alone."""
    told = subprocess.run(REPORT, capture_output=True, text=True, timeout=60).stdout
    assert "burst, text policy + recorder, CPU a chunk over plain" in told
