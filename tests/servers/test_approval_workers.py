"""Two real workers of one machine: an answer that comes in at the one decides about a block that the other holds.

Each response says which process it is from (`x-pid`), and each worker tells the test over UDP what it has begun to hold.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.servers

APP = """
import os, socket
from pathlib import Path

from starlette.applications import Starlette

from luthien_asgi import Approvals, BlockKind, Escalate, Hold, KeyAuth, LuthienMiddleware, Paths, Policy, StreamSettings
from luthien_asgi.testing import ScriptedBackend, ToolCall, chunks

telling = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def tell(what, more):
    telling.sendto(f"{what} {os.getpid()} {more}".encode(), ("127.0.0.1", int(os.environ["HELD_PORT"])))


async def notify(approval):
    tell("held", approval.id)


desk = Approvals(auth=KeyAuth({"alice": "operator-key-1"}), directory=Path(os.environ["HELD_FOLDER"]), notify=notify)


class Asking(Policy):
    handles = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Escalate,)

    def on_block_complete(self, block, ctx):
        return Escalate("May it?", message="A person said no.")


inner = LuthienMiddleware(
    Starlette(),
    backend=ScriptedBackend(chunks("Hi", ToolCall("call_1", "bash", {"command": "rm"}))),
    policy=Asking(),
    settings=StreamSettings(ping_interval=0.1),
    paths=Paths(approvals="/luthien/approvals"),
    approvals=desk,
)


async def app(scope, receive, send):
    async def saying(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-pid", str(os.getpid()).encode())]
        await send(message)
        if message["type"] == "lifespan.startup.complete":
            tell("ready", "")

    await inner(scope, receive, saying)
"""
SERVERS = {
    "uvicorn": ["uvicorn", "held:app", "--port", "{port}", "--workers", "2", "--timeout-graceful-shutdown", "1"],
    "gunicorn-asgi": ["gunicorn", "-k", "asgi", "-w", "2", "-b", "127.0.0.1:{port}", "--graceful-timeout", "1", "held:app"],
    "gunicorn-preload": [
        "gunicorn", "-k", "asgi", "-w", "2", "-b", "127.0.0.1:{port}", "--graceful-timeout", "1", "--preload", "held:app",
    ],
    "uvicorn-worker": [
        "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "-b", "127.0.0.1:{port}", "--graceful-timeout", "1",
        "held:app",
    ],
}  # fmt: skip
OPERATOR = {"authorization": "Bearer operator-key-1"}
SECONDS = 90.0
"""A bound on each wait: workers that start beside other tests import LiteLLM for half a minute."""
TRIES = 300
"""New connections until one is the other worker's: the system hands them out as it likes."""


class Held:
    """A block that waits: the process that holds it, its id, and the client's answer to come."""

    def __init__(self, pid: int, approval_id: str, answer: Future[str]) -> None:
        self.pid, self.id, self.answer = pid, approval_id, answer


class Workers:
    """A server with two workers."""

    def __init__(self, kind: str, folder: Path) -> None:
        (folder / "held.py").write_text(APP)
        self.folder = folder / "d"
        self.told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.told.bind(("127.0.0.1", 0))
        self.told.settimeout(SECONDS)
        self._threads = ThreadPoolExecutor(TRIES)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = (folder / "server.log").open("w")
        paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        told = {"HELD_FOLDER": str(self.folder), "HELD_PORT": str(self.told.getsockname()[1])}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(part.format(port=port) for part in SERVERS[kind])],
            env={**os.environ, **told, "PYTHONPATH": paths},
            stdout=self._log,
            stderr=self._log,
        )

    def output(self) -> str:
        return Path(self._log.name).read_text()

    def wait_ready(self) -> set[int]:
        """Wait until both workers have started, and return their processes."""
        return {self._told("ready")[0] for _ in range(2)}

    def _told(self, what: str) -> tuple[int, str]:
        """Return what the next message of this kind says: a worker's process, and the rest."""
        while True:
            try:
                kind, pid, rest = self.told.recv(200).decode().split(" ")
            except TimeoutError:
                pytest.fail(self.output())
            if kind == what:
                return int(pid), rest

    def ask(self) -> Held:
        """Send a client's request, and wait until its call is held."""
        answer = self._threads.submit(self._completed)
        pid, approval_id = self._told("held")
        return Held(pid, approval_id, answer)

    def _completed(self) -> str:
        body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        return httpx.post(self.url + "/v1/chat/completions", json=body, timeout=SECONDS).text

    def at(self, pid: int) -> httpx.Client:
        """Return a client whose connection is a worker's."""
        for _ in range(TRIES):
            client = httpx.Client(base_url=self.url, headers=OPERATOR, timeout=SECONDS)
            if client.get("/luthien/approvals").headers["x-pid"] == str(pid):
                return client
            client.close()
        pytest.fail(f"no connection to {pid}")

    def held_by_each(self, pids: set[int]) -> dict[int, Held]:
        """Ask until each worker holds something; what is too much is denied."""
        held: dict[int, Held] = {}
        for _ in range(TRIES):
            one = self.ask()
            if one.pid in held:
                assert self.post(httpx, one, "deny", base=self.url).status_code == 200
            held.setdefault(one.pid, one)
            if set(held) == pids:
                return held
        pytest.fail(f"only {set(held)} were asked")

    def post(self, client: Any, held: Held, decision: str, *, base: str = "") -> httpx.Response:
        response: httpx.Response = client.post(
            f"{base}/luthien/approvals/{held.id}", json={"decision": decision}, headers=OPERATOR
        )
        return response

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(SECONDS)
        self._threads.shutdown()
        self.told.close()
        self._log.close()


