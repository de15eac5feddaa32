"""The formatter: frames together, pings in silence, one terminal item whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunks import Chunk
from luthien_asgi.context import NullObservability
from luthien_asgi.errors import ApiError, QueueFullError, StreamStateError
from luthien_asgi.formatter import ClientFormatter, FinalBlocks
from luthien_asgi.queues import End, Failed, StreamQueue
from luthien_asgi.recorder import Begin, Transaction
from luthien_asgi.settings import StreamSettings

OBS = NullObservability()


class Encoder:
    """The least that a wire can be: a chunk's text in brackets."""

    omitted = ()

    def __init__(self) -> None:
        self.silent = False

    def feed(self, chunk: Chunk) -> list[bytes]:
        text = chunk.choices[0].delta.content
        if text == "illegal":
            raise StreamStateError("no")
        return [f"[{text}]".encode()]

    def finish(self) -> list[bytes]:
        return [b"end"]

    def fail(self, error: ApiError) -> list[bytes]:
        return [f"error:{error.message}".encode()]

    def ping(self) -> list[bytes]:
        return [] if self.silent else [b"ping"]

    def body(self) -> dict[str, Any]:
        return {"whole": True}


def t(text: str) -> Chunk:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None, "logprobs": None}]
    return build({"id": "c", "created": 1, "model": "m", "choices": choices})


def log() -> Transaction:
    return Transaction(Begin(id="t", at=0, wire="openai", path="/", model="m", stream=True, client="", request={}))


def make(*, late: bool = False, transaction: Transaction | None = None, **settings: Any) -> ClientFormatter:
    final = FinalBlocks(transaction or log(), wanted=transaction is not None)
    return ClientFormatter(encoder=Encoder(), settings=StreamSettings(**settings), final=final, late=late)


def queue(max_items: int = 100, timeout: float = 0.01) -> StreamQueue[Any]:
    return StreamQueue(max_items=max_items, max_bytes=10_000, timeout=timeout)


async def out(formatter: ClientFormatter, source: StreamQueue[Chunk]) -> list[Any]:
    frames = queue()
    await formatter.process(source, frames, obs=OBS)
    items = []
    while not isinstance(item := await frames.get(), End | Failed):
        items.append(item)
    return [*items, item]


def filled(*texts: str, terminal: End | Failed | None = None) -> StreamQueue[Chunk]:
    source = queue()
    for text in texts:
        source.offer(t(text), 1)
    source.end(terminal or End())
    return source


async def test_frames_that_are_there_together_leave_together() -> None:
    """Three chunks and the end are one item."""
    assert await out(make(), filled("a", "b", "c")) == [b"[a][b][c]end", End()]


async def test_a_failure_is_written_and_handed_on() -> None:
    """The error's frames come last, and the terminal item says what happened."""
    failed = Failed(ApiError("broken"))
    assert await out(make(), filled("a", terminal=failed)) == [b"[a]error:broken", failed]


async def test_silence_is_filled_with_pings() -> None:
    """While nothing comes a ping goes out each interval; where the wire has none, nothing does."""
    source, frames = queue(), queue()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(make(ping_interval=0.005).process(source, frames, obs=OBS))
        assert [await frames.get(), await frames.get()] == [b"ping", b"ping"]
        source.end(End())
    formatter = make(ping_interval=0.005)
    formatter.encoder.silent = True  # type: ignore[attr-defined]
    async with asyncio.TaskGroup() as tasks:
        source, frames = queue(), queue()
        tasks.create_task(formatter.process(source, frames, obs=OBS))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await frames.get()
        source.end(End())


async def test_an_answer_that_is_begun_late_begins_with_a_ping() -> None:
    """The client has waited long enough."""
    assert await out(make(late=True), filled("a")) == [b"ping", b"[a]end", End()]


async def test_an_illegal_stream_does_not_leave() -> None:
    """What was legal leaves, then an error that says nothing of the cause."""
    [frames, terminal] = await out(make(), filled("a", "illegal", "b"))
    assert frames == b"[a]error:Internal error while the answer was written."
    assert isinstance(terminal, Failed)


async def test_a_reader_that_does_not_read_ends_in_the_terminal_item() -> None:
    """The breaker's error is what the stream ended with, after all that was written, room or not."""
    source, frames = queue(), queue(max_items=1)
    frames.offer(b"unread", 6)
    source.offer(t("a"), 1)
    await make().process(source, frames, obs=OBS)
    assert [await frames.get() for _ in range(3)] == [b"unread", b"[a]", b"error:The client did not take the answer in time."]
    item = await frames.get()
    assert isinstance(item, Failed)
    assert isinstance(item.error, QueueFullError)


async def test_what_was_encoded_is_kept_when_it_is_cancelled() -> None:
    """The encoder takes it for sent: nobody may go on without it, room or not."""
    source, frames = queue(), queue(max_items=1, timeout=60)
    frames.offer(b"unread", 6)
    source.offer(t("a"), 1)
    formatter = make(ping_interval=60)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(formatter.process(source, frames, obs=OBS))
        await wait_all_tasks_blocked()
        task.cancel()
    assert frames.take_ready() == [b"unread", b"[a]"]
    assert formatter.last_frames(ApiError("stopped")) == [b"error:stopped"]


async def test_collecting_gives_the_body_or_the_error() -> None:
    """A whole answer, or the error that it failed with."""
    assert await make().collect(filled("a"), obs=OBS) == {"whole": True}
    with pytest.raises(ApiError, match="broken"):
        await make().collect(filled("a", terminal=Failed(ApiError("broken"))), obs=OBS)


async def test_the_final_blocks_are_what_left() -> None:
    """Also those of an answer that broke off in the middle of a block."""
    transaction = log()
    await out(make(transaction=transaction), filled("a", "b", terminal=Failed(ApiError("broken"))))
    assert [block.text for block in transaction.final_blocks] == ["ab"]


async def test_a_defect_of_the_encoder_is_an_error_event_and_no_crash() -> None:
    """Whatever a hostile event makes the encoder raise, the client is told and the stream ends in order."""

    class Broken(Encoder):
        def feed(self, chunk: Chunk) -> list[bytes]:
            raise TypeError("secret")

        def fail(self, error: ApiError) -> list[bytes]:
            raise StreamStateError("over")

    formatter = make()
    object.__setattr__(formatter, "encoder", Broken())
    [terminal] = await out(formatter, filled("a"))
    assert isinstance(terminal, Failed)
    assert "secret" not in terminal.error.message


async def test_a_ping_that_comes_due_while_frames_wait_for_room_does_not_take_their_place() -> None:
    """A turn of the event loop may take longer than the pause between pings: the frames and the ping are then due together."""
    interval = 0.005
    loop = asyncio.get_running_loop()

    def busy() -> None:
        until = loop.time() + 2 * interval
        while loop.time() < until:
            pass

    formatter, source, frames = make(ping_interval=interval), queue(), StreamQueue[Any](max_items=1, max_bytes=99, timeout=60)
    frames.offer(b"before", 6)  # it takes the only place
    got: list[Any] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(formatter.process(source, frames, obs=OBS))
        await asyncio.sleep(0)
        source.offer(t("a"), 1)  # it will be encoded in the next turn, in which a ping comes due,
        loop.call_soon(busy)  # and in which so long goes by that another one is due when the task goes on
        busy()
        for _ in range(3):  # nobody makes room meanwhile
            await asyncio.sleep(0)
        source.end(End())
        while not isinstance(item := await frames.get(), End):
            got.append(item)
    assert b"".join(item for item in got if item != b"ping") == b"before[a]end"
