"""What a wire format does, seen from outside. Everything here is sans-IO: no await, no sockets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import ApiError
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.runs import Run
from luthien_asgi.settings import Limits, StreamSettings

__all__ = ["StreamEncoder", "WireFormat"]


class StreamEncoder(Protocol):
    """Chunks in, finished SSE frames out; one object for one answer.

    Exactly one terminal sequence leaves: `finish()` or `fail()`, once. An event that the state does not allow raises
    `StreamStateError`, so that an illegal stream cannot leave the process.
    """

    def feed(self, chunk: Chunk) -> list[bytes]:
        """Return the frames that the chunk gives, perhaps none."""
        ...

    def feed_run(self, run: Run) -> list[bytes]:
        """Return the frames of a run's chunks, those that leave together perhaps joined."""
        ...

    def finish(self) -> list[bytes]:
        """Return the frames that end a good answer."""
        ...

    @property
    def omitted(self) -> Sequence[str]:
        """What the answer held so far that the client's format has no field for: names, each once."""
        ...

    def fail(self, error: ApiError) -> list[bytes]:
        """Return the frames that end a broken answer: what is open is closed, then the error event."""
        ...

    def ping(self) -> list[bytes]:
        """Return a keepalive frame of the right shape for now, or none when the settings say so."""
        ...

    def body(self) -> dict[str, Any]:
        """Return the whole answer as the JSON body of a `stream: false` response. Only after `finish()`."""
        ...


class WireFormat(Protocol):
    """One client format."""

    name: WireName

    def parse_request(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
        ...

    def parse_count(self, body: bytes, *, limits: Limits) -> ChatRequest:
        """Check and parse the body of a request to count tokens: a chat request without what only an answer needs."""
        ...

    def encoder(self, request: ChatRequest, *, settings: StreamSettings, id: str, created: int) -> StreamEncoder:  # noqa: A002
        """Return an encoder for the answer to a request. `id` is used when the backend gives the answer none."""
        ...

    def error_body(self, error: ApiError, *, request_id: str) -> dict[str, Any]:
        """Return the JSON body of an error response."""
        ...

    def response_headers(self, headers: Mapping[str, str], *, request_id: str) -> dict[str, str]:
        """Return the response headers in this format's names: the provider's where it is the same wire, our request id."""
        ...

    def models_body(self, models: Sequence[str], *, created: int) -> dict[str, Any]:
        """Return the body of `GET /v1/models`."""
        ...
