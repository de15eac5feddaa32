"""All targets, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import guided_judges
import guided_parsers
import guided_requests
import guided_streams
from guided_target import Target

__all__ = ["CORPUS", "TARGETS"]

CORPUS: Final = Path(__file__).parent / "corpus"
"""A folder for each target: seeds written by hand, and what was found once, as small as it gets."""
_ALL: Final = [*guided_requests.TARGETS, *guided_streams.TARGETS, *guided_parsers.TARGETS, *guided_judges.TARGETS]
TARGETS: Final[Mapping[str, Target]] = {target.name: target for target in _ALL}
