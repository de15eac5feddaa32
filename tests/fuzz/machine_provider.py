"""A provider that says what a test tells it to, when it tells it: an answer on either wire, event by event.

Strategy: the test asks for a piece (text, thinking, a call, its arguments, an end); the wire's writer makes the events of it that
are legal now. Every piece has a mark of its own, so that whatever reaches a client can be traced to the block it came from.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from luthien_asgi import RequestError
from luthien_asgi.backend.chunks import build
from luthien_asgi.backend.protocol import BackendCall, Target
from luthien_asgi.backend.stream import ChunkStream, RawSource, StreamInfo
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.openai_decoder import OpenAIDecoder

__all__ = ["AnthropicScript", "ManualBackend", "OpenAIScript"]


class ManualBackend:
    """A backend whose one call is opened, and whose packets come, when the test says so."""

    make_chunk = staticmethod(build)

    def __init__(self, wire: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.wire = wire
        self.opening: asyncio.Future[None] = loop.create_future()
        self.calls = 0
        self.response: Response | None = None

    async def start(self) -> None:
        """Be ready."""

    def models(self) -> Sequence[str]:
        """Return the one name."""
        return ("m",)

    def target(self, model: str) -> Target:
        """Return a target that spends no key."""
        if model != "m":
            raise RequestError(f"there is no {model}", status=404)
        return Target(name="m", provider=self.wire, wire=self.wire, spends_key=False)

    async def open(self, call: BackendCall) -> ChunkStream:
        """Wait until the test opens the answer, or has it refused."""
        self.calls += 1
        await self.opening
        self.response = Response()
        decoder = (OpenAIDecoder if self.wire == "openai" else AnthropicDecoder)(1 << 16, 7)
        info = StreamInfo(
            wire=self.wire, decoder=self.wire, headers={}, sent={}, ignored=(), notes=(), close_timeout=0.5
        )  # fmt: skip
        return ChunkStream(RawSource(self.response, decoder), info)

    async def count_tokens(self, call: BackendCall) -> int:
        """Return a number."""
        return 1

    async def aclose(self) -> None:
        """Do nothing."""


class Response:
    """As much of a provider's HTTP response as is read of one."""

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        self.waiting: deque[bytes | BaseException | None] = deque()
        self.taken = 0
        """Bytes that were read."""
        self.closed = False
        self._more = asyncio.Event()
        self.stream = self._read()

    def give(self, item: bytes | BaseException | None) -> None:
        """Have a packet come, the connection break with an error, or the stream end."""
        self.waiting.append(item)
        self._more.set()

    async def _read(self) -> AsyncIterator[bytes]:
        while True:
            while not self.waiting:
                self._more.clear()
                await self._more.wait()
            item = self.waiting.popleft()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            self.taken += len(item)
            yield item

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True


class OpenAIScript:
    """Chat-completion chunks: several choices, calls that come interleaved."""

    choices = 2

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        self.finished: set[int] = set()

    def open_choices(self) -> list[int]:
        """Return the choices that have not finished."""
        return [choice for choice in range(self.choices) if choice not in self.finished]

    def calls_of(self, choice: int) -> int:
        """Return how many calls a choice has."""
        return self._calls.get(choice, 0)

    def text(self, choice: int, text: str) -> bytes:
        return self._delta(choice, {"content": text})

    def thinking(self, choice: int, text: str) -> bytes:
        return self._delta(choice, {"reasoning_content": text})

    def call(self, choice: int, name: str) -> bytes:
        index = self._calls[choice] = self.calls_of(choice) + 1
        function = {"name": name, "arguments": ""}
        call = {"index": index - 1, "id": f"call_{choice}_{index}", "type": "function", "function": function}
        return self._delta(choice, {"tool_calls": [call]})

    def arguments(self, choice: int, index: int, text: str) -> bytes:
        return self._delta(choice, {"tool_calls": [{"index": index, "function": {"arguments": text}}]})

    def finish(self, choice: int) -> bytes:
        self.finished.add(choice)
        return self._delta(choice, {}, finish="tool_calls" if self.calls_of(choice) else "stop")

    def usage(self) -> bytes:
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage})

    def ping(self) -> bytes:
        return b": ping\n\n"

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self) -> bytes:
        return _event({"error": {"message": "overloaded", "type": "server_error", "code": 503}})

    @staticmethod
    def _delta(choice: int, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        chunk = {"index": choice, "delta": delta, "finish_reason": finish}
        return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [chunk]})


class AnthropicScript:
    """Message events: one choice, one block at a time, numbered by the provider."""

    choices = 1

    def __init__(self) -> None:
        self._blocks = 0
        self._open = ""
        self._calls: list[int] = []
        self.finished: set[int] = set()

    def open_choices(self) -> list[int]:
        """Return the one choice while the message goes on."""
        return [] if self.finished else [0]

    def calls_of(self, choice: int) -> int:
        """Return 1 while a call can get arguments: only the open block can."""
        return 1 if self._open == "tool_use" else 0

    def text(self, choice: int, text: str) -> bytes:
        begun = self._begin("text", {"text": ""}) if self._open != "text" else b""
        return begun + self._delta(type="text_delta", text=text)

    def thinking(self, choice: int, text: str) -> bytes:
        begun = self._begin("thinking", {"thinking": "", "signature": ""}) if self._open != "thinking" else b""
        return begun + self._delta(type="thinking_delta", thinking=text)

    def call(self, choice: int, name: str) -> bytes:
        self._calls.append(self._blocks)
        return self._begin("tool_use", {"id": f"toolu_{self._blocks}", "name": name, "input": {}})

    def arguments(self, choice: int, index: int, text: str) -> bytes:
        return self._delta(type="input_json_delta", partial_json=text)

    def finish(self, choice: int) -> bytes:
        self.finished.add(0)
        reason = "tool_use" if self._calls else "end_turn"
        ended = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 5}}
        return self._started() + self._close() + _named(ended)

    def usage(self) -> bytes:
        return self.ping()

    def ping(self) -> bytes:
        return self._started() + _named({"type": "ping"})

    def done(self) -> bytes:
        return _named({"type": "message_stop"})

    def error(self) -> bytes:
        return _named({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}})

    def _started(self) -> bytes:
        if self._blocks or self._open == "begun":
            return b""
        self._open = "begun"
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
        return _named({"type": "message_start", "message": {**message, "usage": {"input_tokens": 3, "output_tokens": 1}}})

    def _begin(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        begun = self._started() + self._close()
        self._open = kind
        self._blocks += 1
        block = {"type": kind, **fields}
        return begun + _named({"type": "content_block_start", "index": self._blocks - 1, "content_block": block})

    def _delta(self, **delta: Any) -> bytes:
        return _named({"type": "content_block_delta", "index": self._blocks - 1, "delta": delta})

    def _close(self) -> bytes:
        if self._open in {"", "begun"}:
            return b""
        signed = self._delta(type="signature_delta", signature="c2ln") if self._open == "thinking" else b""
        self._open = "begun"
        return signed + _named({"type": "content_block_stop", "index": self._blocks - 1})


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _named(data: Mapping[str, Any]) -> bytes:
    return b"event: " + str(data["type"]).encode() + b"\n" + _event(data)
