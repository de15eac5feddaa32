"""The official SDKs as an oracle: what makes one of them raise is an error of the validator."""

from __future__ import annotations

import json
import random
import warnings
from typing import Any

import httpx
import openai
import pytest
from anthropic.lib.streaming._messages import accumulate_event

from luthien_asgi.testing import validate_stream

IDENTITY = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "usage": None}
DELTAS: list[tuple[dict[str, Any], str | None]] = [
    ({"role": "assistant", "content": ""}, None),
    ({"content": "Hi"}, None),
    ({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}, None),
    ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}, None),
    ({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}, None),
    ({"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}, None),
    ({}, "tool_calls"),
]
OPENAI: list[Any] = [IDENTITY | {"choices": [{"index": 0, "delta": d, "finish_reason": f, "logprobs": None}]} for d, f in DELTAS]
OPENAI += [IDENTITY | {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}]
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
}
ANTHROPIC: list[Any] = [
    {"type": "message_start", "message": MESSAGE | {"usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


def mutated(events: list[Any], randomly: random.Random) -> list[Any]:
    """Return the events with one of them left out, doubled, moved, or with a part of it left out or replaced."""
    place, other = randomly.randrange(len(events)), randomly.randrange(len(events))
    rest = [*events[:place], *events[place + 1 :]]
    match randomly.randrange(6):
        case 0:
            return rest
        case 1:
            return [*events[:place], events[place], *events[place:]]
        case 2:
            return [*rest[:other], events[place], *rest[other:]]
        case _:
            return [*events[:place], changed(events[place], randomly), *events[place + 1 :]]


def changed(value: Any, randomly: random.Random) -> Any:
    if isinstance(value, dict) and value and randomly.random() < 0.9:
        name = randomly.choice(list(value))
        if randomly.random() < 0.25:
            return {key: item for key, item in value.items() if key != name}
        return value | {name: changed(value[name], randomly)}
    if isinstance(value, list) and value and randomly.random() < 0.9:
        return [changed(value[0], randomly), *value[1:]]
    return randomly.choice([None, 1, 2, "x", "", "{", [], [{}], {}, True])


def openai_raises(stream: bytes) -> Exception | None:
    """Read the stream as `.stream()` does, to the final completion; an error event is an answer."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream))
    with httpx.Client(transport=transport) as http, openai.OpenAI(api_key="k", http_client=http, max_retries=0) as client:
        try:
            with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as events:
                for _ in events:
                    pass
                events.get_final_completion()
        except openai.APIError:
            return None
        except Exception as error:  # whatever the accumulator raises
            return error
    return None


def anthropic_raises(events: list[Any]) -> Exception | None:
    snapshot, buffers = None, dict[int, bytes]()
    try:
        for event in events:
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    except Exception as error:  # whatever the accumulator raises
        return error
    return None


def errors(wire: Any, stream: bytes) -> list[str]:
    return [str(violation) for violation in validate_stream(wire, stream) if violation.severity == "error"]


@pytest.mark.parametrize("part", range(4))
def test_what_openais_sdk_cannot_read_is_an_error(part: int) -> None:
    """600 streams with one thing wrong; a good part of them makes the SDK raise."""
    raised = 0
    for seed in range(part * 150, part * 150 + 150):
        events = mutated(OPENAI, random.Random(seed))
        stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = openai_raises(stream)
        raised += error is not None
        assert error is None or errors("openai", stream), (seed, error)
    assert raised > 5


def test_what_anthropics_sdk_cannot_read_is_an_error() -> None:
    """600 streams with one thing wrong; a good part of them makes the SDK raise."""
    raised = 0
    for seed in range(600):
        events = mutated(ANTHROPIC, random.Random(seed))
        named = [event.get("type") if isinstance(event, dict) else "ping" for event in events]
        stream = b"".join(
            b"event: %s\ndata: %s\n\n" % (str(n).encode(), json.dumps(e).encode()) for n, e in zip(named, events, strict=True)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = anthropic_raises([event for event in events if isinstance(event, dict)])
        raised += error is not None
        assert error is None or errors("anthropic", stream), (seed, error)
    assert raised > 50
