"""The limit on waits that follow one another: as `asyncio.timeout` for each, with one timer."""

from __future__ import annotations

import asyncio

import pytest

from luthien_asgi.wait_limit import WaitLimit, WaitTimeout

SOON = 0.01
LATE = 60.0


async def test_a_wait_that_takes_too_long_is_ended() -> None:
    """And the next one has all of its time."""
    limit = WaitLimit()
    for _ in range(2):
        with pytest.raises(WaitTimeout), limit.of(SOON):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with limit.of(LATE):
        assert await asyncio.sleep(0, "result") == "result"
    limit.close()


async def test_waits_that_end_in_time_share_a_timer() -> None:
    """A wait sets none where one is set."""
    loop = asyncio.get_running_loop()
    limit = WaitLimit()
    with limit.of(LATE):
        await asyncio.sleep(0)
    timer = limit._timer
    assert timer is not None
    for _ in range(100):
        with limit.of(LATE):
            await asyncio.sleep(0)
    assert limit._timer is timer
    assert timer.when() < loop.time() + LATE
    limit.close()
    assert timer.cancelled()


async def test_a_timer_that_fires_between_waits_does_nothing() -> None:
    """Nobody waits then, whatever else the task does."""
    limit = WaitLimit()
    with limit.of(SOON):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):  # an ordinary one, long after the timer
        async with asyncio.timeout(5 * SOON):
            await asyncio.Event().wait()
    with limit.of(LATE):
        await asyncio.sleep(0)
    limit.close()


async def test_a_timer_that_fires_early_for_the_wait_that_goes_on_is_set_again() -> None:
    """It was set for another one."""
    limit = WaitLimit()
    with limit.of(SOON):
        await asyncio.sleep(0)
    released = asyncio.Event()
    asyncio.get_running_loop().call_later(4 * SOON, released.set)
    with limit.of(LATE):
        await released.wait()
    assert limit._timer is not None
    limit.close()


async def test_a_shorter_limit_holds_although_the_timer_was_set_for_a_longer_one() -> None:
    """After the finish reason less is waited for."""
    limit = WaitLimit()
    with limit.of(LATE):
        await asyncio.sleep(0)
    with pytest.raises(WaitTimeout), limit.of(SOON):
        await asyncio.Event().wait()
    limit.close()


async def test_what_is_waited_for_may_raise_a_time_out_of_its_own() -> None:
    """That one is told apart."""
    limit = WaitLimit()
    with pytest.raises(TimeoutError) as caught, limit.of(LATE):
        raise TimeoutError
    assert not isinstance(caught.value, WaitTimeout)
    limit.close()


async def test_being_cancelled_by_somebody_else_is_no_time_out() -> None:
    """Also when the limit has passed at the same moment."""
    limit = WaitLimit()
    began = asyncio.Event()

    async def wait() -> None:
        with limit.of(LATE):
            began.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(wait())
        await began.wait()
        task.cancel()
    assert task.cancelled()
    limit.close()
