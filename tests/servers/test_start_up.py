"""Real processes while LiteLLM is imported: what they answer, and how they end.

A module that stands in front of LiteLLM waits until the test lets it go on, then steps aside for the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
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

from luthien_asgi.testing import Answer, ScriptedProvider, accumulate_openai

pytestmark = pytest.mark.servers

SECONDS = 60.0
GATE = """
import importlib, os, sys
with open(os.environ["LITELLM_GATE"]) as gate:
    if gate.read() == "fail":
        raise ImportError("LiteLLM is broken")
sys.path.remove(os.path.dirname(__file__))
del sys.modules["litellm"]
importlib.import_module("litellm")
"""
SERVERS = {
    "serve": ["-m", "luthien_asgi", "serve", "--config", "{config}", "--port", "{port}"],
    "uvicorn": ["-m", "uvicorn", "luthien_asgi.server:app", "--port", "{port}"],
    "gunicorn-asgi": ["-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:{port}", "luthien_asgi.server:app"],
    "uvicorn-worker": [
        "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", "luthien_asgi.server:app",
    ],
}  # fmt: skip
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


@dataclass(frozen=True, slots=True)
class Started:
    """A server process whose import of LiteLLM waits."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    gate: Path
    log: Path

    async def say(self, word: str) -> None:
        """Let the import go on."""
        async with asyncio.timeout(SECONDS):
            await asyncio.to_thread(self.gate.write_text, word)

    async def health(self) -> Any:
        got = await self.client.get("/luthien/health")
        assert got.status_code == 200
        return {name: got.json()[name] for name in ("status", "ready", "backend")}

    async def becomes(self, state: str) -> None:
        async with asyncio.timeout(SECONDS):
            while (await self.health())["backend"] != state:
                pass

    async def ask(self, path: str, **fields: Any) -> httpx.Response:
        body = {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "stream": True}
        return await self.client.post(path, json=body | fields)


@contextlib.asynccontextmanager
async def started(kind: str, folder: Path, provider: str) -> AsyncIterator[Started]:
    (folder / "litellm.py").write_text(GATE)
    gate, log, config = folder / "gate", folder / "log", folder / "luthien.yaml"
    os.mkfifo(gate)
    params = f"{{model: openai/gpt-4o, api_base: '{provider}/v1', api_key: sk-server}}"
    config.write_text(f"model_list: [{{model_name: gpt, litellm_params: {params}}}]\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(port=port, config=config) for part in SERVERS[kind]]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    settings = {**os.environ, "PYTHONPATH": path, "LITELLM_GATE": str(gate), "LUTHIEN_CONFIG": str(config)}
    with log.open("w") as written:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=settings, stdout=written, stderr=written, start_new_session=True
        )
    # Connecting is tried again in growing steps until the server listens.
    transport = httpx.AsyncHTTPTransport(retries=8)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=SECONDS) as client:
            yield Started(process, client, gate, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its workers, who would not notice
        await process.wait()


@pytest.mark.parametrize("kind", list(SERVERS))
async def test_health_is_answered_and_requests_wait_while_litellm_is_imported(kind: str, tmp_path: Path) -> None:
    """Whatever server runs the app; the request that came too early is answered, not refused."""
    async with ScriptedProvider(Answer("Hel", "lo")) as provider, started(kind, tmp_path, provider.url) as server:
        assert await server.health() == {"status": "ok", "ready": False, "backend": "starting"}
        async with asyncio.TaskGroup() as tasks:
            early = tasks.create_task(server.ask(PATHS["openai"]))
            assert await server.health() == {"status": "ok", "ready": False, "backend": "starting"}
            assert (await server.ask(PATHS["openai"], model="other")).status_code == 404
            assert provider.requests == []
            await server.say("go on")
        await server.becomes("ready")
    assert accumulate_openai(early.result().content).body["choices"][0]["message"]["content"] == "Hello"


async def test_a_litellm_that_cannot_be_imported_is_a_503_in_both_formats(tmp_path: Path) -> None:
    """Health says that it failed, and the log why; clients are not told."""
    async with started("serve", tmp_path, "http://127.0.0.1:9") as server:
        await server.say("fail")
        await server.becomes("failed")
        for path in PATHS.values():
            async with asyncio.TaskGroup() as tasks:
                refused = tasks.create_task(server.ask(path))
                await server.say("fail")  # each request tries again
            assert refused.result().status_code == 503
            assert refused.result().json()["error"]["message"] == "The gateway cannot reach any model: its backend did not start."
    assert "LiteLLM is broken" in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_litellm_is_imported_ends_the_process_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """The import is never let go on here, and the process ends all the same, without a traceback."""
    async with started("serve", tmp_path, "http://127.0.0.1:9") as server:
        assert (await server.health())["backend"] == "starting"
        server.process.send_signal(number)
        async with asyncio.timeout(SECONDS):
            assert await server.process.wait() == 0
    assert "Traceback" not in server.log.read_text()
