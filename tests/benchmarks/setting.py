"""What is measured, with which versions, on which machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from peers import PEERS, Peer

__all__ = ["setting"]

_PACKAGES: Final = ("luthien-asgi", "litellm", "uvicorn", "starlette", "sse-starlette", "httpx", "aiohttp", "msgspec", "uvloop")


def setting(there: Mapping[str, tuple[Peer, Path]]) -> dict[str, Any]:
    """Return it as a value for JSON; `there`: the gateways that are installed, and where."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {_cpu_model()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "peers": {name: there[name][0].version(there[name][1]) if name in there else "not installed" for name in PEERS},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from the source tree" if name == "luthien-asgi" else "not installed"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
