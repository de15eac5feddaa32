"""What blocks the event loop is found and named, and nobody's time passes because of it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import httpx
import pytest

from luthien_asgi import (
    Block,
    BlockKind,
    Hold,
    LuthienMiddleware,
    MemoryRecorder,
    Observe,
    Policy,
    StreamContext,
    StreamSettings,
    Transform,
)
from luthien_asgi.loop_clock import LoopClock
from luthien_asgi.testing import ASGIDriver, Fetched, ScriptedBackend, chunks
from luthien_asgi.testing.chunk_builders import finish, role, text_chunk
from luthien_asgi.wait_limit import WaitTimeout, limited

BLOCK = 0.6
WARN = 0.1


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope)


def stand_still(seconds: float = BLOCK) -> None:
    """Block the loop, as a policy does that asks a database the plain way."""
    time.sleep(seconds)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True} | fields


class Blocks(Policy):
    """Blocks in one hook; each is made of a class of its own, so that its name says which."""

    handles: ClassVar = {BlockKind.TEXT: Hold()}


class InOnRequest(Policy):
    def on_request(self, request: Any, ctx: Any) -> None:
        stand_still()


class InOnBlockComplete(Blocks):
    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        stand_still()


class AfterAnAwait(Blocks):
    async def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        await asyncio.sleep(0)
        stand_still()


class InOnChunkAdded(Policy):
    handles: ClassVar = {BlockKind.TEXT: Observe()}

    def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> None:
        if not ctx.scratchpad.setdefault("blocked", False):
            ctx.scratchpad["blocked"] = True
            stand_still()


class InAGenerator(Policy):
    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_block_end(self, block: Block, ctx: StreamContext) -> Any:
        yield ctx.text("more")
        stand_still()


class InOnStreamComplete(Policy):
    handles: ClassVar = {BlockKind.TEXT: Observe()}

    def on_stream_complete(self, ctx: StreamContext) -> None:
        stand_still()


HOOKS: dict[type[Policy], str] = {
    InOnRequest: "on_request",
    InOnBlockComplete: "on_block_complete",
    AfterAnAwait: "on_block_complete",
    InOnChunkAdded: "on_chunk_added",
    InAGenerator: "on_block_end",
    InOnStreamComplete: "on_stream_complete",
}


def make(
    policy: Policy | None, script: Any = None, *, app: Any = nothing, **settings: Any
) -> tuple[LuthienMiddleware, MemoryRecorder]:
    recorder = MemoryRecorder()
    backend = ScriptedBackend(script or chunks("Hel", "lo"))
    given = StreamSettings(loop_block_warning=WARN, **settings)
    return LuthienMiddleware(app, backend=backend, policy=policy, recorder=recorder, settings=given), recorder


async def answered(app: LuthienMiddleware, **fields: Any) -> Fetched:
    return await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json=body(**fields))


@pytest.mark.parametrize("policy", HOOKS, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_hook_that_blocks_is_named(policy: type[Policy], stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Policy, hook and place while it blocks, and how long it took when it is over; once each, and in the record."""
    app, recorder = make(policy())
    got = await answered(app, stream=stream)
    await app.aclose()
    assert got.status == 200
    told = [record.getMessage() for record in caplog.records if record.name == "luthien_asgi.watchdog"]
    who = f"by the policy {policy.__name__} in {HOOKS[policy]} "
    assert len(told) == 2, told
    assert told[0].startswith("the event loop has been blocked for 0.")
    assert all(who in line for line in told)
    assert re.search(rf"\({re.escape(__file__)}:\d+, stand_still\)$", told[0])
    assert told[1].startswith("the event loop goes on: it was blocked for 0.")
    (end,) = recorder.ended
    assert end.ending == "completed"
    (note,) = [note for note in end.notes if "blocked" in note]
    assert re.fullmatch(rf"the event loop was blocked for 0\.[67] s by the policy {policy.__name__} in {HOOKS[policy]}", note)


async def test_blocks_of_one_hook_are_one_note(caplog: pytest.LogCaptureFixture) -> None:
    """A record does not grow by each."""

    class Often(Policy):
        handles: ClassVar = {BlockKind.TEXT: Observe()}

        async def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> None:
            stand_still(0.3)
            beat = asyncio.Event()
            asyncio.get_running_loop().call_later(0.06, beat.set)
            await beat.wait()

    app, recorder = make(Often(), [role(), text_chunk("a"), text_chunk("b"), text_chunk("c"), finish()])
    await answered(app)
    await app.aclose()
    (note,) = [note for note in recorder.ended[0].notes if "blocked" in note]
    assert re.fullmatch(r"the event loop was blocked for (0\.9|1\.\d) s by the policy Often in on_chunk_added, in 3 times", note)


