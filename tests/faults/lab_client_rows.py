"""The faults of clients: when and how they leave, how they read, and what they take HTTP for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lab_cell import Cell, Seen
from lab_http import Client, Response, polled, request_of
from lab_rows import BROKEN, LEFT, WHOLE, Row, Want, answer, either, refused, unrecorded

from luthien_asgi.testing import Answer, Failure, RawStream, Stall, Text

MIDDLE: Final = 5
LONG: Final = Answer(Text(*["x" * 32_768] * 1_000))
"""32 MB: more than any buffer on the way takes."""
TAKEN_AT_MOST: Final = 24 * 1024 * 1024
"""Bytes that the provider gets rid of towards a client that does not read: both queues, and the sockets' buffers on the way."""
GONE: Final = replace(LEFT, status=frozenset({0, 200}), calls=1)
NOT_ASKED: Final = unrecorded(0)


def rows() -> Iterator[Row]:
    """Return the rows of clients' faults."""
    yield from _leaving()
    yield from _reading()
    yield from _speaking()
    yield from _again()


def _row(name: str, act: Any, *faults: Any, stream: Want | None = WHOLE, whole: Want | None = None, **more: Any) -> Row:
    more = {"reply": answer(*faults)} | more
    return Row(name=name, group="client", act=act, stream=stream, whole=whole, **more)


# --- leaving -----------------------------------------------------------------------------------------------------------


def _leaving() -> Iterator[Row]:
    for how in ("closes", "resets"):
        leave = partial(_leave, how=how)
        yield _row(f"{how} within the headers", partial(leave, cut="headers"), stream=NOT_ASKED, whole=NOT_ASKED)
        yield _row(f"{how} within the body", partial(leave, cut="body"), stream=NOT_ASKED, whole=NOT_ASKED)
        yield _row(f"{how} while the provider is asked", partial(leave, sent=0), Stall(), stream=GONE, whole=GONE)
        yield _row(f"{how} before the first word", partial(leave, sent=1), Stall(after=1), stream=GONE, whole=GONE)
        yield _row(
            f"{how} after some words", partial(leave, sent=MIDDLE, read=True), Stall(after=MIDDLE), stream=GONE, whole=None
        )
        yield _row(
            f"{how} within an answer that is collected", partial(leave, sent=MIDDLE), Stall(after=MIDDLE), stream=None, whole=GONE
        )
        at_end = either(GONE, replace(WHOLE, ends=frozenset({"left"})))
        yield _row(f"{how} at the end", partial(leave, sent=MIDDLE, read=True), stream=at_end, whole=at_end)
        held: dict[str, Any] = {"reply": answer(tool=True), "policied": True}
        asked = partial(leave, sent=MIDDLE)
        yield _row(f"{how} while a judge thinks", asked, text="policy:on_block_complete=think", stream=GONE, whole=GONE, **held)
        none = replace(GONE, calls=0)
        yield _row(f"{how} while a policy reads the request", partial(_leave_early, how=how), text="policy:on_request=think",
                   stream=none, whole=none, policied=True)  # fmt: skip


async def _leave(cell: Cell, *, how: str, cut: str = "", sent: int = 0, read: bool = False) -> Seen:
    """Leave once the provider has sent so many events, or with a request that is not whole."""
    request = cell.request()
    seen = Seen()
    async with cell.client() as client:
        if cut:
            await client.send(request[: {"headers": 40, "body": len(request) - 20}[cut]])
            await cell.server.state()  # by then the server has read that much
        else:
            await client.send(request)
            await cell.arrived(sent=sent)
            if read:
                seen.responses.append(await _begun(client))
        _go(client, how)
        seen.left = client.left
    return seen


def _go(client: Client, how: str) -> None:
    if how == "resets":
        client.reset()
    else:
        client.close()


async def _begun(client: Client) -> Response:
    """Return what there is of a response once its first bytes are there."""
    got = await client.read()
    status = int(got.split(b" ", 2)[1]) if got.startswith(b"HTTP/1.1 ") else 0
    return Response(status=status, raw=got, at=time.monotonic())


