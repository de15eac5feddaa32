"""Gets the backend ready beside the server: LiteLLM's import takes seconds, in which the process answers already.

Strategy: the start of the backend is one task, begun once; requests wait for it where they need the backend, after everything
that can be refused without it. What waits says so in the log, all waiters together once in a while. A start that failed is tried
again by the next request, and the requests that come meanwhile are answered with a 503.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, Literal

from luthien_asgi.backend.protocol import Backend, BackendCall, BackendStream, Target
from luthien_asgi.errors import ApiError
from luthien_asgi.hooks import keepalive
from luthien_asgi.logs import logger_of
from luthien_asgi.settings import StreamSettings

__all__ = ["BackendState", "WarmBackend"]

_log: Final = logger_of(__name__)
BackendState = Literal["starting", "ready", "failed"]
_LOG_INTERVAL: Final = 2.0
"""Seconds between two lines about requests that wait."""
_BEAT: Final = 0.5
"""A policy's hook that waits here is not stuck: its watchdog hears so this often, in seconds."""
_RETRY_AFTER: Final = "5"
"""Seconds after which a refused client may try again (the official SDKs do so by themselves)."""
_FAILED: Final = "The gateway cannot reach any model: its backend did not start."


class WarmBackend:
    """A `Backend` whose `start` is the one start that all requests share. Everything else is the backend's own."""

    def __init__(self, backend: Backend, settings: StreamSettings) -> None:
        self._backend = backend
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self._began = self._told = 0.0
        self._waiting = 0
        self.state: BackendState = "starting"
        """`failed` until a later attempt has succeeded."""
        self.make_chunk = backend.make_chunk

    def begin(self) -> None:
        """Begin the start, unless it has begun; it goes on beside what the caller does."""
        if self.state == "ready" or self._under_way():
            return
        self._began = self._told = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._start())

    def _under_way(self) -> bool:
        """Whether an attempt is going on in this loop; one of a loop that has ended will not."""
        return self._task is not None and not self._task.done() and self._task.get_loop() is asyncio.get_running_loop()

    async def _start(self) -> None:
        try:
            await self._backend.start()
        except Exception:
            self.state = "failed"
            _log.exception("the backend could not start")
            return
        self.state = "ready"
        # Whoever was told of requests that wait is told that they do no more.
        level = logging.WARNING if self._told > self._began else logging.INFO
        _log.log(level, "the backend is ready after %.1f s", time.monotonic() - self._began)

    async def start(self) -> None:
        """Wait for a request until the backend is ready.

        Raises `ApiError` (503) when it cannot start, or not within `start_timeout`.
        """
        if self.state == "ready":
            return
        if self.state == "failed" and self._under_way():
            raise _unavailable(_FAILED)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.start_timeout):
                await self.ready()
        except TimeoutError:
            raise _unavailable("The gateway is still starting; try again.") from None
        finally:
            self._waiting -= 1

    async def ready(self) -> None:
        """Wait until the backend is ready, however long that takes. Raises `ApiError` (503) when it cannot start."""
        self.begin()
        task = self._task
        while task is not None and not task.done():
            await asyncio.wait({task}, timeout=_BEAT)
            keepalive()
            self._tell()
        if self.state != "ready":
            raise _unavailable(_FAILED)

    def _tell(self) -> None:
        now = time.monotonic()
        if self._waiting and self.state != "ready" and now - self._told >= _LOG_INTERVAL:
            self._told = now
            what = "1 request waits" if self._waiting == 1 else f"{self._waiting} requests wait"
            _log.warning("%s for the backend, which has been starting for %.1f s", what, now - self._began)

    def models(self) -> Sequence[str]:
        """Return the model names that a client may ask for; that needs no start."""
        return self._backend.models()

    def target(self, model: str) -> Target:
        """Return what a model name stands for; that needs no start."""
        return self._backend.target(model)

    async def open(self, call: BackendCall) -> BackendStream:
        """Call the provider."""
        return await self._backend.open(call)

    async def count_tokens(self, call: BackendCall) -> int:
        """Return the number of input tokens."""
        return await self._backend.count_tokens(call)

    async def aclose(self) -> None:
        """Give up a start that is under way, and close the backend; it may be started again."""
        task, under_way, self._task = self._task, self._under_way(), None
        self.state = "starting"
        if under_way and task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._backend.aclose()


def _unavailable(message: str) -> ApiError:
    return ApiError(message, status=503, headers={"retry-after": _RETRY_AFTER})
