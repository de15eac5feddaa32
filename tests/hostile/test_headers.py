"""Headers: what a client's may do to a call, what a provider's may do to an answer, and what names do to ours."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from hostile_stage import FORMATS, PATHS, Stage, question
from hostile_texts import EVIL

from luthien_asgi.testing import Answer, Failure, RawStream

pytestmark = pytest.mark.litellm

OURS = frozenset({"x-luthien-transaction", "x-luthien-ignored", "x-luthien-unchecked"})


def raw_ask(stage: Stage, wire: str, kind: str, lines: list[bytes]) -> bytes:
    """Ask over a socket, with header lines as they are; return the response's head, or what came of it."""
    body = json.dumps(question(wire, kind)).encode()
    head = [b"POST %s HTTP/1.1" % PATHS[wire].encode(), b"host: x", b"content-type: application/json", b"connection: close"]
    host, _, port = stage.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"\r\n".join([*head, *lines, b"content-length: %d" % len(body), b"", body]))
        received = b""
        while part := connection.recv(65536):
            received += part
    return received.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    "line",
    [
        b"anthropic-beta: a\x01b\x1b[31m",
        b"anthropic-beta: caf\xe9 \xff\x80",
        b"anthropic-version: 2023-06-01\x0b\x0cforged: 1",
        b"anthropic-version: 2023-06-01\rforged: 1",
        b"anthropic-version: 2023-06-01\nforged: 1",
        b"anthropic-beta: a\x00b",
        b"anthropic-beta: one\r\n forged: folded",
        b"anthropic-beta: " + b"a," * 5000,
        b"x-request-id: forged\x1b]0;t\x07",
        b"traceparent: 00-forged-\xff-01",
    ],
    ids=range(10),
)
@pytest.mark.parametrize("wire", FORMATS)
def test_odd_headers_of_a_client_add_no_line_to_a_call(stage: Stage, wire: str, line: bytes) -> None:
    """Refused, or sent on as one value of the same header; never as another line, and never a 500."""
    stage.provider.script = Answer("fine")
    for kind in ("openai", "anthropic"):
        status = int(raw_ask(stage, wire, kind, [line]).split(b" ")[1])
        calls = stage.calls()
        assert status in {200, 400, 431}, status
        for call in calls:
            assert {"forged"} & set(call.headers) == set()
            assert not any(letter < " " and letter != "\t" for value in call.headers.values() for letter in value)


@pytest.mark.parametrize(
    ("odd", "statuses"),
    [
        (
            {"x-request-id": "a\x0bb", "openai-organization": "a\x1b]0;t\x07b", "anthropic-note": "a\x7f", "forged": "1"},
            {200, 502},
        ),
        ({"x-request-id": "caf\xe9\xff"}, {200, 502}),
        ({"openai-organization": "\u202e".encode().decode("latin-1")}, {200, 502}),
        ({"anthropic-note": "a" * 5000}, {200}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wire", FORMATS)
def test_odd_headers_of_a_provider_do_no_harm(stage: Stage, wire: str, stream: bool, odd: Any, statuses: set[int]) -> None:
    """Values with control characters are dropped. LiteLLM's client refuses some answers: the provider's fault."""
    for kind in ("openai", "vllm", "anthropic"):
        stage.provider.script = RawStream(rendered_answer("anthropic" if kind == "anthropic" else "openai"), headers=odd)
        got = stage.ask(wire, question(wire, kind, stream=stream))
        assert got.status in statuses, got.body
        assert "forged" not in got.headers
        assert not any(letter < " " or letter == "\x7f" for value in got.headers.values() for letter in value)
    stage.calls()


def rendered_answer(kind: str) -> bytes:
    if kind == "openai":
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        delta = {"index": 0, "delta": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
        return b"data: " + json.dumps({**chunk, "choices": [delta]}).encode() + b"\n\ndata: [DONE]\n\n"
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {**message, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fine"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ("7", "7"),
        ("0.5", "0.5"),
        ("Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT"),
        ("soon", None),
        ("-1", None),
        ("1e9", None),
        ("nan", None),
        ("9" * 400, None),
        ("7\x1b[31m", None),
        ("7; forged", None),
        ("\xb2", None),
    ],
)
@pytest.mark.parametrize("wire", FORMATS)
def test_retry_after_is_a_time_or_nothing(stage: Stage, wire: str, said: str, passed: str | None) -> None:
    """What is no time is left out: clients sleep for what they make of it."""
    for kind in ("openai", "anthropic"):
        stage.provider.script = Failure(429, headers={"retry-after": said})
        got = stage.ask(wire, question(wire, kind))
        assert got.status in ({429} if said.isascii() and said.isprintable() else {429, 502})
        assert got.headers.get("retry-after") == passed
    stage.calls()


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("stream", [True, False])
def test_names_of_the_client_in_our_headers_are_plain(stage: Stage, evil: str, stream: bool) -> None:
    """`x-luthien-ignored` names fields, and a client may name a field as it likes."""
    stage.provider.script = Answer("fine")
    name = f"kept{evil}"
    asks: Mapping[str, dict[str, Any]] = {
        "anthropic": question("anthropic", "openai", stream=stream, metadata={"user_id": "u", name: "x"}),
        "openai": question("openai", "anthropic", stream=stream, metadata={name: "x"}, prediction={name: {name: 1}}),
        "responses": question("responses", "anthropic", stream=stream, client_metadata={name: "x"}, include=[name]),
    }
    noticed = 0
    for wire, body in asks.items():
        got = stage.ask(wire, body)
        assert got.status in {200, 400}, got.body
        assert {header for header in got.headers if header.startswith("x-luthien")} <= OURS
        assert {"forged", "id", "retry"} & set(got.headers) == set()
        ignored = got.headers.get("x-luthien-ignored", "")
        noticed += bool(ignored)
        assert ignored.isprintable()
        assert ignored.isascii()
    assert noticed >= 1
    stage.calls()
