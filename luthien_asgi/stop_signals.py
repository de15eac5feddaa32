"""How a process learns by a signal that its server is asked to stop, or to read its configuration again.

ASGI tells an app of a stop when all requests have ended, which is too late for them.

Strategy: servers stop by a signal for which they have a handler of their own: uvicorn (and gunicorn with uvicorn's worker) a
function, gunicorn's asgi worker one of the event loop's, for which the process has a function too. Ours is put before it, and
calls it. Where there is none (a test, a server in a thread) nothing is changed. Nobody is asked for a private attribute.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

__all__ = ["StopSignals", "on_hangup", "server_stops"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def server_stops() -> bool:
    """Tell whether the uvicorn server that handles this process's SIGTERM was asked to stop."""
    return bool(getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "should_exit", False))


class StopSignals:
    """Calls `stop` in the event loop when the server gets a signal to stop, before the server does."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[int, Any] = {}

    def watch(self) -> None:
        """Begin to watch. Call it in the event loop, once the server has its handlers; twice is once."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._before[number] = handler
                signal.signal(number, self._handle)

    def unwatch(self) -> None:
        """Give the server its handlers back, where nobody has put another one in their place. Twice is once."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in tuple(self._before.items()):
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
                del self._before[number]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop)
        handler = self._before.get(number)
        if handler is not None:
            handler(number, frame)


def on_hangup(call: Callable[[], None]) -> None:
    """Call a function in the running event loop for each SIGHUP, where the system has that signal and this is the main thread."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, call)
