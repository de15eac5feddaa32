"""The record survives its process: each begin gets one end, whoever was killed, and whatever was rotated meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonl_processes import command, recording

from luthien_asgi.errors import ApiError
from luthien_asgi.jsonl import read_transactions
from luthien_asgi.jsonl_file import claim
from luthien_asgi.jsonl_names import chains, rotated
from luthien_asgi.jsonl_settling import look_through
from luthien_asgi.recorder import Begin, End, Transaction

BEGINS = """
async def main(begun, ended):
    recorder = JsonlRecorder(path, **OPTIONS)
    await recorder.start()
    for identity in begun:
        await recorder.begin(begin(identity))
    for identity in ended:
        await recorder.end(end(identity))
    await recorder.begin(begin(f"last of {os.getpid()}"))  # what was handed over before it is in the file as well
    ready()

asyncio.run(main(BEGUN, ENDED))
"""


def begin(identity: str, text: str = "x") -> Begin:
    return Begin(id=identity, at=0, wire="openai", path="/", model="m", stream=True, client="", request={"text": text})


def end(identity: str, text: str = "") -> End:
    log = Transaction(begin(identity))
    log.sent = {"text": text}
    return log.end("completed")


class Process:
    """A Python process that says when it has come to a point, and waits there."""

    def __init__(self, path: Path, body: str) -> None:
        self._process = subprocess.Popen(command(path, body), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "\n"

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ends(self) -> int:
        """Wait for its end and return its status."""
        with self._process as process:
            return process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        assert self.ends() == -signal.SIGKILL


def killed(path: Path, begun: Sequence[str], ended: Sequence[str], **options: Any) -> int:
    """Run a worker that is killed when it has written this, and one more begin; return its number."""
    with worker(path, begun, ended, **options) as process:
        process.kill()
    return process.pid


@contextmanager
def worker(path: Path, begun: Sequence[str], ended: Sequence[str], **options: Any) -> Iterator[Process]:
    body = BEGINS.replace("OPTIONS", repr(options)).replace("BEGUN", repr(begun)).replace("ENDED", repr(ended))
    process = Process(path, body)
    process.wait_ready()
    yield process


async def started(path: Path, **options: Any) -> None:
    """Let a recorder start on the path, and close."""
    async with recording(path, **options):
        pass


def endings(path: Path) -> dict[str, str | None]:
    """Return how each transaction of a record ended; each has one begin and at most one end."""
    files = [file for name in chains(path) for file in (*rotated(name), name) if file.is_file()]
    parsed = [value for file in files for line in file.read_bytes().splitlines() if (value := loaded(line)) is not None]
    counts = Counter((line["type"], line["id"]) for line in parsed if line["type"] != "checkpoint")
    assert not counts or max(counts.values()) == 1
    return {pair["id"]: pair["end"] and pair["end"]["ending"] for pair in read_transactions(path)}


def raw(path: Path) -> bytes:
    return path.read_bytes()


def contents(*paths: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in paths}


def remove(path: Path) -> None:
    path.unlink()


def cut_off(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def size(path: Path) -> int:
    return path.stat().st_size


def loaded(line: bytes) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line))
    except ValueError:
        return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "transactions.jsonl"


# --- interrupted transactions


@pytest.mark.parametrize("durability", ["relaxed", "strict"])
async def test_what_a_killed_worker_left_open_is_interrupted_once(path: Path, durability: str) -> None:
    """By the next that starts, with the keys of every end; the one after that finds nothing to do."""
    last = f"last of {killed(path, ['a', 'b', 'c'], ['b'], durability=durability)}"
    assert endings(path) == {"b": "completed", "a": None, "c": None, last: None}
    await started(path, durability=durability)
    assert endings(path) == {"b": "completed", "a": "interrupted", "c": "interrupted", last: "interrupted"}
    pairs = list(read_transactions(path))
    assert {len(pair["end"]) for pair in pairs} == {19}
    assert {tuple(pair["end"]) for pair in pairs} == {tuple(pairs[0]["end"])}
    assert {(pair["end"]["status"], pair["end"]["error"]) for pair in pairs} == {(0, None)}
    content = raw(path)
    await started(path)
    assert raw(path) == content


async def test_a_worker_that_lives_is_left_alone_wherever_it_writes(path: Path) -> None:
    """It has its file locked. A third worker settles the dead one's, goes on with that, and touches nothing else."""
    async with recording(path) as first:
        await first.begin(begin("alive"))
        with worker(path, ["a"], ["a"]) as second:
            dead = killed(path, ["b"], [])
            theirs = contents(*(name for name in chains(path) if str(dead) not in name.name))
            assert len(theirs) == 2
            async with recording(path) as third:
                assert third.path == path.with_name(f"transactions-{dead}.jsonl")
                assert contents(*theirs) == theirs
                assert endings(path) == {
                    "alive": None,
                    "a": "completed",
                    "b": "interrupted",
                    f"last of {second.pid}": None,
                    f"last of {dead}": "interrupted",
                }
            second.kill()


