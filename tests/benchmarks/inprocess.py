"""The whole middleware in one process, with no network under it: from a provider's prepared bytes to the client's frames.

Strategy: it is called as an ASGI app; LiteLLM makes the call, and where that would go over the network it is given an
`httpx.Response` over the bytes. Chunks come together, in one read, or alone: then the next is not there before all is done about
the last.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import upstream
from policies import POLICIES

__all__ = ["CASES", "Case", "answered", "app", "pieces"]

_TURNS: Final = 24
"""Turns of the loop after which all is done about a chunk; the numbers are the same with twice as many."""
_ENDS: Final = {"openai": b"data: [DONE]\n\n", "anthropic": b'data: {"type":"message_stop"}\n\n'}
_PATHS: Final = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of delta, from a provider's format to a client's, under a policy."""

    client: str
    provider: str
    kind: str = "text"
    policy: str | None = None

    @property
    def name(self) -> str:
        """What the budget is kept under."""
        return f"{self.kind}, {self.provider} to {self.client}, {self.policy or 'no policy'}"


CASES: Final = (
    Case("openai", "openai"),
    Case("openai", "openai", policy="replace"),
    Case("anthropic", "anthropic"),
    Case("anthropic", "anthropic", policy="replace"),
    Case("anthropic", "openai", policy="replace"),
    Case("openai", "anthropic", policy="replace"),
    Case("openai", "openai", kind="tool call"),
    Case("anthropic", "anthropic", kind="tool call"),
    Case("openai", "openai", kind="thinking"),
    Case("anthropic", "anthropic", kind="thinking"),
)


# --- the provider's bytes ----------------------------------------------------------------------------------------------------


def _openai(kind: str, deltas: int) -> list[str]:
    event = upstream._openai_event
    if kind == "tool call":
        opening = '{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"run","arguments":""}}]}'
        middle = '{{"tool_calls":[{{"index":0,"function":{{"arguments":" {}"}}}}]}}'
        closing = [event('{"tool_calls":[{"index":0,"function":{"arguments":" {}"}}]}'), event("{}", '"tool_calls"')]
    else:
        field = "content" if kind == "text" else "reasoning_content"
        opening, middle = '{"role":"assistant","content":""}', f'{{{{"{field}":"word{{}} "}}}}'
        closing = [event("{}", '"stop"')]
    filler = [event(middle.format("" if kind == "tool call" else number)) for number in range(deltas)]
    return [event(opening), *filler, *closing, "data: [DONE]\n\n"]


def _anthropic(kind: str, deltas: int) -> list[str]:
    blocks = {
        "text": ('{"type":"text","text":""}', '"type":"text_delta","text":"word{} "', "end_turn"),
        "tool call": (
            '{"type":"tool_use","id":"t","name":"run","input":{}}',
            '"type":"input_json_delta","partial_json":" "',
            "tool_use",
        ),
        "thinking": (
            '{"type":"thinking","thinking":"","signature":""}',
            '"type":"thinking_delta","thinking":"word{} "',
            "end_turn",
        ),
    }
    block, delta, reason = blocks[kind]
    last = {
        "tool call": '"type":"input_json_delta","partial_json":"{}"',
        "thinking": '"type":"signature_delta","signature":"c2ln"',
    }
    return [
        upstream.ANTHROPIC.opening[0],
        upstream._anthropic_event("content_block_start", f',"index":0,"content_block":{block}'),
        *(upstream._anthropic_delta(0, delta.format(number)) for number in range(deltas)),
        *([upstream._anthropic_delta(0, last[kind])] if kind in last else []),
        *upstream._anthropic_end(0, reason),
    ]


def pieces(case: Case, deltas: int, *, alone: bool) -> list[bytes]:
    """Return the reads of an answer: one an event, or the first event and all the others."""
    made = (_openai if case.provider == "openai" else _anthropic)(case.kind, deltas)
    written = [event.encode() for event in made]
    return written if alone else [written[0], b"".join(written[1:])]


# --- the call ----------------------------------------------------------------------------------------------------------------


async def answered(app: Any, case: Case, reads: list[bytes], begun: Callable[[], None]) -> None:
    """Let the app answer a request. `begun` is called when the answer's first byte is about to come.

    Raises `RuntimeError` when the client did not get all of it.
    """
    import httpx

    class Bytes(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await _idle()
            begun()
            for read in reads:
                yield read
                await _idle()

    async def handle(self: Any, request: Any) -> Any:
        head = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=head, stream=Bytes(), request=request)

    await app.start()
    transport = importlib.import_module("litellm.llms.custom_httpx.aiohttp_transport").LiteLLMAiohttpTransport
    transport.handle_async_request = _handle  # for good: the backend keeps the transport, and what it found there
    _provider.append(handle)
    try:
        got = await _call(app, case)
    finally:
        _provider.pop()
    sent = b"".join(reads)
    if b"error" in got or got.count(b"word") != sent.count(b"word") or not got.endswith(_ENDS[case.client]):
        raise RuntimeError(f"{case.name}: {got[:1000]!r} … {got[-200:]!r}")


_provider: Final[list[Callable[[Any, Any], Awaitable[Any]]]] = []
"""Who answers now."""


async def _handle(transport: Any, request: Any) -> Any:
    return await _provider[-1](transport, request)


async def _idle() -> None:
    """Wait for some turns of the loop, and wake up the one who waits but once: that is counted."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            done.set_result(None)

    turn(_TURNS)
    await done


async def _call(app: Any, case: Case) -> bytes:
    body = {"model": case.provider, "messages": [{"role": "user", "content": "Say it."}], "stream": True, "max_tokens": 4096}
    messages: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])
    ended = asyncio.Event()
    got: list[bytes] = []

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        got.append(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.set()

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": _PATHS[case.client],
    }
    scope |= {"asgi": {"version": "3.0"}, "raw_path": b"", "query_string": b"", "root_path": "", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}}
    await app(scope, receive, send)
    return b"".join(got)


def app(case: Case, directory: Path) -> Any:
    from starlette.applications import Starlette

    from luthien_asgi import JsonlRecorder, LiteLLMBackend, LuthienMiddleware

    models = [
        {"model_name": name, "litellm_params": {"model": f"{name}/x", "api_base": "http://127.0.0.1:9/v1", "api_key": "k"}}
        for name in _PATHS
    ]
    options = {"policy": POLICIES[case.policy](), "recorder": JsonlRecorder(directory / "records.jsonl")} if case.policy else {}
    return LuthienMiddleware(Starlette(), backend=LiteLLMBackend(model_list=models), auth=None, **options)
