"""What every test shares: the event loop, and where the recorded streams are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded provider streams; tests that need it skip with a reason where it is not."""
    default = Path(__file__).parents[2] / "shared" / "recorded"
    folder = Path(os.environ.get("LUTHIEN_RECORDED") or default)
    if not (folder / "INDEX.tsv").is_file():
        pytest.skip(f"no recorded streams: set LUTHIEN_RECORDED to their folder (looked in {folder})")
    return folder
