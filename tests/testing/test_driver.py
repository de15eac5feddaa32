"""The ASGI client: it streams, leaves, does not read, and hands on what the app raises."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio.lowlevel
import pytest

from luthien_asgi.testing import ASGIDriver

START = {"type": "http.response.start", "status": 200, "headers": [(b"X-One", b"1")]}


def part(data: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """Send until the client has left."""
    await send(START)
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(receive())
        while not watcher.done():
            await send(part(b"x"))
            await anyio.lowlevel.checkpoint()


async def test_parts_arrive_while_the_app_still_runs() -> None:
    """The first part is there before the app has sent the second."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(part(b"a"))
        await go_on.wait()
        await send(part(b"b", more=False))

    async with ASGIDriver(app).request("GET", "/") as response:
        assert (response.status, response.headers) == (200, {"x-one": "1"})
        assert await anext(response) == b"a"
        assert not response.complete
        go_on.set()
        assert await response.read() == b"b"


async def test_disconnect_reaches_the_app() -> None:
    """`receive` says so, and leaving the block waits until the app is done."""
    async with ASGIDriver(endless).request("GET", "/") as response:
        assert await anext(response) == b"x"
        response.disconnect()
        await response.done()
    assert response.app_done


async def test_a_client_that_does_not_read_makes_send_wait() -> None:
    """No more than `buffer` parts are taken; reading one lets one more through."""
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(START)
        for _ in range(10):
            await send(part(b"x"))
            sent += 1
        await send(part(b"", more=False))

    async with ASGIDriver(app, buffer=3, within=0.05).request("GET", "/") as response:
        with pytest.raises(TimeoutError, match="the app returns"):
            await response.done()
        assert sent == 3
        assert len(await response.read()) == 10


@pytest.mark.parametrize(("version", "raises"), [("2.3", False), ("2.4", True)])
async def test_send_after_the_client_left_does_what_servers_do(version: Any, raises: bool) -> None:
    """Before ASGI 2.4 it does nothing, from then on it raises `OSError`."""
    outcome: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await send(part(b"x"))
            outcome.append(False)
        except OSError:
            outcome.append(True)

    async with ASGIDriver(app, spec_version=version).request("GET", "/") as response:
        response.disconnect()
    assert outcome == [raises]


async def test_a_request_without_waiting_can_be_left_before_the_response() -> None:
    """`wait=False` enters at once; an app that has not answered yet learns of the disconnect."""
    seen: list[str] = []
    reading = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["type"])
        reading.set()
        seen.append((await receive())["type"])

    async with ASGIDriver(app).request("POST", "/", wait=False) as response, asyncio.timeout(5):
        await reading.wait()
        assert response.status == 0
    assert seen == ["http.request", "http.disconnect"]


async def test_the_body_comes_in_the_given_pieces() -> None:
    """Several pieces are several messages; only the last says that there is no more."""
    seen: list[tuple[bytes, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert b"content-length" not in dict(scope["headers"])
        for _ in range(2):
            message = await receive()
            seen.append((message["body"], message["more_body"]))
        await send(START)
        await send(part(b"", more=False))

    await ASGIDriver(app).fetch("POST", "/", content=[b"a", b"b"])
    async with ASGIDriver(app).request("POST", "/", content=[b"a", b"b"], whole=False):
        pass
    assert seen == [(b"a", True), (b"b", False), (b"a", True), (b"b", True)]


async def test_the_scope_has_path_query_root_path_and_headers() -> None:
    """`root_path` is part of `path`, as servers have it; JSON brings its content type."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send(START)
        await send(part(b"{}", more=False))

    fetched = await ASGIDriver(app, root_path="/root").fetch("POST", "/a?b=1", json={}, headers={"X-Key": "k"})
    (scope,) = scopes
    assert (scope["path"], scope["root_path"], scope["query_string"]) == ("/root/a", "/root", b"b=1")
    assert dict(scope["headers"])[b"x-key"] == b"k"
    assert dict(scope["headers"])[b"content-type"] == b"application/json"
    assert (fetched.status, fetched.json(), list(fetched.parts)) == (200, {}, [b"{}"])


async def test_what_the_app_raises_is_raised_as_it_is() -> None:
    """Before the response and within its body: not wrapped in a group."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("early")

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(part(b"a"))
        raise KeyError("late")

    with pytest.raises(KeyError, match="early"):
        await ASGIDriver(early).fetch("GET", "/")
    with pytest.raises(KeyError, match="late"):
        await ASGIDriver(late).fetch("GET", "/")


async def test_an_app_that_never_ends_is_cancelled_with_a_timeout() -> None:
    """No wait is without a bound, and nothing is left running."""
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match="the app returns"):
        async with ASGIDriver(app, within=0.05).request("GET", "/"):
            pass
    assert cancelled.is_set()


async def test_a_failing_test_is_not_hidden_by_the_driver() -> None:
    """What the block raises comes out, also while the app runs."""
    with pytest.raises(AssertionError, match="mine"):
        async with ASGIDriver(endless).request("GET", "/"):
            raise AssertionError("mine")


@pytest.mark.parametrize(
    "messages", [[part(b"x")], [START, START], [START, part(b"", more=False), part(b"x")]], ids=["body", "start", "end"]
)
async def test_messages_in_the_wrong_order_raise_in_the_app(messages: list[Any]) -> None:
    """The driver is as strict as a server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(RuntimeError):
        await ASGIDriver(app).fetch("GET", "/")


async def lifespan_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["ready"] = True
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        scope["state"]["ready"] = False
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send(START)
    await send(part(str(scope["state"]).encode(), more=False))


async def test_lifespan_runs_around_requests_and_gives_them_its_state() -> None:
    """Start-up before the block, shutdown after it."""
    driver = ASGIDriver(lifespan_app)
    async with driver.lifespan() as state:
        assert state == {"ready": True}
        assert (await driver.fetch("GET", "/")).body == b"{'ready': True}"
    assert state == {"ready": False}


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_lifespan_that_fails_raises(phase: str) -> None:
    """Both phases tell what the app said."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.{'failed' if kind.endswith(phase) else 'complete'}", "message": "no"})

    with pytest.raises(RuntimeError, match=f"lifespan {phase}: the app said .*failed"):
        async with ASGIDriver(app).lifespan():
            pass


async def test_an_app_without_lifespan_raises_its_own_error() -> None:
    """What it raises is what the test sees."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError(scope["type"])

    with pytest.raises(NotImplementedError, match="lifespan"):
        async with ASGIDriver(app).lifespan():
            pass