async def _leave_early(cell: Cell, *, how: str) -> Seen:
    """Leave once the transaction is recorded as begun: the provider is not asked before the policy has read the request."""
    async with cell.client() as client:
        await client.send(cell.request())
        if not await polled(lambda: bool(cell.server.records.of(cell.marker)), 10):
            cell.red.append("no begin was recorded")
        _go(client, how)
        return Seen(left=client.left)


# --- reading -----------------------------------------------------------------------------------------------------------


def _reading() -> Iterator[Row]:
    slow: dict[str, Any] = {"reply": LONG, "says": None}
    # What uvicorn is given when the client leaves within it, it takes as sent.
    sent = either(GONE, replace(WHOLE, ends=frozenset({"left"})))
    yield _row("never reads", _never_reads, stream=GONE, whole=GONE, **slow)
    yield _row("reads a byte a second", partial(_never_reads, bytes_a_second=1), stream=GONE, whole=sent, **slow)
    yield _row("reads slowly, but does", _reads_slowly, stream=WHOLE, whole=WHOLE)
    # Some servers take that for a client that left; then the transaction may be over before its begin is written.
    over = replace(GONE, ending=GONE.ending | {"interrupted"})
    both = replace(either(WHOLE, over), calls=None)
    yield _row("shuts down its sending side", _half_closes, stream=both, whole=both)
    waits = replace(either(over, refused(504), BROKEN), calls=None)
    yield _row("shuts it down, and the provider is silent", _half_closes, Stall(after=0), stream=waits, whole=waits)


async def _never_reads(cell: Cell, *, bytes_a_second: int = 0) -> Seen:
    """Ask for 32 MB and leave them where they are, until the server has enough of that."""
    async with cell.client(receive_buffer=4096) as client:
        await client.send(cell.request())
        await cell.arrived()
        asked = cell.asked()[0]

        async def over() -> bool:
            if bytes_a_second:
                await client.read(bytes_a_second)
            return asked.closed_early or asked.finished

        await polled(over, 20, every=1.0 if bytes_a_second else 0.05)
        seen = Seen(left=time.monotonic())
        if cell.stream and asked.sent * 32_768 > TAKEN_AT_MOST:
            seen.more.append(f"{asked.sent * 32_768} bytes were taken from the provider")
        return seen


async def _reads_slowly(cell: Cell) -> Seen:
    """Read a few bytes at a time."""
    async with cell.client(receive_buffer=1024) as client:
        await client.send(cell.request())
        got = b""
        while len(got) < 200 and (data := await client.read(20)):
            got += data
        return Seen([await client.response(got)])


async def _half_closes(cell: Cell) -> Seen:
    """Send a whole request, say that no other follows, and read: HTTP allows it; some servers take it for a client that left."""
    async with cell.client() as client:
        await client.send(cell.request())
        client.shut()
        response = await client.response()
        return Seen([response], left=0.0 if response.complete else time.monotonic())


# --- speaking HTTP -----------------------------------------------------------------------------------------------------


def _speaking() -> Iterator[Row]:
    yield _row("HTTP/1.0", partial(_says, version="1.0"), stream=WHOLE, whole=WHOLE)
    yield _row("Connection: close", partial(_says, headers={"connection": "close"}), stream=WHOLE, whole=WHOLE)
    yield _row("a chunked body", _chunked, stream=WHOLE, whole=WHOLE)
    yield _row("Expect: 100-continue", _expects, stream=WHOLE, whole=WHOLE)
    yield _row("a body in small pieces", _dripped, stream=WHOLE, whole=WHOLE)
    late = unrecorded(408)
    yield _row("a body that stops coming", _stops, stream=late, whole=late)
    bad = unrecorded(400)
    yield _row("a body that is not JSON", partial(_body, content=b"{" * 30), stream=bad, whole=None)
    yield _row("a body that is not UTF-8", partial(_body, content=b'{"model": "\xff"}'), stream=bad, whole=None)
    yield _row("an empty request body", partial(_body, content=b""), stream=bad, whole=None)
    large = unrecorded(413)
    yield _row("a body of 2 MB where 1 MB is the limit", partial(_body, content=b" " * (2 << 20)), stream=large, whole=None)
    yield _row("a chunked body without end", _endless, stream=either(large, unrecorded(0)), whole=None)
    yield _row("what is no HTTP", _no_http, stream=NOT_ASKED, whole=None)


