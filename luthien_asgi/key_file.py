"""A key in a file of its own, as secret stores lay them out: one line, in a file that others on the machine cannot read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from luthien_asgi.errors import ConfigError
from luthien_asgi.regular_file import UnusableError, read_regular

__all__ = ["read_key"]

_LONGEST: Final = 4096
_FORBIDDEN: Final = stat.S_IRWXO | stat.S_IWGRP
"""A group may read: that is how container platforms hand a secret to a process that is not root."""


def read_key(path: str | Path) -> str:
    """Return the key in a file, without the line break at its end.

    Raises `ConfigError` for a file that cannot be read, that others may read or change, that belongs to another user, that is no
    regular file, or that holds anything but one line. No message shows what is in it.
    """
    try:
        return _only_line(path, read_regular(path, _LONGEST, refuses=_problem))
    except UnusableError as error:
        raise ConfigError(f"the key file {path} {error}") from None


def _problem(found: os.stat_result) -> str:
    if not hasattr(os, "geteuid"):
        return ""
    if found.st_uid not in {0, os.geteuid()}:
        return "belongs to another user"
    if found.st_mode & _FORBIDDEN:
        mode = stat.S_IMODE(found.st_mode)
        return f"can be read or changed by others (mode {mode:04o}): make it 0600, or 0440 for a group"
    return ""


def _only_line(path: str | Path, content: bytes) -> str:
    try:
        lines = content.decode("utf-8").splitlines() if len(content) <= _LONGEST else []
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 1 or not lines[0].strip():
        raise ConfigError(f"the key file {path} must hold one key on one line")
    return lines[0].strip()