async def test_code_that_is_no_policys_is_named_as_such(caplog: pytest.LogCaptureFixture) -> None:
    """The host's, say: with its module and place."""
    released = asyncio.Event()
    app, recorder = make(None, [role(), text_chunk("a"), released, finish()])
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body()) as response:
        stand_still()
        released.set()
        await response.read()
    await app.aclose()
    told = [record.getMessage() for record in caplog.records if record.name == "luthien_asgi.watchdog"]
    assert len(told) == 2
    assert f"by code of {__name__}, which is no policy's ({__file__}:" in told[0]
    assert any("which is no policy's" in note for note in recorder.ended[0].notes)


async def test_neither_waiting_nor_work_is_a_block(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that waits, and a thread that works, leave the loop free."""

    class Waits(Blocks):
        async def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
            await asyncio.to_thread(stand_still, 0.4)

    app, recorder = make(Waits())
    await answered(app)
    await app.aclose()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert recorder.ended[0].notes == ()


async def test_the_thread_is_there_while_requests_are_and_goes_with_the_middleware() -> None:
    """Nothing watches, and no timer is set, while there is nothing to watch."""

    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "luthien-watchdog"]

    before = watching()
    released = asyncio.Event()
    app, _ = make(None, [role(), text_chunk("a"), released, finish()])
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body()) as response:
        (thread,) = set(watching()) - set(before)
        assert thread.daemon
        released.set()
        await response.read()
    assert LoopClock.of(asyncio.get_running_loop())._timer is None
    await app.aclose()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()


class Nameless:
    """What stands in the place of a module's name in code that somebody made up as it ran."""

    def __format__(self, spec: str) -> str:
        raise LookupError("no name")


def watchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "luthien-watchdog"}


async def test_a_watch_that_fails_is_told_once_and_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    """By code that cannot be named, say. The answer is as ever, and what blocks the next one is named."""
    before = watchers()
    released = [asyncio.Event() for _ in range(3)]
    app, recorder = make(None, [[role(), text_chunk("a"), each, finish()] for each in released])
    namespace: dict[str, Any] = {"__name__": Nameless(), "stand_still": time.sleep}
    exec("def block(): stand_still(0.6)", namespace)  # noqa: S102 - as templates and plugins are made
    for each in released[:2]:
        async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body()) as response:
            (thread,) = watchers() - before
            namespace["block"]()
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()
            each.set()
            await response.read()
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body()) as response:
        stand_still()
        released[2].set()
        await response.read()
    await app.aclose()
    told = [record for record in caplog.records if record.name == "luthien_asgi.watchdog"]
    (failed,) = [record for record in told if record.levelno == logging.ERROR]
    assert "LookupError: no name" in str(failed.exc_text)
    assert f"by code of {__name__}, which is no policy's" in told[-1].getMessage()
    assert [end.ending for end in recorder.ended] == ["completed"] * 3
    assert any("which is no policy's" in note for note in recorder.ended[2].notes)


# --- nobody's time passes -----------------------------------------------------------------------------------------------------


class BlocksOnCue(Policy):
    """Blocks when the test says so, and then hangs like any other judge would."""

    handles: ClassVar = {BlockKind.TEXT: Hold()}

    def __init__(self, then: Callable[[], Any]) -> None:
        self.then = then

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        await self.then()


async def test_a_stall_timeout_does_not_count_the_time_of_a_block() -> None:
    """The provider's next event came while the loop stood still, or comes right after."""
    gone_on = asyncio.Event()
    app, recorder = make(None, [role(), text_chunk("a"), gone_on, text_chunk("b"), finish()], stall_timeout=0.3)
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body()) as response:
        stand_still()
        asyncio.get_running_loop().call_later(0.1, gone_on.set)
        rest = await response.read()
    await app.aclose()
    assert b"[DONE]" in rest
    assert [end.ending for end in recorder.ended] == ["completed"]


async def test_a_stall_timeout_counts_the_time_after_a_block() -> None:
    """It is longer by the block, and not gone."""
    app, recorder = make(None, [role(), text_chunk("a"), asyncio.Event()], stall_timeout=0.3)
    async with asyncio.timeout(5), ASGIDriver(app).request("POST", "/v1/chat/completions", json=body()) as response:
        stand_still()
        rest = await response.read()
    await app.aclose()
    assert b"silent for too long" in rest
    assert recorder.ended[0].error is not None


