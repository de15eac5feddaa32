"""The middleware as an app sees it: what it answers, what it lets by, and what is left when a client goes."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, ClassVar

import pytest
from anyio import wait_all_tasks_blocked

from luthien_asgi import (
    ApiError,
    BackendError,
    Begin,
    BlockKind,
    ChatRequest,
    ConfigError,
    Deny,
    End,
    Hold,
    KeyAuth,
    Limits,
    LuthienMiddleware,
    MemoryRecorder,
    Paths,
    Policy,
    PolicyContext,
    StreamContext,
    StreamSettings,
    Target,
)
from luthien_asgi.blocks import Block
from luthien_asgi.policy import Stop, Verdict
from luthien_asgi.testing import (
    ASGIDriver,
    ScriptedBackend,
    ToolCall,
    accumulate_anthropic,
    accumulate_openai,
    chunks,
    sse_events,
)
from luthien_asgi.testing.chunk_builders import role, text_chunk

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS = [OPENAI, ANTHROPIC, RESPONSES]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "stream": True} | fields


def asked(path: str, **fields: Any) -> dict[str, Any]:
    """Return a body in the format of a path."""
    return {"model": "scripted", "input": "Hi", "stream": True} | fields if path == RESPONSES else body(**fields)


class Behind:
    """The wrapped app: keeps the objects that it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls.append((scope, receive, send))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 299, "headers": []})
            await send({"type": "http.response.body", "body": b"behind"})


def make(script: Any = None, **options: Any) -> tuple[LuthienMiddleware, ScriptedBackend, MemoryRecorder]:
    backend = script if isinstance(script, ScriptedBackend) else ScriptedBackend(script or chunks("Hel", "lo"))
    recorder = options.pop("recorder", MemoryRecorder())
    app = LuthienMiddleware(options.pop("app", Behind()), backend=backend, recorder=recorder, **options)
    return app, backend, recorder


# --- what is answered -------------------------------------------------------------------------------------------------------


async def test_an_openai_client_gets_its_stream() -> None:
    """Frames of the OpenAI wire, ended by one [DONE], with the headers that a stream needs."""
    app, _, recorder = make()
    got = await ASGIDriver(app).fetch("POST", OPENAI, json=body())
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in got.headers
    assert accumulate_openai(got.body).body["choices"][0]["message"]["content"] == "Hello"
    assert got.body.count(b"[DONE]") == 1
    assert [end.ending for end in recorder.ended] == ["completed"]


async def test_an_anthropic_client_gets_its_stream() -> None:
    """Events of the Anthropic wire: `event:` equals the type in the data, one message_stop."""
    app, _, _ = make()
    got = await ASGIDriver(app).fetch("POST", ANTHROPIC + "?beta=true", json=body())
    events = sse_events(got.body)
    assert all(event.event == json.loads(event.data or "")["type"] for event in events if event.data)
    assert accumulate_anthropic(got.body).body["content"] == [{"type": "text", "text": "Hello"}]


async def test_a_responses_client_gets_its_stream() -> None:
    """Events with names and numbers in a row, one response.completed at the end."""
    app, _, recorder = make()
    got = await ASGIDriver(app).fetch("POST", RESPONSES, json=asked(RESPONSES))
    events = [json.loads(event.data or "") for event in sse_events(got.body)]
    assert [event.event for event in sse_events(got.body)] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events if "completed" in event["type"]] == ["response.completed"]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
    assert got.headers["x-request-id"]
    assert recorder.begun[0].wire == "responses"


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_does_not_stream_gets_one_body(path: str) -> None:
    """The same blocks as JSON, with a content-length."""
    app, backend, recorder = make()
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path, stream=False))
    assert got.headers["content-type"] == "application/json"
    assert int(got.headers["content-length"]) == len(got.body)
    assert "Hello" in json.dumps(got.json())
    assert recorder.ended[0].final_blocks == recorder.ended[0].backend_blocks
    assert backend.streams[0].closed.is_set()


