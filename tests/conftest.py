"""What every test shares: the event loop, and where the recorded streams are."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded provider streams; tests that need it skip with a reason where it is not."""
    default = Path(__file__).parents[2] / "shared" / "recorded"
    folder = Path(os.environ.get("LUTHIEN_RECORDED") or default)
    if not (folder / "INDEX.tsv").is_file():
        pytest.skip(f"no recorded streams: set LUTHIEN_RECORDED to their folder (looked in {folder})")
    return folder


class Serving:
    """Runs ASGI apps on real uvicorn servers, in threads with an event loop of their own."""

    def __init__(self) -> None:
        self._running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def __call__(self, app: Any, **options: Any) -> str:
        """Serve an app on loopback and return its URL."""
        # Not uvloop: its loop cannot be closed in a thread while LiteLLM's own cached clients have connections open.
        quiet: Any = {"log_level": "critical", "access_log": False, "timeout_graceful_shutdown": 5, "loop": "asyncio"}
        config = uvicorn.Config(app, port=0, **quiet, **options)
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        self._running.append((server, thread))
        host, port = listening.getsockname()
        return f"http://{host}:{port}"

    def close(self) -> None:
        """Ask every server to stop, and wait until it has."""
        for server, _ in self._running:
            server.should_exit = True
        for _, thread in self._running:
            thread.join(timeout=20)
            assert not thread.is_alive(), "a server did not stop"


@pytest.fixture(scope="module")
def serve() -> Iterator[Serving]:
    """A function that serves an ASGI app on a real uvicorn until the module's tests are over."""
    serving = Serving()
    yield serving
    serving.close()