@pytest.fixture(params=list(SERVERS))
def workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    started = Workers(request.param, tmp_path_factory.mktemp("w"))
    try:
        yield started
    finally:
        started.stop()


@pytest.mark.timeout(300)
def test_two_workers_answer_for_each_other(workers: Workers) -> None:
    """From their start over the death of one of them to the end of the server: starting takes long, so it is done once."""
    pids = workers.wait_ready()
    answers_reach_the_worker_that_holds_the_block(workers, pids)
    a_worker_that_is_killed_takes_its_own_with_it(workers, pids)
    a_server_that_stops_lets_nothing_through(workers)


def answers_reach_the_worker_that_holds_the_block(workers: Workers, pids: set[int]) -> None:
    """In both directions; the list is of all, at either; and a second answer is late at either."""
    held = workers.held_by_each(pids)
    for holding, decision in zip(sorted(held), ("allow", "deny"), strict=True):
        (other,) = pids - {holding}
        waiting = [one.id for one in held.values() if not one.answer.done()]
        with contextlib.closing(workers.at(holding)) as here, contextlib.closing(workers.at(other)) as there:
            for client in (here, there):
                listed = client.get("/luthien/approvals").json()
                assert sorted(one["id"] for one in listed) == sorted(waiting)
                assert [one["asked_at"] for one in listed] == sorted(one["asked_at"] for one in listed)
            taken = workers.post(there, held[holding], decision)
            assert (taken.status_code, taken.headers["x-pid"]) == (200, str(other)), taken.text
            assert taken.json() == {"id": held[holding].id, "decision": decision, "by": "operator:alice", "reason": ""}
            answer = held[holding].answer.result(SECONDS)
            assert ("call_1" in answer, "A person said no." in answer) == (decision == "allow", decision == "deny")
            assert "data: [DONE]" in answer
            assert [workers.post(client, held[holding], "allow").status_code for client in (here, there)] == [409, 409]


def a_worker_that_is_killed_takes_its_own_with_it(workers: Workers, pids: set[int]) -> None:
    """The other answers as before, and the dead one's socket is removed."""
    held = workers.held_by_each(pids)
    killed, left = sorted(pids)
    with contextlib.closing(workers.at(left)) as client:
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            held[killed].answer.result(SECONDS)
        assert [one["id"] for one in client.get("/luthien/approvals").json()] == [held[left].id]
        assert workers.post(client, held[killed], "allow").status_code == 404
        assert workers.post(client, held[left], "allow").status_code == 200
    assert "call_1" in held[left].answer.result(SECONDS)
    assert f"{held[killed].id.partition('-')[0]}.sock" not in {path.name for path in workers.folder.iterdir()}


def a_server_that_stops_lets_nothing_through(workers: Workers) -> None:
    """What waits is not waited for for ever: it is denied, or its stream is cut off."""
    held = workers.ask()
    workers.process.send_signal(signal.SIGTERM)
    workers.process.wait(SECONDS)
    with contextlib.suppress(httpx.TransportError):
        assert "call_1" not in held.answer.result(SECONDS)
