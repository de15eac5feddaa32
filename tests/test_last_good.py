"""The last good configuration: what it keeps whatever happens to its writers, and what starts with it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi import last_good, server
from luthien_asgi.config import load
from luthien_asgi.errors import ConfigError
from luthien_asgi.last_good import Kept, LastGood
from luthien_asgi.reloading import Reloader
from luthien_asgi.testing import ASGIDriver

pytestmark = [pytest.mark.litellm, pytest.mark.skipif(sys.platform == "win32", reason="no process is forked there")]

FILE = "luthien.yaml"
SECRET = "a-key-in-a-file-0123"
KILLED = """
import os, signal
from luthien_asgi.last_good import Kept, LastGood

kept = LastGood()
for round in range(40):
    heard, said = os.pipe()
    writer = os.fork()
    if writer == 0:
        number = round * 1_000_000
        while True:
            number += 1
            kept.keep(Kept("f", {"f": str(number) * 20_000}, number))
            os.write(said, b".")
    for _ in range(1 + round % 3):
        os.read(heard, 1)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(heard)
    os.close(said)
    found = kept.read("f")
    assert found.texts == {"f": str(found.read_at) * 20_000} and found.read_at > round * 1_000_000, found
print("whole")
"""
TOGETHER = """
import os
from luthien_asgi.last_good import Kept, LastGood

kept = LastGood()
writers = []
for each in range(4):
    writers.append(os.fork())
    if writers[-1] == 0:
        for number in range(1, 300):
            at = number * 4 + each
            kept.keep(Kept("f", {"f": str(at) * 1000}, at))
            found = kept.read("f")
            assert found.read_at >= at and found.texts == {"f": str(found.read_at) * 1000}
        os._exit(0)
assert [os.waitpid(writer, 0)[1] for writer in writers] == [0] * 4
print(kept.read("f").read_at)
"""

RECORDER = """
from luthien_asgi.recorder import NullRecorder

class Unlucky(NullRecorder):
    async def start(self):
        raise RuntimeError("no place left")
"""


@pytest.fixture
def shared() -> Iterator[LastGood]:
    place = LastGood()
    yield place
    place.close()


def texts(place: LastGood) -> Any:
    found = place.read(FILE)
    return None if found is None else found.texts


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- the place


def test_what_was_read_last_is_kept(shared: LastGood) -> None:
    """Whatever the order in which it is written."""
    assert shared.read(FILE) is None
    for read_at, said in ((5, "first"), (7, "third"), (6, "second"), (7, "third, again")):
        shared.keep(Kept(FILE, {FILE: said}, read_at))
    assert shared.read(FILE) == Kept(FILE, {FILE: "third, again"}, 7)
    assert shared.read("other.yaml") is None


def test_texts_and_names_come_back_as_they_were(shared: LastGood) -> None:
    """Also a name that is no UTF-8."""
    name = os.fsdecode(b"/etc/\xff.yaml")
    shared.keep(Kept(name, {name: "naïve: \U0001f600\n", "key": "\0"}, 1))
    assert shared.read(name) == Kept(name, {name: "naïve: \U0001f600\n", "key": "\0"}, 1)
    assert "naïve" not in repr(shared.read(name))


@pytest.mark.parametrize("damaged", [0, 8, 30, 60])
def test_a_slot_that_is_not_whole_leaves_the_other_one(shared: LastGood, damaged: int) -> None:
    """Wherever the damage is; the next one is written over it."""
    shared.keep(Kept(FILE, {FILE: "first"}, 1))
    shared.keep(Kept(FILE, {FILE: "second"}, 2))
    os.pwrite(shared._descriptor, b"\xff\xff", last_good.SLOT + damaged)
    assert texts(shared) == {FILE: "first"}
    shared.keep(Kept(FILE, {FILE: "third"}, 3))
    assert texts(shared) == {FILE: "third"}


def test_a_writer_that_is_killed_leaves_something_whole() -> None:
    """Nor does it leave the lock locked."""
    assert run(KILLED) == "whole"


def test_writers_do_not_disturb_each_other() -> None:
    """What one has kept is there at once, or something that was read later."""
    assert run(TOGETHER) == str(299 * 4 + 3)


def test_what_has_no_room_is_said_and_the_rest_goes_on(shared: LastGood, caplog: pytest.LogCaptureFixture) -> None:
    """A reload does not fail for it."""
    shared.keep(Kept(FILE, {FILE: "good"}, 1))
    shared.keep(Kept(FILE, {FILE: "x" * last_good.SLOT}, 2))
    assert "will not find this configuration: it is longer than" in caplog.text
    assert texts(shared) == {FILE: "good"}


def test_a_descriptor_that_became_another_file_is_not_written_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As where something closes all descriptors that it does not know."""
    place = LastGood()
    with (tmp_path / "other").open("w+b") as other:
        os.dup2(other.fileno(), place._descriptor)
        place.keep(Kept(FILE, {FILE: SECRET}, 1))
        assert place.read(FILE) is None
    assert (tmp_path / "other").read_bytes() == b""
    assert caplog.text.count("something has closed it") == 2
    place.close()


