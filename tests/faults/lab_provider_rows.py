"""The faults of providers: of their network, their HTTP, their stream, their answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from lab_cell import Cell, Seen
from lab_http import polled
from lab_rows import BROKEN, WHOLE, Row, Want, answer, either, refused

from luthien_asgi.testing import (
    Again,
    BadChunk,
    ContentType,
    Delay,
    Disconnect,
    Drip,
    ErrorEvent,
    Failure,
    Garbage,
    Gzip,
    Half,
    HeaderBomb,
    Headers,
    Informational,
    LongLine,
    RawStream,
    Reset,
    Stall,
    Trailing,
    Truncate,
    WrongLength,
)

MIDDLE: Final = 5
"""Some words of the answer have been sent then, on both wires."""
END: Final = 1000
FORGED_BODY: Final = b'data: {"error": {"message": "FORGED", "type": "api_error"}}\n\n'
FORGED: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(FORGED_BODY) + FORGED_BODY
)
NETWORK: Final = refused(502, 503)
SLOW: Final = refused(504)
BAD: Final = refused(502)
DATE: Final = "Wed, 21 Oct 2065 07:28:00 GMT"


def rows() -> Iterator[Row]:
    """Return the rows of providers' faults."""
    yield Row(name="nothing is wrong", group="provider", whole=WHOLE)
    yield from _silence()
    yield from _endings()
    yield from _halves()
    yield from _bytes()
    yield from _http()
    yield from _second_answers()
    yield from _statuses()
    yield from _connections()


def _row(name: str, *faults: Any, stream: Want | None = BROKEN, whole: Want | None = None, **more: Any) -> Row:
    return Row(name=name, group="provider", reply=answer(*faults), stream=stream, whole=whole, **more)


def _silence() -> Iterator[Row]:
    yield _row("headers late", Delay(seconds=0.3), stream=WHOLE, whole=WHOLE)
    yield _row("headers later than the answer's begin", Delay(seconds=1.0), stream=WHOLE, whole=WHOLE)
    yield _row("no headers at all", Stall(), whole=SLOW)
    yield _row("silence after the headers", Stall(after=0), whole=SLOW)
    yield _row("silence after some words", Stall(after=MIDDLE), whole=SLOW)
    yield _row("silence before the last event", Stall(after=-1), stream=either(WHOLE, BROKEN))
    yield _row("silence after the last event", Stall(after=END), stream=WHOLE, whole=WHOLE)
    yield _row("a pause between two words", Delay(after=MIDDLE, seconds=0.8), stream=WHOLE)
    yield _row("headers byte by byte", Drip(after=None, seconds=0.005, size=60), stream=WHOLE, whole=WHOLE)
    yield _row("headers byte by byte without end", Drip(after=None, seconds=0.05, size=10**6), whole=SLOW)
    yield _row("words byte by byte", Drip(after=MIDDLE, seconds=0.005, size=60), stream=WHOLE)
    yield _row("an event byte by byte without end", Drip(after=MIDDLE, seconds=0.05, size=10**6), whole=None)
    yield _row("a body byte by byte without end", Drip(after=0, seconds=0.05, size=10**6), stream=None, whole=SLOW)


def _endings() -> Iterator[Row]:
    for name, fault in (("closed", Disconnect), ("reset", Reset)):
        yield _row(f"{name} before the headers", fault(), stream=NETWORK, whole=NETWORK)
        yield _row(f"{name} after the headers", fault(after=0), stream=NETWORK, whole=NETWORK)
        yield _row(f"{name} after some words", fault(after=MIDDLE), whole=NETWORK)
        yield _row(f"{name} before the last event", fault(after=-1), stream=either(WHOLE, BROKEN))
        yield _row(f"{name} after the last event", fault(after=END), stream=WHOLE)
    yield _row("an end without an event", Truncate(after=0), stream=BAD, whole=BAD)
    yield _row("an end after some words", Truncate(after=MIDDLE))
    yield _row("an end before the finish", Truncate(after=-3))
    yield _row("an end without the last event", Truncate(after=-1), stream=either(WHOLE, BROKEN))


def _halves() -> Iterator[Row]:
    for at in ("middle", "character"):
        cut = "half an event" if at == "middle" else "half a character"
        half = Half(after=MIDDLE, at=at)  # type: ignore[arg-type]  # one of its literals
        yield _row(f"{cut}, then its rest", half, stream=WHOLE)
        yield _row(f"{cut}, then silence", half, Stall(after=half.after))
        yield _row(f"{cut}, then the end", half, Truncate(after=half.after))
        yield _row(f"{cut}, then closed", half, Disconnect(after=half.after))
        yield _row(f"{cut}, then reset", half, Reset(after=half.after))
    for name, fault, want in (
        ("silence", Stall(after=0), SLOW), ("the end", Truncate(after=0), BAD), ("closed", Disconnect(after=0), NETWORK),
        ("reset", Reset(after=0), NETWORK),
    ):  # fmt: skip
        yield _row(f"half a body, then {name}", Half(after=0), fault, stream=None, whole=want)


