"""What the middleware needs of a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, cast

from luthien_asgi.chunks import Chunk, ChunkFactory
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.runs import Run

__all__ = ["Backend", "BackendCall", "BackendStream", "RunStream", "Target", "run_stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a model name that a client asked for stands for."""

    name: str
    """The name that the client asked for."""
    provider: str
    """LiteLLM's name of the provider: `openai`, `anthropic`, `bedrock`, …"""
    wire: WireName
    """The wire format that the provider's own API speaks, `openai` where it is neither."""
    passthrough: bool = False
    """The client's own credential is used, and no server-side key."""
    spends_key: bool = True
    """A server-side key is spent (from the configuration, or one that LiteLLM finds in the environment)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCall:
    """One call of the backend."""

    request: ChatRequest
    """The request after the policy."""
    credential: str | None = field(default=None, repr=False)
    """The client's own credential; used for `passthrough` models only."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case headers of the client that go on to a provider of the same wire: `anthropic-beta`, `anthropic-version`; with a
    credential of the client's own also those that choose a workspace or a profile of its account."""
    query: str = ""
    """What goes on of the query: `beta=true`, with which Anthropic's SDKs mark their beta methods."""


class BackendStream(Protocol):
    """An answer that has begun: an async iterator of chunks, one part each (see `luthien_asgi.chunks`).

    It ends (`StopAsyncIteration`) when the provider's stream ended, and raises `BackendError` when that broke off, was garbage or
    said `error`. A provider's ping is a chunk without choices. Whoever holds the stream awaits `aclose()`, also when nothing was
    read; it closes the connection, is bounded and may be called twice.

    See `RunStream` for one that has more to offer.
    """

    wire: WireName
    """The wire that the chunks were read from; `openai` for LiteLLM's own iteration."""
    decoder: Literal["openai", "anthropic", "litellm", "body"]
    headers: Mapping[str, str]
    """The provider's response headers that are worth passing on, lower case (request id, rate limits, retry-after)."""
    sent: Mapping[str, Any]
    """The request as sent, without credentials."""
    ignored: Sequence[str]
    """Request fields that were ignored with notice."""
    notes: Sequence[str]
    """What an operator should know, for the record (`fallback: …`)."""

    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> Chunk: ...
    async def aclose(self) -> None:
        """Close the provider's connection."""
        ...


class RunStream(Protocol):
    """What a `BackendStream` may have beside: the same chunks, with those that came together and are alike as one run."""

    async def next_run(self) -> Chunk | Run:
        """Return the next chunk or run. Raises like the iterator."""
        ...

    def take_ready(self) -> Chunk | Run | None:
        """Return the next chunk or run if it need not be waited for: that saves the deadline around a wait."""
        ...


def run_stream(stream: object) -> RunStream | None:
    """Return a stream as one that gives runs, or None where it gives chunks alone."""
    return cast("RunStream", stream) if hasattr(stream, "next_run") else None


class Backend(Protocol):
    """Opens answers. One object serves all requests."""

    make_chunk: ChunkFactory

    async def start(self) -> None:
        """Get ready (LiteLLM is imported in a thread). The middleware calls it once, and again only after it raised."""
        ...

    def models(self) -> Sequence[str]:
        """Return the model names that a client may ask for; wildcards as they are written."""
        ...

    def target(self, model: str) -> Target:
        """Return what a model name stands for. Raises `RequestError` with status 404 for one that is not configured."""
        ...

    async def open(self, call: BackendCall) -> BackendStream:
        """Call the provider; return when its response headers are there.

        Raises `RequestError` for a request that cannot be expressed on the provider's wire, and `BackendError` with the
        provider's own status, type and `retry-after` when it refused. When cancelled it leaves no connection open.
        """
        ...

    async def count_tokens(self, call: BackendCall) -> int:
        """Return the number of input tokens: the provider's own count where it has one, an estimate otherwise."""
        ...

    async def aclose(self) -> None:
        """Close what `start` and the calls opened."""
        ...
