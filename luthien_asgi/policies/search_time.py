"""How long all the searches for one request or one chunk may take, and what is too much to search on the event loop.

Strategy: what is small is searched at once, which costs less than a thread does. What is large goes to a thread, and all of its
searches share one time that grows with it, so that many texts get no more than one of their length, and the thread ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from luthien_asgi.errors import PolicyTimeout
from luthien_asgi.policy import ThreadWork

__all__ = ["AT_ONCE", "SearchTime", "searched", "size_of"]

AT_ONCE: Final = 32_768
"""Characters that are searched on the event loop: some ten milliseconds of ordinary text, a fraction of a second of any."""
_SHORTEST: Final = 2.0
_A_CHARACTER: Final = 4e-6
_LONGEST: Final = 20.0
"""Seconds of all the searches together: an ordinary text takes less than one for each million characters."""

_Result = TypeVar("_Result")


class SearchTime:
    """A time that the searches in several texts share."""

    def __init__(self, characters: int) -> None:
        """Make the time for so many characters; it runs from `begin` on."""
        self.seconds = min(_SHORTEST + characters * _A_CHARACTER, _LONGEST)
        self._ends = float("inf")
        self._stopped = False

    def begin(self) -> None:
        """Let it run."""
        self._ends = time.monotonic() + self.seconds

    def stop(self) -> None:
        """Let it be over, also from another thread."""
        self._stopped = True

    def left(self) -> float:
        """Return the seconds that are left. Raises `TimeoutError` where none are."""
        left = self._ends - time.monotonic()
        if left <= 0 or self._stopped:
            msg = "the texts take longer to search than they may"
            raise TimeoutError(msg)
        return left


def searched(name: str, size: int, search: Callable[[SearchTime], _Result]) -> _Result | ThreadWork[_Result]:
    """Return what a search of so many characters returns, or where they are many the work for a thread.

    Raises `PolicyTimeout`, with the name of the policy, when the searches take longer than they may.
    """
    shared = SearchTime(size)

    def call() -> _Result:
        shared.begin()
        try:
            return search(shared)
        except TimeoutError as error:
            msg = f"The policy {name} could not search {size} characters in its time ({shared.seconds:.1f} s)."
            raise PolicyTimeout(msg) from error

    return call() if size <= AT_ONCE else ThreadWork(call, shared.stop)


def size_of(value: Any) -> int:  # noqa: ANN401 - JSON
    """Return how large a JSON value is: the characters of its strings, and one for each value."""
    size, pending = 0, [value]
    while pending:
        each = pending.pop()
        size += 1
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, dict):
            pending += each.keys()
            pending += each.values()
        elif isinstance(each, list | tuple):
            pending += each
    return size