async def test_several_workers_that_start_at_once_settle_a_dead_one_once(path: Path) -> None:
    """Five rounds of four: each interrupted transaction has one end, and the workers have a file each."""
    start = """
async def main():
    recorder = JsonlRecorder(path)
    ready()
    await recorder.start()
    await recorder.begin(begin(f"of {os.getpid()}"))
    await recorder.end(end(f"of {os.getpid()}"))
    await recorder.aclose()

asyncio.run(main())
"""
    ids = [f"t{number}" for number in range(200)]
    for turn in range(5):
        killed(path, [f"{turn} {identity}" for identity in ids], [])
        processes = [Process(path, start) for _ in range(4)]
        for process in processes:
            process.wait_ready()
        for process in processes:
            process.go_on()
        assert [process.ends() for process in processes] == [0] * 4
        found = endings(path)
        assert {found[f"{turn} {identity}"] for identity in ids} == {"interrupted"}
        assert None not in found.values()


@pytest.mark.parametrize("cut", [1, 20, 200])
async def test_an_end_that_was_torn_is_no_end(path: Path, cut: int) -> None:
    """Wherever it was cut, also where it lacks its newline alone: then it is one."""
    async with recording(path) as recorder:
        await recorder.begin(begin("a"))
        await recorder.end(end("a"))
    whole = raw(path)
    cut_off(path, cut)
    await started(path)
    assert raw(path).startswith(whole[:-cut] + b"\n" * (cut > 1))
    assert endings(path) == {"a": "completed" if cut == 1 else "interrupted"}


async def test_a_file_that_is_no_record_is_not_touched(path: Path) -> None:
    """Its name is like a worker's; nothing is added to it, whatever it holds, and its mode stays."""
    other = path.with_name("transactions-2024.jsonl")
    other.write_bytes(b'{"a": 1}\nnot JSON')
    other.chmod(0o644)
    path.with_name("transactions-2025.jsonl").mkdir()
    path.with_name("transactions-2026.jsonl").symlink_to(other)
    await started(path)
    assert (other.read_bytes(), other.stat().st_mode & 0o777) == (b'{"a": 1}\nnot JSON', 0o644)


async def test_what_cannot_be_ended_now_is_ended_by_the_next(path: Path) -> None:
    """A full disk does not keep a worker from starting, and nothing is ended twice."""
    killed(path, [f"t{number}" for number in range(100)], [])
    full = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 10_000, resource.RLIM_INFINITY))

async def main():
    await JsonlRecorder(path).start()

