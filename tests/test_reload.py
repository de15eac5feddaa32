"""A configuration is taken anew while answers run: as a whole or not at all, and what runs keeps the old one."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi import cli, reloading
from luthien_asgi.config import load
from luthien_asgi.control import ask_all, folder_of
from luthien_asgi.generations import Generation
from luthien_asgi.jsonl import read_transactions
from luthien_asgi.server import Gateway, create_app
from luthien_asgi.testing import Answer, ASGIDriver, ScriptedProvider, Stall, Text, ToolCall, accumulate_openai

pytestmark = pytest.mark.litellm

OPENAI, HEALTH = "/v1/chat/completions", "/luthien/health"
LOCAL = {"host": "localhost"}
SCRIPT = {
    "fast": Answer(Text("Hello")),
    "stuck": Answer(Text("Hello ", "you"), faults=(Stall(after=2),)),
    "calls": Answer(ToolCall("c1", "bash", '{"command": "ls"}')),
}
POLICY = """
from luthien_asgi import Escalate, BlockKind, Hold, Policy

class Asks(Policy):
    handles = {BlockKind.TOOL_CALL: Hold()}
    verdicts = frozenset({Escalate})

    def on_block_complete(self, block, ctx):
        return Escalate("May it?")
"""


class File:
    """A configuration file, and what is in it."""

    def __init__(self, folder: Path, provider: ScriptedProvider) -> None:
        self.provider = provider
        self.folder, self.path = folder, folder / "luthien.yaml"
        self.records = folder / "transactions.jsonl"
        params = {"api_base": f"{provider.url}/v1", "api_key": "sk-server"}
        self.content: dict[str, Any] = {
            "model_list": [{"model_name": name, "litellm_params": {"model": f"openai/{name}"} | params} for name in SCRIPT],
            "record": {"sink": "luthien_asgi.jsonl.JsonlRecorder", "config": {"path": str(self.records)}},
        }
        self.write()

    def write(self, **sections: Any) -> None:
        """Write the file anew, with these sections; None takes one away."""
        self.content = {key: value for key, value in {**self.content, **sections}.items() if value is not None}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.content))  # JSON is YAML
        new.rename(self.path)

    def provider_goes_on(self) -> None:
        """End the silence of all that are stuck."""
        for request in self.provider.requests:
            request.release()

    def replaces(self, old: str, new: str) -> None:
        self.write(policy={"class": "ReplaceText", "config": {"replacements": [[old, new]]}})


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets that no other test looks into; its path is short, as theirs have to be."""
    with tempfile.TemporaryDirectory(prefix="l") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


@pytest.fixture
async def file(tmp_path: Path, home: Path) -> AsyncIterator[File]:
    async with ScriptedProvider(SCRIPT) as provider:
        yield File(tmp_path, provider)


class Running:
    """A gateway that follows its file."""

    def __init__(self, gateway: Gateway, file: File) -> None:
        self.gateway, self.file = gateway, file
        self.driver = ASGIDriver(gateway, within=60)

    @property
    def reloader(self) -> reloading.Reloader:
        assert self.gateway._follower is not None
        return self.gateway._follower.reloader

    async def reload(self) -> str:
        return (await self.reloader.reload()).problems

    def request(self, model: str, **options: Any) -> Any:
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        return self.driver.request("POST", OPENAI, json=body, headers=options.pop("headers", LOCAL), **options)

    async def text(self, model: str = "fast", **options: Any) -> str:
        async with self.request(model, **options) as response:
            content = await response.read()
            assert response.status == 200, content
        return str(accumulate_openai(content).body["choices"][0]["message"]["content"])

    async def health(self) -> Any:
        return (await self.driver.fetch("GET", HEALTH)).json()


