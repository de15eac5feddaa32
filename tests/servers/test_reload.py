"""Real server processes whose configuration changes while they run: each worker takes it, and says so.

Those that start while it is bad start with the last good one, where a master process shares it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from luthien_asgi.testing import Answer, ScriptedProvider, accumulate_openai

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SECONDS = 90.0
APP = "luthien_asgi.server:app"
EXAMPLE = Path(__file__).parents[2] / "examples" / "gunicorn.conf.py"
GUNICORN = ["-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:{port}"]
SERVERS = {
    "serve": (1, ["-m", "luthien_asgi", "serve", "--config", "{config}", "--port", "{port}"]),
    "uvicorn": (2, ["-m", "uvicorn", APP, "--port", "{port}", "--workers", "2"]),
    "gunicorn-asgi": (2, [*GUNICORN, "-k", "asgi", APP]),
    "uvicorn-worker": (2, [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", APP]),
}
SHARING = {
    f"{kind}, as shipped": (workers, [*command[:-1], "-c", str(EXAMPLE), APP])
    for kind, (workers, command) in SERVERS.items()
    if "gunicorn" in command
}
BAD = {"limits": {"streams": -1}}


def refused(said: dict[str, Any]) -> bool:
    return said["config"]["refused_at"] is not None


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

    async def all_say(
        self, holds: Callable[[dict[str, Any]], bool], *, besides: Collection[int] = ()
    ) -> dict[int, dict[str, Any]]:
        """Ask until each worker, besides some, has said something that holds; return the last of each."""
        found: dict[int, dict[str, Any]] = {}
        async with asyncio.timeout(SECONDS):
            while len(found) < self.workers:
                said = await self.health()
                if holds(said) and said["pid"] not in besides:
                    found[said["pid"]] = said
        return found

    async def kill(self, *workers: int) -> None:
        """Kill workers, and return when they are dead."""
        for worker in workers:
            watched = os.pidfd_open(worker)
            try:
                os.kill(worker, signal.SIGKILL)
                readable, _, _ = await asyncio.to_thread(select.select, [watched], [], [], SECONDS)
            finally:
                os.close(watched)
            assert readable

    async def versions(self, *, is_refused: bool, besides: Collection[int] = ()) -> tuple[set[int], set[str], set[str]]:
        """Return who the workers are, their versions and what they answer, once all say that the file is refused, or is not."""
        said = await self.all_say(lambda each: refused(each) is is_refused and each["ready"], besides=besides)
        texts = {await self.text() for _ in range(8)}
        return set(said), {each["config"]["version"] for each in said.values()}, texts

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
async def started(kind: str, folder: Path, provider: str, **sections: Any) -> AsyncIterator[Started]:
    workers, command = {**SERVERS, **SHARING}[kind]
    config, log = folder / "luthien.yaml", folder / "log"
    params = {"model": "openai/fast", "api_base": f"{provider}/v1", "api_key": "sk-server"}
    content = {"model_list": [{"model_name": "fast", "litellm_params": params}]}
    config.write_text(json.dumps(content | sections))
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
        server.write("Wrong", **BAD)
        status, out, err = await server.command()
        assert (status, out, err.count("limits.streams")) == (2, "", server.workers), err
        await server.all_say(refused)
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


@pytest.mark.skipif(sys.platform != "linux", reason="watches processes by descriptor")
@pytest.mark.parametrize("kind", list(SHARING))
async def test_a_worker_that_starts_while_the_file_is_bad_goes_on_with_the_last_good_one(kind: str, tmp_path: Path) -> None:
    """With the one that was taken last, whoever took it; and it takes what is good again like the others."""
    async with ScriptedProvider(Answer("Hello")) as provider, started(kind, tmp_path, provider.url) as server:
        first = await server.versions(is_refused=False)
        server.write("Wrong", **BAD)
        await server.all_say(refused)
        dead, alive = sorted(first[0])
        await server.kill(dead)
        workers, *others = await server.versions(is_refused=True, besides={dead})
        assert (alive in workers, others) == (True, [first[1], {"Hello"}])
        assert server.log.read_text().count("this process starts with") == 1
        server.write("Second")
        second = await server.versions(is_refused=False)
        assert (second[0], second[1] & first[1], second[2]) == (workers, set(), {"Second"})
        server.config.write_text("model_list: [")
        await server.all_say(refused)
        await server.kill(*workers)  # nobody is left who has it
        killed = await server.versions(is_refused=True, besides=workers)
        assert killed[1:] == second[1:]
        server.process.send_signal(signal.SIGHUP)
        renewed = await server.versions(is_refused=True, besides=workers | killed[0])
        assert renewed[1:] == second[1:]
        status, _, err = await server.command()
        assert (status, err.count("is not YAML")) == (2, server.workers)
        server.write("Third")
        third = await server.versions(is_refused=False)
        assert (third[0], third[1] & second[1], third[2]) == (renewed[0], set(), {"Third"})
    assert server.process.returncode == 0


@pytest.mark.parametrize("kind", list(SHARING))
async def test_nothing_starts_with_a_bad_file_before_one_was_good(kind: str, tmp_path: Path) -> None:
    """The server ends, and its log says why."""
    async with started(kind, tmp_path, "http://127.0.0.1:9", **BAD) as server, asyncio.timeout(SECONDS):
        assert await server.process.wait() != 0
    assert "limits.streams: streams must be a positive" in server.log.read_text()
