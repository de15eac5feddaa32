"""The last good configuration, for workers that start while the file is bad.

Strategy: a file without a name, made by the process that forks the workers and inherited by each of them, also by those that
take a dead one's place. Whoever has taken a configuration writes there what its files said, keys among it; so it is memory where
the system has files of memory, and one that was unlinked elsewhere. There are two slots, and the older one is written: a writer
that is killed leaves the other one whole, and a checksum tells which is. A slot has the time at which its files were read: what
was read earlier does not replace what was read later.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from luthien_asgi.logs import logger_of

__all__ = ["Kept", "LastGood"]

_log: Final = logger_of(__name__)
_HEAD: Final = struct.Struct(">QQ32s")
"""When it was read, the length of what follows, the SHA-256 of both and of what follows."""
SLOT: Final = 64 * 1024 * 1024
"""Bytes of a slot with its head. Only those that are written take memory."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the files of a configuration said."""

    file: str
    """The configuration's, by the name that the server was given."""
    texts: Mapping[str, str]
    """What each file said, by its path: the configuration's and those of keys."""
    read_at: int
    """In nanoseconds of `time.monotonic_ns`, which counts alike in all processes of a machine."""

    def __repr__(self) -> str:
        return f"Kept({self.file!r})"  # keys may be in the texts


class LastGood:
    """A place for one configuration that all processes share which are forked after it was made."""

    def __init__(self) -> None:
        self._descriptor: Final = _without_a_name()
        self._made: Final = _identity(self._descriptor)

    def keep(self, kept: Kept) -> None:
        """Put a configuration in the place of one that was read earlier. Where that is not possible the log says so."""
        try:
            with self._alone():
                self._write(kept)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            _log.warning("a worker that starts while the file is bad will not find this configuration: %s", reason)

    def read(self, file: str) -> Kept | None:
        """Return the configuration that was read last from a file of this name; None where there is none."""
        try:
            with self._alone():
                slots = self._slots()
        except (OSError, ValueError) as error:
            _log.warning("the last good configuration cannot be read: %s", getattr(error, "strerror", None) or error)
            return None
        newest = max(slots, key=lambda slot: slot[0])
        if not newest[1]:
            return None
        read_at, content = newest
        found = json.loads(content)
        return Kept(found["file"], found["texts"], read_at) if found["file"] == file else None

    def close(self) -> None:
        """Give up this process's end."""
        os.close(self._descriptor)

    def _write(self, kept: Kept) -> None:
        first, second = (read_at for read_at, _ in self._slots())
        if kept.read_at < max(first, second):
            return
        content = json.dumps({"file": kept.file, "texts": dict(kept.texts)}).encode()  # ASCII: a path may be no UTF-8
        if len(content) > SLOT - _HEAD.size:
            msg = f"it is longer than {SLOT} bytes"
            raise ValueError(msg)
        head = _HEAD.pack(kept.read_at, len(content), _checksum(kept.read_at, content))
        _put(self._descriptor, head + content, 0 if first <= second else SLOT)

    def _slots(self) -> list[tuple[int, bytes]]:
        """Return when what is in each slot was read, and what it is; 0 and nothing for one that is not whole."""
        return [self._slot(0), self._slot(SLOT)]

    def _slot(self, offset: int) -> tuple[int, bytes]:
        head = os.pread(self._descriptor, _HEAD.size, offset)
        if len(head) < _HEAD.size:
            return 0, b""
        read_at, length, checksum = _HEAD.unpack(head)
        content = os.pread(self._descriptor, length, offset + _HEAD.size) if length <= SLOT - _HEAD.size else b""
        return (read_at, content) if _checksum(read_at, content) == checksum else (0, b"")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes out. The lock is the process's, and ends with it."""
        import fcntl

        if _identity(self._descriptor) != self._made:
            msg = "something has closed it"
            raise ValueError(msg)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


def _without_a_name() -> int:
    if sys.platform == "linux":
        descriptor = os.memfd_create("luthien-last-good")  # not inherited by other programs
        os.fchmod(descriptor, 0o600)
        return descriptor
    with tempfile.TemporaryFile() as file:  # of mode 0600, and unlinked
        return os.dup(file.fileno())


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _put(descriptor: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written


def _checksum(read_at: int, content: bytes) -> bytes:
    return sha256(struct.pack(">QQ", read_at, len(content)) + content).digest()
