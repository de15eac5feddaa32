"""The file under a JSONL record: opened safely, one process a file, whole lines or none.

Strategy: whoever writes a file has it locked (`flock`), and the lock is the kernel's: it is gone with the process, however that
ended. A lock is of the file and not of its name, so after locking it is looked at whether the name still leads to that file: it
may have been rotated away, or removed, between the two.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from itertools import accumulate, count
from pathlib import Path
from typing import BinaryIO, Final, Literal

from luthien_asgi.jsonl_names import other_names, own_names

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the module or nothing: asked before each use

__all__ = ["LineFile", "claim", "open_for_this_process", "sync_folder"]

_FLAGS: Final = (
    os.O_RDWR | os.O_APPEND
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip
"""`O_NONBLOCK` so that a FIFO is refused and not waited for; it means nothing for a regular file."""
_FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)
"""What macOS has for a sync that reaches the disk and not only its cache."""
_fdatasync: Final = getattr(os, "fdatasync", os.fsync)
_RETRIES: Final = 100
"""How often a name may lead to another file than the one that was just locked."""


def open_for_this_process(path: Path) -> LineFile:
    """Open the path; or when another has it locked, a file beside it that a worker left, or one of this process's own.

    Where the file system has no locks it is always a file that was not there before: nobody else writes it, whatever number
    another process in another container has. Raises `OSError` for a missing folder, a symbolic link, what is no regular file, or
    when all of these names are locked.
    """
    file = claim(path, flags=os.O_CREAT, private=True)
    if file is not None and not file.is_locked:
        file.close()
        return _new(path)
    if file is None:
        file = _beside(path)
    return file


def _beside(path: Path) -> LineFile:
    """Open the first of the names beside the path that can be. What somebody put there keeps no worker from its work."""
    seen: OSError | None = None
    for candidate in (*other_names(path), *own_names(path)):
        try:
            file = claim(candidate, flags=os.O_CREAT, private=True)
        except OSError as error:
            seen = error
            continue
        if file is not None:
            return file
    msg = f"{path} and the names beside it are taken, or cannot be opened"
    raise OSError(msg) from seen


def _new(path: Path) -> LineFile:
    """Make a file that nobody has: its name holds the time."""
    for number in count(int(time.time())):
        name = path.with_name(f"{path.stem}-{os.getpid()}-{number}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            return LineFile(name, _opened(name, os.O_CREAT | os.O_EXCL, private=True), is_locked=False)
    raise AssertionError  # pragma: no cover - numbers do not end


def claim(path: Path, *, flags: int = 0, private: bool = False) -> LineFile | None:
    """Open a file and lock it; None when somebody else has it locked. `private` makes its mode 0600.

    Raises `OSError` when it cannot be opened.
    """
    for _ in range(_RETRIES):
        descriptor = _opened(path, flags, private=private)
        lock = _lock(descriptor)
        if lock == "busy":
            os.close(descriptor)
            return None
        file = LineFile(path, descriptor, is_locked=lock == "held")
        if lock == "none" or file.is_there():
            return file
        file.close()
    return None


def sync_folder(path: Path) -> None:
    """Bring the folder of a file to the disk: the file's name with it. Raises `OSError`."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int, *, private: bool) -> int:
    descriptor = os.open(path, _FLAGS | flags, 0o600)
    try:
        _check(descriptor, path, private=private)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(descriptor: int, path: Path, *, private: bool) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        msg = f"{path} is not a regular file"
        raise OSError(msg)
    if private and mode & 0o077 and os.name == "posix":
        os.fchmod(descriptor, 0o600)


def _lock(descriptor: int) -> Literal["held", "busy", "none"]:
    if fcntl is None:
        return "none"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "busy"
    except OSError:
        return "none"  # a file system without locks
    return "held"


class LineFile:
    """A file of lines that one thread appends to. Owns its descriptor, and the lock on it."""

    def __init__(self, path: Path, descriptor: int, *, is_locked: bool) -> None:
        self.path = path
        self.is_locked: Final = is_locked
        """False where the file system has no locks."""
        self._descriptor = descriptor
        self._torn = _ends_torn(descriptor)
        self.size = os.fstat(descriptor).st_size
        """Bytes in the file: what was there, and what was written."""

    def is_there(self) -> bool:
        """Tell whether the file's name still leads to this file."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat(follow_symlinks=False))
        return False

    def is_removed(self) -> bool:
        """Tell whether the file has no name any more: what is written to it is gone when it is closed."""
        return os.fstat(self._descriptor).st_nlink == 0

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Append lines, each with its newline; return how many are whole in the file, and the error that stopped the rest.

        What was written of the next line stays, torn; the next write begins on a line of its own.
        """
        if not lines:
            return 0, None
        lead = b"\n" if self._torn else b""
        written, error = self._append(lead + b"".join(lines))
        self.size += written
        if error is None:
            self._torn = False
            return len(lines), None
        ends = list(accumulate((len(line) for line in lines), initial=len(lead)))
        if written:
            self._torn = written not in ends
        # A line that lacks nothing but its newline gets it with the next write, and is not written again.
        return sum(end - 1 <= written for end in ends[1:]), error

    def sync(self) -> None:
        """Bring what was written to the disk. Raises `OSError`."""
        if _FULL_SYNC is not None and fcntl is not None:
            fcntl.fcntl(self._descriptor, _FULL_SYNC)
        else:
            _fdatasync(self._descriptor)

    def cut(self, size: int) -> bool:
        """Take back what was written beyond a size; tell whether that could be done."""
        try:
            if os.fstat(self._descriptor).st_size > size:
                os.ftruncate(self._descriptor, size)
            self._torn = _ends_torn(self._descriptor)
        except OSError:
            return False
        self.size = size
        return True

    def reading(self) -> BinaryIO:
        """Open the same file for reading, whatever its name leads to by now."""
        return os.fdopen(os.dup(self._descriptor), "rb")

    def close(self) -> None:
        """Close the file and give up its lock. Twice is once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _append(self, data: bytes) -> tuple[int, OSError | None]:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                return len(data) - len(rest), error
        return len(data), None


def _ends_torn(descriptor: int) -> bool:
    """Tell whether the file's last line has no end: the process that wrote it died."""
    if not (size := os.lseek(descriptor, 0, os.SEEK_END)):
        return False
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) != b"\n"