async def test_the_routes_lie_below_root_path_and_only_below_whole_segments() -> None:
    """A mounted middleware answers below its root; a path that merely begins alike is the app's."""
    app, _, _ = make()
    assert (await ASGIDriver(app, root_path="/llm").fetch("POST", OPENAI, json=body())).status == 200
    assert (await ASGIDriver(app, root_path="/llm").fetch("POST", RESPONSES, json=asked(RESPONSES))).status == 200
    behind = await ASGIDriver(app).fetch("POST", "/llms" + OPENAI, json=body())
    assert behind.status == 299


async def test_the_paths_are_a_setting() -> None:
    """A route may lie elsewhere, or be left to the app."""
    app, _, _ = make(paths=Paths(chat="/chat", messages=None))
    driver = ASGIDriver(app)
    assert (await driver.fetch("POST", "/chat", json=body())).status == 200
    assert (await driver.fetch("POST", OPENAI, json=body())).status == 299
    assert (await driver.fetch("POST", ANTHROPIC, json=body())).status == 299
    moved, _, _ = make(paths=Paths(responses="/v2/responses", chat=None))
    assert (await ASGIDriver(moved).fetch("POST", "/v2/responses", json=asked(RESPONSES))).status == 200
    assert (await ASGIDriver(moved).fetch("POST", RESPONSES, json=asked(RESPONSES))).status == 299


@pytest.mark.parametrize("paths", [{"chat": "nope"}, {"chat": "/v1/messages"}, {"chat": "/v1/responses"}])
def test_paths_that_cannot_be_told_apart_are_refused(paths: dict[str, str]) -> None:
    """Two routes at one path, or a path without its slash, are configuration errors."""
    with pytest.raises(ConfigError):
        make(paths=Paths(**paths))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", OPENAI),
        ("OPTIONS", OPENAI),
        ("GET", RESPONSES),
        ("POST", RESPONSES + "/resp_1/cancel"),
        ("HEAD", "/"),
        ("POST", "/other"),
        ("GET", "/v1/models"),
    ],
)
async def test_everything_else_reaches_the_app_with_the_same_objects(method: str, path: str) -> None:
    """Other methods and paths are the app's, untouched."""
    behind = Behind()
    app, backend, _ = make(app=behind)
    assert (await ASGIDriver(app).fetch(method, path)).status == 299
    assert backend.calls == []


async def test_other_scopes_reach_the_app_with_the_very_same_objects() -> None:
    """A websocket gets the scope, receive and send that came."""
    behind = Behind()
    app, _, _ = make(app=behind)
    scope, receive, send = {"type": "websocket", "path": OPENAI}, object(), object()
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert [id(part) for part in behind.calls[0]] == [id(scope), id(receive), id(send)]


@pytest.mark.parametrize(
    ("headers", "key"),
    [({}, "object"), ({"anthropic-version": "2023-06-01"}, "has_more"), ({"x-api-key": "k"}, "has_more")],
)
async def test_models_come_in_the_format_that_the_headers_show(headers: dict[str, str], key: str) -> None:
    """`GET /v1/models`, where it is opted into, answers each client in its own format."""
    app, _, _ = make(ScriptedBackend(chunks("x"), names=["a", "b"]), paths=Paths(models="/v1/models"))
    got = await ASGIDriver(app).fetch("GET", "/v1/models", headers=headers)
    assert key in got.json()
    assert [model["id"] for model in got.json()["data"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {"object": "model", "owned_by": "luthien_asgi"}),
        ({"anthropic-version": "2023-06-01"}, {"type": "model", "display_name": "a/b"}),
    ],
)
async def test_a_model_is_answered_below_the_models(headers: dict[str, str], fields: dict[str, str]) -> None:
    """`GET /v1/models/{model}` is one item of the list, and a model's name may hold slashes."""
    app, _, _ = make(paths=Paths(models="/v1/models"))
    got = (await ASGIDriver(app).fetch("GET", "/v1/models/a/b", headers=headers)).json()
    assert got["id"] == "a/b"
    assert fields.items() <= got.items()


@pytest.mark.parametrize(
    ("method", "path", "models"),
    [("GET", "/v1/models/a", None), ("GET", "/v1/models/", "/v1/models"), ("GET", "/v1/modelsa", "/v1/models"),
     ("DELETE", "/v1/models/a", "/v1/models")],
)  # fmt: skip
async def test_what_is_no_model_below_the_models_is_the_apps(method: str, path: str, models: str | None) -> None:
    """Without the models' route, without a name, with another method: the wrapped app's."""
    app, _, _ = make(app=Behind(), paths=Paths(models=models))
    assert (await ASGIDriver(app).fetch(method, path)).status == 299


