"""An ASGI app that runs in a task while a test talks to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from luthien_asgi.testing.waiting import Signal

__all__ = ["ASGIApp", "Message", "Receive", "RunningApp", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class RunningApp:
    """One call of an app, in a task. What it raises is kept and raised by whoever waits for it."""

    def __init__(self, signal: Signal, *, within: float) -> None:
        self.done = False
        self._signal = signal
        self._within = within
        self._error: Exception | None = None
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    async def start(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin the call."""
        await self._group.__aenter__()
        self._task = self._group.create_task(self._run(app, scope, receive, send))

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds or the app has returned; raise what it raised, if the condition does not hold."""
        await self._signal.within(self._within, lambda: holds() or self.done, what=what)
        if not holds():
            self.raise_error()

    def raise_error(self) -> None:
        """Raise what the app raised; once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def end(self) -> None:
        """Cancel the call if it still runs, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
        await self._group.__aexit__(None, None, None)

    async def _run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:  # it becomes data here and is raised where the test waits
            self._error = error
        finally:
            self.done = True
            self._signal.notify()
