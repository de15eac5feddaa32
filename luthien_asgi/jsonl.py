"""A recorder that keeps transactions in a file of JSON lines, two lines a transaction.

`{"type": "begin", …}` is in the file before the backend is called; `{"type": "end", …}` follows when all is over:

    begin:  type, id, at, wire, path, model, stream, client, request
    end:    type, id, at, ending, status, error, sent, decoder, ignored, backend_blocks, final_blocks, verdicts, usage,
            finish_reasons, samples, calls, unchecked, timings, notes

with the meanings of `luthien_asgi.recorder`'s `Begin` and `End`. A block is `{"kind", "index"}` and, where they have a value,
`text`, `id`, `name`, `signature`, `choice`, `custom`, `raw`; a verdict is a `VerdictRecord` without its empty texts. All keys of
a line are always there. `read_transactions` puts the two lines together again. What of the content is kept:

    full    all of it: the request as received and as sent, what the backend said, what the client received
    final   what the client received, and no request (null) and no backend blocks ([])
    hash    no text: `sha256:<hex>` of UTF-8 in its place, of sorted compact JSON for other values. Identifiers, names, numbers
            and the ending stay. A short or guessable text can be found again by hashing guesses.

Error messages and notes are scrubbed of credentials; headers are not recorded at all.

The file: created with mode 0600 and made so if it was more open, opened for appending, never through a symbolic link. Its folder
must be there: a record in a folder that a typing error made would be found by nobody. One process writes one file: the first
takes the given path and locks it; another (a second worker, a second recorder) that finds it locked writes
`<stem>-<pid><suffix>` beside it, as do all where the file system has no locks. A line that was cut by a crash stays, and the next
begins on a line of its own. Written means handed to the operating system (`os.write` returned), not forced to the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthien_asgi.errors import ApiError
from luthien_asgi.jsonl_file import LineFile, open_for_this_process
from luthien_asgi.jsonl_lines import Content, Lines, Mask, read_transactions
from luthien_asgi.recorder import Begin, End

__all__ = ["JsonlRecorder", "RecorderError", "read_transactions"]

_log: Final = logging.getLogger(__name__)
_BATCH: Final = 64
"""Records that one write takes along at most: what it joins in memory."""


class RecorderError(ApiError):
    """The record could not be written. From `begin` it is the client's 503; the cause is in the log and not for the client."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__(message, type="api_error")


class JsonlRecorder:
    """Records transactions in a file of JSON lines; see the module's docstring for its shape and its rules.

    `queue_size` bounds the records in memory that are not written yet; when it is reached, `end` waits for its write as `begin`
    always does. `mask` changes each text before it is written (with `full` and `final`), in the writer's thread. Raises
    `ValueError` for a wrong `content` or `queue_size`. Nothing is opened before `start()`.
    """

    wants_blocks = True

    def __init__(self, path: Path | str, *, content: Content = "full", mask: Mask | None = None, queue_size: int = 1000) -> None:
        if queue_size <= 0:
            msg = f"queue_size must be positive, not {queue_size!r}"
            raise ValueError(msg)
        self._asked: Final = Path(path)
        self._lines: Final = Lines(content=content, mask=mask)
        self._queue_size: Final = queue_size
        self._writer: _Writer | None = None

    @property
    def path(self) -> Path | None:
        """The file that this process writes; None while it is not open."""
        return self._writer.file.path if self._writer is not None else None

    def why_not(self) -> str:
        """Return why the file could not be opened now, or an empty text. Nothing is opened or made: a check before serving."""
        folder = self._asked.parent
        if not folder.is_dir():
            return f"path: the folder {str(folder)!r} is not there"
        if self._asked.is_symlink() or (self._asked.exists() and not self._asked.is_file()):
            return f"path: {str(self._asked)!r} is a link or no regular file"
        return "" if os.access(folder, os.W_OK) else f"path: the folder {str(folder)!r} cannot be written to"

    async def start(self) -> None:
        """Open the file, once a process: after a fork the child opens its own. Raises `OSError` when it cannot be opened."""
        writer = self._writer
        if writer is not None and writer.pid == os.getpid():
            return
        self._writer = _Writer(open_for_this_process(self._asked), lines=self._lines, size=self._queue_size)
        if writer is not None:
            writer.file.close()  # the parent's: this process has its own descriptor of it

    async def begin(self, begin: Begin) -> None:
        """Write a transaction's begin; it is in the file when this returns. Raises `RecorderError` (503) when it could not be.

        When it is cancelled, the begin is taken back, or stands in the file without an end if it was already on its way.
        """
        writer = await self._of_this_process()
        entry = writer.put(begin, wait=True)
        try:
            await entry.settled()
        except asyncio.CancelledError:
            writer.withdraw(entry)
            raise

    async def end(self, end: End) -> None:
        """Hand a transaction's end to the writer; waits while there is no room. When cancelled, the record is kept all the same.

        Raises `RecorderError` while the file cannot be written: the record stays in memory and is tried again with the next one.
        It is lost when the recorder is closed, or when there is no room in memory either; the error says so.
        """
        writer = await self._of_this_process()
        entry = writer.put(end, wait=False)
        await entry.settled()
        writer.raise_if_failing()

    async def aclose(self) -> None:
        """Write what is in memory and close the file. The log says how much could not be written. Twice is once."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.pid == os.getpid():
            await writer.aclose()
        else:
            writer.file.close()

    async def _of_this_process(self) -> _Writer:
        if self._writer is not None and self._writer.pid != os.getpid():
            await self._start_again()
        if self._writer is None:
            msg = "The recorder is not open."
            raise RecorderError(msg)
        return self._writer

    async def _start_again(self) -> None:
        try:
            await self.start()
        except OSError as error:
            _log.exception("the record could not be opened in this process")
            msg = "The transaction cannot be recorded now."
            raise RecorderError(msg) from error


@dataclass(slots=True, eq=False)
class _Entry:
    record: Begin | End
    written: asyncio.Future[None] | None
    """What the record's coroutine waits for, if it waits."""
    line: bytes = b""

    async def settled(self) -> None:
        """Wait until the record is in the file, when there is a reason to. Raises `RecorderError`."""
        if self.written is not None:
            await self.written


