"""The JSONL recorder: two whole lines a transaction, in a private file, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked
from jsonl_processes import command, recording

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.errors import ApiError
from luthien_asgi.jsonl import JsonlRecorder, RecorderError, read_transactions
from luthien_asgi.recorder import Begin, End, Transaction, TransactionRecorder, VerdictRecord

CANARY = "canary, a text"
REQUEST: Mapping[str, Any] = {
    "model": "fast",
    "stream": True,
    "temperature": 0.5,
    "messages": [
        {"role": "system", "content": CANARY},
        {"role": "user", "content": [{"type": "text", "text": CANARY}, {"type": "image_url", "image_url": {"url": CANARY}}]},
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "run", "arguments": CANARY}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c2", "name": "run", "input": {CANARY: {CANARY: 1}}}]},
        {"role": "tool", "tool_call_id": "c1", "content": CANARY, CANARY: True},
    ],
    "tools": [
        {"type": "function", "function": {"name": "run", "description": CANARY, "parameters": {"properties": {CANARY: {}}}}}
    ],
    "metadata": {"user_id": CANARY},
    "stop": [CANARY],
    "user": CANARY,
    "future_field": {"type": CANARY},
}


def begin(identity: str = "t1", **changed: Any) -> Begin:
    values = {"at": 1.5, "wire": "openai", "path": "/v1/chat/completions", "model": "fast", "stream": True, "client": "alice"}
    return Begin(id=identity, **{**values, "request": REQUEST, **changed})


def end(identity: str = "t1", ending: Any = "completed", **changed: Any) -> End:
    log = Transaction(begin(identity))
    for name, value in changed.items():
        setattr(log, name, value)
    return log.end(ending)


def full_end() -> End:
    log = Transaction(begin())
    log.sent, log.decoder, log.status = {**REQUEST, "model": "gpt-4o"}, "openai", 200
    log.ignored.append("cache_control")
    log.backend_blocks += [
        Block(kind=BlockKind.THINKING, text=CANARY, signature=f"{CANARY}=="),
        Block(kind=BlockKind.TOOL_CALL, text=f'{{"a":"{CANARY}"}}', id="c1", name="run", choice=1, index=1),
        Block(kind=BlockKind.OTHER, raw={"type": "server_tool_use", "input": CANARY}, index=2),
    ]
    log.final_blocks.append(Block(kind=BlockKind.TEXT, text=f"final {CANARY}"))
    log.verdicts.append(
        VerdictRecord(
            policy="P", hook="on_block_complete", verdict="deny", action="deny", reason=CANARY, kind="tool_call", tool="run"
        )
    )
    log.usage = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}, "service_tier": CANARY}
    log.finish_reasons[0] = "tool_calls"
    log.note("fallback: no raw response")
    return log.end("failed", {"type": "api_error", "message": f"{CANARY} Bearer sk-abcdefghijklmnop", "code": None})


def lines(path: Path) -> list[dict[str, Any]]:
    """Read the file strictly: every line must be whole."""
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def raw(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def closed_by_its_owner(path: Path) -> bool:
    """Tell whether the file's lock, which its recorder gives up when it closes the file, is free within five seconds."""
    deadline = time.monotonic() + 5
    with path.open("rb") as file:
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
    return False


def sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "transactions.jsonl"


