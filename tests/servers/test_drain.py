"""Real server processes that are asked to stop while answers run that do not end by themselves.

Whatever the server, and whether it waits longer than `drain_timeout` or loses its patience before: each client is told in its own
format, the provider's connections are closed, and each transaction has its end in the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from luthien_asgi.jsonl import read_transactions
from luthien_asgi.testing import Answer, ScriptedProvider, Stall, Text, ToolCall, check_body, check_stream, sse_events

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SECONDS = 90.0
"""A bound on each wait: a server that starts beside other tests imports LiteLLM for half a minute."""
EXAMPLE = Path(__file__).parents[2] / "examples" / "gunicorn.conf.py"
GUNICORN = ["-m", "gunicorn", "-w", "1", "-b", "127.0.0.1:{port}"]
APP = "luthien_asgi.server:app"
SERVERS = {
    "serve": ["-m", "luthien_asgi", "serve", "--config", "{config}", "--port", "{port}"],
    "uvicorn": ["-m", "uvicorn", APP, "--port", "{port}"],
    "gunicorn-asgi": [*GUNICORN, "-k", "asgi", APP],
    "uvicorn-worker": [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", APP],
}
IMPATIENT = {
    "uvicorn": ["-m", "uvicorn", APP, "--port", "{port}", "--timeout-graceful-shutdown", "1"],
    "gunicorn-asgi": [*GUNICORN, "-c", str(EXAMPLE), "-k", "asgi", "--graceful-timeout", "6", APP],
    "uvicorn-worker": [*GUNICORN, "-c", str(EXAMPLE), "-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "6", APP],
}
POLICY = """
import asyncio
from luthien_asgi import BlockKind, Hold, Policy

class Undecided(Policy):
    handles = {BlockKind.TOOL_CALL: Hold()}

    async def on_block_complete(self, block, ctx):
        await asyncio.Event().wait()
"""
SCRIPT = {
    "fast": Answer(Text("Hello")),
    "silent": Answer(Text("never"), faults=(Stall(),)),
    "stuck": Answer(Text("one ", "two ", "three "), faults=(Stall(after=4),)),
    "judged": Answer(Text("Look:"), ToolCall("c1", "bash", '{"command": "ls"}')),
}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "responses": "/v1/responses"}
RUNNING = [
    *[(wire, "stuck", True) for wire in PATHS],
    *[(wire, "silent", True) for wire in PATHS],
    *[(wire, "judged", True) for wire in PATHS],
    *[(wire, "stuck", False) for wire in PATHS],
]


def asked(wire: str, model: str, *, stream: bool) -> dict[str, Any]:
    """Return a request's body; its text says which it is."""
    name = f"{wire} {model} {stream}"
    said: dict[str, Any] = {"input": name} if wire == "responses" else {"messages": [{"role": "user", "content": name}]}
    return {"model": model, "stream": stream} | said | ({"max_tokens": 100} if wire == "anthropic" else {})


