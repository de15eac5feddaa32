"""Operators look at the record of one transaction, over the middleware and a real file; nobody else may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonl_processes import recording

from luthien_asgi import (
    ApiError,
    Approvals,
    Begin,
    ConfigError,
    JsonlRecorder,
    KeyAuth,
    LuthienMiddleware,
    MemoryRecorder,
    Paths,
    StreamSettings,
)
from luthien_asgi.config import load
from luthien_asgi.jsonl_search import SearchError, search
from luthien_asgi.recorder import NullRecorder, Transaction
from luthien_asgi.server import create_app
from luthien_asgi.shared_recorder import SharedRecorder
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, chunks

CHAT, AT = "/v1/chat/completions", "/luthien/records"
OPERATOR = {"authorization": "Bearer operator-key-1"}
CLIENT = {"authorization": "Bearer client-key-22"}
ASKED = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
EVIL = "a\u202eb\x9b31mc\x1b[2J\U000e0041\x7f"
MODELS = "model_list: [{model_name: m, litellm_params: {model: openai/x, api_key: k}}]\n"


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def make(recorder: Any, *words: str, **options: Any) -> ASGIDriver:
    app = LuthienMiddleware(
        behind,
        backend=ScriptedBackend(chunks(*(words or ("Hel", "lo")))),
        recorder=recorder,
        auth=KeyAuth({"carol": "client-key-22"}),
        operators=KeyAuth({"alice": "operator-key-1"}),
        paths=Paths(records=AT),
        **options,
    )
    return ASGIDriver(app)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.jsonl"


async def answered(driver: ASGIDriver) -> str:
    """Have an answer given, and return its transaction."""
    got = await driver.fetch("POST", CHAT, json=ASKED, headers=CLIENT)
    assert got.status == 200
    return got.headers["x-luthien-transaction"]


async def look(driver: ASGIDriver, name: str, headers: Mapping[str, str] = OPERATOR) -> tuple[int, Any]:
    got = await driver.fetch("GET", f"{AT}/{name}", headers=headers)
    assert got.headers["cache-control"] == "no-store"
    return got.status, json.loads(got.body)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_an_operator_sees_a_transaction_by_its_id(path: Path) -> None:
    """Both of its lines, as they are in the file."""
    async with recording(path, durability="strict") as recorder:
        driver = make(recorder)
        first, second = await answered(driver), await answered(driver)
        status, found = await look(driver, first)
    assert (status, found["id"]) == (200, first)
    lines = lines_of(path)
    assert [found["begin"], found["end"]] == [line for line in lines if line["id"] == first]
    assert second != first


@pytest.mark.parametrize("headers", [CLIENT, {}, {"authorization": "Bearer operator-key-2"}, {"x-api-key": "client-key-22"}])
async def test_nobody_else_sees_it(path: Path, headers: dict[str, str]) -> None:
    """Not the client whose transaction it was; and whether there is one is not told."""
    async with recording(path, durability="strict") as recorder:
        driver = make(recorder)
        said = [await look(driver, name, headers) for name in (await answered(driver), "nothing")]
    assert [status for status, _ in said] == [401, 401]
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["nothing", "0" * 32, "../t.jsonl", "%00", '"', "x" * 5000, ".*"])
async def test_what_is_not_there_is_a_404(path: Path, name: str) -> None:
    """Whatever the id looks like."""
    async with recording(path, durability="strict") as recorder:
        driver = make(recorder)
        await answered(driver)
        status, said = await look(driver, name)
    assert (status, said["error"]["type"]) == (404, "not_found_error")


async def test_nothing_that_is_not_printable_is_shown(path: Path) -> None:
    """To a program it is the same JSON; half an emoji survives, too."""
    for text in (EVIL, EVIL + "\ud83d"):
        async with recording(path) as recorder:
            driver = make(recorder, text)
            name = await answered(driver)
        async with recording(path) as recorder:
            got = await make(recorder).fetch("GET", f"{AT}/{name}", headers=OPERATOR)
        assert all(character.isprintable() or character == "\n" for character in got.body.decode())
        assert json.loads(got.body)["end"]["final_blocks"][0]["text"] == text


async def test_other_methods_and_places_are_the_wrapped_apps(path: Path) -> None:
    """Nothing is below it but ids, and the list of all is nobody's."""
    async with recording(path) as recorder:
        driver = make(recorder)
        assert (await driver.fetch("POST", AT + "/x", headers=OPERATOR)).status == 418
        assert (await driver.fetch("GET", AT, headers=OPERATOR)).status == 404
        off = LuthienMiddleware(behind, backend=ScriptedBackend(chunks("x")), recorder=recorder)
        assert (await ASGIDriver(off).fetch("GET", AT + "/x", headers=OPERATOR)).status == 418


async def test_it_is_found_wherever_it_is(path: Path) -> None:
    """Begun before a rotation and ended after; or in another worker's file, or still running."""
    async with recording(path, max_bytes=700, durability="strict") as first, recording(path) as second:
        driver = make(first)
        begin = Begin(id="long", at=0, wire="openai", path="/", model="m", stream=True, client="", request={})
        await first.begin(begin)
        await second.begin(Begin(id="other", at=0, wire="openai", path="/", model="m", stream=True, client="", request={}))
        for _ in range(5):
            await answered(driver)
        status, found = await look(driver, "long")
        assert (status, found["begin"]["id"], found["end"]) == (200, "long", None)
        await first.end(Transaction(begin).end("completed"))
        status, found = await look(driver, "long")
        assert (status, found["end"]["ending"]) == (200, "completed")
        assert (await look(driver, "other"))[0] == 200


