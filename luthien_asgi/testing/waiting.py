"""Waiting for something to become true, without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Signal"]


class Signal:
    """Wakes whoever waits for a condition each time something changed. One event loop only."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Let every waiter look at its condition again."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return as soon as the condition holds."""
        while not holds():
            await self._event.wait()

    async def within(self, seconds: float, holds: Callable[[], bool], *, what: str) -> None:
        """Return as soon as the condition holds. Raises `TimeoutError` that says what did not happen."""
        try:
            async with asyncio.timeout(seconds):
                await self.until(holds)
        except TimeoutError:
            msg = f"{what}: not within {seconds} s"
            raise TimeoutError(msg) from None
