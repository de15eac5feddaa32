"""What a client sends that is no body is bounded, before anybody asks for a key."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from luthien_asgi.bounded_http import HEAD_BYTES
from luthien_asgi.serving import server_for


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(str(size)))]})
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    server = server_for(echo, drain_timeout=1, log_level="critical")
    server.config.lifespan = "off"
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(20)


async def said(address: tuple[str, int], *pieces: bytes, rest: int = 0) -> bytes:
    """Send the pieces, the last of them so many times, and return all that comes back."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
        for _ in range(rest):
            writer.write(pieces[-1])
            await writer.drain()
    except ConnectionError:
        pass
    got = b""
    try:
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                got += data
    except ConnectionError:
        pass
    writer.close()
    return got


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
LINE = b"x-a: " + b"a" * 16_000 + b"\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD, LINE),
        (HEAD + b"x-a: ", b"a" * 16_000),
        (HEAD, b"x" * 16_000),
        (b"POST /", b"a" * 16_000),
    ],
    ids=["many headers", "one value", "one name", "a path"],
)
async def test_a_head_without_an_end_is_refused(address: tuple[str, int], pieces: tuple[bytes, ...]) -> None:
    """Soon after the bound, and the connection is closed."""
    got = await said(address, *pieces, rest=200)
    assert got == b"" or b"431" in got or b"400" in got
    assert b"200 OK" not in got


@pytest.mark.parametrize("piece", [LINE, b"1;" + b"a" * 16_000], ids=["trailers", "the extension of a chunk"])
async def test_what_follows_a_body_is_bounded_too(address: tuple[str, int], piece: bytes) -> None:
    """Also after the request is at work: then there is no answer."""
    end = b"" if piece.startswith(b"1;") else b"0\r\n"
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" + end
    assert b"200 OK" not in await said(address, head, piece, rest=200)


async def test_what_is_within_the_bound_goes_on(address: tuple[str, int]) -> None:
    """A long head, a body of any length, and the next request on the same connection."""
    lines = LINE * (HEAD_BYTES // len(LINE) - 1)
    body = b"b" * 3_000_000
    first = HEAD + lines + b"content-length: %d\r\n\r\n" % len(body) + body
    second = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n"
    got = await said(address, first, second)
    assert got.count(b"200 OK") == 2
    assert b"3000000" in got
    assert got.endswith(b"3")