class Gate(Mapping[str, Any]):
    """A request that keeps the writer's thread busy until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __getitem__(self, key: str) -> Any:
        return REQUEST[key]

    def __len__(self) -> int:
        return len(REQUEST)

    def __iter__(self) -> Iterator[str]:
        self.reached.set()
        assert self.opened.wait(10)
        return iter(REQUEST)

    async def is_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 10)


# --- two lines a transaction


async def test_a_begin_is_in_the_file_when_it_returns(path: Path) -> None:
    """Before the backend is called: the whole line, with the keys of the docstring in their order."""
    async with recording(path) as recorder:
        await recorder.begin(begin())
        (line,) = lines(path)
    assert list(line) == ["type", "id", "at", "wire", "path", "model", "stream", "client", "request"]
    assert line == {
        "type": "begin",
        "id": "t1",
        "at": 1.5,
        "wire": "openai",
        "path": "/v1/chat/completions",
        "model": "fast",
        "stream": True,
        "client": "alice",
        "request": dict(REQUEST),
    }


async def test_an_end_is_in_the_file_after_aclose_with_all_its_keys(path: Path) -> None:
    """With the begin's id, blocks in full, the error's credentials masked."""
    recorded = full_end()
    async with recording(path) as recorder:
        await recorder.begin(begin())
        await recorder.end(recorded)
    first, line = lines(path)
    assert (first["type"], first["id"], line["id"]) == ("begin", "t1", "t1")
    assert list(line) == [
        *["type", "id", "at", "ending", "status", "error", "sent", "decoder", "ignored", "backend_blocks", "final_blocks"],
        *["verdicts", "usage", "finish_reasons", "samples", "calls", "unchecked", "timings", "notes"],
    ]
    assert line["error"] == {"type": "api_error", "message": f"{CANARY} Bearer [redacted]", "code": None}
    assert line["sent"] == dict(recorded.sent or {})
    assert line["backend_blocks"] == [
        {"kind": "thinking", "text": CANARY, "signature": f"{CANARY}==", "index": 0},
        {"kind": "tool_call", "text": f'{{"a":"{CANARY}"}}', "id": "c1", "name": "run", "choice": 1, "index": 1},
        {"kind": "other", "raw": {"type": "server_tool_use", "input": CANARY}, "index": 2},
    ]
    assert line["verdicts"] == [
        {"policy": "P", "hook": "on_block_complete", "verdict": "deny", "action": "deny", "reason": CANARY, "kind": "tool_call"}
        | {"choice": 0, "index": 0, "tool": "run", "seconds": 0.0, "mode": "enforce", "sample": 0}
    ]
    assert (line["finish_reasons"], line["ignored"], line["notes"]) == (
        {"0": "tool_calls"},
        ["cache_control"],
        list(recorded.notes),
    )


async def test_an_empty_end_has_every_key_too(path: Path) -> None:
    """Keys are stable: null and empty lists, never absent."""
    async with recording(path) as recorder:
        await recorder.end(end(ending="client_disconnected"))
    (line,) = lines(path)
    assert len(line) == 19
    assert (line["error"], line["sent"], line["usage"], line["backend_blocks"]) == (None, None, None, [])


async def test_lone_surrogates_and_line_separators_survive(path: Path) -> None:
    """Half an emoji and every kind of line end within a text: one line, read back as it was."""
    text = "half \ud83d, lines \n\r\u2028\u2029\x85\x0b\x0c"
    async with recording(path) as recorder:
        await recorder.begin(begin(request={"messages": [{"content": text}]}))
        await recorder.end(end(final_blocks=[Block(kind=BlockKind.TEXT, text=text)]))
    (pair,) = read_transactions(path)
    assert pair["begin"]["request"] == {"messages": [{"content": text}]}
    assert pair["end"]["final_blocks"][0]["text"] == text


async def test_many_transactions_at_once_give_whole_lines_begin_before_end(path: Path) -> None:
    """Two hundred tasks, a queue of four: nothing torn, nothing lost, nothing twice."""

    async def one(recorder: TransactionRecorder, identity: str) -> None:
        await recorder.begin(begin(identity))
        await recorder.end(end(identity))

    async with recording(path, queue_size=4) as recorder, asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(one(recorder, str(number)))
    seen = [(line["id"], line["type"]) for line in lines(path)]
    assert len(seen) == len(set(seen)) == 400
    assert all(seen.index((str(n), "begin")) < seen.index((str(n), "end")) for n in range(200))


# --- content


async def written(path: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    async with recording(path, **options) as recorder:
        await recorder.begin(begin())
        await recorder.end(full_end())
    first, second = lines(path)
    return first, second


async def test_final_keeps_what_the_client_received_and_no_more(path: Path) -> None:
    """No request, no backend blocks; the final blocks, the verdicts and the usage."""
    first, second = await written(path, content="final")
    assert (first["request"], second["sent"], second["backend_blocks"]) == (None, None, [])
    assert second["final_blocks"] == [{"kind": "text", "text": f"final {CANARY}", "index": 0}]
    assert second["verdicts"][0]["verdict"] == "deny"
    assert second["usage"]["prompt_tokens"] == 3


async def test_hash_leaves_no_text_anywhere(path: Path) -> None:
    """Not in texts, arguments, keys, descriptions, signatures, reasons, error messages or unknown fields."""
    await written(path, content="hash")
    assert b"canary" not in raw(path)


async def test_hash_keeps_identifiers_names_and_numbers(path: Path) -> None:
    """And a text's hash is the SHA-256 of its UTF-8, so that two records can be compared."""
    first, second = await written(path, content="hash")
    request = first["request"]
    assert (request["model"], request["stream"], request["temperature"]) == ("fast", True, 0.5)
    assert request["messages"][0] == {"role": "system", "content": sha(CANARY)}
    assert request["messages"][1]["content"][0] == {"type": "text", "text": sha(CANARY)}
    assert request["messages"][2]["tool_calls"] == [{"id": "c1", "function": {"name": "run", "arguments": sha(CANARY)}}]
    assert request["messages"][3]["content"][0]["input"] == sha(f'{{"{CANARY}":{{"{CANARY}":1}}}}')
    assert request["tools"][0]["function"]["name"] == "run"
    assert second["backend_blocks"][1] == {
        "kind": "tool_call",
        "text": sha(f'{{"a":"{CANARY}"}}'),
        "id": "c1",
        "name": "run",
        "choice": 1,
        "index": 1,
    }
    assert second["usage"] == {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}, "service_tier": sha(CANARY)}
    assert second["error"]["type"] == "api_error"
    assert (second["verdicts"][0]["tool"], second["verdicts"][0]["reason"]) == ("run", sha(CANARY))


