"""Where each limit is, to the one: what is at the limit is served, one more is refused, in every client's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

import pytest

from luthien_asgi import Limits, LuthienMiddleware, MemoryRecorder
from luthien_asgi.jsontext import dumps
from luthien_asgi.testing import ASGIDriver, Fetched, ScriptedBackend, chunks

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS: Final = (CHAT, MESSAGES, RESPONSES)
NOT_HERE: Final = {
    "streams": "tests/test_middleware.py",
    "client_streams": "tests/test_clients.py",
    "unauthenticated": "tests/test_places.py",
    "frame_bytes": "tests/wire/test_sse.py",
}
"""What has a test of its own: it is not about one request."""


def asked(path: str, **more: Any) -> dict[str, Any]:
    if path == RESPONSES:
        return {"model": "scripted", "input": "Hi", **more}
    return {"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **more}


def conversation(path: str, messages: list[Any]) -> bytes:
    body = asked(path)
    body["input" if path == RESPONSES else "messages"] = messages
    return dumps(body)


def tool(path: str, number: int, schema: Any = None) -> dict[str, Any]:
    name, schema = f"tool_{number}", {"type": "object"} if schema is None else schema
    if path == MESSAGES:
        return {"name": name, "input_schema": schema}
    function = {"name": name, "parameters": schema}
    return {"type": "function", "function": function} if path == CHAT else {"type": "function", **function}


def of_bytes(path: str, number: int) -> bytes:
    body = dumps(asked(path))
    return body[:-1] + b" " * (number - len(body)) + b"}"


def of_depth(path: str, number: int) -> bytes:
    schema: Any = {}
    bare = depth(asked(path, tools=[tool(path, 1, {})]))
    for _ in range(number - bare):
        schema = {"a": schema}
    return dumps(asked(path, tools=[tool(path, 1, schema)]))


def depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def of_items(path: str, number: int) -> bytes:
    empty = dumps(asked(path, tools=[tool(path, 1, {"enum": [",[{" * 9]})]))
    bare = sum(empty.replace(b",[{" * 9, b"").count(mark) for mark in (b",", b"[", b"{"))
    return dumps(asked(path, tools=[tool(path, 1, {"enum": [",[{" * 9, *range(number - bare)]})]))


def of_messages(path: str, number: int) -> bytes:
    return conversation(path, [{"role": "user", "content": "Hi"}] * number)


def of_parts(path: str, number: int) -> bytes:
    part = {"type": "input_text" if path == RESPONSES else "text", "text": "Hi"}
    return conversation(path, [{"role": "user", "content": [part] * (number - 2)}, {"role": "user", "content": [part] * 2}])


def of_choices(path: str, number: int) -> bytes:
    return dumps(asked(path, n=number))


def of_tools(path: str, number: int) -> bytes:
    return dumps(asked(path, tools=[tool(path, each) for each in range(number)]))


SIZES: Final[Mapping[str, tuple[int, int, Callable[[str, int], bytes]]]] = {
    "body_bytes": (700, 413, of_bytes),
    "json_depth": (9, 400, of_depth),
    "json_items": (40, 400, of_items),
    "messages": (3, 400, of_messages),
    "parts": (5, 400, of_parts),
    "choices": (2, 400, of_choices),
    "tools": (3, 400, of_tools),
}
"""A limit, the status beyond it, and a body that has exactly so much of it."""


def test_every_limit_has_its_place_shown() -> None:
    """A limit that is added is shown here, or has a place of its own."""
    assert {*SIZES, *NOT_HERE, "header_bytes"} == {field.name for field in fields(Limits)}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["path"])


class Gateway:
    """A middleware with one limit, and what happened behind it."""

    def __init__(self, **limits: int) -> None:
        self.backend, self.recorder = ScriptedBackend(chunks("Hello")), MemoryRecorder()
        app = LuthienMiddleware(nothing, backend=self.backend, recorder=self.recorder, limits=Limits(**limits))
        self.driver = ASGIDriver(app)

    async def post(self, path: str, content: bytes | list[bytes], **headers: str) -> Fetched:
        return await self.driver.fetch("POST", path, content=content, headers={"content-type": "application/json", **headers})


def check_refused(gateway: Gateway, got: Fetched, status: int, name: str, limit: int) -> None:
    message = json.loads(got.body)["error"]["message"]
    assert (got.status, f"({name})" in message, str(limit) in message) == (status, True, True), message
    assert (gateway.backend.calls, gateway.recorder.begun) == ([], [])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SIZES)
async def test_the_limit_is_served_and_one_more_is_refused(name: str, path: str) -> None:
    """One more costs no call and no transaction, and the message says which limit it was."""
    if name == "choices" and path != CHAT:
        pytest.skip("only OpenAI's chat completions have n")
    limit, status, sized = SIZES[name]
    gateway = Gateway(**{name: limit})
    check_refused(gateway, await gateway.post(path, sized(path, limit + 1)), status, name, limit)
    served = await gateway.post(path, sized(path, limit))
    assert served.status == 200, served.body
    assert len(gateway.backend.calls) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_the_body_is_counted_as_it_comes_too(path: str) -> None:
    """In chunks without a length, however it is cut; a length that promises less does not help."""
    for cut, headers in ((1, {}), (300, {}), (700, {"content-length": "10"}), (701, {"content-length": "0"})):
        gateway, long, fits = Gateway(body_bytes=700), of_bytes(path, 701), of_bytes(path, 700)
        pieces = [long[start : start + cut] for start in range(0, 701, cut)]
        check_refused(gateway, await gateway.post(path, pieces, **headers), 413, "body_bytes", 700)
        assert (await gateway.post(path, [fits[:cut], fits[cut:], b""])).status == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("promised", ["701", "0701", "99999999999", "9" * 5000])
async def test_a_body_that_is_announced_to_be_too_long_is_not_read(path: str, promised: str) -> None:
    """The answer is there while the client has not sent a byte of it."""
    gateway = Gateway(body_bytes=700)
    headers = {"content-type": "application/json", "content-length": promised}
    async with gateway.driver.request("POST", path, content=[b""], whole=False, headers=headers) as response:
        check_refused(gateway, Fetched(response.status, response.headers, [await response.read()]), 413, "body_bytes", 700)


@pytest.mark.parametrize("promised", ["700", "0", "000700", "0" * 5000, "-1", "7e9", "", "12, 12", "٩٩٩٩٩"])
async def test_a_length_that_says_nothing_against_it_is_left_to_the_server(promised: str) -> None:
    """What is no number, or a small one, does not keep a body from being read."""
    gateway = Gateway(body_bytes=700)
    scope_headers = {"content-length": promised} if promised.isascii() else {}
    assert (await gateway.post(CHAT, of_bytes(CHAT, 700), **scope_headers)).status == 200


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens"])
async def test_headers_are_bounded_with_what_each_takes(path: str) -> None:
    """Many small ones as one long one; they are not read, so nothing is told from them."""
    base = {"host": "testserver", "content-length": str(len(dumps(asked(path)))), "content-type": "application/json"}
    used = sum(len(name) + len(value) + 32 for name, value in base.items())
    limit = used + 1000
    for more, fits in (
        ({"x": "a" * (1000 - 33)}, True),
        ({"x": "a" * (1000 - 32)}, False),
        ({f"x-{n:06}": "" for n in range(25)}, True),
        ({f"x-{n:06}": "" for n in range(26)}, False),
    ):
        gateway = Gateway(header_bytes=limit)
        body = dumps({name: value for name, value in asked(path).items() if "count" not in path or name != "max_tokens"})
        got = await gateway.post(path, body + b" " * (len(dumps(asked(path))) - len(body)), **more)
        if fits:
            assert got.status == 200
        else:
            check_refused(gateway, got, 431, "header_bytes", limit)


@pytest.mark.parametrize("path", PATHS)
async def test_hostile_numbers_and_nesting_are_errors_of_the_client(path: str) -> None:
    """Digits without end, numbers beyond a double, nesting without end: a 400 and no crash."""
    body = dumps(asked(path))[:-1] + b', "temperature": '
    for number in (b"1" * 5000, b"1e999", b"-1e999", b"NaN", b"[" * 100_000, b'{"a":' * 100_000):
        gateway = Gateway()
        got = await gateway.post(path, body + number + b"}")
        assert (got.status, gateway.backend.calls) == (400, [])
    got = await gateway.post(path, b"[" * 100_000)
    assert "64 levels deep (json_depth)" in json.loads(got.body)["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_of_a_field_that_is_there_twice_the_last_counts_and_alone_goes_on(path: str) -> None:
    """What is judged is what is sent."""
    gateway = Gateway()
    body = dumps(asked(path))
    twice = b'{"model": "other", "temperature": 2,' + body[1:-1] + b', "temperature": 1}'
    assert (await gateway.post(path, twice)).status == 200
    (call,) = gateway.backend.calls
    assert (call.request.body["model"], call.request.body["temperature"]) == ("scripted", 1)


@pytest.mark.parametrize("path", PATHS)
async def test_the_name_of_a_model_is_bounded(path: str) -> None:
    """It is looked for in patterns."""
    gateway = Gateway()
    assert (await gateway.post(path, dumps(asked(path, model="m" * 500)))).status == 200
    got = await gateway.post(path, dumps(asked(path, model="m" * 501)))
    assert (got.status, "longer than 500" in got.body.decode()) == (400, True)
