"""Desks of several workers: they find each other in a folder that is one user's alone, over real sockets."""

# ruff: noqa: ASYNC220, ASYNC240 - files and processes of a test: nobody else waits for the loop

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi import approval_relay
from luthien_asgi.approvals import Approval, Approvals, Decision, Outcome
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.errors import ConfigError
from luthien_asgi.private_folder import default_folder, make_private

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")

CALL = Block(kind=BlockKind.TOOL_CALL, name="bash", id="call_1", text='{"command": "rm -rf /"}')
ALLOW = Decision(allowed=True, by="operator:alice", reason="fine")
SECOND = 5.0
GHOST = "0123456789abcdef"
AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")
NOBODY = 65534
DYING = """
import signal, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen(10)
print("ready", flush=True)
signal.pause()
"""


def ask(desk: Approvals, **more: Any) -> Approval:
    return desk.draft(transaction_id="t", policy="P", question="May it?", block=CALL, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "d"


@pytest.fixture
async def desks(folder: Path) -> AsyncIterator[tuple[Approvals, Approvals]]:
    """Two workers' desks."""
    one, other = Approvals(directory=folder), Approvals(directory=folder)
    await one.start()
    await other.start()
    yield one, other
    await one.aclose()
    await other.aclose()


async def soon(holds: Callable[[], object]) -> None:
    """Let the other tasks run until something holds."""
    async with asyncio.timeout(SECOND):
        while not holds():  # noqa: ASYNC110 - a desk has no event for tests
            await asyncio.sleep(0)


async def until_waiting(desk: Approvals) -> Approval:
    await soon(desk.waiting)
    return desk.waiting()[0]


# --- answers find their way


@pytest.mark.parametrize("turned", [False, True])
async def test_an_answer_at_the_wrong_worker_reaches_the_right_one(desks: tuple[Approvals, Approvals], turned: bool) -> None:
    """In both directions, whole; a second one is late wherever it comes in."""
    here, there = desks[::-1] if turned else desks
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(here.decide(ask(here)))
        waiting = await until_waiting(here)
        assert await there.submit(waiting.id, ALLOW) == Outcome(state="taken", decision=ALLOW)
    assert decided.result() == ALLOW
    deny = Decision(allowed=False, by="operator:bob")
    assert await there.submit(waiting.id, deny) == await here.submit(waiting.id, deny) == Outcome(state="late", decision=ALLOW)
    assert not await there.answer(waiting.id, False, "operator:bob")


async def test_answers_at_both_workers_are_one(desks: tuple[Approvals, Approvals]) -> None:
    """However many come at once, and wherever."""
    here, there = desks
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(here.decide(ask(here)))
        waiting = await until_waiting(here)
        answers = [Decision(allowed=bool(n % 2), by=f"operator:{n}") for n in range(30)]
        outcomes = [tasks.create_task((here, there)[n % 3 > 0].submit(waiting.id, said)) for n, said in enumerate(answers)]
    states = [outcome.result().state for outcome in outcomes]
    assert (states.count("taken"), states.count("late")) == (1, 29)
    assert {outcome.result().decision for outcome in outcomes} == {decided.result()}


async def test_the_list_is_of_all_workers_oldest_first(desks: tuple[Approvals, Approvals]) -> None:
    """At either of them the same."""
    one, other = desks
    asked = [ask((one, other)[n % 2]) for n in range(6)]
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task((one, other)[n % 2].decide(approval)) for n, approval in enumerate(asked)]
        await until_waiting(one)
        await until_waiting(other)
        assert await one.waiting_everywhere() == await other.waiting_everywhere() == (asked, 0)
        for task in waits:
            task.cancel()
    assert await one.waiting_everywhere() == ([], 0)


