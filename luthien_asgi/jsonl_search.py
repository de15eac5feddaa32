"""Finding one transaction in a JSONL record, without reading more of it than one may.

Strategy: the files of all chains, the youngest first, are looked through in blocks for the id as a line begins with it; only the
two lines that are found are parsed. How many bytes are looked through is bounded, so that a request costs a bounded time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from luthien_asgi import jsontext
from luthien_asgi.jsonl_names import chains, rotated

__all__ = ["SearchError", "search"]

_BLOCK: Final = 4 * 1024 * 1024
SEARCHED: Final = 1024 * 1024 * 1024
"""Bytes that are looked through for one transaction, the youngest first."""
LONGEST_SHOWN: Final = 64 * 1024 * 1024
"""Bytes of a line that is read for it."""


class SearchError(Exception):
    """The transaction cannot be given. The message says why, and where it may be found."""


def search(path: Path, transaction_id: str, *, max_bytes: int = SEARCHED) -> dict[str, Any] | None:
    """Return a transaction of a record as `{"id", "begin", "end"}`; None where it has none of that id.

    Raises `SearchError`, and `OSError` when a file cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    left = max_bytes
    for file in _files(path):
        with file.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            for line in _lines(content, transaction_id, start=max(0, size - left)):
                found.setdefault(line["type"], line)
        if "begin" in found:
            break  # its end is not in an older file
        if size > left:
            if not found:
                msg = f"It is not among the last {max_bytes} bytes of the record, and no more are looked through here."
                raise SearchError(msg)
            break
        left -= size
    return {"id": transaction_id, "begin": found.get("begin"), "end": found.get("end")} if found else None


def _files(path: Path) -> Sequence[Path]:
    """Return a record's files, those that were written last first. What others put beside them is none."""
    files = [file for name in chains(path) for file in (*rotated(name), name) if _is_ours(file)]
    by_time = sorted(enumerate(files), key=lambda entry: (entry[1].stat().st_mtime_ns, entry[0]), reverse=True)
    return [file for _, file in by_time]


def _is_ours(file: Path) -> bool:
    """Whether it is a regular file, and no link, that this user or root wrote."""
    try:
        found = file.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid in {0, getattr(os, "geteuid", lambda: 0)()}


def _lines(content: BinaryIO, transaction_id: str, *, start: int) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a transaction from a place on."""
    marks = [b'{"type":"%s","id":%s,' % (kind, jsontext.dumps(transaction_id)) for kind in (b"begin", b"end")]
    overlap = max(map(len, marks))
    place, block = start, b""
    content.seek(start)
    while read := content.read(_BLOCK):
        block = block[-overlap:] + read
        place += len(read)
        for mark in marks:
            at = -1
            while (at := block.find(mark, at + 1)) >= 0:
                line = _line(content, place - len(block) + at)
                if line is not None:
                    yield line
        content.seek(place)


def _line(content: BinaryIO, place: int) -> dict[str, Any] | None:
    """Return the line that begins at a place; None where none does, or where it is torn."""
    content.seek(max(0, place - 1))
    if place and content.read(1) != b"\n":
        return None
    line = content.readline(LONGEST_SHOWN + 1)
    if len(line) > LONGEST_SHOWN:
        msg = f"It is longer than {LONGEST_SHOWN} bytes: read it from the file."
        raise SearchError(msg)
    try:
        value = jsontext.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
