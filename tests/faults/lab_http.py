"""A client of HTTP/1.1 on a bare socket: it sees the bytes as they are, and does what no polite client does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

SECONDS: Final = 30.0
"""How long any one wait lasts at most."""
CLIENT_KEY: Final = "lab-client-key"
PATHS: Final = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "responses": "/v1/responses"}


@dataclass
class Response:
    """What came back on a connection."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    raw: bytes = b""
    """The bytes of the connection that this is made of."""
    complete: bool = False
    """HTTP's end of the response was there."""
    at: float = 0.0
    """`time.monotonic()` when it was over."""

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


class Client:
    """One connection, within `async with`, which leaves nothing open."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self._port, self._receive_buffer = port, receive_buffer
        self.left = 0.0
        """`time.monotonic()` when this side closed the connection."""

    async def __aenter__(self) -> Self:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if self._receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._pending = b""
        try:
            await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self._port))
        except BaseException:
            self._socket.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read(self, size: int = 65536) -> bytes:
        """Return what is there next; nothing at the end, also at a reset."""
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(ConnectionError):
                return await asyncio.get_running_loop().sock_recv(self._socket, size)
        return b""

    async def until(self, mark: bytes) -> bytes:
        """Read until a mark has come, or to the end."""
        got = b""
        while mark not in got and (data := await self.read()):
            got += data
        return got

    async def response(self, begun: bytes = b"") -> Response:
        """Read one response, of which the first bytes may be there already; what follows it is kept for the next."""
        reader = _Reader(begun)
        while not reader.over:
            data = await self.read()
            reader.feed(data)
            if not data:
                break
        got = reader.response
        self._pending, got.at = reader.rest, time.monotonic()
        return got

    def shut(self) -> None:
        """Say that nothing more is sent, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close with a FIN. Twice is once."""
        if self._socket.fileno() >= 0:
            self.left = time.monotonic()
            self._socket.close()


class _Reader:
    """Takes the bytes of a connection until a response is over."""

    def __init__(self, begun: bytes) -> None:
        self.response, self.rest, self.over = Response(), b"", False
        self._ended = False
        if begun:
            self.feed(begun)

    def feed(self, data: bytes) -> None:
        """Take bytes; none are the connection's end."""
        self._ended |= not data
        self.rest += data
        got = self.response
        got.raw += data
        if not got.status and not self._head():
            return
        if "chunked" in got.headers.get("transfer-encoding", ""):
            self._chunks()
        elif "content-length" in got.headers:
            missing = int(got.headers["content-length"]) - len(got.content)
            got.content, self.rest = got.content + self.rest[:missing], self.rest[missing:]
            self._over(len(got.content) == int(got.headers["content-length"]))
        else:
            got.content, self.rest = got.content + self.rest, b""
            self._over(self._ended)  # HTTP/1.0: the end of the connection is the end

    def _head(self) -> bool:
        while b"\r\n\r\n" in self.rest:
            head, self.rest = self.rest.split(b"\r\n\r\n", 1)
            first, *lines = head.decode("latin-1").split("\r\n")
            status = int(first.split(" ", 2)[1])
            if status >= 200:
                self.response.status = status
                pairs = (line.partition(":") for line in lines)
                self.response.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
                return True
        return False

    def _chunks(self) -> None:
        while b"\r\n" in self.rest:
            line, rest = self.rest.split(b"\r\n", 1)
            size = int(line.partition(b";")[0], 16)
            if len(rest) < size + 2:
                return
            self.response.content += rest[:size]
            self.rest = rest[size + 2 :]
            if not size:
                self._over(True)
                return

    def _over(self, over: bool) -> None:
        self.over = self.response.complete = over


def body_of(wire: str, model: str, text: str, *, stream: bool, **more: Any) -> dict[str, Any]:
    """Return the body of a request in a client's format."""
    if wire == "responses":
        return {"model": model, "input": text, "stream": stream, **more}
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1000, "stream": stream, **more}


def request_of(
    wire: str, body: Mapping[str, Any] | bytes, *, version: str = "1.1", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a whole request. Headers given replace those that it would have; an empty one is left out."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "lab", "authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"}
    fields |= {"content-length": str(len(content))} | dict(headers or {})
    lines = [f"POST {PATHS[wire]} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


async def polled(holds: Any, within: float, *, every: float = 0.02) -> bool:
    """Tell whether a condition came true within so many seconds. It may be a coroutine function."""
    end = time.monotonic() + within
    while True:
        value = holds()
        if await value if asyncio.iscoroutine(value) else value:
            return True
        if time.monotonic() > end:
            return False
        await asyncio.sleep(every)
