"""Calls a policy's hooks: plain ones inline, `@blocking` ones in threads, those that wait under a watch.

Strategy: a hook's deadline lives in a context variable: judges that run beside each other each have their own, and `keepalive()`
moves that of the hook which calls it, also from a task or a thread that the hook started. A hook that does not end when it is
cancelled, or never leaves its thread, is given up: it is counted, the log and the transaction's record name it, and the answer
goes on, or ends, without it. A hook that cancels its own task has failed: nobody else is taken to have cancelled it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, Final

from luthien_asgi.context import ObservabilityContext
from luthien_asgi.errors import ApiError, PolicyError, PolicyTimeout
from luthien_asgi.hook_run import CallTimes, ForeignCall, LateCall, keep, keepalive, take_back, tell_too
from luthien_asgi.hook_threads import HookThreads, ThreadJob
from luthien_asgi.logs import logger_of
from luthien_asgi.plans import Hook, PolicyPlan
from luthien_asgi.policy import ThreadWork, is_blocking
from luthien_asgi.recorder import Transaction
from luthien_asgi.telemetry_names import POLICY_ABANDONED

__all__ = ["HookCaller", "keepalive"]

_log: Final = logger_of(__name__)


@dataclass(slots=True)
class _Abandoned:
    """What was given up, of all transactions."""

    count: int = 0


class HookCaller:
    """Calls hooks, for all transactions or for one (`of`)."""

    def __init__(
        self, *, timeout: float, threads: int, grace: float = 0.5, longest: float = 3600.0, items: int = 100_000
    ) -> None:
        """Make a caller.

        `timeout`: seconds of a hook that does not say it is at work (`policy_timeout`), `longest`: of one that does
        (`total_timeout`), `grace`: of one that was cancelled (`close_timeout`). `threads`: for hooks that block; `items`: what
        one call may return (`hook_items`).
        """
        self._timeout = timeout
        self._grace = grace
        self._longest = longest
        self._threads = HookThreads(threads)
        self.items = items
        self._abandoned = _Abandoned()
        self._log: Transaction | None = None
        self.obs: ObservabilityContext | None = None
        """Where it is told of the transaction whose hooks these are."""

    def of(self, log: Transaction | None, obs: ObservabilityContext | None) -> HookCaller:
        """Return the caller of one transaction's hooks."""
        caller = object.__new__(HookCaller)
        caller.__dict__.update(self.__dict__, _log=log, obs=obs)
        return caller

    @property
    def abandoned(self) -> int:
        """How many hooks were given up because they did not end."""
        return self._abandoned.count

    @property
    def stuck_threads(self) -> int:
        """How many threads are held by hooks whose time is over."""
        return self._threads.stuck

    async def call(self, plan: PolicyPlan, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a hook of a policy returns.

        Raises `PolicyTimeout` when it is busy for the timeout without `keepalive()`, `PolicyError` when it raises. An `ApiError`
        of its own passes as it is.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        before = task.cancelling()
        try:
            result = self.begin(plan, hook, *args)
        finally:
            if task.cancelling() > before:  # by the hook: nobody else has run
                await take_back(task, before)
                raise _cancelled(plan, hook)
        return await self.finish(plan, hook, result)

    def begin(self, plan: PolicyPlan, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Call a hook and return what it returns, perhaps an awaitable. Raises like `call`, but for the time-out."""
        try:
            if is_blocking(hook):
                return _InThread(self._threads, lambda: hook(*args), plan.timeout or self._timeout)
            return hook(*args)
        except (ApiError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a plain hook that ends this process, or says that it was cancelled, has failed
            raise self._failed(plan, hook, error) from error

    async def finish(self, plan: PolicyPlan, hook: Hook, result: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a hook returned in the end. Raises like `call`."""
        if not inspect.isawaitable(result):
            return result
        if isinstance(result, ThreadWork):
            result = _InThread(self._threads, result.call, plan.timeout or self._timeout, stop=result.stop)
        times = CallTimes(plan.timeout or self._timeout, longest=self._longest, grace=self._grace)
        call = ForeignCall(result, times, lambda left: self._give_up(plan, hook, left))
        try:
            return await call
        except ApiError:
            raise
        except asyncio.CancelledError as error:
            if call.is_cancelled:
                raise
            # Not we are cancelled, but something that the hook waited for, or the hook by itself.
            raise _cancelled(plan, hook) from error
        except LateCall as error:
            if isinstance(result, _InThread) and result.leave():
                self._give_up(plan, hook, ())
            raise _late(plan, hook) from error
        except BlockingIOError as error:
            if not isinstance(result, _InThread):
                raise self._failed(plan, hook, error) from error
            msg = f"The policy {plan.name} could not be asked in {hook.__name__}: hooks that do not end hold every thread."
            raise PolicyTimeout(msg) from error
        except Exception as error:
            raise self._failed(plan, hook, error) from error

    def drawn(self, plan: PolicyPlan, hook: Hook, given: Iterable[Any]) -> list[Any]:
        """Return what a hook's iterable gives: a generator is a hook that is still at work.

        Raises `PolicyError` when it fails or gives more than `items`, and `PolicyTimeout` when it takes longer than a hook may.
        """
        limit = monotonic() + (plan.timeout or self._timeout)
        found: list[Any] = []
        try:
            for item in islice(given, self.items + 1):
                found.append(item)
                if monotonic() > limit:
                    break
        except (ApiError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise self._failed(plan, hook, error) from error
        if monotonic() > limit:
            raise _late(plan, hook)
        if len(found) > self.items:
            msg = f"The policy {plan.name} returned more than {self.items} items from {hook.__name__} (hook_items)."
            raise PolicyError(msg)
        return found

    def _failed(self, plan: PolicyPlan, hook: Hook, error: BaseException) -> PolicyError:
        """Return what is told of a hook that raised; what it raised goes to the log, whether its errors pass or not."""
        failure = PolicyError(f"The policy {plan.name} failed in {hook.__name__}.")
        failure.is_logged = True
        about = f" (transaction {self._log.begin.id})" if self._log is not None else ""
        _log.error("%s%s", failure.message, about, exc_info=error)
        return failure

    def _give_up(self, plan: PolicyPlan, hook: Hook, left: Sequence[object]) -> None:
        self._abandoned.count += 1
        keep(left)
        _log.warning(
            "the hook %s of the policy %s did not end when it was told to: it is given up (%s%s)",
            hook.__name__,
            plan.name,
            _place(hook),
            f"; transaction {self._log.begin.id}" if self._log is not None else "",
        )
        if self._log is not None:
            self._log.note(f"the policy {plan.name} did not end in {hook.__name__} and was given up")
        if self.obs is not None:
            self.obs.event(POLICY_ABANDONED, {"luthien.policy.name": plan.name, "luthien.policy.hook": hook.__name__})

    def close(self) -> None:
        """Let the threads go once their hooks end."""
        self._threads.close()


class _InThread:
    """A hook on its way to a thread, or in one: something to wait for."""

    def __init__(
        self, threads: HookThreads, call: Callable[[], Any], limit: float, *, stop: Callable[[], None] | None = None
    ) -> None:
        self._threads = threads
        self._call = call
        self._limit = limit
        self._stop = stop
        self._job: ThreadJob | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run().__await__()

    async def _run(self) -> Any:  # noqa: ANN401 - what the hook returns
        context = copy_context()  # here, because the hook's deadline is in it
        job = self._job = ThreadJob(lambda: context.run(self._call), limit=self._limit)
        context.run(tell_too, job.touch)
        try:
            result = await self._threads.run(job)
        finally:
            if self._stop is not None:
                self._stop()
        if inspect.isawaitable(result):
            getattr(result, "close", result.__await__)()
            msg = "a hook that is marked as blocking returned something to wait for"
            raise TypeError(msg)
        return result

    def leave(self) -> bool:
        """Wait for it no longer; tell whether it holds a thread."""
        if self._job is None:
            return False
        self._job.is_left = True
        return self._job.future.running()


def _place(hook: Hook) -> str:
    """Return where a hook's code begins."""
    code = getattr(inspect.unwrap(hook), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "not Python code"


def _cancelled(plan: PolicyPlan, hook: Hook) -> PolicyError:
    return PolicyError(f"The policy {plan.name} was cancelled in {hook.__name__}.")


def _late(plan: PolicyPlan, hook: Hook) -> PolicyTimeout:
    return PolicyTimeout(f"The policy {plan.name} did not answer in {hook.__name__} within its time.")


HOOK_CODES: Final = frozenset({HookCaller.begin.__code__, HookCaller.finish.__code__, HookCaller.drawn.__code__})
"""What is on the stack while a hook runs in the loop, with the variables `self`, `plan` and `hook`."""
