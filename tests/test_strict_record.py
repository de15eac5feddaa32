"""A durable record: the end is kept before the client gets its answer's last frame, and says what the client gets."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from jsonl_processes import recording

from luthien_asgi import (
    Begin,
    Block,
    BlockKind,
    Deny,
    End,
    Governed,
    Hold,
    JsonlRecorder,
    LuthienMiddleware,
    MemoryRecorder,
    Paths,
    Policy,
    RequestDenied,
    StreamContext,
    StreamSettings,
    Verdict,
    read_transactions,
)
from luthien_asgi.errors import BackendError
from luthien_asgi.recorder import DurableRecorder, TransactionRecorder, is_durable, is_healthy, wants_blocks
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, ToolCall, chunks, sse_events
from luthien_asgi.testing.chunk_builders import role, text_chunk

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS = [OPENAI, ANTHROPIC, RESPONSES]
ENDS = {OPENAI: b"[DONE]", ANTHROPIC: b"message_stop", RESPONSES: b"response.completed"}
CHUNKS = chunks("Hel", "lo", ToolCall("call_1", "run", {"a": 1}))


def asked(path: str, *, stream: bool = True) -> dict[str, Any]:
    if path == RESPONSES:
        return {"model": "scripted", "input": "Hi", "stream": stream}
    return {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "stream": stream}


class Durable(MemoryRecorder):
    """A durable recorder whose ends wait for a gate, and fail as often as asked."""

    durable = True

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.asked: list[End] = []
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self._failures = failures

    async def end(self, end: End) -> None:
        self.asked.append(end)
        self.reached.set()
        await self.gate.wait()
        if len(self.asked) <= self._failures:
            raise OSError("disk full")
        await super().end(end)


def make(recorder: TransactionRecorder, script: Any = None, **options: Any) -> ASGIDriver:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    backend = ScriptedBackend(script if script is not None else CHUNKS)
    return ASGIDriver(LuthienMiddleware(behind, backend=backend, recorder=recorder, **options))


def is_error(path: str, content: bytes) -> bool:
    """Tell whether a stream ended with its format's error event and with no good end."""
    last = json.loads(sse_events(content)[-1].data or "{}")
    said = {OPENAI: "error" in last, ANTHROPIC: last.get("type") == "error", RESPONSES: last.get("type") == "response.failed"}
    return said[path] and ENDS[path] not in content


