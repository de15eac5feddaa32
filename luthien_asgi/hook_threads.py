"""Threads for hooks that block: few, and none that keeps the interpreter from ending.

Strategy: nothing can end a thread from outside. So a hook whose time is over is left in its thread, which takes the next one when
it ends. While every thread is held by a hook that is over its time, a new one is refused at once: it would wait for nothing. The
threads are daemons, which the interpreter does not wait for at its exit, unlike those of a `ThreadPoolExecutor`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import Any, Final

__all__ = ["HookThreads", "ThreadJob"]


_IDLE: Final = 10.0
"""Seconds that a thread waits for another hook before it goes."""


class ThreadJob:
    """One call on its way to a thread, or in one."""

    __slots__ = ("_alive_at", "_call", "_limit", "future", "is_left")

    def __init__(self, call: Callable[[], Any], *, limit: float) -> None:
        """Make a call that may take `limit` seconds, and as many again whenever it says that it is alive."""
        self._call = call
        self._limit = limit
        self._alive_at = monotonic()
        self.future: Future[Any] = Future()
        self.is_left = False
        """Whether its time is over and nobody waits for it any more."""

    def touch(self) -> None:
        """Say that it is alive."""
        self._alive_at = monotonic()

    @property
    def is_stuck(self) -> bool:
        """Whether its time is over, and it is not."""
        return self.is_left or monotonic() - self._alive_at > self._limit

    def run(self) -> None:
        """Call it, unless nobody waits for it any more."""
        if not self.future.set_running_or_notify_cancel():
            return
        self.touch()
        try:
            result = self._call()
        except BaseException as error:
            self.future.set_exception(_ordinary(error))
        else:
            self.future.set_result(result)


class HookThreads:
    """At most so many threads, made when they are needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[ThreadJob] = deque()
        self._closed = False
        self._running: set[ThreadJob] = set()
        self._threads = 0
        self._changed = threading.Condition()

    async def run(self, job: ThreadJob) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a call returns. Raises what it raises, and `BlockingIOError` when every thread is held for good."""
        self._take(job)
        return await asyncio.wrap_future(job.future)

    @property
    def stuck(self) -> int:
        """How many threads are held by hooks whose time is over."""
        with self._changed:
            return self._stuck()

    def _stuck(self) -> int:
        return sum(job.is_stuck for job in self._running)

    def _take(self, job: ThreadJob) -> None:
        with self._changed:
            if self._stuck() >= self._most:
                msg = "every thread is held by a hook whose time is over"
                raise BlockingIOError(msg)
            self._closed = False
            self._waiting.append(job)
            if self._threads - len(self._running) < len(self._waiting) and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._work, name=f"luthien-policy_{self._threads}", daemon=True).start()
            self._changed.notify()

    def _work(self) -> None:
        job: ThreadJob | None = None
        while True:
            with self._changed:
                if job is not None:
                    self._running.discard(job)
                job = None
                self._changed.wait_for(lambda: self._waiting or self._closed, _IDLE)
                if not self._waiting:
                    self._threads -= 1
                    return
                job = self._waiting.popleft()
                self._running.add(job)
            job.run()

    def close(self) -> None:
        """Let the threads go, those at work when their hooks end; what waits is cancelled."""
        with self._changed:
            for job in self._waiting:
                job.future.cancel()
            self._waiting.clear()
            self._closed = True
            self._changed.notify_all()


def _ordinary(error: BaseException) -> Exception:
    """Return what is raised in the event loop, where some exceptions mean something else or would end it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    ordinary = RuntimeError(f"{type(error).__name__} was raised")
    ordinary.__cause__ = error
    return ordinary
