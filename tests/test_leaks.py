"""What a transaction leaves: nothing, however it ended."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from luthien_asgi import (
    Block,
    BlockKind,
    Chain,
    Deny,
    Hold,
    JsonlRecorder,
    LiteLLMBackend,
    LuthienMiddleware,
    Policy,
    StreamContext,
)
from luthien_asgi.policies import ReplaceText
from luthien_asgi.testing import Answer, ASGIDriver, Disconnect, ErrorEvent, Failure, ScriptedProvider, Stall, Text, ToolCall

pytestmark = [pytest.mark.litellm, pytest.mark.broken_off]

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
COUNTED = (
    "_asyncio.Task",
    "_asyncio.Future",
    "socket.socket",
    "builtins.coroutine",
    "builtins.async_generator",
    "builtins.traceback",
)
PREFIXES = (
    "luthien_asgi.",
    "httpx.",
    "aiohttp.client",
    "sse_starlette.",
    "starlette.",
    "anyio.",
    "openai.",
    "litellm.types.utils",
)
ROUNDS = 6


class DenyCalls(Policy):
    """Denies every tool call, and asks for room to say so."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Deny:
        return Deny("no")


def census() -> Counter[str]:
    """Count what could be left of transactions, once the collector has been through."""
    gc.collect()
    names = (f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return Counter(
        name for name in names if name in COUNTED or (name.startswith(PREFIXES) and not name.startswith("luthien_asgi.testing"))
    )


Kind = Callable[[ASGIDriver, ScriptedProvider, str, str], Awaitable[None]]


def asked(path: str, model: str, **fields: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    return {"model": model, "stream": True} | ({"input": "Hi"} if path == RESPONSES else said) | fields


async def streamed(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Answer(Text("foo ", "and ", "bar"))
    assert (await driver.fetch("POST", path, json=asked(path, model))).status == 200


async def collected(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Answer(Text("foo ", "and ", "bar"))
    assert (await driver.fetch("POST", path, json=asked(path, model, stream=False))).status == 200


async def denied(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Answer(Text("foo "), ToolCall("call_1", "bash", {"command": "rm"}))
    assert (await driver.fetch("POST", path, json=asked(path, model))).status == 200


async def refused(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Failure(429, message="slow down")
    assert (await driver.fetch("POST", path, json=asked(path, model))).status == 429


async def invalid(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    assert (await driver.fetch("POST", path, json=asked(path, model, stream="perhaps"))).status == 400


async def failing(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Answer(Text("foo ", "and ", "bar"), faults=(ErrorEvent(after=3),))
    assert (await driver.fetch("POST", path, json=asked(path, model))).status == 200


async def broken(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Answer(Text("foo ", "and ", "bar"), faults=(Disconnect(after=3),))
    assert (await driver.fetch("POST", path, json=asked(path, model))).status == 200


async def left(driver: ASGIDriver, provider: ScriptedProvider, path: str, model: str) -> None:
    provider.script = Answer(Text("one ", "two ", "three ", "four ", "five "), faults=(Stall(after=6),))
    async with driver.request("POST", path, json=asked(path, model)) as response:
        assert await response.part()
        response.disconnect()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[tuple[ASGIDriver, ScriptedProvider]]:
    """A middleware with everything on, in front of a provider of both wires."""
    async with ScriptedProvider(Answer("x")) as provider:
        models = [
            {"model_name": "gpt", "litellm_params": {"model": "openai/x", "api_base": f"{provider.url}/v1", "api_key": "k"}},
            {"model_name": "claude", "litellm_params": {"model": "anthropic/x", "api_base": provider.url, "api_key": "k"}},
        ]
        middleware = LuthienMiddleware(
            nothing,
            backend=LiteLLMBackend(models),
            policy=Chain([ReplaceText(replacements=[("foo", "bar")]), DenyCalls()]),
            recorder=JsonlRecorder(tmp_path / "records.jsonl"),
            auth=None,
        )
        await middleware.start()
        yield ASGIDriver(middleware, within=30), provider
        await middleware.aclose()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["type"])


PAIRS = [(OPENAI, "gpt"), (ANTHROPIC, "claude"), (OPENAI, "claude"), (RESPONSES, "gpt")]


@pytest.mark.parametrize("kind", [streamed, collected, denied, refused, invalid, failing, broken, left])
async def test_a_transaction_that_is_over_leaves_nothing(setting: tuple[ASGIDriver, ScriptedProvider], kind: Kind) -> None:
    """No object of ours, no task, socket, coroutine, traceback or response, after many of a kind no more than after a few."""
    driver, provider = setting

    async def some(rounds: int) -> Counter[str]:
        for _ in range(rounds):
            for path, model in PAIRS:
                await kind(driver, provider, path, model)
        await asyncio.sleep(0)
        return census()

    before = await some(2)
    grown = await some(ROUNDS) - before
    # A connection or a task more may be on its way out; one for each transaction may not.
    assert {name: number for name, number in grown.items() if number >= ROUNDS} == {}


async def test_an_answer_that_does_not_stream_leaves_no_circles(setting: tuple[ASGIDriver, ScriptedProvider]) -> None:
    """All of it goes when the last reference does, and costs the garbage collector nothing."""
    driver, provider = setting
    for path, model in PAIRS:
        await collected(driver, provider, path, model)
    gc.collect()
    gc.disable()
    try:
        before = Counter(type(thing).__qualname__ for thing in gc.get_objects())
        for _ in range(ROUNDS):
            await collected(driver, provider, OPENAI, "gpt")
        left = Counter(type(thing).__qualname__ for thing in gc.get_objects()) - before
    finally:
        gc.enable()
    kept = {"Exchange", "Completion", "ClientConnection", "StreamingClient", "Response", "Request", "Task", "ChunkStream"}
    assert {name: number for name, number in left.items() if name in kept and number >= ROUNDS} == {}
