"""How the bytes of one response go out: its head, its body in pieces, its end, each as the faults of HTTP want it."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from luthien_asgi.testing.http1 import LAST_CHUNK, chunk, head
from luthien_asgi.testing.http_faults import (
    ContentType,
    Gzip,
    HeaderBomb,
    Headers,
    HttpFault,
    Informational,
    Trailing,
    WrongLength,
)
from luthien_asgi.testing.waiting import Signal

__all__ = ["GoneError", "Outgoing", "Peer"]

_PIECE: Final = 64 * 1024
_GZIP: Final = 31
"""zlib's `wbits` for the gzip container."""
_Fault = TypeVar("_Fault", bound=HttpFault)


class GoneError(Exception):
    """The client has closed the connection."""


class Peer(Protocol):
    """What is known of whoever gets the response."""

    signal: Signal
    released: bool

    @property
    def closed_early(self) -> bool:
        """Whether the client closed the connection before the reply was complete."""
        ...


@dataclass(slots=True)
class _Drip:
    seconds: float
    left: int


class Outgoing:
    """One response on its way. Every method raises `GoneError` when the client has left."""

    def __init__(self, peer: Peer, writer: asyncio.StreamWriter, faults: Sequence[HttpFault] = ()) -> None:
        self._peer, self._writer, self._faults = peer, writer, faults
        self._gzip = zlib.compressobj(wbits=_GZIP) if any(gzip.honest for gzip in self._all(Gzip)) else None
        self._chunked = not self._all(WrongLength)
        self._drip: _Drip | None = None

    @property
    def keep(self) -> bool:
        """Whether the connection can serve another request when all of this response is out."""
        return not any(wrong.by > 0 for wrong in self._all(WrongLength))

    def drip(self, seconds: float, size: int) -> None:
        """Send the next `size` bytes one by one."""
        self._drip = _Drip(seconds, size)

    async def head(self, status: int, fields: Mapping[str, str], *, length: int) -> None:
        """Send the status line and the headers of a body that has `length` bytes in all."""
        for early in self._all(Informational):
            await self.raw(head(early.status, {"x-early": "1"}) * early.count)
        fields = dict(fields)
        for other in self._all(ContentType):
            fields.pop("content-type", None)
            fields |= {} if other.value is None else {"content-type": other.value}
        fields |= {"content-encoding": "gzip"} if self._all(Gzip) else {}
        wrong = sum(fault.by for fault in self._all(WrongLength))
        fields |= {"transfer-encoding": "chunked"} if self._chunked else {"content-length": str(max(0, length + wrong))}
        lines, end = head(status, fields)[:-2], b"\r\n"
        for more in self._all(Headers):
            lines += "".join(f"{name}: {value}\r\n" for name, value in more.fields).encode("latin-1")
        await self.raw(lines)
        for bomb in self._all(HeaderBomb):
            for line in _header_lines(bomb):
                await self.raw(line)
        await self.raw(end)

    async def piece(self, data: bytes) -> None:
        """Send a part of the body, at once."""
        if self._gzip is not None:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        if data:
            await self.raw(chunk(data) if self._chunked else data)

    async def long_line(self, size: int) -> None:
        """Send a line of so many bytes as part of the body."""
        await self.piece(b"data: ")
        for start in range(6, size, _PIECE):
            await self.piece(b"x" * min(_PIECE, size - start))
        await self.piece(b"\n")

    async def end(self) -> None:
        """Send the end of the response, and what follows it."""
        if self._gzip is not None:
            tail, self._gzip = self._gzip.flush(), None
            await self.piece(tail)
        await self.raw(LAST_CHUNK if self._chunked else b"")
        for trailing in self._all(Trailing):
            await self.pause(trailing.seconds)
            await self.raw(trailing.data)

    async def raw(self, data: bytes) -> None:
        """Send bytes of the connection."""
        while self._drip is not None and self._drip.left and data:
            await self._write(data[:1])
            data = data[1:]
            self._drip.left -= 1
            await self.pause(self._drip.seconds)
        if data:
            await self._write(data)

    async def pause(self, seconds: float) -> None:
        """Wait, but not for a client that has left."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._peer.signal.until(lambda: self._peer.closed_early)

    async def silence(self, seconds: float | None = None) -> None:
        """Wait for `release()`, but not for a client that has left, and no longer than so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._peer.signal.until(lambda: self._peer.released or self._peer.closed_early)

    async def _write(self, data: bytes) -> None:
        if self._peer.closed_early:
            raise GoneError
        self._writer.write(data)
        await self._writer.drain()

    def _all(self, kind: type[_Fault]) -> list[_Fault]:
        return [fault for fault in self._faults if isinstance(fault, kind)]


def _header_lines(bomb: HeaderBomb) -> Iterator[bytes]:
    for number in range(max(1, bomb.size // bomb.line)):
        name = b"x-bomb-%d: " % number
        yield name + b"x" * max(1, bomb.line - len(name) - 2) + b"\r\n"
