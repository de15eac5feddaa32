"""Hooks: what a policy declares, and how its hooks are called."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any, ClassVar

import pytest

from luthien_asgi.blocks import BlockKind
from luthien_asgi.errors import BackendError, ConfigError, PolicyError, PolicyTimeout
from luthien_asgi.hooks import HookCaller, keepalive
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.policy import Hold, Observe, Policy, Transform, blocking


class Everything(Policy):
    handles: ClassVar = {BlockKind.TEXT: Transform(), BlockKind.TOOL_CALL: Hold()}

    def on_request(self, request: Any, ctx: Any) -> None: ...
    def on_chunk_added(self, chunk: Any, ctx: Any) -> None: ...
    def on_block_end(self, block: Any, ctx: Any) -> None: ...
    def on_block_complete(self, block: Any, ctx: Any) -> None: ...
    def on_stream_complete(self, ctx: Any) -> None: ...
    def on_error(self, error: Any, ctx: Any) -> None: ...


def test_a_plan_has_the_hooks_that_are_overridden() -> None:
    """A hook that a policy does not override is None in its plan."""
    plan = PolicyPlan.of(Everything())
    assert plan.name == "Everything"
    assert plan.on_request is not None
    assert plan.may_speak
    empty = PolicyPlan.of(Policy())
    assert empty.on_request is None
    assert not empty.may_speak
    assert PolicyPlan.of(None).handles == {}


def declared(handles: Any, *hooks: str) -> Policy:
    return type("P", (Policy,), {"handles": handles, **dict.fromkeys(hooks, lambda *_: None)})()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (declared({"text": Hold()}, "on_block_complete"), "maps a BlockKind"),
        (declared({BlockKind.TEXT: "hold"}, "on_block_complete"), "maps a BlockKind"),
        (declared({BlockKind.THINKING: Transform()}, "on_chunk_added"), "never edited in parts"),
        (declared({BlockKind.TOOL_CALL: Hold()}), "nothing would judge"),
        (declared({}, "on_chunk_added", "on_block_complete"), "never be called"),
        (declared({BlockKind.TEXT: Observe()}, "on_block_end"), "declares none"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused_when_loaded(policy: Policy, message: str) -> None:
    """A policy whose declaration the stream path cannot serve is an error at load, never skipped."""
    with pytest.raises(ConfigError, match=message):
        PolicyPlan.of(policy)


async def call(hook: Any, *args: Any, limit: float = 5.0) -> Any:
    caller = HookCaller(timeout=limit, threads=2)
    try:
        return await caller.call(dataclasses.replace(PolicyPlan.of(None), name="P"), hook, *args)
    finally:
        caller.close()


def test_a_method_that_is_nearly_a_hook_is_refused() -> None:
    """A typing error would let everything pass unjudged."""

    class Misspelt(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Observe()}

        def on_blok_complete(self, block: Any, ctx: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"on_blok_complete.*did you mean on_block_complete"):
        PolicyPlan.of(Misspelt())


def test_a_hook_that_does_not_take_its_arguments_is_refused() -> None:
    """When it is loaded, and not when the first call is judged; defaults and *args are welcome."""

    class Narrow(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

        def on_block_complete(self, block: Any) -> None: ...  # type: ignore[override]

    class Wide(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

        def on_block_complete(self, *given: object, more: int = 0) -> None: ...

    with pytest.raises(ConfigError, match=r"Narrow\.on_block_complete is called with block, ctx"):
        PolicyPlan.of(Narrow())
    assert PolicyPlan.of(Wide()).on_block_complete is not None


async def test_plain_and_async_hooks_return_their_result() -> None:
    """A plain function runs inline, a coroutine is awaited."""

    async def later(value: int) -> int:
        return value + 1

    assert await call(lambda value: value + 1, 1) == 2
    assert await call(later, 1) == 2


async def test_a_blocking_hook_runs_in_a_thread() -> None:
    """A hook marked with @blocking does not run on the event loop's thread."""

    @blocking
    def slow() -> str:
        return threading.current_thread().name

    assert (await call(slow)).startswith("luthien-policy")


async def test_a_hook_that_raises_is_a_policy_error_that_names_it() -> None:
    """The error names policy and hook, not the exception's text."""

    def on_something() -> None:
        raise KeyError("secret")

    with pytest.raises(PolicyError, match="P failed in on_something") as caught:
        await call(on_something)
    assert "secret" not in caught.value.message


async def test_an_error_of_our_own_passes_as_it_is() -> None:
    """A hook may raise an ApiError with a status of its own."""

    def hook() -> None:
        raise BackendError("judge down", status=503)

    with pytest.raises(BackendError):
        await call(hook)


async def test_a_hook_that_waits_for_something_cancelled_has_failed() -> None:
    """Only we are cancelled by our own cancellation: any other must not end the answer's task without a word."""

    async def waiting() -> None:
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other

    with pytest.raises(PolicyError, match="was cancelled in waiting"):
        await call(waiting)


async def test_a_hook_is_cancelled_with_its_answer() -> None:
    """The client left: that is no failure of the policy's."""
    began = asyncio.Event()

    async def waiting() -> None:
        began.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(call(waiting))
        await began.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_hook_that_is_busy_for_too_long_is_timed_out() -> None:
    """A coroutine that does not end within the timeout is PolicyTimeout, and is cancelled."""
    cancelled = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(PolicyTimeout):
        await call(hang, limit=0.01)
    assert cancelled.is_set()


async def test_a_hooks_own_time_out_is_a_failure_and_not_its_deadline() -> None:
    """A TimeoutError that the hook raises itself is PolicyError."""

    async def judge() -> None:
        raise TimeoutError

    with pytest.raises(PolicyError) as caught:
        await call(judge)
    assert not isinstance(caught.value, PolicyTimeout)


@pytest.mark.parametrize("where", ["in the hook", "in a thread", "in a task"])
async def test_keepalive_starts_the_deadline_anew(where: str) -> None:
    """Saying that it is alive gives a hook its whole time again, from now; so it may take several times that in all."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + 0.5

    async def said() -> None:
        keepalive()

    async def judge() -> str:
        while loop.time() < ends:
            if where == "in the hook":
                keepalive()
            else:
                await (asyncio.to_thread(keepalive) if where == "in a thread" else loop.create_task(said()))
            released = asyncio.Event()
            loop.call_later(0.02, released.set)
            await released.wait()
        return "judged"

    assert await call(judge, limit=0.2) == "judged"


async def test_keepalive_of_a_task_that_the_hook_started_counts_too() -> None:
    """The deadline is found from a child task and from a thread; outside a hook keepalive does nothing."""
    keepalive()
    children: list[Any] = []

    async def judge() -> None:
        async def child() -> None:
            keepalive()

        async with asyncio.TaskGroup() as tasks:
            children.append(tasks.create_task(child()))
        await asyncio.to_thread(keepalive)

    await call(judge)
    assert children


async def test_keepalive_after_the_hook_ended_is_harmless() -> None:
    """A task that outlives its hook may still call it."""
    release = asyncio.Event()

    async with asyncio.TaskGroup() as tasks:

        async def late() -> None:
            await release.wait()
            keepalive()

        async def judge() -> None:
            tasks.create_task(late())

        await call(judge)
        release.set()
