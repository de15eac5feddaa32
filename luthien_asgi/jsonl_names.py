"""The names of a JSONL record's files: which belong together, and what each of them is.

    transactions.jsonl              the given path: the first worker's
    transactions-77.jsonl           a second worker's, named after the process that made it; -77-2 where that name was taken
    transactions.000001.jsonl       what was transactions.jsonl until its first rotation; 000002 after the second, and so on
    transactions-77.000001.jsonl    the same of transactions-77.jsonl

A file that is written, with those that it was before, is a chain: a transaction's two lines are in one chain.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["chains", "current", "fresh", "next_rotated", "other_names", "own_names", "rotated"]

_OTHER_PATHS: Final = 100
"""Recorders of one process on one path."""


def own_names(path: Path) -> Iterator[Path]:
    """Yield the names that this process may write under when others have the given one."""
    own = f"{path.stem}-{os.getpid()}"
    yield path.with_name(own + path.suffix)
    for number in range(2, _OTHER_PATHS):
        yield path.with_name(f"{own}-{number}{path.suffix}")


def other_names(path: Path) -> Sequence[Path]:
    """Return what workers other than the first have written under, as far as it is there, rotated files aside, in order."""
    pattern = re.compile(re.escape(path.stem) + r"(-\d{1,20}){1,2}" + re.escape(path.suffix))
    return [path.with_name(name) for name in _names(path.parent) if pattern.fullmatch(name)]


def chains(path: Path) -> Sequence[Path]:
    """Return the names of a record's chains, the given one first, also those of which only rotated files are there."""
    pattern = re.compile("(" + re.escape(path.stem) + r"(?:-\d{1,20}){0,2})(?:\.\d{6,20})?" + re.escape(path.suffix))
    found = {match[1] for name in _names(path.parent) if (match := pattern.fullmatch(name))}
    return [path.with_name(stem + path.suffix) for stem in sorted(found, key=lambda stem: (stem != path.stem, stem))]


def rotated(path: Path) -> Sequence[Path]:
    """Return the files that a file was before its rotations, the oldest first."""
    pattern = re.compile(re.escape(path.stem) + r"\.(\d{6,20})" + re.escape(path.suffix))
    found = [(int(match[1]), name) for name in _names(path.parent) if (match := pattern.fullmatch(name))]
    return [path.with_name(name) for _, name in sorted(found)]


def current(path: Path) -> Path:
    """Return the name that a rotated file had while it was written; for other files their own."""
    return path.with_name(re.sub(r"\.\d{6,20}$", "", path.stem) + path.suffix)


def next_rotated(path: Path) -> Path:
    """Return the name that a file gets when it is rotated: one higher than all that are there."""
    there = rotated(path)
    number = int(there[-1].name.removeprefix(f"{path.stem}.").removesuffix(path.suffix)) if there else 0
    return path.with_name(f"{path.stem}.{number + 1:06}{path.suffix}")


def fresh(path: Path) -> Path:
    """Return the name under which a file's successor is made ready; whoever owns the file owns it."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def _names(folder: Path) -> list[str]:
    """Return what is in a folder, in order; nothing where it is not there."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []
