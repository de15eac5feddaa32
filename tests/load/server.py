"""The server of a load: real workers on one port, and what each of them holds, asked from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from borrowed import Child, memory_kb, spawn, tree
from client import KEY, Patience

__all__ = ["SERVERS", "Server", "State", "running"]

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]
_GUNICORN: Final = ("-m", "gunicorn", "--config", str(_ROOT / "examples" / "gunicorn.conf.py"), "-b", "127.0.0.1:{port}")
SERVERS: Final[Mapping[str, tuple[str, ...]]] = {
    "gunicorn-asgi": (*_GUNICORN, "load_app:app"),
    "uvicorn-worker": (*_GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "load_app:app"),
    "uvicorn": ("-m", "uvicorn", "load_app:app", "--port", "{port}", "--no-access-log"),
}
_CONFIG: Final = """\
model_list:
  - {{model_name: to-openai, litellm_params: {{model: openai/gpt-4o, api_base: "{base}/v1", api_key: sk-server}}}}
  - {{model_name: to-anthropic, litellm_params: {{model: anthropic/claude-x, api_base: "{base}", api_key: sk-server}}}}
policy:
  - {{class: ReplaceText, config: {{replacements: [[secret, "******"]]}}}}
  - {{class: load_policies.Judge}}
auth: {{keys: {{load: {key}}}}}
record: {{sink: luthien_asgi.jsonl.JsonlRecorder, config: {{path: "{records}"}}}}
settings:
  first_chunk_timeout: {patience.first_chunk}
  stall_timeout: {patience.stall}
  send_timeout: {patience.send}
  queue_timeout: {patience.send}
  ping_interval: 2
  commit_after: 60
  drain_timeout: 5
"""
_GIVES_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Of glibc's allocator: what is free goes back to the system. It would learn from large answers to keep it, and a worker's memory
would tell how large the largest were, and not what is held."""
_START: Final = 120.0
_ASKED: Final = 20.0
"""Seconds for a worker's answer about itself: it comes from its event loop, which may be busy."""
_PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a worker's process holds."""

    pid: int
    rss_mb: float
    slots: int
    tasks: int
    files: Mapping[str, int]
    """Descriptors by what they are: `socket`, `pipe`, `anon_inode`, `file`."""
    threads: Mapping[str, int]
    """By their names, without numbers."""
    objects: Mapping[str, int]
    """Of the package's own types."""
    blocks: int
    """Of memory that Python's objects have: what is kept shows here, whatever the system's allocator keeps for later."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    child: Child
    port: int
    folder: Path

    @property
    def records(self) -> list[Path]:
        """Every worker's file of transactions."""
        return sorted(self.folder.glob("transactions*.jsonl"))

    def workers(self) -> list[int]:
        """Return the processes that serve now, those that start up left out."""
        alive = tree(self.child.process.pid)
        return [pid for pid in alive if self._socket(pid).exists()]

    def states(self) -> list[State]:
        """Return what each worker holds; one that ends meanwhile is left out."""
        return [state for pid in self.workers() if (state := self._state(pid)) is not None]

    def memory_mb(self) -> dict[int, float]:
        """Return each worker's resident memory, without asking it."""
        return {pid: memory_kb(pid) / 1024 for pid in self.workers()}

    def kill(self, pid: int) -> None:
        """End a worker without a word (`kill -9`)."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _socket(self, pid: int) -> Path:
        return self.folder / f"{pid}.sock"

    def _state(self, pid: int) -> State | None:
        rss = memory_kb(pid) / 1024
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError, ValueError):
            asking.settimeout(_ASKED)
            asking.connect(str(self._socket(pid)))
            with asking.makefile("rb") as told:
                return State(pid=pid, rss_mb=rss, **json.loads(told.read()))
        return None


@contextmanager
def running(kind: str, *, provider: int, folder: Path, patience: Patience, workers: int) -> Iterator[Server]:
    """Run a server in front of the provider; all of its workers are ready. Raises `RuntimeError` when they are not in time."""
    config = folder / "luthien.yaml"
    base, records = f"http://127.0.0.1:{provider}", folder / "transactions.jsonl"
    config.write_text(_CONFIG.format(base=base, key=KEY, records=records, patience=patience))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, *(part.format(port=port) for part in SERVERS[kind])]
    paths = os.pathsep.join(filter(None, [str(_HERE), os.environ.get("PYTHONPATH", "")]))
    more = {
        **_GIVES_BACK,
        "LUTHIEN_CONFIG": str(config),
        "LUTHIEN_LOAD": str(folder),
        "WEB_CONCURRENCY": str(workers),
        "PYTHONPATH": paths,
    }
    with spawn(command, name=kind, directory=folder, cpu=None, port=port, more=more) as child:
        server = Server(child, child.port(), folder)
        _wait_ready(server, workers)
        yield server


def _wait_ready(server: Server, workers: int) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and server.child.process.poll() is None:
        if len(server.workers()) >= workers and _is_ready(server.port):
            return
        time.sleep(_PAUSE)
    log = server.child.log.read_text(errors="replace")[-4000:]
    msg = f"the server is not ready:\n{log}"
    raise RuntimeError(msg)


def _is_ready(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_ASKED) as asking:
        asking.sendall(b"GET /luthien/health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        with asking.makefile("rb") as answer:
            return b'"ready":true' in answer.read().replace(b": ", b":")
    return False
