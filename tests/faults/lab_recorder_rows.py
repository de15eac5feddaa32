"""The faults of the recorder: a disk that is slow, full or not ours to write on, and a worker that is killed.

They are about a whole process, so each cell has the server to itself.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from lab_cell import Cell, Seen, ask
from lab_http import polled
from lab_rows import LEFT, WHOLE, Row, Want, answer, unrecorded
from lab_servers import Server

from luthien_asgi.testing import Stall

SECONDS: Final = 60.0
READ_ONLY: Final = "/sys/kernel/transactions.jsonl"
"""A place where nobody may make a file, the superuser included."""


def rows() -> Iterator[Row]:
    """Return the rows of recorders' faults."""
    yield _row("the disk is slow", ask, text="recorder=slow", stream=WHOLE, whole=WHOLE)
    not_begun = unrecorded(503)
    yield _row("the disk is full", _full, stream=not_begun, whole=not_begun)
    yield _row("the disk was full", _was_full, stream=WHOLE, whole=WHOLE)
    yield _row("the disk fills while the answer comes", _fills, stream=WHOLE, whole=WHOLE, reply=answer(Stall(after=5)))
    gone = replace(LEFT, ending=frozenset({"interrupted"}))
    yield _row("the worker is killed", _killed, stream=gone, reply=answer(Stall(after=5)), only=frozenset({"openai"}))
    nobody = unrecorded(0, 503)
    yield _row("nobody may write there", _forbidden, stream=nobody, only=frozenset({"openai"}))


def _row(name: str, act: Any, *, stream: Want, whole: Want | None = None, **more: Any) -> Row:
    return Row(name=name, group="recorder", act=act, stream=stream, whole=whole, alone=True, **more)


@asynccontextmanager
async def _no_room(cell: Cell) -> AsyncIterator[None]:
    """No file of the server's process may grow; afterwards they may, and it has noticed."""
    await cell.server.limit_files(0)
    try:
        yield
    finally:
        await cell.server.limit_files(-1)
        if not await polled(_answers(cell), SECONDS):
            cell.red.append("it does not record again")


def _answers(cell: Cell) -> Any:
    async def answers() -> bool:
        return await cell.server.probe(cell.wire) == 200

    return answers


async def _full(cell: Cell) -> Seen:
    async with _no_room(cell):
        return await ask(cell)


async def _was_full(cell: Cell) -> Seen:
    async with _no_room(cell):
        if (status := await cell.server.probe(cell.wire)) != 503:
            cell.red.append(f"status {status} without room for a record")
    return await ask(cell)


async def _fills(cell: Cell) -> Seen:
    """The disk fills once the provider was asked: the answer goes on, and its end is recorded when there is room again."""
    async with cell.client() as client:
        await client.send(cell.request())
        await cell.arrived(sent=5)
        async with _no_room(cell):
            cell.asked()[0].release()
            return Seen([await client.response()])


async def _killed(cell: Cell) -> Seen:
    """Kill the process that serves; the one after it records what became of its transactions."""
    async with cell.client() as client:
        await client.send(cell.request())
        await cell.arrived(sent=5)
        cell.server.kill_worker((await cell.server.state())["pid"])
        seen = Seen([await client.response()], left=time.monotonic())
    if not await cell.server.back():
        seen.more.append("the server did not come back")
    return seen


async def _forbidden(cell: Cell) -> Seen:
    """Start another server, whose record cannot be written: it does not start, or begins nothing."""
    folder = cell.server.records.folder / cell.marker
    folder.mkdir()
    server = Server(cell.server.kind, folder, cell.server.bases, policied=False, record=READ_ONLY)
    try:
        if not await server.listens():
            return Seen(left=time.monotonic())
        return await ask(replace(cell, server=server))
    finally:
        server.stop()