def test_no_name_leads_to_it_and_no_other_program_gets_it(shared: LastGood) -> None:
    """Keys may be in it."""
    found = os.fstat(shared._descriptor)
    assert (found.st_nlink, found.st_mode & 0o777) == (0, 0o600)
    assert not os.get_inheritable(shared._descriptor)


# --- what starts with it


class Home:
    """A configuration file with a key file beside it, in the folder where the test works."""

    def __init__(self, folder: Path) -> None:
        self.path, self.key, self.records = folder / FILE, folder / "key", folder / "records"
        self.content: dict[str, Any] = {
            "model_list": [{"model_name": "fast", "litellm_params": {"model": "openai/x", "api_key": "k"}}],
            "auth": {"keys": {"alice": {"key_file": "key"}}},
            "record": {"config": {"path": "records/all.jsonl"}},
        }
        self.records.mkdir()
        self.write_key(SECRET)
        self.write()

    def write(self, **sections: Any) -> None:
        self.path.write_text(json.dumps(self.content | sections))

    def write_key(self, key: str) -> None:
        self.key.write_text(key)
        self.key.chmod(0o600)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LUTHIEN_CONFIG", FILE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Home(tmp_path)


class Worker:
    """One worker's gateway."""

    def __init__(self, gateway: server.Gateway) -> None:
        self._gateway, self._driver = gateway, ASGIDriver(gateway, within=60)

    @property
    def reloader(self) -> Reloader:
        assert self._gateway._follower is not None
        return self._gateway._follower.reloader

    async def state(self, key: str = SECRET) -> tuple[str, bool, int]:
        """Return its version, whether the file is refused, and what a client with a key gets."""
        said = (await self._driver.fetch("GET", "/luthien/health")).json()["config"]
        models = await self._driver.fetch("GET", "/v1/models", headers={"authorization": f"Bearer {key}"})
        return said["version"], said["refused_at"] is not None, models.status


@asynccontextmanager
async def worker(shared: LastGood) -> AsyncIterator[Worker]:
    """Start what a worker starts."""
    app = server._ConfiguredApp()
    app._last_good = shared
    gateway = await app._built()
    try:
        await gateway.start()
        yield Worker(gateway)
    finally:
        await gateway.aclose()


def no_file(home: Home) -> str:
    home.path.unlink()
    return "No such file"


def no_yaml(home: Home) -> str:
    home.path.write_text("model_list: [")
    return "is not YAML"


def two_problems(home: Home) -> str:
    home.write(limits={"streams": -1}, server={"port": 99999})
    return "server.port: must be a port"


def no_key(home: Home) -> str:
    home.key.unlink()
    return "the key file key cannot be read"


def no_start(home: Home) -> str:
    home.path.with_name("records_of_mine.py").write_text(RECORDER)
    home.write(record={"sink": "records_of_mine.Unlucky"})
    return "luthien.yaml: RuntimeError; the reason is in the server's log"


