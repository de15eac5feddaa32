"""A recorder that several middlewares of one process use, one after the other: opened for the first, closed after the last.

A record that stays the same over a change of the configuration so stays open: one process writes one file.
"""

from __future__ import annotations

import asyncio
from typing import Any

from luthien_asgi.record_routes import RecordFinder
from luthien_asgi.recorder import Begin, End, TransactionRecorder, wants_blocks

__all__ = ["Lease", "SharedRecorder"]


class SharedRecorder:
    """A recorder, and how many have it open. Of one event loop; made anywhere."""

    def __init__(self, recorder: TransactionRecorder) -> None:
        self.recorder = recorder
        self._users = 0
        self._lock = asyncio.Lock()

    def lease(self) -> Lease:
        """Return the recorder for one user, who opens and closes it as if it were its own."""
        return Lease(self)

    async def open(self) -> None:
        """Take one more user. Raises what the recorder's `start` raises."""
        async with self._lock:
            if not self._users:
                await self.recorder.start()
            self._users += 1

    async def close(self) -> None:
        """Let one user go."""
        async with self._lock:
            self._users -= 1
            if not self._users:
                await self.recorder.aclose()


class Lease:
    """A recorder in the hands of one user: what else the recorder has (`durable`, `healthy`, `find`, …) its lease has too."""

    def __init__(self, shared: SharedRecorder) -> None:
        self._shared = shared
        self._recorder = shared.recorder
        self._is_open = False
        self.wants_blocks = wants_blocks(shared.recorder)
        if isinstance(shared.recorder, RecordFinder):
            self.find = shared.recorder.find  # a protocol's check looks at what is there, and asks no `__getattr__`

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the recorder's own
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._recorder, name)

    async def start(self) -> None:
        """Open it. Twice is once."""
        if not self._is_open:
            self._is_open = True
            try:
                await self._shared.open()
            except BaseException:
                self._is_open = False
                raise

    async def begin(self, begin: Begin) -> None:
        """Keep the begin of a transaction."""
        await self._recorder.begin(begin)

    async def end(self, end: End) -> None:
        """Keep the end of a transaction."""
        await self._recorder.end(end)

    async def aclose(self) -> None:
        """Close it, if nobody else has it open. Twice is once."""
        if self._is_open:
            self._is_open = False
            await self._shared.close()
