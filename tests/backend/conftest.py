"""A provider on loopback that says what it is told, keeps what it was asked, and sees when the other side hangs up."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from luthien_asgi.backend import BackendCall, LiteLLMBackend, hygiene, known
from luthien_asgi.request import ChatRequest

KEY = "sk-test-0123456789abcdef"
WAIT = 10.0


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: tuple[str, ...] = ()
    """Request line, header lines and body as they came; the body is the last."""


@dataclass
class Reply:
    """`hang` keeps the connection open after the body until the other side closes it."""

    body: bytes = b""
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    begin: bool = True
    hang: bool = False
    abort: bool = False


Script = Callable[[Asked], Reply]


class Provider:
    def __init__(self, script: Script) -> None:
        self._script = script
        self.asked: list[Asked] = []
        self.called = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self.answer, "127.0.0.1", 0, ssl=tls)
        self.url = f"http{'s' * (tls is not None)}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """Stop listening, and hang up."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            self.hung_up.set()
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = await _read_request(reader)
        self.asked.append(asked)
        reply = self._script(asked)
        self.called.set()
        if reply.begin:
            writer.write(_head(reply))
            if reply.body:
                writer.write(b"%x\r\n%s\r\n" % (len(reply.body), reply.body))
            await writer.drain()
        if reply.hang:
            await reader.read(1)
            return False
        if reply.abort:
            writer.transport.abort()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _read_request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    raw = (*(line for line in head if line), body.decode())
    return Asked(head[0].split(" ")[1], headers, json.loads(body or b"{}"), raw)


def _head(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} X", f"content-type: {reply.content_type}", "transfer-encoding: chunked"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Lab:
    """Starts providers and backends, and stops them at the end of the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def provider(self, script: Script, *, tls: ssl.SSLContext | None = None) -> Provider:
        provider = Provider(script)
        await provider.start(tls)
        self._stack.callback(provider.stop)
        return provider

    def backend(self, *entries: Mapping[str, Any], **options: Any) -> LiteLLMBackend:
        backend = LiteLLMBackend(list(entries), **options)
        self._stack.push_async_callback(backend.aclose)
        return backend

    def calling(self, model: str, url: str, **params: Any) -> LiteLLMBackend:
        """A backend with one model, `m`."""
        return self.backend(entry(model, url, **params))


def entry(model: str, url: str, **params: Any) -> dict[str, Any]:
    provider = model.partition("/")[0]
    base = url if provider in {"anthropic", "azure", "ollama_chat", "gemini"} else f"{url}/v1"
    version = {"api_version": "2024-10-21"} if provider == "azure" else {}
    return {"model_name": "m", "litellm_params": {"model": model, "api_base": base, "api_key": KEY, **version, **params}}


def ask(
    wire: Any = "openai",
    *,
    model: str = "m",
    credential: str | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> BackendCall:
    messages = [{"role": "user", "content": "hello"}]
    required = {"max_tokens": 16} if wire == "anthropic" else {}
    body = {"model": model, "messages": messages, **required, **fields}
    return BackendCall(request=ChatRequest(wire=wire, body=body), credential=credential, headers=headers or {})


def sse(*events: Any) -> bytes:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if isinstance(event, dict) and "choices" not in event and "type" in event else ""
        data = event if isinstance(event, str) else json.dumps(event)
        lines.append(f"{name}data: {data}\n\n")
    return "".join(lines).encode()


def openai_events(*texts: str) -> list[Any]:
    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "served", "choices": [choice]}

    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    parts = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    return [*parts, chunk({}, "stop"), {**chunk({}), "choices": [], "usage": usage}, "[DONE]"]


def anthropic_events(*texts: str, id: str = "msg_1") -> list[Any]:  # noqa: A002 - the API's name
    message = {"id": id, "type": "message", "role": "assistant", "model": "served", "content": [], "stop_reason": None}
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts]
    return [
        {"type": "message_start", "message": {**message, "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]


async def collect(stream: Any) -> list[Any]:
    try:
        async with asyncio.timeout(WAIT):
            return [chunk async for chunk in stream]
    finally:
        await stream.aclose()


async def until_error(stream: Any) -> tuple[list[Any], Exception | None]:
    """The chunks that came, and the error after them."""
    chunks: list[Any] = []
    try:
        async with asyncio.timeout(WAIT), aclosing(stream):
            async for chunk in stream:
                chunks.append(chunk)
    except Exception as error:
        return chunks, error
    return chunks, None


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(WAIT):
        return await awaitable


def own_wire(model: str) -> str:
    """The wire that a model's provider speaks."""
    return "anthropic" if model.startswith("anthropic/") else "openai"


def answer(model: str) -> Reply:
    return Reply(sse(*(anthropic_events("a") if own_wire(model) == "anthropic" else openai_events("a"))))


@dataclass(frozen=True)
class Tools:
    ask: Any = ask
    own_wire: Any = own_wire
    answer: Any = answer
    entry: Any = entry
    sse: Any = sse
    openai_events: Any = openai_events
    anthropic_events: Any = anthropic_events
    collect: Any = collect
    soon: Any = soon
    until_error: Any = until_error
    reply: Any = Reply
    key: str = KEY


@pytest.fixture
def kit() -> Tools:
    return Tools()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with AsyncExitStack() as stack:
        yield Lab(stack)


__all__: Sequence[str] = ()


@pytest.fixture
async def asked_litellm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that LiteLLM was asked for, with none of the settings that other tests may have left on."""
    litellm = await hygiene.load()
    for name in known.PLAIN_CALL_SETTINGS:
        if (left := getattr(litellm, name, None)) is not None:
            monkeypatch.setattr(litellm, name, type(left)())
    calls: list[str] = []
    plain = litellm.acompletion

    async def counting(**arguments: Any) -> Any:
        calls.append(arguments["model"])
        return await plain(**arguments)

    monkeypatch.setattr(litellm, "acompletion", counting)
    return calls
