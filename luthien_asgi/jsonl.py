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

The files: made with mode 0600 and made so if they were more open, opened for appending, never through a symbolic link. The folder
must be there: a record in a folder that a typing error made would be found by nobody.

One process writes one file. The first takes the given path and locks it (`flock`); another (a second worker, a second recorder)
that finds it locked goes on with a file beside it, `<stem>-<pid><suffix>`, that a worker left, or makes one of its own. A lock is
the kernel's and gone with its process, so a number that comes again, or that is the same in two containers, means nothing.

A process that is killed leaves begins without ends. The next recorder that starts on the path looks through the record's files
that nobody has locked, and gives each of these transactions its end, `"ending": "interrupted"`, with status 0 and nothing else
known. So each begin has exactly one end in the end; a file that is locked is never touched. Only what follows the last
`{"type": "checkpoint", "open": [ids]}` is read for that: such a line stands in a file every four megabytes, and is no
transaction's. A line that was cut by a crash stays, and the next begins on a line of its own.

Where the file system has no locks every start makes a new file, and nothing is given an end by others. The same where the folder
is shared by machines and locks are not (NFS mounted with `nolock` or `local_lock`): give each machine a folder of its own.

`durability`:

    relaxed   a begin is written (handed to the operating system: `write` returned) before the provider is called; an end soon
              after the answer. What the machine had not brought to the disk when it failed is lost, nothing when a process is.
    strict    a begin is on the disk before the provider is called, and an end before the answer's last frame leaves (before the
              body, if it is not a stream). One sync serves all that wait for it. Where the end cannot be brought to the disk, the
              client gets an error in place of its last frame, and the record says that, as soon as it can be written.

While nothing can be written `healthy` is false, begins are refused (503) and ends wait in memory; a write is tried with each
begin, and once a second. What a strict end says is what the client was about to get: it may have left meanwhile.

`max_bytes` rotates: a file that would become longer becomes `<stem>.000001<suffix>`, 000002 and so on, the highest the youngest,
and `keep` of them are kept for each file; without `keep`, all. A transaction may begin in one file and end in the next. Where
that cannot be done (no hard links, no room) the file grows on, and the log says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, get_args

from luthien_asgi.errors import ApiError
from luthien_asgi.jsonl_journal import Journal, Rotation
from luthien_asgi.jsonl_lines import Content, Lines, Mask
from luthien_asgi.jsonl_reading import read_transactions
from luthien_asgi.jsonl_search import SearchError, search
from luthien_asgi.jsonl_settling import settle_others
from luthien_asgi.jsonl_writer import RecorderError, Writer
from luthien_asgi.logs import logger_of
from luthien_asgi.recorder import Begin, End

__all__ = ["Durability", "JsonlRecorder", "RecorderError", "read_transactions"]

_log: Final = logger_of(__name__)

Durability = Literal["relaxed", "strict"]


