"""Whole responses."""

from __future__ import annotations

from typing import Any

from luthien_asgi.responses import send_error, send_json


class Sent:
    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def __call__(self, message: Any) -> None:
        self.messages.append(message)


async def test_a_json_response_has_type_and_length() -> None:
    """Two messages, the headers in bytes, the body whole."""
    sent = Sent()
    await send_json(sent, 200, {"a": "é"}, {"x-id": "1"})
    start, body = sent.messages
    headers = dict(start["headers"])
    assert body == {"type": "http.response.body", "body": '{"a":"é"}'.encode(), "more_body": False}
    assert headers == {b"x-id": b"1", b"content-type": b"application/json", b"content-length": b"10"}


async def test_an_error_never_looks_like_an_answer() -> None:
    """A status that is none of an error's becomes 500; errors are not cached."""
    sent = Sent()
    await send_error(sent, 200, {}, {})
    assert sent.messages[0]["status"] == 500
    assert dict(sent.messages[0]["headers"])[b"cache-control"] == b"no-store"
    await send_error(sent, 529, {}, {})
    assert sent.messages[2]["status"] == 529
