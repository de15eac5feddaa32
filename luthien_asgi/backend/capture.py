"""Keeping hold of the HTTP response that LiteLLM opens, and writing the request body ourselves where that is wanted.

Strategy: LiteLLM's httpx providers take an `AsyncHTTPHandler` as `client`. Each call gets a thin one of its own that sends
through the backend's one connection pool, keeps what came back, and hands the body to a `rewrite` function before it leaves.

Deliberate differences from LiteLLM's handler:

1. A request is sent once. LiteLLM repeats it with a new client when connecting fails and closes that client while the answer is
   still to be read.
2. Of an error response at most 16 KiB are kept, and it is read for `ERROR_BODY_SECONDS` at most.
3. A redirect is not followed: the request holds credentials, and headers that other clients do not know for such.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, Final, Self, TypeVar

from luthien_asgi import jsontext
from luthien_asgi.backend.guarding import guarded
from luthien_asgi.backend.sending import Connections, Made

__all__ = ["AnswerTaken", "HandlerPool", "Outgoing", "Rewrite", "bounded", "raw_response"]

_Kept = TypeVar("_Kept")
Rewrite = Callable[[str, dict[str, Any], dict[str, str]], tuple[str, dict[str, Any], dict[str, str]]]
"""URL, JSON body and headers (lower-case names) as LiteLLM made them in; as they are sent out."""

ERROR_BODY_BYTES: Final = 16 * 1024
"""LiteLLM searches what it takes for the message with patterns that need seconds for a megabyte, and 0.5 s for 64 KiB."""
ERROR_BODY_SECONDS: Final = 5.0
_MOST_KEPT: Final = 256
_JSON: Final = {"content-type": "application/json"}
_STALE_HEADERS: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class AnswerTaken(BaseException):
    """Leaves `litellm.acompletion` once the answer is open: what LiteLLM does after that is for whom it iterates.

    It would wrap the stream and price it, a sixth of what a call costs. No `Exception`, so LiteLLM takes it for no failure.
    """


class Outgoing:
    """One request whose body is ours, and what came of it.

    `came` is what came of it already: a response, or what failed. Then nothing is sent, and LiteLLM makes of that what it would.
    """

    def __init__(self, connections: Connections, rewrite: Rewrite, *, came: Any = None) -> None:  # noqa: ANN401 - httpx.Response
        self._connections, self._rewrite, self._came = connections, rewrite, came
        self.made: Made | None = None
        """The request as it was before the rewriting, once it was made."""
        self.sent: dict[str, Any] | None = None
        """The body as it was sent."""
        self.response: Any = None if isinstance(came, Exception) else came
        """The `httpx.Response`, once it is there: unread, or an error's with the beginning of its body."""

    async def send(self, made: Made) -> Any:  # noqa: ANN401 - httpx.Response
        """Send the request, rewritten; keep and return the response. Raises `httpx.HTTPStatusError` for no success."""
        url, self.sent, headers = self._rewrite(made.url, dict(made.body), dict(made.headers))
        self.made = made
        if isinstance(self._came, Exception):
            raise self._came
        if self._came is None:
            response = await self._connections.send(made, url, self.sent, headers)
            self._came = response if response.status_code < 400 else await bounded(response)
        self.response = self._came
        self.response.raise_for_status()
        return self.response


class HandlerPool:
    """The connection pools of one backend: one for each way of verifying certificates that the models ask for."""

    def __init__(self) -> None:
        self._pools: dict[str, Any] = {}
        self._connections: dict[str, Connections] = {}
        self._kept: dict[Hashable, Any] = {}
        self._users = 1

    def shared(self) -> Self:
        """Return this pool for one more backend: it is closed when each of them has closed it."""
        self._users += 1
        return self

    def handler(self, *, ssl_verify: Any = None, outgoing: Outgoing | None = None, takes: bool = False) -> Any:  # noqa: ANN401
        """Return a handler (LiteLLM's class) for one call; its `response` is what came back. LiteLLM must be loaded.

        With `takes` its `post` leaves LiteLLM by `AnswerTaken` as soon as a streamed answer is open.
        """
        return _call_handler()(self.connections(ssl_verify=ssl_verify).client, outgoing, takes)

    def connections(self, *, ssl_verify: Any = None) -> Connections:  # noqa: ANN401
        """Return what requests are sent through. LiteLLM must be loaded."""
        key = repr(ssl_verify)
        if key not in self._connections:
            transport = _transport(ssl_verify)
            self._pools[key] = _http_module().AsyncHTTPHandler(ssl_verify=ssl_verify, transport=transport)
            self._connections[key] = Connections(self._pools[key].client, transport)
        return self._connections[key]

    def kept(self, key: Hashable, make: Callable[[], _Kept]) -> _Kept:
        """Return what was made for a key before, or make it; under a wildcard there are as many as clients have names."""
        if key not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = make()
        found: _Kept = self._kept[key]
        return found

    async def aclose(self) -> None:
        """Close the connections, when nobody else uses them."""
        self._users -= 1
        if self._users > 0:
            return
        pools, self._pools = self._pools, {}
        self._connections.clear()
        self._kept.clear()
        for pool in pools.values():
            await pool.close()