async def test_the_longest_list_arrives(desks: tuple[Approvals, Approvals]) -> None:
    """A hundred blocks of the most that is shown, each character six bytes."""
    one, other = desks
    block = Block(kind=BlockKind.TEXT, text="\x01" * 20_000)
    async with asyncio.TaskGroup() as tasks:
        drafts = [one.draft(transaction_id="t", policy="P", question="\x02" * 9_000, block=block) for _ in range(100)]
        waits = [tasks.create_task(one.decide(draft)) for draft in drafts]
        await until_waiting(one)
        found, silent = await other.waiting_everywhere()
        assert (found, silent) == (drafts, 0)
        for task in waits:
            task.cancel()


async def test_an_answer_to_what_left_is_to_nothing(desks: tuple[Approvals, Approvals]) -> None:
    """The client's leaving is seen at the other worker at once."""
    here, there = desks
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(here.decide(ask(here)))
        waiting = await until_waiting(here)
        decided.cancel()
    assert await there.waiting_everywhere() == ([], 0)
    assert await there.submit(waiting.id, ALLOW) == Outcome(state="unknown")


async def test_nothing_is_made_before_the_start_and_nothing_is_left(folder: Path) -> None:
    """A server may fork in between; the folder stays, for the others."""
    desk = Approvals(directory=folder)
    assert not folder.exists()
    await desk.start()
    await desk.start()
    (found,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(found.stat().st_mode)
    await desk.aclose()
    await desk.aclose()
    assert list(folder.iterdir()) == []


async def test_closing_ends_what_is_being_said(folder: Path) -> None:
    """Somebody who connected and says nothing does not hold a worker up."""
    desk = Approvals(directory=folder)
    await desk.start()
    (path,) = folder.iterdir()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'{"id":')
    await writer.drain()
    async with asyncio.timeout(approval_relay.PEER_TIMEOUT / 2):  # before the silence ends by itself
        await soon(lambda: desk._relay is not None and desk._relay._talks)
        await desk.aclose()
        assert await reader.read() == b""
    writer.close()


# --- workers that died, hang, or are no workers


