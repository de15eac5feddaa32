"""A policy's hooks, resolved once and called with a watchdog.

A hook that is not overridden is None in the plan, so it costs nothing. A hook's deadline lives in a context variable: judges that
run beside each other each have their own, and `keepalive()` moves that of the hook which calls it, also from a task or a thread
that the hook started.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.errors import ApiError, ConfigError, PolicyError, PolicyTimeout
from luthien_asgi.policy import Handling, Hold, Observe, Policy, Transform, is_blocking

__all__ = ["Hook", "HookCaller", "PolicyPlan", "keepalive"]

Hook = Callable[..., Any]

_HOOKS: Final = ("on_request", "on_chunk_added", "on_block_end", "on_block_complete", "on_stream_complete", "on_error")
_BLOCK_HOOKS: Final = ("on_chunk_added", "on_block_end", "on_block_complete")
_NEVER_EDITED: Final = (BlockKind.THINKING, BlockKind.REDACTED_THINKING, BlockKind.OTHER)

_NEAR: Final = 0.85
"""How much a method's name is like a hook's when it was meant to be one."""

_beat: ContextVar[Callable[[], None] | None] = ContextVar("luthien_asgi_keepalive", default=None)


def keepalive() -> None:
    """Start the calling hook's `policy_timeout` anew; nothing happens outside a hook."""
    beat = _beat.get()
    if beat is not None:
        beat()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """What a policy does, looked up once when it is loaded."""

    name: str
    handles: Mapping[BlockKind, Handling]
    on_request: Hook | None
    on_chunk_added: Hook | None
    on_block_end: Hook | None
    on_block_complete: Hook | None
    on_stream_complete: Hook | None
    on_error: Hook | None

    @classmethod
    def of(cls, policy: Policy | None) -> PolicyPlan:
        """Return a policy's plan. Raises `ConfigError` for a declaration that the stream path cannot keep."""
        hooks = {name: _overridden(policy, name) for name in _HOOKS}
        handles = dict(policy.handles) if policy is not None else {}
        name = type(policy).__name__ if policy is not None else ""
        _check_names(policy, name)
        _check_signatures(name, hooks)
        _check(name, handles, hooks)
        return cls(name=name, handles=handles, **hooks)

    @property
    def alters_text(self) -> bool:
        """Whether the policy may change or keep back text: what is said in sound would get past it."""
        return isinstance(self.handles.get(BlockKind.TEXT), Transform | Hold)

    @property
    def may_speak(self) -> bool:
        """Whether the policy may deny, stop, replace or add text while the answer streams."""
        return self.on_block_complete is not None or self.on_stream_complete is not None


def _overridden(policy: Policy | None, name: str) -> Hook | None:
    if policy is None or getattr(type(policy), name, None) is getattr(Policy, name):
        return None
    hook: Hook = getattr(policy, name)
    return hook


def _check_names(policy: Policy | None, name: str) -> None:
    """Refuse a method whose name is nearly a hook's: it would never be called."""
    for given in dir(type(policy)) if policy is not None else ():
        near = difflib.get_close_matches(given, _HOOKS, n=1, cutoff=_NEAR) if given not in _HOOKS else []
        if near and callable(getattr(policy, given)):
            msg = f"{name} has a method {given}, which is no hook and would never be called; did you mean {near[0]}?"
            raise ConfigError(msg)


def _check_signatures(name: str, hooks: Mapping[str, Hook | None]) -> None:
    for hook, method in hooks.items():
        arguments = [parameter for parameter in inspect.signature(getattr(Policy, hook)).parameters if parameter != "self"]
        if method is None:
            continue
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError:
            msg = f"{name}.{hook} is called with {', '.join(arguments)}, and does not take that"
            raise ConfigError(msg) from None
        except ValueError:
            continue  # a callable without a signature, of an extension module


def _check(name: str, handles: Mapping[Any, Any], hooks: Mapping[str, Hook | None]) -> None:
    for kind, handling in handles.items():
        if not isinstance(kind, BlockKind) or not isinstance(handling, Observe | Transform | Hold):
            msg = f"{name}.handles maps a BlockKind to Observe(), Transform() or Hold(), not {kind!r} to {handling!r}"
            raise ConfigError(msg)
        if isinstance(handling, Transform) and kind in _NEVER_EDITED:
            msg = f"{name}.handles: a {kind} block is never edited in parts; declare Observe() or Hold()"
            raise ConfigError(msg)
        if isinstance(handling, Hold) and hooks["on_block_complete"] is None:
            msg = f"{name}.handles holds {kind} blocks, but on_block_complete is not overridden: nothing would judge them"
            raise ConfigError(msg)
    unused = [hook for hook in _BLOCK_HOOKS if hooks[hook] is not None]
    if unused and not handles:
        msg = f"{name} overrides {', '.join(unused)}, but its `handles` is empty: the hook would never be called"
        raise ConfigError(msg)
    if hooks["on_block_end"] is not None and not any(isinstance(value, Transform) for value in handles.values()):
        msg = f"{name} overrides on_block_end, which belongs to Transform() kinds, and declares none"
        raise ConfigError(msg)


class HookCaller:
    """Calls hooks: plain ones inline, `@blocking` ones in a bounded pool of threads, coroutines under the watchdog."""

    def __init__(self, *, timeout: float, threads: int) -> None:
        self._timeout = timeout
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, policy: str, hook: Hook, *args: Any) -> Any:  # noqa: ANN401 - what the hook returns
        """Return what the hook returns.

        Raises `PolicyTimeout` when it is busy for the timeout without `keepalive()`, `PolicyError` when it raises. An `ApiError`
        of its own passes as it is.
        """
        try:
            if is_blocking(hook):
                return await self._watched(self._in_thread(hook, *args))
            result = hook(*args)
            return await self._watched(result) if inspect.isawaitable(result) else result
        except ApiError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we are cancelled, but something that the hook waited for.
            msg = f"The policy {policy} was cancelled in {hook.__name__}."
            raise PolicyError(msg) from error
        except TimeoutError as error:
            msg = f"The policy {policy} did not answer in {hook.__name__} within its time."
            raise PolicyTimeout(msg) from error
        except Exception as error:
            msg = f"The policy {policy} failed in {hook.__name__}."
            raise PolicyError(msg) from error

    async def _watched(self, work: Any) -> Any:  # noqa: ANN401 - any awaitable
        loop = asyncio.get_running_loop()
        expired = False
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                token = _beat.set(_beater(loop, deadline, self._timeout))
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
