"""A flag is an event."""

from __future__ import annotations

import asyncio

from anyio import wait_all_tasks_blocked

from luthien_asgi.flag import Flag


async def test_who_waits_goes_on_when_it_is_up_and_who_comes_later_does_not_wait() -> None:
    """Several may wait."""
    flag = Flag()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(flag.wait()) for _ in range(3)]
        await wait_all_tasks_blocked()
        assert not any(task.done() for task in waiting)
        flag.set()
    assert flag.is_set()
    await flag.wait()


async def test_it_may_be_taken_down_and_be_waited_for_again() -> None:
    """As often as one likes."""
    flag = Flag()
    for _ in range(3):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(flag.wait())
            await wait_all_tasks_blocked()
            assert not task.done()
            flag.set()
            flag.clear()
        assert not flag.is_set()


async def test_who_gives_up_leaves_the_others_waiting() -> None:
    """Being cancelled concerns one waiter."""
    flag = Flag()
    async with asyncio.TaskGroup() as tasks:
        one, other = tasks.create_task(flag.wait()), tasks.create_task(flag.wait())
        await wait_all_tasks_blocked()
        one.cancel()
        await wait_all_tasks_blocked()
        assert one.cancelled()
        assert not other.done()
        flag.set()
