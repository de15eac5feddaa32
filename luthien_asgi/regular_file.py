"""Reads files that an operator named: those that can be read to their end at once, and up to a length.

Strategy: opening a pipe waits for a writer, and opening a device may do something. So what is under the name is looked at before,
nothing is waited for, and what was opened is looked at again: the name may stand for another file by then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["UnusableError", "read_regular"]

_FLAGS: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnusableError(Exception):
    """A file that is not read; the message says why, to be written after its name."""


def read_regular(path: str | Path, most: int, *, refuses: Callable[[os.stat_result], str] = lambda _: "") -> bytes:
    """Return what is in a regular file, at most so many bytes and one more: more than that is not read.

    `refuses` says what is wrong with a file, "" for nothing, before it is read. Raises `UnusableError`.
    """
    try:
        _check(os.stat(path))  # noqa: PTH116 - `Path` would change the name
        descriptor = os.open(path, _FLAGS)
        try:
            found = os.fstat(descriptor)
            _check(found)
            if problem := refuses(found):
                raise UnusableError(problem)
            return _read(descriptor, most + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableError(f"cannot be read: {reason}") from None


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((f", but {name}" for is_one, name in _KINDS if is_one(found.st_mode)), "")
        raise UnusableError(f"is not a regular file{kind}")


def _read(descriptor: int, most: int) -> bytes:
    content = b""
    while len(content) < most and (more := os.read(descriptor, most - len(content))):
        content += more
    return content