async def test_hash_lets_no_content_through_under_an_identifiers_key(path: Path) -> None:
    """A name or a model that is a sentence is hashed like any text."""
    async with recording(path, content="hash") as recorder:
        await recorder.begin(
            begin(model=CANARY, request={"model": CANARY, "messages": [{"role": CANARY, "name": [CANARY, 7]}, 42]})
        )
        await recorder.end(end(final_blocks=[Block(kind=BlockKind.TOOL_CALL, id=CANARY, name=CANARY)], ignored=[CANARY]))
    assert b"canary" not in raw(path)
    assert lines(path)[0]["request"]["messages"][1] != 42


async def test_hash_hashes_content_that_looks_like_an_identifier(path: Path) -> None:
    """One word, or a number, is content where content stands."""
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "hunter2"}, {"content": [{"type": "text", "text": "hunter2"}]}],
    }
    async with recording(path, content="hash") as recorder:
        await recorder.begin(begin(request={**request, "system": 4711, "prompt": "hunter2", "data": {"type": "hunter2"}}))
        await recorder.end(end(final_blocks=[Block(kind=BlockKind.TEXT, text="hunter2")]))
    assert b"hunter2" not in raw(path)
    assert lines(path)[0]["request"]["system"] == sha("4711")


@pytest.mark.parametrize("content", ["full", "final"])
async def test_a_mask_changes_every_text_before_it_is_written(path: Path, content: str) -> None:
    """What a policy masks for the client can be masked in the record."""
    await written(path, content=content, mask=lambda text: text.replace("canary", "***"))
    assert b"canary" not in raw(path)
    assert "***, a text" in json.dumps(lines(path)[1]["final_blocks"])