async def test_an_id_in_somebodys_text_is_not_found(path: Path) -> None:
    """A client cannot forge a record: what it writes stands within a line, and its line breaks are escaped."""
    forged = '\n{"type":"end","id":"forged","ending":"completed"}\n'
    async with recording(path, durability="strict") as recorder:
        driver = make(recorder)
        await driver.fetch(
            "POST", CHAT, json=ASKED | {"messages": [{"role": "user", "content": forged}], "user": forged[1:-1]}, headers=CLIENT
        )
        assert (await look(driver, "forged"))[0] == 404


def test_a_search_has_its_bounds(path: Path) -> None:
    """No more is read than may be; that it ended there is told."""
    lines = [json.dumps({"type": "begin", "id": f"t{number}", "x": "x" * 100}, separators=(",", ":")) for number in range(100)]
    path.write_text("\n".join(lines) + "\n")
    assert search(path, "t99", max_bytes=1000) == {"id": "t99", "begin": json.loads(lines[99]), "end": None}
    with pytest.raises(SearchError, match="last 1000 bytes"):
        search(path, "t0", max_bytes=1000)
    assert search(path, "t0") is not None
    assert search(path, "t100") is None
    assert search(path.with_name("nowhere.jsonl"), "t0") is None


async def test_a_search_that_takes_too_long_is_a_503() -> None:
    """After `record_timeout`; and what a recorder says is told as it says it."""

    class Slow(MemoryRecorder):
        async def find(self, transaction_id: str) -> Mapping[str, Any] | None:
            if transaction_id == "slow":
                await asyncio.Event().wait()
            raise ApiError("Not now.", status=503)

    driver = make(Slow(), settings=StreamSettings(record_timeout=0.05))
    assert [(await look(driver, name))[0] for name in ("slow", "x")] == [503, 503]


def test_a_route_that_could_not_work_is_refused_at_the_start(path: Path) -> None:
    """Without operators, without a record that can be searched, and with keys that a client has."""
    operators = KeyAuth({"alice": "operator-key-1"})
    good: dict[str, Any] = {"backend": ScriptedBackend(chunks("x")), "paths": Paths(records=AT)}
    with pytest.raises(ConfigError, match="is for operators"):
        LuthienMiddleware(behind, **good, recorder=JsonlRecorder(path), approvals=Approvals(auth=operators))
    with pytest.raises(ConfigError, match="needs a recorder"):
        LuthienMiddleware(behind, **good, recorder=MemoryRecorder(), operators=operators)
    with pytest.raises(ConfigError):
        LuthienMiddleware(behind, **good, recorder=JsonlRecorder(path), operators=operators, auth=operators)
    LuthienMiddleware(behind, **good, recorder=JsonlRecorder(path), operators=operators)


RECORD = "record: {config: {path: PATH}}\n"
KEYS = "operators: {keys: {alice: operator-key-1}}\n"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (RECORD, "nobody could look there"),
        (KEYS, "there is no record to look at"),
        (KEYS + "record: {sink: luthien_asgi.recorder.MemoryRecorder}\n", "there is no record to look at"),
        (KEYS + RECORD, ""),
    ],
)
def test_the_file_opts_in(path: Path, tmp_path: Path, written: str, problem: str) -> None:
    """And is told at its line where that could not work."""
    file = tmp_path / "luthien.yaml"
    file.write_text("paths: {records: /luthien/records}\n" + MODELS + written.replace("PATH", str(path)))
    if problem:
        with pytest.raises(ConfigError, match=rf"yaml:1: paths\.records: {problem}"):
            load(file)
    else:
        assert load(file).paths.records == AT


@pytest.mark.litellm
async def test_a_gateway_shows_its_record(path: Path, tmp_path: Path) -> None:
    """There several configurations share a recorder, one after the other."""
    async with recording(path, durability="strict") as recorder:
        name = await answered(make(recorder))
    file = tmp_path / "luthien.yaml"
    file.write_text(f"paths: {{records: {AT}}}\n" + MODELS + KEYS + RECORD.replace("PATH", str(path)))
    driver = ASGIDriver(create_app(load(file)))
    async with driver.lifespan():
        status, found = await look(driver, name)
        assert (status, found["id"]) == (200, name)
        assert (await look(driver, name, CLIENT))[0] == 401


def test_a_lease_has_what_its_recorder_has(path: Path) -> None:
    """And nothing that it has not."""

    class Own(NullRecorder):
        durable = True
        healthy = False

    lease: Any = SharedRecorder(Own()).lease()
    assert (lease.durable, lease.healthy, hasattr(lease, "find")) == (True, False, False)
    lease = SharedRecorder(JsonlRecorder(path)).lease()
    assert (lease.durable, lease.healthy, hasattr(lease, "find")) == (False, True, True)
    lease = SharedRecorder(NullRecorder()).lease()
    assert not any(hasattr(lease, name) for name in ("durable", "healthy", "find"))
