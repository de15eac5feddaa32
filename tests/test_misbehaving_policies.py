"""Policies that misbehave in every way: what the client gets is legal, upstream is closed, and nothing is left of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from inspect import getsource
from itertools import count, repeat
from textwrap import dedent, indent
from typing import Any, ClassVar

import httpx
import pytest

from luthien_asgi import (
    Allow,
    ApiError,
    Begin,
    Block,
    BlockKind,
    Chain,
    Deny,
    End,
    Escalate,
    Governed,
    Hold,
    LuthienMiddleware,
    MemoryRecorder,
    Observe,
    Policy,
    Replace,
    Stop,
    StreamContext,
    StreamSettings,
    Together,
    Transform,
    blocking,
)
from luthien_asgi.approvals import Approvals
from luthien_asgi.testing import ASGIDriver, Fetched, ScriptedBackend, ToolCall, chunks
from luthien_asgi.testing.chunk_builders import build_chunk, finish, role, text_chunk

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS = [OPENAI, ANTHROPIC, RESPONSES]
QUICK: dict[str, Any] = {"policy_timeout": 0.1, "close_timeout": 0.1, "auth_timeout": 0.1, "record_timeout": 0.1}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope)


def asked(path: str, **fields: Any) -> dict[str, Any]:
    said = {"input": "Hi"} if path == RESPONSES else {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    return {"model": "scripted", "stream": True} | said | fields


class Case:
    """A middleware, what it records, and what is left of a request."""

    def __init__(self, policy: Any, script: Any = None, *, settings: dict[str, Any] | None = None, **options: Any) -> None:
        self.backend = ScriptedBackend(script or chunks("Hel", "lo", ToolCall("c", "bash", "{}")))
        self.recorder = options.pop("recorder", MemoryRecorder())
        chosen: dict[str, Any] = QUICK | (settings or {})
        given = StreamSettings(**chosen)
        self.app = LuthienMiddleware(
            nothing, backend=self.backend, policy=policy, recorder=self.recorder, settings=given, **options
        )

    async def answer(self, path: str = OPENAI, *, stream: bool = True) -> Fetched:
        """Return the answer, which comes within seconds, and leaves no task."""
        before = asyncio.all_tasks()
        async with asyncio.timeout(5):
            got = await ASGIDriver(self.app).fetch("POST", path, json=asked(path, stream=stream))
        assert {task for task in asyncio.all_tasks() - before if "_shutdown_watcher" not in repr(task)} == set()
        assert all(stream.closed.is_set() for stream in self.backend.streams)
        assert self.app._services.drain.running == 0
        return got

    @property
    def end(self) -> End:
        (end,) = self.recorder.ended
        return end

    @property
    def abandoned(self) -> int:
        return self.app._services.hooks.abandoned


def failed(got: Fetched, path: str, *, stream: bool, status: int = 504) -> bool:
    """Tell whether an answer ended in the error of its format."""
    if not stream or got.status != 200:
        return got.status == status
    marks = {OPENAI: b'data: {"error"', ANTHROPIC: b"event: error", RESPONSES: b"response.failed"}
    return marks[path] in got.body and b"[DONE]" not in got.body and b"message_stop" not in got.body


# --- hooks that do not end --------------------------------------------------------------------------------------------------


async def deaf() -> None:
    """Never ends, whatever it is told."""
    while True:
        try:  # noqa: SIM105 - a name less, when the interpreter ends and takes them away
            await asyncio.Event().wait()
        except BaseException:  # noqa: S110
            pass


async def stubborn() -> None:
    """Swallows its cancellation, and ends when it is closed."""
    while True:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue


NEVER: dict[str, Any] = {"deaf": deaf, "stubborn": stubborn}


def never(how: str, hook: str) -> Policy:
    """Return a policy whose hook does not end, nor lets itself be cancelled."""

    async def hangs(self: Policy, *args: Any) -> None:
        await NEVER[how]()

    hangs.__name__ = hook
    kinds = {BlockKind.TEXT: Transform() if hook in {"on_chunk_added", "on_block_end"} else Hold()}
    hooks: dict[str, Any] = {hook: hangs}
    if hook not in {"on_chunk_added", "on_block_end", "on_block_complete"}:
        kinds = {BlockKind.TEXT: Observe()}
    fields: dict[str, Any] = {"handles": {} if hook in {"on_request", "on_error"} else kinds}
    policy: Policy = type("Never", (Policy,), fields | hooks)()
    return policy


@pytest.mark.parametrize(
    ("how", "path", "stream"),
    [*(("deaf", path, stream) for path in PATHS for stream in (True, False)), ("stubborn", OPENAI, True)],
)
@pytest.mark.parametrize("hook", ["on_request", "on_chunk_added", "on_block_end", "on_block_complete", "on_stream_complete"])
async def test_a_hook_that_swallows_its_cancellation_is_given_up(
    hook: str, how: str, stream: bool, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the time-out's error, the backend is closed, the record and the log name policy and hook."""
    case = Case(never(how, hook))
    got = await case.answer(path, stream=stream)
    assert failed(got, path, stream=stream)
    assert case.abandoned == 1
    assert case.end.ending == "failed"
    assert case.end.error is not None
    assert case.end.error["message"] == f"The policy Never did not answer in {hook} within its time."
    assert f"the policy Never did not end in {hook} and was given up" in case.end.notes
    assert f"the hook {hook} of the policy Never did not end when it was told to: it is given up ({__file__}:" in caplog.text
    assert f"; transaction {case.end.id})" in caplog.text


