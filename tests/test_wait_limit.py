"""The limit on waits that follow one another: as `asyncio.timeout` for each, with one timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# --- beside asyncio's own -----------------------------------------------------------------------------------------------------


class _Clock(asyncio.SelectorEventLoop):
    """Goes from one timer to the next, so that several are due in the same turn."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        due = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and due:  # type: ignore[attr-defined]
            self.now = max(self.now, min(due))
        super()._run_once()  # type: ignore[misc]


_LIMITS: Final = st.sampled_from([1, 2, 3, LATE])
_WORK: Final = st.sampled_from([0, 1, 2, 3, "fails", "goes on"])


async def _work(what: int | str) -> str:
    if what == "fails":
        await asyncio.sleep(0)
        raise ValueError
    if what != "goes on":
        return await asyncio.sleep(float(what), "done")
    try:
        await asyncio.sleep(2)
    except asyncio.CancelledError:
        return "went on"
    return "done"


async def _waits(limits: Iterable[Callable[[float], Any]], waits: Iterable[tuple[float, int | str]], total: float) -> list[Any]:
    said: list[Any] = []
    task = asyncio.current_task()
    assert task is not None
    try:
        async with asyncio.timeout(total):
            for (seconds, what), limit in zip(waits, limits, strict=False):
                try:
                    async with limit(seconds):
                        said.append(await _work(what))
                except (ValueError, TimeoutError) as error:
                    said.append(isinstance(error, TimeoutError))
                said.append(task.cancelling())
    except TimeoutError:
        said.append("in all")
    except asyncio.CancelledError:
        said.append("cancelled")
    return [*said, task.cancelling(), asyncio.get_running_loop().time()]


def _outcome(waits: Sequence[tuple[float, int | str]], total: float, leaves: float, *, ours: bool) -> list[Any]:
    async def main() -> list[Any]:
        limit = WaitLimit()

        @asynccontextmanager
        async def of(seconds: float) -> AsyncIterator[None]:
            with limit.of(seconds):
                yield

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(_waits(repeat(of if ours else asyncio.timeout), waits, total))
            asyncio.get_running_loop().call_later(leaves, task.cancel)
        limit.close()
        return task.result()

    with asyncio.Runner(loop_factory=_Clock) as runner:
        return runner.run(main())


@given(
    st.lists(st.tuples(_LIMITS, _WORK), min_size=1, max_size=6),
    st.sampled_from([2, 4, LATE]),
    st.sampled_from([1, 2, 3, 2 * LATE]),
)
def test_it_is_what_a_timeout_for_each_wait_is(waits: list[tuple[float, int | str]], total: float, leaves: float) -> None:
    """Whoever cancels the task in the same turn, and whatever is around the wait or in it."""
    assert _outcome(waits, total, leaves, ours=True) == _outcome(waits, total, leaves, ours=False)