async def _says(cell: Cell, **how: Any) -> Seen:
    """Ask in another way of HTTP, after whose answer the connection ends."""
    async with cell.client() as client:
        await client.send(cell.request(**how))
        seen = Seen([await client.response()])
        if await client.read():
            seen.more.append("there is more after the response")
        return seen


CHUNKED: Final = {"content-length": "", "transfer-encoding": "chunked"}


def _chunks(content: bytes, size: int) -> bytes:
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def _chunked(cell: Cell) -> Seen:
    content = json.dumps(cell.body()).encode()
    head = request_of(cell.wire, b"", headers=CHUNKED)
    async with cell.client() as client:
        await client.send(head + _chunks(content, 7) + b"0\r\n\r\n")
        return Seen([await client.response()])


async def _expects(cell: Cell) -> Seen:
    content = json.dumps(cell.body()).encode()
    head = request_of(cell.wire, b"", headers={"content-length": str(len(content)), "expect": "100-continue"})
    async with cell.client() as client:
        await client.send(head)
        if not (told := await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "):
            return Seen(more=[f"not told to go on: {told!r}"])
        await client.send(content)
        return Seen([await client.response()])


async def _dripped(cell: Cell) -> Seen:
    request = cell.request()
    async with cell.client() as client:
        for start in range(0, len(request), 16):
            await client.send(request[start : start + 16])
        return Seen([await client.response()])


async def _stops(cell: Cell) -> Seen:
    async with cell.client() as client:
        await client.send(cell.request()[:-5])
        return Seen([await client.response()])


async def _body(cell: Cell, *, content: bytes) -> Seen:
    async with cell.client() as client:
        await client.send(request_of(cell.wire, content))
        return Seen([await client.response()])


async def _endless(cell: Cell) -> Seen:
    """Send chunks until the server has enough; it may close before all of its answer could be read."""
    async with cell.client() as client:
        await client.send(request_of(cell.wire, b"", headers=CHUNKED))
        for _ in range(200):
            try:
                await client.send(_chunks(b" " * 65536, 65536))
            except ConnectionError:
                break
        response = await client.response()
        return Seen([response], left=0.0 if response.complete else time.monotonic())


async def _no_http(cell: Cell) -> Seen:
    async with cell.client() as client:
        await client.send(b"\x16\x03\x01 nonsense\r\n\r\n")
        await client.read()
        return Seen(left=time.monotonic())


# --- one connection, several requests ----------------------------------------------------------------------------------


def _again() -> Iterator[Row]:
    yield _row("two requests at once on one connection", _pipelines, stream=WHOLE, whole=WHOLE)
    yield _row("asks again after a refusal", partial(_after, first=b"{}"), stream=WHOLE, whole=WHOLE)
    no = Failure(429, None, "slow down", {"retry-after": "7"})
    again = refused(429, headers=(("retry-after", "7"),))
    yield _row("asks again after the provider's refusal", _twice, stream=again, whole=again, reply=no)
    garbage = RawStream([b": hello\n\n", b"data: {]\n\n"])
    yield _row("asks again after a failure", _twice, stream=either(BROKEN, refused(502)), whole=refused(502), reply=garbage)
    own = Want(status=frozenset({200, 400}), ends=frozenset({"whole", "left", "server"}),
               ending=frozenset({"completed", "client_disconnected", ""}), calls=None)  # fmt: skip
    yield _row("sends more than it promised", _surplus, stream=own, whole=own)


async def _pipelines(cell: Cell) -> Seen:
    async with cell.client() as client:
        await client.send(cell.request() * 2)
        return Seen([await client.response(), await client.response()])


async def _twice(cell: Cell) -> Seen:
    async with cell.client() as client:
        seen = Seen()
        for _ in range(2):
            await client.send(cell.request())
            seen.responses.append(await client.response())
        return seen


async def _after(cell: Cell, *, first: bytes) -> Seen:
    async with cell.client() as client:
        await client.send(request_of(cell.wire, first))
        if (refusal := await client.response()).status != 400:
            return Seen(more=[f"the first was answered with {refusal.status}"])
        await client.send(cell.request())
        return Seen([await client.response()])


async def _surplus(cell: Cell) -> Seen:
    async with cell.client() as client:
        await client.send(cell.request() + b"nonsense\r\n\r\n")
        return Seen([await client.response()])
