"""The end of a server's work: what runs may end by itself for a while, then it is ended with an error that its client is told.

Strategy: waits that may be long stand in a `limit`, which costs a transaction a timer object and no task. While nobody stops the
server a limit has no time, or the one that it was given; `begin` gives all of them one, those that come later included. What
still runs at its time fails with a `ShutdownError` in the place where it waits, and goes the way of every other error: a body, or
the error event of the client's format. Where that takes too long (a client that does not read) a `last` limit ends the rest
`LAST_WORDS` seconds later.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from luthien_asgi.errors import ApiError
from luthien_asgi.flag import Flag

__all__ = ["LAST_WORDS", "Drain", "Limit", "ShutdownError", "closing"]

LAST_WORDS: Final = 2.0
"""Seconds in which what was ended may still be told to its client, after `drain_timeout`."""
RETRY_AFTER: Final = "1"
"""Seconds after which a client may come again: another process or another machine is there, or this one is soon."""


def closing(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the header that has a client open another connection for its next request; HTTP/2 has none."""
    return {"connection": "close"} if scope.get("http_version", "1.1").startswith("1") else {}


class ShutdownError(ApiError):
    """The server stops: the request is not begun, or was ended when the time for running answers was over."""

    status = 503

    def __init__(self, message: str = "The server was stopped before the answer ended; try again.") -> None:
        super().__init__(message, code="shutdown", headers={"retry-after": RETRY_AFTER})


class Drain:
    """Knows what runs, and when it has to end. Of one event loop; made anywhere.

    Args:
        timeout: Seconds that what runs is given.
    """

    def __init__(self, timeout: float = math.inf) -> None:
        self._timeout = timeout
        self._deadline: float | None = None
        """When what runs is ended, in the loop's time; None while nobody stops the server."""
        self._limits: set[Limit] = set()
        self._running = 0
        self._idle = Flag()
        self._idle.set()

    @property
    def begun(self) -> bool:
        """Whether the server stops."""
        return self._deadline is not None

    def begin(self, within: float = math.inf) -> None:
        """Begin to stop: what runs is given the timeout, or `within` seconds where that is less. Again, it can be given less."""
        deadline = asyncio.get_running_loop().time() + max(0.0, min(self._timeout, within))
        if self._deadline is not None and self._deadline <= deadline:
            return
        self._deadline = deadline
        for limit in tuple(self._limits):
            limit.move()

    def reset(self) -> None:
        """Begin anew, in a server that starts again."""
        self._deadline = None

    def left(self) -> float:
        """Return the seconds until what runs is ended, 0 at least; all that it would get while nobody stops the server."""
        if self._deadline is None:
            return self._timeout
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def at(self, until: float | None, after: float) -> float | None:
        """Return when a limit is over that ends `after` seconds after what runs is ended, and at `until` in any case."""
        if self._deadline is None:
            return until
        over = min(self._deadline + after, math.inf if until is None else until)
        return over if over < math.inf else None

    def limit(self, until: float | None = None) -> Limit:
        """Return an `async with` that raises `ShutdownError` in its block when the time of what runs is over.

        `until`, in the loop's time, ends the block in any case: that is a `TimeoutError`, which its `expired()` tells from those
        of others.
        """
        return Limit(self, until, 0.0)

    def last(self) -> Limit:
        """Return one that ends `LAST_WORDS` seconds later: around what is done about the end."""
        return Limit(self, None, LAST_WORDS)

    def add(self, limit: Limit) -> None:
        """Take a limit that was entered."""
        self._limits.add(limit)

    def discard(self, limit: Limit) -> None:
        """Forget a limit."""
        self._limits.discard(limit)

    # --- what runs -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> None:
        self._running += 1
        self._idle.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()

    @property
    def running(self) -> int:
        """How many requests run: those that entered this object and did not leave."""
        return self._running

    async def idle(self, within: float | None = None) -> bool:
        """Wait until nothing runs, at most `within` seconds; tell whether nothing does."""
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class Limit:
    """A time limit that a drain can move: `asyncio.timeout_at`, and what it raises says who ended the block."""

    __slots__ = ("_after", "_drain", "_timeout", "_until")

    def __init__(self, drain: Drain, until: float | None, after: float) -> None:
        self._drain, self._until, self._after = drain, until, after
        self._timeout = asyncio.timeout_at(drain.at(until, after))

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._drain.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._drain.discard(self)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            if self._until is not None and self._until == self._timeout.when():
                raise
            raise ShutdownError from None

    def expired(self) -> bool:
        """Tell whether the block was ended."""
        return self._timeout.expired()

    def move(self) -> None:
        """Take over the drain's time; a block that is being ended already is left alone."""
        if not self._timeout.expired():
            self._timeout.reschedule(self._drain.at(self._until, self._after))