def test_a_process_that_gave_a_hook_up_ends() -> None:
    """The interpreter closes what is left when it ends, and would wait for ever for what swallows that too."""
    program = f"""
        import asyncio
        from luthien_asgi.hook_run import LateCall, bounded
        {indent(getsource(deaf), " " * 8).strip()}
        async def main():
            try:
                await bounded(deaf(), 0.1, grace=0.1, what="deaf")
            except LateCall:
                print("given up")
        asyncio.run(main())
    """
    ended = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, "given up\n")
    assert ended.stderr == "deaf did not end when it was told to: it is given up\n"


@pytest.mark.parametrize("how", NEVER)
async def test_a_hook_that_swallows_its_cancellation_passes_where_errors_pass(how: str) -> None:
    """What is let through is let through, and marked."""
    case = Case(Governed(never(how, "on_block_complete"), on_error="pass"))
    got = await case.answer()
    assert b"[DONE]" in got.body
    assert (case.end.ending, list(case.end.unchecked), case.abandoned) == ("completed", ["Never"], 1)


@pytest.mark.broken_off
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("hook", ["on_request", "on_chunk_added", "on_block_complete", "on_stream_complete"])
async def test_a_client_that_leaves_is_let_go_whatever_the_hook_does(hook: str, stream: bool, path: str) -> None:
    """Within a second upstream is closed, the record written and the slot free."""
    began = asyncio.Event()

    async def hangs(self: Policy, *args: Any) -> None:
        began.set()
        await deaf()

    policy = never("deaf", hook)
    setattr(type(policy), hook, hangs)
    hangs.__name__ = hook
    case = Case(policy, settings={"policy_timeout": 60.0, "close_timeout": 0.5})
    async with ASGIDriver(case.app).request("POST", path, json=asked(path, stream=stream), wait=False) as response:
        await began.wait()
        response.disconnect()
        async with asyncio.timeout(1):
            await response.done()
    assert all(stream.closed.is_set() for stream in case.backend.streams)
    assert (case.end.ending, case.abandoned, case.app._services.drain.running) == ("client_disconnected", 1, 0)


@pytest.mark.broken_off
@pytest.mark.parametrize("hook", ["on_request", "on_chunk_added", "on_block_complete"])
async def test_a_server_lets_a_client_go_whatever_the_hook_does(hook: str, serve: Any) -> None:
    """A real disconnect: the record is there within a second, and the server answers the next one."""
    began, ended = threading.Event(), threading.Event()

    class Notes(MemoryRecorder):
        async def end(self, end: End) -> None:
            await super().end(end)
            ended.set()

    async def hangs(self: Policy, *args: Any) -> None:
        began.set()
        await deaf()

    policy = never("deaf", hook)
    setattr(type(policy), hook, hangs)
    hangs.__name__ = hook
    case = Case(policy, settings={"policy_timeout": 60.0, "close_timeout": 0.5}, recorder=Notes())
    url = serve(case.app, lifespan="off")
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        asking = asyncio.get_running_loop().create_task(client.post(OPENAI, json=asked(OPENAI)))
        await until(began.is_set)
        asking.cancel()
        left = time.monotonic()
        await until(ended.is_set)
        assert time.monotonic() - left < 1
    assert (case.end.ending, case.abandoned) == ("client_disconnected", 1)


