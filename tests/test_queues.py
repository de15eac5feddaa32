"""The queues: bounds in items and bytes, one terminal item."""

from __future__ import annotations

import asyncio

import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi.errors import ApiError, QueueFullError
from luthien_asgi.queues import End, Failed, StreamQueue


def make(*, max_items: int = 3, max_bytes: int = 100, timeout: float = 5.0) -> StreamQueue[str]:
    return StreamQueue(max_items=max_items, max_bytes=max_bytes, timeout=timeout)


async def test_items_come_out_in_order_and_then_the_terminal_item_for_ever() -> None:
    """A reader gets what was put, in order, and the end again each time it asks."""
    queue = make()
    await queue.put("a", 1)
    await queue.put("b", 1)
    queue.end(End())
    assert [await queue.get() for _ in range(4)] == ["a", "b", End(), End()]


async def test_a_full_queue_makes_the_writer_wait_until_the_reader_took_something() -> None:
    """The writer of a full queue waits and goes on when there is room."""
    queue = make(max_items=1)
    await queue.put("a", 1)
    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(queue.put("b", 1))
        await wait_all_tasks_blocked()
        assert not writer.done()
        assert await queue.get() == "a"
    assert await queue.get() == "b"


async def test_bytes_bound_the_queue_as_items_do() -> None:
    """A queue with room for items but not for bytes is full."""
    queue = make(max_bytes=10)
    assert queue.offer("a", 8)
    assert not queue.offer("b", 3)
    assert queue.offer("c", 2)
    await queue.get()
    assert queue.offer("d", 8)


async def test_an_empty_queue_takes_an_item_larger_than_its_bound() -> None:
    """One item that is larger than the bound passes alone: it would wait for ever otherwise."""
    queue = make(max_bytes=10)
    await queue.put("large", 11)
    assert await queue.get() == "large"


async def test_no_room_for_the_timeout_opens_the_circuit_breaker() -> None:
    """A writer that finds no room within the timeout gets QueueFullError, and the queue can still be ended."""
    queue = make(max_items=1, timeout=0.01)
    await queue.put("a", 1)
    with pytest.raises(QueueFullError):
        await queue.put("b", 1)
    queue.end(Failed(QueueFullError("full")))
    assert await queue.get() == "a"
    assert isinstance(await queue.get(), Failed)


async def test_the_first_terminal_item_counts() -> None:
    """A second end does not change how the stream ended, and nothing can be put after the end."""
    queue = make()
    error = Failed(ApiError("broken"))
    queue.end(error)
    queue.end(End())
    assert queue.ended
    assert await queue.get() is error
    with pytest.raises(RuntimeError, match="has ended"):
        queue.offer("late", 1)


async def test_get_ready_returns_everything_that_is_there_with_the_end() -> None:
    """Items that are there together come out together; the terminal item is last."""
    queue = make()
    await queue.put("a", 1)
    await queue.put("b", 1)
    assert await queue.get_ready() == ["a", "b"]
    assert len(queue) == 0
    queue.end(End())
    assert await queue.get_ready() == [End()]


async def test_a_reader_waits_for_the_first_item() -> None:
    """A reader of an empty queue waits and is woken by an item."""
    queue = make()
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(queue.get_ready())
        await wait_all_tasks_blocked()
        assert not reader.done()
        await queue.put("a", 1)
    assert reader.result() == ["a"]


async def test_a_cancelled_reader_loses_nothing() -> None:
    """An item that arrives after a reader was cancelled is there for the next one."""
    queue = make()
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(queue.get())
        await wait_all_tasks_blocked()
        reader.cancel()
    await queue.put("a", 1)
    await anyio.lowlevel.checkpoint()
    assert await queue.get() == "a"