async def test_tokens_are_counted_without_max_tokens() -> None:
    """count_tokens takes a request without max_tokens and answers with the number alone."""
    app, backend, recorder = make()
    request = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
    got = await ASGIDriver(app).fetch("POST", ANTHROPIC + "/count_tokens", json=request)
    assert got.json() == {"input_tokens": 11}
    assert "max_tokens" not in backend.calls[0].request.body
    assert recorder.begun == []


async def test_health_is_answered_where_it_is_opted_into() -> None:
    """The health path says that the process serves, and whether it reaches models."""
    app, _, _ = make(paths=Paths(health="/luthien/health"))
    await app.start()
    health = {
        "status": "ok",
        "ready": True,
        "backend": "ready",
        "recorder": "ready",
        "draining": False,
        "pid": os.getpid(),
    }
    assert (await ASGIDriver(app).fetch("GET", "/luthien/health")).json() == health


# --- errors before the first byte -------------------------------------------------------------------------------------------


def error_of(path: str, got: Any) -> tuple[str, str]:
    error = got.json()["error"]
    if path == ANTHROPIC:
        assert got.json()["type"] == "error"
    return error["type"], error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
async def test_the_backends_refusal_keeps_its_status_and_retry_after(path: str, stream: bool, status: int) -> None:
    """An error before the first byte arrives as that status in the client's error body, and nothing but the error is recorded."""
    app, _, recorder = make([BackendError("no", status=status, headers={"retry-after": "7"})])
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path, stream=stream))
    assert got.status == status
    assert error_of(path, got)[1] == "no"
    assert got.headers["retry-after"] == "7"
    assert (recorder.ended[0].ending, recorder.ended[0].status) == ("failed", status)
    assert recorder.ended[0].error is not None


@pytest.mark.parametrize("path", PATHS)
async def test_an_error_as_the_first_event_is_a_status_too(path: str) -> None:
    """A 200 whose first event is an error is an error response."""
    app, backend, _ = make([[BackendError("busy", status=529)]])
    assert (await ASGIDriver(app).fetch("POST", path, json=asked(path))).status == 529
    assert backend.streams[0].closed.is_set()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"nul",
        b'"x"',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"model":1,"messages":[]}',
        b'{"messages":[{"role":"user"}]}',
    ],
)
async def test_a_bad_body_is_a_clear_400(path: str, content: bytes) -> None:
    """Bad JSON, wrong types, missing fields and bottomless nesting are 400s in the client's format; no backend is called."""
    app, backend, recorder = make()
    got = await ASGIDriver(app).fetch("POST", path, content=content, headers={"content-type": "application/json"})
    assert got.status == 400
    assert error_of(path, got)[0] == "invalid_request_error"
    assert backend.calls == []
    assert recorder.begun == []
    assert (await ASGIDriver(app).fetch("POST", path, json=asked(path))).status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_too_large_is_a_413_also_without_a_length(path: str) -> None:
    """The size is counted while the body arrives, in however many pieces."""
    app, _, _ = make(limits=Limits(body_bytes=1000))
    got = await ASGIDriver(app).fetch("POST", path, content=[b" " * 600, b" " * 600, b" " * 600])
    assert got.status == 413


@pytest.mark.parametrize("path", PATHS)
async def test_a_policys_refusal_of_the_request_is_a_403_and_no_call(path: str) -> None:
    """on_request that denies: an error in the client's format, the backend never called, the record says denied."""

    class Never(Policy):
        async def on_request(self, request: ChatRequest, ctx: PolicyContext) -> Deny:
            return Deny("Not here.", "because")

    app, backend, recorder = make(policy=Never())
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path))
    assert got.status == 403
    assert error_of(path, got)[1] == "Not here."
    assert backend.calls == []
    assert recorder.ended[0].ending == "denied"
    assert [(v.hook, v.verdict, v.reason) for v in recorder.ended[0].verdicts] == [("on_request", "deny", "because")]


