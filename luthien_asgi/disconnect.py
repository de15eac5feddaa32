"""The client's end of a request: the one owner of `receive()`.

A cancelled `receive()` makes gunicorn's `asgi` worker report a disconnect that did not happen, and two readers steal each other's
messages. So one object reads the body, then waits for the disconnect, and everybody else waits for its event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from luthien_asgi.errors import RequestError

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
        self.gone = asyncio.Event()

    async def read_body(self, *, limit: int) -> bytes:
        """Return the whole body.

        Raises `RequestError` (413) as soon as more than `limit` bytes came, and `ClientGoneError` when the client left.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
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
                self.gone.set()

    async def receive(self) -> Message:
        """Stand in for `receive` in a response: says `http.disconnect` once the client is gone."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def race(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns, or cancel it when the client leaves and raise `ClientGoneError`."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(_outcome(work))
            gone = tasks.create_task(self.gone.wait())
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
            gone.cancel()
        if task.cancelled():
            raise ClientGoneError
        result, error = task.result()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # one of the two is always set


async def _outcome(work: Coroutine[Any, Any, _Result]) -> tuple[_Result | None, Exception | None]:
    """Turn an exception into a value: raised in a task group it would arrive wrapped in an exception group."""
    try:
        return await work, None
    except Exception as error:
        return None, error
