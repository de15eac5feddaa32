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

    async def read_body(self, *, limit: int, announced: str = "") -> bytes:
        """Return the whole body.

        Raises `RequestError` (413) as soon as more than `limit` bytes came, at once where `announced` (the `Content-Length`) says
        that they will, and `ClientGoneError` when the client left.
        """
        if announced.isascii() and announced.isdigit() and _exceeds(announced, limit):
            raise _too_long(limit)
        body = bytearray()  # one buffer that grows: a body that comes a byte at a time is not kept as millions of objects
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave()
                raise ClientGoneError
            part, ended = message.get("body", b""), not message.get("more_body", False)
            if len(body) + len(part) > limit:
                raise _too_long(limit)
            if ended and not body:
                return bytes(part)
            body += part
            if ended:
                return bytes(body)

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


def _exceeds(digits: str, limit: int) -> bool:
    number = digits.lstrip("0") or "0"
    return len(number) > len(str(limit)) or int(number) > limit


def _too_long(limit: int) -> RequestError:
    return RequestError(f"The request body is longer than {limit} bytes (body_bytes).", status=413)


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
