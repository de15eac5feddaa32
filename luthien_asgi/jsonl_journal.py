"""What one recorder writes: a file, and after each rotation another one under the same name.

Strategy: the path never leads nowhere. The next file is made ready under a name of its own, locked, with a checkpoint as its
first line; the old one gets its second name, the rotated one, by a hard link; then the new one takes the path in one step. Killed
in between, the old file has two names, which readers tell by its inode, and the next rotation goes on from there.

With `durable` a group of lines is written, and synced, as a whole or not at all: what a sync did not bring to the disk is cut off
again, so that the file never says what nobody was told.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from luthien_asgi.jsonl_file import LineFile, claim, open_for_this_process, sync_folder
from luthien_asgi.jsonl_lines import Lines, checkpoint
from luthien_asgi.jsonl_names import fresh, next_rotated, rotated
from luthien_asgi.jsonl_settling import Found, look_through, settle
from luthien_asgi.logs import logger_of
from luthien_asgi.recorder import Begin, End

__all__ = ["Journal", "Rotation", "Written"]

_log: Final = logger_of(__name__)
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
"""Bytes between two checkpoints: what a worker reads again after it was killed."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is rotated, and how many of those that it was before are kept; None for never, and for all."""

    max_bytes: int | None = None
    keep: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the records of one write."""

    safe: int
    """So many are in the file, and on the disk with `durable`."""
    whole: int
    """So many are in the file."""
    error: OSError | None


class Journal:
    """Appends records. Used by one thread; whoever makes it owns the file."""

    def __init__(self, open_file: Callable[[], LineFile], lines: Lines, *, durable: bool, rotation: Rotation) -> None:
        """Open the file, and settle what a worker that is gone has left open in it. Raises `OSError` when it cannot be opened."""
        self._open_file = open_file
        self._durable = durable
        self._rotation = rotation
        self._rotation_failed = False
        self._limit = rotation.max_bytes
        self._empty = 0
        """The size of a file without records: that of its first checkpoint."""
        self._is_new = True
        """Whether the file's name may not be on the disk yet."""
        self._file = open_file()
        try:
            self._open = self._settled(lines)
            if durable:
                self._sync()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def at(cls, path: Path, lines: Lines, *, durable: bool, rotation: Rotation) -> Journal:
        """Open a record's file of this process. Raises `OSError`."""
        return cls(lambda: open_for_this_process(path), lines, durable=durable, rotation=rotation)

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self._file.path

    @property
    def is_locked(self) -> bool:
        """Whether the file's lock says that it is written; False where the file system has no locks."""
        return self._file.is_locked

    def write(self, records: Sequence[Begin | End], lines: Sequence[bytes]) -> Written:
        """Append records, each with its line."""
        safe = 0
        for count in self._groups(lines):
            part = self._group(records[safe : safe + count], lines[safe : safe + count])
            if part.error is not None:
                return Written(safe + part.safe, safe + part.whole, part.error)
            safe += count
        return Written(safe, safe, None)

    def probe(self) -> OSError | None:
        """Find out whether something can be written again: a checkpoint. Return why not."""
        self._unmarked = CHECKPOINT_BYTES
        return self._group((), ()).error

    def close(self) -> None:
        """Close the file and give up its lock. Twice is once."""
        self._file.close()

    # --- writing -------------------------------------------------------------------------------------------------------

    def _groups(self, lines: Sequence[bytes]) -> Iterator[int]:
        """Yield how many of the lines go into one write, and rotate between two where the file would become too long."""
        if self._limit is None:
            yield len(lines)
            return
        start = 0
        while start < len(lines):
            stop, size = start, self._file.size
            while stop < len(lines) and size + len(lines[stop]) <= self._limit:
                size += len(lines[stop])
                stop += 1
            if stop == start:
                self._make_room()
                stop += 1  # also where it is longer than a whole file may be: it has one for itself
            yield stop - start
            start = stop

    def _make_room(self) -> None:
        if self._file.size > self._empty and not self._rotate():
            self._limit = self._file.size + (self._rotation.max_bytes or 0)  # tried again when it has grown by as much

    def _group(self, records: Sequence[Begin | End], lines: Sequence[bytes]) -> Written:
        try:
            if self._file.is_removed():
                self._open_again()
        except OSError as removed:
            return Written(0, 0, removed)
        marked = self._unmarked >= CHECKPOINT_BYTES
        if marked:
            lines = [checkpoint(self._open, at=time.time()), *lines]
        before = self._file.size
        whole, error = self._file.write(lines)
        if self._durable:
            error = error or self._synced()
            if error is not None and self._file.cut(before):
                whole = 0
        whole = max(0, whole - marked)
        self._account(records[:whole], self._file.size - before, marked=marked and error is None)
        return Written(0 if self._durable and error is not None else whole, whole, error)

    def _account(self, records: Sequence[Begin | End], size: int, *, marked: bool) -> None:
        for record in records:
            if isinstance(record, Begin):
                self._open[record.id] = None
            else:
                self._open.pop(record.id, None)
        self._unmarked = size if marked else self._unmarked + size

    def _sync(self) -> None:
        self._file.sync()
        if self._is_new:
            sync_folder(self._file.path)
            self._is_new = False

    def _synced(self) -> OSError | None:
        try:
            self._sync()
        except OSError as error:
            return error
        return None

    # --- opening -------------------------------------------------------------------------------------------------------

    def _settled(self, lines: Lines) -> dict[str, None]:
        """Give an end to what is open in a file that was there, and return what that could not be written for."""
        self._unmarked = 0
        if not self._file.is_locked or not self._file.size:
            return {}
        found = Found({}, 0, is_record=False)
        try:
            found = look_through(self._file)
            count, self._unmarked = len(found.open), found.read
            settle(self._file, found, lines)
            if count:
                _log.warning("%d transactions of %s were interrupted", count, self._file.path)
        except OSError as error:
            _log.warning("the interrupted transactions of %s could not be given an end: %s", self._file.path, error)
        return found.open

    def _open_again(self) -> None:
        """Open another file in place of one that somebody removed. It begins with what is open. Raises `OSError`."""
        path = self._file.path
        file = self._open_file()
        self._file.close()
        self._file, self._limit, self._is_new = file, self._rotation.max_bytes, True
        self._empty, self._unmarked = 0, CHECKPOINT_BYTES
        _log.error("the record %s was removed while it was written; %s goes on", path, file.path)

    def _rotate(self) -> bool:
        """Go on in a new file; tell whether that could be done. If not, the old one goes on."""
        try:
            self._replace()
        except OSError as error:
            if not self._rotation_failed:
                _log.error("the record %s cannot be rotated, and grows on: %s", self._file.path, error)
            self._rotation_failed = True
            return False
        self._rotation_failed = False
        self._limit, self._unmarked = self._rotation.max_bytes, 0
        self._prune()
        return True

    def _replace(self) -> None:
        old, path = self._file, self._file.path
        if not old.is_there():
            msg = f"{path} is another file now"
            raise OSError(msg)
        file = _made(fresh(path), checkpoint(self._open, at=time.time()))
        try:
            if self._durable:
                file.sync()
            _keep_name(path)
            file.path.replace(path)
        except BaseException:
            file.close()
            with contextlib.suppress(OSError):
                fresh(path).unlink()
            raise
        file.path, self._file, self._is_new = path, file, True
        self._empty = file.size
        old.close()

    def _prune(self) -> None:
        """Remove the oldest rotated files, beyond those that are kept; never one that somebody has locked."""
        if self._rotation.keep is None:
            return
        there = rotated(self._file.path)
        for name in there[: max(0, len(there) - self._rotation.keep)]:
            try:
                file = claim(name)
                if file is not None:
                    name.unlink()
                    file.close()
            except OSError as error:
                _log.warning("the rotated record %s could not be removed: %s", name, error)


def _made(name: Path, first: bytes) -> LineFile:
    """Make a file with one line. What a rotation that was killed left there holds nothing else. Raises `OSError`."""
    name.unlink(missing_ok=True)
    file = claim(name, flags=os.O_CREAT | os.O_EXCL, private=True)
    if file is None:
        msg = f"{name} is locked"
        raise OSError(msg)
    _, error = file.write([first])
    if error is not None:
        file.close()
        name.unlink()
        raise error
    return file


def _keep_name(path: Path) -> None:
    """Give a file its rotated name beside its own, unless a rotation that was killed did. Raises `OSError`."""
    there = rotated(path)
    if not there or not there[-1].samefile(path):
        os.link(path, next_rotated(path), follow_symlinks=False)