def _bytes() -> Iterator[Row]:
    yield _row("an event that is not JSON", Garbage(after=MIDDLE))
    yield _row("an event that is not an object", Garbage(after=MIDDLE, data=b"data: 42\n\n"), stream=either(WHOLE, BROKEN))
    yield _row("binary bytes among the events", Garbage(after=MIDDLE, data=b"data: \xff\xfe\x00\x80{\n\n"))
    yield _row("lines that are no fields", Garbage(after=MIDDLE, data=b"\x00\xff nonsense\n\n"), stream=WHOLE)
    yield _row("bytes that are no HTTP", Garbage(data=b"\x00\xff nonsense\r\n\r\n"), stream=NETWORK, whole=NETWORK)
    yield _row("bytes after the last event", Garbage(after=END, data=b"data: {]\n\nnonsense"), stream=WHOLE, whole=WHOLE)
    yield _row("a line of 100 MB", LongLine(after=MIDDLE))
    yield _row("a body of 100 MB", LongLine(after=0), stream=None, whole=BAD)
    yield _row("gzip", Gzip(), stream=WHOLE, whole=WHOLE)
    yield _row("gzip, and half an event", Gzip(), Half(after=MIDDLE), stream=WHOLE)
    yield _row("gzip that is none", Gzip(honest=False), stream=BAD, whole=BAD)
    yield _row("gzip that ends within itself", Gzip(), Disconnect(after=MIDDLE))
    yield _row("a gzip bomb", Gzip(), LongLine(after=MIDDLE))
    yield _row("a gzip bomb for a body", Gzip(), LongLine(after=0), stream=None, whole=BAD)
    yield _row("an error event at the start", ErrorEvent(after=0), stream=refused(529), whole=refused(529))
    yield _row("an error event after some words", ErrorEvent(after=MIDDLE))
    yield _row("an error event after the last event", ErrorEvent(after=END), stream=either(WHOLE, BROKEN))


def _http() -> Iterator[Row]:
    html = RawStream(b"<html><body>Sign in</body></html>", content_type="text/html")
    yield Row(name="a web page", group="provider", reply=html, stream=BAD, whole=BAD)
    empty = RawStream(b"")
    yield Row(name="an empty body", group="provider", reply=empty, stream=BAD, whole=BAD)
    yield _row("events as text/html", ContentType("text/html"), stream=either(WHOLE, BAD), whole=either(WHOLE, BAD))
    yield _row("events as application/json", ContentType("application/json"), stream=either(WHOLE, BAD))
    yield _row("no content type", ContentType(None), stream=either(WHOLE, BAD), whole=either(WHOLE, BAD))
    yield _row(
        "a Content-Length too long", WrongLength(by=50), stream=either(WHOLE, BROKEN, NETWORK), whole=either(WHOLE, NETWORK)
    )
    short = either(WHOLE, BROKEN, NETWORK)
    yield _row("a Content-Length too short", WrongLength(by=-50), stream=short, whole=either(WHOLE, NETWORK))
    for name, data in (("no number", b"zz\r\n"), ("negative", b"-5\r\n"), ("huge", b"fffffffffffffffff\r\n")):
        yield _row(
            f"a chunk size that is {name}",
            BadChunk(after=MIDDLE, data=data),
            stream=either(BROKEN, NETWORK),
            whole=either(NETWORK, SLOW),
        )
        yield _row(
            f"a first chunk size that is {name}",
            BadChunk(after=0, data=data),
            stream=either(NETWORK, BROKEN),
            whole=either(NETWORK, SLOW),
        )
    yield _row("early hints", Informational(status=103, count=3), stream=WHOLE, whole=WHOLE)
    yield _row("100 Continue for no reason", Informational(status=100), stream=WHOLE, whole=WHOLE)
    yield _row(
        "1 000 early hints", Informational(status=103, count=1000), stream=either(WHOLE, NETWORK), whole=either(WHOLE, NETWORK)
    )
    yield _row(
        "a switch of protocols", Informational(status=101), stream=either(WHOLE, NETWORK, BROKEN), whole=either(WHOLE, NETWORK)
    )
    twice = Headers(("content-type", "text/html"), ("x-request-id", "another"), ("request-id", "another"))
    yield _row("headers twice", twice, stream=either(WHOLE, BAD), whole=either(WHOLE, BAD))
    yield _row(
        "two lengths", Headers(("content-length", "5")), stream=either(WHOLE, NETWORK, BROKEN), whole=either(WHOLE, NETWORK)
    )
    yield _row("headers of 16 MB", HeaderBomb(), stream=NETWORK, whole=NETWORK)
    yield _row("a header of 1 MB", HeaderBomb(size=1 << 20, line=1 << 20), stream=NETWORK, whole=NETWORK)
    odd = Headers(("request-id", "a\x01b\x7f"), ("x-request-id", "a\x01b\xe9"), ("x-ratelimit-limit-requests", "\xff"))
    yield _row("control characters in headers", odd, stream=either(WHOLE, NETWORK), whole=either(WHOLE, NETWORK))
    forged = Trailing(data=FORGED)
    yield _row("a second response that nobody asked for", forged, stream=either(WHOLE, NETWORK), whole=either(WHOLE, NETWORK))
    later = Trailing(data=FORGED, seconds=0.2)
    yield _row("and one that comes later", later, stream=WHOLE, whole=WHOLE, act=asked_again, alone=True)


