"""OpenAI's Responses format. Errors, headers and the list of models are those of chat completions."""

from __future__ import annotations

from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.wire import responses_request
from luthien_asgi.wire.openai import OpenAIAnswers
from luthien_asgi.wire.responses_encoder import ResponsesEncoder

__all__ = ["ResponsesWire"]


class ResponsesWire(OpenAIAnswers):
    """What a client of the Responses API sends and expects."""

    name: WireName = "responses"

    def parse_request(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
        return responses_request.parse(body, limits=limits)

    def parse_count(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Do as `parse_request`: tokens are counted in another format."""
        return responses_request.parse(body, limits=limits)

    def encoder(self, request: ChatRequest, *, settings: StreamSettings, id: str, created: int) -> ResponsesEncoder:  # noqa: A002
        """Return an encoder for the answer; it collects where the client asked for one body."""
        return ResponsesEncoder(request, settings=settings, id=id, created=created, collect=not request.stream)
