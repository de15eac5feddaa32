"""Runs an app on a socket with uvicorn: what `serve` and `demo` share."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

import uvicorn

from luthien_asgi.drain import LAST_WORDS
from luthien_asgi.middleware import ASGIApp

__all__ = ["ServeError", "bind", "drains_for", "is_loopback", "run", "server_for", "url_of"]

STARTUP_FAILED = 3
"""The exit status that uvicorn itself uses when an app did not start."""


class ServeError(RuntimeError):
    """The server cannot run; the message is for the operator."""


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only. A name other than `localhost` cannot be trusted to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `ServeError` that says which address is taken, and what to do about it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.create_server(address[:2], family=family, backlog=2048)
        # Inherited by what is accepted. asyncio sets it on its own sockets only, and without it the end of an answer that takes
        # two writes waits for the client's delayed acknowledgement: 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except socket.gaierror:
        raise ServeError(f"the address {host!r} is unknown") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ServeError(f"cannot listen on {host}, port {port}: {reason}; choose another with --port") from None


def url_of(sock: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_for(app: ASGIApp, *, drain_timeout: float, log_level: str = "info") -> uvicorn.Server:
    """Return a server that lets running answers end for `drain_timeout` seconds when it is asked to stop.

    The gateway ends those that still run then; the server cancels what has not ended when their last words could be said.
    """
    config = uvicorn.Config(app, log_level=log_level, lifespan="on", server_header=False, http=_http())
    server = uvicorn.Server(config)
    drains_for(server, drain_timeout)
    return server


def _http() -> type[asyncio.Protocol] | Literal["h11"]:
    """Return who speaks HTTP: the fast one where it is installed (the extra `fast`). Both bound what a request's head may be."""
    if importlib.util.find_spec("httptools") is None:
        return "h11"
    from luthien_asgi.bounded_http import BoundedHttpToolsProtocol

    return BoundedHttpToolsProtocol


def drains_for(server: uvicorn.Server, drain_timeout: float) -> None:
    """Have a server wait for as long as running answers get, and their last words."""
    server.config.timeout_graceful_shutdown = math.ceil(drain_timeout + 2 * LAST_WORDS)


def run(
    server: uvicorn.Server,
    sock: socket.socket,
    *,
    before: Callable[[], Awaitable[None]],
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> int:
    """Await `before`, serve until SIGINT or SIGTERM, and return the exit status: 0 when running answers could end.

    `beside` runs while the server does, and is cancelled with it. Raises `KeyboardInterrupt` when a signal came before the server
    was up.
    """

    async def serve() -> None:
        if not server.config.loaded:
            server.config.load()  # here nothing competes with it for the interpreter
        await before()
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(beside()) if beside is not None else None
            await server.serve(sockets=[sock])
            if other is not None:
                other.cancel()

    # uvicorn raises the signal again when it is done; so both end here, and not in the death of the process.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(serve())
    except KeyboardInterrupt:
        if not server.started:
            raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        sock.close()
    return 0 if server.started else STARTUP_FAILED