async def test_the_socket_of_a_dead_worker_is_removed(folder: Path) -> None:
    """A killed worker leaves it; an answer to one of its approvals is to nothing."""
    desk = Approvals(directory=folder)
    await desk.start()
    path = folder / f"{GHOST}.sock"
    with subprocess.Popen([sys.executable, "-c", DYING, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert path.exists()
    assert await desk.waiting_everywhere() == ([], 0)
    assert not path.exists()
    assert await desk.submit(f"{GHOST}-{'0' * 32}", ALLOW) == Outcome(state="unknown")
    await desk.aclose()


async def test_a_worker_that_starts_removes_the_sockets_of_dead_ones(desks: tuple[Approvals, Approvals], folder: Path) -> None:
    """Of those that live it removes none, and they have nothing to complain of."""
    dead = folder / f"{GHOST}.sock"
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(dead))
    before = sorted(folder.iterdir())
    third = Approvals(directory=folder)
    await third.start()
    after = sorted(folder.iterdir())
    assert len(before) == len(after) == 3
    assert dead in before
    assert dead not in after
    await third.aclose()
    assert await desks[0].waiting_everywhere() == ([], 0)


async def test_a_worker_that_hangs_is_waited_for_a_while(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The list says that one is missing; an answer to it may or may not have been taken."""
    monkeypatch.setattr(approval_relay, "PEER_TIMEOUT", 0.05)
    desk = Approvals(directory=folder)
    await desk.start()
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(folder / f"{GHOST}.sock"))
        hanging.listen(10)
        async with asyncio.timeout(SECOND):
            assert await desk.waiting_everywhere() == ([], 1)
            assert await desk.submit(f"{GHOST}-{'0' * 32}", ALLOW) == Outcome(state="unreachable")
    assert caplog.messages == [
        "another worker did not answer: TimeoutError",
        "an answer to an approval of another worker may be lost: TimeoutError",
    ]
    await desk.aclose()


@pytest.mark.parametrize("said", [b"", b"[", b"[\n", b"{}\n", b'[{"id": 1}]\n', b"\xff\n", b"null\n"])
async def test_what_is_no_answer_is_none(folder: Path, said: bytes) -> None:
    """Of another version, say: it is counted as silent, and the rest of the list is there."""
    desk = Approvals(directory=folder)
    await desk.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        writer.close()

    server = await asyncio.start_unix_server(answer, folder / f"{GHOST}.sock")
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(ask(desk)))
        waiting = await until_waiting(desk)
        assert await desk.waiting_everywhere() == ([waiting], 1)
        assert (await desk.submit(f"{GHOST}-{'0' * 32}", ALLOW)).state == "unreachable"
        decided.cancel()
    server.close()
    await desk.aclose()


@pytest.mark.parametrize("line", [b"x\n", b"[]\n", b'{"id": 1}\n', b"\xff\n", b"{}", b"\n"])
async def test_a_question_that_is_none_gets_no_answer(folder: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The connection is closed, and the next is served."""
    desk = Approvals(directory=folder)
    await desk.start()
    (path,) = folder.iterdir()
    for said, answer in ((line, b"[]\n" if line == b"{}" else b""), (b"{}\n", b"[]\n")):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(SECOND):
            assert await reader.read() == answer
        writer.close()
    assert all(record.name == "luthien_asgi.approval_relay" for record in caplog.records)
    await desk.aclose()


async def test_other_files_in_the_folder_are_no_workers(folder: Path) -> None:
    """They are not connected to, and stay."""
    make_private(folder)
    names = ["x.sock", "0123.sock", f"{GHOST.upper()}.sock", f"{GHOST}.new", f"{GHOST}.sock.bak", "..sock"]
    for name in names:
        (folder / name).touch()
    desk = Approvals(directory=folder)
    await desk.start()
    assert await desk.waiting_everywhere() == ([], 0)
    await desk.aclose()
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


# --- whose folder it is


def opened_to_others(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o750)


def linked(folder: Path) -> None:
    folder.with_name("real").mkdir(mode=0o700)
    folder.symlink_to(folder.with_name("real"))


def dangling(folder: Path) -> None:
    folder.symlink_to(folder.with_name("nowhere"))


def a_file(folder: Path) -> None:
    folder.touch(mode=0o700)


def beside_others(folder: Path) -> None:
    folder.parent.chmod(0o777)


def without_parent(folder: Path) -> None:
    folder.parent.rmdir()


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (opened_to_others, "is open to others (mode 750): make it 700"),
        (linked, "is a symbolic link"),
        (dangling, "is a symbolic link"),
        (a_file, "is not a folder"),
        (beside_others, "could put another folder in its place"),
        (without_parent, "No such file or directory"),
    ],
)
async def test_a_folder_that_is_not_ones_own_is_refused(tmp_path: Path, prepare: Any, why: str) -> None:
    """The desk does not open; it can be tried again."""
    folder = tmp_path / "p" / "d"
    folder.parent.mkdir()
    prepare(folder)
    desk = Approvals(directory=folder)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            await desk.start()
        assert why in str(caught.value)
    assert (await desk.decide(ask(desk))).by == "shutdown"
    await desk.aclose()


@AS_ROOT
async def test_a_folder_of_another_user_is_refused(folder: Path) -> None:
    """Somebody may have made it first."""
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to another user"):
        await Approvals(directory=folder).start()


def owned_by_another(way: Path) -> str:
    os.chown(way, NOBODY, NOBODY)
    return f"{way} belongs to another user, who could put another folder in its place"


def open_to_others(way: Path) -> str:
    way.chmod(0o777)
    return f"others may write in {way}, and could put another folder in its place"


