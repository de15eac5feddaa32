"""The clients of a load: raw sockets, one stream a connection at a time, and each behaves, or misbehaves, as its plan says.

A connection on which all went well is used again, at once or not at all: one that has idled a while might be closed by the
server while the next request is on its way. Nothing is judged here: an `Outcome` is all that a client saw.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns
from typing import Final, Literal, cast

from borrowed import chunks, upstream
from plan import Plan

__all__ = ["IMPATIENT", "KEY", "Clients", "Outcome", "Patience"]

KEY: Final = "load-client-key"
_PATHS: Final = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST: Final = b"\r\n" + upstream.LAST
_RST: Final = struct.pack("ii", 1, 0)
_SMALL_BUFFER: Final = 4096
_MARK_SIZE: Final = 18
_REUSED_WITHIN: Final = 0.3
_SIP_PAUSE: Final = 0.1
"""Seconds between two reads of a client that reads slowly."""

How = Literal["whole", "left", "cut", "hung", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds: the gateway's settings, as far as they bound a stream that meets a fault, and what a busy machine adds."""

    first_chunk: float = 15.0
    stall: float = 6.0
    send: float = 6.0
    slack: float = 25.0

    def deadline(self, plan: Plan) -> float:
        """Return how long a stream may take."""
        waits = {"stall": self.stall, "silent": self.first_chunk, "deaf": 4 * self.send}
        doubled = 2 if plan.fault == "slow" else 1
        return doubled * plan.seconds + waits.get(plan.fault, 0) + self.slack


IMPATIENT: Final = Patience(first_chunk=10, stall=5, send=2)
"""For loads in which many streams follow one another."""


@dataclass(slots=True)
class Outcome:
    """What a client saw of its stream. Times are `monotonic`."""

    plan: Plan
    asked: float
    how: How = "cut"
    """`whole`: an HTTP response to its end; `left`: the client went; `hung`: its deadline passed; `refused`: not connected."""
    ended: float = 0.0
    began: float = 0.0
    """When the response's head had come; 0 when it never did."""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reused: bool = False
    """Whether its connection had served another stream before."""
    added: list[int] = field(default_factory=list)
    """By delta, in nanoseconds: from the provider's write to the client's read. Not of clients that read late."""

    @property
    def transaction(self) -> str:
        """The transaction's id; empty when no head came."""
        return self.headers.get("x-luthien-transaction", "")

    @property
    def worker(self) -> int:
        """The process that answered; 0 when no head came."""
        return int(self.headers.get("x-pid", 0))


def request(plan: Plan, port: int) -> bytes:
    """Return a stream's request."""
    body = json.dumps(
        {
            "model": f"to-{plan.provider}",
            "messages": [{"role": "user", "content": plan.token()}],
            "stream": plan.stream,
            "max_tokens": 4096,
        }
    ).encode()
    head = (
        f"POST {_PATHS[plan.client]} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEY}\r\nanthropic-version: 2023-06-01\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Clients:
    """Asks a server, on connections that are used again where that is safe."""

    def __init__(self, port: int, patience: Patience) -> None:
        self._port = port
        self._patience = patience
        self._idle: list[_Connection] = []
        self.crossed = 0
        """Requests that were asked again, because the server closed the idle connection that they were sent on."""

    async def ask(self, plan: Plan) -> Outcome:
        """Run one stream to its end, whatever that is."""
        outcome = await self._asked(plan)
        if outcome.how == "cut" and outcome.reused and not outcome.status:
            # RFC 9112, 9.3.1: the server may close an idle connection at any time, so what crossed with that is asked again.
            self.crossed += 1
            self.close()
            outcome = await self._asked(plan)
        return outcome

    async def _asked(self, plan: Plan) -> Outcome:
        outcome = Outcome(plan, asked=monotonic())
        try:
            async with self._connection(plan) as connection:
                outcome.reused = connection.idle_since > 0
                async with asyncio.timeout(self._patience.deadline(plan)):
                    await connection.run(outcome, request(plan, self._port), deaf_for=self._patience.send * 3)
        except TimeoutError:
            outcome.how = "hung"
        except OSError:
            outcome.how = "refused"
        outcome.ended = monotonic()
        return outcome

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    @asynccontextmanager
    async def _connection(self, plan: Plan) -> AsyncIterator[_Connection]:
        connection = self._reusable() if plan.fault not in {"deaf", "slow"} else None
        connection = connection or await self._connect(small=plan.fault in {"deaf", "slow"})
        try:
            yield connection
        finally:
            if connection.reusable:
                connection.idle_since = monotonic()
                self._idle.append(connection)
            else:
                connection.close()

    def _reusable(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost and monotonic() - connection.idle_since < _REUSED_WITHIN:
                return connection
            connection.close()
        return None

    async def _connect(self, *, small: bool) -> _Connection:
        sock = socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self._port))
            _, connection = await loop.create_connection(_Connection, sock=sock)
        except OSError:
            sock.close()
            raise
        return connection


