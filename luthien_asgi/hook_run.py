"""One call of somebody else's code that is waited for: until it ends, or its time does, or it does not end when it is told to.

Strategy: the awaitable is driven by hand, in the task that waits for it. So it sees that task as its own, as if it had been
awaited; an `asyncio.timeout()` or a task group in it works as ever; a call that ends without waiting costs no timer; and one that
swallows its cancellation is simply driven no further: it is closed, and what waits for it goes on.

Once a call was cancelled, by its deadline, by the end of its transaction or by a time-out of its own, it has `grace` seconds to
end. A time-out of its own cannot be told from the others while its clean-up lasts. Time in which the loop stood still does not
count (`loop_clock`).

A call that cancels the task it runs in does so while it runs, and nobody else runs then: that is taken back, and its own failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from luthien_asgi.logs import logger_of
from luthien_asgi.loop_clock import LATE, TURNS, LoopClock

__all__ = ["CallTimes", "ForeignCall", "LateCall", "bounded", "keep", "keepalive", "take_back", "tell_too"]

_Result = TypeVar("_Result")

_log: Final = logger_of(__name__)
_KEPT: Final = 1_000
"""Of what was given up and cannot be closed so many are kept, because the interpreter complains of each one that it drops."""
_left: Final[list[object]] = []
_beat: Final[ContextVar[Callable[[], None] | None]] = ContextVar("luthien_asgi_keepalive", default=None)


def keepalive() -> None:
    """Start the calling hook's `policy_timeout` anew; nothing happens outside a hook."""
    beat = _beat.get()
    if beat is not None:
        beat()


def tell_too(listener: Callable[[], None]) -> None:
    """Have `keepalive()` in the current context tell `listener` as well."""
    beat = _beat.get()

    def both() -> None:
        listener()
        if beat is not None:
            beat()

    _beat.set(both)


class LateCall(TimeoutError):
    """A call did not end in its time; an ordinary `TimeoutError` is its own."""


@dataclass(frozen=True, slots=True)
class CallTimes:
    """How long a call may take, in seconds."""

    timeout: float
    """Until it ends, or says that it is at work."""
    longest: float
    """In all, however often it says so."""
    grace: float
    """Until it ends once it was cancelled."""


