"""A target of the coverage-guided fuzzer: what is done with bytes, within which time and memory, and how bytes are varied.

Strategy: a target's `check` takes bytes and raises whatever is wrong: an exception of another kind than it allows, or an
`AssertionError` that says which promise was broken. `attempt` adds the two promises that every target has: CPU time and memory
that grow with the input's length and no faster. Both are measured twice before they are complained about.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = ["CostError", "Target", "attempt"]

_AGAIN: Final = 2
_MEGABYTE: Final = 1 << 20
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
_MEMORY_FREE: Final = 192 * _MEGABYTE
"""What one input may cost whatever its length: an import that is made late, tables of a parser."""
_MEMORY_PER_BYTE: Final = 4_000


class CostError(AssertionError):
    """An input costs more time or memory than its length allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target.

    `seconds` and `per_byte` bound the CPU time of one input: a fixed part, and one for each byte. `vary` returns bytes that are
    like those given in structure; `words` is the dictionary; `longest` bounds what is tried.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    """What to begin with beside the committed corpus: recorded streams and requests, where they are."""
    vary: Callable[[bytes, Random], bytes]
    words: Sequence[bytes] = ()
    longest: int = 8192
    seconds: float = 2.0
    per_byte: float = 200e-6


def attempt(target: Target, data: bytes) -> None:
    """Try one input. Raises what is wrong with it."""
    most = target.seconds + target.per_byte * len(data)
    for again in reversed(range(_AGAIN)):
        spent, grown = _cost(target, data)
        too_much = grown > _MEMORY_FREE + _MEMORY_PER_BYTE * len(data)
        if spent <= most and not too_much:
            return
        if not again:
            what = f"{grown / _MEGABYTE:.0f} MB more memory" if too_much else f"{spent:.2f} s of {most:.2f} s"
            msg = f"{len(data)} bytes cost {what}"
            raise CostError(msg)


def _cost(target: Target, data: bytes) -> tuple[float, int]:
    """Return CPU seconds of this thread, and by how many bytes the process's highest memory use rose."""
    memory, begun = _peak(), time.thread_time()
    target.check(data)
    return time.thread_time() - begun, _peak() - memory


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
