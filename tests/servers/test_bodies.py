"""Bodies and headers as hostile clients send them, over raw sockets to real servers: each is answered once and soon, or cut off.

What a server refuses itself (a malformed length, more headers than it takes) it may refuse in its own way. What counts here is
that no such request is begun, that the place it took comes back, and that nothing of a body is taken for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

pytestmark = pytest.mark.servers

APP: Final = """
import json

from luthien_asgi import Limits, LuthienMiddleware, MemoryRecorder, Paths, StreamSettings
from luthien_asgi.loopback import LoopbackGuard
from luthien_asgi.testing import ScriptedBackend, chunks


async def state(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = json.dumps({"begun": len(recorder.begun), "taken": app.slots.taken}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


recorder = MemoryRecorder()
app = LuthienMiddleware(
    state,
    backend=ScriptedBackend(chunks("Hello")),
    recorder=recorder,
    auth=LoopbackGuard(),
    settings=StreamSettings(body_timeout=1.0),
    limits=Limits(body_bytes=20_000, streams=3),
    paths=Paths(models="/v1/models"),
)
"""
SERVERS: Final = {
    "uvicorn": ["-m", "uvicorn", "small:app", "--port", "{port}", "--forwarded-allow-ips", "*"],
    "uvicorn-h11": ["-m", "uvicorn", "small:app", "--port", "{port}", "--http", "h11"],
    "gunicorn-asgi": ["-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:{port}", "small:app"],
    "uvicorn-worker": ["-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", "small:app"],
}
PATHS: Final = ("/v1/chat/completions", "/v1/messages", "/v1/responses")
SECONDS: Final = 20.0


class Server:
    """A server process, and raw connections to it."""

    def __init__(self, kind: str, folder: Path) -> None:
        (folder / "small.py").write_text(APP)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = (folder / "server.log").open("w+")
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, *(part.format(port=self.port) for part in SERVERS[kind])]
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=self.log, stderr=self.log)
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as client:
            assert client.get(self.url + "/state").status_code == 200

    def state(self) -> dict[str, int]:
        return dict(httpx.get(self.url + "/state", timeout=SECONDS).json())

    async def until_free(self) -> dict[str, int]:
        """Return the state once no place is taken."""
        async with asyncio.timeout(SECONDS):
            while (state := await asyncio.to_thread(self.state))["taken"]:
                pass
        return state

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                yield Connection(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.log.close()


class Connection:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        """Send no more; the server may have closed before."""
        with contextlib.suppress(OSError):
            self.writer.write_eof()

    async def head(self) -> tuple[int, bytes]:
        """Return the status of the next response, and its headers in small letters."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), head.lower()

    async def response(self) -> tuple[int, bytes]:
        """Return the status and body of the next response."""
        status, head = await self.head()
        if found := re.search(rb"content-length: *(\d+)", head):
            return status, await self.reader.readexactly(int(found[1]))
        if b"chunked" in head:
            return status, await self._chunked()
        return status, await self.rest()

    async def _chunked(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def rest(self) -> bytes:
        """Return everything until the server closes, which it has to."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(request.param, tmp_path_factory.mktemp(request.param))
    try:
        yield started
    finally:
        started.stop()


def body(path: str, *, stream: bool = False) -> bytes:
    asked: dict[str, Any] = {"model": "scripted", "stream": stream}
    if path == "/v1/responses":
        return json.dumps(asked | {"input": "Hi"}).encode()
    return json.dumps(asked | {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}).encode()


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    fields = ["host: localhost", "content-type: application/json", *lines]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def message_of(content: bytes) -> str:
    return str(json.loads(content)["error"]["message"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("expects", ["", "expect: 100-continue"])
async def test_a_body_that_is_announced_to_be_too_long_is_refused_before_it_comes(
    server: Server, path: str, expects: str
) -> None:
    """Nothing was sent of it, and the client is not asked to go on; the connection does not stay out of step."""
    before = server.state()["begun"]
    async with server.connection() as client:
        client.send(head(path, "content-length: 20001", *filter(None, [expects])))
        status, content = await client.response()
        assert (status, "(body_bytes)" in message_of(content)) == (413, True)
    assert await server.until_free() == {"begun": before, "taken": 0}


async def test_what_is_in_a_refused_body_is_no_request(server: Server) -> None:
    """A body that is refused unread may hold a request: it is answered by nobody."""
    smuggled = b"GET /state HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with server.connection() as client:
        client.send(head(PATHS[0], "content-length: 20001") + smuggled)
        assert (await client.response())[0] == 413
        client.send(smuggled)
        client.end()
        assert b"begun" not in await client.rest()


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_asks_whether_to_send_its_body_is_told_to(server: Server, path: str) -> None:
    """One that fits is asked for, and answered."""
    async with server.connection() as client:
        client.send(head(path, f"content-length: {len(body(path))}", "expect: 100-continue"))
        assert (await client.head())[0] == 100
        client.send(body(path))
        assert (await client.response())[0] == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_chunked_body_is_refused_at_the_byte_that_is_too_many(server: Server, path: str) -> None:
    """While the client still sends; at the limit it is served, spaces and all."""
    before = server.state()["begun"]
    fits = body(path)[:-1] + b" " * (20_000 - len(body(path))) + b"}"
    async with server.connection() as client:
        client.send(head(path, "transfer-encoding: chunked") + chunk(fits[:9_000]) + chunk(fits[9_000:]) + b"0\r\n\r\n")
        assert (await client.response())[0] == 200
    async with server.connection() as client:
        client.send(head(path, "transfer-encoding: chunked") + chunk(fits) + chunk(b" "))
        status, content = await client.response()
        assert (status, "(body_bytes)" in message_of(content)) == (413, True)
    assert await server.until_free() == {"begun": before + 1, "taken": 0}


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_does_not_come_is_a_408_and_one_that_ends_early_is_nothing(server: Server, path: str) -> None:
    """Half of it, then silence, or the end of the connection: no transaction, and the place comes back."""
    before, half = server.state()["begun"], body(path)[:20]
    async with server.connection() as client:
        client.send(head(path, f"content-length: {len(body(path))}") + half)
        status, content = await client.response()
        assert (status, message_of(content)) == (408, "The request body did not arrive in time.")
    for how in (f"content-length: {len(body(path))}", "transfer-encoding: chunked"):
        async with server.connection() as client:
            client.send(head(path, how) + (half if "length" in how else chunk(half)))
    assert await server.until_free() == {"begun": before, "taken": 0}


async def test_a_body_that_drips_has_the_same_time_as_any(server: Server) -> None:
    """A byte every tenth of a second does not hold a place for longer than `body_timeout`."""
    async with server.connection() as client, asyncio.TaskGroup() as tasks:
        client.send(head(PATHS[0], "content-length: 9000"))
        answer = tasks.create_task(client.response())
        while not (await asyncio.wait({answer}, timeout=0.1))[0]:
            client.send(b" ")
        assert answer.result()[0] == 408
    assert (await server.until_free())["taken"] == 0


async def test_what_comes_behind_a_body_is_another_request_or_an_error(server: Server) -> None:
    """More bytes than were promised: the promised ones are answered or refused with the rest, the others never with a 200."""
    async with server.connection() as client:
        client.send(head(PATHS[0], f"content-length: {len(body(PATHS[0]))}") + body(PATHS[0]) + b'{"more": 1}\r\n\r\n')
        assert (await client.response())[0] in {200, 400}
        client.end()
        assert b" 200 " not in await client.rest()


@pytest.mark.parametrize("stream", [False, True])
async def test_pipelined_requests_are_answered_in_their_order(server: Server, stream: bool) -> None:
    """Each whole, none lost, a stream before what comes behind it."""
    async with server.connection() as client:
        for path in PATHS:
            client.send(head(path, f"content-length: {len(body(path, stream=stream))}") + body(path, stream=stream))
        answers = [await client.response() for _ in PATHS]
    assert [status for status, _ in answers] == [200, 200, 200]
    for (_, content), mark in zip(answers, (b"chat.completion", b"assistant", b"response"), strict=True):
        assert b"Hello" in content
        assert mark in content


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("number", "length"), [(10_000, 1), (10, 8_000)])
async def test_headers_without_end_are_refused(server: Server, path: str, number: int, length: int) -> None:
    """By the server, in its own way, or by us with a 431: ten thousand small ones, ten long ones."""
    before = server.state()["begun"]
    async with server.connection() as client:
        many = [f"x-{each}: {'a' * length}" for each in range(number)]
        client.send(head(path, f"content-length: {len(body(path))}", *many) + body(path))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            assert (await client.head())[0] in {400, 431}
    assert await server.until_free() == {"begun": before, "taken": 0}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", ["x-forwarded-for: 127.0.0.1", "forwarded: for=127.0.0.1", "x-real-ip: 127.0.0.1"])
async def test_what_a_proxy_passed_on_is_refused_without_keys(server: Server, path: str, header: str) -> None:
    """Also by a server that believes every proxy: anybody could say to be on this machine."""
    before = server.state()["begun"]
    async with server.connection() as client:
        client.send(head(path, f"content-length: {len(body(path))}", header) + body(path))
        status, content = await client.response()
        assert (status, "proxy" in message_of(content)) == (403, True)
    assert await server.until_free() == {"begun": before, "taken": 0}


async def test_nobody_waits_for_a_place(server: Server) -> None:
    """The fourth of three is refused at once, says when to come back, and the others are served."""
    path = PATHS[0]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connection()) for _ in range(3)]
        for client in clients:
            client.send(head(path, f"content-length: {len(body(path))}") + body(path)[:-1])
        async with asyncio.timeout(SECONDS):
            while (await asyncio.to_thread(server.state))["taken"] < 3:
                pass
        fourth = await stack.enter_async_context(server.connection())
        fourth.send(head(path, f"content-length: {len(body(path))}") + body(path))
        status, said = await fourth.head()
        assert (status, b"retry-after: 1\r\n" in said) == (429, True)
        for client in clients:
            client.send(body(path)[-1:])
        assert [(await client.response())[0] for client in clients] == [200, 200, 200]
