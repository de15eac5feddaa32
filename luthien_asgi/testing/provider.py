"""An LLM provider on loopback that says what a script says, over real HTTP and both wires.

    async with ScriptedProvider(Answer("Hel", "lo")) as provider:
        ...                                     # provider.url is the base URL, provider.requests what came in

It answers `POST /v1/chat/completions`, `POST /v1/messages`, `POST /v1/messages/count_tokens` and `GET /v1/models` (each also
without `/v1`, and chat completions at Azure's addresses). It is meant for tests and demonstrations: it knows no authentication.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import ssl
import threading
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from luthien_asgi import jsontext
from luthien_asgi.testing.exchange import Exchange, ProviderRequest, Reply
from luthien_asgi.testing.faults import Failure
from luthien_asgi.testing.http1 import Incoming, read_request
from luthien_asgi.testing.scripts import Script, choose, models_of
from luthien_asgi.testing.strict import check_history
from luthien_asgi.testing.strict_signatures import Signatures
from luthien_asgi.testing.waiting import Signal
from luthien_asgi.testing.wires import wire_of

__all__ = ["ScriptedProvider"]

_Result = TypeVar("_Result")

COMPLETIONS: Final = frozenset({"/v1/chat/completions", "/chat/completions", "/v1/messages", "/messages"})
COUNT_TOKENS: Final = frozenset({"/v1/messages/count_tokens", "/messages/count_tokens"})
MODELS: Final = frozenset({"/v1/models", "/models"})
_AZURE: Final = re.compile(r"^/openai/(?:deployments/[^/]+|v1)(?=/)")
CREATED: Final = 1_700_000_000
CLOSE_SECONDS: Final = 5.0
"""How long `aclose` and `stop` wait for connections and the thread; on loopback they need milliseconds."""


class _Connection(asyncio.StreamReaderProtocol):
    """A client's connection that tells when the client closes it, also while nobody reads.

    A client that only shuts down its sending side counts as gone, as it does for most HTTP servers.
    """

    def __init__(self, provider: ScriptedProvider) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(asyncio.StreamReader(loop=loop), provider._serve, loop=loop)  # noqa: SLF001 - its own part
        self.request: ProviderRequest | None = None

    def eof_received(self) -> bool | None:
        self._closed_by_client()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed_by_client()
        super().connection_lost(exc)

    def _closed_by_client(self) -> None:
        if self.request is not None:
            self.request.client_closed()


class ScriptedProvider:
    """Serves a script. Enter it with `async with` on the running loop, or with `with` in a thread of its own.

    A script is one reply for every request, a list of replies in their order, replies by the name of the model, or a function of
    the `ProviderRequest`. A reply is an `Answer`, a `RawStream` or a `Failure`; for anything else the client gets a 500, and
    `script_errors` has the reason.

    `tls` is the server's side of TLS. A context with a certificate that nobody vouches for, or one that wants the client's, is a
    fault like others.

    With `strict=True` a request whose history the real API refuses is answered with a 400 (see `check_history`), also one whose
    thinking differs from what was signed here.
    """

    def __init__(
        self, script: Script, *, strict: bool = False, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self.strict = strict
        self.tls = tls
        self.host = host
        self.port = port
        self.requests: list[ProviderRequest] = []
        """Completion requests in the order they came, refused ones included."""
        self.other_requests: list[ProviderRequest] = []
        """All other requests: models, token counts, unknown paths."""
        self.script_errors: list[Exception] = []
        """What a script that is a function raised; the client got a 500."""
        self._signal = Signal()
        self._signatures = Signatures()
        self._turns = itertools.count()
        self._connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL without a path: what the Anthropic SDK wants; the OpenAI SDK wants `/v1` behind it."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open, at work or waiting for another request."""
        return len(self._connections)

    async def start(self) -> Self:
        """Listen on the running loop. A port of 0 becomes a free one."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: _Connection(self), self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def aclose(self) -> None:
        """Stop listening and break what is still open."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for task, writer in self._connections.items():
            writer.transport.abort()
            task.cancel()
        async with asyncio.timeout(CLOSE_SECONDS):
            await asyncio.gather(*self._connections, return_exceptions=True)
            await server.wait_closed()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def start_in_thread(self) -> Self:
        """Listen on a loop of its own in a daemon thread; return when it does. Raises `OSError` when it cannot."""
        started: threading.Event = threading.Event()
        failures: list[OSError] = []
        self._thread = threading.Thread(target=self._run, args=(started, failures), name="scripted-provider", daemon=True)
        self._thread.start()
        started.wait(CLOSE_SECONDS)
        if failures:
            raise failures[0]
        return self

    def stop(self) -> None:
        """End the thread that `start_in_thread` began. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed when listening had failed
                self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join(CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self.start_in_thread()

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def _run(self, started: threading.Event, failures: list[OSError]) -> None:
        try:
            asyncio.run(self._listen_until_stopped(started))
        except OSError as error:
            failures.append(error)
            started.set()

    async def _listen_until_stopped(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        await self.start()
        started.set()
        try:
            await self._stopping.wait()
        finally:
            await self.aclose()

    def release(self) -> None:
        """End the stalls of all requests that have come so far."""
        for request in self.requests:
            request.release()

    async def wait_requests(self, count: int = 1, *, within: float = 5.0) -> ProviderRequest:
        """Wait until `count` completion requests have come; return the last of them. Raises `TimeoutError`."""
        await self._wait(within, lambda: len(self.requests) >= count, f"{count} requests")
        return self.requests[count - 1]

    async def wait_closed(self, count: int = 1, *, within: float = 5.0) -> None:
        """Wait until the client closed `count` requests before their reply was complete. Raises `TimeoutError`."""
        await self._wait(within, lambda: sum(r.closed_early for r in self.requests) >= count, f"{count} early closes")

    async def wait_sent(self, events: int, *, request: int = -1, within: float = 5.0) -> None:
        """Wait until so many events of a request's reply (default: of the last) were written. Raises `TimeoutError`."""
        await self._wait(within, lambda: bool(self.requests) and self.requests[request].sent >= events, f"{events} events sent")

    async def _wait(self, within: float, holds: Any, what: str) -> None:  # noqa: ANN401 - Callable[[], bool]
        await self._on_own_loop(self._signal.within(within, holds, what=what))

    async def _on_own_loop(self, wait: Coroutine[Any, Any, _Result]) -> _Result:
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await wait
        waiting = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wait, self._loop))
        return await cast("Awaitable[_Result]", waiting)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until one side closes it."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._connections[task] = writer
        connection = cast("_Connection", writer.transport.get_protocol())
        try:
            while (incoming := await read_request(reader)) is not None:
                if not await self._reply(incoming, connection, writer):
                    break
        except asyncio.CancelledError:
            # Only `aclose` cancels this task, and Python 3.11's stream protocol logs a cancelled one as an error.
            pass
        except ValueError:
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            del self._connections[task]

    async def _reply(self, incoming: Incoming, connection: _Connection, writer: asyncio.StreamWriter) -> bool:
        request = connection.request = self._noted(incoming)
        exchange = Exchange(request, writer)
        known, route = {"POST": COMPLETIONS, "GET": MODELS}, _route(request.path)
        if request.method == "POST" and request.path in COUNT_TOKENS:
            return await exchange.send_json(200, {"input_tokens": max(1, len(request.content) // 4)})
        if route not in known.get(request.method, frozenset()):
            return await exchange.send(Failure(404, None, f"no such route: {request.method} {request.path}"))
        if request.method == "GET":
            return await exchange.send_json(200, _models_body(models_of(self.script), request.wire))
        return await self._complete(request, exchange)

    def _noted(self, incoming: Incoming) -> ProviderRequest:
        request = ProviderRequest(
            method=incoming.method,
            path=incoming.path,
            query=incoming.query,
            headers=incoming.headers,
            content=incoming.body,
            body=_parsed(incoming.body),
            wire=wire_of(incoming.path, incoming.headers),
            signal=self._signal,
            loop=asyncio.get_running_loop(),
        )
        completion = request.method == "POST" and _route(request.path) in COMPLETIONS
        (self.requests if completion else self.other_requests).append(request)
        self._signal.notify()
        return request

    async def _complete(self, request: ProviderRequest, exchange: Exchange) -> bool:
        if not request.body:
            return await exchange.send(Failure(400, None, "the body is not a JSON object"))
        if self.strict and (complaint := self._refusal(request)):
            return await exchange.send(Failure(400, None, complaint))
        reply = self._chosen(request)
        if request.wire == "anthropic":
            self._signatures.note(reply)
        return await exchange.send(reply)

    def _refusal(self, request: ProviderRequest) -> str | None:
        refused = check_history(request.wire, request.body)
        if refused is None and request.wire == "anthropic":
            refused = self._signatures.complaint(request.body)
        return refused

    def _chosen(self, request: ProviderRequest) -> Reply:
        try:
            return choose(self.script, request, next(self._turns))
        except Exception as error:  # a script is the test's own code: whatever it raises is shown to the test
            self.script_errors.append(error)
            return Failure(500, None, f"the script raised {error!r}")


def _route(path: str) -> str:
    return _AZURE.sub("", path)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        body = jsontext.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _models_body(names: list[str], wire: str) -> dict[str, Any]:
    if wire == "anthropic":
        data = [{"type": "model", "id": name, "display_name": name, "created_at": "2023-11-14T22:13:20Z"} for name in names]
        return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in names],
    }
