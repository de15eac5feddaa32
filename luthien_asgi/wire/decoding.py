"""What the two stream decoders have in common: the events' order of errors and ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from luthien_asgi import jsontext
from luthien_asgi.errors import BackendError
from luthien_asgi.wire.faults import malformed
from luthien_asgi.wire.sse import SSEDecoder, SSEEvent

__all__ = ["ChunkData", "EventDecoder", "is_done", "parse"]

ChunkData = dict[str, Any]
"""The data of one chunk (its shape is in `luthien_asgi.chunks`)."""


class EventDecoder(ABC):
    """Bytes of a provider's stream in, chunk data out, for any way of cutting the bytes.

    `feed` never loses what came before an error in the same packet: it returns that and sets `error`. The caller delivers the
    chunks, then raises `error`; whoever forgets gets it raised by the next call. Bytes after the end of the answer are ignored.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._sse = SSEDecoder(frame_bytes)
        self._finished = False
        self.error: BackendError | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is complete: the provider said so, or `finish()` accepted the end of its stream."""
        return self._finished

    def feed(self, data: bytes) -> list[ChunkData]:
        """Return the chunks of the events that end in these bytes. Raises the `BackendError` that an earlier call left."""
        if self.error is not None:
            raise self.error
        chunks: list[ChunkData] = []
        try:
            for event in self._sse.feed(data):
                if not self._finished:
                    self._take(event, chunks)
        except BackendError as error:
            self.error = error
        if self.error is None and not self._finished:
            self.error = self._sse.error
        return chunks

    def finish(self) -> list[ChunkData]:
        """Return the last chunks, now that the provider closed its stream.

        Raises `BackendError` when the stream broke off: it says what was missing.
        """
        if self.error is not None:
            raise self.error
        chunks: list[ChunkData] = []
        try:
            if not self._finished:
                self._take_tail(chunks)
            if not self._finished:
                self._end(chunks)
        except BackendError as error:
            self.error = error
            raise
        return chunks

    def _take_tail(self, chunks: list[ChunkData]) -> None:
        """Take the event that the end of the stream left without its blank line.

        One that is cut itself is not garbage but the break: what is missing without it decides.
        """
        for event in self._sse.close():
            if event.data and _is_whole(event.data):
                self._take(event, chunks)

    @abstractmethod
    def _take(self, event: SSEEvent, chunks: list[ChunkData]) -> None:
        """Append what one event gives. Raises `BackendError`."""

    @abstractmethod
    def _end(self, chunks: list[ChunkData]) -> None:
        """Accept the end of the stream and append what was kept back, or raise `BackendError`."""


def parse(data: bytes) -> ChunkData:
    """Return one event's JSON object. Raises `BackendError` for anything else."""
    try:
        value = jsontext.loads(data)
    except ValueError:
        raise malformed() from None
    if type(value) is not dict:
        raise malformed()
    return value


def is_done(data: bytes) -> bool:
    """Tell whether an event's data is OpenAI's end mark."""
    return data.startswith(b"[") and data.strip() == b"[DONE]"


def _is_whole(data: bytes) -> bool:
    if is_done(data):
        return True
    try:
        jsontext.loads(data)
    except ValueError:
        return False
    return True
