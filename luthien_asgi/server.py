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

import ipaddress
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from luthien_asgi.errors import ConfigError
from luthien_asgi.stop_signals import StopSignals

if TYPE_CHECKING:
    from luthien_asgi.auth import Auth
    from luthien_asgi.config import Config
    from luthien_asgi.middleware import ASGIApp, LuthienMiddleware, Receive, Scope, Send

__all__ = ["Gateway", "app", "create_app", "preload"]

VARIABLE: Final = "LUTHIEN_CONFIG"
CLOSING: Final = 5.0
"""Seconds between the end of the last answer and that of the process: the last frames leave, the record is closed."""


def create_app(config: Config, *, patience: float = math.inf) -> Gateway:
    """Return the gateway for a configuration: every route is on, and what it does not know is a 404 in JSON.

    `patience` is how many seconds the server waits for running answers before it kills the process, where that is known.
    """
    from luthien_asgi.auth import KeyAuth
    from luthien_asgi.backend import LiteLLMBackend
    from luthien_asgi.middleware import LuthienMiddleware

    middleware = LuthienMiddleware(
        _fallback(),
        backend=LiteLLMBackend(model_list=config.model_list, settings=config.settings, limits=config.limits, freeze=True),
        policy=config.policy,
        recorder=config.recorder,
        auth=auth_of(config),
        settings=config.settings,
        limits=config.limits,
        paths=config.paths,
        approvals=config.approvals,
        operators=KeyAuth(config.operators) if config.operators is not None else None,
    )
    return Gateway(middleware, local_only=config.auth is None and config.spends_server_keys, patience=patience)


class Gateway:
    """An ASGI app. Servers open and close it by lifespan; `open()` and `aclose()` do the same by hand.

    It drains by itself when the server that runs it gets a signal to stop.
    """

    def __init__(self, middleware: LuthienMiddleware, *, local_only: bool, patience: float = math.inf) -> None:
        self._middleware = middleware
        self._local_only = local_only
        self._patience = patience
        self._signals = StopSignals(self.drain)
        self._watches = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection; where nobody has a key, only one that comes from this machine."""
        if not self._watches:
            self._watches = True
            self._signals.watch()
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        # A `Host` header proves nothing about who is at the other end; the peer's address does.
        if self._local_only and scope["type"] == "http" and not _is_local(scope.get("client")):
            await _refused(scope, receive, send)
            return
        await self._middleware(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._middleware(scope, receive, send)
        finally:
            self._signals.unwatch()
            self._watches = False

    def drain(self) -> None:
        """Begin to stop, as `LuthienMiddleware.drain`, and be done before the server's patience is over."""
        self._middleware.drain(within=self._patience - min(CLOSING, self._patience / 2))

    async def open(self) -> None:
        """Open the recorder and begin to import LiteLLM."""
        await self._middleware.open()

    async def start(self) -> None:
        """Open the recorder and wait until LiteLLM is imported."""
        await self._middleware.start()

    async def aclose(self) -> None:
        """Write what is to be recorded and close the backend."""
        await self._middleware.aclose()


def _is_local(client: Sequence[Any] | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


async def _refused(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    message = "this server has no auth section, so it answers callers on its own machine only"
    body = {"type": "error", "error": {"type": "permission_error", "message": message}}
    await JSONResponse(body, status_code=403)(scope, receive, send)


def auth_of(config: Config) -> Auth | None:
    """Return who may ask: holders of the configured keys; without any, whoever is on this machine where server keys are spent."""
    from luthien_asgi.auth import KeyAuth, LoopbackGuard

    if config.auth is not None:
        return KeyAuth(config.auth)
    return LoopbackGuard() if config.spends_server_keys else None


def preload(*, tokenizer: bool = True) -> None:
    """Import everything now: for a master process that forks its workers, which then share the seconds and the memory it takes.

    No thread, event loop, socket or file is opened, so that forking is safe. What is imported is frozen (`gc.freeze`): a garbage
    collector that went through it would write to its pages, and each worker would have them for itself. `tokenizer` is the table
    that LiteLLM wants for every provider but OpenAI and Azure, 110 MB.
    """
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
        self._app: ASGIApp | None = None
        self._patience = math.inf

    def stop_within(self, seconds: float) -> None:
        """Say how long the server waits for running answers before it kills the process; before the app is used first."""
        self._patience = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            gateway = self._built()
        except ConfigError as error:
            if scope["type"] != "lifespan":
                raise
            # Servers take an exception out of lifespan for "not supported" and go on; this message stops them.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await gateway(scope, receive, send)

    def _built(self) -> ASGIApp:
        if self._app is None:
            from luthien_asgi.config import load

            self._app = create_app(load(_configured_path()), patience=self._patience)
        return self._app


def _configured_path() -> str:
    path = os.environ.get(VARIABLE)
    if path:
        return path
    raise ConfigError(f"{VARIABLE} is not set: it names the configuration file, as in {VARIABLE}=luthien.yaml")


app: Final = _ConfiguredApp()