@pytest.mark.parametrize("content", ["full", "final", "hash"])
async def test_a_credential_is_not_in_an_error_not_even_as_a_name(path: Path, content: Any) -> None:
    """Without a mask too: in what an error says, at any depth of what else it holds, and as the name of a field."""
    key = "sk-ant-api03-Zx81QpLm42vbNNtr"
    log = Transaction(begin())
    error = {"type": key, "message": key, "code": key, key: [{key: key}], "more": {f"Bearer {key}": 1}}
    async with recording(path, content=content) as recorder:
        await recorder.begin(begin())
        await recorder.end(log.end("failed", error))
    assert b"Zx81" not in raw(path)
    assert len(lines(path)[1]["error"]) == len(error)


@pytest.mark.parametrize("options", [{"content": "none"}, {"content": ""}, {"queue_size": 0}, {"queue_size": -1}])
def test_a_wrong_option_is_refused_when_it_is_made(path: Path, options: dict[str, Any]) -> None:
    """Not when the first request comes."""
    with pytest.raises(ValueError):
        JsonlRecorder(path, **options)


# --- the file


async def test_the_file_is_private_even_if_it_was_not(path: Path, tmp_path: Path) -> None:
    """Mode 0600, whatever the umask, also for a file that was there."""
    before = os.umask(0)
    try:
        async with recording(path):
            assert mode(path) == 0o600
    finally:
        os.umask(before)
    old = tmp_path / "old.jsonl"
    old.write_text("")
    old.chmod(0o644)
    async with recording(old):
        assert mode(old) == 0o600


async def test_nothing_is_opened_before_start(path: Path) -> None:
    """A recorder made in a parent process touches no file, and refuses records."""
    recorder = JsonlRecorder(path)
    with pytest.raises(RecorderError):
        await recorder.begin(begin())
    with pytest.raises(RecorderError):
        await recorder.end(end())
    assert list(path.parent.iterdir()) == []
    assert recorder.path is None


async def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A link planted in a shared folder leads nowhere."""
    (tmp_path / "target").write_text("")
    (tmp_path / path.name).symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        await JsonlRecorder(path).start()
    assert (tmp_path / "target").read_text() == ""


async def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A FIFO without a reader would hang, a folder is none."""
    os.mkfifo(tmp_path / "fifo")
    for wrong in (tmp_path / "fifo", tmp_path):
        async with asyncio.timeout(5):
            with pytest.raises(OSError):
                await JsonlRecorder(wrong).start()


