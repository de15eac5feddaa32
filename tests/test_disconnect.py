"""The client's connection: its body, its leaving, and what is cancelled then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi.disconnect import ClientConnection, ClientGoneError
from luthien_asgi.errors import RequestError


def receiver(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return a `receive` that gives the messages and then waits for ever."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def body(part: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": part, "more_body": more}


GONE = {"type": "http.disconnect"}


async def test_a_body_in_parts_is_joined() -> None:
    """A chunked body arrives whole."""
    connection = ClientConnection(receiver(body(b"ab", more=True), {"type": "http.request", "more_body": True}, body(b"c")))
    assert await connection.read_body(limit=3) == b"abc"


async def test_a_body_beyond_the_limit_is_refused_while_it_arrives() -> None:
    """The 413 comes with the first byte too many, not when all was read."""
    connection = ClientConnection(receiver(body(b"abc", more=True), body(b"d", more=True)))
    with pytest.raises(RequestError) as caught:
        await connection.read_body(limit=3)
    assert caught.value.status == 413


async def test_a_client_that_leaves_while_it_sends_is_gone() -> None:
    """A disconnect in the middle of the body ends the reading."""
    connection = ClientConnection(receiver(body(b"a", more=True), GONE))
    with pytest.raises(ClientGoneError):
        await connection.read_body(limit=10)
    assert connection.gone.is_set()


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    """A race that the work wins is as if there were none; an exception arrives bare, not in a group."""

    async def work() -> int:
        return 7

    async def broken() -> int:
        raise KeyError("x")

    connection = ClientConnection(receiver())
    assert await connection.race(work()) == 7
    with pytest.raises(KeyError):
        await connection.race(broken())


async def test_work_is_cancelled_when_the_client_leaves() -> None:
    """A race that the client's leaving wins cancels the work, and its clean-up has run."""
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    connection = ClientConnection(receiver(GONE))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connection.watch())
        with pytest.raises(ClientGoneError):
            await connection.race(work())
    assert cleaned.is_set()
    assert await connection.receive() == GONE


async def test_a_race_that_is_cancelled_from_outside_cancels_its_work() -> None:
    """Cancelling who waits cancels the work too."""
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(ClientConnection(receiver()).race(work()))
        await wait_all_tasks_blocked()
        task.cancel()
    assert task.cancelled()
    assert cleaned.is_set()


async def test_a_client_that_left_before_the_race_has_lost_it() -> None:
    """The work does not begin."""
    begun = False

    async def work() -> None:
        nonlocal begun
        begun = True

    connection = ClientConnection(receiver(GONE))
    await connection.watch()
    with pytest.raises(ClientGoneError):
        await connection.race(work())
    assert not begun


async def test_work_that_does_not_let_itself_be_cancelled_gives_its_result() -> None:
    """The caller is not cancelled afterwards."""

    async def work() -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 7

    connection = ClientConnection(receiver(GONE))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(connection.watch())
        assert await connection.race(work()) == 7
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_is_cancelled_when_the_client_leaves_is_cancelled() -> None:
    """A shutdown wins against a client that leaves at the same moment."""

    async def work() -> None:
        await asyncio.Event().wait()

    release = asyncio.Event()

    async def receive() -> Any:
        await release.wait()
        return GONE

    connection = ClientConnection(receive)
    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(connection.watch())
        task = tasks.create_task(connection.race(work()))
        await wait_all_tasks_blocked()
        release.set()
        task.cancel()
    assert watcher.done()
    assert task.cancelled()


async def test_a_timeout_inside_the_race_is_its_own() -> None:
    """And one around it is not taken for the client's leaving."""

    async def work(limit: float | None) -> None:
        async with asyncio.timeout(limit):
            await asyncio.Event().wait()

    connection = ClientConnection(receiver())
    with pytest.raises(TimeoutError):
        await connection.race(work(0.001))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await connection.race(work(None))


async def test_the_watcher_ignores_what_is_no_disconnect() -> None:
    """Late body messages do not end the watch."""
    connection = ClientConnection(receiver(body(b""), GONE))
    await connection.watch()
    assert connection.gone.is_set()
