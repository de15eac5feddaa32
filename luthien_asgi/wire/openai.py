"""OpenAI's chat-completions format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthien_asgi.errors import ApiError
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.wire import openai_request
from luthien_asgi.wire.error_bodies import openai_error
from luthien_asgi.wire.openai_encoder import OpenAIEncoder
from luthien_asgi.wire.response_headers import pass_headers

__all__ = ["OpenAIAnswers", "OpenAIWire"]

_HEADERS: Final = frozenset({"apim-request-id", "retry-after", "retry-after-ms", "x-ms-region", "x-request-id", "x-should-retry"})
_PREFIXES: Final = ("openai-", "x-ratelimit-")


class OpenAIAnswers:
    """What is the same in every format of the OpenAI API: errors, headers, models."""

    def error_body(self, error: ApiError, *, request_id: str) -> dict[str, Any]:
        """Return `{"error": {message, type, param, code}}`. The request id of this format is a header."""
        del request_id
        return {"error": openai_error(error)}

    def response_headers(self, headers: Mapping[str, str], *, request_id: str) -> dict[str, str]:
        """Return the provider's OpenAI headers, and `x-request-id` whatever it sent."""
        return {"x-request-id": request_id, **pass_headers(headers, names=_HEADERS, prefixes=_PREFIXES)}

    def models_body(self, models: Sequence[str], *, created: int) -> dict[str, Any]:
        """Return the list of models; `created` is in seconds since 1970."""
        data = [{"id": model, "object": "model", "created": created, "owned_by": "luthien_asgi"} for model in models]
        return {"object": "list", "data": data}


class OpenAIWire(OpenAIAnswers):
    """What an OpenAI client sends and expects."""

    name: WireName = "openai"

    def parse_request(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
        return openai_request.parse(body, limits=limits)

    def parse_count(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Do as `parse_request`: this format has no request of its own to count tokens."""
        return openai_request.parse(body, limits=limits)

    def encoder(self, request: ChatRequest, *, settings: StreamSettings, id: str, created: int) -> OpenAIEncoder:  # noqa: A002
        """Return an encoder for the answer; it collects where the client asked for one body."""
        return OpenAIEncoder(request, settings=settings, id=id, created=created, collect=not request.stream)
