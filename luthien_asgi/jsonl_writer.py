"""The queue of a JSONL record, and the one thread that empties it.

Strategy: entries come from event loops; the files are touched by the thread alone, which writes what waits as one batch. So a
sync, where one is asked for, is shared by all that wait for it. While nothing can be written, begins are refused at once, ends
are kept, and a timer has the thread try again: a server that gets no requests because it is not ready finds out too.

Where a mask changes what is written, a record becomes its line in other threads, before it is queued: begins in some and ends in
others, so that no begin waits for an answer that is slow to mask. A transaction's end is asked for after its begin is written.

An end that is asked for twice is written once. The second is what the client was told in place of the first, which could not be
written in time: it counts unless the first one is in the file after all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthien_asgi.errors import ApiError
from luthien_asgi.jsonl_journal import Journal, Written
from luthien_asgi.jsonl_lines import Lines
from luthien_asgi.logs import logger_of
from luthien_asgi.recorder import Begin, End, Transaction

__all__ = ["Entry", "RecorderError", "Writer"]

_log: Final = logger_of(__name__)
_BATCH: Final = 64
"""Records that one write takes along at most: what it joins in memory."""
RETRY_INTERVAL: Final = 1.0
"""Seconds between two attempts to write while nothing can be written."""
_REMEMBERED: Final = 10_000
"""Ends whose second asking is still expected: those of all transactions under way, and more."""
_MASKS: Final = 4
"""Threads that mask begins, and as many that mask ends."""
SLOW_WRITE: Final = 5.0
"""Seconds of one write after which the recorder is not healthy: the disk hangs."""


class RecorderError(ApiError):
    """The record could not be written. From `begin` it is the client's 503; the cause is in the log and not for the client."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__(message, type="api_error")


@dataclass(slots=True, eq=False)
class Entry:
    """A record on its way into the file."""

    record: Begin | End
    written: asyncio.Future[None] | None
    """What the record's coroutine waits for, if it waits."""
    keeps: bool
    """Whether it waits in memory while it cannot be written."""
    line: bytes = b""
    state: str = "queued"
    """`queued`, `taken` by the thread, `written`, or `refused`."""
    next: End | None = None
    """What follows: the end of a begin that nobody waits for any more, if it is written; another end, if this one is refused."""

    async def settled(self) -> None:
        """Wait until the record is in the file, when there is a reason to. Raises `RecorderError`."""
        if self.written is not None:
            await self.written


