"""Who is not known takes no client's place: not with a body that never ends, a slow authenticator, or by not reading."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import KeyAuth, Limits, LuthienMiddleware, Paths, StreamSettings
from luthien_asgi.approvals import Approvals
from luthien_asgi.errors import ApiError
from luthien_asgi.testing import ASGIDriver, DriverResponse, Fetched, ScriptedBackend, chunks

OPENAI, ANTHROPIC, RESPONSES, COUNT = "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/messages/count_tokens"
PATHS = [OPENAI, ANTHROPIC, RESPONSES, COUNT]
MODELS, OPERATORS = "/v1/models", "/luthien/approvals"
KNOWN = {"x-luthien-key": "key-of-alice"}
CROWD = 5


class Directory:
    """An authenticator that knows alice at once, and looks long for everybody else: until `answers` is set."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = 0

    async def __call__(self, headers: Mapping[str, str]) -> str:
        if headers.get("x-luthien-key") == KNOWN["x-luthien-key"]:
            return "alice"
        self.asked += 1
        await self.answers.wait()
        raise ApiError("Nobody knows you.", status=401)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["path"])


def make(auth: Any, *, buffer: int = 64, **options: Any) -> tuple[ASGIDriver, LuthienMiddleware]:
    paths = Paths(models=MODELS, approvals=OPERATORS if "approvals" in options else None)
    app = LuthienMiddleware(nothing, backend=ScriptedBackend(chunks("Hello")), auth=auth, paths=paths, **options)
    return ASGIDriver(app, buffer=buffer), app


async def ask(driver: ASGIDriver, path: str, headers: Mapping[str, str] = KNOWN) -> Fetched:
    body: dict[str, Any] = {"model": "scripted"}
    if path == RESPONSES:
        return await driver.fetch("POST", path, json=body | {"input": "Hi"}, headers=headers)
    body |= {"messages": [{"role": "user", "content": "Hi"}]} | ({} if path == COUNT else {"max_tokens": 9})
    return await driver.fetch("POST", path, json=body, headers=headers)


def endless(driver: ASGIDriver, path: str) -> DriverResponse:
    """Return the request of somebody without a key, whose body never ends."""
    return driver.request("POST", path, content=[b'{"model": '], whole=False, wait=False)


async def crowd(stack: AsyncExitStack, driver: ASGIDriver, paths: list[str]) -> list[DriverResponse]:
    """Return requests of strangers that wait."""
    waiting = [await stack.enter_async_context(endless(driver, path)) for path in paths]
    await wait_all_tasks_blocked()
    return waiting


@pytest.mark.parametrize("path", PATHS)
async def test_strangers_keep_no_client_out(path: str) -> None:
    """More of them than there are places, with bodies that never end and an authenticator that never answers."""
    auth = Directory()
    driver, app = make(auth, limits=Limits(streams=1, client_streams=1))
    async with AsyncExitStack() as stack:
        strangers = await crowd(stack, driver, [path] * CROWD)
        assert (auth.asked, app.slots.unknown.taken, app.slots.taken) == (CROWD, CROWD, 0)
        assert (await ask(driver, path)).status == 200
        assert (await driver.fetch("GET", MODELS, headers=KNOWN)).status == 200
        auth.answers.set()
        for each in strangers:
            await each.started()
            assert each.status == 401
            await each.done()  # nobody waits for the rest of its body
    assert (app.slots.unknown.taken, app.slots.taken) == (0, 0)


@pytest.mark.broken_off
@pytest.mark.parametrize("path", PATHS)
async def test_who_has_no_key_is_refused_whatever_else_is_full(path: str) -> None:
    """Whether there is a place is told to nobody who may not have it."""
    driver, app = make(KeyAuth({"alice": KNOWN["x-luthien-key"]}), limits=Limits(streams=1))
    async with driver.request("POST", path, content=[b"{"], whole=False, headers=KNOWN, wait=False) as slow:
        await wait_all_tasks_blocked()
        assert app.slots.taken == 1
        refused = await ask(driver, path)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["message"] == "1 answers are under way already (streams); try again."
        assert (await ask(driver, path, {})).status == 401
        slow.disconnect()
        await slow.done()
    assert (await ask(driver, path)).status == 200


async def test_so_many_wait_to_be_authenticated_and_no_more() -> None:
    """The next is a 429 in its format that names the limit and says when to come again; the authenticator is not asked."""
    auth = Directory()
    driver, app = make(auth, limits=Limits(unauthenticated=2))
    async with AsyncExitStack() as stack:
        await crowd(stack, driver, [OPENAI, COUNT])
        for path in PATHS:
            refused = await ask(driver, path, {})
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            message = "2 requests wait to be authenticated already (unauthenticated); try again."
            assert refused.json()["error"]["message"] == message
            assert refused.json()["error"]["type"] in {"rate_limit_error", "rate_limit_exceeded", "too_many_requests"}
        assert (await driver.fetch("GET", MODELS)).status == 429
        assert (auth.asked, app.slots.unknown.taken) == (2, 2)
        auth.answers.set()
    assert app.slots.unknown.taken == 0
    assert (await ask(driver, OPENAI)).status == 200


async def test_an_authenticator_that_never_answers_gives_its_places_back() -> None:
    """After `auth_timeout` each of them is free again, so that nobody is kept out for longer."""
    auth = Directory()
    driver, app = make(auth, limits=Limits(unauthenticated=CROWD), settings=StreamSettings(auth_timeout=0.05))
    async with AsyncExitStack() as stack:
        for stranger in await crowd(stack, driver, [OPENAI] * CROWD):
            await stranger.started()
            assert stranger.status == 503
    assert app.slots.unknown.taken == 0
    assert (await ask(driver, OPENAI)).status == 200


@pytest.mark.broken_off
async def test_who_does_not_read_that_it_is_refused_is_left() -> None:
    """It holds no place, and after `send_timeout` nothing else either."""
    keys = KeyAuth({"alice": KNOWN["x-luthien-key"]})
    driver, app = make(keys, buffer=0, settings=StreamSettings(send_timeout=0.05))
    async with AsyncExitStack() as stack:
        for stranger in await crowd(stack, driver, [OPENAI] * CROWD):
            assert app.slots.taken == 0
            await stranger.done()
            assert not stranger.complete


async def test_operators_and_clients_do_not_wait_for_one_another() -> None:
    """Each authenticator has places of its own."""
    clients, operators = Directory(), Directory()
    driver, app = make(
        clients, limits=Limits(unauthenticated=1), approvals=Approvals(auth=operators), operators=KeyAuth({"o": "operators-1"})
    )
    async with AsyncExitStack() as stack:
        await crowd(stack, driver, [OPENAI])
        assert (await driver.fetch("GET", OPERATORS, headers=KNOWN)).status == 200
        await stack.enter_async_context(driver.request("GET", OPERATORS, wait=False))
        await wait_all_tasks_blocked()
        assert (app.slots.unknown.taken, app.slots.unknown_operators.taken) == (1, 1)
        refused = await driver.fetch("GET", OPERATORS, headers=KNOWN)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        clients.answers.set()
        operators.answers.set()
    assert (app.slots.unknown.taken, app.slots.unknown_operators.taken) == (0, 0)
