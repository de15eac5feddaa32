"""The gateway as an app of its own.

`luthien_asgi.server:app` is what uvicorn and gunicorn are pointed at; the environment variable `LUTHIEN_CONFIG` names its
configuration file. Importing this module is cheap: the configuration is read when the server starts the app.

    LUTHIEN_CONFIG=luthien.yaml uvicorn luthien_asgi.server:app --workers 2
    LUTHIEN_CONFIG=luthien.yaml gunicorn -k asgi luthien_asgi.server:app
    LUTHIEN_CONFIG=luthien.yaml gunicorn -k uvicorn_worker.UvicornWorker luthien_asgi.server:app

Such a server decides itself where it listens. So without an `auth` section server keys are spent for callers on the same machine
only, whatever the address is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from luthien_asgi.errors import ConfigError
from luthien_asgi.logs import logger_of
from luthien_asgi.loopback import LoopbackGuard
from luthien_asgi.stop_signals import StopSignals

if TYPE_CHECKING:
    from luthien_asgi.config import Config
    from luthien_asgi.following import Follower
    from luthien_asgi.generations import Generations
    from luthien_asgi.last_good import LastGood
    from luthien_asgi.middleware import ASGIApp, Receive, Scope, Send

__all__ = ["Gateway", "app", "create_app", "preload"]

_log: Final = logger_of(__name__)
VARIABLE: Final = "LUTHIEN_CONFIG"
CLOSING: Final = 5.0
"""Seconds between the end of the last answer and that of the process: the last frames leave, the record is closed."""


def create_app(config: Config, *, patience: float = math.inf, follow: bool = False) -> Gateway:
    """Return the gateway for a configuration: every route is on, and what it does not know is a 404 in JSON.

    Args:
        config: What `luthien_asgi.config.load` returned.
        patience: Seconds that the server waits for running answers before it kills the process, where that is known.
        follow: Take the configuration's file anew when it changes, and when `luthien-asgi reload` says so.
    """
    from luthien_asgi.generations import Generations

    if follow:
        _own_this_process()
    return Gateway(Generations(config, _fallback), patience=patience, follow=follow)


class Gateway:
    """An ASGI app. Servers open and close it by lifespan; `open()` and `aclose()` do the same by hand.

    It drains by itself when the server that runs it gets a signal to stop.
    """

    def __init__(self, generations: Generations, *, patience: float = math.inf, follow: bool = False) -> None:
        self._generations = generations
        self._patience = patience
        self._follow = follow
        self._signals = StopSignals(self.drain)
        self._follower: Follower | None = None
        self._begun = False
        self.refuses: Callable[[Config], str] = lambda _: ""
        """What is wrong with a new configuration for this server, "" for nothing: set it before the first request."""
        self.took: Callable[[Config], None] = lambda _: None
        """Called with each new configuration: set it before the first request."""
        self.accepted: Callable[[Config], None] = lambda _: None
        """Called in a thread with each that the file said and that was good: set it before the first request."""
        self.refused = ""
        """What is wrong with the file, where the configuration is not what it says: set it before the first request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection; where nobody has a key, only one that comes from this machine."""
        if not self._begun:
            self._begin()
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        generation = self._generations.current
        # A `Host` header proves nothing about who is at the other end; the peer's address does.
        if generation.local_only and scope["type"] == "http" and not _is_local(scope.get("client")):
            names = [name.decode("latin-1") for name, _ in scope["headers"]]
            await generation.middleware.refuse(scope, receive, send, LoopbackGuard.stranger(names))
            return
        await generation.middleware(scope, receive, send)

    def _begin(self) -> None:
        """Begin what goes on beside the requests: here, because only now the server has its handlers and its loop."""
        self._begun = True
        self._signals.watch()
        if self._follow:
            from luthien_asgi.following import Follower

            self._follower = Follower(
                self._generations, refuses=self.refuses, took=self.took, accepted=self.accepted, refused=self.refused
            )
            self._follower.begin()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except Exception as error:
            _log.exception("start-up failed")
            await self.aclose()
            await send({"type": "lifespan.startup.failed", "message": f"luthien_asgi: {error}"})
            return
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def drain(self) -> None:
        """Begin to stop, as `LuthienMiddleware.drain`, and be done before the server's patience is over."""
        self._generations.drain(self._patience - min(CLOSING, self._patience / 2))

    def reload(self) -> None:
        """Take the configuration's file anew, beside what goes on, where it is followed. What comes of it is in the log."""
        if self._follower is not None:
            self._follower.reloader.soon()

    async def open(self) -> None:
        """Open the recorder and begin to import LiteLLM."""
        await self._generations.current.middleware.open()

    async def start(self) -> None:
        """Open the recorder and wait until LiteLLM is imported."""
        await self._generations.current.middleware.start()

    async def aclose(self) -> None:
        """Write what is to be recorded and close the backend."""
        self._signals.unwatch()
        self._begun = False
        follower, self._follower = self._follower, None
        if follower is not None:
            await follower.aclose()
        await self._generations.aclose()