async def test_a_policy_may_change_the_request_and_the_record_keeps_the_original() -> None:
    """What the policy returns is sent; what the client sent is recorded as received."""

    class Rename(Policy):
        def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest:
            return request.with_field("model", "other")

    app, backend, recorder = make(policy=Rename())
    await ASGIDriver(app).fetch("POST", OPENAI, json=body())
    assert backend.calls[0].request.model == "other"
    assert recorder.begun[0].request["model"] == "scripted"


async def test_the_form_of_the_answer_is_the_clients_matter() -> None:
    """A policy that turns `stream` off in the request does not turn a stream into a body."""

    class Meddle(Policy):
        def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest:
            return request.with_field("stream", False)

    app, _, _ = make(policy=Meddle())
    got = await ASGIDriver(app).fetch("POST", OPENAI, json=body())
    assert got.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("path", PATHS)
async def test_an_unexpected_exception_is_a_500_without_its_text(path: str) -> None:
    """A defect of a backend is told in the client's format, and nothing of it leaks."""

    class Broken(ScriptedBackend):
        def target(self, model: str) -> Target:
            raise KeyError("secret")

    app, _, _ = make(Broken(chunks("x")), auth=None)
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path))
    assert got.status == 500
    assert error_of(path, got)[1]
    assert b"secret" not in got.body


@pytest.mark.parametrize("said", [KeyError("secret"), "yes"])
async def test_a_policy_that_fails_on_the_request_fails_closed(said: Any) -> None:
    """An exception or rubbish from on_request is a 500 without its text, and no call."""

    class Broken(Policy):
        def on_request(self, request: ChatRequest, ctx: PolicyContext) -> Any:
            if isinstance(said, Exception):
                raise said
            return said

    app, backend, _ = make(policy=Broken())
    got = await ASGIDriver(app).fetch("POST", OPENAI, json=body())
    assert got.status == 500
    assert b"secret" not in got.body
    assert backend.calls == []


class FailingRecorder(MemoryRecorder):
    def __init__(self, *, at: str) -> None:
        super().__init__()
        self.at = at

    async def start(self) -> None:
        if self.at == "start":
            raise OSError("no disk")

    async def begin(self, begin: Begin) -> None:
        if self.at == "begin":
            raise OSError("disk full")
        await super().begin(begin)

    async def end(self, end: End) -> None:
        if self.at == "end":
            raise OSError("disk full")
        await super().end(end)


@pytest.mark.parametrize(("at", "status"), [("start", 503), ("begin", 503), ("end", 200)])
async def test_what_cannot_be_recorded_does_not_happen(at: str, status: int) -> None:
    """A recorder that cannot begin stops the transaction; one that cannot end changes nothing for the client."""
    app, backend, _ = make(recorder=FailingRecorder(at=at))
    assert (await ASGIDriver(app).fetch("POST", OPENAI, json=body())).status == status
    assert len(backend.calls) == (1 if status == 200 else 0)


async def test_too_many_streams_get_a_429_and_the_slot_comes_back() -> None:
    """A process serves a bounded number at a time; a slot is free again when its answer ended."""
    hold = asyncio.Event()
    app, _, _ = make([[role(), hold, *chunks("x")], chunks("y")], limits=Limits(streams=1))
    driver = ASGIDriver(app)
    async with driver.request("POST", OPENAI, json=body()) as first:
        refused = await driver.fetch("POST", ANTHROPIC, json=body())
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        hold.set()
        await first.read()
        await first.done()
    assert (await driver.fetch("POST", OPENAI, json=body())).status == 200


# --- who may ask --------------------------------------------------------------------------------------------------------------


async def test_a_client_needs_a_key_and_the_record_has_its_name() -> None:
    """Without a known key 401 in the client's format; with it the record names the client and not the key."""
    app, backend, recorder = make(auth=KeyAuth({"alice": "key-of-alice"}))
    driver = ASGIDriver(app)
    assert (await driver.fetch("POST", OPENAI, json=body())).status == 401
    assert (await driver.fetch("POST", ANTHROPIC, json=body(), headers={"x-api-key": "wrong-key"})).status == 401
    assert backend.calls == []
    assert (await driver.fetch("POST", ANTHROPIC, json=body(), headers={"x-api-key": "key-of-alice"})).status == 200
    assert recorder.begun[0].client == "alice"
    assert "key-of-alice" not in repr(recorder.begun) + repr(recorder.ended) + repr(app._services)