class _Writer:
    """The queue and the one thread that empties it. Entries come from event loops, the file is touched by the thread alone.

    The thread is a pool of one, so that the interpreter waits for what is queued when it exits without `aclose()`.
    """

    def __init__(self, file: LineFile, *, lines: Lines, size: int) -> None:
        self.file: Final = file
        self.pid: Final = os.getpid()
        self._lines, self._size = lines, size
        self._lock: Final = threading.Lock()
        self._pool: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="luthien-jsonl")
        self._entries: deque[_Entry] = deque()
        self._taken = 0
        self._scheduled = self._failing = self._closed = False

    # --- on an event loop ----------------------------------------------------------------------------------------------

    def put(self, record: Begin | End, *, wait: bool) -> _Entry:
        """Queue a record, and return what to wait for: its write, with `wait` or when the queue is full.

        Raises `RecorderError` when it is closed, and without `wait` when it is full because nothing can be written.
        """
        with self._lock:
            if self._closed:
                raise RecorderError("The recorder is closed.")
            full = len(self._entries) + self._taken >= self._size
            self._schedule()
            if full and self._failing and not wait:
                raise RecorderError("The transaction cannot be recorded now, nor kept until it can.")
            entry = _Entry(record, asyncio.get_running_loop().create_future() if wait or full else None)
            self._entries.append(entry)
            return entry

    def withdraw(self, entry: _Entry) -> None:
        """Take back an entry that the thread has not taken yet."""
        with self._lock:
            if entry in self._entries:
                self._entries.remove(entry)

    def raise_if_failing(self) -> None:
        """Raise `RecorderError` when the last write failed."""
        if self._failing:
            raise _unwritable()

    async def aclose(self) -> None:
        """Let the thread write what is queued and close the file, also when the caller is cancelled meanwhile."""
        with self._lock:
            self._closed = True
        finished = self._pool.submit(self._finish)
        self._pool.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(finished))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._pool.submit(self._drain)

    # --- in the thread -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        while batch := self._take():
            if not self._deliver(batch):
                return

    def _take(self) -> list[_Entry]:
        with self._lock:
            batch = [self._entries.popleft() for _ in range(min(_BATCH, len(self._entries)))]
            self._taken, self._scheduled = len(batch), bool(batch)
            return batch

    def _deliver(self, batch: list[_Entry]) -> bool:
        ready = [entry for entry in batch if self._encode(entry)]
        written, error = self.file.write([entry.line for entry in ready])
        if error is None:
            # Before anybody is told: whoever is told may ask for room at once.
            self._recovered(written)
        for entry in ready[:written]:
            _settle(entry, None)
        if error is None:
            return True
        self._failed(ready[written:], error)
        return False

    def _encode(self, entry: _Entry) -> bool:
        if entry.line:
            return True
        try:
            entry.line = self._lines.of(entry.record)
        except Exception as error:
            _log.error("the begin of %s is not JSON: %s", entry.record.id, type(error).__name__)
            _settle(entry, _unwritable())
            return False
        return True

    def _recovered(self, written: int) -> None:
        with self._lock:
            self._taken = 0
            again = bool(written) and self._failing
            self._failing = self._failing and not again
        if again:
            _log.warning("the record %s can be written again", self.file.path)

    def _failed(self, entries: list[_Entry], error: OSError) -> None:
        if not self._failing:
            _log.error("the record %s cannot be written: %s", self.file.path, error)
        with self._lock:
            self._failing, self._taken, self._scheduled = True, 0, False
            entries = [*entries, *self._entries]
            self._entries = deque(entry for entry in entries if isinstance(entry.record, End))
        for entry in entries:
            _settle(entry, _unwritable())

    def _finish(self) -> None:
        self._drain()
        self.file.close()
        if lost := len(self._entries):
            _log.error("%d records of %s could not be written and are lost", lost, self.file.path)


def _settle(entry: _Entry, error: RecorderError | None) -> None:
    """Tell the waiting coroutine, from the thread; its event loop may be gone by now."""
    if entry.written is None:
        return
    with contextlib.suppress(RuntimeError):
        entry.written.get_loop().call_soon_threadsafe(_tell, entry.written, error)


def _tell(future: asyncio.Future[None], error: RecorderError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _unwritable() -> RecorderError:
    return RecorderError("The transaction cannot be recorded now.")