def _is_local(client: Sequence[Any] | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def _own_this_process() -> None:
    """Keep LiteLLM from looking for secrets in what providers say: a hostile error of 20 KB stops the event loop for seconds.

    Here nobody but the gateway uses LiteLLM, whose log is off, and errors are scrubbed before they go anywhere. In the process of
    a host its own calls may need it.
    """
    os.environ.setdefault("LITELLM_DISABLE_REDACT_SECRETS", "true")


def preload(*, tokenizer: bool = True) -> None:
    """Import everything now: for a master process that forks its workers, which then share the seconds and the memory it takes.

    No thread, event loop, socket or file is opened, so that forking is safe. What is imported is frozen (`gc.freeze`): a garbage
    collector that went through it would write to its pages, and each worker would have them for itself. `tokenizer` is the table
    that LiteLLM wants for every provider but OpenAI and Azure, 110 MB.
    """
    _own_this_process()
    import luthien_asgi.config  # with the policies, the recorder and the wires
    import luthien_asgi.middleware  # noqa: F401 - with the engine
    from luthien_asgi.backend.hygiene import load_now

    load_now(tokenizer=tokenizer, freeze=True)


def _fallback() -> ASGIApp:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    async def not_found(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - the handler is registered for it
        message = f"there is no {request.method} {request.url.path} here"
        return JSONResponse(
            {"type": "error", "error": {"type": "not_found_error", "message": message}}, status_code=error.status_code
        )

    return Starlette(exception_handlers={HTTPException: not_found})


class _ConfiguredApp:
    """The gateway that `LUTHIEN_CONFIG` describes, built at its first use."""

    def __init__(self) -> None:
        self._app: Gateway | None = None
        self._lock = asyncio.Lock()
        self._patience = math.inf
        self._last_good: LastGood | None = None

    def stop_within(self, seconds: float) -> None:
        """Say how long the server waits for running answers before it kills the process; before the app is used first."""
        self._patience = seconds

    def share_last_good(self) -> None:
        """Have the workers that are forked from here on share the last good configuration: for a master process.

        A worker that starts while the file is bad then starts with that one. It is kept in memory (where the system has no files
        of memory, in one on the disk that has no name), and is gone with the last of these processes.
        """
        if self._last_good is None:
            from luthien_asgi.last_good import LastGood

            self._last_good = LastGood()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            gateway = self._app or await self._built()
        except Exception as error:
            if scope["type"] != "lifespan":
                raise
            # Servers take an exception out of lifespan for "not supported" and go on; this message stops them.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": _why(error)})
            return
        await gateway(scope, receive, send)

    async def _built(self) -> Gateway:
        async with self._lock:
            if self._app is None:
                self._app = await self._build(_configured_path())
            return self._app

    async def _build(self, path: str) -> Gateway:
        from luthien_asgi import starting
        from luthien_asgi.config import load

        if (last_good := self._last_good) is None:
            return self._made(load(path))
        gateway = await starting.started(path, self._made, last_good)
        gateway.accepted = lambda config: starting.keep(config, last_good)
        return gateway

    def _made(self, config: Config, refused: str = "") -> Gateway:
        gateway = create_app(config, patience=self._patience, follow=True)
        gateway.refused = refused
        return gateway


def _why(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    _log.error("start-up failed", exc_info=error)
    return f"luthien_asgi: {error}"


def _configured_path() -> str:
    path = os.environ.get(VARIABLE)
    if path:
        return path
    raise ConfigError(f"{VARIABLE} is not set: it names the configuration file, as in {VARIABLE}=luthien.yaml")


app: Final = _ConfiguredApp()
