"""What the tests here share: the stage, and the way to the modules beside them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from acceptance.stage import Stage, stage


@pytest.fixture(scope="module")
def set_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The provider and the gateways; what went over the wire stays in the folder."""
    with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running
