"""Finds and names what blocks the event loop.

Strategy: a thread looks at the loop's beat (`loop_clock`) a few times a second while requests are under way, and goes when there
have been none for a while. When the beat is overdue it looks once at what the loop's thread is doing: a frame of the hooks'
caller on its stack names policy and hook, else it is somebody else's code. Of a frame nothing is read but where it is, and of our
own the plan and the hook. The loop itself tells how long it took, once it goes on. Per chunk nothing is done for any of this.

1. What holds the interpreter's lock in C (a regular expression, say) cannot be looked at while it does, but just after.
2. Nothing here ends a hook that blocks: nothing could. The server's own watch over its workers may end the process.
3. A standstill for which no code is found is named as such: the process was stopped, or had no processor to run on.
4. A thread that cannot begin, or fails, costs no request anything: the log says so once, and the next request begins another one.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, process_time
from types import CodeType, FrameType
from typing import Final

from luthien_asgi.context import ObservabilityContext
from luthien_asgi.hooks import HOOK_CODES, HookCaller
from luthien_asgi.logs import logger_of
from luthien_asgi.loop_clock import LoopClock
from luthien_asgi.recorder import Transaction
from luthien_asgi.telemetry_names import LOOP_BLOCK

__all__ = ["Watchdog"]

_log: Final = logger_of(__name__)
_LINGER: Final = 5.0
"""Seconds that the thread waits for another request before it goes."""
_LOOKS: Final = 0.25
"""Seconds between two looks at the loop, at most."""
_NAMED: Final = 10
"""So many different causes are named in one transaction's record."""
_NOBODY: Final = "nothing that could be seen: the process was stopped, or had no processor"


@dataclass(frozen=True, slots=True)
class _Cause:
    """What blocks the loop."""

    name: str
    place: str = ""
    """File, line and function; empty where there is none."""
    policy: str = ""
    hook: str = ""
    obs: ObservabilityContext | None = None
    """The transaction whose hook it is."""


@dataclass(slots=True)
class _Delays:
    """The standstills of one transaction, by their cause."""

    log: Transaction
    obs: ObservabilityContext
    found: dict[str, tuple[int, float]]

    def add(self, name: str, seconds: float) -> None:
        if name in self.found or len(self.found) < _NAMED:
            times, before = self.found.get(name, (0, 0.0))
            self.found[name] = (times + 1, before + seconds)

    def tell(self) -> None:
        for name, (times, seconds) in self.found.items():
            often = f", in {times} times" if times > 1 else ""
            self.log.note(f"the event loop was blocked for {seconds:.1f} s by {name}{often}")
        self.found.clear()


