"""An ASGI client that streams: what `httpx.ASGITransport` cannot do, since it hands over a body when it is complete.

    driver = ASGIDriver(app)
    async with driver.request("POST", "/v1/chat/completions", json=body) as response:
        async for part in response:              # as the app sends them
            ...
        response.disconnect()                    # the client leaves

`send` waits while the client has not read what was sent before, so a client that does not read is one that does not iterate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

from luthien_asgi import jsontext
from luthien_asgi.testing.lifespan import Lifespan
from luthien_asgi.testing.running import ASGIApp, Message, RunningApp, Scope
from luthien_asgi.testing.waiting import Signal

__all__ = ["ASGIDriver", "DriverResponse", "Fetched"]

Body = bytes | Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; of a header that comes twice, the last."""
    parts: Sequence[bytes]
    """The body as it was sent, one `send` a part."""

    @property
    def body(self) -> bytes:
        """The body."""
        return b"".join(self.parts)

    def json(self) -> Any:  # noqa: ANN401 - JSON is any shape
        """The body parsed. Raises `ValueError` when it is not JSON."""
        return jsontext.loads(self.body)


class DriverResponse:
    """One request in flight. Enter it to send the request; leaving it disconnects and waits until the app is done.

    Everything that waits is bounded by the driver's `within` and raises `TimeoutError`. What the app raised is raised here.
    """

    def __init__(
        self, app: ASGIApp, scope: Scope, body: Sequence[bytes], *, whole: bool, buffer: int, within: float, eager: bool
    ) -> None:
        self.status = 0
        """The HTTP status; 0 until the response has begun."""
        self.headers: dict[str, str] = {}
        self.complete = False
        """The app sent the last part of the body."""
        self.disconnected = False
        self._app, self._scope, self._buffer, self._eager = app, scope, buffer, eager
        self._incoming = deque(_request_messages(body, whole=whole))
        self._parts: deque[bytes] = deque()
        self._signal = Signal()
        self._running = RunningApp(self._signal, within=within)

    @property
    def app_done(self) -> bool:
        """The app has returned or raised."""
        return self._running.done

    async def __aenter__(self) -> Self:
        await self._running.start(self._app, self._scope, self._receive, self._send)
        try:
            if self._eager:
                await self.started()
        except BaseException:
            await self._running.end()
            raise
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.disconnect()
        try:
            if exc is None:
                await self.done()
        finally:
            await self._running.end()

    def __aiter__(self) -> Self:
        """Iterate over the parts of the body as the app sends them; ends after the last."""
        return self

    async def __anext__(self) -> bytes:
        if (part := await self.part()) is None:
            raise StopAsyncIteration
        return part

    async def started(self) -> None:
        """Wait until the response has begun: then `status` and `headers` are there."""
        await self._running.until(lambda: bool(self.status), "the response begins")

    async def part(self) -> bytes | None:
        """Return the next part of the body that is not empty, or None after the last."""
        await self._running.until(lambda: bool(self._parts) or self.complete, "the next part of the body")
        if not self._parts:
            return None
        part = self._parts.popleft()
        self._signal.notify()
        return part

    async def read(self) -> bytes:
        """Read the rest of the body."""
        return b"".join([part async for part in self])

    async def done(self) -> None:
        """Wait until the app has returned; what it raised is raised here."""
        await self._running.until(lambda: self._running.done, "the app returns")
        self._running.raise_error()

    def disconnect(self) -> None:
        """Leave: `receive` says `http.disconnect`, and what the app sends from now on is thrown away."""
        self.disconnected = True
        self._signal.notify()

    async def _receive(self) -> Message:
        if self._incoming and not self.disconnected:
            return self._incoming.popleft()
        await self._signal.until(lambda: self.disconnected or self.complete)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._signal.until(lambda: len(self._parts) < self._buffer or self.disconnected)
        if self.disconnected and not self.complete:
            self._refuse()
            return
        _SENT[message["type"]](self, message)
        self._signal.notify()

    def _refuse(self) -> None:
        """Do what servers do for a client that has left: from ASGI 2.4 on they raise, before they do nothing."""
        if self._scope["asgi"]["spec_version"] >= "2.4":
            msg = "the client has disconnected"
            raise OSError(msg)

    def _begin(self, message: Message) -> None:
        if self.status:
            msg = "http.response.start twice"
            raise RuntimeError(msg)
        self.status = message["status"]
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message.get("headers", ())}

    def _continue(self, message: Message) -> None:
        if not self.status or self.complete:
            msg = "http.response.body before the start or after the end"
            raise RuntimeError(msg)
        if part := bytes(message.get("body", b"")):
            self._parts.append(part)
        self.complete = not message.get("more_body", False)


_SENT: Final = {"http.response.start": DriverResponse._begin, "http.response.body": DriverResponse._continue}  # noqa: SLF001


def _request_messages(body: Sequence[bytes], *, whole: bool) -> list[Message]:
    last = len(body) - 1
    return [{"type": "http.request", "body": part, "more_body": place < last or not whole} for place, part in enumerate(body)]


class ASGIDriver:
    """Drives one ASGI app. `buffer` parts of a body may be unread before `send` waits; `within` bounds every wait, in seconds."""

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - every framework has its own type for an ASGI app
        *,
        root_path: str = "",
        spec_version: Literal["2.3", "2.4"] = "2.3",
        buffer: int = 64,
        within: float = 10.0,
    ) -> None:
        self.app: ASGIApp = app
        self.root_path = root_path
        self.spec_version = spec_version
        self.buffer = buffer
        self.within = within
        self.state: dict[str, Any] = {}
        """What the lifespan put into its state; every request gets a copy."""

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,  # noqa: ANN401 - JSON is any shape
        content: Body = b"",
        whole: bool = True,
        headers: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> DriverResponse:
        """Return a request to enter with `async with`.

        The body is `json`, or `content`: bytes, or several pieces that become an `http.request` message each. With `whole=False`
        it does not end (the client is still sending). Entering waits until the response has begun, not so with `wait=False`.
        """
        data = jsontext.dumps(json) if json is not None else content
        body = [data] if isinstance(data, bytes) else [*data]
        fields = {"host": "testserver"} | ({"content-type": "application/json"} if json is not None else {})
        if isinstance(data, bytes) and data:
            fields["content-length"] = str(len(data))
        fields |= {name.lower(): value for name, value in (headers or {}).items()}
        scope = self._scope(method, path, fields)
        return DriverResponse(self.app, scope, body, whole=whole, buffer=self.buffer, within=self.within, eager=wait)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,  # noqa: ANN401 - JSON is any shape
        content: Body = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Fetched:
        """Send a request, read the whole response, and wait until the app has returned."""
        async with self.request(method, path, json=json, content=content, headers=headers) as response:
            parts = [part async for part in response]
            await response.done()
        return Fetched(response.status, response.headers, parts)

    def _scope(self, method: str, path: str, headers: Mapping[str, str]) -> Scope:
        path, _, query = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self.spec_version},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": self.root_path + path,
            "raw_path": (self.root_path + path).encode(),
            "query_string": query.encode(),
            "root_path": self.root_path,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
            "state": dict(self.state),
            "extensions": {},
        }

    def lifespan(self) -> Lifespan:
        """Return the app's lifespan, to enter with `async with` around requests."""
        return Lifespan(self.app, self.state, within=self.within)
