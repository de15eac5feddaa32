"""What the load laboratory shares with the benchmark next door: its provider's bytes, its processes, its reading of HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import upstream
from load import chunks
from processes import Child, memory_kb, spawn, tree

__all__ = ["Child", "chunks", "memory_kb", "spawn", "tree", "upstream"]