class ForeignCall(Generic[_Result]):
    """Awaits an awaitable. `gave_up` is called when it had to be left, with what of it could not be closed.

    Raises what the call raises, `LateCall` when its time was over, and `CancelledError` when who waits was cancelled, whatever
    the call made of that (`is_cancelled` tells that from a `CancelledError` of the call's own). A call that was given up after a
    time-out of its own is a `LateCall` too.
    """

    __slots__ = (
        "_before",
        "_clock",
        "_due",
        "_gave_up",
        "_grace_ends",
        "_is_given_up",
        "_is_late",
        "_latest",
        "_loop",
        "_ours",
        "_over",
        "_own",
        "_task",
        "_timer",
        "_times",
        "_was_cancelled",
        "_work",
        "is_cancelled",
    )

    def __init__(self, work: Awaitable[_Result], times: CallTimes, gave_up: Callable[[Sequence[object]], None]) -> None:
        self._work = work
        self._times = times
        self._gave_up = gave_up
        self._loop = asyncio.get_running_loop()
        self._clock = LoopClock.of(self._loop)
        now = self._loop.time() - self._clock.lost
        self._due = now + times.timeout
        self._latest = now + times.longest
        self._timer: asyncio.Handle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        """How often the task was cancelled before."""
        self._ours = 0
        """How often it was cancelled from here."""
        self._own = 0
        """How often by the call itself."""
        self._grace_ends: float | None = None
        """Until when the call may clean up; None while nobody has told it to end."""
        self._was_cancelled = self._is_late = self._is_given_up = self._over = False
        self.is_cancelled = False
        """Whether who waits for the call was cancelled."""

    def __await__(self) -> Generator[Any, Any, _Result]:
        task = self._task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._before = task.cancelling()
        token = _beat.set(self._alive)
        try:
            result = yield from self._driven(task, iter(self._work.__await__()))
            if self._own:
                yield from self._cancelled_itself(task)
        except GeneratorExit:
            raise
        except BaseException as error:
            if self._own:
                yield from self._taken_back(task)
            self._settle(task, error)
            raise
        else:
            self._settle(task, None)
            return result
        finally:
            self._over = True
            self._task = None
            self._unset()
            _beat.reset(token)

    def _driven(self, task: asyncio.Task[Any], steps: Iterator[Any]) -> Generator[Any, Any, _Result]:
        error: BaseException | None = None
        try:
            while True:
                cancelled = task.cancelling()
                try:
                    waits_for = next(steps) if error is None else _throw(steps, error)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # what the awaitable says that it is
                except (GeneratorExit, SystemExit) as left:
                    # Neither ends this process, or closes what waits for the call.
                    msg = f"{type(left).__name__} was raised"
                    raise RuntimeError(msg) from left
                finally:
                    self._own = max(0, self._own + task.cancelling() - cancelled)
                self._arm(task, goes_on=isinstance(error, asyncio.CancelledError))
                try:
                    yield waits_for
                    error = None
                except GeneratorExit:
                    self._close(steps)
                    raise
                except BaseException as thrown:
                    error = thrown
                    if isinstance(thrown, asyncio.CancelledError):
                        self._was_cancelled = True
                        if self._is_given_up:
                            self._gave_up(self._close(steps))
                            raise
        finally:
            error = None  # a traceback holds this frame, which would hold it

    def _cancelled_itself(self, task: asyncio.Task[Any]) -> Generator[Any, Any, None]:
        """Fail a call that went on as if it had not cancelled itself."""
        yield from self._taken_back(task)
        raise asyncio.CancelledError

    def _taken_back(self, task: asyncio.Task[Any]) -> Generator[Any, Any, None]:
        """Take back what the call itself cancelled, also where it did not wait for that to happen."""
        own, self._own = self._own, 0
        try:
            yield from take_back(task, task.cancelling() - own).__await__()
        except asyncio.CancelledError:
            self._was_cancelled = True

    def _settle(self, task: asyncio.Task[Any], error: BaseException | None) -> None:
        """Raise what is to be said instead of what the call said."""
        for _ in range(self._ours):
            task.uncancel()
        if self._was_cancelled and task.cancelling() > self._before:
            self.is_cancelled = True
            if type(error) is not asyncio.CancelledError:  # `asyncio.timeout` knows this class alone
                raise asyncio.CancelledError from error
            return
        if self._is_late or self._is_given_up:
            raise LateCall from error

    # --- its time -------------------------------------------------------------------------------------------------------

    def _alive(self) -> None:
        """Start the deadline anew; from any thread, and harmless when the call is over."""
        try:
            inside = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            inside = False
        if inside:
            self._move()
        elif not self._over:
            self._loop.call_soon_threadsafe(self._move)

    def _move(self) -> None:
        self._due = min(self._loop.time() - self._clock.lost + self._times.timeout, self._latest)

    def _arm(self, task: asyncio.Task[Any], *, goes_on: bool) -> None:
        """Set the timer when the call begins to wait, and another one when it goes on although it was told to end."""
        if goes_on and self._grace_ends is None and self._is_told(task):
            self._grace_ends = self._loop.time() - self._clock.lost + self._times.grace
            self._unset()
        if self._timer is None:
            self._set()

    def _is_told(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether the call is to end: a time-out of its own that it has dealt with is taken back by then."""
        return self._is_late or task.cancelling() - self._ours - self._own > self._before

    @property
    def _limit(self) -> float:
        return self._due if self._grace_ends is None else self._grace_ends

    def _set(self) -> None:
        self._timer = self._loop.call_at(self._limit + self._clock.lost, self._fire)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self, turns: int = 0) -> None:
        self._timer = None
        late = self._clock.time(self._loop) - self._limit
        if late < 0:
            self._set()
        elif turns == 1 or (not turns and late <= LATE):
            self._expire()
        else:
            self._timer = self._loop.call_soon(self._fire, (turns or TURNS) - 1)

    def _expire(self) -> None:
        assert self._task is not None  # noqa: S101 - it waits
        if self._grace_ends is None:
            self._is_late = True
        elif self._is_told(self._task):
            self._is_given_up = True
        else:
            self._grace_ends = None
            self._set()
            return
        self._ours += 1
        self._task.cancel()

    def _close(self, steps: Iterator[Any]) -> Sequence[object]:
        """Close what is driven no further; return what of it does not let itself be closed."""
        chain = list(_awaited(self._work))
        try:
            getattr(steps, "close", _nothing)()
        except Exception:  # its own clean-up failed, or it goes on all the same; nobody waits for that
            return [each for each in chain if _frame_of(each) is not None]
        return ()


def _awaited(work: object) -> Iterator[object]:
    """Return what is awaited, and what that awaits in its turn."""
    while work is not None:
        yield work
        work = getattr(work, "cr_await", None) or getattr(work, "gi_yieldfrom", None)


def _frame_of(work: object) -> object:
    """Return the frame of a coroutine or generator that has not ended."""
    return getattr(work, "cr_frame", None) or getattr(work, "gi_frame", None)


def _nothing() -> None:
    pass


def keep(left: Sequence[object]) -> None:
    """Keep what was given up and cannot be closed, for ever.

    The interpreter, when it ends, would close it once more, and wait without end for what swallows everything: a reference that
    nobody gives back keeps it from that.
    """
    for each in left[: _KEPT - len(_left)]:
        _left.append(each)
        with suppress(ImportError):  # an interpreter that was built without it
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


async def take_back(task: asyncio.Task[Any], before: int) -> None:
    """Take back what code that runs in the current task, `task`, cancelled there itself: `before` times it had been before.

    Raises `CancelledError` where somebody else cancels it meanwhile.
    """
    while task.cancelling() > before:
        task.uncancel()
    try:
        await asyncio.sleep(0)  # what is under way arrives: only Python 3.13 takes it back
    except asyncio.CancelledError:
        if task.cancelling() > before:
            raise


async def bounded(work: Awaitable[_Result], seconds: float, *, grace: float, what: str) -> _Result:
    """Return what somebody else's code returns. Raises what that raises, and `LateCall` when it takes longer.

    Where it does not end then, within `grace` seconds, the log says so, and what it is doing goes no further.
    """

    def given_up(left: Sequence[object]) -> None:
        keep(left)
        _log.warning("%s did not end when it was told to: it is given up", what)

    return await ForeignCall(work, CallTimes(seconds, longest=seconds, grace=grace), given_up)


def _throw(steps: Iterator[Any], error: BaseException) -> Any:  # noqa: ANN401 - whatever it waits for
    throw = getattr(steps, "throw", None)
    if throw is None:
        raise error
    return throw(error)
