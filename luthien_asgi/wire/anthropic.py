"""Anthropic's messages format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from luthien_asgi.errors import ApiError
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.wire import anthropic_request
from luthien_asgi.wire.anthropic_encoder import AnthropicEncoder
from luthien_asgi.wire.error_bodies import anthropic_error
from luthien_asgi.wire.estimate import estimate_tokens
from luthien_asgi.wire.response_headers import pass_headers

__all__ = ["AnthropicWire"]

_HEADERS: Final = frozenset({"request-id", "retry-after", "retry-after-ms", "x-should-retry"})
_PREFIXES: Final = ("anthropic-",)


class AnthropicWire:
    """What an Anthropic client sends and expects."""

    name: WireName = "anthropic"

    def parse_request(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
        return anthropic_request.parse(body, limits=limits)

    def parse_count(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Check and parse the body of a request to count tokens: `max_tokens` may be missing there."""
        return anthropic_request.parse_count(body, limits=limits)

    def encoder(self, request: ChatRequest, *, settings: StreamSettings, id: str, created: int) -> AnthropicEncoder:  # noqa: A002
        """Return an encoder for the answer; it collects where the client asked for one body. A message has no `created`."""
        del settings, created
        tokens = estimate_tokens(request)
        return AnthropicEncoder(model=request.model, id=id, input_tokens=tokens, collect=not request.stream)

    def error_body(self, error: ApiError, *, request_id: str) -> dict[str, Any]:
        """Return `{"type": "error", "error": {type, message}, "request_id"}`."""
        return {"type": "error", "error": anthropic_error(error), "request_id": request_id}

    def response_headers(self, headers: Mapping[str, str], *, request_id: str) -> dict[str, str]:
        """Return the provider's Anthropic headers, and `request-id` whatever it sent."""
        return {"request-id": request_id, **pass_headers(headers, names=_HEADERS, prefixes=_PREFIXES)}

    def models_body(self, models: Sequence[str], *, created: int) -> dict[str, Any]:
        """Return the one page of models; `created` is in seconds since 1970."""
        at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        data = [
            {"type": "model", "id": model, "display_name": model, "created_at": at, "lifecycle": "active"} for model in models
        ]
        ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
        return {"data": data, "has_more": False, **ends}