@pytest.mark.parametrize("spoil", [no_file, no_yaml, two_problems, no_key, no_start])
async def test_a_worker_starts_with_it_where_the_file_is_bad(
    spoil: Any, home: Home, shared: LastGood, caplog: pytest.LogCaptureFixture
) -> None:
    """The keys of that time among it, and all that is wrong in the log."""
    async with worker(shared) as first:
        good = await first.state()
        assert good == (load(FILE).version, False, 200)
    says = spoil(home)
    with caplog.at_level(logging.ERROR):
        async with worker(shared) as second:
            assert await second.state() == (good[0], True, 200)
    assert says in caplog.text
    assert caplog.messages[-1] == f"this process starts with {good[0]}, the last good configuration"
    assert SECRET not in caplog.text


async def test_all_problems_are_in_the_log(home: Home, shared: LastGood, caplog: pytest.LogCaptureFixture) -> None:
    """As where nothing starts."""
    async with worker(shared):
        two_problems(home)
    async with worker(shared):
        assert caplog.text.count("not taken: luthien.yaml:1: ") == 2


async def test_a_file_that_cannot_be_opened_is_a_bad_one(home: Home, shared: LastGood) -> None:
    """What a reload refuses because its record cannot be written does not start either."""
    async with worker(shared) as first:
        version, _, _ = await first.state()
    (home.path.parent / "blocked").write_text("a file where a folder is wanted")
    home.write(record={"config": {"path": "records/all.jsonl"}}, approvals={"keys": ["an-operators-key"], "directory": "blocked"})
    async with worker(shared) as second:
        assert await second.state() == (version, True, 200)


async def test_a_key_that_changed_counts_with_the_file_that_names_it(home: Home, shared: LastGood) -> None:
    """A worker that starts knows the keys that the others know: a configuration is taken as a whole."""
    async with worker(shared):
        home.write_key("another-key-0123")
        no_yaml(home)
    async with worker(shared) as second:
        assert (await second.state())[2] == 200
        assert (await second.state("another-key-0123"))[2] == 401


async def test_a_file_without_keys_is_a_bad_one_where_there_were_some(home: Home, shared: LastGood) -> None:
    """As for a reload: who has no key is refused by a worker that starts, too."""
    async with worker(shared) as first:
        version = (await first.state())[0]
        home.content.pop("auth")
        home.write()
    async with worker(shared) as second:
        assert await second.state() == (version, True, 200)
        assert (await second.state("another-key-0123"))[2] == 401


async def test_what_was_taken_later_is_started_with(home: Home, shared: LastGood) -> None:
    """By a reload, and by another process."""
    async with worker(shared) as first:
        before, _, _ = await first.state()
        home.write(limits={"streams": 7})
        assert (await first.reloader.reload()).problems == ""
        taken, _, _ = await first.state()
        two_problems(home)
        assert (await first.reloader.reload()).problems != ""
    async with worker(shared) as second:
        assert await second.state() == (taken, True, 200)
    assert taken != before


async def test_the_file_is_taken_when_it_is_good_again(home: Home, shared: LastGood) -> None:
    """Also where it says what it said: it is refused no more."""
    async with worker(shared) as first:
        good, _, _ = await first.state()
    no_yaml(home)
    async with worker(shared) as second:
        await second.state()
        assert second.reloader.last.problems.startswith("luthien.yaml:1: is not YAML")
        home.write()
        await second.reloader._reload(1, changed_only=True)
        assert await second.state() == (good, False, 200)
        assert second.reloader.last.problems == ""


async def test_nothing_starts_where_nothing_was_good(home: Home, shared: LastGood) -> None:
    """The problems are the answer; nothing is kept of a file that was never taken."""
    two_problems(home)
    with pytest.raises(ConfigError, match=r"limits\.streams"):
        async with worker(shared):
            pass
    assert shared.read(FILE) is None


async def test_nothing_starts_where_the_last_good_one_is_bad_by_now(home: Home, shared: LastGood) -> None:
    """What is said is what is wrong with the file."""
    async with worker(shared):
        pass
    home.records.rename(home.records.with_name("moved"))
    home.records.write_text("a file where the folder was")
    no_yaml(home)
    with pytest.raises(ConfigError, match="is not YAML"):
        async with worker(shared):
            pass
