"""The time in which an event loop could run: what every limit on a wait is measured in.

Strategy: while requests are under way a timer beats twenty times a second. A beat that is late tells that the loop stood still:
something blocked it, or the process was stopped. That time is taken off, so nobody's limit passes because of somebody else's
code, and whoever asked is told. There is one clock for each loop, as the loop has one `time()`. A loop that stands still all the
time makes all limits longer: what nobody can read, nobody is late with.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from types import CodeType
from typing import Final

__all__ = ["LATE", "TURNS", "LoopClock", "Standstill"]

INTERVAL: Final = 0.05
"""Seconds between two beats: what is taken off is right to this."""
_LEAST: Final = 0.1
"""A beat that is late by less is the ordinary work of a busy loop, and no standstill."""
LATE: Final = 0.01
"""A timer that is late by this many seconds looks again after `TURNS` turns of the loop: what came meanwhile is read first."""
TURNS: Final = 3

Standstill = Callable[[float, float], None]
"""Is told of one that is over: when it began (`time.monotonic`), and how many seconds it took."""

_CALLBACK: Final = asyncio.events.Handle._run.__code__  # noqa: SLF001 - asyncio's way to a callback
_clocks: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock]] = weakref.WeakKeyDictionary()


class LoopClock:
    """Counts the time in which one event loop could run. `beat_at`, `thread` and `base` may be read by other threads."""

    def __init__(self) -> None:
        self.lost = 0.0
        """Seconds in which the loop stood still while requests were under way."""
        self.beat_at = 0.0
        """When the loop was last seen to run (`time.monotonic`)."""
        self.thread = 0
        """The loop's thread."""
        self.base: CodeType | None = None
        """The code that runs callbacks: what is on the thread's stack above it is a callback at work."""
        self._due = 0.0
        self._listeners: list[Standstill] = []
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopClock:
        """Return a loop's clock."""
        clock = _clocks.get(loop)
        if clock is None:
            clock = _clocks[loop] = cls()
        return clock

    def begin(self, listener: Standstill) -> None:
        """Beat from now on, and tell `listener` of each standstill, until `end` is called with it. In the loop only."""
        self._listeners.append(listener)
        if self._timer is None:
            self.thread = threading.get_ident()
            self._set(asyncio.get_running_loop())

    def end(self, listener: Standstill) -> None:
        """Tell this listener nothing any more; the clock rests when there is none."""
        self.look()
        self._listeners.remove(listener)
        if not self._listeners and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def time(self, loop: asyncio.AbstractEventLoop) -> float:
        """Return the seconds in which the loop could run, up to now: `loop.time()` less what was lost."""
        self.look()
        return loop.time() - self.lost

    def look(self) -> None:
        """Take off the time of a standstill that is over, if there was one since the last beat."""
        if self._timer is None:
            return
        now = monotonic()
        if now - self._due < _LEAST:
            return
        began, seconds = self.beat_at, now - self.beat_at
        self.lost += seconds
        self.beat_at, self._due = now, now + INTERVAL
        for listener in self._listeners:
            listener(began, seconds)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self.beat_at = monotonic()
        self._due = self.beat_at + INTERVAL
        self._timer = loop.call_later(INTERVAL, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.base = _base()
        self.look()
        self._set(loop)


def _base() -> CodeType:
    """Return the code that called the callback which is at work: the loop's, or for uvloop the one that runs the loop."""
    frame = sys._getframe(2)  # noqa: SLF001 - documented, and there for this
    if frame.f_code is _CALLBACK and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code
