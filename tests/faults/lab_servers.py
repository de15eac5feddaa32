"""Server processes under test, and what each of them has recorded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lab_http import CLIENT_KEY, Client, body_of, polled, request_of

HERE: Final = Path(__file__).parent
COMMANDS: Final = {
    "uvicorn": ("-m", "uvicorn", "lab_app:app", "--port", "{port}", "--log-level", "warning", "--no-access-log"),
    "gunicorn": ("-m", "gunicorn", "-k", "asgi", "-b", "127.0.0.1:{port}", "--graceful-timeout", "10", "lab_app:app"),
    "uvicorn-worker": (
        "-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", "--graceful-timeout", "10",
        "lab_app:app",
    ),
}  # fmt: skip
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0
LOOSE: Final = re.compile(
    r".*(?:Exception in ASGI application|never retrieved|was destroyed but it is pending|Unclosed|unclosed|never awaited"
    r"|Exception ignored in|Error handling request).*"
)
SETTINGS: Final = {
    "first_chunk_timeout": 2, "stall_timeout": 1.5, "total_timeout": 8, "body_timeout": 1.5, "policy_timeout": 1,
    "usage_timeout": 0.5, "queue_timeout": 1.5, "send_timeout": 1.5, "drain_timeout": 5, "ping_interval": 0.5, "commit_after": 1,
    "queue_bytes": 1048576,
}  # fmt: skip
LIMITS: Final = {"body_bytes": 1048576, "frame_bytes": 4194304}
POLICY: Final = [{"class": "lab_policies.LabTransform"}, {"class": "lab_policies.LabHold"}]


class Records:
    """What the processes of one server wrote, read as it grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, list[dict[str, Any]]] = {}
        self._read: dict[Path, int] = {}

    def refresh(self) -> None:
        for path in self.folder.glob("transactions*.jsonl"):
            with path.open("rb") as lines:
                lines.seek(self._read.get(path, 0))
                data = lines.read()
            whole = data.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            for line in data[:whole].splitlines():
                with contextlib.suppress(ValueError):  # a line that a crash cut
                    self._note(json.loads(line))

    def _note(self, line: dict[str, Any]) -> None:
        if line["type"] == "begin":
            self.begun[line["id"]] = line
        elif line["type"] == "end":
            self.ended.setdefault(line["id"], []).append(line)

    def complaints(self) -> list[str]:
        """Return every transaction that has not exactly one end, once its server has stopped."""
        self.refresh()
        ends = {name: len(self.ended.get(name, ())) for name in (*self.begun, *self.ended)}
        return [f"{name} has {count} ends" for name, count in ends.items() if count != 1]

    def of(self, marker: str) -> list[str]:
        """Return the ids of the transactions whose request holds a marker."""
        self.refresh()
        return [name for name, begin in self.begun.items() if marker in json.dumps(begin["request"])]


class Server:
    """One server and its log. `folder` holds its configuration and its records, also those of the server before it."""

    def __init__(self, kind: str, folder: Path, bases: Mapping[str, str], *, policied: bool, record: str = "") -> None:
        self.kind, self.policied, self.bases = kind, policied, bases
        self.records = Records(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._config = folder / "luthien.json"
        where = record or str(folder / "transactions.jsonl")
        self._config.write_text(json.dumps(configuration(bases, where, policied=policied)))
        self._log: list[str] = []
        self._start()

    def _start(self) -> None:
        places = (str(HERE), *filter(None, (os.environ.get("PYTHONPATH"),)))
        environment = {**os.environ, "LUTHIEN_CONFIG": str(self._config), "PYTHONPATH": os.pathsep.join(places)}
        command = [sys.executable, *(part.format(port=self.port) for part in COMMANDS[self.kind])]
        # A pipe and no file: a process that may write no files has to be heard all the same.
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._log.append(line.decode(errors="replace"))

    @property
    def log(self) -> str:
        return "".join(self._log)

    async def ready(self) -> bool:
        """Wait until it can reach models; False when the process has ended."""
        await polled(self._settled, START_SECONDS, every=0.1)
        return self.process.poll() is None

    async def _settled(self) -> bool:
        if self.process.poll() is not None:
            return True
        with contextlib.suppress(OSError, TimeoutError):
            async with Client(self.port) as client:
                await client.send(b"GET /luthien/health HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n")
                return b'"ready":true' in (await client.response()).content
        return False

    async def back(self) -> bool:
        """Wait until it is ready again after its worker was killed: gunicorn starts another, and uvicorn is started again."""
        if self.kind == "uvicorn":
            self.process.wait(STOP_SECONDS)
            self._listener.join(STOP_SECONDS)
            self._start()
        return await self.ready()

    async def listens(self) -> bool:
        """Wait until it takes connections; False when the process has ended."""

        async def settled() -> bool:
            with contextlib.suppress(OSError):
                async with Client(self.port):
                    return True
            return self.process.poll() is not None

        await polled(settled, START_SECONDS, every=0.1)
        return self.process.poll() is None

    async def state(self) -> dict[str, Any]:
        """Return what the process holds."""
        async with Client(self.port) as client:
            await client.send(b"GET /lab/state HTTP/1.1\r\nhost: lab\r\nconnection: close\r\n\r\n")
            found: dict[str, Any] = json.loads((await client.response()).content)
            return found

    async def limit_files(self, size: int) -> None:
        """Say how large a file of the process may become; -1 for any size."""
        async with Client(self.port) as client:
            text = str(size)
            await client.send(f"POST /lab/file-size HTTP/1.1\r\nhost: lab\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
            await client.response()

    async def probe(self, wire: str, *, stream: bool = True) -> int:
        """Return the status of a request that nothing is wrong with."""
        body = body_of(wire, f"main-{provider_wire(wire)}", "probe", stream=stream)
        async with Client(self.port) as client:
            await client.send(request_of(wire, body, headers={"connection": "close"}))
            return (await client.response()).status

    def kill_worker(self, pid: int) -> None:
        """End the process that serves, without a word."""
        os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(STOP_SECONDS)
        self._listener.join(STOP_SECONDS)

    def complaints(self) -> list[str]:
        """Return what no fault of others excuses: what left the app, and what a garbage collector found open."""
        return [*dict.fromkeys(LOOSE.findall(self.log))]


def provider_wire(wire: str) -> str:
    """Return which provider a client's format is answered by: its own, where there is one."""
    return "anthropic" if wire == "anthropic" else "openai"


def configuration(bases: Mapping[str, str], record: str, *, policied: bool) -> dict[str, Any]:
    """Return a gateway's configuration: each base under both wires."""
    models = [
        {
            "model_name": f"{name}-{wire}",
            "litellm_params": {
                "model": f"{wire}/lab",
                "api_base": base + ("/v1" if wire == "openai" else ""),
                "api_key": "sk-server-secret",
            },
        }
        for name, base in bases.items()
        for wire in ("openai", "anthropic")
    ]
    config: dict[str, Any] = {"model_list": models, "settings": SETTINGS, "limits": LIMITS}
    config["record"] = {"sink": "lab_recorder.LabRecorder", "config": {"path": record}}
    config["auth"] = {"keys": {"lab": CLIENT_KEY}}
    return config | ({"policy": POLICY} if policied else {})