@contextlib.asynccontextmanager
async def running(file: File, *, path: Path | None = None, **options: Any) -> AsyncIterator[Running]:
    gateway = create_app(load(path or file.path), follow=True)
    for name, value in options.items():
        setattr(gateway, name, value)
    found = Running(gateway, file)
    async with found.driver.lifespan():
        await gateway.start()
        yield found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.to_thread(lambda: None)


# --- what changes, and what does not -------------------------------------------------------------------------------------------


async def test_new_requests_take_the_new_one_and_streams_keep_the_old(file: File) -> None:
    """The policy of a stream is the one that it began under; the record is one file, and stays open."""
    file.replaces("you", "old")
    async with running(file) as server:
        version = (await server.health())["config"]["version"]
        recorder = server.gateway._generations.current.recorder
        async with server.request("stuck") as response:
            seen = await response.part()
            file.replaces("Hello", "New")
            assert await server.reload() == ""
            assert await server.text() == "New"
            assert server.gateway._generations.ending == 1
            file.provider_goes_on()
            seen += await response.read()
        assert accumulate_openai(seen).body["choices"][0]["message"]["content"] == "Hello old"
        await until(lambda: server.gateway._generations.ending == 0)
        assert server.gateway._generations.current.recorder is recorder
        told = (await server.health())["config"]
        assert told["version"] != version
        assert (told["refused_at"], told["restart_needed"]) == (None, False)
    assert [end["end"]["ending"] for end in read_transactions(file.records)] == ["completed", "completed"]
    assert sorted(file.folder.glob("transactions*")) == [file.records]


async def test_a_bad_one_is_refused_as_a_whole(file: File, caplog: pytest.LogCaptureFixture) -> None:
    """Each problem is in the log, nothing of it counts, and a good one later is taken."""
    file.replaces("Hello", "Old")
    async with running(file) as server:
        version = (await server.health())["config"]["version"]
        file.write(policy={"class": "Nonsense"}, limits={"streams": -1, "tools": 5})
        problems = await server.reload()
        assert ["policy" in problems, "limits" in problems] == [True, True]
        assert all(f"not taken: {problem}" in caplog.text for problem in problems.splitlines())
        assert await server.text() == "Old"
        told = (await server.health())["config"]
        assert told["version"] == version
        assert told["refused_at"] >= told["loaded_at"]
        assert "Nonsense" not in json.dumps(await server.health())
        file.write(limits=None)
        file.replaces("Hello", "New")
        assert await server.reload() == ""
        assert await server.text() == "New"
        assert (await server.health())["config"]["refused_at"] is None


async def test_a_record_that_changes_is_opened_before_and_closed_after(file: File) -> None:
    """What runs is recorded where it began."""
    other = file.folder / "other.jsonl"
    async with running(file) as server:
        async with server.request("stuck") as response:
            await response.part()
            file.write(record={"sink": "luthien_asgi.jsonl.JsonlRecorder", "config": {"path": str(other)}})
            assert await server.reload() == ""
            await server.text()
            file.provider_goes_on()
            await response.read()
        await until(lambda: server.gateway._generations.ending == 0)
        assert str(file.records) not in opened()
    assert len(list(read_transactions(file.records))) == len(list(read_transactions(other))) == 1


async def test_a_record_that_cannot_be_opened_refuses_the_reload(file: File) -> None:
    """A record in a folder that is no folder is found out before anything is taken."""
    async with running(file) as server:
        locked = file.folder / "locked.jsonl"
        locked.symlink_to(file.records)
        content = {"sink": "luthien_asgi.jsonl.JsonlRecorder", "config": {"path": str(file.folder / "gone.jsonl")}}
        file.write(record=content)
        config = load(file.path)
        (file.folder / "gone.jsonl").symlink_to(file.records)  # after the check, before the opening
        with pytest.raises(ValueError, match="cannot be opened"):
            await server.gateway._generations.take(config)
        assert "is a link" in await server.reload()
        assert await server.text() == "Hello"