class JsonlRecorder:
    """Records transactions in files of JSON lines; see the module's docstring for their shape and their rules.

    `queue_size` bounds the records in memory that are not written yet; when it is reached, `end` waits for its write as `begin`
    always does. `mask` changes each text before it is written, in threads of its own: all that a client, a model or a hook said,
    names of fields too, the strings of JSON within a text, and what escapes hide; with `hash`, before it is hashed. Raises
    `ValueError` for a wrong option. Nothing is opened before `start()`.
    """

    wants_blocks = True

    def __init__(
        self,
        path: Path | str,
        *,
        content: Content = "full",
        mask: Mask | None = None,
        queue_size: int = 1000,
        durability: Durability = "relaxed",
        max_bytes: int | None = None,
        keep: int | None = None,
    ) -> None:
        _check_options(queue_size=queue_size, durability=durability, max_bytes=max_bytes, keep=keep)
        self._asked: Final = Path(path)
        self._lines: Final = Lines(content=content, mask=mask)
        self._queue_size: Final = queue_size
        self._rotation: Final = Rotation(max_bytes, keep)
        self.durable: Final = durability == "strict"
        """Whether a begin and an end are on the disk when `begin` and `end` return."""
        self._writer: Writer | None = None
        self._searches: ThreadPoolExecutor | None = None

    @property
    def path(self) -> Path | None:
        """The file that this process writes; None while it is not open."""
        return self._writer.path if self._writer is not None else None

    @property
    def healthy(self) -> bool:
        """Whether the last write was one (or none was tried), and none takes too long."""
        return self._writer is None or self._writer.healthy

    def why_not(self) -> str:
        """Return why the file could not be opened now, or an empty text. Nothing is opened or made: a check before serving."""
        folder = self._asked.parent
        if not folder.is_dir():
            return f"path: the folder {str(folder)!r} is not there"
        if self._asked.is_symlink() or (self._asked.exists() and not self._asked.is_file()):
            return f"path: {str(self._asked)!r} is a link or no regular file"
        return "" if os.access(folder, os.W_OK) else f"path: the folder {str(folder)!r} cannot be written to"

    async def start(self) -> None:
        """Open the file, once a process, and give an end to what processes that are gone have left without one.

        After a fork the child opens its own. Raises `OSError` when it cannot be opened.
        """
        writer = self._writer
        if writer is None or writer.pid != os.getpid():
            self._writer = Writer(self._open, lines=self._lines, size=self._queue_size, durable=self.durable)
            if writer is not None:
                writer.let_go()  # the parent's: this process has its own descriptor of it
            writer = self._writer
        try:
            await writer.opened()
        except OSError:
            if self._writer is writer:
                self._writer = None
            raise

    def _open(self) -> Journal:
        journal = Journal.at(self._asked, self._lines, durable=self.durable, rotation=self._rotation)
        if journal.is_locked:
            settle_others(self._asked, self._lines, durable=self.durable)
        else:
            _log.warning("no file can be locked beside %s: interrupted transactions get no end", self._asked)
        return journal

    async def begin(self, begin: Begin) -> None:
        """Write a transaction's begin; it is in the file when this returns. Raises `RecorderError` (503) when it could not be.

        When it is cancelled, the begin is taken back, or gets an end of its own if it was already on its way.
        """
        writer = await self._of_this_process()
        entry = writer.begin(begin)
        try:
            await entry.settled()
        except asyncio.CancelledError:
            writer.withdraw(entry)
            raise

    async def end(self, end: End) -> None:
        """Hand a transaction's end to the writer; waits while there is no room. When cancelled, the record is kept all the same.

        Raises `RecorderError` while the file cannot be written: the record stays in memory and is tried again until it can be.
        It is lost when the recorder is closed before; the log says so.

        With `strict` it is on the disk when this returns. When this raises or is cancelled it is to be called again, with what
        the client was told instead: that is kept until it can be written, unless the first is in the file after all.
        """
        writer = await self._of_this_process()
        entry = writer.end(end)
        try:
            await entry.settled()
        except asyncio.CancelledError:
            writer.keep(entry)
            raise
        if self.durable and entry.state == "written":
            writer.forget(entry)
        else:
            writer.raise_if_failing()

    async def find(self, transaction_id: str) -> Mapping[str, Any] | None:
        """Return a transaction as `{"id", "begin", "end"}`, of this worker or another; None where there is none.

        Searches run one after the other in a thread of their own, and look through a gigabyte at most, the youngest first. Raises
        `ApiError` where it is not among that, or cannot be read.
        """
        if self._searches is None:
            self._searches = ThreadPoolExecutor(max_workers=1, thread_name_prefix="luthien-jsonl-search")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._searches, search, self._asked, transaction_id)
        except SearchError as error:
            raise ApiError(str(error), status=404) from None
        except OSError as error:
            _log.error("the record %s could not be searched: %s", self._asked, error)
            msg = "The record cannot be read."
            raise ApiError(msg, status=503) from None

    async def aclose(self) -> None:
        """Write what is in memory and close the file. The log says how much could not be written. Twice is once."""
        searches, self._searches = self._searches, None
        if searches is not None:
            searches.shutdown(wait=False, cancel_futures=True)
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if writer.pid == os.getpid():
            await writer.aclose()
        else:
            writer.let_go()

    async def _of_this_process(self) -> Writer:
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


def _check_options(*, queue_size: int, durability: str, max_bytes: int | None, keep: int | None) -> None:
    for name, value, least in (("queue_size", queue_size, 1), ("max_bytes", max_bytes, 1), ("keep", keep, 0)):
        if value is not None and value < least:
            msg = f"{name} must be {'positive' if least else 'zero or more'}, not {value!r}"
            raise ValueError(msg)
    if durability not in get_args(Durability):
        msg = f"durability must be relaxed or strict, not {durability!r}"
        raise ValueError(msg)
    if keep is not None and max_bytes is None:
        msg = "keep says how many rotated files are kept: it needs max_bytes"
        raise ValueError(msg)
