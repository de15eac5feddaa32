"""Real server processes: uvicorn, gunicorn with its own asgi worker, gunicorn with uvicorn-worker.

Each serves `luthien_asgi.server:app` from a configuration file, with the scripted provider behind a real LiteLLM.
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
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from luthien_asgi.testing import (
    Answer,
    Disconnect,
    ErrorEvent,
    Failure,
    Reset,
    ScriptedProvider,
    Stall,
    Text,
    Truncate,
    check_body,
    check_stream,
    sse_events,
)

pytestmark = pytest.mark.servers

SERVERS = {
    "uvicorn": ["-m", "uvicorn", "luthien_asgi.server:app", "--port", "{port}", "--timeout-graceful-shutdown", "20"],
    "gunicorn-asgi": ["-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:{port}", "--graceful-timeout", "20",
    "luthien_asgi.server:app"], "uvicorn-worker": [
        "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", "--graceful-timeout", "20",
        "luthien_asgi.server:app",
    ],
}  # fmt: skip
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
PAIRS = [("openai", "gpt"), ("openai", "claude"), ("anthropic", "gpt"), ("anthropic", "claude")]
LONG = Answer(Text(*[f"word{n} " for n in range(50)]), pace=0.05)


def model(name: str, deployment: str, base: str) -> str:
    return f"  - {{model_name: {name}, litellm_params: {{model: {deployment}, api_base: '{base}', api_key: sk-server}}}}\n"


class Lines:
    """The lines that another process writes to a file, as they come."""

    def __init__(self, path: Path) -> None:
        self.seen: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._tail = subprocess.Popen(
            ["tail", "-n", "+1", "-F", "-s", "0.02", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._tail.stdout is not None
        with self._tail.stdout as lines:
            for line in lines:
                with self._changed:
                    self.seen.append(json.loads(line))
                    self._changed.notify_all()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.seen if line["type"] == kind]

    async def until(self, holds: Callable[[], bool]) -> None:
        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(holds, timeout=10), self.seen

        await asyncio.to_thread(wait)

    def close(self) -> None:
        self._tail.terminate()
        self._tail.wait(10)
        self._reader.join(10)


class Server:
    """One server process and what it writes."""

    def __init__(self, kind: str, folder: Path, provider: ScriptedProvider) -> None:
        self.kind = kind
        self.provider = provider
        self.records = folder / "transactions.jsonl"
        self.lines = Lines(self.records)
        self.log = (folder / "server.log").open("w+")
        config = folder / "luthien.yaml"
        config.write_text(
            "model_list:\n"
            + model("gpt", "openai/gpt-4o", provider.url + "/v1")
            + model("claude", "anthropic/claude-x", provider.url)
            + f"record: {{sink: luthien_asgi.jsonl.JsonlRecorder, config: {{path: '{self.records}'}}}}\n"
            "settings: {stall_timeout: 2, ping_interval: 1, drain_timeout: 15}\n"
        )
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, *(part.format(port=port) for part in SERVERS[kind])]
        self.process = subprocess.Popen(
            command, env={**os.environ, "LUTHIEN_CONFIG": str(config)}, stdout=self.log, stderr=self.log
        )

    def wait_ready(self) -> None:
        """Wait until the server answers; LiteLLM's import takes seconds, and connecting is tried again in growing steps."""
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=90) as client:
                assert client.get(self.url + "/luthien/health").status_code == 200, self.output()
        except httpx.TransportError:
            pytest.fail(self.output())

    def output(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.lines.close()
        self.log.close()

    async def end_of(self, marker: str) -> dict[str, Any]:
        """Wait until the transaction whose request holds the marker has ended, and return its end."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            ids = {line["id"] for line in self.lines.of("begin") if marker in json.dumps(line["request"])}
            found.update(next((line for line in self.lines.of("end") if line["id"] in ids), {}))
            return bool(found)

        await self.lines.until(ended)
        return found


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider(Answer(Text("Hello"))) as provider:
        yield provider


@pytest.fixture(scope="module", params=list(SERVERS))
def server(
    request: pytest.FixtureRequest, provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    started = Server(request.param, tmp_path_factory.mktemp(request.param), provider)
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


def body(model: str, *, stream: bool = True, marker: str = "Hi") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": marker}], "max_tokens": 100, "stream": stream}


@pytest.fixture
def marker() -> str:
    """A text that is in one request only."""
    return uuid.uuid4().hex


@contextlib.asynccontextmanager
async def asked(
    server: Server, client: str, model: str, *, stream: bool = True, marker: str = "Hi"
) -> AsyncIterator[httpx.Response]:
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream("POST", server.url + PATHS[client], json=body(model, stream=stream, marker=marker)) as response,
    ):
        yield response


async def fetch(
    server: Server, client: str, model: str, *, stream: bool = True, marker: str = "Hi"
) -> tuple[httpx.Response, bytes]:
    async with asked(server, client, model, stream=stream, marker=marker) as response:
        content = await response.aread()
    wire: Any = client
    if response.headers["content-type"].startswith("text/event-stream"):
        check_stream(wire, content)
    else:
        check_body(wire, content)
    return response, content


def ended_well(client: str, content: bytes) -> bool:
    return content.count(b"data: [DONE]" if client == "openai" else b'"type":"message_stop"') == 1


def error_event(content: bytes) -> dict[str, Any]:
    return dict(json.loads(sse_events(content)[-1].data or "{}")["error"])


@pytest.mark.parametrize(("client", "model"), PAIRS)
async def test_all_four_pairs_stream(server: Server, client: str, model: str) -> None:
    """Each client gets its stream from each backend."""
    server.provider.script = Answer(Text("Hel", "lo"))
    response, content = await fetch(server, client, model)
    assert response.status_code == 200
    assert ended_well(client, content)


@pytest.mark.parametrize(("client", "model"), PAIRS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
async def test_each_error_status_of_the_provider_arrives(server: Server, client: str, model: str, status: int) -> None:
    """The provider's status in the client's error body, Retry-After kept."""
    server.provider.script = Failure(status, message="provider says no", headers={"retry-after": "9"})
    response, content = await fetch(server, client, model)
    assert response.status_code == status
    assert json.loads(content)["error"]["message"] == "provider says no"
    assert response.headers["retry-after"] == "9"
    if client == "anthropic" and status == 529:
        assert json.loads(content)["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(("client", "model"), PAIRS)
@pytest.mark.parametrize("fault", [Reset(after=4), Disconnect(after=4), Truncate(after=4), ErrorEvent(after=4)], ids=repr)
async def test_a_provider_that_dies_in_mid_stream_is_an_error_event(
    server: Server, client: str, model: str, fault: Any, marker: str
) -> None:
    """What was delivered stays, then the error event and no happy end; the record says failed."""
    server.provider.script = Answer(Text("one ", "two ", "three ", "four "), faults=(fault,))
    response, content = await fetch(server, client, model, marker=marker)
    assert response.status_code == 200
    assert b"one " in content
    assert not ended_well(client, content)
    assert error_event(content)["message"]
    assert (await server.end_of(marker))["ending"] == "failed"


@pytest.mark.parametrize(("client", "model"), PAIRS)
@pytest.mark.parametrize("fault", [Reset(), Disconnect(), Reset(after=0), Truncate(after=0)], ids=repr)
async def test_a_provider_that_dies_at_the_start_is_a_5xx(server: Server, client: str, model: str, fault: Any) -> None:
    """Nothing was sent, so the failure has a status, streaming or not."""
    server.provider.script = Answer(Text("never"), faults=(fault,))
    for stream in (True, False):
        response, content = await fetch(server, client, model, stream=stream)
        assert response.status_code in {500, 502, 503}
        assert json.loads(content)["error"]["message"]


@pytest.mark.parametrize(("client", "model"), PAIRS)
async def test_a_stall_is_an_error_event_and_closes_the_upstream(server: Server, client: str, model: str) -> None:
    """A provider that falls silent is given up after stall_timeout; meanwhile there are pings."""
    server.provider.script = Answer(Text("one ", "two ", "three "), faults=(Stall(after=4),))
    before = len(server.provider.requests)
    response, content = await fetch(server, client, model)
    assert response.status_code == 200
    assert b"ping" in content
    assert "silent" in error_event(content)["message"]
    await closed(server, before)


async def closed(server: Server, index: int) -> float:
    """Wait until the upstream connections of all requests from one on are closed, and return when that one was."""
    requests = server.provider.requests[index:]
    await server.provider._wait(5, lambda: all(request.closed_early for request in requests), "the upstream closes")
    at = requests[0].closed_at
    assert at is not None
    return at


@pytest.mark.parametrize(("client", "model"), PAIRS)
@pytest.mark.parametrize("phase", ["before the headers", "mid-stream", "not streaming"])
async def test_a_client_that_leaves_closes_the_upstream_within_a_second(
    server: Server, client: str, model: str, phase: str, marker: str
) -> None:
    """The connection to the provider closes, and the record says client_disconnected."""
    before = len(server.provider.requests)
    server.provider.script = Answer(Text("a", "b", "c"), faults=(Stall() if phase == "before the headers" else Stall(after=4),))
    leave = asyncio.Event()

    async def client_task() -> None:
        with contextlib.suppress(httpx.TransportError):
            async with asked(server, client, model, stream=phase != "not streaming", marker=marker) as response:
                async for _ in response.aiter_bytes():
                    leave.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(client_task())
        await server.provider.wait_requests(before + 1)
        if phase == "mid-stream":
            await leave.wait()
        task.cancel()
        left = time.monotonic()
    assert await closed(server, before) - left < 1
    assert (await server.end_of(marker))["ending"] == "client_disconnected"


async def test_many_clients_that_leave_take_no_slot_with_them(server: Server) -> None:
    """After thirty clients that left the server answers as before."""
    server.provider.script = Answer(Text("a", "b", "c"), faults=(Stall(after=4),))
    before = len(server.provider.requests)

    async def hit() -> None:
        with contextlib.suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(0.3), asked(server, "openai", "gpt") as response:
                await response.aread()

    await asyncio.gather(*(hit() for _ in range(30)))
    await closed(server, before)
    server.provider.script = Answer(Text("Hello"))
    assert ended_well("openai", (await fetch(server, "openai", "gpt"))[1])


@pytest.mark.parametrize("kind", list(SERVERS))
async def test_a_stop_signal_drains_the_streams_that_run(
    kind: str, provider: ScriptedProvider, tmp_path: Path, marker: str
) -> None:
    """SIGTERM in mid-stream: the stream comes to its end, then the process goes, and the record is whole."""
    server = Server(kind, tmp_path, provider)
    try:
        server.wait_ready()
        provider.script = LONG
        async with asked(server, "openai", "gpt", marker=marker) as response:
            parts = response.aiter_bytes()
            content = await anext(parts)
            server.process.send_signal(signal.SIGTERM)
            async for part in parts:
                content += part
        assert ended_well("openai", content), server.output()
        # uvicorn raises the signal again once it has shut down, as a process that was asked to stop should.
        assert await asyncio.to_thread(server.process.wait, 20) in {0, -signal.SIGTERM}
        assert (await server.end_of(marker))["ending"] == "completed"
    finally:
        server.stop()
