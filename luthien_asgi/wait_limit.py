"""A time limit on waits that follow one another: one timer for all of them, however many there are.

Strategy: a stream waits once for each of its chunks, and `asyncio.timeout` sets up and takes down a timer with each wait, which
costs more than the wait. Here the timer stays. When it fires it looks whether the wait that it was set for is over; then it is
set for the one that is going on, or left off until there is another.

Time in which the loop stood still does not count (`loop_clock`), and a timer that is late waits for a few turns of the loop, in
which what came meanwhile is read: somebody who only could not read what is there has not waited too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from luthien_asgi.loop_clock import LATE, TURNS, LoopClock

__all__ = ["WaitLimit", "WaitTimeout", "limited"]


class WaitTimeout(TimeoutError):
    """A wait took longer than it may; an ordinary `TimeoutError` comes from what was waited for."""


class WaitLimit:
    """Bounds the waits of one task, the first that waits, one wait at a time; `close` takes the timer down.

    `with limit.of(seconds): await …` raises `WaitTimeout` where `asyncio.timeout` would raise `TimeoutError`. Must be made where
    an event loop runs.
    """

    __slots__ = ("_cancelling", "_clock", "_due", "_expired", "_loop", "_task", "_timer", "_waits", "_when")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = LoopClock.of(self._loop)
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.Handle | None = None
        self._when = 0.0
        """When the timer fires, in the clock's time."""
        self._due = 0.0
        self._cancelling = 0
        self._waits = False
        self._expired = False

    def of(self, seconds: float) -> Self:
        """Bound the wait that begins now."""
        self._due = self._loop.time() - self._clock.lost + seconds
        if self._timer is None:
            self._set()
        elif self._due < self._when:
            self._timer.cancel()
            self._set()
        return self

    def of_all(self, seconds: float) -> Self:
        """Bound this wait and those after it, all together: `seconds` from the first one on."""
        if not self._due:
            self.of(seconds)
        elif self._timer is None:
            self._set()
        return self

    def __enter__(self) -> None:
        task = self._task
        if task is None:
            task = self._task = asyncio.current_task(self._loop)
            assert task is not None  # noqa: S101 - only a task can wait
        self._cancelling = task.cancelling()
        self._waits = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._waits = False
        if not self._expired:
            return
        self._expired = False
        assert self._task is not None  # noqa: S101 - it was cancelled by the timer
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise WaitTimeout(self) from error

    def close(self) -> None:
        """Take the timer down; there will be no other wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._task = None

    def _set(self) -> None:
        self._when = self._due
        self._timer = self._loop.call_at(self._due + self._clock.lost, self._fire)

    def _fire(self, turns: int = 0) -> None:
        self._timer = None
        if not self._waits:
            return
        late = self._clock.time(self._loop) - self._due
        if late < 0:
            self._set()
        elif turns or late > LATE:
            self._look_again(turns or TURNS)
        else:
            self._expire()

    def _look_again(self, turns: int) -> None:
        if turns == 1:
            self._expire()
        else:
            self._when = self._due
            self._timer = self._loop.call_soon(self._fire, turns - 1)

    def _expire(self) -> None:
        if self._task is not None:
            self._expired = True
            self._task.cancel()


@contextmanager
def limited(seconds: float) -> Iterator[WaitLimit]:
    """Bound what is waited for in a `with` statement. Raises `WaitTimeout`, with the limit as its argument."""
    limit = WaitLimit()
    try:
        with limit.of(seconds):
            yield limit
    finally:
        limit.close()
