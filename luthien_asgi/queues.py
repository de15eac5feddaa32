"""The two queues of a transaction: bounded by items and by bytes, ending in exactly one terminal item.

One writer, one reader. `asyncio.Queue` knows neither bytes nor an end (its `shutdown` is Python 3.13's), so this is the one
place that does. A full queue makes the writer wait; no room for `timeout` seconds is `QueueFullError`, the circuit breaker. The
terminal item always has room: a stream that failed because a queue is full can still say so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypedDict, TypeVar

from luthien_asgi.errors import ApiError, QueueFullError
from luthien_asgi.flag import Flag
from luthien_asgi.wait_limit import WaitTimeout, limited

__all__ = ["End", "Failed", "QueueBounds", "StreamQueue", "Terminal"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class End:
    """The stream ended as it should."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream ended with an error."""

    error: ApiError


Terminal = End | Failed


class QueueBounds(TypedDict):
    """How much a queue holds, in items and bytes, and how many seconds its writer waits for room."""

    max_items: int
    max_bytes: int
    timeout: float


class StreamQueue(Generic[_Item]):
    """A queue of items, then one `Terminal`."""

    def __init__(self, *, max_items: int, max_bytes: int, timeout: float) -> None:
        self._items: deque[tuple[_Item, int, int]] = deque()
        self._count = 0
        self._terminal: Terminal | None = None
        self._bytes = 0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._reader: asyncio.Future[None] | None = None
        """What a reader waits for."""
        self._listener: Callable[[], object] | None = None
        self._taker: Callable[[], object] | None = None
        self._writable = Flag()

    def __len__(self) -> int:
        return self._count

    @property
    def ended(self) -> bool:
        """Whether the terminal item is in."""
        return self._terminal is not None

    def offer(self, item: _Item, size: int) -> bool:
        """Add an item of `size` bytes if there is room; tell whether there was. An empty queue takes an item of any size."""
        if self._terminal is not None:
            msg = f"the queue has ended with {self._terminal!r}"
            raise RuntimeError(msg)
        if not self.has_room(size):
            return False
        self._append(item, size, 1)
        self._announce()
        return True

    def has_room(self, size: int, count: int = 1) -> bool:
        """Tell whether an item of `size` bytes that stands for `count` items can be added now."""
        if not self._items and count == 1:
            return True
        return self._count + count <= self._max_items and self._bytes + size <= self._max_bytes

    def hand(self, item: _Item, size: int, count: int = 1) -> None:
        """Add an item, whether there is room or not, and let whoever `tell` named take it before this returns.

        `count` items of the bound are taken by it. Without a taker it is only added.
        """
        self._append(item, size, count)
        if self._taker is not None:
            self._taker()
        else:
            self._announce()

    def _append(self, item: _Item, size: int, count: int) -> None:
        self._items.append((item, size, count))
        self._count += count
        self._bytes += size

    async def put(self, item: _Item, size: int) -> None:
        """Add an item of `size` bytes, waiting for room. Raises `QueueFullError` after `timeout` seconds."""
        if self.offer(item, size):
            return
        try:
            with limited(self._timeout):
                while not self.offer(item, size):
                    self._writable.clear()
                    await self._writable.wait()
        except WaitTimeout:
            msg = "The client did not take the answer in time."
            raise QueueFullError(msg) from None

    def end(self, terminal: Terminal) -> None:
        """Add the terminal item; a second one is ignored, because the first is what ended the stream."""
        if self._terminal is None:
            self._terminal = terminal
            self._announce()

    async def get(self) -> _Item | Terminal:
        """Return the next item, or the terminal one when no other is left."""
        await self._wait()
        if not self._items:
            return self._ending()
        item, size, count = self._items.popleft()
        self._bytes -= size
        self._count -= count
        self._writable.set()
        return item

    async def get_ready(self) -> list[_Item | Terminal]:
        """Return all items that are there, at least one; the terminal item comes last, in a list with others or alone."""
        await self._wait()
        return self.take_ready()

    def take_ready(self) -> list[_Item | Terminal]:
        """Return the same without waiting: nothing if nothing is there."""
        ready: list[_Item | Terminal] = [item for item, _, _ in self._items]
        self._items.clear()
        self._bytes = self._count = 0
        self._writable.set()
        if self._terminal is not None:
            ready.append(self._terminal)
        return ready

    def tell(self, listener: Callable[[], object] | None, taker: Callable[[], object] | None = None) -> None:
        """Call `listener` whenever something was added, in place of a reader that waits: that one takes what is ready.

        It is called at once if something is there already, and is not to take long. `taker` is called for what is handed over
        (`hand`), in its place, and takes what is ready before it returns. None ends that.
        """
        self._listener, self._taker = listener, taker
        if listener is not None and (self._items or self._terminal is not None):
            listener()

    def _announce(self) -> None:
        if self._listener is not None:
            self._listener()
        elif self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _wait(self) -> None:
        while not self._items and self._terminal is None:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def _ending(self) -> Terminal:
        if self._terminal is None:  # pragma: no cover - `_wait` returns with an item or the terminal
            msg = "an empty queue has not ended"
            raise RuntimeError(msg)
        return self._terminal