async def test_what_somebody_put_beside_the_record_keeps_no_worker_from_its_work(path: Path, tmp_path: Path) -> None:
    """A link, a folder or a pipe under the name of another worker's file, or of one's own."""
    (tmp_path / "transactions-1.jsonl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "transactions-2.jsonl").mkdir()
    os.mkfifo(tmp_path / f"transactions-{os.getpid()}.jsonl")
    first, second = JsonlRecorder(path), JsonlRecorder(path)
    await first.start()
    await second.start()
    assert second.path == tmp_path / f"transactions-{os.getpid()}-2.jsonl"
    await second.aclose()
    await first.aclose()
    assert not (tmp_path / "elsewhere").exists()


async def test_a_missing_folder_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    """A typing error in the configuration is noticed."""
    with pytest.raises(FileNotFoundError):
        await JsonlRecorder(tmp_path / "recrods" / "t.jsonl").start()
    assert not (tmp_path / "recrods").exists()


async def test_records_are_appended_and_a_torn_line_does_not_spoil_the_next(path: Path, tmp_path: Path) -> None:
    """What an earlier process wrote stays, its last line cut by a crash included."""
    (tmp_path / path.name).write_bytes(b'{"type":"begin","id":"old"}\n{"type":"end","id":"o')
    async with recording(path) as recorder:
        await recorder.begin(begin())
        await recorder.end(end())
    content = raw(path).split(b"\n")
    assert content[:2] == [b'{"type":"begin","id":"old"}', b'{"type":"end","id":"o']
    assert [(line["type"], line["id"]) for line in map(json.loads, content[2:-1])] == [
        *[("end", "old"), ("begin", "t1"), ("end", "t1")]
    ]
    assert [(pair["id"], pair["end"]["ending"]) for pair in read_transactions(path)] == [
        ("old", "interrupted"),
        ("t1", "completed"),
    ]


async def test_start_and_aclose_may_be_called_twice_and_again(path: Path) -> None:
    """A lifespan that runs twice appends to the same file."""
    recorder = JsonlRecorder(path)
    await recorder.aclose()
    for identity in ("a", "b"):
        await recorder.start()
        await recorder.start()
        assert recorder.path == path
        await recorder.begin(begin(identity))
        await recorder.end(end(identity))
        await recorder.aclose()
        await recorder.aclose()
    assert [line["id"] for line in lines(path)] == ["a", "a", "b", "b"]
    with pytest.raises(RecorderError):
        await recorder.begin(begin("c"))


async def test_two_recorders_on_one_path_write_two_files(path: Path, tmp_path: Path) -> None:
    """The second, third and fourth of one process write beside it; a free path is taken again."""
    async with recording(path) as one, recording(path) as two, recording(path) as three:
        for number, recorder in enumerate((one, two, three)):
            await recorder.begin(begin(str(number)))
        pid = os.getpid()
        names = [path.name, f"transactions-{pid}.jsonl", f"transactions-{pid}-2.jsonl"]
        assert [recorder.path for recorder in (one, two, three)] == [tmp_path / name for name in names]
        assert [lines(tmp_path / name)[0]["id"] for name in names] == ["0", "1", "2"]
    async with recording(path) as again:
        assert again.path == path


async def test_without_locks_every_start_writes_a_new_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the path itself, nor a file that is there: a process of the same number may have it, in another container."""
    monkeypatch.setattr("luthien_asgi.jsonl_file.fcntl", None)
    pattern = re.compile(rf"transactions-{os.getpid()}-\d+\.jsonl")
    async with recording(path) as first, recording(path) as second:
        names = [one.path.name for one in (first, second) if one.path is not None]
        await first.begin(begin("a"))
    assert len({name for name in names if pattern.fullmatch(name)}) == 2
    async with recording(path) as third:
        assert third.path is not None
        assert third.path.name not in names
    assert [(pair["id"], pair["end"]) for pair in read_transactions(path)] == [("a", None)]


def run(path: Path, body: str, *, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(path, body), input=stdin, capture_output=True, text=True, timeout=60, check=False)


OTHER_PROCESS = """
async def main():
    recorder = JsonlRecorder(path)
    await recorder.start()
    for number in range(50):
        await recorder.begin(begin(f"other{number}"))
        await recorder.end(end(f"other{number}"))
    await recorder.aclose()
    print(os.getpid())

asyncio.run(main())
"""


async def test_two_processes_never_write_one_file(path: Path, tmp_path: Path) -> None:
    """The second finds the path locked and writes `<stem>-<pid><suffix>` beside it; when it is free, the path itself."""
    async with recording(path) as recorder:
        await recorder.begin(begin("mine"))
        done = await asyncio.to_thread(run, path, OTHER_PROCESS)
        assert done.returncode == 0, done.stderr
        await recorder.end(end("mine"))
    other = tmp_path / f"transactions-{done.stdout.strip()}.jsonl"
    assert {line["id"] for line in lines(path)} == {"mine"}
    assert len(lines(other)) == 100
    assert mode(other) == 0o600
    assert (await asyncio.to_thread(run, path, OTHER_PROCESS)).returncode == 0
    assert len(lines(path)) == 102


FORKS = """
async def one(recorder, identity, *, start):
    if start:
        await recorder.start()
    await recorder.begin(begin(identity))
    await recorder.end(end(identity))

def in_child(recorder, identity, *, start):
    child = os.fork()
    if not child:
        asyncio.run(finished(recorder, identity, start))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(child)

async def finished(recorder, identity, start):
    await one(recorder, identity, start=start)
    await recorder.aclose()

import warnings
warnings.simplefilter("ignore")
recorder = JsonlRecorder(path)
in_child(recorder, "before", start=True)
asyncio.run(one(recorder, "parent", start=True))
in_child(recorder, "after", start=False)
asyncio.run(finished(recorder, "parent2", False))
"""


def test_a_fork_before_or_after_start_leaves_each_process_its_own_file(path: Path, tmp_path: Path) -> None:
    """As gunicorn does with `preload_app`: no lines are shared, none is written twice, and the child opens by itself."""
    done = run(path, FORKS)
    assert done.returncode == 0, done.stderr
    _, after = done.stdout.split()
    assert [line["id"] for line in lines(path)] == ["before", "before", "parent", "parent", "parent2", "parent2"]
    assert [line["id"] for line in lines(tmp_path / f"transactions-{after}.jsonl")] == ["after", "after"]


CHILD_WITHOUT_A_FOLDER = """
import shutil, warnings
warnings.simplefilter("ignore")

async def refused():
    try:
        await recorder.begin(begin("child"))
    except RecorderError as error:
        return error.status == 503

async def main():
    await recorder.start()
    await recorder.begin(begin("parent"))

recorder = JsonlRecorder(path)
asyncio.run(main())
child = os.fork()
if not child:
    shutil.rmtree(os.path.dirname(path))
    os._exit(0 if asyncio.run(refused()) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
child = os.fork()
if not child:
    asyncio.run(recorder.aclose())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
asyncio.run(recorder.end(end("parent")))
asyncio.run(recorder.aclose())
"""


def test_a_child_that_cannot_open_its_own_file_refuses_and_one_that_closes_disturbs_nobody(tmp_path: Path) -> None:
    """What the parent has open is the parent's."""
    (tmp_path / "folder").mkdir()
    done = run(tmp_path / "folder" / "t.jsonl", CHILD_WITHOUT_A_FOLDER)
    assert done.returncode == 0, done.stderr


def test_what_is_queued_is_written_when_the_process_ends_without_aclose(path: Path) -> None:
    """The interpreter waits for the writer."""
    body = """
async def main():
    recorder = JsonlRecorder(path)
    await recorder.start()
    for number in range(500):
        await recorder.end(end(str(number)))
    globals()["kept"] = recorder

asyncio.run(main())
"""
    done = run(path, body)
    assert done.returncode == 0, done.stderr
    assert len(lines(path)) == 500


# --- a full queue, cancellation


async def test_the_event_loop_runs_on_while_the_writer_is_busy(path: Path) -> None:
    """A begin waits; whoever else is on the loop does not."""
    gate = Gate()
    async with recording(path) as recorder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(recorder.begin(begin(request=gate)))
        await gate.is_reached()
        assert not waiting.done()
        await recorder.end(end("other"))
        gate.opened.set()
    assert [line["id"] for line in lines(path)] == ["t1", "other"]


async def test_a_full_queue_makes_an_end_wait_and_drops_nothing(path: Path) -> None:
    """Three fit, the one that is being written included; the fourth waits for its write."""
    gate = Gate()
    async with recording(path, queue_size=3) as recorder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.begin(begin("first", request=gate)))
        await gate.is_reached()
        await recorder.end(end("a"))
        await recorder.end(end("b"))
        waiting = tasks.create_task(recorder.end(end("c")))
        await wait_all_tasks_blocked()
        assert not waiting.done()
        gate.opened.set()
    assert [line["id"] for line in lines(path)] == ["first", "a", "b", "c"]


async def test_an_end_whose_task_is_cancelled_while_it_waits_is_written_all_the_same(path: Path) -> None:
    """The client left: its record does not."""
    gate = Gate()
    async with recording(path, queue_size=2) as recorder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.begin(begin("first", request=gate)))
        await gate.is_reached()
        await recorder.end(end("a"))
        waiting = tasks.create_task(recorder.end(end("b")))
        await wait_all_tasks_blocked()
        waiting.cancel()
        await wait_all_tasks_blocked()
        assert waiting.cancelled()
        gate.opened.set()
    assert [line["id"] for line in lines(path)] == ["first", "a", "b"]


