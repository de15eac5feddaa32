"""An event loop whose time stands still until it is told to go on, and which never waits for the outside.

`settle()` runs what can run now; `advance(seconds)` lets time pass from one timer to the next, and settles after each. So a test
decides every interleaving, nothing sleeps, and an hour's time-out costs nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

__all__ = ["BusyError", "VirtualLoop"]

_STEPS: Final = 50_000


class BusyError(RuntimeError):
    """The loop never comes to rest."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._steps = 0
        self.set_exception_handler(self._note)
        self.complaints: list[str] = []
        """What was raised where nobody saw it."""

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def settle(self) -> None:
        """Run until nothing is left that could run now. Raises `BusyError` when that does not come."""
        self._steps = 0
        self.run_forever()

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self._now + seconds
        self.settle()
        while (due := self._next_timer()) is not None and due <= end:
            self._now = max(self._now, due)
            self.settle()
        self._now = end
        self.settle()

    def _next_timer(self) -> float | None:
        timers: Any = getattr(self, "_scheduled", ())
        return min((timer.when() for timer in timers if not timer.cancelled()), default=None)

    def _run_once(self) -> None:
        ready: Any = getattr(self, "_ready", ())
        due = self._next_timer() if not ready else None
        if not ready and (due is None or due > self._now):
            self.stop()
            return
        self._steps += 1
        if self._steps > _STEPS:
            self.stop()
            msg = f"not at rest after {_STEPS} steps"
            raise BusyError(msg)
        super()._run_once()  # type: ignore[misc]  # the loop's own step

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")
