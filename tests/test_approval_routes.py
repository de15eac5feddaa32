"""Operators over real HTTP: what waits is listed, an answer lets the held block go on or takes it out, and nobody else may."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import httpx
import pytest

from luthien_asgi import (
    Approval,
    Approvals,
    Block,
    BlockKind,
    ConfigError,
    Escalate,
    Handling,
    Hold,
    KeyAuth,
    LuthienMiddleware,
    Paths,
    Policy,
    StreamContext,
    StreamSettings,
    Verdict,
)
from luthien_asgi.invisible import is_visible
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, ToolCall, chunks

OPERATOR = {"authorization": "Bearer operator-key-1"}
CLIENT = {"authorization": "Bearer client-key-22"}
AT = "/luthien/approvals"
SECOND = 10.0
EVIL = "a\u202eb\x9b31mc\U000e0041\u3164\ufe0f\u2800"
ANSWER = chunks("I will look.", ToolCall("call_1", "bash", {"command": "rm -rf /", "why": EVIL}))


class Asking(Policy):
    """Asks a person about each tool call."""

    handles: ClassVar[dict[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Escalate,)

    def __init__(self, **more: Any) -> None:
        self._more = more

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
        return Escalate("May it?", message="A person said no.", **self._more)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The wrapped app: says 418 to everything, so that what reaches it is seen."""
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Stage:
    """A served middleware whose policy asks, a client in a thread, and what was asked."""

    def __init__(self, serve: Callable[..., str], **more: Any) -> None:
        self.asked: queue.Queue[Approval] = queue.Queue()
        self.left: queue.Queue[str] = queue.Queue()
        self.desk = Approvals(auth=KeyAuth({"alice": "operator-key-1"}), notify=self._note)
        self.app = LuthienMiddleware(
            nothing,
            backend=ScriptedBackend(ANSWER),
            policy=Asking(**more),
            auth=KeyAuth({"carol": "client-key-22"}),
            settings=StreamSettings(ping_interval=0.05, commit_after=0.05, body_timeout=2.0),
            paths=Paths(approvals=AT),
            approvals=self.desk,
        )
        self.url = serve(self.app, lifespan="off")
        self._threads = ThreadPoolExecutor(4)

    async def _note(self, approval: Approval) -> None:
        self.asked.put(approval)
        try:
            await asyncio.Event().wait()  # until it is cancelled, since something has decided
        finally:
            self.left.put(approval.id)

    def ask(self, *, stream: bool = True) -> Future[httpx.Response]:
        """Begin a client's request in a thread."""
        return self._threads.submit(self._completed, stream)

    def _completed(self, stream: bool) -> httpx.Response:
        body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        return httpx.post(self.url + "/v1/chat/completions", json=body, headers=CLIENT, timeout=SECOND)

    def waits(self) -> Approval:
        """Wait until something waits for a person."""
        return self.asked.get(timeout=SECOND)

    def listed(self, **more: Any) -> httpx.Response:
        return httpx.get(self.url + AT, headers=OPERATOR, **more)

    def answer(self, approval_id: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{AT}/{approval_id}", json=body, headers=OPERATOR, **more)

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture(scope="module")
def stage(serve: Callable[..., str]) -> Iterator[Stage]:
    stage = Stage(serve)
    yield stage
    stage.close()


# --- the way of an approval


@pytest.mark.parametrize("stream", [True, False])
def test_an_operator_lets_a_call_go_on(stage: Stage, stream: bool) -> None:
    """It is in the list with all that a person needs, the stream shows pings, and after the answer the call leaves."""
    answer = stage.ask(stream=stream)
    approval = stage.waits()
    listed = stage.listed()
    assert listed.status_code == 200
    assert listed.headers["cache-control"] == "no-store"
    assert listed.headers["content-type"] == "application/json"
    (shown,) = listed.json()
    assert shown == {name: getattr(approval, name) for name in Approval.__slots__}
    assert json.loads(shown["content"])["command"] == "rm -rf /"
    assert (shown["tool"], shown["client"], shown["model"], shown["kind"]) == ("bash", "carol", "scripted", "tool_call")
    assert not answer.done()
    said = stage.answer(approval.id, {"decision": "allow", "reason": "I looked"})
    assert (said.status_code, said.headers["cache-control"]) == (200, "no-store")
    assert said.json() == {"id": approval.id, "decision": "allow", "by": "operator:alice", "reason": "I looked"}
    response = answer.result(SECOND)
    assert response.headers["x-luthien-transaction"] == approval.transaction_id
    assert "rm -rf /" in response.text
    assert stage.listed().json() == []


def test_an_operator_denies_a_call(stage: Stage) -> None:
    """Nothing of it leaves, while it waits and afterwards."""
    answer = stage.ask()
    approval = stage.waits()
    assert stage.answer(approval.id, {"decision": "deny"}).json()["decision"] == "deny"
    response = answer.result(SECOND)
    assert "rm -rf" not in response.text
    assert "A person said no." in response.text


def test_a_stream_that_waits_shows_pings(stage: Stage) -> None:
    """The client sees that the answer is alive, and nothing of the call."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with httpx.stream("POST", stage.url + "/v1/chat/completions", json=body, headers=CLIENT, timeout=SECOND) as response:
        lines = response.iter_lines()
        seen: list[str] = []
        while sum(line.startswith(":") for line in seen) < 2:
            seen.append(next(lines))
        assert "I will look." in "".join(seen)
        assert "rm -rf" not in "".join(seen)
        stage.answer(stage.waits().id, {"decision": "allow"})
        assert "rm -rf" in "".join(lines)


def test_of_many_answers_one_is_taken(stage: Stage) -> None:
    """The others are told which, and by whom, also later."""
    answer = stage.ask()
    approval = stage.waits()
    with ThreadPoolExecutor(8) as threads:
        words = ["allow", "deny"] * 4
        said = list(threads.map(lambda word: stage.answer(approval.id, {"decision": word}), words))
    (taken,) = [one.json() for one in said if one.status_code == 200]
    word = "allowed" if taken["decision"] == "allow" else "denied"
    late = {"error": {"type": "conflict_error", "message": f"It was {word} before, by operator:alice.", "param": None}}
    assert [one.json() for one in said if one.status_code != 200] == [late] * 7
    assert {one.status_code for one in said} == {200, 409}
    assert ("rm -rf /" in answer.result(SECOND).text) is (taken["decision"] == "allow")
    assert stage.answer(approval.id, {"decision": "allow"}).json() == late


@pytest.mark.broken_off
def test_what_a_client_leaves_behind_is_gone(stage: Stage) -> None:
    """Its approval is out of the list, and an answer is to nothing."""
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
    host, port = stage.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer client-key-22\r\n"
            b"content-type: application/json\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        approval = stage.waits()
    while stage.left.get(timeout=SECOND) != approval.id:
        pass
    assert stage.listed().json() == []
    refused = stage.answer(approval.id, {"decision": "allow"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (404, "Nothing waits under this id.")


@pytest.mark.parametrize(("default", "left"), [("allow", True), ("deny", False)])
def test_the_default_answers_in_the_end(serve: Callable[..., str], default: Any, left: bool) -> None:
    """A second answer is told so."""
    stage = Stage(serve, default=default, timeout=0.05)
    assert ("rm -rf" in stage.ask().result(SECOND).text) is left
    late = stage.answer(stage.waits().id, {"decision": "deny"})
    assert late.status_code == 409
    assert late.json()["error"]["message"] == f"It was {'allowed' if left else 'denied'} before, by timeout."
    stage.close()


async def test_closing_the_middleware_denies_what_waits() -> None:
    """Whoever closes it by hand does not wait for a person."""
    desk = Approvals(auth=KeyAuth(["operator-key-1"]))
    app = LuthienMiddleware(
        nothing,
        backend=ScriptedBackend(ANSWER),
        policy=Asking(default="allow"),
        settings=StreamSettings(ping_interval=0.01),
        approvals=desk,
    )
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=body) as response:
        seen = b""
        async for part in response:
            seen += part
            if desk.waiting():
                await app.aclose()
    assert b"rm -rf" not in seen
    assert b"A person said no." in seen


# --- who may not


@pytest.mark.parametrize(
    "headers",
    [
        {},
        CLIENT,
        {"authorization": "Bearer operator-key-2"},
        {"authorization": "operator-key-1"},
        {**OPERATOR, "x-api-key": "client-key-22"},
    ],
)
def test_without_an_operators_key_nothing_is_shown_or_done(stage: Stage, headers: dict[str, str]) -> None:
    """A client's key is not one, and two keys are none."""
    answer = stage.ask()
    approval = stage.waits()
    listed = httpx.get(stage.url + AT, headers=headers)
    answered = httpx.post(f"{stage.url}{AT}/{approval.id}", json={"decision": "allow"}, headers=headers)
    for refused in (listed, answered):
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["cache-control"] == "no-store"
        assert set(refused.json()["error"]) == {"type", "message", "param"}
        assert approval.id not in refused.text
    stage.answer(approval.id, {"decision": "deny"})
    assert "rm -rf" not in answer.result(SECOND).text


def test_an_operators_key_is_no_clients(stage: Stage) -> None:
    """Whoever decides may not ask with the same key."""
    assert httpx.post(stage.url + "/v1/chat/completions", json={}, headers=OPERATOR).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "0123456789abcdef-" + "0" * 32,
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%2f" + "0" * 13 + "-" + "0" * 32,
        "x" * 5_000,
        "%00",
        "%ff",
        "a/b",
    ],
)
def test_an_id_that_is_not_there_is_a_404(stage: Stage, path: str) -> None:
    """Whatever it is made of; the wrapped app does not see it."""
    refused = stage.answer(path, {"decision": "allow"})
    assert refused.status_code == 404
    message = {"type": "not_found_error", "message": "Nothing waits under this id.", "param": None}
    assert refused.json() == {"error": message}


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", AT), ("POST", AT), ("GET", AT + "/x"), ("POST", AT + "x"), ("POST", AT + "/")]
)
def test_other_routes_reach_the_wrapped_app(stage: Stage, method: str, path: str) -> None:
    assert httpx.request(method, stage.url + path, headers=OPERATOR).status_code == 418


