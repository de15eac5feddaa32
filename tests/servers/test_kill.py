"""Workers that are killed: every transaction that a client saw begin has one end in the record, whatever the client got."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from luthien_asgi import read_transactions
from luthien_asgi.jsonl_names import chains, rotated
from luthien_asgi.testing import Answer, ScriptedProvider, Text

pytestmark = [pytest.mark.servers, pytest.mark.broken_off, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

STREAMS = 12
"""Under way when a worker is killed."""
WITHIN = 60.0
LONG = Answer(Text(*[f"word{number} " for number in range(100)]), pace=0.05)


class Gunicorn:
    """A gunicorn with two workers, and the record that they write."""

    def __init__(self, folder: Path, provider: str, *, record: str) -> None:
        self.path = folder / "transactions.jsonl"
        config, self._log = folder / "luthien.yaml", folder / "log"
        gpt = f"{{model_name: gpt, litellm_params: {{model: openai/x, api_base: '{provider}/v1', api_key: k}}}}"
        config.write_text(f"model_list: [{gpt}]\nrecord: {{config: {{path: '{self.path}'{record}}}}}\n")
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        command = [sys.executable, "-m", "gunicorn", "-k", "asgi", "-w", "2", "-b", address, "--graceful-timeout", "5"]
        environment = {**os.environ, "LUTHIEN_CONFIG": str(config)}
        with self._log.open("w") as log:
            self.process = subprocess.Popen([*command, "luthien_asgi.server:app"], env=environment, stdout=log, stderr=log)

    def workers(self) -> list[int]:
        """Return the workers that have opened their record."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children if self._file_of(child) is not None]

    def _file_of(self, pid: str) -> str | None:
        folder = Path(f"/proc/{pid}/fd")
        with contextlib.suppress(OSError):
            links = [str(link.readlink()) for link in folder.iterdir()]
            return next((link for link in links if link.startswith(str(self.path.with_suffix("")))), None)
        return None

    async def has_workers(self, count: int = 2, *, other_than: frozenset[int] = frozenset()) -> list[int]:
        """Wait until so many workers serve: their lifespan has begun, so what was left has been settled."""
        deadline = time.monotonic() + WITHIN
        while len(found := [pid for pid in self.workers() if pid not in other_than]) < count:
            assert time.monotonic() < deadline, self.output()
            assert self.process.poll() is None, self.output()
            await asyncio.to_thread(time.sleep, 0.02)
        return found

    def output(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider(LONG) as provider:
        yield provider


@contextlib.contextmanager
def gunicorn(folder: Path, provider: ScriptedProvider, *, record: str) -> Iterator[Gunicorn]:
    server = Gunicorn(folder, provider.url, record=record)
    try:
        yield server
    finally:
        server.stop()


class Stream:
    """One client's stream: its transaction, and whether it ended well."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.begun = asyncio.Event()
        self.transaction = ""
        self.ended_well = False

    async def run(self) -> None:
        body = {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        try:
            with contextlib.suppress(httpx.HTTPError):
                async with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                    self.transaction = response.headers["x-luthien-transaction"]
                    async for part in response.aiter_bytes():
                        self.begun.set()
                        self.ended_well = self.ended_well or b"[DONE]" in part
        finally:
            self.begun.set()


@contextlib.asynccontextmanager
async def streaming(url: str, count: int) -> AsyncIterator[list[Stream]]:
    """Have streams under way; when this is left they have ended."""
    # A connection each, so that both workers get some.
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        streams = [Stream(client) for _ in range(count)]
        async with asyncio.TaskGroup() as tasks:
            for stream in streams:
                tasks.create_task(stream.run())
            for stream in streams:
                await stream.begun.wait()
            yield streams


def counts(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Return how often each transaction begins and ends in the record's whole lines."""
    pattern = re.compile(rb'\{"type":"(begin|end)","id":"(\w+)".*\}\n')
    begins, ends = Counter[str](), Counter[str]()
    for file in (file for name in chains(path) for file in (*rotated(name), name) if file.is_file()):
        with file.open("rb") as lines:
            for line in lines:
                if found := pattern.fullmatch(line):
                    (begins if found[1] == b"begin" else ends)[found[2].decode()] += 1
    return begins, ends


def endings(path: Path) -> dict[str, str | None]:
    return {pair["id"]: pair["end"] and pair["end"]["ending"] for pair in read_transactions(path)}


@pytest.mark.parametrize("options", ["", ", max_bytes: 5000"], ids=["one file", "rotated"])
@pytest.mark.parametrize("durability", ["relaxed", "strict"])
async def test_each_transaction_that_a_client_saw_begin_has_one_end(
    tmp_path: Path, provider: ScriptedProvider, durability: str, options: str
) -> None:
    """A worker is killed with streams under way; the one that takes its place ends them. Then both at once, and a restart."""
    seen: list[Stream] = []
    record = f", durability: {durability}{options}"
    with gunicorn(tmp_path, provider, record=record) as server:
        for victims in (1, 2):
            workers = await server.has_workers()
            async with streaming(server.url, STREAMS) as streams:
                seen += streams
                for pid in workers[:victims]:
                    os.kill(pid, signal.SIGKILL)
                provider.script = Answer(Text("short"))
                new = await server.has_workers(victims, other_than=frozenset(workers))
                assert set(new).isdisjoint(workers[:victims])
            provider.script = LONG
    with gunicorn(tmp_path, provider, record=record) as server:
        await server.has_workers()
    begins, ends = counts(server.path)
    transactions = {stream.transaction for stream in seen if stream.transaction}
    assert len(transactions) == 2 * STREAMS
    assert transactions <= begins.keys()
    assert set(begins.values()) == set(ends.values()) == {1}
    assert begins.keys() == ends.keys()
    found = endings(server.path)
    assert {found[stream.transaction] for stream in seen if stream.ended_well} <= {"completed"}
    assert Counter(found.values())["interrupted"] >= 2
