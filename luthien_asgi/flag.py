"""A flag that tasks wait for: `asyncio.Event` in a tenth of its memory.

Strategy: an event has a deque for its waiters from the start, 760 bytes, and a stream has half a dozen of them for which nobody
waits most of the time. Here the list of waiters is there while somebody waits.
"""

from __future__ import annotations

import asyncio

__all__ = ["Flag"]


class Flag:
    """Is down, then up, and may be taken down again; of one event loop."""

    __slots__ = ("_up", "_waiters")

    def __init__(self) -> None:
        self._up = False
        self._waiters: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Tell whether it is up."""
        return self._up

    def set(self) -> None:
        """Put it up: who waits goes on."""
        self._up = True
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Take it down."""
        self._up = False

    async def wait(self) -> None:
        """Wait until it is put up; return at once if it is."""
        if self._up:
            return
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        waiters = self._waiters
        waiters.append(waiter)
        try:
            await waiter
        finally:
            waiters.remove(waiter)
