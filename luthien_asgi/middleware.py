"""The ASGI middleware: the only module that looks at `scope`. It holds configuration; a request gets an object of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from luthien_asgi.approval_routes import OperatorRequest
from luthien_asgi.approvals import Approvals, check_apart
from luthien_asgi.auth import Auth
from luthien_asgi.backend.protocol import Backend
from luthien_asgi.compose import Composable
from luthien_asgi.disconnect import ClientConnection
from luthien_asgi.drain import Drain, ShutdownError, closing
from luthien_asgi.errors import ApiError, ConfigError
from luthien_asgi.exchange import Exchange, Services
from luthien_asgi.hooks import HookCaller
from luthien_asgi.logs import logger_of
from luthien_asgi.needs import check_approvals, check_needs, check_nothing_is_spent, check_records
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.record_routes import RecordFinder, RecordRequest
from luthien_asgi.recorder import NullRecorder, TransactionRecorder
from luthien_asgi.resources import Resources
from luthien_asgi.responses import send_error, send_json
from luthien_asgi.routes import OPERATORS, Found, Paths, Route, Routes, wire_of
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.slots import Room, Slots
from luthien_asgi.telemetry import Telemetry, default_telemetry
from luthien_asgi.telemetry_guard import GuardedTelemetry
from luthien_asgi.warm_up import WarmBackend
from luthien_asgi.watchdog import Watchdog
from luthien_asgi.wire.anthropic import AnthropicWire
from luthien_asgi.wire.openai import OpenAIWire
from luthien_asgi.wire.protocol import WireFormat
from luthien_asgi.wire.responses import ResponsesWire

__all__ = ["LuthienMiddleware", "Paths"]

_log: Final = logger_of(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Unset:
    """Stands for "nobody wrote `auth=`", which is not the same as `auth=None`."""


_UNSET: Final = _Unset()
_HEADER_BYTES: Final = 32
"""What a header takes beside its name and value."""


@contextmanager
def _told() -> Iterator[None]:
    """Log what keeps the app from starting: a server may take what a framework raises in its lifespan for no lifespan at all."""
    try:
        yield
    except ConfigError as error:
        _log.error("the middleware cannot start: %s", error)
        raise


class LuthienMiddleware:
    """Answers the chat-completion routes through a policy and a backend; everything else reaches the wrapped app untouched.

    Args:
        app: The wrapped ASGI app.
        backend: Who calls the models: `LiteLLMBackend(model_list=[...])`.
        policy: What sees and changes requests and answers; None lets everything through.
        recorder: Who keeps the record of each transaction.
        telemetry: Spans and metrics; by default over the OpenTelemetry API where it is installed.
        auth: Who may ask: `KeyAuth(...)`, or any callable that takes the request's headers and returns a client's name or a
            `Client`. It has to be given (or `auth=None` written) for a backend that spends keys of yours.
        settings: Bounds of time and size.
        limits: Bounds of what a client may send.
        paths: The paths that are answered.
        approvals: Where blocks wait for a person; `Paths(approvals=...)` has its operators' routes answered.
        operators: Who runs this: `KeyAuth(...)`, with keys that no client has.
        slots: The counters of what is under way: those of a middleware whose place this one takes (`old.slots`), or new ones.

    Raises `ConfigError` for a policy that the stream path cannot serve, for server keys without `auth`, and for operators who
    have no keys, or a client's.

    Resources open at start-up when the server's lifespan passes through here, otherwise at the first request (a mounted app sees
    no lifespan); close them with `aclose()` then. The backend gets ready beside that, and requests wait for it: who would rather
    wait at start-up awaits `start()` there.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        backend: Backend,
        policy: Composable | None = None,
        recorder: TransactionRecorder | None = None,
        telemetry: Telemetry | None = None,
        auth: Auth | _Unset | None = _UNSET,
        settings: StreamSettings | None = None,
        limits: Limits | None = None,
        paths: Paths | None = None,
        approvals: Approvals | None = None,
        operators: Auth | None = None,
        slots: Slots | None = None,
    ) -> None:
        settings = settings if settings is not None else StreamSettings()
        self.app = app
        self.more_health: Callable[[], Mapping[str, Any]] | None = None
        """What else the route of the health says; it must not be secret."""
        paths = paths if paths is not None else Paths()
        with _told():
            self._routes = Routes(paths)
            if isinstance(auth, _Unset):
                check_nothing_is_spent(backend)
                auth = None
            pipeline = Pipeline.of(policy)
            check_approvals(approvals, paths, auth)
            check_apart(operators, auth)
            check_records(recorder, paths, operators)
            check_needs(pipeline, backend, has_desk=approvals is not None)
        self._backend = WarmBackend(backend, settings)
        self._services = Services(
            pipeline=pipeline,
            hooks=HookCaller(
                timeout=settings.policy_timeout,
                threads=settings.policy_threads,
                grace=settings.close_timeout,
                longest=settings.total_timeout,
                items=settings.hook_items,
            ),
            watchdog=Watchdog(warn_after=settings.loop_block_warning),
            backend=self._backend,
            recorder=recorder if recorder is not None else NullRecorder(),
            telemetry=GuardedTelemetry(telemetry if telemetry is not None else default_telemetry()),
            auth=auth,
            settings=settings,
            limits=limits if limits is not None else Limits(),
            approvals=approvals,
            operators=operators,
            slots=slots if slots is not None else Slots(),
            drain=Drain(settings.drain_timeout),
        )
        self._wires: dict[str, WireFormat] = {
            "openai": OpenAIWire(),
            "anthropic": AnthropicWire(),
            "responses": ResponsesWire(),
        }
        self._resources = Resources(self._services, self._backend)

    @property
    def slots(self) -> Slots:
        """The counters of what is under way, for the middleware that takes this one's place."""
        return self._services.slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        found = self._routes.find(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        await self._serve(found, scope, receive, send)

    async def open(self) -> None:
        """Open the recorder and begin to get the backend ready, which goes on beside what the caller does. Twice is once."""
        self._services.drain.reset()
        await self._resources.open()

    async def start(self) -> None:
        """Open the recorder and wait until the backend is ready (LiteLLM's import takes seconds). Twice is once."""
        await self.open()
        await self._backend.ready()

    def drain(self, *, within: float = math.inf) -> None:
        """Begin to stop: call it when the server is asked to, which ASGI does not say before all requests have ended.

        Running answers may end for `drain_timeout` seconds, or for `within` if that is less. Then they are ended with the error
        event of their format, or with a 503, and recorded as `shutdown`. New requests are a 503; operators are answered.
        Called again it can shorten the time. Call it in the event loop: from a signal handler or another thread with
        `loop.call_soon_threadsafe(middleware.drain)`.
        """
        self._services.drain.begin(within)

    @property
    def is_warm(self) -> bool:
        """Whether the backend is ready: requests need not wait for it."""
        return self._backend.state == "ready"

    async def aclose(self) -> None:
        """Write what the recorder still has and close the backend. Call it where no lifespan arrives, as under `Mount`.

        Answers that still run are ended with an error first.
        """
        await self._resources.close()

    async def retire(self) -> None:
        """Close once the answers under way have ended: for one in whose place another one answers already."""
        await self._resources.retire()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self.open()
                except Exception as error:
                    _log.exception("start-up failed")
                    await send({"type": "lifespan.startup.failed", "message": f"luthien_asgi: {error}"})
                    return
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self.aclose()
            await send(message)

        await self.app(scope, receive, watched)

    async def _serve(self, found: Found, scope: Scope, receive: Receive, send: Send) -> None:
        if _size_of(scope["headers"]) > self._services.limits.header_bytes:
            msg = f"The headers of the request are longer than {self._services.limits.header_bytes} bytes (header_bytes)."
            bare = {**scope, "headers": ()}  # nothing is made of them
            await self._fail(self._exchange(found.route, bare, receive, send), ApiError(msg, status=431))
            return
        exchange = self._exchange(found.route, scope, receive, send)
        drain = self._services.drain
        if found.route == "health":
            await self._health(scope, send)
        elif drain.begun and found.route not in OPERATORS:
            await self._fail(exchange, ShutdownError("The server is about to stop; try again."))
        else:
            with drain:
                await self._run(found, exchange)

    async def refuse(self, scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
        """Answer an HTTP request with an error, in the format of its route, whatever it asks for."""
        found = self._routes.find(scope)
        await self._fail(self._exchange("chat" if found is None else found.route, scope, receive, send), error)

    async def _health(self, scope: Scope, send: Send) -> None:
        """Say that the process serves (the status, for liveness) and whether it is to be asked (`ready`).

        `?ready` has the status say the latter, for who looks at nothing else.
        """
        is_open = await self._opened()
        drain, state = self._services.drain, self._backend.state if is_open else "failed"
        writes = is_open and self._resources.recorder_is_healthy
        health = {
            "status": "ok",
            "ready": state == "ready" and writes and not drain.begun,
            "backend": state,
            "recorder": "ready" if writes else "failed",
            "draining": drain.begun,
            "pid": os.getpid(),
            **(self.more_health() if self.more_health is not None else {}),
        }
        asked = b"ready" in [part.partition(b"=")[0] for part in scope.get("query_string", b"").split(b"&")]
        await send_json(send, 503 if asked and not health["ready"] else 200, health, {"cache-control": "no-store"})

    async def _opened(self) -> bool:
        try:
            await self._resources.open()
        except Exception:
            _log.exception("the recorder could not be opened")
            return False
        return True

    def _exchange(self, route: Route, scope: Scope, receive: Receive, send: Send) -> Exchange:
        headers = _joined(scope["headers"])
        return Exchange(
            services=self._services,
            wire=self._wires[wire_of(route, headers)],
            path=scope["path"],
            headers=headers,
            scope=scope,
            connection=ClientConnection(receive),
            send=send,
        )

    async def _run(self, found: Found, exchange: Exchange) -> None:
        if not await self._opened():
            await self._fail(exchange, ApiError("The gateway is not ready.", status=503))
            return
        match found.route:
            case "models":
                await exchange.models()
            case "model":
                await exchange.model(found.name)
            case "count_tokens":
                await exchange.count()
            case "approvals" | "approval":
                await self._operate(exchange, found.name)
            case "records":
                await self._show(exchange, found.name)
            case _:
                await exchange.answer()

    async def _operate(self, exchange: Exchange, approval_id: str) -> None:
        desk = self._services.approvals
        assert desk is not None  # noqa: S101 - without one there is no such route
        request = OperatorRequest(
            desk=desk,
            headers=exchange.headers,
            connection=exchange.connection,
            send=exchange.send,
            settings=self._services.settings,
            room=self._room(),
        )
        try:
            async with self._services.drain.limit():
                await (request.answer(approval_id) if approval_id else request.list())
        except ShutdownError as error:
            if not exchange.begun:
                await self._fail(exchange, error)

    async def _show(self, exchange: Exchange, transaction_id: str) -> None:
        services = self._services
        assert services.operators is not None  # noqa: S101 - without them there is no such route
        assert isinstance(services.recorder, RecordFinder)  # noqa: S101
        request = RecordRequest(
            finder=services.recorder,
            auth=services.operators,
            headers=exchange.headers,
            send=exchange.send,
            settings=services.settings,
            room=self._room(),
        )
        await request.answer(transaction_id)

    def _room(self) -> Room:
        """Return the places of who may be an operator: not among the streams, which may all wait for one."""
        return Room(self._services.slots.unknown_operators, self._services.limits.unauthenticated)

    @staticmethod
    async def _fail(exchange: Exchange, error: ApiError) -> None:
        body = exchange.wire.error_body(error, request_id=exchange.id)
        headers = {**error.headers, "x-luthien-transaction": exchange.id}
        if isinstance(error, ShutdownError):
            headers |= closing(exchange.scope)
        await send_error(exchange.send, error.status, body, headers)


def _size_of(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + _HEADER_BYTES for name, value in headers)


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name; one that comes twice is joined by a comma (RFC 9110, 5.2): none hides another."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
