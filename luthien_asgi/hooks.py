"""Calls a policy's hooks with a watchdog.

A hook's deadline lives in a context variable: judges that
run beside each other each have their own, and `keepalive()` moves that of the hook which calls it, also from a task or a thread
that the hook started.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

from luthien_asgi.errors import ApiError, PolicyError, PolicyTimeout
from luthien_asgi.plans import Hook, PolicyPlan
from luthien_asgi.policy import is_blocking

__all__ = ["HookCaller", "keepalive"]

_beat: ContextVar[Callable[[], None] | None] = ContextVar("luthien_asgi_keepalive", default=None)


def keepalive() -> None:
    """Start the calling hook's `policy_timeout` anew; nothing happens outside a hook."""
    beat = _beat.get()
    if beat is not None:
        beat()


class HookCaller:
    """Calls hooks: plain ones inline, `@blocking` ones in a bounded pool of threads, coroutines under the watchdog."""

    def __init__(self, *, timeout: float, threads: int) -> None:
        self._timeout = timeout
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, plan: PolicyPlan, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a hook of a policy returns.

        Raises `PolicyTimeout` when it is busy for the timeout without `keepalive()`, `PolicyError` when it raises. An `ApiError`
        of its own passes as it is.
        """
        return await self.finish(plan, hook, self.begin(plan, hook, *args))

    def begin(self, plan: PolicyPlan, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Call a hook and return what it returns, perhaps an awaitable. Raises like `call`, but for the time-out."""
        try:
            return self._in_thread(hook, *args) if is_blocking(hook) else hook(*args)
        except ApiError:
            raise
        except Exception as error:
            raise _failed(plan, hook) from error

    async def finish(self, plan: PolicyPlan, hook: Hook, result: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what a hook returned in the end. Raises like `call`."""
        if not inspect.isawaitable(result):
            return result
        try:
            return await self._watched(result, plan.timeout or self._timeout)
        except ApiError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we are cancelled, but something that the hook waited for.
            msg = f"The policy {plan.name} was cancelled in {hook.__name__}."
            raise PolicyError(msg) from error
        except TimeoutError as error:
            msg = f"The policy {plan.name} did not answer in {hook.__name__} within its time."
            raise PolicyTimeout(msg) from error
        except Exception as error:
            raise _failed(plan, hook) from error

    @staticmethod
    async def _watched(work: Any, timeout: float) -> Any:  # noqa: ANN401, ASYNC109 - any awaitable; the deadline can be moved
        loop = asyncio.get_running_loop()
        expired = False
        try:
            async with asyncio.timeout(timeout) as deadline:
                token = _beat.set(_beater(loop, deadline, timeout))
                try:
                    return await work
                finally:
                    _beat.reset(token)
                    expired = deadline.expired()
        except TimeoutError as error:
            if not expired:
                # The hook's own timeout, say of its judge's HTTP call, is a failure of the hook and not of its time.
                raise RuntimeError("a time-out inside the hook") from error
            raise

    async def _in_thread(self, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="luthien-policy")
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(hook, *args))

    def close(self) -> None:
        """Let the threads go once their hooks end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _failed(plan: PolicyPlan, hook: Hook) -> PolicyError:
    return PolicyError(f"The policy {plan.name} failed in {hook.__name__}.")


def _beater(loop: asyncio.AbstractEventLoop, deadline: asyncio.Timeout, timeout: float) -> Callable[[], None]:
    def move() -> None:
        # A task that outlives its hook may still call: its deadline is over, and there is nothing to move.
        with suppress(RuntimeError):
            deadline.reschedule(loop.time() + timeout)

    def beat() -> None:
        try:
            inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            inside = False
        if inside:
            move()
        else:
            loop.call_soon_threadsafe(move)

    return beat