async def test_an_end_in_a_task_that_is_already_cancelled_is_written(path: Path) -> None:
    """As from a `finally` under cancellation: there is nothing to wait for, so it goes through."""

    begun = asyncio.Event()

    async def request(recorder: JsonlRecorder) -> None:
        await recorder.begin(begin())
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await recorder.end(end(ending="client_disconnected"))

    async with recording(path) as recorder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(request(recorder))
        await begun.wait()
        task.cancel()
    assert [line["type"] for line in lines(path)] == ["begin", "end"]
    assert lines(path)[1]["ending"] == "client_disconnected"


async def test_a_begin_that_is_cancelled_before_the_writer_took_it_is_taken_back(path: Path) -> None:
    """Its transaction never was: it leaves no half of a record, and disturbs no other."""
    gate = Gate()
    async with recording(path) as recorder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.begin(begin("first", request=gate)))
        await gate.is_reached()
        gone = tasks.create_task(recorder.begin(begin("gone")))
        last = tasks.create_task(recorder.begin(begin("last")))
        await wait_all_tasks_blocked()
        gone.cancel()
        await wait_all_tasks_blocked()
        assert not last.done()
        gate.opened.set()
    assert [line["id"] for line in lines(path)] == ["first", "last"]


async def test_a_begin_that_is_cancelled_on_its_way_gets_its_end(path: Path) -> None:
    """It cannot be taken back any more, and nobody else will end it."""
    gate = Gate()
    async with recording(path) as recorder, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(recorder.begin(begin(request=gate)))
        await gate.is_reached()
        task.cancel()
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert [(line["type"], line["id"], line.get("ending")) for line in lines(path)] == [
        *[("begin", "t1", None), ("end", "t1", "interrupted")]
    ]


