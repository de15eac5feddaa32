"""The load: so many streams at a time over raw sockets, each read to its end and judged.

A stream counts only when all of it is right: status 200, no error event, every delta once and in order, and the terminal event
of its format at the very end.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import monotonic, monotonic_ns
from typing import Final

from shapes import Shape
from upstream import CALL_MARK, MARK

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ERROR: Final = re.compile(rb'data: ?\{"error"|event: ?error')
_ENDS: Final = {
    "openai": re.compile(rb"data: ?\[DONE\]\s*\Z"),
    "anthropic": re.compile(rb'event: ?message_stop\r?\ndata: ?\{"type": ?"message_stop"[^\n]*\s*\Z'),
}
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_MARK_SIZE: Final = 18
_NS: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked, of whom, and what a right answer is."""

    port: int
    path: str
    dialect: str
    """The client's format: `openai` or `anthropic`."""
    model: str
    shape: Shape
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self) -> bytes:
        """Return the request's bytes."""
        body = json.dumps(
            {"model": self.model, "messages": [{"role": "user", "content": "Say it."}], "stream": True, "max_tokens": 4096}
        ).encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
        own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"{head}{own}accept: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@dataclass(slots=True)
class Tally:
    """What came of the streams. Times in seconds."""

    right: int = 0
    deltas: int = 0
    events: int = 0
    """All that a client got: whether deltas that came together still had one each."""
    faults: Counter[str] = field(default_factory=Counter)
    added: list[float] = field(default_factory=list)
    """By delta, paced only: from the provider's write to the client's read."""
    firsts: list[float] = field(default_factory=list)
    """By stream, paced only: from the request to the first delta."""
    spans: list[float] = field(default_factory=list)
    """By stream, paced only: from the provider's write of the first delta to the end at the client."""
    holds: list[float] = field(default_factory=list)
    """By stream with a tool call: from the provider's write of the call to the end at the client."""
    totals: list[float] = field(default_factory=list)
    """By stream: from the request to the end."""
    sample: bytes = b""
    """A wrong answer."""


async def fire(target: Target, *, streams: Iterable[int], at_once: int, ramp: float, limit: float) -> Tally:
    """Run streams, `at_once` at a time, their first requests spread over `ramp` seconds; none after `limit` seconds.

    `streams`: an item for each. When they begin is random, and the same each time: at even distances they would be in step with
    the provider's pace, and write at the same instants.
    """
    tally = Tally()
    chance = Random(at_once)
    delays = [chance.uniform(0, ramp) for _ in range(at_once)]
    begun: list[int] = []

    def counted() -> Iterator[int]:
        for item in streams:
            begun.append(item)
            yield item

    numbers = counted()
    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as workers:
            for delay in delays:
                workers.create_task(_work(target, numbers, tally, delay=delay))
    except TimeoutError:
        tally.faults["unfinished"] += len(begun) - tally.right - tally.faults.total()
    return tally


def for_seconds(seconds: float, *, at_least: int) -> Iterator[int]:
    """Give out streams for so long, and `at_least` so many."""
    deadline = monotonic() + seconds
    for number in count():
        if number >= at_least and monotonic() >= deadline:
            return
        yield number


async def _work(target: Target, numbers: Iterator[int], tally: Tally, *, delay: float) -> None:
    await asyncio.sleep(delay)
    connection: _Connection | None = None
    try:
        for _ in numbers:
            if connection is None or connection.lost:
                connection = await _connect(target)
            answer = await connection.ask(target.request())
            _judge(target, answer, tally)
    except OSError as error:
        tally.faults[f"connection: {type(error).__name__}"] += 1
    finally:
        if connection is not None:
            connection.abort()


async def _connect(target: Target) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(paced=target.shape.interval > 0), "127.0.0.1", target.port
    )
    return connection


class _Answer:
    """One answer while it arrives."""

    def __init__(self, *, paced: bool) -> None:
        self.asked = monotonic_ns()
        self.ended = 0
        self.cut = False
        self.received = bytearray()
        self.added: list[int] = []
        self.first_mark = self.first_read = 0
        self._paced = paced
        self._searched = 0

    def take(self, data: bytes) -> bool:
        """Add what arrived; tell whether the answer is complete."""
        self.received += data
        if self._paced:
            self._clock(monotonic_ns())
        if self.received.endswith(_LAST_CHUNK):
            return True
        head = self.received.find(b"\r\n\r\n") if len(self.received) < 4096 else -1
        length = _LENGTH.search(self.received, 0, head) if head > 0 else None
        return length is not None and len(self.received) >= head + 4 + int(length[1])

    def _clock(self, now: int) -> None:
        for mark in MARK.finditer(self.received, self._searched):
            if not self.first_mark:
                self.first_mark, self.first_read = int(mark[1]), now
            self.added.append(now - int(mark[1]))
            self._searched = mark.end()
        self._searched = max(self._searched, len(self.received) - _MARK_SIZE)


class _Connection(asyncio.Protocol):
    """One connection of a client, used for one answer after the other."""

    def __init__(self, *, paced: bool) -> None:
        self.lost = False
        self._paced = paced

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> _Answer:
        """Return the whole answer."""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer = _Answer(paced=self._paced)
        self._transport.write(request)
        await self._done
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer.take(data):
            self._over()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self._done.done():
            self._answer.cut = True
            self._over()

    def _over(self) -> None:
        if not self._done.done():
            self._answer.ended = monotonic_ns()
            self._done.set_result(None)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


def _judge(target: Target, answer: _Answer, tally: Tally) -> None:
    head, _, rest = bytes(answer.received).partition(b"\r\n\r\n")
    body = b"".join(chunks(rest)) if b"chunked" in head.lower() else rest
    marks = [int(digits) for digits in MARK.findall(body)]
    tally.deltas += len(marks)
    tally.events += body.count(b"data: ")
    fault = _fault(target, head, body, marks, cut=answer.cut)
    if fault:
        tally.faults[fault] += 1
        tally.sample = tally.sample or head + b"\r\n\r\n" + body
        return
    tally.right += 1
    tally.totals.append((answer.ended - answer.asked) * _NS)
    if call := CALL_MARK.search(body):
        tally.holds.append((answer.ended - int(call[1])) * _NS)
    if target.shape.interval:
        tally.firsts.append((answer.first_read - answer.asked) * _NS)
        tally.added += [added * _NS for added in answer.added]
        tally.spans.append((answer.ended - answer.first_mark) * _NS)


def _fault(target: Target, head: bytes, body: bytes, marks: list[int], *, cut: bool) -> str:
    status = _STATUS.match(head)
    if status is None or status[1] != b"200":
        return f"status {status[1].decode() if status else 'missing'}"
    if cut:
        return "cut off"
    if _ERROR.search(body):
        return "error event"
    if not _ENDS[target.dialect].search(body):
        return "no terminal event"
    if target.shape.call and not CALL_MARK.search(body):
        return "no tool call"
    if len(marks) != target.shape.deltas:
        return "wrong number of deltas"
    if marks != (sorted(marks) if target.shape.interval else list(range(target.shape.deltas))):
        return "deltas out of order"
    return ""


def chunks(rest: bytes) -> Iterator[bytes]:
    """Yield the parts of a body that came in HTTP chunks; of one that was cut off, all that is there."""
    at = 0
    while (end := rest.find(b"\r\n", at)) > 0:
        size = int(rest[at:end].partition(b";")[0], 16)
        if size == 0:
            return
        yield rest[end + 2 : end + 2 + size]
        at = end + 4 + size