async def test_the_limit_of_streams_holds_for_both_together(file: File) -> None:
    """What runs under the old one counts."""
    file.write(limits={"streams": 1})
    async with running(file) as server:
        async with server.request("stuck") as response:
            await response.part()
            file.replaces("Hello", "New")
            assert await server.reload() == ""
            async with server.request("fast") as refused:
                assert refused.status == 429
            file.provider_goes_on()
            await response.read()
        assert await server.text() == "New"


async def test_what_waits_for_a_person_can_be_answered_at_the_new_one(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operators' keys of the new one, and not with those of the old."""
    (file.folder / "asks_here.py").write_text(POLICY)
    monkeypatch.syspath_prepend(file.folder)
    file.write(policy={"class": "asks_here.Asks"}, approvals={"keys": ["operator-key-1"], "timeout": 60})
    async with running(file) as server:
        desk = server.gateway._generations.current.config.approvals
        assert desk is not None
        async with server.request("calls", wait=False) as response:
            await until(lambda: bool(desk.waiting()))
            file.write(approvals={"keys": ["operator-key-2"], "timeout": 60, "directory": "/tmp/elsewhere"})
            assert await server.reload() == ""
            path, keys = "/luthien/approvals", [{"authorization": f"Bearer operator-key-{n}"} | LOCAL for n in (1, 2)]
            assert (await server.driver.fetch("GET", path, headers=keys[0])).status == 401
            (waiting,) = (await server.driver.fetch("GET", path, headers=keys[1])).json()
            body = {"decision": "allow"}
            got = await server.driver.fetch("POST", f"{path}/{waiting['id']}", json=body, headers=keys[1])
            assert got.status == 200
            content = await response.read()
        assert b"bash" in content
        await until(lambda: server.gateway._generations.ending == 0)


async def test_keys_are_revoked_by_a_reload(file: File) -> None:
    """And a configuration that would let strangers in is refused where the server says so."""
    file.write(auth={"keys": ["client-key-number-1"]})
    async with running(file, refuses=lambda config: "no keys" if config.auth is None else "") as server:
        first, second = ({"authorization": f"Bearer client-key-number-{n}"} for n in (1, 2))
        assert await server.text(headers=first) == "Hello"
        file.write(auth={"keys": ["client-key-number-2"]})
        assert await server.reload() == ""
        async with server.request("fast", headers=first) as response:
            assert response.status == 401
        assert await server.text(headers=second) == "Hello"
        file.write(auth=None)
        assert "no keys" in await server.reload()
        assert await server.text(headers=second) == "Hello"


async def test_no_reload_takes_the_need_of_a_key_away(file: File) -> None:
    """Who has none is refused as before; a start of the server takes such a file."""
    file.write(auth={"keys": ["client-key-number-1"]})
    async with running(file) as server:
        file.write(auth=None)
        assert "auth: clients need a key until now and would need none" in await server.reload()
        async with server.request("fast") as response:
            assert response.status == 401
    async with running(file) as server:
        assert await server.text() == "Hello"


async def test_what_cannot_change_while_it_runs_is_named(file: File, caplog: pytest.LogCaptureFixture) -> None:
    """The rest is taken."""
    file.write(server={"port": 4000})
    taken = []
    async with running(file, took=lambda config: taken.append(config.settings.drain_timeout)) as server:
        file.write(server={"port": 4001}, settings={"drain_timeout": 7})
        assert await server.reload() == ""
    assert "server: host and port: counts from the next start only" in caplog.text
    assert taken == [7]


async def test_a_stop_ends_what_runs_under_all_of_them(file: File) -> None:
    """Old streams are no exception."""
    file.write(settings={"drain_timeout": 0})
    async with running(file) as server, server.request("stuck") as old:
        await old.part()
        file.replaces("Hello", "New")
        assert await server.reload() == ""
        async with server.request("stuck") as new:
            await new.part()
            server.gateway.drain()
            assert b"The server was stopped" in await old.read()
            assert b"The server was stopped" in await new.read()
    assert [end["end"]["ending"] for end in read_transactions(file.records)] == ["shutdown", "shutdown"]


# --- how it is noticed ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "INTERVAL", 0.02)


@pytest.mark.usefixtures("quick")
async def test_a_file_that_changes_is_taken(file: File) -> None:
    """Replaced by renaming, written in place, and gone for a while."""
    async with running(file) as server:

        def is_taken() -> bool:
            return server.gateway._generations.current.config.version == load(file.path).version

        file.replaces("Hello", "Renamed")
        await until(is_taken)
        assert await server.text() == "Renamed"
        content = file.path.read_text().replace("Renamed", "In place")
        file.path.write_text(content)
        await until(is_taken)
        assert await server.text() == "In place"
        file.path.unlink()
        await until(lambda: server.reloader.refused_at is not None)
        assert await server.text() == "In place"
        file.replaces("Hello", "Back")
        await until(is_taken)
        assert await server.text() == "Back"


@pytest.mark.usefixtures("quick")
async def test_a_pipe_in_its_place_is_refused_and_not_waited_for(file: File) -> None:
    """Nobody writes to it. What follows the file goes on, and takes the next one."""
    async with running(file) as server:
        os.mkfifo(file.folder / "pipe")
        (file.folder / "pipe").rename(file.path)
        await until(lambda: server.reloader.refused_at is not None)
        assert server.reloader.last.problems == f"{file.path}: is not a regular file, but a pipe"
        assert await server.reload() == f"{file.path}: is not a regular file, but a pipe"
        assert await server.text() == "Hello"
        file.replaces("Hello", "New")
        await until(lambda: server.reloader.refused_at is None)
        assert await server.text() == "New"


@pytest.mark.usefixtures("quick")
async def test_a_pipe_that_was_there_before_it_was_followed_is_refused(file: File) -> None:
    """The files are read again when they begin to be followed."""
    gateway = create_app(load(file.path), follow=True)
    file.path.unlink()
    os.mkfifo(file.path)
    async with Running(gateway, file).driver.lifespan():
        await gateway.start()
        await until(lambda: Running(gateway, file).reloader.refused_at is not None)


@pytest.mark.usefixtures("quick")
async def test_a_file_behind_a_link_that_is_swapped_is_taken(file: File, home: Path) -> None:
    """As a cluster mounts one: the command still reaches the server, which was started by the same name."""
    link, mounted = file.folder / "..data", file.folder / "mounted.yaml"

    def mount(version: str) -> None:
        folder = file.folder / version
        folder.mkdir()
        (folder / "luthien.yaml").write_bytes(file.path.read_bytes())
        new = file.folder / "..new"
        new.symlink_to(version)
        new.rename(link)

    mount("1")
    mounted.symlink_to("..data/luthien.yaml")
    async with running(file, path=mounted) as server:
        await until(lambda: bool(list(home.glob("*/*.sock"))))
        file.replaces("Hello", "Watched")
        mount("2")
        await until(lambda: server.gateway._generations.current.config.version == load(mounted).version)
        assert await server.text() == "Watched"
        file.replaces("Hello", "Asked")
        mount("3")
        (answer,) = await ask_all(str(mounted))
        assert (answer.problems, answer.pid) == ("", os.getpid())
        assert await server.text() == "Asked"


@pytest.mark.usefixtures("quick")
async def test_what_somebody_had_taken_is_not_taken_again(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor read again, and what was refused is not refused twice: the watch looks for what has changed since."""
    read: list[str] = []

    def counted(path: str) -> Any:
        read.append(path)
        return load(path)

    monkeypatch.setattr(reloading, "load", counted)
    looks: list[None] = []
    async with running(file) as server:
        look = server.reloader._look_at_code
        monkeypatch.setattr(server.reloader, "_look_at_code", lambda: (looks.append(None), look()))
        for number, section in enumerate(({"class": "UpperCase"}, {"class": "Nonsense"}), start=1):
            file.write(policy=section)
            problems = await server.reload()
            assert ("Nonsense" in problems) == (number == 2)
            at = len(looks)
            await until(lambda at=at: len(looks) >= at + 6)  # type: ignore[misc]  # a look, and what would settle, are over
            assert len(read) == number
            assert server.reloader.last.problems == problems
        file.write(policy=None)
        await until(lambda: len(read) == 3)
        await until(lambda: server.reloader.refused_at is None)


@pytest.mark.usefixtures("quick")
async def test_a_half_written_file_is_waited_for(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it grows nothing is read."""
    reads = []
    real = reloading.load
    monkeypatch.setattr(reloading, "load", lambda path: reads.append(1) or real(path))
    async with running(file) as server:
        monkeypatch.setattr(reloading, "INTERVAL", 0.3)
        file.replaces("Hello", "Whole")
        whole = file.path.read_text()
        with file.path.open("w") as writing:
            for place in range(0, len(whole), len(whole) // 40):
                writing.write(whole[place : place + len(whole) // 40])
                writing.flush()
                await asyncio.to_thread(lambda: None)
        await until(lambda: bool(reads))
        await until(lambda: server.reloader._lock.locked() is False)
        assert server.reloader.refused_at is None
        assert await server.text() == "Whole"


@pytest.mark.usefixtures("quick")
async def test_a_key_file_is_watched_too(file: File) -> None:
    """A secret store that rotates a key touches that file only."""
    key = file.folder / "key"
    key.write_text("client-key-number-1\n")
    key.chmod(0o600)
    file.write(auth={"keys": {"me": {"key_file": str(key)}}})
    async with running(file) as server:
        before = server.gateway._generations.current.config.version
        assert await server.text(headers={"authorization": "Bearer client-key-number-1"}) == "Hello"
        key.write_text("client-key-number-2\n")
        await until(lambda: server.gateway._generations.current.config.version != before)
        assert await server.text(headers={"authorization": "Bearer client-key-number-2"}) == "Hello"


@pytest.mark.usefixtures("quick")
async def test_a_key_file_that_changes_before_it_is_watched_is_noticed(file: File) -> None:
    """A key that is taken away while the server starts opens nothing for long."""
    key = file.folder / "key"
    key.write_text("client-key-number-1\n")
    key.chmod(0o600)
    file.write(auth={"keys": {"me": {"key_file": str(key)}}})
    gateway = create_app(load(file.path), follow=True)
    key.write_text("client-key-number-2\n")
    server = Running(gateway, file)
    async with server.driver.lifespan():
        before = gateway._generations.current.config.version
        await until(lambda: gateway._generations.current.config.version != before)
        assert await server.text(headers={"authorization": "Bearer client-key-number-2"}) == "Hello"


@pytest.mark.usefixtures("quick")
async def test_code_that_changes_needs_a_restart_and_says_so(
    file: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not imported again; the policy goes on as it is."""
    module = file.folder / "asks_again.py"
    module.write_text(POLICY)
    monkeypatch.syspath_prepend(file.folder)
    file.write(policy={"class": "asks_again.Asks"}, approvals={"keys": ["operator-key-1"]})
    async with running(file) as server:
        imported = sys.modules["asks_again"]
        module.write_text(POLICY + "\nCHANGED = True\n")
        await until(lambda: server.reloader._code_changed)
        assert (await server.health())["config"]["restart_needed"] is True
        assert await server.reload() == ""
        assert sys.modules["asks_again"] is imported
    assert f"{module} changed: code is not imported again" in caplog.text


async def test_the_command_reaches_the_process(file: File, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its exit status says whether the new one was taken, refused, or nobody was there."""

    async def command() -> int:
        return await asyncio.to_thread(cli.main, ["reload", "--config", str(file.path)])

    assert await command() == 1
    assert "no server of yours runs" in capsys.readouterr().err
    async with running(file) as server:
        await until(lambda: bool(list(home.glob("*/*.sock"))))
        file.replaces("Hello", "New")
        assert await command() == 0
        version = server.gateway._generations.current.config.version
        assert capsys.readouterr().out == f"process {os.getpid()}: {version}\n"
        assert await server.text() == "New"
        file.write(policy={"class": "Nonsense"})
        assert await command() == 2
        err = capsys.readouterr().err
        assert f"refused, {version} stays:" in err
        assert "Nonsense" in err
        file.replaces("Hello", "Newer")
        (answer,) = await ask_all(str(file.path))
        assert (answer.problems, answer.pid) == ("", os.getpid())
        assert await server.text() == "Newer"
    assert await command() == 1


# --- what is left ---------------------------------------------------------------------------------------------------------------


def opened() -> list[str]:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    found: list[str] = []
    for link in links:
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return sorted(name for name in found if not name.startswith("socket:"))


def at_work() -> int:
    """Return how many tasks there are, but for the provider's: it has one a connection."""
    return sum("_serve" not in repr(task.get_coro()) for task in asyncio.all_tasks())


def threads() -> int:
    """Return how many there are, but for the event loop's pool, which has up to its bound."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def generations(file: File) -> list[Generation]:
    """Return those of this file that anything still refers to."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Generation) and each.config.file == str(file.path)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_hundred_reloads_under_load_leave_nothing(file: File) -> None:
    """No object, file, thread, task; and no answer is lost or mixed."""
    file.replaces("Hello", "word-0")
    async with running(file) as server:
        await server.text()
        assert await server.reload() == ""
        await until(lambda: server.gateway._generations.ending == 0)
        await server.text()  # what is begun with the first request is there
        tasks, files, before = at_work(), opened(), threads()
        stop = asyncio.Event()

        async def load() -> int:
            number = 0
            while not stop.is_set():
                assert (await server.text()).startswith("word-")
                number += 1
            return number

        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(load()) for _ in range(4)]
            for number in range(1, 101):
                file.replaces("Hello", f"word-{number}")
                assert await server.reload() == ""
            stop.set()
        assert await server.text() == "word-100"
        await until(lambda: server.gateway._generations.ending == 0)
        assert len(generations(file)) == 1
        assert server.gateway._generations.current.middleware.slots.taken == 0
        assert (at_work(), opened()) == (tasks, files)
        assert threads() <= before  # those of earlier tests may end meanwhile
        asked = sum(client.result() for client in clients) + 3
    ends = [line["end"]["ending"] for line in read_transactions(file.records)]
    assert ends == ["completed"] * asked


def linked(folder: Path) -> str:
    folder.with_name("real").mkdir(mode=0o700)
    folder.symlink_to(folder.with_name("real"))
    return f"{folder} cannot be used: it is a symbolic link"


def open_to_others(folder: Path) -> str:
    folder.mkdir()
    folder.chmod(0o755)
    return f"{folder} cannot be used: it is open to others (mode 755): make it 700"


def of_another_user(folder: Path) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    return f"{folder} cannot be used: it belongs to another user"


@pytest.mark.parametrize("prepare", [linked, open_to_others, of_another_user])
async def test_a_folder_that_somebody_else_made_is_not_used(
    file: File, prepare: Callable[[Path], str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by the server, which goes on and follows the file, nor by the command."""
    says = prepare(folder_of(str(file.path)))
    async with running(file) as server:
        await until(lambda: says in caplog.text)
        assert f"`luthien-asgi reload` cannot reach this process: {says}" in caplog.text
        assert await asyncio.to_thread(cli.main, ["reload", "--config", str(file.path)]) == 2
        assert capsys.readouterr().err == f"{says}\n"
        file.replaces("Hello", "New")
        await until(lambda: server.gateway._generations.current.config.version == load(file.path).version)
    assert list(folder_of(str(file.path)).iterdir()) == []
