"""What every test shares: the event loop, where the recorded streams are, and that every answer which leaves is legal."""

from __future__ import annotations

import inspect
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import uvicorn

from luthien_asgi import LuthienMiddleware
from luthien_asgi.testing import ResponseWatch, Violation


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """A shell ignores SIGINT for what it runs in the background, and what tests start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which accepted connections inherit
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


class Illegal(NamedTuple):
    """What was wrong with one answer."""

    answer: str
    violation: Violation

    def __str__(self) -> str:
        return f"{self.answer}: {self.violation}"


class Leaving:
    """Validates every answer that leaves a middleware in this process: driven, served in a thread, or run by the testing kit."""

    WIRES: ClassVar[dict[str, Any]] = {"chat": "openai", "messages": "anthropic", "responses": "responses"}

    def __init__(self) -> None:
        self.answers = 0
        self.illegal: list[Illegal] = []
        self.broken_off: list[str] = []
        self._call = LuthienMiddleware.__call__
        self._under_way: Counter[int] = Counter()
        self._changed = threading.Condition()

    def watching(self) -> Callable[..., Awaitable[None]]:
        """Return the middleware's `__call__` with a watch around it."""
        call = self._call

        async def watched(app: Any, scope: Any, receive: Any, send: Any) -> None:
            found = app._routes.find(scope) if scope["type"] == "http" else None
            if found is None or found.route not in self.WIRES:
                await call(app, scope, receive, send)
                return
            watch = ResponseWatch(self.WIRES[found.route])
            self._enter()
            try:
                await call(app, scope, watch.receiving(receive), watch.sending(send))
            finally:
                self._see(watch, f"{found.route}, status {watch.status}")
                self._leave()

        return watched

    def _enter(self) -> None:
        with self._changed:
            self._under_way[threading.get_ident()] += 1

    def _leave(self) -> None:
        with self._changed:
            self._under_way[threading.get_ident()] -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait for the answers of served apps: a client has all of one before the app's own thread is done with it."""
        here = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not any(n for thread, n in self._under_way.items() if thread != here), timeout=10)

    def _see(self, watch: ResponseWatch, what: str) -> None:
        self.answers += 1
        self.illegal += [Illegal(what, violation) for violation in watch.finish() if violation.severity == "error"]
        if not watch.complete:
            self.broken_off.append(what)

    def taken(self, name: str) -> list[Any]:
        """Return what was found since the last time, and forget it."""
        found = getattr(self, name)
        setattr(self, name, [])
        return found


@pytest.fixture(scope="session")
def leaving() -> Iterator[Leaving]:
    """Every answer that leaves a middleware in this process goes through the validators."""
    leaving = Leaving()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LuthienMiddleware, "__call__", leaving.watching())
        yield leaving


@pytest.fixture(autouse=True)
def every_answer_is_legal(leaving: Leaving, request: pytest.FixtureRequest) -> Iterator[None]:
    """What leaves is legal, and complete too.

    Exceptions are explicit. A test that is marked `broken_off` ends an answer before its end. One that is marked `lets_pass` has
    a provider of the client's own wire that breaks the rules it names, and what such a provider sent passes as it is.
    """
    yield
    leaving.wait()
    illegal, broken_off = leaving.taken("illegal"), leaving.taken("broken_off")
    marker = request.node.get_closest_marker("lets_pass")
    wrong = [str(what) for what in illegal if not (marker and what.violation.rule in marker.args)]
    assert not wrong, "\n".join(wrong)
    assert not broken_off or request.node.get_closest_marker("broken_off"), f"answers that did not end: {broken_off}"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have what LiteLLM keeps of an async test's calls closed in the loop of that test."""
    if item.get_closest_marker("litellm") and inspect.iscoroutinefunction(getattr(item, "function", None)):
        item.fixturenames.append("clients_of_litellm_are_closed")  # type: ignore[attr-defined]  # of functions


@pytest.fixture
async def clients_of_litellm_are_closed() -> AsyncIterator[None]:
    """LiteLLM keeps the clients that it makes for some providers, two hundred of them, and closes none that it drops."""
    before = set(_clients_of_litellm())
    yield
    for key in set(_clients_of_litellm()) - before:
        kept = _clients_of_litellm()[key]
        client = getattr(kept, "_client", None) or getattr(kept, "client", None) or kept
        if hasattr(client, "aclose"):
            await client.aclose()
        sys.modules["litellm"].in_memory_llm_clients_cache.delete_cache(key)


def _clients_of_litellm() -> Mapping[str, Any]:
    litellm = sys.modules.get("litellm")
    found: Mapping[str, Any] = litellm.in_memory_llm_clients_cache.cache_dict if litellm is not None else {}
    return found