# --- what is no answer


@pytest.mark.parametrize(
    ("content", "param", "message"),
    [
        (b"", None, "The body is not JSON."),
        (b"{", None, "The body is not JSON."),
        (b"\xff", None, "The body is not JSON."),
        (b"[" * 10_000, None, "The body is not JSON."),
        (b'"allow"', None, 'The body must be an object: {"decision": "allow", "reason": "…"}.'),
        (b"{}", "decision", "decision must be allow or deny."),
        (b'{"decision": true}', "decision", "decision must be allow or deny."),
        (b'{"decision": "Allow"}', "decision", "decision must be allow or deny."),
        (b'{"decision": ["allow"]}', "decision", "decision must be allow or deny."),
        (b'{"decision": "allow", "reason": null}', "reason", "reason must be a text of at most 2000 characters."),
        (
            b'{"decision": "allow", "reason": "' + b"a" * 2_001 + b'"}',
            "reason",
            "reason must be a text of at most 2000 characters.",
        ),
        (b'{"decision": "allow", "by": "bob"}', "by", "There is no field 'by' here: decision and reason are."),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(stage: Stage, content: bytes, param: str | None, message: str) -> None:
    """And decides nothing."""
    answer = stage.ask()
    approval = stage.waits()
    url, headers = f"{stage.url}{AT}/{approval.id}", {**OPERATOR, "content-type": "application/json"}
    refused = httpx.post(url, content=content, headers=headers)
    assert refused.status_code == 400
    assert refused.json() == {"error": {"type": "invalid_request_error", "message": message, "param": param}}
    assert [one["id"] for one in stage.listed().json()] == [approval.id]
    stage.answer(approval.id, {"decision": "deny"})
    answer.result(SECOND)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"])
def test_another_type_is_a_415(stage: Stage, kind: str | None) -> None:
    """A web page may send these to loopback without asking."""
    headers = OPERATOR if kind is None else {**OPERATOR, "content-type": kind}
    refused = httpx.post(f"{stage.url}{AT}/{'0' * 16}-{'0' * 32}", content=b'{"decision": "allow"}', headers=headers)
    assert (refused.status_code, refused.json()["error"]["message"]) == (415, "The Content-Type must be application/json.")


def test_json_with_a_charset_is_json(stage: Stage) -> None:
    headers = {**OPERATOR, "content-type": "Application/JSON; charset=utf-8"}
    url = f"{stage.url}{AT}/{'0' * 16}-{'0' * 32}"
    assert httpx.post(url, content=b'{"decision": "allow"}', headers=headers).status_code == 404


def test_a_body_that_is_too_long_is_a_413(stage: Stage) -> None:
    """Before it is read to its end."""
    body = {"decision": "allow", "reason": "a" * 20_000}
    refused = stage.answer("0" * 16 + "-" + "0" * 32, body)
    assert (refused.status_code, refused.json()["error"]["type"]) == (413, "request_too_large")


def test_a_body_that_does_not_come_is_a_408(stage: Stage) -> None:
    """An operator's connection holds nothing up for long."""
    host, port = stage.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SECOND) as client:
        client.sendall(
            f"POST {AT}/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer operator-key-1\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


# --- what an operator's terminal gets


def test_what_is_not_printable_is_escaped(stage: Stage) -> None:
    """A model's text does nothing to a terminal, and to a program it is the same text."""
    answer = stage.ask()
    approval = stage.waits()
    listed = stage.listed()
    (shown,) = listed.json()
    assert json.loads(shown["content"])["why"] == EVIL
    assert all(is_visible(character) or character == "\n" for character in listed.text)
    assert "\\u202eb\\u009b31mc\\udb40\\udc41\\u3164\\ufe0f\\u2800" in listed.text
    assert listed.text.endswith("\n")
    stage.answer(approval.id, {"decision": "deny"})
    answer.result(SECOND)


# --- what is refused when it is made


def middleware(**more: Any) -> LuthienMiddleware:
    return LuthienMiddleware(nothing, backend=ScriptedBackend(ANSWER), **more)


def test_the_routes_need_a_desk_with_operators() -> None:
    """Else nobody could answer, or everybody."""
    for approvals in (None, Approvals()):
        with pytest.raises(ConfigError, match="/luthien/approvals is for operators: give approvals="):
            middleware(paths=Paths(approvals=AT), approvals=approvals)


def test_a_clients_key_is_no_operators_key() -> None:
    """A client would approve its own requests."""
    with pytest.raises(ConfigError, match="an operator has the key of a client"):
        middleware(auth=KeyAuth(["the-same-key"]), approvals=Approvals(auth=KeyAuth(["the-same-key"])))


async def test_a_desk_without_operators_answers_nobody() -> None:
    """Its routes are not there; were they, they would say 403."""
    desk = Approvals()
    app = middleware(approvals=desk)
    assert (await ASGIDriver(app).fetch("GET", AT)).status == 418
    app._routes._exact["GET", AT] = "approvals"
    assert (await ASGIDriver(app).fetch("GET", AT)).status == 403
    await app.aclose()


def test_two_routes_cannot_have_one_path() -> None:
    with pytest.raises(ConfigError, match="the path of approvals must begin with / and be its own"):
        middleware(paths=Paths(approvals="/x", models="/x"), approvals=Approvals(auth=KeyAuth(["operator-key-1"])))
