"""The accumulators: what they put together, and that a broken stream does not pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi.testing import RawStream, SSEEvent, accumulate_anthropic, accumulate_openai, recording, sse_events

BROKEN = {
    "alibaba/vercel-tool-call.jsonl": "id, type or name of a call again",
    "anthropic/vercel-BAD-duplicate-message-start.jsonl": "message_start twice",
    "openai-compat/vercel-tool-index-from-1.sse": "a gap before tool index 1",
    "mistral/vercel-incremental-tool.jsonl": "the role belongs to the first delta",
}
GOOD = [
    "anthropic/pai-thinking.sse",
    "anthropic/pai-pause-turn.sse",
    "anthropic/vercel-web-search.jsonl",
    "anthropic/sdk-refusal.sse",
    "groq/vercel-tool-call.jsonl",
    "openai/sdk-n3-json.sse",
    "openai/sdk-content-logprobs.sse",
    "openai/otel-parallel-tools.sse",
]


def accumulator(name: str) -> Any:
    return accumulate_anthropic if name.startswith("anthropic/") else accumulate_openai


def openai(*choices: Any, **changes: Any) -> bytes:
    chunk = {"object": "chat.completion.chunk", "id": "i", "created": 1, "model": "m", "choices": list(choices)} | changes
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def choice(delta: Any, finish: str | None = None, index: int = 0) -> Any:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}


def events(*datas: Any) -> bytes:
    return b"".join(b"event: " + data["type"].encode() + b"\ndata: " + json.dumps(data).encode() + b"\n\n" for data in datas)


ROLE = openai(choice({"role": "assistant", "content": ""}))
END = b"data: [DONE]\n\n"
MESSAGE = {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1}, "stop_reason": None}}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}
CLOSE = {"type": "content_block_stop", "index": 0}
LAST = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
STOP = {"type": "message_stop"}


@pytest.mark.parametrize("name", GOOD)
def test_recorded_streams_accumulate(recorded: Path, name: str) -> None:
    """A provider's own stream passes and comes to its end."""
    got = accumulator(name)(b"".join(recording(recorded / name).events))
    assert got.done
    assert got.body


@pytest.mark.parametrize(("name", "complaint"), BROKEN.items())
def test_recorded_streams_that_break_clients_are_refused(recorded: Path, name: str, complaint: str) -> None:
    """What is known to break SDKs does not pass."""
    with pytest.raises(ValueError, match=complaint):
        accumulator(name)(b"".join(recording(recorded / name).events))


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (ROLE + END + ROLE, "after the end"),
        (ROLE + END + END, "after the end"),
        (ROLE + ROLE, "the role belongs"),
        (openai(choice({"content": "x"})), "the role belongs"),
        (ROLE + openai(choice({}, "stop")) + openai(choice({"content": "x"})), "after the finish"),
        (ROLE + openai(usage={"total_tokens": 1}) + openai(choice({}, "stop")), "after the usage"),
        (ROLE + openai(choice({}), id="other"), "identity"),
        (ROLE + openai(choice({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]})), "without id or name"),
        (ROLE + openai({"index": 0, "delta": {}}), "without finish_reason"),
        (ROLE + b'data: {"error": {"message": "x"}}\n\n' + END, "after the end"),
        (ROLE + b"data: {", "within an event"),
    ],
)
def test_a_broken_openai_stream_is_refused(stream: bytes, complaint: str) -> None:
    """Each rule of the stream has its complaint."""
    with pytest.raises(ValueError, match=complaint):
        accumulate_openai(stream)


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        ([OPEN], "before message_start"),
        ([MESSAGE, MESSAGE], "message_start twice"),
        ([MESSAGE, OPEN, OPEN | {"index": 1}], "while block 0 is open"),
        ([MESSAGE, OPEN | {"index": 1}], "block 1 after 0 blocks"),
        ([MESSAGE, DELTA], "open is None"),
        ([MESSAGE, OPEN, CLOSE, CLOSE], "open is None"),
        ([MESSAGE, OPEN, LAST], "while block 0 is open"),
        ([MESSAGE, STOP], "without message_delta"),
        ([MESSAGE, LAST, LAST], "after message_delta"),
        ([MESSAGE, LAST, OPEN], "after message_delta"),
        ([MESSAGE, LAST, STOP, {"type": "ping"}], "after the end"),
        ([MESSAGE, OPEN, DELTA | {"delta": {"type": "thinking_delta", "thinking": "x"}}], "thinking_delta in a text block"),
    ],
)
def test_a_broken_anthropic_stream_is_refused(stream: list[Any], complaint: str) -> None:
    """Each rule of the stream has its complaint."""
    with pytest.raises(ValueError, match=complaint):
        accumulate_anthropic(events(*stream))


