"""A provider for a load: the benchmark's prepared bytes, with each stream's own marker in them, and the faults of its plan.

Every delta begins and ends with a half of a word that the policy replaces, so the policy has something to keep back and to change
at each of them: `ret @<clock>;~<number>~;… sec`. It runs in the event loop of the client, so both go by one clock and the run
sees both ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Mapping
from time import monotonic, monotonic_ns
from typing import Final

from borrowed import upstream
from plan import PROVIDER_FAULTS, Plan

__all__ = ["RETRY_AFTER", "Provider"]

RETRY_AFTER: Final = 7
_WIRES: Final = {b"/chat/completions ": b"chat/completions", b"/messages ": b"messages"}
_ERRORS: Final = {
    b"chat/completions": 'data: {{"error":{{"message":"{message}","type":"server_error","code":null}}}}\n\n',
    b"messages": 'event: error\ndata: {{"type":"error","error":{{"type":"overloaded_error","message":"{message}"}}}}\n\n',
}
_BODIES: Final = {
    b"chat/completions": {"error": {"message": "", "type": "server_error", "code": None}},
    b"messages": {"type": "error", "error": {"type": "api_error", "message": ""}},
}
_RST: Final = struct.pack("ii", 1, 0)


def said(plan: Plan, what: str) -> str:
    """Return the message of an error that the provider tells."""
    return f"the provider says {what} {plan.marker}"


def _answer(plan: Plan, wire: bytes) -> upstream.Answer:
    script = upstream.SCRIPTS[wire]
    mark = f"{upstream.PLACE.decode()};"
    delta = script.delta.replace("@", "ret @").replace("word ", f"{plan.marker};{'x' * plan.pad} sec")
    call = tuple(event.replace(f"#{mark}", f"{plan.call} #{mark}{plan.marker};") for event in script.call)
    opening = tuple(event.replace('_1"', f'_{plan.marker}"').replace('-1"', f'-{plan.marker}"') for event in script.opening)
    return upstream.written(script._replace(opening=opening, delta=delta, call=call))


class Provider:
    """Listens on loopback, and knows what is open."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.closed: dict[int, float] = {}
        """By number of the stream: when the gateway closed its connection before the answer was over (`monotonic`)."""
        self.finished: dict[int, float] = {}
        """By number of the stream: when its whole answer was written (`monotonic`)."""

    async def start(self) -> int:
        """Begin to listen; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=4096)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def answering(self) -> int:
        """How many answers are under way."""
        return sum(connection.plan is not None for connection in self.connections)

    def close_idle(self) -> None:
        """Close the connections that a gateway keeps for later."""
        for connection in list(self.connections):
            if connection.plan is None:
                connection.close()

    def close(self) -> None:
        """Stop."""
        self._server.close()
        for connection in list(self.connections):
            connection.close()


class Connection(upstream.Connection):
    """One connection of a gateway."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._provider = provider
        self.plan: Plan | None = None
        """What is being answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._provider.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._provider.connections.discard(self)
        if self.plan is not None:
            self._provider.closed[self.plan.number] = monotonic()

    def close(self) -> None:
        """Close."""
        self._transport.close()

    def asked(self, request: bytes) -> None:
        """Begin to answer a request as its plan says."""
        line = request[: request.find(b"HTTP/1.1")]
        self.plan = Plan.read(request)
        assert self.plan is not None, request[:2000]
        self._wire = next(wire for path, wire in _WIRES.items() if line.endswith(path))
        if self.plan.fault in _INSTEAD:
            _INSTEAD[self.plan.fault](self, self.plan)
            return
        self._parts = _answer(self.plan, self._wire)
        if self.plan.milliseconds == 0:
            self._burst(self.plan)
            return
        self._transport.write(self._parts.opening)
        self._tick(self._loop.time(), 0)

    def _burst(self, plan: Plan) -> None:
        text = b"".join(self._parts.delta(monotonic_ns()) for _ in range(plan.said))
        self._transport.write(self._parts.opening + text)
        self._finish(plan)

    def _tick(self, due: float, written: int) -> None:
        plan = self.plan
        if plan is None or self._transport.is_closing():
            return
        if written == plan.said:
            self._finish(plan)
            return
        self._transport.write(self._parts.delta(monotonic_ns()))
        # The end comes with the last delta, and a fault a pace after it.
        step = plan.milliseconds / 1000 if written + 1 < plan.said or plan.fault else 0
        self._loop.call_at(due + step, self._tick, due + step, written + 1)

    def _finish(self, plan: Plan) -> None:
        if plan.fault in _FAULTS:
            _FAULTS[plan.fault](self, plan)
        else:
            self._over(self._parts.end(calls=bool(plan.call)))

    def _over(self, last: bytes) -> None:
        if self.plan is not None and self.plan.fault not in PROVIDER_FAULTS:
            self._provider.finished[self.plan.number] = monotonic()
        self.plan = None
        self._transport.write(last)

    # --- faults ----------------------------------------------------------------------------------------------------------------

    def _reset(self, plan: Plan) -> None:
        self.plan = None
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self._transport.abort()

    def _cut(self, plan: Plan) -> None:
        self.plan = None
        self._transport.close()

    def _torn(self, plan: Plan) -> None:
        delta = self._parts.delta(monotonic_ns())
        self._over(delta[: len(delta) // 2])
        self._transport.close()

    def _end(self, plan: Plan) -> None:
        self._over(upstream.LAST)

    def _half(self, plan: Plan) -> None:
        event = _ERRORS[self._wire].format(message="never seen")
        self._over(upstream.chunk(event[: len(event) // 2]) + upstream.LAST)

    def _stall(self, plan: Plan) -> None:
        """Say nothing more; the gateway has to close."""

    def _error(self, plan: Plan) -> None:
        self._over(upstream.chunk(_ERRORS[self._wire].format(message=said(plan, "error"))) + upstream.LAST)

    def _garbage(self, plan: Plan) -> None:
        self._over(upstream.chunk('data: {"id": \x00\x1b]0;no JSON\n\n') + self._parts.closing)

    def _status(self, plan: Plan) -> None:
        body: Mapping[str, object] = _BODIES[self._wire]
        error = {**body["error"], "message": said(plan, plan.fault)}  # type: ignore[dict-item]  # one of ours
        raw = json.dumps({**body, "error": error}).encode()
        head = f"HTTP/1.1 {plan.fault} No\r\ncontent-type: application/json\r\nretry-after: {RETRY_AFTER}\r\n"
        self._over(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)


_Fault = Callable[[Connection, Plan], None]
_FAULTS: Final[Mapping[str, _Fault]] = {
    "reset": Connection._reset,
    "cut": Connection._cut,
    "torn": Connection._torn,
    "end": Connection._end,
    "half": Connection._half,
    "stall": Connection._stall,
    "error": Connection._error,
    "garbage": Connection._garbage,
}
_INSTEAD: Final[Mapping[str, _Fault]] = {"500": Connection._status, "429": Connection._status, "silent": Connection._stall}
"""What comes in place of an answer."""
