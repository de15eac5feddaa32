"""The watch around an app: what leaves is validated, streamed or not, and nothing about it changes."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi import LuthienMiddleware, Policy
from luthien_asgi.testing import ASGIDriver, ResponseWatch, ScriptedBackend, ToolCall, chunks

PATHS: dict[Any, str] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
ILLEGAL: dict[Any, bytes] = {
    "openai": b'data: {"id": 1}\n\ndata: [DONE]\n\n',
    "anthropic": b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
}


def answering(body: bytes, *, status: int = 200, kind: str = "text/event-stream", more: bool = False) -> Any:
    """Return an app that answers so to every request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"Content-Type", kind.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


async def watched(app: Any, wire: Any, **request: Any) -> ResponseWatch:
    """Send one request to an app with a watch around it."""
    watch = ResponseWatch(wire)

    async def around(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, watch.receiving(receive), watch.sending(send))

    async with ASGIDriver(around).request("POST", PATHS[wire], json={"model": "m", "messages": [], **request}) as response:
        while not response.app_done:
            if await response.part() is None:
                break
    return watch


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("wire", PATHS)
async def test_a_legal_answer_has_no_violation(wire: Any, stream: bool, usage: bool) -> None:
    """The request is read beside it, so it is known whether usage was asked for."""
    backend = ScriptedBackend(chunks("Hi", ToolCall("call_1", "f", {"a": 1})))
    app = LuthienMiddleware(answering(b""), backend=backend, policy=Policy(), auth=None)
    asked = {"stream_options": {"include_usage": True}} if usage and stream and wire == "openai" else {}
    messages = [{"role": "user", "content": "Hi"}]
    watch = await watched(app, wire, messages=messages, max_tokens=9, stream=stream, **asked)
    assert (watch.status, watch.complete, watch.finish()) == (200, True, [])


@pytest.mark.parametrize("wire", PATHS)
async def test_an_illegal_stream_is_noticed(wire: Any) -> None:
    """Each wire by its own rules."""
    watch = await watched(answering(ILLEGAL[wire]), wire)
    assert any(violation.severity == "error" for violation in watch.finish())


@pytest.mark.parametrize(("status", "body"), [(200, b'{"error": {"message": "x", "type": "y"}}'), (400, b"{}"), (500, b"oops")])
async def test_status_and_body_belong_together(status: int, body: bytes) -> None:
    """An error has an error's body, and only an error."""
    watch = await watched(answering(body, status=status, kind="application/json"), "openai")
    assert "status" in {violation.rule for violation in watch.finish()}


async def test_what_left_of_an_answer_that_was_broken_off_is_held_to_the_rules() -> None:
    """Its end is not missed."""
    watch = await watched(answering(b'data: {"id": 1}\n\n', more=True), "openai")
    assert not watch.complete
    rules = {violation.rule for violation in watch.finish()}
    assert "field" in rules
    assert "not-ended" not in rules


async def test_the_watch_of_this_suite_notices_an_illegal_answer(leaving: Any) -> None:
    """It is around every middleware of this process: an answer that is made illegal on its way is found."""
    before = leaving.answers
    backend = ScriptedBackend(chunks("Hi", finish_reason="stop"))
    app = LuthienMiddleware(answering(b""), backend=backend, auth=None)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    serve = app._serve

    async def twice(route: Any, scope: Any, receive: Any, send: Any) -> None:
        async def doubled(message: Any) -> None:
            await send(message | {"body": message["body"] * 2} if message.get("body") else message)

        await serve(route, scope, receive, doubled)

    app._serve = twice  # type: ignore[method-assign]
    await ASGIDriver(app).fetch("POST", PATHS["openai"], json=body)
    assert leaving.answers == before + 1
    assert {found.violation.rule for found in leaving.taken("illegal")} & {"after-end", "role-repeated"}
