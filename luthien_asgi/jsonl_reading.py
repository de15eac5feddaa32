"""Reading a JSONL record: two lines become a transaction again, wherever in the record's files they stand.

Strategy: a transaction's lines are in one chain (`jsonl_names`), so chain after chain is read, its files in the order of their
rotation, and what is kept is the begins that are open, and the ids of what was given out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from errno import ENOENT
from pathlib import Path
from typing import Any, BinaryIO, Final

from luthien_asgi import jsontext
from luthien_asgi.jsonl_lines import each_line
from luthien_asgi.jsonl_names import chains, current, rotated
from luthien_asgi.logs import logger_of

__all__ = ["Transactions", "read_transactions"]

_log: Final = logger_of(__name__)
_SUFFIX: Final = ".jsonl"


def read_transactions(path: Path | str) -> Transactions:
    """Return the transactions of a record as `{"id", "begin", "end"}`, in the order of their ends; at last those without an end.

    `path` is what the recorder was given: its rotated files and those of other workers are read too. Or it is one of these, and
    is read with its own rotated files; or a folder, and all files there that end in `.jsonl` are read. `begin` and `end` are the
    lines' values; `end` is None for a transaction that was running when the files were read, or when its process was killed and
    none has started since. Each transaction comes once, also where a file is there twice.

    Lines that are no records, torn by a crash or whatever else, are left out: `skipped` counts them, and the log names the first
    of each file. Raises `FileNotFoundError` when no file is there, with the first transaction.
    """
    return Transactions(Path(path))


class Transactions(Iterator[dict[str, Any]]):
    """The transactions of a record, read as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.skipped = 0
        """Lines that were no records, so far."""
        self._path = path
        self._open: dict[str, dict[str, Any]] = {}
        self._given: set[str] = set()
        self._files: set[tuple[int, int]] = set()
        self._found = self._all()

    def __next__(self) -> dict[str, Any]:
        """Return the next transaction. Raises `FileNotFoundError`, and what reading a file raises."""
        return next(self._found)

    def _all(self) -> Iterator[dict[str, Any]]:
        left: list[tuple[str, dict[str, Any]]] = []
        found = False
        for name in _names(self._path):
            for file in _chain(name):
                with file:
                    found = True
                    yield from self._of(file)
            left += self._open.items()
            self._open.clear()
        if not found:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(self._path))
        for identity, begin in left:
            if identity not in self._given:
                self._given.add(identity)
                yield {"id": identity, "begin": begin, "end": None}

    def _of(self, file: BinaryIO) -> Iterator[dict[str, Any]]:
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) in self._files:
            return
        self._files.add((status.st_dev, status.st_ino))
        for line in self._values(file):
            identity = line["id"]
            if identity in self._given:
                continue
            if line.get("type") == "begin":
                self._open.setdefault(identity, line)
            elif line.get("type") == "end":
                self._given.add(identity)
                yield {"id": identity, "begin": self._open.pop(identity, None), "end": line}

    def _values(self, file: BinaryIO) -> Iterator[dict[str, Any]]:
        skipped, first = 0, 0
        for number, line in enumerate(each_line(file), start=1):
            value = _parsed(line) if line is not None else None
            if value is not None:
                yield value
            elif line is None or line.strip():
                self.skipped += 1
                skipped, first = skipped + 1, first or number
        if skipped:
            _log.warning("%s: line %d is not a record (torn by a crash?), the first of %d", file.name, first, skipped)


def _names(path: Path) -> Sequence[Path]:
    """Return the names of a record's chains."""
    if path.is_dir():
        return sorted({current(file) for file in path.iterdir() if file.name.endswith(_SUFFIX)})
    return chains(path)


def _chain(name: Path) -> Iterator[BinaryIO]:
    """Yield the files of a chain, open, the oldest first.

    The one that is written is opened before the others are looked for: what is rotated meanwhile is neither missed nor new.
    """
    last = _opened(name)
    try:
        for older in rotated(name):
            file = _opened(older)
            if file is None:
                continue
            if last is not None and os.path.sameopenfile(file.fileno(), last.fileno()):
                file.close()
                continue
            yield file
        if last is not None:
            yield last
    finally:
        if last is not None:
            last.close()


def _opened(path: Path) -> BinaryIO | None:
    return path.open("rb") if path.is_file() else None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = jsontext.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("id"), str) else None