asyncio.run(main())
"""
    assert Process(path, full).ends() == 0
    some = Counter(endings(path).values())
    assert 0 < some["interrupted"] < 100
    await started(path)
    assert Counter(endings(path).values()) == {"interrupted": 101}


async def test_a_long_file_is_read_from_its_last_checkpoint_on(path: Path) -> None:
    """Twenty megabytes, of which a start reads some four; what began before them is still known."""
    async with recording(path) as recorder:
        await recorder.begin(begin("open"))
        for number in range(20):
            await recorder.begin(begin(f"t{number}", "x" * 500_000))
            await recorder.end(end(f"t{number}", "x" * 500_000))
    file = claim(path)
    assert file is not None
    found = look_through(file)
    file.close()
    assert list(found.open) == ["open"]
    assert size(path) > 20_000_000
    assert found.read < 6_000_000
    await started(path)
    assert Counter(endings(path).values()) == {"completed": 20, "interrupted": 1}


async def test_a_dead_workers_long_file_is_not_read_again(path: Path) -> None:
    """Where it has no checkpoint, because an older version wrote it, it gets one at its end."""
    other = path.with_name("transactions-5.jsonl")
    line = json.dumps({"type": "begin", "id": "x", "text": "x" * 300_000}) + "\n" + json.dumps({"type": "end", "id": "x"}) + "\n"
    other.write_text(line)
    await started(path)
    file = claim(other)
    assert file is not None
    assert look_through(file).read < 100
    file.close()
    content = raw(other)
    await started(path)
    assert raw(other) == content


# --- rotation


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


async def test_files_are_rotated_by_size_and_none_is_lost(path: Path) -> None:
    """No file is longer, each line is whole, and the transactions come in the order of their ends."""
    async with recording(path, max_bytes=2000) as recorder:
        for number in range(30):
            await recorder.begin(begin(f"{number:02}"))
            await recorder.end(end(f"{number:02}"))
        assert recorder.path == path
    files = [*rotated(path), path]
    assert [file.name for file in files[:2]] == ["transactions.000001.jsonl", "transactions.000002.jsonl"]
    assert len(files) > 5
    assert max(size(file) for file in files) <= 2000
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert [pair["id"] for pair in read_transactions(path)] == [f"{number:02}" for number in range(30)]
    assert set(endings(path).values()) == {"completed"}
    assert list(read_transactions(path.parent)) == list(read_transactions(path))


async def test_a_transaction_may_begin_in_one_file_and_end_in_a_later_one(path: Path) -> None:
    """Neither the reader nor a later worker takes it for interrupted."""
    async with recording(path, max_bytes=1000) as recorder:
        await recorder.begin(begin("long"))
        for number in range(10):
            await recorder.begin(begin(str(number)))
            await recorder.end(end(str(number)))
        await recorder.end(end("long"))
    assert len(rotated(path)) > 3
    await started(path)
    assert set(endings(path).values()) == {"completed"}
    assert [pair["id"] for pair in read_transactions(path)][-1] == "long"


async def test_what_began_before_a_rotation_is_interrupted_in_the_file_that_is_written(path: Path) -> None:
    """The next worker reads that one alone: its checkpoint has the names."""
    last = f"last of {killed(path, [str(number) for number in range(12)], ['3'], max_bytes=1000)}"
    before = contents(*rotated(path))
    assert len(before) > 1
    await started(path)
    assert contents(*before) == before
    assert endings(path) == {
        "3": "completed",
        **dict.fromkeys([*map(str, range(3)), *map(str, range(4, 12)), last], "interrupted"),
    }


async def test_as_many_rotated_files_are_kept_as_asked(path: Path) -> None:
    """The youngest; numbers go on, and a file that somebody holds stays."""
    path.with_name("transactions.000007.jsonl").write_text("")
    async with recording(path, max_bytes=1000, keep=2) as recorder:
        for number in range(20):
            await recorder.begin(begin(str(number)))
            await recorder.end(end(str(number)))
    kept = [int(file.stem[-6:]) for file in rotated(path)]
    assert kept == [kept[-1] - 1, kept[-1]]
    assert kept[-1] > 10
    assert names(path) == sorted([*(file.name for file in rotated(path)), path.name])


async def test_a_line_longer_than_a_file_may_be_has_one_for_itself(path: Path) -> None:
    """It is not refused, and what follows is in the next."""
    async with recording(path, max_bytes=500) as recorder:
        for identity in ("a", "b"):
            await recorder.begin(begin(identity, "x" * 5000))
            await recorder.end(end(identity))
    assert set(endings(path).values()) == {"completed"}


async def test_a_rotation_that_was_killed_half_way_is_finished_by_the_next(path: Path) -> None:
    """The file has two names then: it is read once, and not linked again; the one that was made ready is made again."""
    async with recording(path) as recorder:
        await recorder.begin(begin("a"))
        await recorder.end(end("a"))
    path.with_name("transactions.000001.jsonl").hardlink_to(path)
    path.with_name("transactions.next.jsonl").write_bytes(
        b'{"type":"checkpoint","id":"","open":["gone"]}\n{"type":"begin","id":"'
    )
    assert [pair["id"] for pair in read_transactions(path)] == ["a"]
    async with recording(path, max_bytes=300) as recorder:
        await recorder.begin(begin("b"))
        await recorder.end(end("b"))
    assert names(path)[:2] == ["transactions.000001.jsonl", "transactions.000002.jsonl"]
    assert "transactions.next.jsonl" not in names(path)
    assert [pair["id"] for pair in read_transactions(path)] == ["a", "b"]


async def test_where_a_file_cannot_be_rotated_it_grows_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And says so once; nothing is refused and nothing lost."""
    path.with_name("transactions.next.jsonl").mkdir()
    async with recording(path, max_bytes=500) as recorder:
        for number in range(20):
            await recorder.begin(begin(str(number)))
            await recorder.end(end(str(number)))
        assert recorder.healthy
    assert rotated(path) == []
    assert len(endings(path)) == 20
    assert caplog.text.count("cannot be rotated") == 1


