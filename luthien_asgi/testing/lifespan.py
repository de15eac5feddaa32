"""The lifespan of an ASGI app around a block of a test."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from luthien_asgi.testing.running import ASGIApp, Message, RunningApp, Scope
from luthien_asgi.testing.waiting import Signal

__all__ = ["Lifespan"]


class Lifespan:
    """Runs an app's lifespan; entering it gives the lifespan's state.

    Raises `RuntimeError` when start-up or shutdown fails, what the app raises, and `TimeoutError`.
    """

    def __init__(self, app: ASGIApp, state: dict[str, Any], *, within: float) -> None:
        self._app = app
        self._state = state
        self._signal = Signal()
        self._running = RunningApp(self._signal, within=within)
        self._asked: deque[Message] = deque()
        self._said: list[Message] = []

    async def __aenter__(self) -> dict[str, Any]:
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        await self._running.start(self._app, scope, self._receive, self._send)
        try:
            await self._ask("startup")
        except BaseException:
            await self._running.end()
            raise
        return self._state

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            await self._ask("shutdown")
            await self._running.until(lambda: self._running.done, "the lifespan's end")
            self._running.raise_error()
        finally:
            await self._running.end()

    async def _ask(self, phase: str) -> None:
        self._said.clear()
        self._asked.append({"type": f"lifespan.{phase}"})
        self._signal.notify()
        await self._running.until(lambda: bool(self._said), f"lifespan {phase}")
        if not self._said or self._said[0]["type"] != f"lifespan.{phase}.complete":
            msg = f"lifespan {phase}: the app said {[dict(message) for message in self._said]}"
            raise RuntimeError(msg)

    async def _receive(self) -> Message:
        await self._signal.until(lambda: bool(self._asked))
        return self._asked.popleft()

    async def _send(self, message: Message) -> None:
        self._said.append(message)
        self._signal.notify()
