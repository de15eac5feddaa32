"""One cell of the matrix: one fault at one server in one format, and everything that was seen of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from lab_http import Client, Response, body_of, polled, request_of
from lab_rows import Row, Want, Wire
from lab_servers import Server, provider_wire

from luthien_asgi.testing import ProviderRequest, ScriptedProvider

ARRIVE_SECONDS: Final = 10.0


@dataclass
class Seen:
    """What a client has seen."""

    responses: list[Response] = field(default_factory=list)
    left: float = 0.0
    """`time.monotonic()` when the client left; 0 when it did not."""
    more: list[str] = field(default_factory=list)
    """What the client itself has to complain about."""

    @property
    def over(self) -> float:
        """When nothing more of the provider was of use to anybody."""
        return self.left or max((response.at for response in self.responses), default=0.0) or time.monotonic()


@dataclass
class Cell:
    """One cell. `marker` is in its request, and in nobody else's."""

    row: Row
    server: Server
    provider: ScriptedProvider
    wire: Wire
    stream: bool
    marker: str
    late: list[str] = field(default_factory=list)
    """Complaints about time, which a busy machine may be to blame for."""
    red: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    """What was wrong while others ran beside it, and was not when it ran alone."""

    @property
    def want(self) -> Want:
        want = self.row.want(self.server.kind, stream=self.stream)
        assert want is not None
        return want

    @property
    def wrong(self) -> list[str]:
        """Everything that there is to complain about."""
        return [*self.red, *self.late]

    @property
    def mark(self) -> str:
        return "x" if self.wrong else "~" if self.beside else "."

    @property
    def column(self) -> tuple[str, str, bool]:
        return self.server.kind, self.wire, self.stream

    def __str__(self) -> str:
        return f"{self.row.name}, {self.server.kind}, {self.wire}{'' if self.stream else ' whole'}"

    def body(self, **more: Any) -> dict[str, Any]:
        """Return the body of the cell's request."""
        text = f"{self.marker} {self.row.text}"
        if self.stream and self.wire == "openai":
            more = {"stream_options": {"include_usage": True}} | more
        return body_of(self.wire, f"{self.row.route}-{provider_wire(self.wire)}", text, stream=self.stream, **more)

    def request(self, **more: Any) -> bytes:
        """Return the cell's request, as it is on the wire."""
        return request_of(self.wire, self.body(), **more)

    def client(self, **more: Any) -> Client:
        """Return a connection to the cell's server."""
        return Client(self.server.port, **more)

    def asked(self) -> list[ProviderRequest]:
        """Return the provider's requests of this cell."""
        mark = self.marker.encode()
        return [request for request in self.provider.requests if mark in request.content]

    async def arrived(self, *, sent: int = 0) -> None:
        """Wait until the provider was asked, and has sent so many events."""
        if not await polled(lambda: any(request.sent >= sent for request in self.asked()), ARRIVE_SECONDS):
            self.red.append("the provider was not asked")


async def ask(cell: Cell) -> Seen:
    """Ask, and read the answer to its end."""
    async with cell.client() as client:
        await client.send(cell.request())
        return Seen([await client.response()])
