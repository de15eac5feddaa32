"""A tap on the wire between a client and the gateway: every byte goes through unchanged, and is kept.

Strategy: the relay knows nothing of HTTP, so nothing that a client notices can be its doing. What was exchanged is read with h11
from the kept bytes when somebody asks: what came up is given to a server's side, what went down to a client's.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import h11

__all__ = ["Exchange", "Wiretap"]

_READ: Final = 1 << 16
_LARGEST_HEAD: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came back. `status` 0: the connection ended before a response."""

    method: str
    path: str
    request_headers: Mapping[str, str]
    content: bytes
    status: int
    headers: Mapping[str, str]
    answer: bytes
    at: float
    """When the request's first bytes came, on the monotonic clock."""

    @property
    def body(self) -> dict[str, Any]:
        """The request's body; empty when it is no JSON object."""
        try:
            value = json.loads(self.content)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def line(self) -> str:
        """Return the exchange as a line of JSON."""
        fields = ("method", "path", "request_headers", "status", "headers")
        kept = {name: getattr(self, name) for name in fields}
        request = self.body or self.content.decode(errors="replace")
        return json.dumps({**kept, "request": request, "answer": self.answer.decode(errors="replace")})


@dataclass(slots=True)
class _Kept:
    """What went over one connection, and when: `times` has the number of bytes that had come up before, and the time."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)
    times: list[tuple[int, float]] = field(default_factory=list)

    def came(self, data: bytes) -> None:
        self.times.append((len(self.up), time.monotonic()))
        self.up += data

    def went(self, data: bytes) -> None:
        self.down += data

    def at(self, offset: int) -> float:
        return max((when for before, when in self.times if before <= offset), default=0.0)


class Wiretap(socketserver.ThreadingTCPServer):
    """Relays a free port on loopback to the gateway's while the block runs."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.target = ("127.0.0.1", port)
        self.kept: list[_Kept] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """What the clients are pointed at."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)

    def exchanges(self) -> list[Exchange]:
        """Return everything exchanged so far, in the order in which the requests came."""
        return sorted((exchange for kept in list(self.kept) for exchange in _read(kept)), key=lambda exchange: exchange.at)


class _Relay(socketserver.BaseRequestHandler):
    server: Wiretap

    def handle(self) -> None:
        kept = _Kept()
        self.server.kept.append(kept)
        try:
            upstream = socket.create_connection(self.server.target)
        except OSError:
            return
        with upstream:
            downward = threading.Thread(target=_pump, args=(upstream, self.request, kept.went), daemon=True)
            downward.start()
            _pump(self.request, upstream, kept.came)
            downward.join()


def _pump(source: socket.socket, sink: socket.socket, keep: Callable[[bytes], None]) -> None:
    """Relay until the source ends, then end the sink: each side sees the other's end, half closes included."""
    with contextlib.suppress(OSError):
        while data := source.recv(_READ):
            keep(data)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _read(kept: _Kept) -> Iterator[Exchange]:
    """Read one connection's exchanges. What is cut off in the middle is given as far as it came."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
    server.receive_data(bytes(kept.up))
    client.receive_data(bytes(kept.down))
    while True:
        at = kept.at(len(kept.up) - len(server.trailing_data[0]))
        request, content = _message(server, h11.Request)
        if request is None:
            return
        _say(client, request, content)
        response, answer = _message(client, h11.Response)
        status = response.status_code if response else 0
        target = request.target.decode()
        yield Exchange(request.method.decode(), target, _fields(request), content, status, _fields(response), answer, at)
        if response is None or h11.MUST_CLOSE in {server.our_state, client.our_state}:
            return
        _say(server, response, answer if request.method != b"HEAD" else b"")
        if {server.our_state, server.their_state, client.our_state, client.their_state} != {h11.DONE}:
            return
        server.start_next_cycle()
        client.start_next_cycle()


def _message(connection: h11.Connection, kind: type[Any]) -> tuple[Any, bytes]:
    """Return the next message's head, None when there is none, and as much of its body as there is."""
    head, body = None, bytearray()
    with contextlib.suppress(h11.ProtocolError):
        while True:
            event = connection.next_event()
            if isinstance(event, kind):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                break
    return head, bytes(body)


def _say(connection: h11.Connection, head: Any, body: bytes) -> None:
    """Tell a connection what its own side said, so that it understands the other."""
    with contextlib.suppress(h11.ProtocolError):
        connection.send(head)
        if body:
            connection.send(h11.Data(data=body))
        connection.send(h11.EndOfMessage())


def _fields(head: Any) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in head.headers} if head else {}
