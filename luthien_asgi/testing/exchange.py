"""One request at the scripted provider, and how its reply goes out: event by event, with the faults at their places."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, assert_never

from luthien_asgi import jsontext
from luthien_asgi.errors import type_of_status
from luthien_asgi.request import WireName
from luthien_asgi.testing.faults import (
    Again,
    BadChunk,
    Delay,
    Disconnect,
    Drip,
    ErrorEvent,
    EventFault,
    Failure,
    Fault,
    Garbage,
    Half,
    LongLine,
    RawStream,
    Reset,
    Stall,
    Truncate,
)
from luthien_asgi.testing.http1 import head
from luthien_asgi.testing.http_faults import HttpFault
from luthien_asgi.testing.outgoing import GoneError, Outgoing
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
            keep = await self._dispatch(reply)
        except _EndedError as ended:
            keep = ended.keep
        except GoneError:
            keep = False
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

    async def _dispatch(self, reply: Reply) -> bool:
        renderer = RENDERERS[self.request.wire]
        match reply:
            case Failure(status, kind, message, headers):
                body = renderer.error_body(kind or type_of_status(status), message)
                return await self._whole(status, jsontext.dumps(body), _JSON, headers)
            case RawStream(faults=(), pace=0) if len(reply.events) == 1:
                return await self._whole(reply.status, reply.events[0], reply.content_type, reply.headers)
            case RawStream():
                return await self._events(reply.events, reply, faults=reply.faults, pace=reply.pace)
            case Answer() if self.request.streams:
                raw = RawStream(renderer.events(reply, self.request.body))
                return await self._events(raw.events, raw, faults=reply.faults, pace=reply.pace)
            case Answer():
                return await self._collected(reply)
            case _:
                assert_never(reply)

    async def _collected(self, answer: Answer) -> bool:
        """Send an answer that was not asked for as a stream: its body is one event, an error event is an error response."""
        renderer = RENDERERS[self.request.wire]
        for fault in answer.faults:
            if isinstance(fault, ErrorEvent):
                return await self._dispatch(Failure(fault.status, fault.type, fault.message))
        raw = RawStream(jsontext.dumps(renderer.body(answer, self.request.body)), content_type=_JSON, faults=answer.faults)
        return await self._dispatch(raw)

    async def _whole(self, status: int, content: bytes, content_type: str, headers: Mapping[str, str]) -> bool:
        fields = self._headers(content_type, headers) | {"content-length": str(len(content))}
        body = b"" if self.request.method == "HEAD" else content
        await Outgoing(self.request, self.writer).raw(head(status, fields) + body)
        self._count()
        return True

    async def _events(self, events: Sequence[bytes], reply: RawStream, *, faults: Sequence[Fault], pace: float) -> bool:
        out = Outgoing(self.request, self.writer, [fault for fault in faults if isinstance(fault, HttpFault)])
        acts = [fault for fault in faults if not isinstance(fault, HttpFault)]
        for fault in acts:
            if fault.after is None:
                await self._fault(fault, out, b"")
        fields = self._headers(reply.content_type, reply.headers)
        await out.head(reply.status, fields, length=sum(map(len, events)))
        places = _places(acts, len(events))
        for place, event in enumerate(events):
            rest = await self._faults(places.get(place, ()), out, event)
            await out.pause(pace if place else 0.0)
            await out.piece(rest)
            self._count()
        await self._faults(places.get(len(events), ()), out, b"")
        await out.end()
        return out.keep

    def _headers(self, content_type: str, extra: Mapping[str, str]) -> dict[str, str]:
        name = "request-id" if self.request.wire == "anthropic" else "x-request-id"
        return {"content-type": content_type, name: "req_scripted", **extra}

    def _count(self) -> None:
        self.request.sent += 1
        self.request.signal.notify()

    async def _faults(self, faults: Sequence[EventFault], out: Outgoing, event: bytes) -> bytes:
        """Let the faults at one place happen, and return what is left to send of the event that follows."""
        for fault in faults:
            event = await self._fault(fault, out, event)
        return event

    async def _fault(self, fault: EventFault, out: Outgoing, event: bytes) -> bytes:
        match fault:
            case Stall():
                await out.silence()
            case Delay(seconds=seconds):
                await out.silence(seconds)
            case Drip(seconds=seconds, size=size):
                out.drip(seconds, size)
            case Half():
                cut = fault.of(event)
                await out.piece(event[:cut])
                return event[cut:]
            case Garbage(after=None, data=data) | BadChunk(data=data):
                await out.raw(data)
            case Garbage(data=data):
                await out.piece(data)
            case LongLine(size=size):
                await out.long_line(size)
            case Again(text=text, id=name):
                for other in RENDERERS[self.request.wire].events(Answer(text, id=name), self.request.body):
                    await out.piece(other)
            case Reset() | Disconnect() | Truncate() | ErrorEvent():
                await self._end(fault, out)
            case _:
                assert_never(fault)
        return event

    async def _end(self, fault: Reset | Disconnect | Truncate | ErrorEvent, out: Outgoing) -> NoReturn:
        """End the response before its answer has ended."""
        if isinstance(fault, Reset | Disconnect):
            if isinstance(fault, Reset):
                self._reset()
            raise _EndedError(keep=False)
        if isinstance(fault, ErrorEvent):
            await out.piece(RENDERERS[self.request.wire].error_frame(fault.type, fault.message))
        await out.end()
        raise _EndedError(keep=out.keep)

    def _reset(self) -> None:
        """Close with a RST: without lingering, the kernel throws the connection away."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.finished = True
        self.writer.transport.abort()


def _places(faults: Sequence[EventFault], last: int) -> dict[int, list[EventFault]]:
    """Return the faults by the number of events that are sent before them."""
    places: dict[int, list[EventFault]] = {}
    for fault in faults:
        if fault.after is not None:
            place = min(fault.after, last) if fault.after >= 0 else max(0, last + fault.after)
            places.setdefault(place, []).append(fault)
    return places
