"""A client that never reads costs a bounded number of bytes, and not for long.

The backend has as much as anybody takes. What a stream may take of it is in its queues and in the buffers of the server and of
the kernel; then the backend is not read any more, and after `send_timeout` the client is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

pytestmark = pytest.mark.servers

APP: Final = """
import json, os

from luthien_asgi import LuthienMiddleware, StreamSettings
from luthien_asgi.testing import ScriptedBackend
from luthien_asgi.testing.backend import ScriptedStream
from luthien_asgi.testing.chunk_builders import role, text_chunk


class Endless(ScriptedStream):
    async def __anext__(self):
        self.given += 1
        return role() if self.given == 1 else text_chunk("x" * SIZE)


class Backend(ScriptedBackend):
    async def open(self, call):
        stream = Endless((), sent={})
        self.streams.append(stream)
        return stream


async def state(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    with open("/proc/self/statm") as pages:
        rss = int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    given = [stream.given * SIZE for stream in backend.streams]
    body = json.dumps({"rss": rss, "given": given, "taken": app.slots.taken}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


SIZE = int(os.environ["SIZE"])
backend = Backend(())
app = LuthienMiddleware(
    state, backend=backend, auth=None, settings=StreamSettings(queue_bytes=QUEUE_BYTES, queue_size=QUEUE_SIZE, send_timeout=15.0)
)
"""
SERVERS: Final = {
    "uvicorn": ["-m", "uvicorn", "never:app", "--port", "{port}"],
    "gunicorn-asgi": ["-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:{port}", "never:app"],
}
QUEUE_BYTES: Final = 512 * 1024
QUEUE_SIZE: Final = 500
CLIENTS: Final = 20
MIB: Final = 1024 * 1024
KERNEL: Final = 12 * MIB
"""What the kernel's buffers of one connection may hold: no memory of the process."""
HELD: Final = 5 * QUEUE_BYTES + KERNEL
"""What may be taken from the backend: what waits for the formatter, what waits for room, what waits to be sent, what is sent, the
server's own buffer (64 KiB beside one send), and what the kernel has."""
GROWN: Final = 16 * MIB
"""What a stream may add to the process: that without the kernel's, an object for each chunk, and what the allocator loses."""
SECONDS: Final = 90.0


@pytest.fixture(params=list(SERVERS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "never.py").write_text(APP.replace("QUEUE_BYTES", str(QUEUE_BYTES)).replace("QUEUE_SIZE", str(QUEUE_SIZE)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *(part.format(port=port) for part in SERVERS[request.param])]
    environment = {**os.environ, "PYTHONPATH": path, "SIZE": str(request.getfixturevalue("size"))}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as client:
                client.get(f"http://127.0.0.1:{port}/state")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def request_of(path: str) -> bytes:
    asked: dict[str, Any] = {"model": "scripted", "stream": True}
    asked |= {"input": "Hi"} if "responses" in path else {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def silent(url: str, path: str) -> socket.socket:
    """Return a connection that asks and never reads; its own buffer is the smallest that there is."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    client.sendall(request_of(path))
    return client


@pytest.mark.parametrize(
    ("path", "size"), [("/v1/chat/completions", 100_000), ("/v1/messages", 1_000), ("/v1/responses", 100_000)]
)
async def test_a_client_that_never_reads_costs_its_queues_and_a_little(url: str, path: str, size: int) -> None:
    """The backend is read no further, the process does not grow, and in the end nobody of them has a place."""
    fresh = httpx.Limits(max_keepalive_connections=0)  # gunicorn closes what is idle for two seconds
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS, limits=fresh) as http, asyncio.timeout(SECONDS):

        async def state() -> dict[str, Any]:
            return dict((await http.get("/state")).json())

        before = (await state())["rss"]
        with contextlib.ExitStack() as stack:
            for _ in range(CLIENTS):
                stack.enter_context(silent(url, path))
            seen: list[Any] = []
            while len(seen) < 10 or len(seen[-1]["given"]) < CLIENTS or seen[-1]["given"] != seen[-10]["given"]:
                seen.append(await state())
            assert max(seen[-1]["given"]) < HELD
            grown = (max(each["rss"] for each in seen) - before) / CLIENTS
            assert grown < GROWN, f"{grown / MIB:.2f} MiB a client"
            while (await state())["taken"]:
                pass
