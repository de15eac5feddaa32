"""What the two stream decoders have in common: the events' order of errors and ends, and what comes as a run.

Strategy: an event that is a fragment of text and nothing else leaves a template (`luthien_asgi.wire.templates`), and those after
it that are like it are read as one run. Any other event ends that: what a fragment means depends on what came before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.chunks import Part
from luthien_asgi.errors import BackendError
from luthien_asgi.runs import Run
from luthien_asgi.wire.faults import malformed
from luthien_asgi.wire.sse import SSEDecoder, SSEEvent, read_block
from luthien_asgi.wire.templates import Template

__all__ = ["ChunkData", "EventDecoder", "is_done", "parse"]

ChunkData = dict[str, Any]
"""The data of one chunk (its shape is in `luthien_asgi.chunks`)."""
_TRIES: Final = 8
"""Templates that are made one after the other without another event like them: some providers change a field with every event."""


class EventDecoder(ABC):
    """Bytes of a provider's stream in, chunk data out, for any way of cutting the bytes.

    `feed` never loses what came before an error in the same packet: it returns that and sets `error`. The caller delivers the
    chunks, then raises `error`; whoever forgets gets it raised by the next call. Bytes after the end of the answer are ignored.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._sse = SSEDecoder(frame_bytes)
        self._finished = False
        self._template: Template | None = None
        self._tries = 0
        self._block = b""
        """The event that is being read, if it stands alone."""
        self.error: BackendError | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is complete: the provider said so, or `finish()` accepted the end of its stream."""
        return self._finished

    def feed(self, data: bytes) -> list[ChunkData]:
        """Return the chunks of the events that end in these bytes. Raises the `BackendError` that an earlier call left."""
        chunks: list[ChunkData] = []
        for item in self.feed_runs(data):
            chunks += item.data() if isinstance(item, Run) else [item]
        return chunks

    def feed_runs(self, data: bytes) -> list[ChunkData | Run]:
        """Return the same, with what is one run as one item."""
        if self.error is not None:
            raise self.error
        found: list[ChunkData | Run] = []
        try:
            self._read(self._sse.blocks(data), found)
        except BackendError as error:
            self.error = error
        if self.error is None and not self._finished:
            self.error = self._sse.error
        return found

    def _read(self, blocks: list[bytes], found: list[ChunkData | Run]) -> None:
        place = 0
        while place < len(blocks) and not self._finished:
            if self._template is not None:
                run, place = self._template.run(blocks, place)
                if run is not None:
                    self._tries = 0
                    found.append(run)
                    continue
                self._template = None
            self._block = blocks[place]
            place += 1
            self._read_block(found)

    def _read_block(self, found: list[ChunkData | Run]) -> None:
        events: list[SSEEvent] = []
        chunks: list[ChunkData] = []
        read_block(self._block, events)
        if len(events) != 1:
            self._block = b""  # a comment beside it says that the provider lives
        try:
            for event in events:
                if not self._finished:
                    self._take(event, chunks)
        finally:
            found += chunks

    def _expect(self, name: str, text: str, part: Part, data: Callable[[str, str], ChunkData], *, padded: bool = False) -> None:
        """Expect events like the one that is being read: a fragment of `text`, in the field `name`, and nothing else.

        `part` is what it says but for the text; `data` returns the chunk of another text, and another padding if it is `padded`.
        """
        if self._tries >= _TRIES or not self._block:
            return
        self._tries += 1
        block, self._block = self._block, b""  # of what is tried out nothing is expected
        self._template = Template.of(block, name, text, part, data, padded=padded, read=self._tried)

    def _tried(self, block: bytes) -> list[ChunkData]:
        """Return the chunks of an event in the place of the one that was read: a fragment leaves nothing behind here."""
        events: list[SSEEvent] = []
        chunks: list[ChunkData] = []
        read_block(block, events)
        for event in events:
            self._take(event, chunks)
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
