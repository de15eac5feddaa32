"""A provider that costs next to nothing: prepared bytes on raw sockets, checked by nobody.

The path says what to send: `/200/0/v1/chat/completions` is 200 OpenAI deltas in one write, `/100/20/v1/messages` is 100
Anthropic deltas, one every 20 ms, and `call` behind the two numbers adds a tool call at the end, whose arguments carry `#`, the
clock in sixteen digits and `;`. Each delta's text carries `@`, sixteen digits and `;`: its number in a burst, and when paced
the monotonic clock in ns at its write, from which a client on the same machine tells what a server added. The numbers also keep
LiteLLM from ending a stream that says the same thing a hundred times.

Run as `python upstream.py [--cpu N]`; the first line of its output is the port. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from functools import cache
from time import monotonic_ns
from typing import Final, NamedTuple

import uvloop
from processes import announce, leash, pin

MARK: Final = re.compile(rb"@(\d{16});")

CALL_MARK: Final = re.compile(rb"#(\d{16});")

_PATH: Final = re.compile(rb"POST /(\d+)/(\d+)/(call/)?\S*/?(chat/completions|messages)(?:\?\S*)? HTTP/1\.1\r\n")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
PLACE: Final = b"0" * 16
"""Where a mark's digits go."""
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_REFUSAL: Final = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
LAST: Final = b"0\r\n\r\n"
"""The last chunk of an answer."""


class Script(NamedTuple):
    """The events of an answer; `delta` and `call` have sixteen zeros where the mark's digits go."""

    opening: tuple[str, ...]
    delta: str
    closing: tuple[str, ...]
    call: tuple[str, ...]
    """What ends an answer with a tool call, instead of `closing`."""


def _openai_event(delta: str, finish: str = "null") -> str:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    head = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"x","system_fingerprint":"fp_1"'
    return f'data: {{{head},"choices":[{choice}]}}\n\n'


def _anthropic_event(name: str, rest: str = "") -> str:
    return f'event: {name}\ndata: {{"type":"{name}"{rest}}}\n\n'


def _anthropic_delta(index: int, delta: str) -> str:
    return _anthropic_event("content_block_delta", f',"index":{index},"delta":{{{delta}}}')


def _anthropic_end(index: int, reason: str) -> tuple[str, ...]:
    return (
        _anthropic_event("content_block_stop", f',"index":{index}'),
        _anthropic_event(
            "message_delta", f',"delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"output_tokens":7}}'
        ),
        _anthropic_event("message_stop"),
    )


OPENAI: Final = Script(
    opening=(_openai_event('{"role":"assistant","content":""}'),),
    delta=_openai_event(f'{{"content":"@{PLACE.decode()};word "}}'),
    closing=(_openai_event("{}", '"stop"'), "data: [DONE]\n\n"),
    call=(
        _openai_event(
            '{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"run","arguments":"{\\"at\\": "}}]}'
        ),
        _openai_event(f'{{"tool_calls":[{{"index":0,"function":{{"arguments":"\\"#{PLACE.decode()};\\"}}"}}}}]}}'),
        _openai_event("{}", '"tool_calls"'),
        "data: [DONE]\n\n",
    ),
)
ANTHROPIC: Final = Script(
    opening=(
        _anthropic_event(
            "message_start",
            ',"message":{"id":"msg_1","type":"message","role":"assistant","model":"x","content":[],"stop_reason":null,'
            '"stop_sequence":null,"usage":{"input_tokens":5,"output_tokens":1}}',
        ),
        _anthropic_event("content_block_start", ',"index":0,"content_block":{"type":"text","text":""}'),
        _anthropic_event("ping"),
    ),
    delta=_anthropic_delta(0, f'"type":"text_delta","text":"@{PLACE.decode()};word "'),
    closing=_anthropic_end(0, "end_turn"),
    call=(
        _anthropic_event("content_block_stop", ',"index":0'),
        _anthropic_event(
            "content_block_start", ',"index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"run","input":{}}'
        ),
        _anthropic_delta(1, '"type":"input_json_delta","partial_json":"{\\"at\\": "'),
        _anthropic_delta(1, f'"type":"input_json_delta","partial_json":"\\"#{PLACE.decode()};\\"}}"'),
        *_anthropic_end(1, "tool_use"),
    ),
)
SCRIPTS: Final = {b"chat/completions": OPENAI, b"messages": ANTHROPIC}


class Answer(NamedTuple):
    """The bytes of an answer, every event an HTTP chunk of its own."""

    opening: bytes
    before_mark: bytes
    after_mark: bytes
    closing: bytes
    call: bytes

    def delta(self, number: int) -> bytes:
        """Return one delta."""
        return b"%s%016d%s" % (self.before_mark, number, self.after_mark)

    def end(self, *, calls: bool) -> bytes:
        """Return what follows the last delta; a tool call carries the time."""
        return self.call.replace(PLACE, b"%016d" % monotonic_ns()) if calls else self.closing


@cache
def answer(dialect: bytes) -> Answer:
    """Return the bytes for a path's ending."""
    return written(SCRIPTS[dialect])


def written(script: Script) -> Answer:
    """Return the bytes of a script."""
    before, after = chunk(script.delta).split(PLACE)
    opening, closing, call = (b"".join(map(chunk, events)) for events in (script.opening, script.closing, script.call))
    return Answer(_HEAD + opening, before, after, closing + LAST, call + LAST)


@cache
def burst(dialect: bytes, deltas: int) -> bytes:
    """Return an answer up to its last delta."""
    parts = answer(dialect)
    return parts.opening + b"".join(map(parts.delta, range(deltas)))


def chunk(event: str) -> bytes:
    """Return an event as an HTTP chunk."""
    raw = event.encode()
    return b"%x\r\n%s\r\n" % (len(raw), raw)


class Connection(asyncio.Protocol):
    """One connection of a gateway; answers one request after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        if not self._complete(end):
            return
        request, self._received = self._received, b""
        self.asked(request)

    def asked(self, request: bytes) -> None:
        """Answer one whole request."""
        asked = _PATH.match(request)
        if asked is None:
            self._transport.write(_REFUSAL)
            self._transport.close()
            return
        self._calls = asked[3] is not None
        self._answer(int(asked[1]), int(asked[2]), asked[4])

    def _complete(self, end: int) -> bool:
        if _CHUNKED.search(self._received, 0, end + 2):
            return self._received.endswith(LAST)
        length = _LENGTH.search(self._received, 0, end + 2)
        return len(self._received) >= end + 4 + (int(length[1]) if length else 0)

    def _answer(self, deltas: int, milliseconds: int, dialect: bytes) -> None:
        parts = answer(dialect)
        if milliseconds == 0:
            self._transport.write(burst(dialect, deltas) + parts.end(calls=self._calls))
            return
        self._transport.write(parts.opening + parts.delta(monotonic_ns()))
        self._later(parts, deltas - 1, milliseconds / 1000, self._loop.time())

    def _later(self, parts: Answer, left: int, step: float, now: float) -> None:
        if left == 0:
            self._transport.write(parts.end(calls=self._calls))
            return
        self._loop.call_at(now + step, self._tick, parts, left, step, now + step)

    def _tick(self, parts: Answer, left: int, step: float, due: float) -> None:
        if not self._transport.is_closing():
            self._transport.write(parts.delta(monotonic_ns()))
            self._later(parts, left - 1, step, due)


async def serve() -> None:
    """Serve until the parent lets go."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", type=int)
    pin(parser.parse_args().cpu)
    leash()
    uvloop.run(serve())
