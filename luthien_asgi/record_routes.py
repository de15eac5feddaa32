"""The route of operators to the record of one transaction, by the id that its answer had in `x-luthien-transaction`.

A key of an operator is needed, which no client has: a record holds what others asked. What it holds is shown in a terminal here,
so every character that is not printable stands as its escape. A search reads files from the disk: it runs in a thread, one at a
time, and no longer than the recorder allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from luthien_asgi.approval_routes import printable
from luthien_asgi.auth import Auth, authenticate
from luthien_asgi.errors import ApiError
from luthien_asgi.responses import Send, send_content
from luthien_asgi.settings import StreamSettings
from luthien_asgi.slots import Room

__all__ = ["RecordFinder", "RecordRequest"]

LONGEST_ID: Final = 200
"""Characters of an id that is looked for."""


@runtime_checkable
class RecordFinder(Protocol):
    """A recorder that can find what it keeps."""

    async def find(self, transaction_id: str) -> Mapping[str, Any] | None:
        """Return a transaction as `{"id", "begin", "end"}`, `end` None while it runs; None where there is none.

        Raises `ApiError` where it cannot be looked for now, or not that far back.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRequest:
    """One request of an operator's for a record."""

    finder: RecordFinder
    auth: Auth
    headers: Mapping[str, str]
    send: Send
    settings: StreamSettings
    room: Room
    """For requests whose operator is not known yet."""

    async def answer(self, transaction_id: str) -> None:
        """Answer with the record of a transaction, or with the error."""
        try:
            await authenticate(self.auth, self.headers, self.settings, self.room)
            found = await self._found(transaction_id)
        except ApiError as error:
            body = {"error": {"type": error.type, "message": error.message, "param": error.param}}
            await self._send(error.status, body, error.headers)
            return
        await self._send(200, found)

    async def _found(self, transaction_id: str) -> Mapping[str, Any]:
        found = None
        if len(transaction_id) <= LONGEST_ID:
            try:
                async with asyncio.timeout(self.settings.record_timeout):
                    found = await self.finder.find(transaction_id)
            except TimeoutError:
                msg = "The record could not be searched in time; try again."
                raise ApiError(msg, status=503) from None
        if found is None:
            msg = "No transaction of this id is in the record."
            raise ApiError(msg, status=404)
        return found

    async def _send(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        content = await asyncio.to_thread(printable, body)  # a record may be long
        await send_content(self.send, status, content, {**headers, "cache-control": "no-store"})
