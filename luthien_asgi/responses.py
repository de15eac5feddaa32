"""Whole responses, sent over the `send` that the server gave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from luthien_asgi import jsontext

__all__ = ["Send", "send_content", "send_error", "send_json"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def send_json(send: Send, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Send a JSON response."""
    await send_content(send, status, jsontext.dumps(body), headers)


async def send_content(send: Send, status: int, content: bytes, headers: Mapping[str, str]) -> None:
    """Send a JSON response whose body is written already."""
    named = {**headers, "content-type": "application/json", "content-length": str(len(content))}
    raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content, "more_body": False})


async def send_error(send: Send, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Send an error response: a status outside 400 to 599 becomes 500, so that no error looks like an answer."""
    await send_json(send, status if 400 <= status <= 599 else 500, body, {**headers, "cache-control": "no-store"})