# --- the order


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_ends_when_its_end_is_recorded(path: str) -> None:
    """All but the last frames flow meanwhile, with pings; what was recorded is the whole answer."""
    recorder = Durable()
    recorder.gate.clear()
    driver = make(recorder, settings=StreamSettings(ping_interval=0.01))
    async with driver.request("POST", path, json=asked(path)) as response:
        await recorder.reached.wait()
        got = b""
        while b"ping" not in got or b"Hel" not in got:
            got += await response.part() or b""
        assert ENDS[path] not in got
        recorder.gate.set()
        got += await response.read()
        await response.done()
    assert ENDS[path] in got
    (end,) = recorder.ended
    assert end is recorder.asked[0]
    assert (end.ending, end.status) == ("completed", 200)
    assert end.final_blocks == end.backend_blocks


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_leaves_when_its_end_is_recorded(path: str) -> None:
    """Not a byte before."""
    recorder = Durable()
    recorder.gate.clear()
    async with make(recorder).request("POST", path, json=asked(path, stream=False), wait=False) as response:
        await recorder.reached.wait()
        assert response.status == 0
        recorder.gate.set()
        await response.started()
        assert response.status == 200
        assert b"Hel" in await response.read()
    assert [end.ending for end in recorder.ended] == ["completed"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_leaves_when_its_end_is_recorded(stream: bool) -> None:
    """Also where nothing had been sent."""
    recorder = Durable()
    recorder.gate.clear()
    driver = make(recorder, [BackendError("no", status=429)])
    async with driver.request("POST", OPENAI, json=asked(OPENAI, stream=stream), wait=False) as response:
        await recorder.reached.wait()
        assert response.status == 0
        recorder.gate.set()
        await response.started()
        assert response.status == 429
    assert [(end.ending, end.status) for end in recorder.ended] == [("failed", 429)]


async def test_a_stream_that_fails_is_recorded_before_its_error_event() -> None:
    """What had left stays; the error event waits."""
    recorder = Durable()
    recorder.gate.clear()
    driver = make(recorder, [[role(), text_chunk("a"), BackendError("The connection broke off.")]])
    async with driver.request("POST", OPENAI, json=asked(OPENAI)) as response:
        await recorder.reached.wait()
        part = await response.part()
        assert part is not None
        assert b"error" not in part
        recorder.gate.set()
        assert is_error(OPENAI, part + await response.read())
    assert [end.ending for end in recorder.ended] == ["failed"]


# --- an end that cannot be recorded


@pytest.mark.parametrize("path", PATHS)
async def test_an_end_that_cannot_be_recorded_is_an_error_event(path: str) -> None:
    """In place of the last frame; the recorder is asked once more, with what the client got."""
    recorder = Durable(failures=1)
    got = await make(recorder).fetch("POST", path, json=asked(path))
    assert (got.status, is_error(path, got.body)) == (200, True)
    assert b"disk" not in got.body
    assert [end.ending for end in recorder.asked] == ["completed", "failed"]
    (end,) = recorder.ended
    assert (end.status, end.error) == (200, {"type": "overloaded_error", "message": MESSAGE, "code": None})
    assert end.final_blocks == end.backend_blocks != ()


MESSAGE = "The answer could not be recorded, so it is not given as complete."


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_whose_end_cannot_be_recorded_is_a_503(path: str) -> None:
    """In the client's format; nothing of the answer is in it."""
    recorder = Durable(failures=1)
    got = await make(recorder).fetch("POST", path, json=asked(path, stream=False))
    assert (got.status, json.loads(got.body)["error"]["message"]) == (503, MESSAGE)
    assert b"Hel" not in got.body
    assert [(end.ending, end.status) for end in recorder.ended] == [("failed", 503)]


async def test_an_end_that_takes_too_long_is_an_error_event() -> None:
    """After `record_timeout`; the first asking is cancelled, the second is made."""
    recorder = Durable()
    recorder.gate.clear()
    got = await make(recorder, settings=StreamSettings(record_timeout=0.05)).fetch("POST", OPENAI, json=asked(OPENAI))
    assert is_error(OPENAI, got.body)
    assert [end.ending for end in recorder.asked] == ["completed", "failed"]


async def test_an_error_that_cannot_be_recorded_is_told_all_the_same() -> None:
    """The client gets the provider's error, and the record is asked for it twice."""
    recorder = Durable(failures=1)
    got = await make(recorder, [BackendError("no", status=429)]).fetch("POST", OPENAI, json=asked(OPENAI))
    assert got.status == 429
    assert [end.ending for end in recorder.asked] == ["failed", "failed"]
    assert len(recorder.ended) == 1


async def test_a_begin_that_takes_too_long_is_a_503() -> None:
    """A recorder that hangs holds nobody for ever, durable or not; the backend is not called."""

    class Hanging(MemoryRecorder):
        async def begin(self, begin: Begin) -> None:
            await asyncio.Event().wait()

    got = await make(Hanging(), settings=StreamSettings(record_timeout=0.05)).fetch("POST", ANTHROPIC, json=asked(ANTHROPIC))
    assert (got.status, json.loads(got.body)["type"]) == (503, "error")


async def test_a_denied_request_is_recorded_as_denied() -> None:
    """Before the client hears of it."""

    class Never(Policy):
        async def on_request(self, request: Any, ctx: Any) -> Any:
            raise RequestDenied("no")

    recorder = Durable()
    got = await make(recorder, policy=Never()).fetch("POST", OPENAI, json=asked(OPENAI))
    assert got.status == 403
    assert [(end.ending, end.status) for end in recorder.ended] == [("denied", 403)]


# --- a client that leaves


@pytest.mark.broken_off
@pytest.mark.parametrize("failures", [0, 1])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_while_its_end_is_recorded_has_one(stream: bool, failures: int) -> None:
    """It says what the client was about to get."""
    recorder = Durable(failures=failures)
    recorder.gate.clear()
    driver = make(recorder)
    async with driver.request("POST", OPENAI, json=asked(OPENAI, stream=stream), wait=False) as response:
        await recorder.reached.wait()
        response.disconnect()
        recorder.gate.set()
        await response.done()
    await driver.app.aclose()  # type: ignore[attr-defined]  # waits for what goes on behind the answer
    assert [end.ending for end in recorder.ended] == ["failed" if failures else "completed"]


@pytest.mark.broken_off
async def test_a_client_that_left_before_is_recorded_as_such() -> None:
    """One end, asked for again where it failed."""
    recorder = Durable(failures=1)
    hold = asyncio.Event()
    driver = make(recorder, [[role(), text_chunk("a"), hold]])
    async with driver.request("POST", OPENAI, json=asked(OPENAI)) as response:
        await response.part()
        response.disconnect()
        await response.done()
    assert [end.ending for end in recorder.asked] == ["client_disconnected"] * 2
    assert len(recorder.ended) == 1


# --- the recorder's own word


def test_what_a_file_says_of_itself_is_typed(tmp_path: Path) -> None:
    """What a recorder does not say has a default; `JsonlRecorder` says all of it."""
    strict: DurableRecorder = JsonlRecorder(tmp_path / "t.jsonl", durability="strict")
    assert (is_durable(strict), is_healthy(strict), wants_blocks(strict)) == (True, True, True)


# --- on a real file, below which the disk fails


class Disk:
    """Stands at the system call that brings a file to the disk: counts, fails, or holds it."""

    def __init__(self, real: Callable[[int], None]) -> None:
        self._real = real
        self.calls = 0
        self.fails = False
        self.reached, self.opened = threading.Event(), threading.Event()
        self.opened.set()

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        self.reached.set()
        assert self.opened.wait(10)
        if self.fails:
            raise OSError(errno.EIO, "the disk is gone")
        self._real(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    from luthien_asgi import jsonl_file

    disk = Disk(jsonl_file._fdatasync)
    monkeypatch.setattr(jsonl_file, "_fdatasync", disk)
    return disk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.jsonl"


def strict(path: Path, **options: Any) -> AbstractAsyncContextManager[JsonlRecorder]:
    return recording(path, durability="strict", **options)


class Said(logging.Handler):
    """Waits, at the end of its block, for the recorder to say something in its log."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self._seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self._seen.set()

    async def __aenter__(self) -> None:
        logging.getLogger("luthien_asgi.jsonl_writer").addHandler(self)

    async def __aexit__(self, *_: object) -> None:
        assert await asyncio.to_thread(self._seen.wait, 10)
        logging.getLogger("luthien_asgi.jsonl_writer").removeHandler(self)


AGAIN = "can be written again"


def begin(identity: str) -> Begin:
    return Begin(id=identity, at=0, wire="openai", path="/", model="m", stream=True, client="", request={})


async def ready(driver: ASGIDriver) -> bool:
    return bool(json.loads((await driver.fetch("GET", "/luthien/health")).body)["ready"])


def lines(path: Path) -> list[tuple[str, str, str | None]]:
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [(line["type"], line["id"], line.get("ending")) for line in found if line["type"] != "checkpoint"]


async def test_a_transaction_is_synced_twice(path: Path, disk: Disk) -> None:
    """Its begin, and its end."""
    async with strict(path) as recorder:
        before = disk.calls
        got = await make(recorder).fetch("POST", OPENAI, json=asked(OPENAI))
        assert ENDS[OPENAI] in got.body
        assert disk.calls == before + 2


async def test_one_sync_serves_all_that_wait(path: Path, disk: Disk) -> None:
    """Fifty begins that come while one is synced are one group."""
    async with strict(path) as recorder, asyncio.TaskGroup() as tasks:
        disk.reached.clear()
        disk.opened.clear()
        before = disk.calls
        tasks.create_task(recorder.begin(begin("first")))
        await asyncio.to_thread(disk.reached.wait, 10)
        waiting = [tasks.create_task(recorder.begin(begin(str(number)))) for number in range(50)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        disk.opened.set()
        await asyncio.wait(waiting)
        assert disk.calls == before + 2


async def test_a_begin_that_cannot_be_synced_is_refused_and_not_in_the_file(path: Path, disk: Disk) -> None:
    """What nobody was told did not happen; until a write works the recorder is not healthy, and it finds out by itself."""
    async with strict(path) as recorder:
        driver = make(recorder, paths=Paths(health="/luthien/health"))
        await driver.fetch("POST", ANTHROPIC, json=asked(ANTHROPIC))  # the backend is ready
        before = lines(path)
        disk.fails = True
        got = await driver.fetch("POST", ANTHROPIC, json=asked(ANTHROPIC))
        assert (got.status, recorder.healthy) == (503, False)
        assert not await ready(driver)
        assert lines(path) == before
        async with Said(AGAIN):
            disk.fails = False
        assert recorder.healthy
        assert await ready(driver)
        assert (await driver.fetch("POST", ANTHROPIC, json=asked(ANTHROPIC))).status == 200
    assert [kind for kind, _, _ in lines(path)] == ["begin", "end"] * 2


@pytest.mark.parametrize("stream", [True, False])
async def test_an_end_that_cannot_be_synced_is_failed_for_the_client_and_in_the_record(
    path: Path, disk: Disk, stream: bool
) -> None:
    """What was written of it is taken back; when the disk is there again the record says what the client got."""
    hold, called = asyncio.Event(), asyncio.Event()

    def answer(_: object) -> list[Any]:
        called.set()
        return [role(), hold, *CHUNKS[1:]]

    async with strict(path) as recorder:
        driver = make(recorder, [answer])
        async with driver.request("POST", OPENAI, json=asked(OPENAI, stream=stream), wait=False) as response:
            await called.wait()
            disk.fails = True
            hold.set()
            content = await response.read()
            await response.done()
        assert is_error(OPENAI, content) if stream else response.status == 503
        assert [kind for kind, _, _ in lines(path)] == ["begin"]
        assert not recorder.healthy
        async with Said(AGAIN):
            disk.fails = False
    assert [(kind, ending) for kind, _, ending in lines(path)] == [("begin", None), ("end", "failed")]


@pytest.mark.parametrize("fails", [True, False])
async def test_a_disk_that_hangs_gives_one_end(path: Path, disk: Disk, fails: bool) -> None:
    """The client gets the error event in time. The end that was on its way counts if it arrives, else the one the client got."""
    hold = asyncio.Event()
    async with strict(path) as recorder:
        driver = make(recorder, [[role(), hold, *CHUNKS[1:]]], settings=StreamSettings(record_timeout=0.2))
        async with driver.request("POST", OPENAI, json=asked(OPENAI)) as response:
            disk.opened.clear()
            hold.set()
            content = await response.read()
            await response.done()
        assert is_error(OPENAI, content)
        disk.fails = fails
        if fails:
            async with Said(AGAIN):
                async with Said("cannot be written"):
                    disk.opened.set()
                disk.fails = False
        disk.opened.set()
    assert [(kind, ending) for kind, _, ending in lines(path)] == [("begin", None), ("end", "failed" if fails else "completed")]
    assert [pair["end"]["ending"] for pair in read_transactions(path)] == ["failed" if fails else "completed"]


async def test_what_a_policy_in_shadow_says_is_in_the_end() -> None:
    """The last frame waits for it, because the end does."""
    said = asyncio.Event()

    class Slow(Policy):
        handles = {BlockKind.TEXT: Hold()}  # noqa: RUF012 - as policies write it

        async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            await said.wait()
            return Deny("no")

    recorder = Durable()
    driver = make(recorder, policy=Governed(Slow(), mode="shadow"))
    async with driver.request("POST", OPENAI, json=asked(OPENAI)) as response:
        part = await response.part() or b""
        assert recorder.asked == []
        said.set()
        part += await response.read()
    assert ENDS[OPENAI] in part
    (end,) = recorder.ended
    assert [(verdict.verdict, verdict.mode) for verdict in end.verdicts] == [("deny", "shadow")]