class Spending(ScriptedBackend):
    def target(self, model: str) -> Target:
        if model not in self.models():
            raise ApiError("The model is not there.", status=404)
        return Target(name=model, provider="openai", wire="openai", spends_key=True)


class Passing(ScriptedBackend):
    def target(self, model: str) -> Target:
        return Target(name=model, provider="openai", wire="openai", passthrough=True, spends_key=False)


def test_what_keeps_the_middleware_from_starting_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A framework that makes it in its lifespan may hide what it raises."""
    with pytest.raises(ConfigError, match="must begin with /"):
        make(paths=Paths(chat="chat"))
    assert "the middleware cannot start: the path of chat must begin with /" in caplog.text


def test_server_keys_without_auth_are_refused_at_construction() -> None:
    """An open relay has to be written, not forgotten."""
    with pytest.raises(ConfigError, match="auth"):
        make(Spending(chunks("x")))
    make(Spending(chunks("x")), auth=None)


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_is_not_configured_is_a_404(path: str) -> None:
    """An unknown model is 404 in the client's format and no transaction."""
    app, _, recorder = make(Spending(chunks("x")), auth=None)
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path, model="unknown"))
    assert got.status == 404
    assert recorder.begun == []


async def test_a_clients_own_credential_goes_to_a_passthrough_model_of_its_wire_only() -> None:
    """With one it is handed to the backend, without it 401, from the other wire 400; it is in no record."""
    app, backend, recorder = make(Passing(chunks("x")))
    driver = ASGIDriver(app)
    assert (await driver.fetch("POST", OPENAI, json=body())).status == 401
    own = {"authorization": "Bearer sk-of-the-client"}
    assert (await driver.fetch("POST", ANTHROPIC, json=body(), headers=own)).status == 400
    assert (await driver.fetch("POST", OPENAI, json=body(), headers=own)).status == 200
    assert backend.calls[0].credential == "sk-of-the-client"
    assert "sk-of-the-client" not in repr(recorder.begun) + repr(recorder.ended) + repr(backend.calls)


async def test_only_the_headers_that_belong_to_the_provider_go_on() -> None:
    """The betas go on, credentials and cookies do not."""
    app, backend, _ = make()
    headers = {"anthropic-beta": "a,b", "anthropic-version": "2023-06-01", "cookie": "c", "x-api-key": "k"}
    await ASGIDriver(app).fetch("POST", ANTHROPIC, json=body(), headers=headers)
    assert dict(backend.calls[0].headers) == {"anthropic-beta": "a,b", "anthropic-version": "2023-06-01"}


# --- while it streams -----------------------------------------------------------------------------------------------------------


def last_error(stream: bytes) -> str:
    """Return the message of the error event that ends a stream; a failed response has it inside."""
    last = json.loads(sse_events(stream)[-1].data or "")
    return str(last.get("response", last)["error"]["message"])


@pytest.mark.parametrize("path", PATHS)
async def test_an_error_in_mid_stream_is_the_error_event_and_nothing_after_it(path: str) -> None:
    """Delivered text, the error event, neither [DONE] nor message_stop; the record says failed."""
    app, _, recorder = make([[role(), text_chunk("a"), BackendError("The connection broke off.")]])
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path))
    assert got.status == 200
    assert last_error(got.body) == "The connection broke off."
    assert b"[DONE]" not in got.body
    assert b"message_stop" not in got.body
    assert recorder.ended[0].ending == "failed"
    assert [block.text for block in recorder.ended[0].backend_blocks] == ["a"]


@pytest.mark.parametrize("path", PATHS)
async def test_an_error_in_mid_stream_is_a_5xx_for_a_client_that_does_not_stream(path: str) -> None:
    """Nothing was sent yet, so the failure has a status."""
    app, _, _ = make([[role(), text_chunk("a"), BackendError("broke off")]])
    assert (await ASGIDriver(app).fetch("POST", path, json=asked(path, stream=False))).status == 502