async def test_aclose_writes_what_is_queued_even_when_it_is_cancelled(path: Path) -> None:
    """A server that loses patience does not lose records."""
    gate = Gate()
    recorder = JsonlRecorder(path)
    await recorder.start()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.begin(begin("first", request=gate)))
        await gate.is_reached()
        for identity in "abc":
            await recorder.end(end(identity))
        closing = tasks.create_task(recorder.aclose())
        await wait_all_tasks_blocked()
        closing.cancel()
        await wait_all_tasks_blocked()
        gate.opened.set()
        assert await asyncio.to_thread(closed_by_its_owner, path)
    assert [line["id"] for line in lines(path)] == ["first", "a", "b", "c"]


# --- a writer that fails


LIMITED = """
import logging
logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def outcome(awaitable):
    try:
        await awaitable
    except RecorderError as error:
        return f"{error.status} {error.type}: {error.message}"
    return "kept"

async def main():
    recorder = JsonlRecorder(path, queue_size=3)
    await recorder.start()
    said = [await outcome(recorder.begin(begin("one")))]
    limit(os.path.getsize(path) + 100)
    said.append(await outcome(recorder.begin(begin("two", "y" * 1000))))
    said.append(await outcome(recorder.begin(begin("three"))))
    for identity in ("one", "four", "five", "six"):
        said.append(await outcome(recorder.end(end(identity))))
    RECOVERY
    said.append(await outcome(recorder.begin(begin("seven"))))
    said.append(await outcome(recorder.end(end("seven"))))
    await recorder.aclose()
    print(json.dumps(said))

asyncio.run(main())
"""
REFUSED = "503 api_error: The transaction cannot be recorded now."