@AS_ROOT
@pytest.mark.parametrize("spoil", [owned_by_another, open_to_others])
@pytest.mark.parametrize("above", ["top", "top/middle", "top/middle/last", "links"])
def test_a_folder_on_whose_way_others_could_exchange_something_is_refused(tmp_path: Path, above: str, spoil: Any) -> None:
    """However far above, and where a link leads as where it lies. Nothing is made."""
    real, links = tmp_path / "top" / "middle" / "last", tmp_path / "links"
    real.mkdir(parents=True)
    links.mkdir()
    (links / "link").symlink_to(real)
    folder = links / "link" / "d"
    make_private(folder)
    folder.rmdir()
    says = spoil(tmp_path / above)
    with pytest.raises(ConfigError) as caught:
        make_private(folder)
    assert str(caught.value) == says
    assert not folder.exists()
    (tmp_path / above).chmod(0o755)
    os.chown(tmp_path / above, 0, 0)
    make_private(folder)
    assert folder.is_dir()


@AS_ROOT
def test_a_sticky_folder_is_the_way_for_everybody(tmp_path: Path) -> None:
    """As the system's temporary one; it has to be root's or one's own all the same."""
    tmp_path.chmod(0o1777)
    make_private(tmp_path / "d")
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to another user, who could"):
        make_private(tmp_path / "d")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be another user for a moment: the system keeps who one was when one connected, or began to listen."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@AS_ROOT
async def test_another_users_process_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    """Neither as a worker that is asked, nor as one that asks, were the folder open to it."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as asking, socket.socket(socket.AF_UNIX) as asked:
        folder = Path(place) / "d"
        desk = Approvals(directory=folder)
        await desk.start()
        (path,) = folder.iterdir()
        for opened in (Path(place), folder, path):
            opened.chmod(0o777)
        with nobody():
            asking.connect(str(path))
        asking.sendall(b"{}\n")
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(asking.recv, 10) == b""
        asked.bind(str(folder / f"{GHOST}.sock"))
        with nobody():
            asked.listen(10)
        assert await desk.waiting_everywhere() == ([], 1)
        assert (await desk.submit(f"{GHOST}-{'0' * 32}", ALLOW)).state == "unreachable"
        await desk.aclose()
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["PermissionError"] * 3


def test_a_path_that_no_socket_can_have_is_refused_at_once(tmp_path: Path) -> None:
    """When the desk is made, not when it is opened; the message has the numbers, counted in bytes."""
    base = len(os.fsencode(tmp_path)) + 1
    fits = tmp_path / ("x" * (103 - 22 - base))
    Approvals(directory=fits)
    with pytest.raises(ConfigError, match="too long for sockets: theirs would have 104 bytes, of 103 at most"):
        Approvals(directory=fits.with_name(fits.name + "x"))
    with pytest.raises(ConfigError, match="of 103 at most"):
        Approvals(directory=fits.with_name("ü" * len(fits.name)))


async def test_the_longest_path_works(tmp_path: Path) -> None:
    """The limit is not one too many."""
    base = len(os.fsencode(tmp_path)) + 1
    desk = Approvals(directory=tmp_path / ("x" * (103 - 22 - base)))
    await desk.start()
    await desk.aclose()


def test_the_default_folder_is_one_for_a_user_and_a_name() -> None:
    """The same in every worker, and short."""
    assert default_folder("/etc/luthien.yaml") == default_folder("/etc/luthien.yaml")
    assert default_folder("/etc/luthien.yaml") != default_folder("/etc/other.yaml")
    assert default_folder("x").name.startswith(f"luthien-{os.geteuid()}-")
    assert len(default_folder("x" * 1000).name) <= len("luthien-4294967295-") + 12


async def test_a_system_without_unix_sockets_is_one_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said at the start, and the desk works."""
    monkeypatch.delattr(socket, "AF_UNIX")
    desk = Approvals(directory=folder)
    with caplog.at_level(logging.INFO, logger="luthien_asgi.approvals"):
        await desk.start()
    assert caplog.messages == ["approvals are answered in this process only: this system has no Unix sockets"]
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(ask(desk)))
        waiting = await until_waiting(desk)
        assert await desk.answer(waiting.id, True, "operator:a")
    assert decided.result().allowed
    assert not folder.exists()
    await desk.aclose()