@pytest.mark.parametrize("path", PATHS)
async def test_a_slow_backends_answer_is_begun_with_pings_and_then_goes_on(path: str) -> None:
    """After commit_after the status is sent with a ping at once, and the answer follows when it is there."""
    first = asyncio.Event()
    app, _, recorder = make([[first, *chunks("Hello")]], settings=StreamSettings(commit_after=0.01))
    async with ASGIDriver(app).request("POST", path, json=asked(path)) as response:
        assert response.status == 200
        assert (await response.part() or b"").startswith(b":")
        first.set()
        rest = await response.read()
        await response.done()
    assert b"Hello" in rest
    assert recorder.ended[0].notes


@pytest.mark.parametrize("path", PATHS)
async def test_a_late_refusal_after_the_beginning_is_the_error_event(path: str) -> None:
    """What fails after the status was sent is an error event."""
    first = asyncio.Event()
    app, _, recorder = make(
        [[first, BackendError("late", status=429)]], settings=StreamSettings(commit_after=0.0, ping_interval=0.01)
    )
    async with ASGIDriver(app).request("POST", path, json=asked(path)) as response:
        first.set()
        rest = await response.read()
        await response.done()
    assert last_error(rest) == "late"
    assert (recorder.ended[0].ending, recorder.ended[0].status) == ("failed", 200)