async def asked_again(cell: Cell) -> Seen:
    """Ask again once all of the first reply is out: what came on its connection meanwhile is no answer to the second."""
    seen = Seen()
    async with cell.client() as client:
        for number in (1, 2):
            await client.send(cell.request())
            seen.responses.append(await client.response())
            await polled(lambda n=number: sum(request.finished for request in cell.asked()) == n, 5)  # type: ignore[misc]
    return seen


def _second_answers() -> Iterator[Row]:
    yield _row("a second answer among the words", Again(after=MIDDLE), stream=either(WHOLE, BROKEN), says=None)
    yield _row("a second answer before the last event", Again(after=-1), stream=either(WHOLE, BROKEN), says=None)
    yield _row("a second answer after the last event", Again(after=END), stream=WHOLE)


def _statuses() -> Iterator[Row]:
    for status in (400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 418, 422, 429, 500, 501, 502, 503, 504, 520, 529, 599):
        yield _status(f"status {status}", status)
    for status in (408, 429, 500, 503, 529):
        yield _status(f"status {status}, Retry-After: 7", status, ("retry-after", "7"))
    for what, value in (("a date", DATE), ("negative", "-5"), ("rubbish", "when hell freezes over"), ("huge", "9" * 400)):
        yield _status(f"status 429, Retry-After {what}", 429, ("retry-after", value), kept=what == "a date")
    for status in (301, 302, 303, 307, 308):
        yield Row(name=f"redirect {status} to another host", group="provider", reply=Redirect(status), stream=BAD, whole=BAD)
    page = RawStream(b"<html>Bad gateway</html>", content_type="text/html", status=502)
    yield Row(name="an error's web page", group="provider", reply=page, stream=BAD, whole=BAD)
    nothing = RawStream(b"", status=500)
    yield Row(name="an error without a body", group="provider", reply=nothing, stream=refused(500), whole=refused(500))
    for name, fault, status in (
        ("of 100 MB", LongLine(after=0), 500), ("that stalls", Stall(after=0), 500), ("that is reset", Reset(after=0), 500),
        ("in gzip", Gzip(), 429), ("in gzip that is none", Gzip(honest=False), 429),
    ):  # fmt: skip
        want = refused(status) if "stalls" not in name else either(refused(status), SLOW, BROKEN)
        raw = RawStream([b'{"error": {"message": "no", "type": "api_error"}}'], "application/json", status, faults=(fault,))
        yield Row(name=f"an error's body {name}", group="provider", reply=raw, stream=want, whole=want)
    none = RawStream(b"", status=204)
    yield Row(name="status 204", group="provider", reply=none, stream=BAD, whole=BAD)


def _status(name: str, status: int, *headers: tuple[str, str], kept: bool = True) -> Row:
    want = refused(status, headers=headers if kept else ())
    return Row(name=name, group="provider", reply=Failure(status, None, "no", dict(headers)), stream=want, whole=want)


class Redirect:
    """A redirect to a host of whoever sends it, whose address is known once the laboratory is open."""

    def __init__(self, status: int) -> None:
        self.status = status

    def to(self, elsewhere: str) -> Failure:
        return Failure(self.status, None, "elsewhere", {"location": f"{elsewhere}/v1/chat/completions"})


def _connections() -> Iterator[Row]:
    for name, route in (
        ("nobody listens", "closed"), ("plain HTTP where TLS should be", "plain"), ("TLS refused", "refusing"),
        ("a certificate of nobody", "selfsigned"), ("a host that does not exist", "nowhere"),
    ):  # fmt: skip
        want = either(refused(502, 503, 500, calls=0), replace(SLOW, calls=0), replace(BROKEN, calls=0))
        yield Row(name=name, group="provider", route=route, stream=want, whole=want)