async def test_a_judge_of_a_call_that_swallows_its_cancellation_is_given_up() -> None:
    """It runs in a task of its own, beside the stream."""
    case = Case(judge_of_calls(deaf))
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert (case.end.ending, case.abandoned) == ("failed", 1)


def judge_of_calls(then: Any, verdict: Any = None) -> Policy:
    class Judge(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
        verdicts = (Allow, Deny, Stop)

        async def on_block_complete(self, block: Block, ctx: StreamContext) -> Any:
            await then()
            return verdict

    return Judge()


async def test_a_judge_that_was_overruled_and_does_not_listen_is_given_up() -> None:
    """Of two at once: nobody waits for the one that cannot change anything any more."""

    async def at_once() -> None: ...

    case = Case(Together([judge_of_calls(at_once, Stop("no")), judge_of_calls(deaf)]), settings={"policy_timeout": 60.0})
    got = await case.answer()
    assert b"no" in got.body
    assert (case.end.ending, case.abandoned) == ("stopped", 1)


async def test_a_policy_in_shadow_that_does_not_listen_is_given_up() -> None:
    """The client has its answer; the record waits for the shadow's time, and no longer."""
    case = Case(Governed(never("deaf", "on_block_complete"), mode="shadow"))
    got = await ASGIDriver(case.app).fetch("POST", OPENAI, json=asked(OPENAI))
    assert b"[DONE]" in got.body
    await case.app.aclose()
    assert (case.end.ending, case.abandoned) == ("completed", 1)


async def test_on_error_that_does_not_listen_is_given_up() -> None:
    """What it is told about is recorded all the same."""
    case = Case(never("deaf", "on_error"), [ApiError("no", status=502)])
    got = await case.answer()
    assert got.status == 502
    assert (case.end.ending, case.abandoned) == ("failed", 1)


async def test_a_concurrent_on_request_that_does_not_listen_is_given_up() -> None:
    """It runs beside the backend's call."""
    case = Case(Governed(never("deaf", "on_request"), concurrent=True))
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert (case.end.ending, case.abandoned) == ("failed", 1)


async def test_a_callback_for_approvals_that_does_not_listen_is_given_up() -> None:
    """The person's time is over, and so is the callback's."""

    class Asks(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
        verdicts = (Escalate,)

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Escalate:
            return Escalate("May it?", timeout=0.1)

    async def notify(approval: Any) -> None:
        await deaf()

    case = Case(Asks(), approvals=Approvals(notify=notify))
    got = await case.answer()
    assert b"was not approved" in got.body
    assert case.end.ending == "completed"


async def test_what_a_hook_does_after_its_cancellation_is_no_answer() -> None:
    """A verdict that comes when the time is over is late, however soon after."""

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    case = Case(judge_of_calls(late, Allow()))
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert (case.end.ending, case.abandoned) == ("failed", 0)


async def test_a_hook_may_take_a_moment_to_end() -> None:
    """It is told once, and cleans up."""
    cleaned: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("up")

    case = Case(judge_of_calls(tidy))
    await case.answer()
    assert (cleaned, case.abandoned) == (["up"], 0)


async def test_time_outs_and_task_groups_of_a_hooks_own_work_as_ever() -> None:
    """A time-out that it deals with is no cancellation of ours, and it has all of its time after it."""
    seen: list[object] = []

    async def judged() -> None:
        task = asyncio.current_task()
        for _ in range(3):
            try:
                async with asyncio.timeout(0.02):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append(asyncio.current_task() is task)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(raising())
                await asyncio.Event().wait()
        except* ValueError:
            seen.append("group")
        await asyncio.sleep(0.2)

    async def raising() -> None:
        raise ValueError

    case = Case(judge_of_calls(judged), settings={"policy_timeout": 5.0})
    got = await case.answer()
    assert seen == [True, True, True, "group"]
    assert b"[DONE]" in got.body
    assert (case.end.ending, case.abandoned) == ("completed", 0)


async def test_a_slow_clean_up_after_a_time_out_of_its_own_is_bounded_too() -> None:
    """From outside it cannot be told from any other cancellation."""

    async def judged() -> None:
        try:
            async with asyncio.timeout(0.02):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.Event().wait()
        except TimeoutError:
            raise AssertionError from None

    case = Case(judge_of_calls(judged), settings={"policy_timeout": 60.0})
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert (case.end.ending, case.abandoned) == ("failed", 1)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError, StopAsyncIteration, RecursionError])
@pytest.mark.parametrize("how", ["plain", "async", "blocking"])
async def test_no_exception_of_a_hook_ends_more_than_its_answer(error: type[BaseException], how: str) -> None:
    """Not the process, not the task, not the loop."""

    def plain(self: Policy, block: Block, ctx: StreamContext) -> None:
        raise error

    async def awaited(self: Policy, block: Block, ctx: StreamContext) -> None:
        await asyncio.sleep(0)
        raise error

    hooks = {"plain": plain, "async": awaited, "blocking": blocking(lambda self, block, ctx: plain(self, block, ctx))}
    policy = type("Raises", (Policy,), {"handles": {BlockKind.TEXT: Hold()}, "on_block_complete": hooks[how]})()
    case = Case(policy)
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert case.end.error is not None
    assert "The policy Raises" in case.end.error["message"]
    await case.app.aclose()


