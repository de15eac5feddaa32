"""Recorded provider streams through decoder and encoder: the official SDKs see what the provider sent."""

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunks import Chunk
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import Violation, validate_body, validate_stream
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.anthropic_encoder import AnthropicEncoder
from luthien_asgi.wire.openai_decoder import OpenAIDecoder
from luthien_asgi.wire.openai_encoder import OpenAIEncoder

OPENAI = ["openai", "azure", "deepseek", "groq", "mistral", "openai-compat", "openrouter", "perplexity", "zai", "alibaba"]


def sse(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".jsonl":
        return data
    lines = [line for line in data.splitlines() if line.strip()]
    return b"".join(b"event: %s\ndata: %s\n\n" % (json.loads(line).get("type", "message").encode(), line) for line in lines)


def events(data: bytes) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in data.decode().split("\n") if line.startswith("data:")]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


def decoded(path: Path) -> list[Chunk]:
    cls = AnthropicDecoder if path.parent.name == "anthropic" else OpenAIDecoder
    decoder = cls(1 << 24, 7)
    data = [*decoder.feed(sse(path)), *([] if decoder.error else decoder.finish())]
    if decoder.error:
        pytest.skip("a stream that fails")
    return [build(one) for one in data]


def openai_encoder(*, collect: bool = False) -> OpenAIEncoder:
    body = {"model": "m", "n": 3, "stream": True, "stream_options": {"include_usage": True}}
    return OpenAIEncoder(ChatRequest(wire="openai", body=body), settings=StreamSettings(), id="x", created=1, collect=collect)


def anthropic_encoder(*, collect: bool = False) -> AnthropicEncoder:
    return AnthropicEncoder(model="m", id="x", input_tokens=3, collect=collect)


def errors(found: list[Violation]) -> list[str]:
    """Return what is illegal. An empty text block of a recording passes as it is."""
    return [str(violation) for violation in found if violation.severity == "error" and violation.rule != "empty-text"]


def encoded(made: OpenAIEncoder | AnthropicEncoder, chunks: list[Chunk]) -> list[dict[str, Any]]:
    data = b"".join([*(frame for one in chunks for frame in made.feed(one)), *made.finish()])
    assert errors(validate_stream("openai" if isinstance(made, OpenAIEncoder) else "anthropic", data)) == []
    return events(data)


def completion(said: list[dict[str, Any]]) -> dict[str, Any]:
    state = ChatCompletionStreamState()
    for event in said:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    return state.current_completion_snapshot.model_dump(exclude_none=True)


def message(said: list[dict[str, Any]]) -> dict[str, Any]:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in said:
        if event["type"] != "message_start" or snapshot is None:
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)  # type: ignore[arg-type]
    found: dict[str, Any] = snapshot.model_dump(mode="json", exclude_none=True, warnings=False)
    return found


def streams(recorded: Path, folders: list[str]) -> list[Path]:
    return [path for folder in folders for path in sorted((recorded / folder).iterdir())]


def test_an_anthropic_stream_comes_out_as_it_came_in(recorded: Path) -> None:
    """Same wire: the SDK's message is equal, and so are the events, but for pings and a second message_start."""
    for path in streams(recorded, ["anthropic"]):
        before, after = events(sse(path)), encoded(anthropic_encoder(), decoded(path))
        assert message(after) == message(before), path.name
        if "programmatic" not in path.name:  # its tool has its input in the start; it comes out in a delta
            seen = [
                event
                for at, event in enumerate(before)
                if event["type"] != "ping" and not (at and event["type"] == "message_start")
            ]
            assert after == seen, path.name


def test_every_stream_can_be_accumulated_by_openais_sdk(recorded: Path) -> None:
    """Any provider's answer is one that the official helper takes, and the collected body is the same answer."""
    for path in streams(recorded, ["anthropic", *OPENAI]):
        if path.name == "pai-stream-error.sse":
            continue
        chunks = decoded(path)
        streamed = completion(encoded(openai_encoder(), chunks))
        made = openai_encoder(collect=True)
        for one in chunks:
            assert made.feed(one) == []
        made.finish()
        assert errors(validate_body("openai", made.body())) == []
        assert [_plain(choice) for choice in made.body()["choices"]] == [_plain(choice) for choice in streamed["choices"]], (
            path.name
        )


def test_every_stream_is_a_legal_anthropic_message(recorded: Path) -> None:
    """Any provider's answer keeps the grammar, and the collected body is the same answer."""
    for path in streams(recorded, ["anthropic", *OPENAI]):
        if path.name == "pai-stream-error.sse":
            continue
        chunks = decoded(path)
        said = encoded(anthropic_encoder(), chunks)
        _check_grammar(said)
        made = anthropic_encoder(collect=True)
        for one in chunks:
            assert made.feed(one) == []
        made.finish()
        assert errors(validate_body("anthropic", made.body())) == []
        body, streamed = made.body(), message(said)
        assert [block["type"] for block in body["content"]] == [block["type"] for block in streamed["content"]], path.name
        for mine, theirs in zip(body["content"], streamed["content"], strict=True):
            if mine["type"] in {"text", "thinking", "redacted_thinking", "tool_use", "server_tool_use"}:
                assert {k: v for k, v in mine.items() if v is not None} == theirs, path.name
        assert body["stop_reason"] == streamed["stop_reason"]
        assert body["usage"]["output_tokens"] == streamed["usage"]["output_tokens"]


def test_openais_own_streams_mean_the_same_after_us(recorded: Path) -> None:
    """Same wire: content, refusals, calls, logprobs, finish reasons and usage are equal in the SDK's eyes."""
    for path in streams(recorded, ["openai"]):
        before = completion(events(sse(path)))
        after = completion(encoded(openai_encoder(), decoded(path)))
        assert after == before, path.name


def _plain(choice: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in choice["message"].items() if value not in (None, "") and name != "parsed"}
    for entry in found.get("reasoning_details", []):
        entry.pop("format", None)  # a name, said with every fragment: the SDK adds it up
    calls = [{**call, "function": {**call.get("function", {})}} for call in found.get("tool_calls", [])]
    for call in calls:
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    return {**found, "tool_calls": calls, "finish_reason": choice["finish_reason"]}


def _check_grammar(said: list[dict[str, Any]]) -> None:
    assert said[0]["type"] == "message_start"
    assert [event["type"] for event in said[-2:]] == ["message_delta", "message_stop"]
    index, is_open = -1, False
    for event in said[1:-2]:
        if event["type"] == "content_block_start":
            index += 1
            assert not is_open
            assert event["index"] == index
        assert event["index"] == index
        is_open = event["type"] != "content_block_stop"
    assert not is_open
