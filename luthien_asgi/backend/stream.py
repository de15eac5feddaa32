"""An open answer: where its chunk data comes from, and the iterator over its chunks.

Strategy: a source gives batches of chunk data and closes what it holds; `ChunkStream` is the same iterator over any of them. What
came before an error is delivered before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self

from luthien_asgi.backend.chunks import build
from luthien_asgi.backend.recover import network_error, recover
from luthien_asgi.backend.scrub import scrub_text, scrub_value
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import ApiError, BackendError
from luthien_asgi.request import WireName
from luthien_asgi.runs import Run

__all__ = ["BodySource", "ChunkStream", "Decoder", "IterationSource", "RawSource", "Source", "StreamInfo"]

ChunkData = dict[str, Any]
_IDLE_FIELDS: Final = 4
"""A sign of life has id, created, model and an empty list of choices."""
DecoderName = Literal["openai", "anthropic", "litellm", "body"]


class Decoder(Protocol):
    """Bytes of a provider's stream in, chunk data out."""

    error: BackendError | None

    @property
    def finished(self) -> bool:
        """Whether the answer is complete."""
        ...

    def feed_runs(self, data: bytes) -> list[ChunkData | Run]:
        """Return the chunks that these bytes complete; `error` is to be raised after them."""
        ...

    def finish(self) -> list[ChunkData]:
        """Return the last chunks, or raise `BackendError` when the stream broke off."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What one reading gave."""

    chunks: Sequence[ChunkData | Run] = ()
    error: ApiError | None = None
    ended: bool = False


class Source(Protocol):
    """Where chunk data comes from."""

    async def read(self) -> Batch:
        """Wait for the next data. Nothing of it is lost when the wait is cancelled and the source closed."""
        ...

    async def close(self) -> None:
        """Close the provider's connection, also when nothing was read."""
        ...


class RawSource:
    """The provider's own bytes, decoded by us."""

    def __init__(self, response: Any, decoder: Decoder) -> None:  # noqa: ANN401 - httpx.Response, which is LiteLLM's to import
        self._response = response
        self._decoder = decoder
        self._bytes = _bytes_of(response)

    async def read(self) -> Batch:
        """Read one packet and decode it."""
        try:
            data = await anext(self._bytes)
        except StopAsyncIteration:
            return self._end()
        except Exception as error:
            failure = network_error(error) or BackendError("the provider's answer could not be read")
            return self._decoded(left_over(self._response), failure)
        return self._decoded(data, None)

    def _decoded(self, data: bytes, failure: BackendError | None) -> Batch:
        """Decode what came; `failure` is what the connection broke off with, if the answer is not complete without it."""
        try:
            chunks = self._decoder.feed_runs(data)
        except BackendError as error:
            return Batch(error=error)
        ended = self._decoder.finished
        return Batch(chunks, self._decoder.error or (None if ended else failure), ended=ended)

    def _end(self) -> Batch:
        try:
            return Batch(self._decoder.finish(), ended=True)
        except BackendError as error:
            return Batch(error=error)

    async def close(self) -> None:
        """Close the response; its connection goes back to the pool when the answer was read to its end."""
        with contextlib.suppress(Exception):
            await self._bytes.aclose()  # type: ignore[attr-defined]  # httpx's is an async generator
        response = self._response
        await response.aclose()
        # httpx has a response's stream refer to the response: a circle that only the garbage collector would take apart.
        response.stream = getattr(response.stream, "_stream", response.stream)