class Watchdog:
    """Watches the loop for one middleware. `warn_after`: seconds of a block that are worth a word (`loop_block_warning`)."""

    def __init__(self, *, warn_after: float) -> None:
        self._warn_after = warn_after
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._clock: LoopClock | None = None
        self._under_way = 0
        self._closed = False
        self._delayed: dict[int, _Delays] = {}
        self._seen: tuple[float, _Cause] | None = None
        """The beat after which the loop stood still, and why."""
        self._has_failed = False

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Watch while a request is under way."""
        clock = LoopClock.of(asyncio.get_running_loop())
        clock.begin(self._stood_still) if not self._under_way else None
        self._under_way += 1
        self._clock = clock
        self._wake()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                clock.end(self._stood_still)

    @contextmanager
    def telling(self, log: Transaction, obs: ObservabilityContext) -> Iterator[None]:
        """Have a transaction's record and telemetry told what delayed it."""
        self._delayed[id(log)] = _Delays(log, obs, {})
        try:
            yield
        finally:
            del self._delayed[id(log)]

    def note(self, log: Transaction) -> None:
        """Note in a transaction's record what has delayed it so far."""
        delays = self._delayed.get(id(log))
        if delays is not None:
            if self._clock is not None:
                self._clock.look()
            delays.tell()

    def close(self) -> None:
        """Let the thread go."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    # --- the loop's side --------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._thread is not None:
            return
        with self._changed:
            self._closed = False
            self._thread = threading.Thread(target=self._watch, name="luthien-watchdog", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads; a request needs none
                self._thread = None
                self._say_failed()

    def _say_failed(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.exception("the watch over the event loop failed: what blocks it is perhaps not named")

    def _stood_still(self, began: float, seconds: float) -> None:
        if seconds < self._warn_after:
            return
        seen, self._seen = self._seen, None
        cause = seen[1] if seen is not None and seen[0] == began else _Cause(_NOBODY)
        _log.warning("the event loop goes on: it was blocked for %.1f s by %s%s", seconds, cause.name, cause.place)
        for delays in self._delayed.values():
            delays.add(cause.name, seconds)
        obs = cause.obs or next((delays.obs for delays in self._delayed.values()), None)
        if obs is not None:
            about = {"luthien.policy.name": cause.policy, "luthien.policy.hook": cause.hook, "luthien.seconds": round(seconds, 3)}
            obs.event(LOOP_BLOCK, about)

    # --- the thread's side ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._look_now_and_then()
        except Exception:
            self._say_failed()
        finally:
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _look_now_and_then(self) -> None:
        pause = min(_LOOKS, self._warn_after / 2)
        idle_since = monotonic()
        while True:
            slept, worked = monotonic(), process_time()
            with self._changed:
                self._changed.wait(pause)
                if self._under_way:
                    idle_since = monotonic()
                if self._closed or monotonic() - idle_since > _LINGER:
                    self._thread = None
                    return
            late = monotonic() - slept - pause
            self._look(was_stopped=late > self._warn_after / 2 and process_time() - worked < late / 2)

    def _look(self, *, was_stopped: bool) -> None:
        clock = self._clock
        if clock is None or not self._under_way:
            return
        began = clock.beat_at
        seconds = monotonic() - began
        if seconds < self._warn_after or (self._seen is not None and self._seen[0] == began):
            return
        if was_stopped:  # this thread was late too, and nobody has worked: whoever was at work when it happened is not the cause
            self._seen = (began, _Cause(_NOBODY))
            return
        cause = _cause(sys._current_frames().get(clock.thread), clock.base)  # noqa: SLF001 - documented, and there for this
        if cause is None or clock.beat_at != began:
            return
        self._seen = (began, cause)
        _log.warning("the event loop has been blocked for %.1f s by %s%s", seconds, cause.name, cause.place)


def _cause(innermost: FrameType | None, base: CodeType | None) -> _Cause | None:
    """Return what a thread is doing, from its stack; None while its loop only waits."""
    stack: list[FrameType] = []
    frame = innermost
    while frame is not None and frame.f_code is not base:
        if frame.f_code in HOOK_CODES and "plan" in (given := frame.f_locals):
            return _hooks_cause(stack, given)
        stack.append(frame)
        frame = frame.f_back
    if not stack or stack[0].f_code.co_filename == selectors.__file__:
        return None
    module = stack[0].f_globals.get("__name__", "?")
    return _Cause(f"code of {module}, which is no policy's", f" ({_place(stack[0])})")


def _hooks_cause(stack: list[FrameType], given: dict[str, object]) -> _Cause:
    """Return the policy whose hook is at work; `given` are the variables of who called it."""
    caller, plan, hook = given.get("self"), given.get("plan"), given.get("hook")
    policy, name = str(getattr(plan, "name", "?")), str(getattr(hook, "__name__", "?"))
    code = getattr(hook, "__code__", None)
    own = [frame for frame in stack if code is not None and frame.f_code.co_filename == code.co_filename]
    place = f" ({_place((own or stack)[0])})" if stack else ""
    obs = caller.obs if isinstance(caller, HookCaller) else None
    return _Cause(f"the policy {policy} in {name}", place, policy=policy, hook=name, obs=obs)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, {frame.f_code.co_name}"
