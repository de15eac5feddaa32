"""One request at the scripted provider, and how its reply goes out: event by event, with the faults at their places."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from luthien_asgi import jsontext
from luthien_asgi.errors import type_of_status
from luthien_asgi.request import WireName
from luthien_asgi.testing.faults import Disconnect, ErrorEvent, Failure, Fault, Garbage, RawStream, Reset, Stall, Truncate
from luthien_asgi.testing.http1 import LAST_CHUNK, chunk, head
from luthien_asgi.testing.parts import Answer
from luthien_asgi.testing.waiting import Signal
from luthien_asgi.testing.wires import RENDERERS

__all__ = ["Exchange", "ProviderRequest", "Reply"]

Reply = Answer | RawStream | Failure
_JSON: Final = "application/json"


@dataclass(slots=True, eq=False, kw_only=True)
class ProviderRequest:
    """A request as the provider got it, and what became of it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Lower-case names."""
    content: bytes
    """The body as it came."""
    body: dict[str, Any]
    """The body parsed; empty when it is no JSON object."""
    wire: WireName
    sent: int = 0
    """How many events have been written to the client."""
    finished: bool = False
    """The provider did all that the script says."""
    closed_at: float | None = None
    """`time.monotonic()` when the client closed the connection before that; None when it did not."""
    released: bool = False
    signal: Signal = field(repr=False)
    loop: asyncio.AbstractEventLoop = field(repr=False)

    @property
    def closed_early(self) -> bool:
        """Whether the client closed the connection before the reply was complete."""
        return self.closed_at is not None

    @property
    def streams(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.body.get("stream"))

    def release(self) -> None:
        """End this request's `Stall`, now or when it comes. Callable from any thread."""
        self.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self.released = True
        self.signal.notify()

    def client_closed(self) -> None:
        """Note that the connection was closed; only the first time, and only while the reply is on its way."""
        if not self.finished and self.closed_at is None:
            self.closed_at = time.monotonic()
            self.signal.notify()


class _EndedError(Exception):
    """The reply is over; `keep` tells whether the connection can serve another request."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self.keep = keep


@dataclass(frozen=True, slots=True)
class Exchange:
    """Sends the reply to one request over one connection."""

    request: ProviderRequest
    writer: asyncio.StreamWriter

    async def send(self, reply: Reply) -> bool:
        """Send a reply; tell whether the connection can serve another request."""
        try:
            await self._dispatch(reply)
            keep = True
        except _EndedError as ended:
            keep = ended.keep
        except ConnectionError:
            keep = False
            self.request.client_closed()
        self.request.finished = not self.request.closed_early
        self.request.signal.notify()
        return keep and not self.request.closed_early

    async def send_json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bool:
        """Send a JSON response; tell whether the connection can serve another request."""
        raw = RawStream(jsontext.dumps(body), content_type=_JSON, status=status, headers=headers or {})
        return await self.send(raw)

    async def _dispatch(self, reply: Reply) -> None:
        renderer = RENDERERS[self.request.wire]
        match reply:
            case Failure(status, kind, message, headers):
                body = renderer.error_body(kind or type_of_status(status), message)
                await self._whole(status, jsontext.dumps(body), _JSON, headers)
            case RawStream(faults=(), pace=0) if len(reply.events) == 1:
                await self._whole(reply.status, reply.events[0], reply.content_type, reply.headers)
            case RawStream():
                await self._events(reply.events, reply, faults=reply.faults, pace=reply.pace)
            case Answer() if self.request.streams:
                raw = RawStream(renderer.events(reply, self.request.body))
                await self._events(raw.events, raw, faults=reply.faults, pace=reply.pace)
            case Answer():
                await self._collected(reply)
            case _:
                assert_never(reply)

    async def _collected(self, answer: Answer) -> None:
        """Send an answer that was not asked for as a stream: its body is one event, an error event is an error response."""
        renderer = RENDERERS[self.request.wire]
        for fault in answer.faults:
            if isinstance(fault, ErrorEvent):
                return await self._dispatch(Failure(fault.status, fault.type, fault.message))
        raw = RawStream(jsontext.dumps(renderer.body(answer, self.request.body)), content_type=_JSON, faults=answer.faults)
        return await self._dispatch(raw)

    async def _whole(self, status: int, content: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        fields = self._headers(content_type, headers) | {"content-length": str(len(content))}
        await self._write(head(status, fields) + (b"" if self.request.method == "HEAD" else content))
        self._count()

    async def _events(self, events: Sequence[bytes], reply: RawStream, *, faults: Sequence[Fault], pace: float) -> None:
        await self._faults([fault for fault in faults if fault.after is None], begun=False)
        fields = self._headers(reply.content_type, reply.headers) | {"transfer-encoding": "chunked"}
        await self._write(head(reply.status, fields))
        last = len(events)
        places = [(min(fault.after, last), fault) for fault in faults if fault.after is not None]
        for place, event in enumerate(events):
            await self._faults([fault for at, fault in places if at == place], begun=True)
            await self._pause(pace if place else 0.0)
            await self._write(chunk(event))
            self._count()
        await self._faults([fault for at, fault in places if at == last], begun=True)
        await self._write(LAST_CHUNK)

    def _headers(self, content_type: str, extra: Mapping[str, str]) -> dict[str, str]:
        name = "request-id" if self.request.wire == "anthropic" else "x-request-id"
        return {"content-type": content_type, name: "req_scripted", **extra}

    def _count(self) -> None:
        self.request.sent += 1
        self.request.signal.notify()

    async def _write(self, data: bytes) -> None:
        if self.request.closed_early:
            raise _EndedError(keep=False)
        self.writer.write(data)
        await self.writer.drain()

    async def _pause(self, seconds: float) -> None:
        """Wait between two events, but not for a client that has left."""
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.request.signal.until(lambda: self.request.closed_early)

    async def _faults(self, faults: Sequence[Fault], *, begun: bool) -> None:
        for fault in faults:
            await self._fault(fault, begun=begun)

    async def _fault(self, fault: Fault, *, begun: bool) -> None:
        match fault:
            case Stall():
                await self.request.signal.until(lambda: self.request.released or self.request.closed_early)
            case Garbage(data=data):
                await self._write(chunk(data) if begun else data)
            case Reset():
                self._reset()
                raise _EndedError(keep=False)
            case Disconnect():
                raise _EndedError(keep=False)
            case Truncate():
                await self._write(LAST_CHUNK)
                raise _EndedError(keep=True)
            case ErrorEvent():
                frame = RENDERERS[self.request.wire].error_frame(fault.type, fault.message)
                await self._write(chunk(frame) + LAST_CHUNK)
                raise _EndedError(keep=True)
            case _:
                assert_never(fault)

    def _reset(self) -> None:
        """Close with a RST: without lingering, the kernel throws the connection away."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.finished = True
        self.writer.transport.abort()