def _bytes_of(response: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 - httpx.Response
    """Return the body as it comes; what is not compressed does not go through the two generators in which httpx undoes that."""
    stream = getattr(response, "stream", None)
    if stream is None or response.headers.get("content-encoding", "identity").lower() != "identity":
        decoded: AsyncIterator[bytes] = response.aiter_bytes()
        return decoded
    return aiter(stream)


def left_over(response: Any) -> bytes:  # noqa: ANN401 - httpx.Response
    """Return what was received before the connection broke off and not read yet.

    aiohttp, LiteLLM's transport, throws it away: once its reader knows of the error it raises that before it gives its buffer.
    Only what is not compressed is taken from there; with another transport there is nothing to take.
    """
    stream = getattr(response, "stream", None)
    inner = getattr(stream, "_stream", stream)
    content = getattr(getattr(inner, "_aiohttp_response", None), "content", None)
    buffer = getattr(content, "_buffer", None)
    if not buffer or response.headers.get("content-encoding", "identity") != "identity":
        return b""
    return b"".join(buffer)[getattr(content, "_buffer_offset", 0) :]


class IterationSource:
    """LiteLLM's own iteration, for wires that we do not decode.

    Deliberate differences from it:

    1. All chunks have one id, model and creation time, the first that it gives.
    2. The finish reason that it invents for an answer that was cut off is an error.
    3. At its end the price and the log entry of the call are not computed: for Ollama that blocks the event loop on the network.
    """

    def __init__(
        self,
        wrapper: Any,  # noqa: ANN401 - LiteLLM's CustomStreamWrapper
        *,
        split: Callable[[dict[str, Any]], list[ChunkData]],
        find_response: Callable[[], Any],
        secrets: Sequence[str],
    ) -> None:
        self._wrapper, self._split, self._find_response, self._secrets = wrapper, split, find_response, secrets
        self._iterator = aiter(wrapper)
        self._identity: dict[str, Any] = {}
        if (log := getattr(wrapper, "logging_obj", None)) is not None:
            log._on_deferred_stream_complete = _nothing  # noqa: SLF001 - difference 3
            # The bridge to the Responses API would begin its log entry all the same, and never await it.
            log.dispatch_success_handlers = _no_entry

    async def read(self) -> Batch:
        """Take LiteLLM's next chunk apart."""
        try:
            chunk = await anext(self._iterator)
            return self._taken_apart(chunk.model_dump())
        except StopAsyncIteration:
            return Batch(ended=True)
        except Exception as error:
            return Batch(error=recover(error, secrets=self._secrets))

    def _taken_apart(self, data: ChunkData) -> Batch:
        if _invented(self._wrapper, data):
            return Batch(error=BackendError("the provider's answer ended without a finish reason"))
        self._identity = self._identity or {name: data.get(name) for name in ("id", "created", "model")}
        return Batch(self._split({**data, **self._identity}))

    async def close(self) -> None:
        """Close the response if there is one by now (Gemini's is opened by the first reading), and what LiteLLM holds of it."""
        stream = getattr(self._wrapper, "completion_stream", None)
        inner = getattr(stream, "streaming_response", None)
        for held in (self._find_response(), self._wrapper, inner, stream):
            if close := getattr(held, "aclose", None):
                with contextlib.suppress(Exception):
                    await close()


async def _nothing(*_: object, **__: object) -> None:
    return None


def _no_entry(*_: object, **__: object) -> None:
    return None


def _invented(wrapper: Any, data: ChunkData) -> bool:  # noqa: ANN401
    """Tell whether a finish reason is LiteLLM's own: it remembers what the provider said in two fields."""
    if not any(choice.get("finish_reason") for choice in data.get("choices") or ()):
        return False
    said = [getattr(wrapper, name, "unknown") for name in ("received_finish_reason", "intermittent_finish_reason")]
    return said == [None, None]


class BodySource:
    """An answer that came whole."""

    def __init__(self, chunks: Sequence[ChunkData]) -> None:
        self._chunks = chunks

    async def read(self) -> Batch:
        """Return all of it."""
        return Batch(self._chunks, ended=True)

    async def close(self) -> None:
        """Do nothing: the response was read to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What is known of an answer when it begins."""

    wire: WireName
    decoder: DecoderName
    headers: Mapping[str, str]
    sent: Mapping[str, Any]
    ignored: Sequence[str]
    notes: Sequence[str]
    secrets: Sequence[str] = field(default=(), repr=False)
    close_timeout: float


class ChunkStream:
    """The chunks of one answer (a `BackendStream`)."""

    def __init__(self, source: Source, info: StreamInfo) -> None:
        self.wire: WireName = info.wire
        self.decoder: DecoderName = info.decoder
        self.headers, self.sent = info.headers, info.sent
        self.ignored, self.notes = info.ignored, info.notes
        self._secrets, self._close_timeout = info.secrets, info.close_timeout
        self._source = source
        self._ready: deque[ChunkData | Run] = deque()
        self._error: ApiError | None = None
        self._ended = self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        item = await self.next_run()
        if not isinstance(item, Run):
            return item
        first, *rest = item.data()
        self._ready.extendleft(reversed(rest))
        return build(first)

    async def next_run(self) -> Chunk | Run:
        """Return the next chunk, or several that came together as a run. Raises like the iterator."""
        while (item := self.take_ready()) is None:
            if self._ended or self._closed:
                self._raise_end()
            await self._fill()
        return item

    def take_ready(self) -> Chunk | Run | None:
        """Return the next chunk or run if it need not be waited for."""
        if not self._ready:
            return None
        item = self._ready.popleft()
        return item.made_by(build) if isinstance(item, Run) else build(item)

    def _raise_end(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    async def _fill(self) -> None:
        batch = await self._source.read()
        self._ready.extend(_without_idle(batch.chunks))
        self._ended = batch.ended or batch.error is not None
        self._error = _scrubbed(batch.error, self._secrets) if batch.error else None

    async def aclose(self) -> None:
        """Close the provider's connection, in `close_timeout` at most, and also when the caller is cancelled meanwhile."""
        if not self._closed:
            self._closed = True
            self._ready.clear()
            await asyncio.shield(self._close())

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._close_timeout):
                await self._source.close()


def _without_idle(chunks: Sequence[ChunkData | Run]) -> Sequence[ChunkData | Run]:
    """Leave signs of life out where there is more to say, and all but one where there is not: a packet may hold thousands."""
    spoken = [chunk for chunk in chunks if isinstance(chunk, Run) or chunk["choices"] or len(chunk) > _IDLE_FIELDS]
    return spoken or chunks[:1]


def _scrubbed(error: ApiError, secrets: Sequence[str]) -> ApiError:
    error.message = scrub_text(error.message, secrets)
    error.args = (error.message,)
    error.code = scrub_text(error.code, secrets) if error.code else error.code
    error.param = scrub_text(error.param, secrets) if error.param else error.param
    error.raw = scrub_value(error.raw, secrets) if error.raw else None
    return error
