"""A policy that cancels the task it runs in has failed; neither the server nor the client is taken to have stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import (
    Block,
    BlockKind,
    End,
    Governed,
    Hold,
    LuthienMiddleware,
    MemoryRecorder,
    Observe,
    Policy,
    StreamContext,
    StreamSettings,
    Transform,
)
from luthien_asgi.testing import ASGIDriver, Fetched, ScriptedBackend, ToolCall, chunks

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS = [OPENAI, ANTHROPIC, RESPONSES]
ON_STREAMS = ["on_chunk_added", "on_block_end", "on_block_complete", "on_stream_complete"]
HOOKS = ["on_request", *ON_STREAMS]
MARKS = {OPENAI: b'data: {"error"', ANTHROPIC: b"event: error", RESPONSES: b"event: response.failed"}
ENDS = (b"[DONE]", b"message_stop", b"response.completed")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope)


def cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def plainly() -> None:
    cancel()


def twice() -> None:
    cancel()
    cancel()


def and_fails() -> None:
    cancel()
    raise LookupError


async def and_returns() -> None:
    cancel()


async def and_waits() -> None:
    cancel()
    await asyncio.Event().wait()


async def and_goes_on() -> None:
    cancel()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def after_a_while() -> None:
    await asyncio.sleep(0)
    cancel()


async def by_itself() -> None:
    raise asyncio.CancelledError


async def by_what_it_waits_for() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def by_a_callback() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.Event().wait()


WAYS: list[Callable[[], Any]] = [
    plainly, twice, and_fails, and_returns, and_waits, and_goes_on, after_a_while, by_itself, by_what_it_waits_for,
]  # fmt: skip


def cancelling(hook: str, way: Callable[[], Any]) -> Policy:
    def cancels(self: Policy, *args: Any) -> Any:
        return way()

    cancels.__name__ = hook
    handling = {"on_block_complete": Hold(), "on_chunk_added": Transform(), "on_block_end": Transform()}.get(hook, Observe())
    handles = {} if hook == "on_request" else {BlockKind.TEXT: handling}
    policy: Policy = type("Cancels", (Policy,), {"handles": handles, hook: cancels})()
    return policy


class Case:
    """A middleware with such a policy, and its record."""

    def __init__(self, policy: Any, script: Any = None, **settings: Any) -> None:
        self.backend = ScriptedBackend(script or chunks("Hel", "lo"))
        self.recorder = MemoryRecorder()
        given = StreamSettings(**settings)
        self.app = LuthienMiddleware(nothing, backend=self.backend, policy=policy, recorder=self.recorder, settings=given)

    @staticmethod
    def body(path: str, *, stream: bool) -> dict[str, Any]:
        said = {"input": "Hi"} if path == RESPONSES else {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
        return {"model": "scripted", "stream": stream} | said

    async def answer(self, path: str, *, stream: bool = True) -> Fetched:
        before = asyncio.all_tasks()
        got = await ASGIDriver(self.app).fetch("POST", path, json=self.body(path, stream=stream))
        assert {task for task in asyncio.all_tasks() - before if "_shutdown_watcher" not in repr(task)} == set()
        assert all(stream.closed.is_set() for stream in self.backend.streams)
        assert self.app._services.drain.running == 0
        return got

    @property
    def end(self) -> End:
        (end,) = self.recorder.ended
        return end


def check_failed(case: Case, got: Fetched, path: str, *, stream: bool) -> None:
    assert case.end.ending == "failed"
    assert case.end.error is not None
    assert "The policy Cancels" in case.end.error["message"]
    if stream and got.status == 200:
        assert got.body.count(MARKS[path]) == 1
        assert not any(end in got.body for end in ENDS)
    else:
        assert got.status == 500
        assert "The policy Cancels" in got.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hook", HOOKS)
async def test_who_cancels_itself_has_failed(hook: str, way: Callable[[], Any], stream: bool, path: str) -> None:
    """The client gets the policy's error in its format, and so says the record."""
    case = Case(cancelling(hook, way))
    check_failed(case, await case.answer(path, stream=stream), path, stream=stream)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("hook", ON_STREAMS)
async def test_who_has_itself_cancelled_has_failed(hook: str, stream: bool, path: str) -> None:
    """Where the work on the answer is cancelled and its owner is not, a policy did it, by whatever way."""
    case = Case(cancelling(hook, by_a_callback))
    check_failed(case, await case.answer(path, stream=stream), path, stream=stream)


@pytest.mark.parametrize("way", WAYS)
async def test_a_judge_that_cancels_itself_blocks_its_call(way: Callable[[], Any]) -> None:
    """As one that fails: the call does not leave, and the conversation goes on."""

    class Cancels(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Any:
            return way()

    case = Case(Cancels(), chunks("Hi", ToolCall("c", "bash", "{}")))
    got = await case.answer(OPENAI)
    assert b"The call of bash was blocked" in got.body
    assert b"tool_calls" not in got.body
    assert case.end.ending == "completed"
    assert [verdict.verdict for verdict in case.end.verdicts] == ["error"]


@pytest.mark.parametrize("way", [*WAYS, by_a_callback])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_is_judged_beside_its_call_is_not_let_through(way: Callable[[], Any], stream: bool) -> None:
    """Also where nobody can tell who cancelled the judge."""
    case = Case(Governed(cancelling("on_request", way), concurrent=True))
    got = await case.answer(OPENAI, stream=stream)
    assert got.status == 500
    assert b"Hel" not in got.body
    assert case.end.ending == "failed"


@pytest.mark.broken_off
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_others_cancel_is_told_as_what_it_is(hook: str, stream: bool) -> None:
    """The client leaves, the server drains, the server cancels: also while a policy deals with its own cancellation."""
    for end in ("client", "drain", "server"):
        reached = asyncio.Event()

        async def waits(reached: asyncio.Event = reached) -> None:
            cancel()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                reached.set()
                await asyncio.Event().wait()

        case = Case(cancelling(hook, waits), drain_timeout=0.01)
        scope = ASGIDriver(case.app).request("POST", OPENAI, json=case.body(OPENAI, stream=stream), wait=False)
        async with scope as response:
            await reached.wait()
            await wait_all_tasks_blocked()
            if end == "client":
                response.disconnect()
            elif end == "drain":
                case.app.drain()
            else:
                task = response._running._task
                assert task is not None
                task.cancel()
            try:
                await response.done()
            except asyncio.CancelledError:
                assert end == "server"
        assert case.end.ending == ("client_disconnected" if end == "client" else "shutdown")
