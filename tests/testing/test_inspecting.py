"""`luthien-asgi validate`: what it reads, what it says, and how it exits."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi.cli import main
from luthien_asgi.testing.framing import MAX_EVENT
from luthien_asgi.testing.inspecting import UnreadableError, inspect
from luthien_asgi.testing.showing import printable

CHUNK: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CHUNKS = [
    CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": None}]},
    CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
EVENTS = [
    {"type": "message_start", "message": MESSAGE | {"stop_reason": None}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
RESPONSE = {"id": "r", "object": "response", "created_at": 1, "status": "in_progress", "model": "m", "output": []}
USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
RESPONSES = [
    {"type": "response.created", "sequence_number": 0, "response": RESPONSE},
    {"type": "response.completed", "sequence_number": 1, "response": RESPONSE | {"status": "completed", "usage": USAGE}},
]
COMPLETION = {
    **CHUNK,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
}


def sse(events: list[Any]) -> bytes:
    named = [f"event: {event['type']}\n" if "type" in event else "" for event in events]
    frames = [f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(named, events, strict=True)]
    return "".join(frames).encode() + (b"data: [DONE]\n\n" if "choices" in events[0] else b"")


def log(events: list[Any]) -> bytes:
    return b"\n".join(json.dumps(event).encode() for event in events)


def body(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode()


READABLE: list[tuple[bytes, str, str]] = [
    (sse(CHUNKS), "openai", "stream"),
    (sse(EVENTS), "anthropic", "stream"),
    (sse(RESPONSES), "responses", "stream"),
    (b": ping\n\n" + sse(EVENTS), "anthropic", "stream"),
    (log(CHUNKS), "openai", "events"),
    (log(EVENTS), "anthropic", "events"),
    (b"\n\n" + log(RESPONSES) + b"\n\n", "responses", "events"),
    (body(COMPLETION), "openai", "body"),
    (body(COMPLETION, indent=2), "openai", "body"),
    (body(MESSAGE), "anthropic", "body"),
    (body(RESPONSES[1]["response"]), "responses", "body"),
    (body({"type": "error", "error": {"type": "api_error", "message": "x"}}), "anthropic", "body"),
    (body({"error": {"message": "x", "type": "server_error", "param": None, "code": None}}), "openai", "body"),
    (b'data: {"error": {"message": "x", "type": "y", "param": null, "code": null}}\n\n', "openai", "stream"),
]


@pytest.mark.parametrize("headers", [b"", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\n", b"HTTP/2 200 \n\n"])
@pytest.mark.parametrize(("data", "wire", "form"), READABLE)
def test_the_form_and_the_wire_are_told_from_the_data(data: bytes, wire: str, form: str, headers: bytes) -> None:
    """Streams, logs of events and bodies, as they are or behind headers; all of them legal."""
    found = inspect(io.BytesIO(headers + data))
    assert (found.wire, found.form, found.violations) == (wire, form, [])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "nothing in it"),
        (b" \n", "nothing in it"),
        (b"hello\n", "--wire"),
        (b"HTTP/1.1 200 OK\r\n", "no body"),
        (b'{"a', "--wire"),
    ],
)
def test_what_is_none_of_them_is_unreadable(data: bytes, message: str) -> None:
    """With a reason."""
    with pytest.raises(UnreadableError, match=message):
        inspect(io.BytesIO(data))


def test_the_wire_can_be_said() -> None:
    """Then nothing is guessed."""
    found = inspect(io.BytesIO(sse(CHUNKS)), wire="anthropic")
    assert found.wire == "anthropic"
    assert found.violations


def test_places_are_those_of_the_file() -> None:
    """Behind headers too, and in a log the line is that of the event."""
    headers = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"
    again = next(
        each for each in inspect(io.BytesIO(headers + sse([CHUNKS[0], *CHUNKS]))).violations if each.rule == "role-repeated"
    )
    assert (again.event, again.line, again.offset) == (2, 6, len(headers) + len(sse(CHUNKS[:1])) - len(b"data: [DONE]\n\n"))
    again = next(each for each in inspect(io.BytesIO(log([CHUNKS[0], *CHUNKS]))).violations if each.rule == "role-repeated")
    assert (again.event, again.line, again.offset) == (2, 2, len(log(CHUNKS[:1])) + 1)


def test_a_log_that_stops_early_is_missing_its_end() -> None:
    """`[DONE]` is not expected in a log, the finish reason is."""
    assert {each.rule for each in inspect(io.BytesIO(log(CHUNKS[:1]) + b"\n")).violations} == {"finish-missing"}
    assert "not-ended" in {each.rule for each in inspect(io.BytesIO(log(EVENTS[:2]))).violations}


def test_a_first_event_that_is_long_shows_its_wire() -> None:
    """Longer than what is looked at first."""
    padded = [CHUNKS[0] | {"obfuscation": "x" * 2_000_000}, CHUNKS[1]]
    assert inspect(io.BytesIO(sse(padded))).violations == []
    assert inspect(io.BytesIO(log(padded))).violations == []


def test_a_line_of_a_log_that_is_too_long_is_cut() -> None:
    """And the lines after it are read."""
    data = log(CHUNKS) + b"\n" + b'{"x": "' + b"x" * (MAX_EVENT + 10) + b'"}\n' + log([CHUNKS[1]])
    found = inspect(io.BytesIO(data))
    assert [(each.rule, each.line) for each in found.violations] == [("json", 3), ("finish-repeated", 4)]


# --- the command --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "answer.sse"
    path.write_bytes(sse(CHUNKS))
    return path


def test_a_clean_stream_is_described(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it held, and exit status 0."""
    assert main(["validate", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: openai stream",
        "  model: 'm'",
        "  choice 0: 2 characters of content, finish_reason 'stop'",
        "  ended: [DONE]",
        "  0 errors, 0 warnings",
    ]


def test_violations_are_listed_and_counted(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five of a rule, then how many more; exit status 1."""
    file.write_bytes(sse([CHUNKS[0]] * 8 + CHUNKS[1:]))
    assert main(["validate", str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "error: role-repeated: the role of choice 0 again" in line]) == 5
    assert "  … and 2 more of role-repeated" in lines
    assert lines[-1] == "  7 errors, 0 warnings"
    assert main(["validate", str(file), "--provider"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  0 errors, 7 warnings"


def test_json_has_everything(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each violation with its place, and the summary."""
    file.write_bytes(sse([CHUNKS[0], *CHUNKS]))
    assert main(["validate", str(file), "--json", "--wire", "openai"]) == 1
    value = json.loads(capsys.readouterr().out)
    (violation,) = value["violations"]
    assert violation == {
        "rule": "role-repeated",
        "message": "the role of choice 0 again",
        "event": 2,
        "offset": violation["offset"],
        "line": 3,
        "severity": "error",
    }
    assert (value["file"], value["wire"], value["form"], value["errors"], value["warnings"]) == (
        str(file),
        "openai",
        "stream",
        1,
        0,
    )
    assert value["summary"]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("content", [b"", b"hello", b"{", None])
def test_what_cannot_be_read_is_exit_status_2(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason on stderr."""
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    assert main(["validate", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{path}: ")


def test_stdin_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`curl … | luthien-asgi validate -`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sse(EVENTS))))
    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out.startswith("stdin: anthropic stream\n")


def test_a_stream_cannot_steer_the_terminal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and marks of direction come out as escapes, from wherever they are printed."""
    hostile = "\x1b]0;x\x07\x1b[2J\u202e\u2028\r"
    call = {"index": 0, "id": hostile, "type": hostile, "function": {"name": hostile, "arguments": ""}}
    choice = {"index": 0, "delta": {"role": hostile, hostile: 1, "tool_calls": [call]}, "finish_reason": hostile}
    events = [CHUNK | {"id": hostile, "model": hostile, "choices": [choice]}, {"error": {"message": hostile, "type": hostile}}]
    file.write_bytes(sse(events))
    for more in ([], ["--json"], ["--wire", "anthropic"], ["--wire", "responses"]):
        main(["validate", str(file), *more])
        assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
    assert printable("a\x1bé\u202e") == "a\\x1bé\\u202e"
