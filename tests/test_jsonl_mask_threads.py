"""A slow mask holds up nobody else's record, and loses none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from luthien_asgi import Begin, End, JsonlRecorder
from luthien_asgi.recorder import Transaction

DURABILITIES: Final = ["relaxed", "strict"]


def begun(identity: str, *, says: str = "hi") -> Begin:
    return Begin(id=identity, at=1.5, wire="openai", path="/", model="m", stream=False, client="ann", request={"q": says})


def ended(begin: Begin, note: str) -> End:
    log = Transaction(begin)
    log.note(note)
    return log.end("completed")


class Gate:
    """A mask that waits at a text with `slow` in it until it is opened; beside it, the recorder that uses it."""

    def __init__(self, path: Path, durability: Any) -> None:
        self.path = path
        self.at_gate, self.open = threading.Semaphore(0), threading.Event()
        self.recorder = JsonlRecorder(path, mask=self._mask, durability=durability)

    def _mask(self, text: str) -> str:
        if "slow" in text and not self.open.is_set():
            self.at_gate.release()
            self.open.wait()
        return text.replace("secret", "*")

    async def reached(self) -> None:
        await asyncio.to_thread(self.at_gate.acquire)

    def written(self) -> list[tuple[str, str, Any]]:
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        kept = [line for line in lines if line["type"] != "checkpoint"]
        return [(line["type"], line["id"], line.get("request") or line.get("notes")) for line in kept]


@contextlib.asynccontextmanager
async def gate(path: Path, durability: str) -> AsyncIterator[Gate]:
    made = Gate(path, durability)
    await made.recorder.start()
    try:
        yield made
    finally:
        made.open.set()
        await made.recorder.aclose()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_begin_is_written_while_an_answer_is_masked(durability: str, tmp_path: Path) -> None:
    """As many ends at the gate as there are threads for ends, and more."""
    async with gate(tmp_path / "t.jsonl", durability) as made, asyncio.TaskGroup() as tasks:
        begins = [begun(str(number)) for number in range(6)]
        for begin in begins:
            await made.recorder.begin(begin)
        ends = [tasks.create_task(made.recorder.end(ended(begin, f"slow {begin.id}"))) for begin in begins]
        await made.reached()
        await made.recorder.begin(begun("other", says="a secret"))
        assert made.written()[-1] == ("begin", "other", {"q": "a *"})
        assert [kind for kind, _, _ in made.written()] == ["begin"] * 7
        made.open.set()
        await asyncio.gather(*ends)
    told = [(identity, notes) for kind, identity, notes in made.written() if kind == "end"]
    assert sorted(told) == [(begin.id, [f"slow {begin.id}"]) for begin in begins]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_what_is_masked_when_the_recorder_closes_is_written(durability: str, tmp_path: Path) -> None:
    """Closing waits for it."""
    async with gate(tmp_path / "t.jsonl", durability) as made, asyncio.TaskGroup() as tasks:
        begin = begun("1")
        await made.recorder.begin(begin)
        end = tasks.create_task(made.recorder.end(ended(begin, "slow secret")))
        await made.reached()
        closing = tasks.create_task(made.recorder.aclose())
        made.open.set()
        await asyncio.gather(end, closing)
        assert made.written() == [("begin", "1", {"q": "hi"}), ("end", "1", ["slow *"])]


async def test_a_begin_that_is_taken_back_while_it_is_masked_is_not_written(tmp_path: Path) -> None:
    """Nobody's transaction began."""
    async with gate(tmp_path / "t.jsonl", "relaxed") as made, asyncio.TaskGroup() as tasks:
        begin = tasks.create_task(made.recorder.begin(begun("1", says="slow")))
        await made.reached()
        begin.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begin
        await made.recorder.begin(begun("2"))
    assert [(kind, identity) for kind, identity, _ in made.written()] == [("begin", "2")]


async def test_a_strict_end_that_is_asked_for_again_while_it_is_masked_is_the_second(tmp_path: Path) -> None:
    """What the client was told in its place; one end, masked like the first."""
    async with gate(tmp_path / "t.jsonl", "strict") as made, asyncio.TaskGroup() as tasks:
        begin = begun("1")
        await made.recorder.begin(begin)
        end = tasks.create_task(made.recorder.end(ended(begin, "slow")))
        await made.reached()
        end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await end
        await made.recorder.end(replace(ended(begin, "a secret"), ending="failed"))
    assert made.written() == [("begin", "1", {"q": "hi"}), ("end", "1", ["a *"])]


async def test_a_begin_that_is_no_json_is_refused(tmp_path: Path) -> None:
    """And the next is written."""
    async with gate(tmp_path / "t.jsonl", "relaxed") as made:
        with pytest.raises(Exception, match="cannot be recorded"):
            await made.recorder.begin(replace(begun("1"), request={"q": object()}))
        await made.recorder.begin(begun("2"))
    assert [(kind, identity) for kind, identity, _ in made.written()] == [("begin", "2")]


LEAVES: Final = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, {tests!r})
from test_jsonl_mask_threads import Gate, begun, ended

async def leave():
    made = Gate(__import__("pathlib").Path(sys.argv[1]), "relaxed")
    await made.recorder.start()
    for number in range(5):
        await made.recorder.begin(begun(str(number)))
        await made.recorder.end(ended(begun(str(number)), "slow secret"))
    await made.reached()
    threading.Thread(target=open_at_exit, args=(made,)).start()

def open_at_exit(made):
    pool = ThreadPoolExecutor(1)
    try:
        while True:
            pool.submit(int).result()
    except RuntimeError:  # no pool takes anything any more
        made.open.set()

asyncio.run(leave())
"""


def test_what_is_masked_when_the_interpreter_exits_is_written(tmp_path: Path) -> None:
    """Without `aclose()`, as what is queued is."""
    script = LEAVES.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tmp_path / "t.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in lines if line["type"] == "end") == ["0", "1", "2", "3", "4"]
    assert {tuple(line["notes"]) for line in lines if line["type"] == "end"} == {("slow *",)}
