"""A folder that is this user's alone: where workers of one machine leave the sockets that they answer each other at.

What is in such a folder is trusted, so it is made with mode 0700, and refused where it is a symbolic link, somebody else's, open
to others, or anywhere below a folder in which others could put another one in its place: one that is somebody else's (root's is
none's), or that others may write in and that has no sticky bit. A name that is taken by somebody else is not avoided, it is
refused: the processes that look for each other would not know which other one to look at.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from luthien_asgi.errors import ConfigError

__all__ = ["default_folder", "make_private"]

_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


def default_folder(name: str) -> Path:
    """Return the folder below the system's temporary one that this user's processes share which say the same name.

    It is short, because a socket's path may have some hundred bytes only (on macOS the temporary folder takes half of them).
    """
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    return Path(tempfile.gettempdir()) / f"luthien-{user}-{sha256(os.fsencode(name)).hexdigest()[:12]}"


def make_private(folder: Path) -> None:
    """Make the folder unless it is there. Raises `ConfigError` where it cannot be made, or is not this user's alone."""
    try:
        _check_way(folder.parent)
        _make(folder)
        found = folder.lstat()
    except OSError as error:
        msg = f"{folder} cannot be used: {error.strerror or error}"
        raise ConfigError(msg) from error
    if problem := _problem(found):
        msg = f"{folder} cannot be used: it {problem}"
        raise ConfigError(msg)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return  # whose it is, is looked at either way


def _problem(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_mode & _OTHERS:
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):o}): make it 700"
    return ""


def _check_way(parent: Path) -> None:
    """Raise `ConfigError` where others could put something else in the place of a folder, or of one above it."""
    given, real = parent.absolute(), parent.resolve(strict=True)
    trusted = _trusted()
    for each in dict.fromkeys((real, *real.parents, given, *given.parents)):
        found = each.stat()
        if found.st_uid not in trusted:
            raise ConfigError(f"{each} belongs to another user, who could put another folder in its place")
        if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            raise ConfigError(f"others may write in {each}, and could put another folder in its place")


def _trusted() -> set[int]:
    """Return whose folders may be above: this user's and root's.

    In a sandbox that knows a few users only, the owner of all that root has outside is the user who stands for the others.
    """
    trusted = {0, os.geteuid()}
    with suppress(OSError, ValueError):
        others = int(Path("/proc/sys/kernel/overflowuid").read_text())
        known = [[int(number) for number in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if not any(first <= others < first + count for first, _, count in known):
            trusted.add(others)
    return trusted