async def test_two_workers_rotate_beside_each_other(path: Path) -> None:
    """Each its own files; the transactions of both are in the record."""
    other = """
async def main():
    recorder = JsonlRecorder(path, max_bytes=1500, keep=3)
    await recorder.start()
    ready()
    for number in range(200):
        await recorder.begin(begin(f"{os.getpid()} {number}"))
        await recorder.end(end(f"{os.getpid()} {number}"))
    await recorder.aclose()

asyncio.run(main())
"""
    processes = [Process(path, other.replace(", keep=3", "")) for _ in range(3)]
    for process in processes:
        process.wait_ready()
    for process in processes:
        process.go_on()
    assert [process.ends() for process in processes] == [0] * 3
    assert len(chains(path)) == 3
    found = endings(path)
    assert (len(found), set(found.values())) == (600, {"completed"})


# --- files that go


async def test_a_record_that_somebody_removed_goes_on_in_a_new_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is written to a file without a name is gone with the process, so that does not happen; open ones are carried over."""
    async with recording(path) as recorder:
        await recorder.begin(begin("a"))
        remove(path)
        await recorder.begin(begin("b"))
        assert size(path)
    assert "was removed" in caplog.text
    await started(path)
    assert endings(path) == {"a": "interrupted", "b": "interrupted"}


async def test_a_folder_that_was_removed_refuses_until_it_is_back(tmp_path: Path) -> None:
    """Begins are refused, ends wait; the recorder finds out by itself that it can write again."""
    folder = tmp_path / "records"
    folder.mkdir()
    path = folder / "t.jsonl"
    async with recording(path) as recorder:
        await recorder.begin(begin("a"))
        path.unlink()
        folder.rmdir()
        with pytest.raises(ApiError, match="cannot be recorded"):
            await recorder.begin(begin("b"))
        assert not recorder.healthy
        with contextlib.suppress(ApiError):
            await recorder.end(end("a"))
        async with Recovery():
            folder.mkdir()
        assert recorder.healthy
    assert [line["id"] for line in map(json.loads, raw(path).splitlines()) if line["type"] == "end"] == ["a"]


class Recovery(logging.Handler):
    """Waits for a recorder to say that it can write again, by its own timer."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "can be written again" in record.getMessage():
            self._seen.set()

    async def __aenter__(self) -> None:
        logging.getLogger("luthien_asgi.jsonl_writer").addHandler(self)

    async def __aexit__(self, *_: object) -> None:
        assert await asyncio.to_thread(self._seen.wait, 10)
        logging.getLogger("luthien_asgi.jsonl_writer").removeHandler(self)


FULL = """
import contextlib
from luthien_asgi.jsonl import RecorderError

async def ended(recorder, identity):
    try:
        await recorder.end(end(identity))
    except RecorderError:
        if recorder.durable:
            with contextlib.suppress(RecorderError):
                await recorder.end(end(identity))

async def main():
    recorder = JsonlRecorder(path, durability="DURABILITY", max_bytes=MAX)
    await recorder.start()
    said, number = [], 0
    await recorder.begin(begin("kept"))
    while True:
        number += 1
        try:
            await recorder.begin(begin(f"t{number}", "x" * 1000))
            said.append(f"t{number}")
        except RecorderError as error:
            assert error.status == 503 and not recorder.healthy
            break
        await ended(recorder, f"t{number}")
    await ended(recorder, "kept")
    os.remove(os.path.join(os.path.dirname(path), "ballast"))
    for _ in range(1000):
        if recorder.healthy:
            break
        await asyncio.sleep(0.01)
    assert recorder.healthy
    await recorder.begin(begin("after"))
    await recorder.end(end("after"))
    await recorder.aclose()
    print(json.dumps(said))

asyncio.run(main())
"""


@pytest.mark.parametrize("max_bytes", [None, 20_000])
@pytest.mark.parametrize("durability", ["relaxed", "strict"])
def test_a_disk_that_is_full_and_then_not(tmp_path: Path, durability: str, max_bytes: int | None) -> None:
    """A real one, of 128 KiB: every begin that was accepted has one end, and what was refused left no whole line."""
    recorder = command(tmp_path / "t.jsonl", FULL.replace("DURABILITY", durability).replace("MAX", repr(max_bytes)))
    script = (
        f"mount -t tmpfs -o size=128k none {tmp_path} && head -c 40000 /dev/zero > {tmp_path}/ballast && "
        f'"$@" && cat {tmp_path}/t*.jsonl'
    )
    mounted = ["unshare", "-rm", "sh", "-c", script, "sh", *recorder]
    done = subprocess.run(mounted, capture_output=True, text=True, timeout=60, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    counts = Counter((line["type"], line["id"]) for text in lines if (line := loaded(text.encode())) is not None)
    counts = Counter({key: count for key, count in counts.items() if key[0] != "checkpoint"})
    begun = {"kept", "after", *json.loads(first)}
    assert set(counts.values()) == {1}
    assert {identity for kind, identity in counts if kind == "begin"} == begun
    assert {identity for kind, identity in counts if kind == "end"} == begun