def test_an_event_name_that_is_not_the_type_is_refused() -> None:
    """SDKs skip events whose name is missing."""
    with pytest.raises(ValueError, match="is not the type"):
        accumulate_anthropic(b'data: {"type": "ping"}\n\n')


def test_an_anthropic_stream_comes_to_its_message() -> None:
    """Text, stop reason and the usage of start and end; pings and comments are counted."""
    got = accumulate_anthropic(events(MESSAGE, {"type": "ping"}, OPEN, DELTA, DELTA) + b": hi\n\n" + events(CLOSE, LAST, STOP))
    assert got.body["content"] == [{"type": "text", "text": "aa"}]
    assert (got.body["usage"], got.body["stop_reason"]) == ({"input_tokens": 1, "output_tokens": 2}, "end_turn")
    assert (got.pings, got.done, got.error) == (2, True, None)


def test_an_error_event_is_kept_and_is_no_good_end() -> None:
    """The error object is there, `done` is not."""
    error = {"type": "error", "error": {"type": "api_error", "message": "x"}}
    anthropic, chat = (
        accumulate_anthropic(events(MESSAGE, error)),
        accumulate_openai(ROLE + b'data: {"error": {"message": "x"}}\n\n'),
    )
    assert (anthropic.error, anthropic.done) == (error["error"], False)
    assert (chat.error, chat.done) == ({"message": "x"}, False)


def test_events_are_parsed_as_the_standard_says() -> None:
    """Several data lines, CRLF, a missing space, comments on request."""
    body = b"event: a\r\ndata:1\r\ndata: 2\r\n\r\n: note\n\nid: 7\n\ndata: x\n\n"
    assert sse_events(body) == [SSEEvent("a", "1\n2"), SSEEvent("", "x")]
    assert SSEEvent(":", "note") in sse_events(body, comments=True)


def test_recordings_are_framed_by_what_they_are(tmp_path: Path) -> None:
    """Lines get `data:`, Anthropic ones their name, OpenAI ones `[DONE]`; a raw stream keeps its bytes."""

    def record(name: str, data: bytes) -> RawStream:
        (tmp_path / name).write_bytes(data)
        return recording(tmp_path / name)

    assert record("a.jsonl", b'{"type":"ping"}\n').events == [b'event: ping\ndata: {"type":"ping"}\n\n']
    assert record("o.jsonl", b'{"id":1}\n\n').events == [b'data: {"id":1}\n\n', END]
    assert record("a.sse", b"event: x\r\ndata: 1\r\n\r\n").events == [b"event: x\r\ndata: 1\r\n\r\n"]
    assert record("o.sse", b"data: 1\n\ndata:[DONE]").events == [b"data: 1\n\n", b"data:[DONE]\n\n"]


def test_a_choice_of_a_high_number_costs_no_memory() -> None:
    """Choices begin in their order, as the official SDK needs it."""
    choice = {"index": 2**31, "delta": {"role": "assistant"}, "finish_reason": None, "logprobs": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    with pytest.raises(ValueError, match="choice 2147483648 begins before choice 0"):
        accumulate_openai(b"data: " + json.dumps(chunk).encode() + b"\n\n")