class Judge(Policy):
    """Holds tool calls until it is told."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.cancelled = False
        self.errors: list[ApiError] = []

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        self.asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return None

    def on_error(self, error: ApiError, ctx: PolicyContext) -> None:
        self.errors.append(error)


@pytest.mark.parametrize(("path", "ping"), [(OPENAI, b": ping\n\n"), (ANTHROPIC, b"event: ping\n"), (RESPONSES, b": ping\n\n")])
async def test_a_client_gets_pings_and_nothing_of_the_block_while_a_judge_holds(path: str, ping: bytes) -> None:
    """Pings have the right shape; the held call comes whole after the verdict."""
    judge = Judge()
    script = chunks("Look:", ToolCall("c1", "bash", '{"a":1}'))
    app, _, _ = make([script], policy=judge, settings=StreamSettings(ping_interval=0.01))
    async with ASGIDriver(app).request("POST", path, json=asked(path)) as response:
        got = b""
        while ping not in got:
            got += await response.part() or b""
        assert b"Look:" in got
        assert b"bash" not in got
        judge.go.set()
        rest = await response.read()
        await response.done()
    assert b"bash" in rest


# --- the client leaves --------------------------------------------------------------------------------------------------------


async def left(app: Any, path: str, *, stream: bool, until: asyncio.Event | None = None, parts: int = 0) -> None:
    """Send a request, wait for the phase, leave, and wait until the app has returned."""
    driver = ASGIDriver(app)
    async with driver.request("POST", path, json=asked(path, stream=stream), wait=False) as response:
        for _ in range(parts):
            await response.part()
        if until is not None:
            await until.wait()
        await wait_all_tasks_blocked()
        response.disconnect()
        await response.done()


@pytest.mark.broken_off
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["before the first chunk", "mid-stream", "while a judge holds", "while opening"])
async def test_a_client_that_leaves_closes_everything(path: str, stream: bool, phase: str) -> None:
    """In each phase the upstream is closed, the judge cancelled, the record says so, and no task is left."""
    judge = Judge()
    never = asyncio.Event()
    scripts: dict[str, Any] = {
        "before the first chunk": [never],
        "mid-stream": [role(), text_chunk("a"), never],
        "while a judge holds": chunks("a", ToolCall("c", "f", "{}")),
    }
    backend = Hanging() if phase == "while opening" else ScriptedBackend([scripts[phase]])
    app, _, recorder = make(backend, policy=judge)
    before = asyncio.all_tasks()
    async with asyncio.timeout(5):
        until = judge.asked if phase == "while a judge holds" else None
        await left(app, path, stream=stream, until=until, parts=1 if stream and phase == "mid-stream" else 0)
    if isinstance(backend, Hanging):
        assert backend.cancelled
    else:
        assert backend.streams[0].closed.is_set()
    assert judge.cancelled is (phase == "while a judge holds")
    assert [end.ending for end in recorder.ended] == ["client_disconnected"]
    assert len(judge.errors) == 1
    assert {task for task in asyncio.all_tasks() - before if "_shutdown_watcher" not in repr(task)} == set()


class Hanging(ScriptedBackend):
    """Never opens."""

    def __init__(self) -> None:
        super().__init__(chunks("x"))
        self.cancelled = False

    async def open(self, call: Any) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.mark.broken_off
async def test_a_client_that_leaves_while_it_sends_begins_nothing() -> None:
    """A body that never ends is no transaction."""
    app, backend, recorder = make()
    async with ASGIDriver(app).request("POST", OPENAI, content=[b"{"], whole=False, wait=False) as response:
        await wait_all_tasks_blocked()
        response.disconnect()
        await response.done()
    assert (backend.calls, recorder.begun) == ([], [])


@pytest.mark.broken_off
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_client_that_does_not_read_is_left_in_bounded_time_and_memory(spec_version: Any) -> None:
    """The queues fill, the breaker or the send timeout opens, and the upstream is closed."""
    script = [role(), *[text_chunk("x" * 1000) for _ in range(500)]]
    settings = StreamSettings(queue_size=5, queue_timeout=0.02, send_timeout=0.02)
    app, backend, recorder = make([script], settings=settings)
    async with ASGIDriver(app, buffer=1, spec_version=spec_version).request("POST", OPENAI, json=body()) as response:
        await response.done()
    assert backend.streams[0].closed.is_set()
    assert recorder.ended[0].ending in {"client_disconnected", "failed"}


@pytest.mark.broken_off
async def test_a_request_that_the_server_cancels_is_recorded() -> None:
    """Cancellation from outside still writes the end record and closes the upstream."""
    never = asyncio.Event()
    app, backend, recorder = make([[role(), never]])
    sent = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": json.dumps(body()).encode()}
        await never.wait()
        raise AssertionError

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": OPENAI, "headers": []}
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(app(scope, receive, send))  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        task.cancel()
    assert backend.streams[0].closed.is_set()
    assert [end.ending for end in recorder.ended] == ["shutdown"]


# --- the record ---------------------------------------------------------------------------------------------------------------


class DenyBash(Policy):
    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("Not allowed.", "shell") if block.name == "bash" else None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
async def test_the_record_has_both_boundaries(path: str, stream: bool) -> None:
    """What the model said, what the client got, the verdict, the usage, the timings, how it ended."""
    app, _, recorder = make([chunks("Look:", ToolCall("c1", "bash", "{}"))], policy=DenyBash())
    got = await ASGIDriver(app).fetch("POST", path, json=asked(path, stream=stream))
    [begin], [end] = recorder.begun, recorder.ended
    assert begin.id == end.id == got.headers["x-luthien-transaction"]
    assert [(str(b.kind), b.text or b.name) for b in end.backend_blocks] == [("text", "Look:"), ("tool_call", "{}")]
    assert [str(b.kind) for b in end.final_blocks] == ["text", "text"]
    assert "Not allowed." in end.final_blocks[1].text
    assert [(v.verdict, v.action, v.tool) for v in end.verdicts] == [("deny", "deny", "bash")]
    assert end.usage is not None
    assert end.finish_reasons == {0: "tool_calls"}
    assert {"backend_called", "first_chunk", "first_byte", "backend_finished", "end"} <= set(end.timings)
    assert (end.ending, end.status, end.error) == ("completed", 200, None)
    assert b"bash" not in got.body


async def test_an_answer_that_the_policy_stopped_is_recorded_as_stopped() -> None:
    """Stop is an ending of its own."""

    class StopAll(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            return Stop("Enough.")

    app, backend, recorder = make(policy=StopAll())
    got = await ASGIDriver(app).fetch("POST", ANTHROPIC, json=body())
    assert accumulate_anthropic(got.body).body["stop_reason"] == "end_turn"
    assert recorder.ended[0].ending == "stopped"
    assert backend.streams[0].closed.is_set()


async def test_on_error_is_told_once_what_the_client_was_told_and_may_fail() -> None:
    """Each transaction that fails calls on_error once; what it raises changes nothing."""
    told: list[str] = []

    class Watch(Policy):
        def on_error(self, error: ApiError, ctx: PolicyContext) -> None:
            told.append(error.message)
            raise KeyError("x")

    app, _, _ = make([BackendError("no", status=429), chunks("fine")], policy=Watch())
    driver = ASGIDriver(app)
    assert (await driver.fetch("POST", OPENAI, json=body())).status == 429
    assert (await driver.fetch("POST", OPENAI, json=body())).status == 200
    assert told == ["no"]


# --- start and end ------------------------------------------------------------------------------------------------------------


class Opened(MemoryRecorder):
    def __init__(self) -> None:
        super().__init__()
        self.happened: list[str] = []

    async def start(self) -> None:
        self.happened.append("start")

    async def aclose(self) -> None:
        self.happened.append("close")


async def lifespan_app(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def test_a_lifespan_opens_and_closes_what_the_middleware_needs() -> None:
    """Start-up opens, shutdown closes, once each, also with requests between them."""
    recorder = Opened()
    app, _, _ = make(recorder=recorder, app=lifespan_app)
    driver = ASGIDriver(app)
    async with driver.lifespan():
        assert recorder.happened == ["start"]
        await driver.fetch("POST", OPENAI, json=body())
    assert recorder.happened == ["start", "close"]


async def test_without_a_lifespan_the_first_request_opens_and_aclose_closes() -> None:
    """A mounted middleware works without a lifespan."""
    recorder = Opened()
    app, _, _ = make(recorder=recorder)
    driver = ASGIDriver(app)
    await asyncio.gather(*(driver.fetch("POST", OPENAI, json=body()) for _ in range(3)))
    assert recorder.happened == ["start"]
    await app.aclose()
    assert recorder.happened == ["start", "close"]


async def test_a_start_up_that_fails_is_reported_to_the_server() -> None:
    """A recorder that cannot open fails the start-up."""
    app, _, _ = make(recorder=FailingRecorder(at="start"), app=lifespan_app)
    with pytest.raises(RuntimeError, match="no disk"):
        async with ASGIDriver(app).lifespan():
            pass


async def test_two_streams_at_once_do_not_mix() -> None:
    """Concurrent answers on one policy object keep their own state."""

    class Count(Policy):
        handles: ClassVar = {BlockKind.TEXT: Hold()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            state = ctx.state(list[str])
            state.append(block.text)
            return Deny(f"{len(state)}:{block.text}")

    app, _, _ = make([chunks(f"text {n}") for n in range(20)], policy=Count())
    driver = ASGIDriver(app)
    answers = await asyncio.gather(*(driver.fetch("POST", OPENAI, json=body()) for _ in range(20)))
    got = {accumulate_openai(answer.body).body["choices"][0]["message"]["content"] for answer in answers}
    assert got == {f"1:text {n}" for n in range(20)}


async def test_a_failure_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An operator sees which transaction, which model and why; a message cannot begin a line of its own."""
    app, _, recorder = make([BackendError("busy\nFORGED line", status=529)])
    await ASGIDriver(app).fetch("POST", OPENAI, json=body())
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("luthien_asgi")]
    assert recorder.begun[0].id in line
    assert "'scripted'" in line
    assert "529" in line
    assert "\n" not in line


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_never_ends_is_a_408(path: str) -> None:
    """An idle body does not keep its place for ever."""
    app, backend, _ = make(settings=StreamSettings(body_timeout=0.01))
    async with ASGIDriver(app).request("POST", path, content=[b"{"], whole=False) as response:
        assert response.status == 408
        await response.read()
    assert backend.calls == []


async def test_the_number_of_parts_and_choices_is_bounded() -> None:
    """What costs the event loop time for each part, and the encoder for each choice, has a limit with a name."""
    app, _, _ = make(limits=Limits(parts=2, choices=3))
    many = [{"role": "user", "content": [{"type": "text", "text": "x"}] * 3}]
    driver = ASGIDriver(app)
    for path in (OPENAI, ANTHROPIC):
        got = await driver.fetch("POST", path, json=body(messages=many))
        assert (got.status, "parts" in got.json()["error"]["message"]) == (400, True)
    assert (await driver.fetch("POST", OPENAI, json=body(n=4))).status == 400
