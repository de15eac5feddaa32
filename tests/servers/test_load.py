"""A slice of the load laboratory, `tests/load`: a hundred streams through two workers, a third of them with a fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.servers

RUN: Final = Path(__file__).parents[1] / "load" / "run.py"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["gunicorn-asgi", "uvicorn-worker"])
def test_a_hundred_streams_with_faults_lose_mix_up_and_keep_nothing(kind: str) -> None:
    """Each client gets what its plan demands, each transaction has its record, and the workers are as before."""
    command = [sys.executable, str(RUN), "slice", "--server", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