class _Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self) -> None:
        self.lost = False
        self.idle_since = 0.0
        self.reusable = False
        self._outcome: Outcome | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none

    async def run(self, outcome: Outcome, request: bytes, *, deaf_for: float) -> None:
        """Ask, and be served; what was seen is in `outcome`, also when this is cancelled."""
        self._received = bytearray()
        self._head = self._searched = self._marks = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcome, self.reusable = outcome, False
        plan = outcome.plan
        try:
            if self.lost:
                return
            self._transport.write(request)
            if plan.fault == "early":
                self._leave()
            elif plan.fault == "deaf":
                await self._be_deaf(deaf_for)
            await self._done
        finally:
            self._outcome = None
            self._read_out(outcome)

    async def _be_deaf(self, seconds: float) -> None:
        self._transport.pause_reading()
        await asyncio.sleep(seconds)
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        outcome = self._outcome
        if outcome is None:
            self.lost = True  # nobody asked: not a connection to be used again
            self._transport.abort()
            return
        self._received += data
        if not self._head and (head := self._received.find(b"\r\n\r\n")) > 0:
            self._head, outcome.began = head, monotonic()
        plan = outcome.plan
        self._clock(outcome)
        if plan.fault in {"leave", "abort"} and self._marks >= plan.after:
            self._leave()
        elif self._whole():
            outcome.how, self.reusable = "whole", True
            self._over()
        elif plan.fault == "slow":
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_SIP_PAUSE, self._sip)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self.reusable = True, False
        self._over()

    def close(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _sip(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _leave(self) -> None:
        assert self._outcome is not None
        self._outcome.how = "left"
        if self._outcome.plan.fault == "abort":
            with suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            self._transport.abort()
        else:
            self._transport.close()
        self._over()

    def _over(self) -> None:
        if self._outcome is not None and not self._done.done():
            self._done.set_result(None)

    def _clock(self, outcome: Outcome) -> None:
        now = monotonic_ns()
        for mark in upstream.MARK.finditer(self._received, self._searched):
            self._marks += 1
            self._searched = mark.end()
            if outcome.plan.stream and outcome.plan.fault not in {"deaf", "slow"}:
                outcome.added.append(now - int(mark[1]))
        self._searched = max(self._searched, len(self._received) - _MARK_SIZE)

    def _whole(self) -> bool:
        if self._received.endswith(_LAST):
            return True
        length = _LENGTH.search(self._received, 0, self._head) if self._head else None
        return length is not None and len(self._received) >= self._head + 4 + int(length[1])

    def _read_out(self, outcome: Outcome) -> None:
        if not self._head:
            return
        head, rest = bytes(self._received[: self._head]), bytes(self._received[self._head + 4 :])
        status = _STATUS.match(head)
        outcome.status = int(status[1]) if status else 0
        lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        outcome.headers = {name.lower(): value.strip() for name, _, value in lines}
        chunked = outcome.headers.get("transfer-encoding", "").lower() == "chunked"
        outcome.body = b"".join(chunks(rest)) if chunked else rest
