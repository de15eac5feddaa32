"""What the middleware opens once and closes once: the recorder, the operators' desk and the backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from luthien_asgi.drain import LAST_WORDS
from luthien_asgi.exchange import Services
from luthien_asgi.hook_run import bounded
from luthien_asgi.logs import logger_of
from luthien_asgi.recorder import is_healthy
from luthien_asgi.warm_up import WarmBackend

__all__ = ["Resources"]

_log: Final = logger_of(__name__)


class Resources:
    """What is opened once and closed once, whoever comes first."""

    def __init__(self, services: Services, backend: WarmBackend) -> None:
        self._services = services
        self._backend = backend
        self._lock = asyncio.Lock()
        self._open = False

    async def open(self) -> None:
        """Open what traffic needs, and begin to get the backend ready. Raises what the recorder or the desk raises."""
        if self._open:
            return
        async with self._lock:
            if self._open:
                return
            if self._services.approvals is not None:
                await self._services.approvals.start()
            await self._bounded(self._services.recorder.start())
            self._backend.begin()
            self._open = True

    @property
    def recorder_is_healthy(self) -> bool:
        """Whether transactions can be recorded, as far as the recorder knows."""
        return is_healthy(self._services.recorder)

    async def close(self) -> None:
        """End what runs, wait for what goes on behind the answers, write what is to be recorded, close the rest."""
        async with self._lock:
            self._open = False
            left = self._services.drain.left()
            try:
                if self._services.approvals is not None:
                    await self._services.approvals.aclose()
                await self._end_what_runs()
                await self._services.after.ended(left)
                await self._backend.aclose()
            finally:
                self._services.hooks.close()
                self._services.watchdog.close()
                await self._bounded(self._services.recorder.aclose())
                self._services.drain.reset()

    async def _bounded(self, work: Awaitable[None]) -> None:
        settings = self._services.settings
        await bounded(work, settings.record_timeout, grace=settings.close_timeout, what="the recorder")

    async def retire(self) -> None:
        """Wait until what runs has ended, then close: for who takes no new requests, because another one does."""
        limit = self._services.settings.total_timeout
        await self._services.drain.idle(limit)
        await self._services.after.ended(limit)
        await self.close()

    async def _end_what_runs(self) -> None:
        """A server that closes the app while requests run waits no longer; one that cancels them may not wait for their end."""
        drain, moment = self._services.drain, self._services.settings.close_timeout
        drain.begin(moment)
        if not await drain.idle(moment + LAST_WORDS + moment):
            _log.error("%s requests did not end when the server stopped", drain.running)