# --- threads ------------------------------------------------------------------------------------------------------------------


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens in a thread."""

    def wait() -> None:
        while not holds():
            threading.Event().wait(0.001)

    async with asyncio.timeout(10):
        await asyncio.to_thread(wait)


class InThread(Policy):
    """Blocks its thread until it is released."""

    handles: ClassVar = {BlockKind.TEXT: Hold()}

    def __init__(self) -> None:
        self.release = threading.Event()
        self.calls = 0

    @blocking
    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.calls += 1
        self.release.wait(20)


async def test_threads_that_never_come_back_are_bounded_and_counted() -> None:
    """Each time-out leaves one; when all are held a hook fails at once, and when one is free again it is used."""
    policy = InThread()
    case = Case(policy, settings={"policy_threads": 2})
    for _ in range(2):
        assert failed(await case.answer(), OPENAI, stream=True)
    assert (case.abandoned, case.app._services.hooks.stuck_threads) == (2, 2)
    case.recorder.ended.clear()
    began = time.monotonic()
    assert failed(await case.answer(), OPENAI, stream=True)
    assert time.monotonic() - began < 0.09, "it waited for a thread"
    assert case.end.error is not None
    assert "hooks that do not end hold every thread" in case.end.error["message"]
    assert policy.calls == 2
    policy.release.set()
    await until(lambda: not case.app._services.hooks.stuck_threads)
    got = await case.answer()
    assert b"[DONE]" in got.body
    await case.app.aclose()


async def test_a_hook_waits_for_a_thread_that_is_at_work() -> None:
    """One that is in its time is worth waiting for."""
    policy = InThread()
    case = Case(policy, settings={"policy_threads": 1, "policy_timeout": 10.0})
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(ASGIDriver(case.app).fetch("POST", OPENAI, json=asked(OPENAI))) for _ in range(3)]
        await until(lambda: bool(policy.calls))
        policy.release.set()
    assert all(b"[DONE]" in answer.result().body for answer in answers)
    assert (policy.calls, case.abandoned) == (3, 0)
    await case.app.aclose()


async def test_keepalive_from_a_thread_keeps_its_place() -> None:
    """Neither is it timed out, nor is its thread taken for lost."""

    class Beats(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        @blocking
        def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
            for _ in range(8):
                threading.Event().wait(0.05)
                ctx.keepalive()

    case = Case(Beats(), settings={"policy_timeout": 0.2})
    got = await case.answer()
    assert b"[DONE]" in got.body
    assert (case.abandoned, case.app._services.hooks.stuck_threads) == (0, 0)
    await case.app.aclose()


EXITS = """
import asyncio, threading
from typing import ClassVar
from luthien_asgi import BlockKind, Hold, LuthienMiddleware, Policy, StreamSettings, blocking
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, chunks

