"""Whether what is served is legal, by the validators of `luthien_asgi.testing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import httpx

from luthien_asgi.testing import validate_body, validate_stream

__all__ = ["complaints"]

_PATHS: Final[Mapping[str, str]] = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
}
_SECONDS: Final = 30.0


def complaints(client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> list[str]:
    """Ask for an answer and return what is illegal about it."""
    asked, wire = {**request, "stream": stream}, cast("Any", client)
    if client == "openai" and stream:
        asked["stream_options"] = {"include_usage": True}
    response = httpx.post(url + _PATHS[client], json=asked, timeout=_SECONDS)
    if stream and response.status_code == 200:
        found = validate_stream(wire, response.content, include_usage=True if client == "openai" else None)
    else:
        found = validate_body(wire, response.content)
    return [f"{one.rule}: {one.message}" for one in found if one.severity == "error"]
