"""The client's end of a request: the one owner of `receive()`.

A cancelled `receive()` makes gunicorn's `asgi` worker report a disconnect that did not happen, and two readers steal each other's
messages. So one object reads the body, then waits for the disconnect, and everybody else waits for its event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from luthien_asgi.errors import RequestError
from luthien_asgi.flag import Flag

__all__ = ["ClientConnection", "ClientGoneError"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
_Result = TypeVar("_Result")


class ClientGoneError(Exception):
    """The client left before it got its answer."""


class ClientConnection:
    """Reads one request's body and watches for its client's leaving."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = Flag()
        self._racers: set[_Racer] = set()

    async def read_body(self, *, limit: int) -> bytes:
        """Return the whole body.

        Raises `RequestError` (413) as soon as more than `limit` bytes came, and `ClientGoneError` when the client left.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave()
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                msg = f"The request body is longer than {limit} bytes (body_bytes)."
                raise RequestError(msg, status=413)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def watch(self) -> None:
        """Wait for the disconnect and announce it. Run as a task once the body was read."""
        while not self.gone.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave()

    async def receive(self) -> Message:
        """Stand in for `receive` in a response: says `http.disconnect` once the client is gone."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def race(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns, or cancel it when the client leaves and raise `ClientGoneError`.

        It runs in the caller's task, which is cancelled and taken back as `asyncio.timeout` does it: a task for the work and one
        for the event would cost more than what is raced.
        """
        if self.gone.is_set():
            work.close()
            raise ClientGoneError
        racer = _Racer()
        self._racers.add(racer)
        try:
            return await work
        except asyncio.CancelledError:
            if racer.takes_back():
                raise ClientGoneError from None
            raise
        finally:
            self._racers.discard(racer)
            racer.takes_back()

    def _leave(self) -> None:
        self.gone.set()
        for racer in self._racers:
            racer.cancel()


class _Racer:
    """The current task, which may be cancelled once and is told whether that was all that cancelled it."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._task, self._before = task, task.cancelling()
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True
        self._task.cancel()

    def takes_back(self) -> bool:
        """Take the cancellation back; tell whether there was one, and no other."""
        was_cancelled, self._is_cancelled = self._is_cancelled, False
        return was_cancelled and self._task.uncancel() <= self._before
