"""Whether what is served is legal, by the validators of `luthien_asgi.testing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from luthien_asgi.testing import accumulate_anthropic, accumulate_openai

__all__ = ["complaints"]

_PATHS: Final[Mapping[str, str]] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
_SECONDS: Final = 30.0


def complaints(client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> list[str]:
    """Ask for an answer and return what is illegal about it."""
    asked = {**request, "stream": stream}
    if client == "openai" and stream:
        asked["stream_options"] = {"include_usage": True}
    response = httpx.post(url + _PATHS[client], json=asked, timeout=_SECONDS)
    if stream and response.status_code == 200:
        return _illegal(client, response.content)
    return []


def _illegal(client: str, body: bytes) -> list[str]:
    try:
        (accumulate_openai if client == "openai" else accumulate_anthropic)(body)
    except ValueError as error:
        return [f"illegal: {error}"]
    return []
