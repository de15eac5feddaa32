"""What the middleware is measured against: handlers that do less, each an ASGI app.

plain   as one would write it first: `litellm.acompletion(stream=True)` iterated into an EventSourceResponse
raw     Starlette and httpx passing on the provider's bytes unread
aio     aiohttp in, msgspec over each event, ASGI by hand and one send a read out: what Python can do at all
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

__all__ = ["FLOORS"]

_TIMEOUT: Final = 120.0
_CONNECTIONS: Final = 1000
_EVENT: Final = b"data: {"
_Receive = Callable[[], Awaitable[Any]]
_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


def plain(upstream: str) -> Any:
    """Return the handler that one would write first."""
    import litellm
    from sse_starlette import EventSourceResponse

    async def answer(request: Request) -> Response:
        body: dict[str, Any] = await request.json()
        base = f"{upstream}/{request.path_params['shape']}/v1"
        chunks = await litellm.acompletion(model="openai/x", api_base=base, api_key="k", messages=body["messages"], stream=True)

        async def events() -> AsyncIterator[dict[str, str]]:
            async for chunk in chunks:
                yield {"data": chunk.model_dump_json(exclude_none=True)}
            yield {"data": "[DONE]"}

        return EventSourceResponse(events())

    return Starlette(routes=[Route("/{shape:path}/v1/chat/completions", answer, methods=["POST"])])


def raw(upstream: str) -> Any:
    """Return the byte relay."""
    import httpx

    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    client = httpx.AsyncClient(timeout=_TIMEOUT, limits=limits)

    async def answer(request: Request) -> Response:
        asked = client.build_request("POST", upstream + request.url.path, content=await request.body())
        response = await client.send(asked, stream=True)

        async def parts() -> AsyncIterator[bytes]:
            try:
                async for part in response.aiter_raw():
                    yield part
            finally:
                await response.aclose()

        return StreamingResponse(parts(), media_type="text/event-stream")

    return Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])


class _Delta(msgspec.Struct, omit_defaults=True):
    content: str | None = None
    role: str | None = None


class _Choice(msgspec.Struct):
    index: int
    delta: _Delta
    finish_reason: str | None = None


class _Event(msgspec.Struct, omit_defaults=True):
    id: str
    model: str
    created: int
    choices: list[_Choice]
    object: str = "chat.completion.chunk"


_decode: Final = msgspec.json.Decoder(_Event).decode
_encode: Final = msgspec.json.Encoder().encode


def aio(upstream: str) -> Any:
    """Return the least that reads and writes each event."""
    import aiohttp

    async def app(
        scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        body = await _body(receive)
        session = sessions[0] if sessions else aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        sessions[:] = [session]
        async with session.post(upstream + scope["path"], data=body, headers={"content-type": "application/json"}) as response:
            await send(_START)
            rest = b""
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                if events:
                    out = b"\n\n".join(map(_again, events)) + b"\n\n"
                    await send({"type": "http.response.body", "body": out, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    sessions: list[aiohttp.ClientSession] = []
    return app


def _again(event: bytes) -> bytes:
    return b"data: " + _encode(_decode(event[6:])) if event.startswith(_EVENT) else event


async def _body(receive: _Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


FLOORS: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType({"plain": plain, "raw": raw, "aio": aio})
