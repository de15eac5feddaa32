"""A server that is asked to stop: what runs ends by itself, or with an error that its client is told; nothing new begins."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import (
    Approvals,
    BlockKind,
    Hold,
    KeyAuth,
    LuthienMiddleware,
    MemoryRecorder,
    Paths,
    Policy,
    StreamSettings,
)
from luthien_asgi import drain as drain_module
from luthien_asgi.drain import Drain, ShutdownError
from luthien_asgi.stop_signals import StopSignals
from luthien_asgi.testing import (
    ASGIDriver,
    ScriptedBackend,
    ToolCall,
    check_body,
    check_stream,
    chunks,
    sse_events,
)
from luthien_asgi.testing.chunk_builders import role, text_chunk

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS = [OPENAI, ANTHROPIC, RESPONSES]
WIRES: dict[str, Any] = {OPENAI: "openai", ANTHROPIC: "anthropic", RESPONSES: "responses"}
STOPPED = "The server was stopped before the answer ended; try again."
PATIENT = 600.0
"""A `drain_timeout` that no test waits for."""


async def nothing(scope: Any, receive: Any, send: Any) -> None: ...


def asked(path: str = OPENAI, **fields: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    return {"model": "scripted", "stream": True} | ({"input": "Hi"} if path == RESPONSES else said) | fields


def made(script: Any, **options: Any) -> tuple[LuthienMiddleware, ScriptedBackend, MemoryRecorder]:
    backend = script if isinstance(script, ScriptedBackend) else ScriptedBackend([script])
    recorder = MemoryRecorder()
    settings = StreamSettings(drain_timeout=options.pop("drain_timeout", 0), **options.pop("settings", {}))
    paths = Paths(health="/health", approvals="/approvals" if "approvals" in options else None)
    app = LuthienMiddleware(nothing, backend=backend, recorder=recorder, settings=settings, paths=paths, **options)
    return app, backend, recorder


def forever() -> list[Any]:
    """Return a script that says two words and no more."""
    return [role(), text_chunk("one "), text_chunk("two "), asyncio.Event()]


def check_stopped(path: str, content: bytes) -> None:
    """The stream is legal, and its end is the error."""
    check_stream(WIRES[path], content)
    last = json.loads(sse_events(content)[-1].data or "{}")
    error = last if path == RESPONSES and "error" not in last else last.get("error") or last["response"]["error"]
    assert STOPPED in json.dumps(error)
    assert not any(word in content for word in (b"[DONE]", b"message_stop", b"response.completed"))


class Undecided(Policy):
    """Never says anything about a tool call."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def on_block_complete(self, block: Any, ctx: Any) -> None:
        self.asked.set()
        await asyncio.Event().wait()