def _transport(ssl_verify: Any) -> Any:  # noqa: ANN401
    """Return the transport that LiteLLM's handler would make for itself; None where that is httpx's client's to make.

    With httpx's transport proxies and certificates go with the client; a LiteLLM that has other names for this keeps its own too.
    """
    module = _http_module()
    wanted, make = (getattr(module.AsyncHTTPHandler, f"{name}_aiohttp_transport", None) for name in ("should_use", "create"))
    if wanted is None or make is None or not wanted():
        return None
    verify = module.get_ssl_configuration(ssl_verify)
    if isinstance(verify, bool):
        return guarded(make(ssl_verify=verify))
    return guarded(make(ssl_context=verify if isinstance(verify, ssl.SSLContext) else None))


def _http_module() -> Any:  # noqa: ANN401
    return importlib.import_module("litellm.llms.custom_httpx.http_handler")


@cache
def _call_handler() -> Any:  # noqa: ANN401 - the class can only be made once LiteLLM is there
    module = _http_module()
    base: Any = module.AsyncHTTPHandler

    class CallHandler(base):  # type: ignore[misc]  # LiteLLM has no types here
        """LiteLLM's handler for one call. It owns no connection: `client` does."""

        def __init__(self, client: Any, outgoing: Outgoing | None, takes: bool) -> None:  # noqa: ANN401
            self._takes = takes
            self.timeout = self.event_hooks = self.ssl_verify = self.shared_session = self.transport = None
            self.follow_redirects, self.client_alias = False, None
            self._owns_client, self._client = False, client
            self._outgoing = outgoing
            self.response: Any = None

        async def post(
            self,
            url: str,
            data: Any = None,  # noqa: ANN401
            json: Any = None,  # noqa: ANN401
            params: Any = None,  # noqa: ANN401
            headers: Any = None,  # noqa: ANN401
            timeout: Any = None,  # noqa: ANN401, ASYNC109 - LiteLLM's signature
            stream: bool = False,
            logging_obj: Any = None,  # noqa: ANN401, ARG002
            files: Any = None,  # noqa: ANN401
            content: Any = None,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            """Send the request, rewritten; keep and return the response. Raises `httpx.HTTPStatusError` as LiteLLM expects."""
            if self._outgoing is not None:
                body = jsontext.loads(data) if json is None else json
                lower = {name.lower(): value for name, value in (headers or {}).items()}
                made = Made(url=url, body=body, headers={**_JSON, **lower}, query=params or {}, timeout=timeout)
                return await self._send_ours(self._outgoing, made, stream)
            payload = {"content": data} if isinstance(data, str | bytes) else {"data": data, "json": json, "content": content}
            waiting = {} if timeout is None else {"timeout": timeout}
            request = self._client.build_request("POST", url, params=params, headers=headers, files=files, **payload, **waiting)
            response = await self._client.send(request, stream=stream, follow_redirects=False)
            self.response = response if response.status_code < 400 else await bounded(response)
            self.response.raise_for_status()
            return self.response

        async def _send_ours(self, outgoing: Outgoing, made: Made, stream: bool) -> Any:  # noqa: ANN401
            try:
                response = await outgoing.send(made)
            finally:
                self.response = outgoing.response
            if not stream:
                await response.aread()
            elif self._takes:
                raise AnswerTaken
            return response

    return CallHandler


async def bounded(response: Any) -> Any:  # noqa: ANN401 - httpx.Response, which is LiteLLM's to import
    """Return an error response with the beginning of its body, read and closed."""
    body = bytearray()
    try:
        with contextlib.suppress(TimeoutError, Exception):
            async with asyncio.timeout(ERROR_BODY_SECONDS):
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > ERROR_BODY_BYTES:
                        break
    finally:
        with contextlib.suppress(Exception):
            await response.aclose()
    headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _STALE_HEADERS]
    return type(response)(response.status_code, headers=headers, content=bytes(body[:ERROR_BODY_BYTES]), request=response.request)


def raw_response(wrapper: Any, handler: Any) -> Any:  # noqa: ANN401 - LiteLLM's and httpx's objects
    """Return the `httpx.Response` that LiteLLM opened, or None where it keeps it to itself.

    It is looked for in the call's own handler, then where LiteLLM has it: `.response` of the OpenAI SDK's stream,
    `.http_response` of LiteLLM's own. Touching `.streaming_response` would make it unreadable.
    """
    stream = getattr(wrapper, "completion_stream", None)
    found = (getattr(handler, "response", None), getattr(stream, "response", None), getattr(stream, "http_response", None))
    return next((response for response in found if hasattr(response, "aiter_bytes")), None)
