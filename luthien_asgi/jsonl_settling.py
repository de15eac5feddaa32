"""Transactions whose process was killed: each gets its end, `interrupted`, from a worker that starts later.

Strategy: a file is looked at by whoever holds its lock, and nobody holds the file of a worker that lives. So only the dead are
settled, and by one worker alone when several start at once. A worker that dies while it does this leaves whole lines, and the
rest to the next.

How long that takes does not depend on how long the file is: every few megabytes, and at the beginning of each file that follows
another, its owner writes a checkpoint with the transactions that are open there, so only what follows the last one is read.
What is kept in memory is the ids of open transactions, and one line.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from luthien_asgi import jsontext
from luthien_asgi.jsonl_file import LineFile, claim
from luthien_asgi.jsonl_lines import CHECKPOINT, LONGEST_LINE, Lines, checkpoint, each_line
from luthien_asgi.jsonl_names import chains
from luthien_asgi.logs import logger_of
from luthien_asgi.recorder import End

__all__ = ["Found", "look_through", "settle", "settle_others"]

_log: Final = logger_of(__name__)
_BLOCK: Final = 1024 * 1024
"""Bytes in which a checkpoint is looked for at once."""
_WORTH_A_CHECKPOINT: Final = 256 * 1024
"""Bytes of a dead worker's file that the next start is spared by a checkpoint at its end."""
_MARK: Final = b"\n" + CHECKPOINT
_NOTE: Final = "the process that answered ended before the transaction did"


class _Head(msgspec.Struct):
    """What is looked at of a line."""

    type: str = ""
    id: str = ""
    open: list[str] = []


_decode_head: Final = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class Found:
    """What a file says at its end."""

    open: dict[str, None]
    """The transactions that began and did not end, in the order of their begins."""
    read: int
    """Bytes that had to be read."""
    is_record: bool
    """Whether there was a line of a record among them."""


def look_through(file: LineFile) -> Found:
    """Return which transactions are open at the end of a file that nobody else writes. Raises `OSError`."""
    with file.reading() as content:
        start = _last_checkpoint(content, file.size)
        content.seek(start)
        open_: dict[str, None] = {}
        is_record = False
        for line in each_line(content):
            head = _head(line)
            if head.type == "begin" and head.id:
                open_[head.id] = None
            elif head.type == "end":
                open_.pop(head.id, None)
            elif head.type == "checkpoint":
                open_ = dict.fromkeys(head.open)
            is_record = is_record or head.type in {"begin", "end", "checkpoint"}
    return Found(open_, file.size - start, is_record)


def settle(file: LineFile, found: Found, lines: Lines) -> None:
    """Write an end for each of the transactions that were found open, and take it from there.

    Raises `OSError`; what could not be written is still in `found.open`.
    """
    while found.open:
        ids = list(found.open)[:64]
        written, error = file.write([lines.of(_interrupted(identity)) for identity in ids])
        for identity in ids[:written]:
            del found.open[identity]
        if error is not None:
            raise error


def settle_others(path: Path, lines: Lines, *, durable: bool) -> None:
    """Settle all files of a record that nobody holds. What goes wrong with one is in the log, and left to the next start."""
    for name in chains(path):
        try:
            _settle_other(name, lines, durable=durable)
        except FileNotFoundError:
            continue  # rotated files alone, or removed meanwhile
        except OSError as error:
            _log.warning("the record %s could not be looked through for interrupted transactions: %s", name, error)


def _settle_other(name: Path, lines: Lines, *, durable: bool) -> None:
    file = claim(name)
    if file is None:
        return
    try:
        if not file.is_locked:
            return
        found = look_through(file)
        if count := len(found.open):
            settle(file, found, lines)
            _log.warning("%d transactions of %s were interrupted", count, name)
        if found.is_record and found.read >= _WORTH_A_CHECKPOINT:
            file.write([checkpoint((), at=time.time())])
        if durable:
            file.sync()
    finally:
        file.close()


def _interrupted(identity: str) -> End:
    return End(
        id=identity,
        at=time.time(),
        ending="interrupted",
        status=0,
        error=None,
        sent=None,
        decoder="",
        ignored=(),
        backend_blocks=(),
        final_blocks=(),
        verdicts=(),
        usage=None,
        finish_reasons={},
        timings={},
        notes=(_NOTE,),
    )


def _last_checkpoint(content: BinaryIO, size: int) -> int:
    """Return where the last checkpoint's line begins, or where the file does."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        content.seek(start)
        block = content.read(min(end + len(_MARK), size) - start)
        at = len(block)
        while (at := block.rfind(_MARK, 0, at)) >= 0:
            if _is_checkpoint(content, start + at + 1):
                return start + at + 1
        end = start
    return 0


def _is_checkpoint(content: BinaryIO, place: int) -> bool:
    content.seek(place)
    return _head(content.readline(LONGEST_LINE)).type == "checkpoint"


def _head(line: bytes | None) -> _Head:
    """Return what a line says, or nothing where it is none: torn by a crash, or something else."""
    if line is None:
        return _Head()
    try:
        return _decode_head(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _slow_head(line)


def _slow_head(line: bytes) -> _Head:
    """Do the same for what msgspec refuses: half an emoji, deep nesting."""
    try:
        return msgspec.convert(jsontext.loads(line), _Head)
    except (ValueError, msgspec.MsgspecError):
        return _Head()
