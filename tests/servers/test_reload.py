"""Real server processes whose configuration changes while they run: each worker takes it, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from luthien_asgi.testing import Answer, ScriptedProvider, accumulate_openai

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SECONDS = 90.0
APP = "luthien_asgi.server:app"
GUNICORN = ["-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:{port}"]
SERVERS = {
    "serve": (1, ["-m", "luthien_asgi", "serve", "--config", "{config}", "--port", "{port}"]),
    "uvicorn": (2, ["-m", "uvicorn", APP, "--port", "{port}", "--workers", "2"]),
    "gunicorn-asgi": (2, [*GUNICORN, "-k", "asgi", APP]),
    "uvicorn-worker": (2, [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", APP]),
}


@dataclass(slots=True)
class Started:
    """A server, and its configuration file."""

    process: asyncio.subprocess.Process
    url: str
    config: Path
    content: dict[str, Any]
    workers: int
    log: Path

    def write(self, word: str, **sections: Any) -> None:
        """Replace the file by one in which `Hello` becomes a word."""
        policy = {"class": "ReplaceText", "config": {"replacements": [["Hello", word]]}}
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(self.content | {"policy": policy} | sections))
        new.rename(self.config)

    async def health(self) -> dict[str, Any]:
        """Return what one worker says: a new connection each time, which the system hands to any of them."""
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=10), timeout=SECONDS) as client:
            got = await client.get(self.url + "/luthien/health")
        assert got.status_code == 200
        return dict(got.json())

    async def all_say(self, holds: Callable[[dict[str, Any]], bool]) -> dict[int, dict[str, Any]]:
        """Ask until each worker has said something that holds; return the last of each."""
        found: dict[int, dict[str, Any]] = {}
        async with asyncio.timeout(SECONDS):
            while len(found) < self.workers:
                said = await self.health()
                if holds(said):
                    found[said["pid"]] = said
        return found

    async def text(self) -> str:
        body = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            got = await client.post(self.url + "/v1/chat/completions", json=body)
        return str(accumulate_openai(got.content).body["choices"][0]["message"]["content"])

    async def command(self) -> tuple[int, str, str]:
        """Run `luthien-asgi reload`."""
        command = [sys.executable, "-m", "luthien_asgi", "reload", "--config", str(self.config)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def started(kind: str, folder: Path, provider: str) -> AsyncIterator[Started]:
    workers, command = SERVERS[kind]
    config, log = folder / "luthien.yaml", folder / "log"
    params = {"model": "openai/fast", "api_base": f"{provider}/v1", "api_key": "sk-server"}
    content = {"model_list": [{"model_name": "fast", "litellm_params": params}]}
    config.write_text(json.dumps(content))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [part.format(port=port, config=config) for part in command]
    with log.open("w") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env={**os.environ, "LUTHIEN_CONFIG": str(config)}, stdout=out, stderr=out
        )
    try:
        yield Started(process, f"http://127.0.0.1:{port}", config, content, workers, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            await process.wait()


@pytest.mark.parametrize("kind", list(SERVERS))
async def test_each_worker_takes_what_the_file_says(kind: str, tmp_path: Path) -> None:
    """When it changes and when the command says so; a bad one is refused by each, and they go on."""
    async with ScriptedProvider(Answer("Hello")) as provider, started(kind, tmp_path, provider.url) as server:
        before = await server.all_say(lambda said: said["ready"])
        (version,) = {said["config"]["version"] for said in before.values()}
        server.write("Changed")
        after = await server.all_say(lambda said: said["config"]["version"] != version)
        assert (set(after), len({said["config"]["version"] for said in after.values()})) == (set(before), 1)
        assert await server.text() == "Changed"
        server.write("Wrong", limits={"streams": -1})
        status, out, err = await server.command()
        assert (status, out, err.count("limits.streams")) == (2, "", server.workers), err
        await server.all_say(lambda said: said["config"]["refused_at"] is not None)
        assert await server.text() == "Changed"
        server.write("Commanded")
        status, out, err = await server.command()
        assert (status, err) == (0, "")
        assert {int(line.split()[1].rstrip(":")) for line in out.splitlines()} == set(before)
        assert {await server.text() for _ in range(8)} == {"Commanded"}
        if kind == "serve":
            server.write("Hung up")
            version = (await server.health())["config"]["version"]
            server.process.send_signal(signal.SIGHUP)
            await server.all_say(lambda said: said["config"]["version"] != version)
            assert await server.text() == "Hung up"
    assert (await server.command())[0] == 1
