"""A recorder of one's own has four methods and nothing else; the middleware and the gateway need no more of it."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi import Begin, End, LuthienMiddleware
from luthien_asgi.config import Config
from luthien_asgi.recorder import TransactionRecorder, is_durable, is_healthy, wants_blocks
from luthien_asgi.server import create_app
from luthien_asgi.shared_recorder import SharedRecorder
from luthien_asgi.testing import Answer, ASGIDriver, ScriptedBackend, ScriptedProvider, chunks

PATHS = ["/v1/chat/completions", "/v1/messages", "/v1/responses"]


class Four:
    """Keeps records, and has no attribute that a class has not by itself."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def begin(self, begin: Begin) -> None:
        self.calls.append(begin)

    async def end(self, end: End) -> None:
        self.calls.append(end)

    async def aclose(self) -> None:
        self.calls.append("close")


def asked(path: str, *, stream: bool) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"model": "scripted", "input": "Hi", "stream": stream}
    return {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "stream": stream}


def check(calls: list[Any], count: int) -> None:
    """Check that each transaction was begun and ended once, blocks and all, between one start and one close."""
    assert (calls[0], calls[-1], len(calls)) == ("start", "close", 2 * count + 2)
    for begin, end in zip(calls[1:-1:2], calls[2:-1:2], strict=True):
        assert (begin.id, end.ending, end.status) == (end.id, "completed", 200)
        assert [block.text for block in end.final_blocks] == [block.text for block in end.backend_blocks] == ["Hello"]


async def ask_all(driver: ASGIDriver, headers: dict[str, str]) -> None:
    for path in PATHS:
        for stream in (True, False):
            response = await driver.fetch("POST", path, json=asked(path, stream=stream), headers=headers)
            assert response.status == 200, response.body


async def test_it_is_enough_under_the_middleware() -> None:
    """In every format, streamed or not."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    recorder = Four()
    middleware = LuthienMiddleware(behind, backend=ScriptedBackend(chunks("Hel", "lo")), recorder=recorder)
    await ask_all(ASGIDriver(middleware), {})
    await middleware.aclose()
    check(recorder.calls, 6)


@pytest.mark.litellm
async def test_it_is_enough_under_the_gateway() -> None:
    """There configurations share it, one after the other."""
    recorder = Four()
    async with ScriptedProvider(Answer("Hel", "lo")) as provider:
        params = {"model": "openai/gpt-4o-mini", "api_base": f"{provider.url}/v1", "api_key": "provider-key"}
        models = [{"model_name": "scripted", "litellm_params": params}]
        config = Config(file="test", model_list=models, auth=["client-key"], recorder=recorder)
        driver = ASGIDriver(create_app(config), within=60)
        async with driver.lifespan():
            await ask_all(driver, {"authorization": "Bearer client-key"})
    check(recorder.calls, 6)


@pytest.mark.parametrize("shared", [False, True])
def test_what_it_does_not_say_has_a_default(*, shared: bool) -> None:
    """By itself, and shared by several configurations."""
    recorder: TransactionRecorder = SharedRecorder(Four()).lease() if shared else Four()
    assert (wants_blocks(recorder), is_durable(recorder), is_healthy(recorder)) == (True, False, True)