# --- what runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_does_not_end_in_time_is_ended_with_an_error(path: str, stream: bool) -> None:
    """The event of its format after what was delivered, or a 503; upstream is closed and the record says what happened."""
    app, backend, recorder = made(forever())
    async with ASGIDriver(app).request("POST", path, json=asked(path, stream=stream), wait=stream) as response:
        content = (await response.part() or b"") if stream else b""
        await wait_all_tasks_blocked()
        app.drain()
        content += await response.read()
        await response.done()
    assert response.status == (200 if stream else 503)
    if stream:
        check_stopped(path, content)
        assert b"two " in content
    else:
        check_body(WIRES[path], content)
        assert json.loads(content)["error"]["message"] == STOPPED
        assert (response.headers["retry-after"], response.headers["connection"]) == ("1", "close")
    assert backend.streams[0].closed.is_set()
    (end,) = recorder.ended
    assert (end.ending, end.status, (end.error or {})["code"]) == ("shutdown", response.status, "shutdown")
    assert [block.text for block in end.backend_blocks] == ["one two "]
    assert [block.text for block in end.final_blocks] == ["one two "]


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_ends_in_time_is_whole(path: str) -> None:
    """Until `drain_timeout` nothing is different."""
    go_on = asyncio.Event()
    first, *rest = chunks("one ", "two")
    app, _, recorder = made([first, go_on, *rest], drain_timeout=PATIENT)
    async with ASGIDriver(app).request("POST", path, json=asked(path)) as response:
        await wait_all_tasks_blocked()
        app.drain()
        await wait_all_tasks_blocked()
        go_on.set()
        content = await response.read()
        await response.done()
    check_stream(WIRES[path], content)
    assert [end.ending for end in recorder.ended] == ["completed"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_a_judge_holds_is_ended(path: str, stream: bool) -> None:
    """Nothing of what is held leaves."""
    judge = Undecided()
    app, _, recorder = made(chunks("Look:", ToolCall("c1", "bash", '{"command": "rm"}')), policy=judge)
    async with ASGIDriver(app).request("POST", path, json=asked(path, stream=stream), wait=False) as response:
        await judge.asked.wait()
        app.drain()
        content = await response.read()
        await response.done()
    assert b"rm" not in content.replace(b"format", b"")
    assert response.status == (200 if stream else 503)
    if stream:
        check_stopped(path, content)
    (end,) = recorder.ended
    assert end.ending == "shutdown"
    assert [block.name for block in end.backend_blocks] == ["", "bash"]


class Silent(ScriptedBackend):
    """Never opens, and counts no tokens."""

    async def open(self, call: Any) -> Any:
        self.calls.append(call)
        await asyncio.Event().wait()

    async def count_tokens(self, call: Any) -> int:
        self.calls.append(call)
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("path", [*PATHS, ANTHROPIC + "/count_tokens"])
@pytest.mark.parametrize("commit_after", [0.0, 60.0])
async def test_what_waits_for_the_provider_is_a_503_or_the_event_if_it_has_begun(path: str, commit_after: float) -> None:
    """A stream that was begun with pings cannot have a status any more."""
    app, _, recorder = made(Silent(chunks("x")), settings={"commit_after": commit_after})
    counts = path.endswith("count_tokens")
    fields = {} if not counts else {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    begun = commit_after == 0 and not counts
    async with ASGIDriver(app).request("POST", path, json=fields or asked(path), wait=begun) as response:
        content = await response.part() if begun else b""
        await wait_all_tasks_blocked()
        app.drain()
        content = (content or b"") + await response.read()
        await response.done()
    assert response.status == (200 if begun else 503)
    if begun:
        check_stopped(path, content)
    else:
        assert json.loads(content)["error"]["message"] == STOPPED
    assert [end.ending for end in recorder.ended] == ([] if counts else ["shutdown"])


async def test_a_request_whose_body_is_still_coming_is_a_503() -> None:
    """It is no transaction yet."""
    app, _, recorder = made(chunks("x"))
    async with ASGIDriver(app).request("POST", OPENAI, content=[b"{"], whole=False, wait=False) as response:
        await wait_all_tasks_blocked()
        app.drain()
        content = await response.read()
    assert (response.status, json.loads(content)["error"]["code"]) == (503, "shutdown")
    assert recorder.begun == []


async def test_a_policy_that_judges_the_request_is_not_waited_for() -> None:
    """The backend is not called."""
    asked_about = asyncio.Event()

    class Stuck(Policy):
        async def on_request(self, request: Any, ctx: Any) -> None:
            asked_about.set()
            await asyncio.Event().wait()

    app, backend, recorder = made(chunks("x"), policy=Stuck())
    async with ASGIDriver(app).request("POST", OPENAI, json=asked(), wait=False) as response:
        await asked_about.wait()
        app.drain()
        await response.done()
    assert (response.status, backend.calls) == (503, [])
    assert [end.ending for end in recorder.ended] == ["shutdown"]


async def test_the_time_can_be_made_shorter_and_not_longer() -> None:
    """A second signal that leaves less time counts, one that leaves more does not."""
    app, _, recorder = made(forever(), drain_timeout=PATIENT)
    async with ASGIDriver(app).request("POST", OPENAI, json=asked()) as response:
        await wait_all_tasks_blocked()
        app.drain()
        app.drain(within=0)
        app.drain()
        check_stopped(OPENAI, await response.read())
        await response.done()
    assert [end.ending for end in recorder.ended] == ["shutdown"]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time for last words."""
    monkeypatch.setattr(drain_module, "LAST_WORDS", 0.05)


@pytest.mark.broken_off
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_does_not_read_does_not_hold_the_server_up(path: str) -> None:
    """It cannot be told; it is cut off, and recorded."""
    script = [role(), *[text_chunk("x" * 1000) for _ in range(50)], asyncio.Event()]
    app, backend, recorder = made(script, settings={"queue_size": 5})
    async with ASGIDriver(app, buffer=1).request("POST", path, json=asked(path)) as response:
        await wait_all_tasks_blocked()
        app.drain()
        await response.done()
    assert backend.streams[0].closed.is_set()
    assert [end.ending for end in recorder.ended] == ["shutdown"]


@pytest.mark.usefixtures("hurried")
async def test_a_policy_that_hangs_when_it_is_told_of_the_end_does_not_hold_the_server_up() -> None:
    """The record is written all the same."""

    class Mourns(Policy):
        async def on_error(self, error: Any, ctx: Any) -> None:
            await asyncio.Event().wait()

    app, _, recorder = made(forever(), policy=Mourns())
    async with ASGIDriver(app).request("POST", OPENAI, json=asked()) as response:
        await wait_all_tasks_blocked()
        app.drain()
        check_stopped(OPENAI, await response.read())
        await response.done()
    assert [end.ending for end in recorder.ended] == ["shutdown"]


# --- a server that cancels ----------------------------------------------------------------------------------------------------


class Server:
    """Calls an app in a task that it cancels, as servers do when their patience is over."""

    def __init__(self, app: Any, path: str, body: dict[str, Any], *, writable: bool = True) -> None:
        self.status, self.content, self.complete = 0, b"", False
        self.begun = asyncio.Event()
        self._body: bytes | None = json.dumps(body).encode()
        self._writable = asyncio.Event()
        if writable:
            self._writable.set()
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": []}
        self.task = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        await self._writable.wait()
        self.content += message.get("body", b"")
        self.complete = not message.get("more_body", False)
        self.begun.set()

    async def cancelled(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=5)
        assert self.task.cancelled()


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_that_the_server_cancels_gets_its_error_event(path: str) -> None:
    """After what it got, in a response that is complete."""
    app, backend, recorder = made(forever(), drain_timeout=PATIENT)
    server = Server(app, path, asked(path))
    await server.begun.wait()
    await wait_all_tasks_blocked()
    await server.cancelled()
    check_stopped(path, server.content)
    assert server.complete
    assert backend.streams[0].closed.is_set()
    assert [end.ending for end in recorder.ended] == ["shutdown"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_that_is_cancelled_before_its_answer_is_a_503(path: str) -> None:
    """There is a status left to say it with."""
    app, _, recorder = made(forever(), drain_timeout=PATIENT)
    server = Server(app, path, asked(path, stream=False))
    await wait_all_tasks_blocked()
    await server.cancelled()
    assert (server.status, server.complete) == (503, True)
    check_body(WIRES[path], server.content)
    assert [(end.ending, end.status) for end in recorder.ended] == [("shutdown", 503)]


@pytest.mark.broken_off
@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_said_in_the_middle_of_a_frame(path: str) -> None:
    """A client that does not read: nobody knows what of the last frames has left, so no more follow."""
    app, _, recorder = made(forever(), drain_timeout=PATIENT)
    server = Server(app, path, asked(path), writable=False)
    await wait_all_tasks_blocked()
    await server.cancelled()
    assert (server.status, server.content, server.complete) == (200, b"", False)
    assert [end.ending for end in recorder.ended] == ["shutdown"]


# --- what comes ---------------------------------------------------------------------------------------------------------------


async def refused(app: LuthienMiddleware, method: str, path: str, **options: Any) -> None:
    got = await ASGIDriver(app).fetch(method, path, **options)
    assert (got.status, got.headers["retry-after"], got.headers["connection"]) == (503, "1", "close")
    error = got.json()["error"]
    assert error["message"] == "The server is about to stop; try again."
    if path in WIRES:
        check_body(WIRES[path], got.body)


@pytest.mark.parametrize("path", [*PATHS, ANTHROPIC + "/count_tokens"])
async def test_new_requests_are_refused(path: str) -> None:
    """With the time after which to come again, on another connection."""
    app, backend, recorder = made(chunks("x"), drain_timeout=PATIENT)
    await app.open()
    app.drain()
    await refused(app, "POST", path, json=asked(path))
    assert (backend.calls, recorder.begun) == ([], [])


async def test_http_2_has_no_connection_header() -> None:
    """It would make the response malformed (RFC 9113, 8.2.2)."""
    app, _, _ = made(chunks("x"))
    app.drain()
    driver = ASGIDriver(app)
    request = driver.request("POST", OPENAI, json=asked())
    request._scope["http_version"] = "2"
    async with request as response:
        await response.done()
    assert (response.status, "connection" in response.headers) == (503, False)


async def test_health_says_that_it_is_not_ready() -> None:
    """It is alive all the same."""
    app, _, _ = made(chunks("x"))
    await app.start()
    assert (await ASGIDriver(app).fetch("GET", "/health")).json()["ready"] is True
    app.drain()
    got = await ASGIDriver(app).fetch("GET", "/health")
    assert (got.status, got.json()["ready"]) == (200, False)
    await app.aclose()


async def test_operators_are_answered_while_streams_end() -> None:
    """A stream that waits for a person can still end."""
    desk = Approvals(auth=KeyAuth({"alice": "operator-key-1"}))
    app, _, _ = made(chunks("x"), drain_timeout=PATIENT, approvals=desk)
    await app.open()
    app.drain()
    got = await ASGIDriver(app).fetch("GET", "/approvals", headers={"authorization": "Bearer operator-key-1"})
    assert (got.status, got.json()) == (200, [])
    await app.aclose()


async def test_closing_ends_what_runs_before_the_record_is_closed() -> None:
    """A server that closes the app while a request runs waits no longer for it."""

    class Closes(MemoryRecorder):
        def __init__(self) -> None:
            super().__init__()
            self.order: list[str] = []

        async def end(self, end: Any) -> None:
            self.order.append(end.ending)

        async def aclose(self) -> None:
            self.order.append("closed")

    recorder = Closes()
    app = LuthienMiddleware(nothing, backend=ScriptedBackend([forever()]), recorder=recorder)
    async with ASGIDriver(app).request("POST", OPENAI, json=asked()) as response:
        await wait_all_tasks_blocked()
        await app.aclose()
        check_stopped(OPENAI, await response.read())
    assert recorder.order == ["shutdown", "closed"]


async def test_an_app_that_is_opened_again_answers_again() -> None:
    """As a server that starts it a second time expects."""
    app, _, _ = made([*chunks("x")], drain_timeout=PATIENT)
    app.drain()
    await refused(app, "POST", OPENAI, json=asked())
    await app.aclose()
    await app.open()
    assert (await ASGIDriver(app).fetch("POST", OPENAI, json=asked())).status == 200
    await app.aclose()


# --- the parts ----------------------------------------------------------------------------------------------------------------


async def test_a_limit_tells_who_ended_it() -> None:
    """Its own time is a `TimeoutError`, the server's end a `ShutdownError`; no other time-out is taken for either."""
    drain = Drain()
    limit = drain.limit(asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError):
        async with limit:
            await asyncio.Event().wait()
    assert limit.expired()
    limit = drain.limit()
    with pytest.raises(TimeoutError, match="of others"):
        async with limit:
            raise TimeoutError("of others")
    assert not limit.expired()
    asyncio.get_running_loop().call_soon(drain.begin, 0)
    with pytest.raises(ShutdownError):
        async with drain.limit(asyncio.get_running_loop().time() + PATIENT):
            await asyncio.Event().wait()
    with pytest.raises(ShutdownError):  # one that comes later
        async with drain.limit():
            await asyncio.Event().wait()


async def test_a_drain_without_a_time_only_refuses() -> None:
    """What runs may go on for ever."""
    drain = Drain()
    async with drain.limit() as limit:
        drain.begin()
        await wait_all_tasks_blocked()
    assert (drain.begun, limit.expired()) == (True, False)


async def test_idle_waits_for_the_last_one() -> None:
    """And says when it did not wait long enough."""
    drain = Drain()
    assert await drain.idle()
    with drain:
        with drain:
            assert drain.running == 2
        assert not await drain.idle(0.01)
    assert await drain.idle()


def a_handler(seen: list[int]) -> Callable[..., None]:
    return lambda number, frame: seen.append(number)


async def test_a_signal_is_noticed_and_handed_on_to_the_server() -> None:
    """The server's handler is called as before, and is back in its place afterwards."""
    seen: list[int] = []
    stopped = asyncio.Event()
    handler = a_handler(seen)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        signals = StopSignals(stopped.set)
        signals.watch()
        signals.watch()
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            await stopped.wait()
        assert seen == [signal.SIGTERM]
        signals.unwatch()
        assert signal.getsignal(signal.SIGTERM) is handler
        signals.unwatch()
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_where_a_server_has_no_handler_nothing_is_changed() -> None:
    """A process that dies by the signal still does, and Ctrl-C still interrupts."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    others = [signal.getsignal(number) for number in numbers]
    try:
        for number, handler in zip(numbers, (signal.SIG_DFL, signal.default_int_handler), strict=True):
            signal.signal(number, handler)
        signals = StopSignals(lambda: None)
        signals.watch()
        assert [signal.getsignal(number) for number in numbers] == [signal.SIG_DFL, signal.default_int_handler]
        await asyncio.to_thread(signals.watch)
        signals.unwatch()
    finally:
        for number, other in zip(numbers, others, strict=True):
            signal.signal(number, other)


async def test_a_handler_that_another_put_over_ours_stays() -> None:
    """It may hand on to ours, which hands on to the server's."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, a_handler(seen))
    try:
        signals = StopSignals(lambda: None)
        signals.watch()
        ours: Any = signal.getsignal(signal.SIGTERM)
        over = signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
        signals.unwatch()
        signal.raise_signal(signal.SIGTERM)
        assert (over == ours, seen) == (True, [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)
