"""Opening the backend's answer: its first event, its errors, and giving it up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.errors import ApiError, BackendError, BackendTimeout
from luthien_asgi.opening import BackendOpening
from luthien_asgi.recorder import Begin, Transaction
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import ScriptedBackend, build_chunk, chunks


def make(backend: Any, **settings: Any) -> BackendOpening:
    request = ChatRequest(wire="openai", body={"model": "m", "messages": [{"role": "user", "content": "x"}]})
    begin = Begin(id="t", at=0, wire="openai", path="/", model="m", stream=True, client="", request={})
    call = BackendCall(request=request)
    return BackendOpening(backend, call, settings=StreamSettings(**settings), log=Transaction(begin))


async def test_the_first_event_is_part_of_the_stream() -> None:
    """Everything the backend says is read, the first event included."""
    said = chunks("Hi")
    opening = make(ScriptedBackend(said))
    async with asyncio.TaskGroup() as tasks:
        opening.start(tasks)
        assert await opening.wait(5)
        stream = await opening.stream()
        assert [id(chunk) async for chunk in stream] == [id(chunk) for chunk in said]
        await opening.aclose()


async def test_a_ping_of_the_provider_is_no_first_event() -> None:
    """An error after pings still is an error before the first event."""
    ping = build_chunk({"id": "", "created": 1, "model": "", "choices": []})
    opening = make(ScriptedBackend([[ping, ping, BackendError("busy", status=529)]]))
    async with asyncio.TaskGroup() as tasks:
        opening.start(tasks)
        assert await opening.wait(5)
        assert opening.error is not None
        assert opening.error.status == 529
        with pytest.raises(BackendError):
            await opening.stream()
        await opening.aclose()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([[]], BackendError),
        ([[asyncio.Event()]], BackendTimeout),
        ([[KeyError("secret")]], ApiError),
        ([[TimeoutError()]], ApiError),
    ],
    ids=["empty", "silent", "defect", "its own time-out"],
)
async def test_what_is_no_first_event_is_an_error(script: Any, kind: type[ApiError]) -> None:
    """An empty stream, silence and a defect are errors with a message of their own."""
    backend = ScriptedBackend(script)
    opening = make(backend, first_chunk_timeout=0.02)
    async with asyncio.TaskGroup() as tasks:
        opening.start(tasks)
        assert await opening.wait(5)
        assert isinstance(opening.error, kind)
        assert "secret" not in opening.error.message
        await opening.aclose()
    assert backend.streams[0].closed.is_set()


async def test_waiting_is_bounded() -> None:
    """A call that is slow is not there yet, and can be waited for again."""
    first = asyncio.Event()
    opening = make(ScriptedBackend([[first, *chunks("Hi")]]))
    async with asyncio.TaskGroup() as tasks:
        opening.start(tasks)
        assert not await opening.wait(0.005)
        first.set()
        assert await opening.wait(5)
        await opening.aclose()


async def test_giving_up_closes_what_was_opened_and_wakes_who_waits() -> None:
    """aclose cancels the call, closes the stream, may come twice; a waiting reader gets an error."""
    backend = ScriptedBackend([[asyncio.Event()]])
    opening = make(backend)
    async with asyncio.TaskGroup() as tasks:
        opening.start(tasks)
        await wait_all_tasks_blocked()
        await opening.aclose()
        await opening.aclose()
        with pytest.raises(BackendError):
            await opening.stream()
    assert backend.streams[0].closed.is_set()
    assert dict(opening.headers) == {}
