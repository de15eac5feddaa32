"""The recorder on a disk that is slow where the request says so: `recorder=slow` in its text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from luthien_asgi.jsonl import JsonlRecorder

SLOW_SECONDS: Final = 0.2


class LabRecorder(JsonlRecorder):
    """Takes a fifth of a second in the writer's thread, where a slow disk takes it, for each record that asks for it."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, mask=_slowly)


def _slowly(text: str) -> str:
    if "recorder=slow" in text:
        time.sleep(SLOW_SECONDS)
    return text