@pytest.mark.parametrize("setting", ["policy_timeout", "total_timeout", "queue_timeout"])
async def test_other_limits_do_not_count_the_time_of_a_block(setting: str) -> None:
    """Neither a judge's time, nor the answer's as a whole, nor a queue's."""
    blocked = asyncio.Event()

    async def judged() -> None:
        stand_still()
        asyncio.get_running_loop().call_later(0.1, blocked.set)
        await blocked.wait()

    app, recorder = make(BlocksOnCue(judged), **{setting: 0.4, "queue_size": 1})
    got = await answered(app)
    await app.aclose()
    assert b"[DONE]" in got.body
    assert [end.ending for end in recorder.ended] == ["completed"]


async def test_one_policys_block_does_not_time_out_another_transactions_judge() -> None:
    """The judge has what it waits for as soon as the loop goes on."""
    asked = asyncio.Event()
    told = asyncio.get_running_loop().create_future()

    async def judged() -> None:
        asked.set()
        await told

    patient, recorder = make(BlocksOnCue(judged), policy_timeout=0.3)
    blocking, _ = make(InOnRequest())
    async with asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(answered(patient))
        await asked.wait()
        asyncio.get_running_loop().call_later(0.1, told.set_result, None)
        await answered(blocking)
    await patient.aclose()
    await blocking.aclose()
    assert b"[DONE]" in answer.result().body
    assert [end.ending for end in recorder.ended] == ["completed"]


async def test_what_is_ready_is_read_before_a_limit_passes_that_nobody_measured() -> None:
    """Also where no clock beats, and for a standstill that is too short to count."""
    read, write = os.pipe()
    loop = asyncio.get_running_loop()
    got = loop.create_future()
    loop.add_reader(read, lambda: got.done() or got.set_result(os.read(read, 1)))
    try:
        with limited(0.01):
            loop.call_soon(lambda: (stand_still(0.05), os.write(write, b"x")))
            assert await got == b"x"
    finally:
        loop.remove_reader(read)
        os.close(read)
        os.close(write)
    with pytest.raises(WaitTimeout), limited(0.01):
        await asyncio.Event().wait()


# --- on a server ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_server_names_who_blocks_it_and_loses_no_stream(path: str, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Those beside it wait for as long, and are not timed out."""
    policy = OnceForMany()
    recorder = MemoryRecorder()
    settings = StreamSettings(loop_block_warning=WARN, stall_timeout=0.3, policy_timeout=0.3, send_timeout=0.3)
    backend = ScriptedBackend(chunks("Hel", "lo"))
    url = serve(LuthienMiddleware(nothing_else, backend=backend, policy=policy, recorder=recorder, settings=settings))
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        answers = await asyncio.gather(*(client.post(path, json=body(max_tokens=9)) for _ in range(20)))
    assert all(b"[DONE]" in answer.content or b"message_stop" in answer.content for answer in answers)
    assert [end.ending for end in recorder.ended] == ["completed"] * 20
    assert "by the policy OnceForMany in on_block_complete" in caplog.text


async def nothing_else(scope: Any, receive: Any, send: Any) -> None:
    """Only the lifespan gets here."""
    while scope["type"] == "lifespan":
        kind = (await receive())["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{kind}.complete"})
        if kind == "shutdown":
            return


class OnceForMany(Blocks):
    """Blocks once, while others wait for their judge."""

    def __init__(self) -> None:
        self.asked = 0

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.asked += 1
        if self.asked == 5:
            stand_still()
        await asyncio.sleep(0)


STOPPED = """
import asyncio, logging, sys
from luthien_asgi import LuthienMiddleware, MemoryRecorder, StreamSettings
from luthien_asgi.testing import ASGIDriver, ScriptedBackend
from luthien_asgi.testing.chunk_builders import finish, role, text_chunk

async def main():
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    released = asyncio.Event()
    recorder = MemoryRecorder()
    app = LuthienMiddleware(
        None, backend=ScriptedBackend([role(), text_chunk("a"), released, finish()]), recorder=recorder,
        settings=StreamSettings(stall_timeout=0.5, loop_block_warning=0.2),
    )
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body) as response:
        print("streaming", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        released.set()
        await response.read()
    print(recorder.ended[0].ending, *recorder.ended[0].notes, flush=True)

asyncio.run(main())
"""


def test_a_process_that_was_stopped_times_nothing_out() -> None:
    """SIGSTOP for longer than the stall timeout: the stream goes on, and the record says why it took so long."""
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while process.stdout.readline() != "streaming\n":
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        stand_still(1.0)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("go on\n", timeout=90)
    assert "completed the event loop was blocked for " in said
    assert "the process was stopped" in said