@dataclass(frozen=True, slots=True)
class Started:
    """A server process."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    records: Path
    log: Path

    def endings(self) -> dict[str, str]:
        """Return how each transaction ended, by the text of its request."""
        found = {}
        for transaction in read_transactions(self.records):
            request = transaction["begin"]["request"]
            said = request.get("input") or request["messages"][0]["content"]
            found[said] = transaction["end"]["ending"] if transaction["end"] is not None else "open"
        return found


@contextlib.asynccontextmanager
async def started(command: list[str], folder: Path, provider: str, *, drain: float) -> AsyncIterator[Started]:
    (folder / "undecided.py").write_text(POLICY)
    config, records, log = folder / "luthien.yaml", folder / "transactions.jsonl", folder / "log"
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": f"{provider}/v1", "api_key": "sk-server"}}
        for name in SCRIPT
    ]
    record = {"sink": "luthien_asgi.jsonl.JsonlRecorder", "config": {"path": str(records)}}
    settings = {"drain_timeout": drain, "commit_after": 1, "ping_interval": 1}
    written = {"model_list": models, "policy": {"class": "undecided.Undecided"}, "record": record, "settings": settings}
    config.write_text(json.dumps(written))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "LUTHIEN_CONFIG": str(config)}
    arguments = [part.format(port=port, config=config) for part in command]
    with log.open("w") as out:
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stdout=out, stderr=out)
    transport = httpx.AsyncHTTPTransport(retries=10)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=SECONDS) as client:
            try:
                assert (await client.post(PATHS["openai"], json=asked("openai", "fast", stream=False))).status_code == 200
            except httpx.TransportError:
                pytest.fail(log.read_text())
            yield Started(process, client, records, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def answered(server: Started, wire: str, model: str, stream: bool, begun: asyncio.Semaphore) -> tuple[int, bytes]:
    """Return status and body of an answer; `begun` is released once the client has got its beginning."""
    content = b""
    async with server.client.stream("POST", PATHS[wire], json=asked(wire, model, stream=stream)) as response:
        begun.release()
        async for part in response.aiter_bytes():
            content += part
    return response.status_code, content


def check_told(wire: Any, content: bytes, status: int) -> None:
    """The answer ends with the error of its format, and with no sign of a happy end."""
    if status != 200:
        assert status == 503
        check_body(wire, content)
        assert json.loads(content)["error"]["message"].startswith("The server was stopped")
        return
    check_stream(wire, content)
    last = sse_events(content)[-1]
    assert "The server was stopped" in (last.data or "")
    assert b"[DONE]" not in content
    assert b"message_stop" not in content
    assert b"response.completed" not in content


async def stopped(server: Started, provider: ScriptedProvider, *, quiet: bool = True) -> None:
    """Ask for everything, stop the server when all of it runs, and look at what came of it."""
    streams = [case for case in RUNNING if case[2]]
    begun = asyncio.Semaphore(0)
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        answers = {case: tasks.create_task(answered(server, *case, begun)) for case in RUNNING}
        for _ in streams:  # also those that wait for the provider, after `commit_after`
            await begun.acquire()
        await provider.wait_requests(1 + len(RUNNING))
        server.process.send_signal(signal.SIGTERM)
    status = {case: answer.result()[0] for case, answer in answers.items()}
    assert status == {case: 200 if case[2] else 503 for case in RUNNING}, server.log.read_text()
    for (wire, _, _), answer in answers.items():
        check_told(wire, answer.result()[1], answer.result()[0])
    async with asyncio.timeout(SECONDS):
        assert await server.process.wait() in {0, -signal.SIGTERM}, server.log.read_text()
    assert not quiet or "Traceback" not in server.log.read_text()
    running = [request for request in provider.requests if request.body["model"] not in {"fast", "judged"}]
    await provider._wait(5, lambda: all(request.closed_early for request in running), "the upstream closes")
    expected = {f"{wire} {model} {stream}": "shutdown" for wire, model, stream in RUNNING}
    assert server.endings() == expected | {"openai fast False": "completed"}


@pytest.mark.parametrize("kind", list(SERVERS))
async def test_answers_that_do_not_end_in_time_are_ended_with_an_error(kind: str, tmp_path: Path) -> None:
    """SIGTERM: in mid-stream, before the first chunk, held by a judge, and not streaming."""
    async with ScriptedProvider(SCRIPT) as provider, started(SERVERS[kind], tmp_path, provider.url, drain=1) as server:
        await stopped(server, provider)


@pytest.mark.parametrize("kind", list(IMPATIENT))
async def test_a_server_that_waits_for_less_does_not_cut_them(kind: str, tmp_path: Path) -> None:
    """`drain_timeout` is longer than uvicorn's limit, which cancels requests, or than gunicorn's, which kills."""
    async with ScriptedProvider(SCRIPT) as provider, started(IMPATIENT[kind], tmp_path, provider.url, drain=600) as server:
        await stopped(server, provider, quiet=kind != "uvicorn")  # which logs each request that it cancels
