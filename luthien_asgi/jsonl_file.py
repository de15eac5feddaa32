"""The file under a JSONL record: opened safely, one process a file, whole lines or none."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the module or nothing: asked before each use

__all__ = ["LineFile", "open_for_this_process"]

_FLAGS: Final = (
    os.O_RDWR | os.O_CREAT | os.O_APPEND
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip
"""`O_NONBLOCK` so that a FIFO is refused and not waited for; it means nothing for a regular file."""
_OTHER_PATHS: Final = 100
"""Recorders of one process on one path."""


def open_for_this_process(path: Path) -> LineFile:
    """Open the path, or when another has it locked, `<stem>-<pid><suffix>`, `<stem>-<pid>-2<suffix>`, … beside it.

    Raises `OSError` for a missing folder, a symbolic link, what is no regular file, or when all of these names are locked.
    """
    for candidate in _candidates(path):
        descriptor = _opened(candidate)
        lock = _lock(descriptor)
        if lock == "held" or (lock == "none" and candidate != path):
            return LineFile(candidate, descriptor)
        os.close(descriptor)
    msg = f"{path} and the names beside it are locked by other recorders"
    raise OSError(msg)


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    own = f"{path.stem}-{os.getpid()}"
    yield path.with_name(own + path.suffix)
    for number in range(2, _OTHER_PATHS):
        yield path.with_name(f"{own}-{number}{path.suffix}")


def _opened(path: Path) -> int:
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        _make_private(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_private(descriptor: int, path: Path) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        msg = f"{path} is not a regular file"
        raise OSError(msg)
    if mode & 0o077 and os.name == "posix":
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
    """A file of lines that one thread appends to. Owns its descriptor."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path: Final = path
        self._descriptor = descriptor
        self._torn = _ends_torn(descriptor)

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Append lines, each with its newline; return how many are whole in the file, and the error that stopped the rest.

        What was written of the next line stays, torn; the next write begins on a line of its own.
        """
        if not lines:
            return 0, None
        lead = b"\n" if self._torn else b""
        written, error = self._append(lead + b"".join(lines))
        ends = list(accumulate((len(line) for line in lines), initial=len(lead)))
        if written:
            self._torn = written not in ends
        return sum(end <= written for end in ends[1:]), error

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
