"""What a client is told above each limit: a status that fits, in its own format, and the limit's name in the message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import Limits, LiteLLMBackend, LuthienMiddleware
from luthien_asgi.testing import Answer, ASGIDriver, Fetched, RawStream, ScriptedProvider, Stall

HI = [{"role": "user", "content": "hi"}]
PATHS = ["/v1/chat/completions", "/v1/messages"]


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": HI, **more}


TOO_MUCH: dict[str, tuple[int, int, Callable[[], dict[str, Any]]]] = {
    "body_bytes": (50, 413, body),
    "json_items": (9, 400, lambda: body(tools=[{"type": "x", "name": "x"}])),
    "header_bytes": (150, 431, lambda: body(stop=["x"])),
    "json_depth": (4, 400, lambda: body(tools=[{"a": {"b": {"c": {"d": 1}}}}])),
    "messages": (1, 400, lambda: body(messages=[*HI, *HI])),
    "parts": (1, 400, lambda: body(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}] * 2}])),
    "choices": (1, 400, lambda: body(n=2)),
    "tools": (1, 400, lambda: body(tools=[{"type": "x", "name": "x"}] * 2)),
    "frame_bytes": (64, 502, lambda: body(stream=True)),
    "streams": (1, 429, body),
    "client_streams": (1, 429, body),
    "unauthenticated": (1, 429, body),
}
"""The limit, the status above it, and a request that is above it."""


def test_every_limit_is_tried() -> None:
    """A limit that is added is tried here."""
    assert set(TOO_MUCH) == {field.name for field in fields(Limits)}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Nobody asks the app behind."""
    raise AssertionError(scope["path"])


async def refused(stack: AsyncExitStack, name: str, path: str) -> Fetched:
    limit, _, too_much = TOO_MUCH[name]
    long = b"data: " + b"x" * 100 + b"\n\n"
    script = RawStream(long) if name == "frame_bytes" else Answer("fine", faults=(Stall(),))
    provider = await stack.enter_async_context(ScriptedProvider(script))
    kind, base = ("openai", f"{provider.url}/v1") if path == PATHS[0] else ("anthropic", provider.url)
    params = {"model": f"{kind}/any", "api_base": base, "api_key": "sk-server-0123"}
    limits = Limits(**{name: limit})
    backend = LiteLLMBackend(model_list=[{"model_name": "m", "litellm_params": params}], limits=limits)
    known = asyncio.Event()

    async def slowly(_: Mapping[str, str]) -> str:
        await known.wait()
        return "somebody"

    auth: Any = slowly if name == "unauthenticated" else lambda _: "somebody"
    app = LuthienMiddleware(nothing, backend=backend, auth=auth, limits=limits)
    stack.push_async_callback(app.aclose)
    await app.start()  # an import that is begun is not left behind
    driver = ASGIDriver(app, within=60)
    if name in {"streams", "client_streams"}:
        await stack.enter_async_context(driver.request("POST", path, json=body(), wait=False))
        await provider.wait_requests(within=60)
    if name == "unauthenticated":
        await stack.enter_async_context(driver.request("POST", path, json=body(), wait=False))
        await wait_all_tasks_blocked()
        stack.callback(known.set)
    return await driver.fetch("POST", path, json=too_much())


@pytest.mark.broken_off
@pytest.mark.litellm
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", TOO_MUCH)
async def test_an_error_names_the_limit_that_was_exceeded(name: str, path: str) -> None:
    """Whoever runs the server reads in the message what to change."""
    if (name, path) == ("choices", "/v1/messages"):
        pytest.skip("Anthropic's format has no n")
    async with AsyncExitStack() as stack:
        answer = await refused(stack, name, path)
    assert answer.status == TOO_MUCH[name][1]
    message = json.loads(answer.body)["error"]["message"]
    assert f"({name})" in message
    assert str(TOO_MUCH[name][0]) in message