def test_a_full_disk_refuses_begins_keeps_ends_and_recovers(path: Path) -> None:
    """A short write is cut off by a newline; ends wait in memory, also beyond the queue, and go out first when there is room."""
    done = run(path, LIMITED.replace("RECOVERY", "limit(resource.RLIM_INFINITY)"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["kept", *[REFUSED] * 6, "kept", "kept"]
    whole = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line.endswith(b"}")]
    assert [(line["type"], line["id"]) for line in whole] == [
        *[
            ("begin", "one"),
            ("end", "one"),
            ("end", "four"),
            ("end", "five"),
            ("end", "six"),
            ("begin", "seven"),
            ("end", "seven"),
        ]
    ]
    assert [pair["id"] for pair in read_transactions(path)] == ["one", "four", "five", "six", "seven"]
    assert done.stderr.count("ERROR") == 1
    assert "can be written again" in done.stderr


def test_what_could_not_be_written_until_the_end_is_counted_in_the_log(path: Path) -> None:
    """Nothing is lost in silence."""
    done = run(path, LIMITED.replace("RECOVERY", "pass"))
    assert done.returncode == 0, done.stderr
    assert "5 records of" in done.stderr
    assert "are lost" in done.stderr
    assert [pair["id"] for pair in read_transactions(path)] == ["one"]


async def test_a_begin_that_is_not_json_is_refused_and_harms_no_other(path: Path) -> None:
    """Only that one; neither the error nor the log shows its content."""
    async with recording(path) as recorder:
        with pytest.raises(RecorderError) as caught:
            await recorder.begin(begin("bad", request={"a": object(), "b": CANARY}))
        await recorder.begin(begin("good"))
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 503
    assert [line["id"] for line in lines(path)] == ["good"]


async def test_an_end_that_is_not_json_is_written_without_its_content(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One end for each begin, whatever a policy put into it."""
    with caplog.at_level(logging.ERROR):
        async with recording(path) as recorder:
            await recorder.end(end(usage={CANARY: object()}))
    (line,) = lines(path)
    assert (line["type"], line["id"], line["ending"], line["usage"]) == ("end", "t1", "completed", None)
    assert len(line) == 19
    assert "TypeError" in line["notes"][0]
    assert CANARY not in caplog.text + json.dumps(line)


# --- reading


def test_transactions_come_in_the_order_of_their_ends_and_open_ones_last(path: Path) -> None:
    """Pairs are made by id; an end without a begin is shown too."""
    records = [("begin", "a"), ("begin", "b"), ("end", "b"), ("begin", "c"), ("end", "a"), ("end", "x")]
    path.write_text("".join(json.dumps({"type": kind, "id": identity}) + "\n" for kind, identity in records))
    found = [(pair["id"], pair["begin"] is not None, pair["end"] is not None) for pair in read_transactions(path)]
    assert found == [("b", True, True), ("a", True, True), ("x", False, True), ("c", True, False)]


@pytest.mark.parametrize("cut", [1, 10, 25, 39])
def test_a_torn_last_line_is_skipped_with_a_warning(path: Path, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it was cut; everything before it is read."""
    last = b'{"type":"end","id":"a","ending":"failed"}\n'
    path.write_bytes(b'{"type":"begin","id":"a"}\n' + last[:cut])
    with caplog.at_level(logging.WARNING):
        assert [(pair["id"], pair["end"]) for pair in read_transactions(str(path))] == [("a", None)]
    assert "line 2 is not a record" in caplog.text


def test_lines_that_are_no_records_are_skipped(path: Path) -> None:
    """Empty ones, other JSON, other types."""
    path.write_bytes(b'\n[]\n{"type":"begin"}\n{"type":"note","id":"n"}\n\xff\xfe\n{"type":"begin","id":"a"}\n')
    assert [pair["id"] for pair in read_transactions(path)] == ["a"]


def test_reading_a_file_that_is_not_there_is_an_error(path: Path) -> None:
    """Not an empty record."""
    with pytest.raises(FileNotFoundError):
        next(read_transactions(path))


def test_the_recorder_is_a_transaction_recorder(path: Path) -> None:
    """By its type; and blocks are collected for it."""
    make: Callable[[Path], TransactionRecorder] = JsonlRecorder
    assert make(path).wants_blocks


def test_why_a_file_could_not_be_opened_is_known_before_it_is_tried(tmp_path: Path) -> None:
    """A missing folder and what is no regular file are told; a good path is not opened."""
    assert "is not there" in JsonlRecorder(tmp_path / "nowhere" / "t.jsonl").why_not()
    assert "no regular file" in JsonlRecorder(tmp_path).why_not()
    assert JsonlRecorder(tmp_path / "t.jsonl").why_not() == ""
    assert not (tmp_path / "t.jsonl").exists()
