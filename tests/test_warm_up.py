"""The backend gets ready beside the server: what is answered meanwhile, what waits, and what a start that fails leads to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import KeyAuth, LuthienMiddleware, MemoryRecorder, Paths, Policy, PolicyContext, StreamSettings, warm_up
from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, accumulate_openai, chunks

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
HEALTH = "/luthien/health"
STARTING = {"status": "ok", "ready": False, "backend": "starting"}
READY = {"status": "ok", "ready": True, "backend": "ready"}
FAILED = {"status": "ok", "ready": False, "backend": "failed"}


class Slow(ScriptedBackend):
    """A backend that is ready when it is told to be; its first `failures` starts fail."""

    def __init__(self, *, failures: int = 0, **options: Any) -> None:
        super().__init__(options.pop("script", chunks("Hel", "lo")), **options)
        self.may_start = asyncio.Event()
        self.starts = 0
        self._failures = failures

    async def start(self) -> None:
        self.starts += 1
        await self.may_start.wait()
        if self.starts <= self._failures:
            raise ImportError("the secret reason")


def made(backend: ScriptedBackend, **options: Any) -> ASGIDriver:
    return ASGIDriver(LuthienMiddleware(app, backend=backend, paths=Paths(health=HEALTH), **options))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Accept the lifespan."""
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def asked(path: str = OPENAI, **fields: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    return {"model": "scripted", "stream": True} | ({"input": "Hi"} if path == RESPONSES else said) | fields


async def health(driver: ASGIDriver) -> Any:
    got = await driver.fetch("GET", HEALTH)
    assert (got.status, got.headers["cache-control"]) == (200, "no-store")
    return {name: got.json()[name] for name in STARTING}


async def becomes(driver: ASGIDriver, state: Any) -> None:
    async with asyncio.timeout(10):
        while await health(driver) != state:
            pass


class Lines(logging.Handler):
    """Counts the lines of the log that speak of requests that wait."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A log that is written to without pauses."""
    monkeypatch.setattr(warm_up, "_LOG_INTERVAL", 0.0)
    monkeypatch.setattr(warm_up, "_BEAT", 0.02)
    lines = Lines()
    logger = logging.getLogger(warm_up.__name__)
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


async def test_the_server_starts_before_the_backend_is_ready() -> None:
    """Health says so; a request waits, and is answered when the backend is there. The start is one, whoever asks."""
    backend = Slow()
    driver = made(backend)
    async with driver.lifespan(), asyncio.TaskGroup() as tasks:
        assert await health(driver) == STARTING
        answers = [tasks.create_task(driver.fetch("POST", OPENAI, json=asked())) for _ in range(3)]
        assert await health(driver) == STARTING
        assert backend.calls == []
        backend.may_start.set()
        await asyncio.wait(answers)
        assert await health(driver) == READY
    texts = [accumulate_openai(answer.result().body).body["choices"][0]["message"]["content"] for answer in answers]
    assert texts == ["Hello", "Hello", "Hello"]
    assert backend.starts == 1


async def test_what_can_be_refused_without_the_backend_is_not_kept_waiting() -> None:
    """A caller without a key, a model that is not configured, a body that is none."""
    driver = made(Slow(script={"scripted": chunks("x")}), auth=KeyAuth({"me": "client-key"}))
    key = {"authorization": "Bearer client-key"}
    async with driver.lifespan():
        assert (await driver.fetch("POST", OPENAI, json=asked())).status == 401
        assert (await driver.fetch("POST", OPENAI, json=asked(model="other"), headers=key)).status == 404
        assert (await driver.fetch("POST", OPENAI, content=b"{", headers=key)).status == 400
        assert await health(driver) == STARTING


async def test_without_a_lifespan_the_health_check_begins_the_start() -> None:
    """Else a balancer that waits for it would wait for ever."""
    backend = Slow()
    driver = made(backend)
    assert await health(driver) == STARTING
    backend.may_start.set()
    await becomes(driver, READY)
    await driver.app.aclose()  # type: ignore[attr-defined]  # the middleware


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, RESPONSES])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_start_that_fails_is_a_503_and_is_tried_again(path: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """In the client's format, without the reason, which is in the log; the next request makes another attempt."""
    backend = Slow(failures=1)
    backend.may_start.set()
    driver = made(backend)
    async with driver.lifespan():
        await becomes(driver, FAILED)
        backend.may_start.clear()
        backend._failures = 2
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(driver.fetch("POST", path, json=asked(path, stream=stream)))
            await wait_all_tasks_blocked()
            assert backend.starts == 2
            # While the second attempt is under way nobody else waits for it: the last thing known is that it fails.
            meanwhile = await driver.fetch("POST", path, json=asked(path, stream=stream))
            assert await health(driver) == FAILED
            backend.may_start.set()
        for got in (first.result(), meanwhile):
            assert (got.status, got.headers["retry-after"]) == (503, "5")
            assert got.json()["error"]["message"] == "The gateway cannot reach any model: its backend did not start."
            assert b"secret" not in got.body
        assert caplog.text.count("ImportError: the secret reason") == 2
        assert (await driver.fetch("POST", path, json=asked(path, stream=stream))).status == 200
        assert await health(driver) == READY
    assert backend.starts == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_the_wait_is_bounded_by_a_setting(stream: bool) -> None:
    """After `start_timeout` the client is told to come again; the start goes on."""
    backend = Slow()
    driver = made(backend, settings=StreamSettings(start_timeout=0.01))
    async with driver.lifespan():
        got = await driver.fetch("POST", OPENAI, json=asked(stream=stream))
        assert (got.status, got.headers["retry-after"]) == (503, "5")
        assert got.json()["error"]["message"] == "The gateway is still starting; try again."
        backend.may_start.set()
        assert (await driver.fetch("POST", OPENAI, json=asked(stream=stream))).status == 200
    assert backend.starts == 1


async def test_a_streaming_client_gets_pings_while_it_waits_and_the_provider_has_all_its_time() -> None:
    """What the start takes is not taken from `first_chunk_timeout`, and load balancers see bytes."""
    backend = Slow()
    settings = StreamSettings(first_chunk_timeout=0.3, commit_after=0, ping_interval=0.1)
    driver = made(backend, settings=settings)
    async with driver.lifespan(), driver.request("POST", OPENAI, json=asked()) as response:
        received = [await response.part() for _ in range(5)]  # 0.4 s at least
        assert set(received) == {b": ping\n\n"}
        backend.may_start.set()
        rest = await response.read()
    assert accumulate_openai(rest).body["choices"][0]["message"]["content"] == "Hello"


async def test_tokens_are_counted_when_the_backend_is_there() -> None:
    """The wait for it is not taken from `first_chunk_timeout` either."""
    backend = Slow()
    driver = made(backend, settings=StreamSettings(first_chunk_timeout=0.001))
    async with driver.lifespan(), asyncio.TaskGroup() as tasks:
        counted = tasks.create_task(driver.fetch("POST", ANTHROPIC + "/count_tokens", json=asked()))
        assert await health(driver) == STARTING
        backend.may_start.set()
    assert counted.result().json() == {"input_tokens": 11}


async def test_the_log_says_how_many_wait_and_for_how_long(lines: Lines) -> None:
    """In one line for all of them, again and again."""
    backend = Slow()
    driver = made(backend)
    async with driver.lifespan(), asyncio.TaskGroup() as tasks:
        tasks.create_task(driver.fetch("POST", OPENAI, json=asked()))
        await lines.until(lambda: bool(lines.lines))
        tasks.create_task(driver.fetch("POST", OPENAI, json=asked()))
        await lines.until(lambda: any("2 requests wait" in line for line in lines.lines))
        backend.may_start.set()
    assert lines.lines[0].startswith("1 request waits for the backend, which has been starting for ")


async def test_one_line_an_interval_whoever_waits(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty requests are no twenty lines."""
    backend = Slow()
    driver = made(backend)
    async with driver.lifespan(), asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(driver.fetch("POST", OPENAI, json=asked()))
        await lines.until(lambda: any("20 requests wait" in line for line in lines.lines))
        monkeypatch.setattr(warm_up, "_LOG_INTERVAL", 1000.0)
        before = len(lines.lines)
        backend.may_start.set()
    (last,) = lines.lines[before:]
    assert last.startswith("the backend is ready after ")


class Asks(Policy):
    """Asks a model about each request."""

    async def on_request(self, request: ChatRequest, ctx: PolicyContext) -> None:
        answer = await ctx.ask("scripted", "good?")
        assert answer.text == "Hello"


async def test_a_hook_that_asks_a_model_has_all_its_time(lines: Lines) -> None:
    """Its watchdog does not count the start."""
    backend = Slow()
    driver = made(backend, policy=Asks(), settings=StreamSettings(policy_timeout=0.2))
    async with driver.lifespan(), asyncio.TaskGroup() as tasks:
        answer = tasks.create_task(driver.fetch("POST", OPENAI, json=asked()))
        await lines.until(lambda: len(lines.lines) > 15)  # 0.3 s at least
        backend.may_start.set()
    assert answer.result().status == 200
    assert len(backend.calls) == 2


@pytest.mark.broken_off
async def test_a_client_that_leaves_while_it_waits_is_recorded_as_such() -> None:
    """And the start goes on for the others."""
    backend, recorder = Slow(), MemoryRecorder()
    driver = made(backend, recorder=recorder)
    async with driver.lifespan():
        async with driver.request("POST", OPENAI, json=asked(), wait=False) as leaving:
            await wait_all_tasks_blocked()
            leaving.disconnect()
        backend.may_start.set()
        assert (await driver.fetch("POST", OPENAI, json=asked())).status == 200
    assert (backend.starts, len(backend.calls)) == (1, 1)
    assert [end.ending for end in recorder.ended] == ["client_disconnected", "completed"]


async def test_start_waits_and_open_does_not() -> None:
    """For apps that open the middleware by hand."""
    backend = Slow()
    middleware = LuthienMiddleware(app, backend=backend)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        await middleware.open()
        started = tasks.create_task(middleware.start())
        await asyncio.wait({started}, timeout=0.01)
        assert not started.done()
        backend.may_start.set()
    await middleware.aclose()


async def test_shutting_down_gives_up_a_start_that_is_under_way() -> None:
    """Whoever waited is told, and the middleware can be opened again."""
    backend = Slow()
    driver = made(backend)
    async with asyncio.TaskGroup() as tasks, driver.lifespan():
        waiting = tasks.create_task(driver.fetch("POST", OPENAI, json=asked()))
        await wait_all_tasks_blocked()
    assert waiting.result().status == 503
    backend.may_start.set()
    async with driver.lifespan():
        assert (await driver.fetch("POST", OPENAI, json=asked())).status == 200
    assert backend.starts == 2


def test_a_start_whose_event_loop_has_ended_is_begun_again() -> None:
    """Nobody will finish it."""
    backend = ScriptedBackend(chunks("Hello"))
    driver = made(backend)

    async def cut_short() -> None:
        driver.app._backend.begin()  # type: ignore[attr-defined]  # the middleware

    asyncio.run(cut_short())

    async def again() -> int:
        return (await driver.fetch("POST", OPENAI, json=asked())).status

    assert asyncio.run(again()) == 200
