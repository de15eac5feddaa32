"""The record's shape, and the two recorders that need no file."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from luthien_asgi import LuthienMiddleware
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.jsonl import RecorderError
from luthien_asgi.recorder import Begin, End, MemoryRecorder, NullRecorder, Transaction, TransactionRecorder, VerdictRecord
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, chunks

BEGIN = Begin(
    id="t1", at=1.5, wire="openai", path="/v1/chat/completions", model="m", stream=True, client="alice", request={"model": "m"}
)


def test_an_end_has_the_begins_id_and_the_time_of_its_end() -> None:
    """One id for both records; the end's time is now, in seconds since 1970."""
    before = time.time()
    end = Transaction(BEGIN).end("completed")
    assert end.id == "t1"
    assert before <= end.at <= time.time()
    assert (end.ending, end.error) == ("completed", None)


def test_an_end_holds_what_was_collected() -> None:
    """Each field of the transaction stands in its end."""
    log = Transaction(BEGIN)
    block = Block(kind=BlockKind.TEXT, text="hi")
    verdict = VerdictRecord(policy="P", hook="on_block_complete", verdict="deny", action="allow")
    log.sent, log.decoder, log.status, log.usage = {"a": 1}, "anthropic", 200, {"prompt_tokens": 1}
    log.ignored.append("seed")
    log.backend_blocks.append(block)
    log.final_blocks.append(block.with_text("ho"))
    log.verdicts.append(verdict)
    log.finish_reasons[0] = "stop"
    error = {"type": "api_error", "message": "m", "code": None}
    end = log.end("failed", error)
    assert (end.sent, end.decoder, end.status, end.usage, end.error) == ({"a": 1}, "anthropic", 200, {"prompt_tokens": 1}, error)
    assert (end.ignored, end.backend_blocks, end.verdicts) == (("seed",), (block,), (verdict,))
    assert [kept.text for kept in end.final_blocks] == ["ho"]
    assert end.finish_reasons == {0: "stop"}


def test_what_is_collected_after_the_end_does_not_change_it() -> None:
    """The end is a copy: a straggling task cannot falsify a record."""
    log = Transaction(BEGIN)
    end = log.end("client_disconnected")
    log.backend_blocks.append(Block(kind=BlockKind.TEXT, text="late"))
    log.verdicts.append(VerdictRecord(policy="P", hook="h", verdict="deny", action="deny"))
    log.finish_reasons[0] = "stop"
    log.note("late")
    log.mark("late")
    assert (end.backend_blocks, end.verdicts, dict(end.finish_reasons), end.notes) == ((), (), {}, ())
    assert list(end.timings) == ["end"]


def test_a_mark_keeps_the_first_time() -> None:
    """`first_chunk` is when the first came, in seconds since the begin."""
    log = Transaction(BEGIN, started=time.monotonic() - 5)
    log.mark("first_chunk")
    first = log.timings["first_chunk"]
    log.started -= 100
    log.mark("first_chunk")
    assert log.timings == {"first_chunk": first}
    assert 5 <= first < 6


def test_the_marks_stand_in_the_order_of_their_time() -> None:
    """The end comes last."""
    log = Transaction(BEGIN)
    log.mark("backend_called")
    log.mark("first_chunk")
    timings = log.end("completed").timings
    assert list(timings) == ["backend_called", "first_chunk", "end"]
    assert list(timings.values()) == sorted(timings.values())


def test_a_note_is_kept_once() -> None:
    """The same remark twice is one remark; the order stays."""
    log = Transaction(BEGIN)
    for text in ("b", "a", "b"):
        log.note(text)
    assert log.end("completed").notes == ("b", "a")


def test_two_transactions_share_nothing() -> None:
    """Each has lists of its own."""
    one, two = Transaction(BEGIN), Transaction(BEGIN)
    for field in dataclasses.fields(Transaction):
        if isinstance(value := getattr(one, field.name), list | dict):
            assert value is not getattr(two, field.name), field.name


@pytest.mark.parametrize("record", [BEGIN, Transaction(BEGIN).end("completed")])
def test_a_record_cannot_be_changed(record: object) -> None:
    """Records are values."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.id = "other"  # type: ignore[attr-defined]


async def test_the_memory_recorder_keeps_records_in_order() -> None:
    """Begins and ends in two lists, the very objects, also after it was closed twice."""
    recorder: TransactionRecorder = MemoryRecorder()
    assert isinstance(recorder, MemoryRecorder)
    end = Transaction(BEGIN).end("completed")
    await recorder.start()
    await recorder.begin(BEGIN)
    await recorder.end(end)
    await recorder.aclose()
    await recorder.aclose()
    assert recorder.begun == [BEGIN]
    assert recorder.ended == [end]
    assert recorder.wants_blocks


async def test_two_memory_recorders_share_nothing() -> None:
    """Each keeps its own."""
    one, two = MemoryRecorder(), MemoryRecorder()
    await one.begin(BEGIN)
    assert two.begun == []


async def test_the_null_recorder_wants_nothing_and_keeps_nothing() -> None:
    """It accepts everything, and says that blocks need not be collected for it."""
    recorder: TransactionRecorder = NullRecorder()
    assert not recorder.wants_blocks
    await recorder.start()
    await recorder.begin(BEGIN)
    await recorder.end(Transaction(BEGIN).end("completed"))
    await recorder.aclose()
    await recorder.aclose()
    assert vars(recorder) == {}


async def nowhere(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope)


class Refuses(MemoryRecorder):
    """Cannot keep what it is asked to."""

    def __init__(self, error: Exception, at: str) -> None:
        super().__init__()
        self.error, self.at = error, at

    async def begin(self, begin: Begin) -> None:
        if self.at == "begin":
            raise self.error
        await super().begin(begin)

    async def end(self, end: End) -> None:
        if self.at == "end":
            raise self.error
        await super().end(end)


@pytest.mark.parametrize("at", ["begin", "end"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_what_a_recorder_says_by_itself_is_one_line_of_the_log(
    at: str, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """While a disk is full each request is refused; a defect of a recorder is logged with its place."""
    error = RecorderError("The transaction cannot be recorded now.") if known else ValueError("a defect")
    driver = ASGIDriver(LuthienMiddleware(nowhere, backend=ScriptedBackend(chunks("Hi")), recorder=Refuses(error, at)))
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    got = await driver.fetch("POST", "/v1/chat/completions", json=body)
    assert got.status == (503 if at == "begin" else 200)
    (line,) = [record for record in caplog.records if "could not be recorded" in record.message]
    assert got.headers["x-luthien-transaction"] in line.message
    assert bool(line.exc_info) == (not known)
    assert ("cannot be recorded now" in line.message) == known
