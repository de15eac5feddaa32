"""What was found out a while ago and may be used again: bounded in number and in age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

__all__ = ["Recent"]

_Value = TypeVar("_Value")

SECONDS: Final = 60.0
MOST: Final = 256


class Recent(Generic[_Value]):
    """Values by key: those of the last `seconds`, the last used `most` of them. `clock` tells seconds, from whenever."""

    def __init__(self, *, seconds: float = SECONDS, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._found: OrderedDict[Hashable, tuple[_Value, float]] = OrderedDict()

    def get(self, key: Hashable) -> _Value | None:
        """Return the value of a key; None where there is none, or none any more."""
        found = self._found.get(key)
        if found is None:
            return None
        value, until = found
        if self._clock() >= until:
            del self._found[key]
            return None
        self._found.move_to_end(key)
        return value

    def put(self, key: Hashable, value: _Value) -> None:
        """Keep a value; the one that was used the longest ago makes room for it."""
        self._found[key] = (value, self._clock() + self._seconds)
        self._found.move_to_end(key)
        if len(self._found) > self._most:
            self._found.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Drop a key's value."""
        self._found.pop(key, None)