class Never(Policy):
    handles: ClassVar = {BlockKind.TEXT: Hold()}
    @blocking
    def on_block_complete(self, block, ctx):
        threading.Event().wait()

async def main():
    settings = StreamSettings(policy_timeout=0.1)
    app = LuthienMiddleware(None, backend=ScriptedBackend(chunks("x")), policy=Never(), settings=settings)
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    got = await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json=body)
    await app.aclose()
    print(got.body.decode())

asyncio.run(main())
"""


def test_the_interpreter_does_not_wait_for_a_thread_that_never_comes_back() -> None:
    """A server that was told to stop stops."""
    done = subprocess.run([sys.executable, "-c", EXITS], capture_output=True, text=True, timeout=90, check=True)
    assert "did not answer in on_block_complete within its time" in done.stdout
    assert "Exception ignored" not in done.stderr


# --- what a hook returns --------------------------------------------------------------------------------------------------------


def endless(ctx: StreamContext) -> Iterator[Any]:
    return (ctx.text("x") for _ in count())


def empty_for_ever(ctx: StreamContext) -> Iterator[Any]:
    return (ctx.text("") for _ in count())


def slow_for_ever(ctx: StreamContext) -> Iterator[Any]:
    for _ in count():
        threading.Event().wait(0.01)
        yield ctx.text("x")


def breaks_off(ctx: StreamContext) -> Iterator[Any]:
    yield ctx.text("SECRET")
    raise ValueError("SECRET")


def exits(ctx: StreamContext) -> Iterator[Any]:
    yield ctx.text("x")
    raise SystemExit


class ByItsLooks:
    choices = 3


def mutant(ctx: StreamContext) -> Any:
    chunk: Any = ctx.text("x")
    chunk.choices[0].delta.__pydantic_extra__["content"] = 5
    return [chunk]


RUBBISH: dict[str, Any] = {
    "endless": endless,
    "endless and empty": empty_for_ever,
    "slow and endless": slow_for_ever,
    "breaks off": breaks_off,
    "exits": exits,
    "repeats one chunk": lambda ctx: repeat(ctx.text("x")),
    "a text": lambda ctx: "x",
    "bytes": lambda ctx: b"x",
    "texts": lambda ctx: ["x"],
    "a number": lambda ctx: 3,
    "a dict": lambda ctx: {"choices": []},
    "dicts": lambda ctx: [{"choices": []}],
    "None in a list": lambda ctx: [None],
    "a verdict": lambda ctx: Deny("x"),
    "of another choice": lambda ctx: [text_chunk("x", choice=1)],
    "a finish": lambda ctx: [finish()],
    "by its looks": lambda ctx: [ByItsLooks()],
    "a number for a text": mutant,
    "no choices": lambda ctx: [build_chunk({"id": "a", "created": 1, "model": "m", "choices": []})],
    "a tool call": lambda ctx: chunks(ToolCall("c", "f", "{}")),
    "an exception": lambda ctx: ValueError("SECRET"),
    "the ellipsis": lambda ctx: ...,
    "1 GB": lambda ctx: [ctx.text("x" * 10**8)],
}


@pytest.mark.parametrize("hook", ["on_chunk_added", "on_block_end", "on_stream_complete"])
@pytest.mark.parametrize("what", RUBBISH)
async def test_what_a_hook_returns_is_bounded_and_checked(what: str, hook: str) -> None:
    """The client gets the error event, which names the policy, and the answer ends there."""
    if hook == "on_stream_complete" and what in {"of another choice", "no choices"}:
        pytest.skip("last words are their text, wherever their chunks say they belong")
    make = RUBBISH[what]

    def returned(self: Policy, *args: Any) -> Any:
        return make(args[-1])

    kinds = {BlockKind.TEXT: Observe() if hook == "on_stream_complete" else Transform()}
    policy: Policy = type("Rubbish", (Policy,), {"handles": kinds, hook: returned})()
    case = Case(policy, settings={"hook_items": 1000, "policy_timeout": 0.3})
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert b"SECRET" not in got.body
    assert len(got.body) < 100_000
    assert case.end.ending == "failed"
    assert case.end.error is not None
    assert "Rubbish" in case.end.error["message"] or what == "1 GB"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_endless_answer_of_a_hook_ends_in_every_format(path: str, stream: bool) -> None:
    """Also where nothing is streamed: then it is a status."""

    class Endless(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> Any:
            return endless(ctx)

    case = Case(Endless(), settings={"hook_items": 1000, "policy_timeout": 60})
    assert failed(await case.answer(path, stream=stream), path, stream=stream, status=500)


VERDICTS: dict[str, Any] = {
    "endless blocks": lambda: Replace(Block(kind=BlockKind.TEXT, text="x") for _ in count()),  # type: ignore[arg-type]
    "a text for blocks": lambda: Replace("SECRET"),  # type: ignore[arg-type]
    "no blocks": lambda: Replace(3),  # type: ignore[arg-type]
    "a block without text": lambda: Replace([Block(kind=BlockKind.TEXT, text=None)]),  # type: ignore[arg-type]
    "a block of numbers": lambda: Replace([Block(kind=BlockKind.TEXT, text=5)]),  # type: ignore[arg-type]
    "a kind of its own": lambda: Replace([Block(kind="poem", text="x")]),  # type: ignore[arg-type]
    "signed thinking": lambda: Replace([Block(kind=BlockKind.THINKING, text="x", signature="s")]),
    "1 GB": lambda: Replace([Block(kind=BlockKind.TEXT, text="x" * 10**8)]),
    "a message of 1 GB": lambda: Deny("x" * 10**8),
    "a number for a message": lambda: Deny(5),  # type: ignore[arg-type]
    "no message": lambda: Stop(None),  # type: ignore[arg-type]
    "a list for a reason": lambda: Allow([]),  # type: ignore[arg-type]
    "the class": lambda: Allow,
    "a bool": lambda: True,
    "a word": lambda: "allow",
    "a generator": lambda: (yield),
    "what it may not say": lambda: Escalate("May it?"),
}


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_a_verdict_that_is_none_lets_nothing_through(verdict: str) -> None:
    """Nothing of the held block leaves."""

    class Judge(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Any:
            return VERDICTS[verdict]()

    case = Case(Judge(), chunks("HELD"), settings={"hook_items": 1000})
    got = await case.answer()
    assert failed(got, OPENAI, stream=True)
    assert b"HELD" not in got.body
    assert b"SECRET" not in got.body
    assert case.end.ending == "failed"


async def test_blocks_that_a_generator_gives_are_the_replacement() -> None:
    """They are taken once, and all of them."""

    class Judge(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Replace:
            return Replace(Block(kind=BlockKind.TEXT, text=text) for text in ("one", "two"))  # type: ignore[arg-type]

    case = Case(Chain([Judge(), Judge()]))
    got = await case.answer()
    assert b"one" in got.body
    assert b"two" in got.body
    assert case.end.ending == "completed"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("text", ["\ud800", "\x00", "\u2028\r\ndata: x\n\n", "\udfff\ud800", "\x1b[2J", "a\x85b\x0bc"])
async def test_texts_that_wires_have_trouble_with_are_legal_there(text: str, path: str) -> None:
    """A policy may write any character; what leaves is one event, in UTF-8."""

    class Writes(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_block_end(self, block: Block, ctx: StreamContext) -> Any:
            return [ctx.text(text)]

        def on_stream_complete(self, ctx: StreamContext) -> Any:
            return [ctx.text(text)]

    case = Case(Writes())
    got = await case.answer(path)
    got.body.decode()
    assert case.end.ending == "completed"


async def test_a_chunk_that_is_changed_after_it_was_returned_breaks_its_own_answer_at_most() -> None:
    """It is rubbish by the time it is written: the error event, and nothing after it."""
    released = asyncio.Event()

    class Keeps(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> Any:
            kept: Any = ctx.text("x")
            asyncio.get_running_loop().call_soon(self.change, kept)
            return [kept] * 3

        def change(self, chunk: Any) -> None:
            chunk.choices = None
            released.set()

    case = Case(Keeps(), [role(), text_chunk("a"), released, text_chunk("b"), finish()])
    got = await case.answer()
    assert failed(got, OPENAI, stream=True) or b"[DONE]" in got.body
    assert case.end.ending in {"failed", "completed"}


# --- what else is the user's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_an_authenticator_that_does_not_answer_is_a_503(path: str) -> None:
    """Nobody gets in, and the slot is free again."""

    async def auth(headers: Any) -> str:
        await deaf()
        return "never"

    case = Case(None, auth=auth)
    got = await case.answer(path)
    assert got.status == 503
    assert b"could not be authenticated in time" in got.body
    assert (case.backend.calls, case.recorder.begun) == ([], [])


@pytest.mark.parametrize("said", [None, "", 5, b"name", ["name"], True])
async def test_an_authenticator_that_returns_rubbish_lets_nobody_in(said: Any) -> None:
    """Only a name is one."""
    case = Case(None, auth=lambda headers: said)
    assert (await case.answer()).status == 401
    assert case.backend.calls == []


class Misrecords(MemoryRecorder):
    """Does something to one of its calls."""

    def __init__(self, at: str, what: str) -> None:
        super().__init__()
        self.at, self.what = at, what

    async def misbehave(self, at: str) -> None:
        if at == self.at:
            if self.what == "raises":
                raise OSError("SECRET")
            await NEVER[self.what]()

    async def start(self) -> None:
        await self.misbehave("start")
        await super().start()

    async def begin(self, begin: Begin) -> None:
        await self.misbehave("begin")
        await super().begin(begin)

    async def end(self, end: End) -> None:
        await self.misbehave("end")
        await super().end(end)


@pytest.mark.parametrize("what", ["raises", *NEVER])
@pytest.mark.parametrize("at", ["start", "begin", "end"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_recorder_that_misbehaves_holds_nobody(at: str, what: str, stream: bool) -> None:
    """What cannot be recorded is not begun; what was answered was answered."""
    case = Case(None, recorder=Misrecords(at, what))
    got = await case.answer(stream=stream)
    assert got.status == (200 if at == "end" else 503)
    assert len(case.backend.calls) == (at == "end")
    assert b"SECRET" not in got.body


class Breaks:
    """Telemetry of which one thing is broken."""

    def __init__(self, at: str) -> None:
        self.at = at

    def fail(self, at: str) -> None:
        if at == self.at:
            raise ZeroDivisionError("SECRET")

    def begin(self, **given: Any) -> Any:
        self.fail("begin")
        return self

    def span(self, name: str, attributes: Any = None) -> Any:
        self.fail("span")
        return self

    def __enter__(self) -> Any:
        self.fail("enter")
        return self

    def __exit__(self, *given: object) -> bool:
        self.fail("exit")
        return True

    def set(self, name: str, value: Any) -> None:
        self.fail("set")

    def event(self, name: str, attributes: Any = None) -> None:
        self.fail("event")

    def end(self, ending: str, *, error: str | None = None) -> None:
        self.fail("end")


@pytest.mark.parametrize("at", ["begin", "span", "enter", "exit", "set", "event", "end", "nothing"])
@pytest.mark.parametrize("stream", [True, False])
async def test_telemetry_that_fails_harms_nobody(at: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does one whose spans swallow exceptions: an answer that fails fails."""

    class Allows(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        def on_request(self, request: Any, ctx: Any) -> None: ...

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Allow:
            return Allow()

    case = Case(Allows(), telemetry=Breaks(at))
    got = await case.answer(stream=stream)
    assert got.status == 200
    assert case.end.ending == "completed"
    told = [record.getMessage() for record in caplog.records if "telemetry" in record.name]
    what = "span" if at in {"enter", "exit"} else at
    assert told == [f"the telemetry failed in {what}: ZeroDivisionError; this is said once"] * (at != "nothing")
    failing = Case(Allows(), [ApiError("no", status=502)], telemetry=Breaks(at))
    assert (await failing.answer(stream=stream)).status == 502