class Writer:
    """Writes the records of one process.

    The thread is a pool of one, so that the interpreter waits for what is queued when it exits without `aclose()`.
    """

    def __init__(self, open_journal: Callable[[], Journal], *, lines: Lines, size: int, durable: bool) -> None:
        """Begin to open the file, in the thread; `opened` waits for it. An event loop must run."""
        self.pid: Final = os.getpid()
        self._lines, self._size, self._durable = lines, size, durable
        self._loop: Final = asyncio.get_running_loop()
        self._lock: Final = threading.Lock()
        self._pool: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="luthien-jsonl")
        self._opening: Final[Future[Journal]] = self._pool.submit(open_journal)
        self._masks: Final = (_pool("begin"), _pool("end")) if lines.masks else ()
        self._masked: set[Entry] = set()
        """Entries that become their lines in other threads and are not queued yet."""
        self._entries: deque[Entry] = deque()
        self._ends: dict[str, Entry] = {}
        """With `durable`: ends that were asked for and that may be asked for once more."""
        self._taken = 0
        self._busy_since = 0.0
        self._scheduled = self._failing = self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    # --- on an event loop ----------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait until the file is open. Raises `OSError` when it cannot be opened."""
        await asyncio.shield(asyncio.wrap_future(self._opening))

    @property
    def path(self) -> Path | None:
        """The file that is written; None until it is open."""
        opened = self._opening.done() and self._opening.exception() is None
        return self._opening.result().path if opened else None

    @property
    def healthy(self) -> bool:
        """Whether the last write was one, and none takes too long."""
        since = self._busy_since
        return not self._failing and (not since or time.monotonic() - since < SLOW_WRITE)

    def begin(self, begin: Begin) -> Entry:
        """Queue a begin, and return what to wait for: its write. Raises `RecorderError` when the writer is closed."""
        with self._lock:
            return self._put(begin, waits=True, keeps=False)

    def end(self, end: End) -> Entry:
        """Queue an end, and return what to wait for: its write, with `durable` or when the queue is full.

        Raises `RecorderError` when the writer is closed.
        """
        with self._lock:
            if not self._durable:
                return self._put(end, waits=len(self._masked) + len(self._entries) + self._taken >= self._size, keeps=True)
            earlier = self._ends.pop(end.id, None)
            if earlier is None:
                entry = self._ends[end.id] = self._put(end, waits=True, keeps=False)
                while len(self._ends) > _REMEMBERED:
                    del self._ends[next(iter(self._ends))]
                return entry
            if earlier.state == "refused":
                return self._put(end, waits=True, keeps=True)
            return self._corrected(earlier, end)

    def forget(self, entry: Entry) -> None:
        """Note that whoever asked for an end knows that it is written, and will not ask again."""
        with self._lock:
            self._ends.pop(entry.record.id, None)

    def keep(self, entry: Entry) -> None:
        """Keep an end that nobody waits for any more until it can be written, or until it is asked for again."""
        with self._lock:
            entry.keeps = True

    def withdraw(self, entry: Entry) -> None:
        """Take back a begin that nobody waits for any more; one that is on its way gets its end behind it."""
        with self._lock:
            if entry.state == "queued":
                entry.state = "refused"
                if entry in self._masked:
                    self._masked.remove(entry)
                else:
                    self._entries.remove(entry)
            elif entry.state == "taken":
                entry.next = _broken_off(entry.record)
            elif entry.state == "written":
                self._put(_broken_off(entry.record), waits=False, keeps=True)

    def raise_if_failing(self) -> None:
        """Raise `RecorderError` when the last write failed."""
        if self._failing:
            raise _unwritable()

    async def aclose(self) -> None:
        """Let the thread write what is queued and close the file, also when the caller is cancelled meanwhile."""
        with self._lock:
            self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        finished = self._pool.submit(self._finish)
        for pool in (*self._masks, self._pool):
            pool.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(finished))

    def let_go(self) -> None:
        """Close this process's descriptor of a file that its parent writes."""
        if self._opening.done() and self._opening.exception() is None:
            self._opening.result().close()

    def _put(self, record: Begin | End, *, waits: bool, keeps: bool) -> Entry:
        if self._closed:
            raise RecorderError("The recorder is closed.")
        entry = Entry(record, asyncio.get_running_loop().create_future() if waits else None, keeps)
        if self._masks:
            self._masked.add(entry)
            self._masks[isinstance(record, End)].submit(self._mask, entry)
        else:
            self._entries.append(entry)
            self._schedule()
        return entry

    def _corrected(self, earlier: Entry, end: End) -> Entry:
        """Put an end in the place of an earlier one that is not written yet, or after it if it cannot be."""
        earlier.keeps = True
        if earlier.state == "queued":
            earlier.record, earlier.line = end, b""
        else:
            earlier.next = end
        return Entry(end, None, keeps=True)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._pool.submit(self._drain)

    def _arm(self) -> None:
        """Have the thread try again in a while."""
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(RETRY_INTERVAL, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        with self._lock:
            if self._failing and not self._closed:
                self._schedule()

    # --- in the threads that mask --------------------------------------------------------------------------------------

    def _mask(self, entry: Entry) -> None:
        """Make an entry's line and queue it then, unless it was taken back meanwhile."""
        record, line, must_drain = entry.record, self._line(entry.record), False
        with self._lock:
            if entry not in self._masked:
                return
            is_current = record is entry.record
            if is_current:
                self._masked.remove(entry)
                entry.state = "queued" if line is not None else "refused"
                must_drain = line is not None and self._put_masked(entry, line)
        if not is_current:
            self._mask(entry)  # another end was asked for in its place, as it may be once
        elif line is None:
            _refuse(entry)
        elif must_drain:
            self._drain()

    def _put_masked(self, entry: Entry, line: bytes) -> bool:
        """Queue an entry with its line; tell whether this thread has to write it, because the interpreter exits."""
        entry.line = line
        self._entries.append(entry)
        if self._closed:
            return False  # `_finish` waits for what is masked
        try:
            self._schedule()
        except RuntimeError:
            return True
        return False

    # --- in the thread -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        if self._opening.exception() is not None:
            return
        while batch := self._take():
            if not self._deliver(batch):
                return
        if self._failing and not self._closed:
            self._probe()

    def _take(self) -> list[Entry]:
        with self._lock:
            batch = [self._entries.popleft() for _ in range(min(_BATCH, len(self._entries)))]
            for entry in batch:
                entry.state = "taken"
            self._taken, self._scheduled = len(batch), bool(batch)
            self._busy_since = time.monotonic() if batch else 0.0
            return batch

    def _deliver(self, batch: list[Entry]) -> bool:
        ready = [entry for entry in batch if self._encode(entry)]
        written = self._opening.result().write([entry.record for entry in ready], [entry.line for entry in ready])
        was_failing = self._failing
        with self._lock:  # before anybody is told: whoever is told may ask for room at once
            told = self._sorted(ready, written)
            self._taken = 0
            if ready:
                self._failing = written.error is not None
            if written.error is not None:
                self._scheduled, self._busy_since = False, 0.0
        for entry, error in told:
            _settle(entry, error)
        if written.error is not None:
            self._fail(written.error, again=was_failing)
        elif was_failing and ready:
            self._recovered()
        return written.error is None

    def _sorted(self, ready: Sequence[Entry], written: Written) -> list[tuple[Entry, RecorderError | None]]:
        """Queue what follows from a write, and return who is to be told of it, and what."""
        told: list[tuple[Entry, RecorderError | None]] = []
        queue: deque[Entry] = deque()
        for place, entry in enumerate(ready):
            if place >= written.whole:
                told.append((entry, _put_back(entry, queue)))
                continue
            entry.state = "written"
            is_safe = place < written.safe
            told.append((entry, None if is_safe else _unwritable()))
            if isinstance(entry.record, Begin) and (end := entry.next if is_safe else _refused(entry.record)) is not None:
                queue.append(Entry(end, None, keeps=True))
        if written.error is None:
            self._entries.extend(queue)
        else:
            told += [(entry, _put_back(entry, queue)) for entry in self._entries]
            self._entries = queue
        return told

    def _probe(self) -> None:
        error = self._opening.result().probe()
        if error is not None:
            self._fail(error, again=True)
            return
        self._failing = False
        self._recovered()

    def _recovered(self) -> None:
        _log.warning("the record %s can be written again", self._opening.result().path)

    def _fail(self, error: OSError, *, again: bool) -> None:
        if not again:
            _log.error("the record %s cannot be written: %s", self._opening.result().path, error)
        with contextlib.suppress(RuntimeError):  # the event loop may be gone by now
            self._loop.call_soon_threadsafe(self._arm)

    def _encode(self, entry: Entry) -> bool:
        if not entry.line:
            line = self._line(entry.record)
            if line is None:
                _refuse(entry)
                return False
            entry.line = line
        return True

    def _line(self, record: Begin | End) -> bytes | None:
        try:
            return self._lines.of(record)
        except Exception as error:
            _log.error("the begin of %s is not JSON: %s", record.id, type(error).__name__)
            return None

    def _finish(self) -> None:
        for pool in self._masks:
            pool.shutdown()
        if self._opening.exception() is not None:
            return
        self._drain()
        journal = self._opening.result()
        journal.close()
        if lost := len(self._entries):
            _log.error("%d records of %s could not be written and are lost", lost, journal.path)


def _pool(records: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=_MASKS, thread_name_prefix=f"luthien-jsonl-mask-{records}")


def _refuse(entry: Entry) -> None:
    entry.state = "refused"
    _settle(entry, _unwritable())


def _put_back(entry: Entry, queue: deque[Entry]) -> RecorderError:
    """Queue again what has to wait of a record that is not in the file."""
    entry.state = "queued" if entry.keeps else "refused"
    if entry.keeps:
        if entry.next is not None:
            entry.record, entry.line, entry.next = entry.next, b"", None
        queue.append(entry)
    return _unwritable()


def _refused(begin: Begin) -> End:
    """Return the end of a transaction that was refused though its begin is in the file."""
    log = Transaction(begin, status=RecorderError.status)
    log.note("refused, because its begin could not be brought to the disk; nothing was sent to the provider")
    return log.end("failed")


def _broken_off(record: Begin | End) -> End:
    """Return the end of a transaction that was left while its begin was written."""
    assert isinstance(record, Begin)  # noqa: S101 - ends are not withdrawn
    log = Transaction(record)
    log.note("broken off before anything was sent to the provider")
    return log.end("interrupted")


def _settle(entry: Entry, error: RecorderError | None) -> None:
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
