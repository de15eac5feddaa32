"""What the deltas of an Anthropic stream make of a block, when the answer is collected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from luthien_asgi.backend.chunks import build
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.anthropic_encoder import AnthropicEncoder
from luthien_asgi.wire.omissions import UNKNOWN

Data = dict[str, Any]


def collected(block: Data, *deltas: Data) -> tuple[Data, Sequence[str]]:
    """Return the block after its deltas, and what was left out."""
    decoder, encoder = AnthropicDecoder(1 << 20, 7), AnthropicEncoder(model="m", id="x", input_tokens=1, collect=True)
    events: list[Data] = [
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    for event in events:
        for data in decoder.feed(b"data: %s\n\n" % json.dumps(event).encode()):
            encoder.feed(build(data))
    encoder.finish()
    (found,) = encoder.body()["content"]
    return found, encoder.omitted


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        ({"type": "text", "text": "a"}, {"text": "b", "citations": 5}),
        ({"type": "text", "text": "a"}, {"text": {"type": "text_delta", "text": "b"}}),
        ({"type": "thinking", "thinking": "a", "signature": "s"}, {"thinking": "b", "signature": "t"}),
        ({"type": "redacted_thinking", "data": "a"}, {"data": "b"}),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}}, {"id": "d", "name": "g", "input": {"y": 2}}),
        ({"type": "mcp_tool_use", "id": "c", "name": "f", "input": {}, "server_name": "s"}, {"server_name": 5}),
        ({"type": "web_search_tool_result", "tool_use_id": "c", "content": []}, {"content": ["x"]}),
    ],
)
def test_a_delta_that_is_not_known_writes_no_field_that_is(block: Data, fields: Data) -> None:
    """A policy judged the block by them, and the SDKs pass over such a delta; what is new is added, the rest is named."""
    found, omitted = collected(block, {"type": "newest_delta", **fields, "count": 2})
    assert found == {**block, "count": 2}
    assert list(omitted) == [UNKNOWN]


def test_a_known_delta_writes_one_field() -> None:
    """What stands beside it is no way around that."""
    start = {"type": "thinking", "thinking": "a", "signature": ""}
    found, omitted = collected(start, {"type": "signature_delta", "signature": "s", "thinking": "b", "count": 1})
    assert found == {**start, "signature": "s", "count": 1}
    assert list(omitted) == [UNKNOWN]


@pytest.mark.parametrize("place", ["start", "end", "delta"])
def test_a_good_answer_has_no_error(place: str) -> None:
    """Clients and validators tell an error by that field."""
    encoder = AnthropicEncoder(model="m", id="x", input_tokens=1, collect=True)
    said: dict[str, Data] = {name: {"error": "x", "n": 1} if name == place else {} for name in ("start", "end", "delta")}
    events: list[Data] = [
        {"type": "message_start", "message": {"id": "m", **said["start"]}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", **said["delta"]}, "usage": {}, **said["end"]},
    ]
    decoder = AnthropicDecoder(1 << 20, 7)
    for event in events:
        for data in decoder.feed(b"data: %s\n\n" % json.dumps(event).encode()):
            encoder.feed(build(data))
    encoder.finish()
    body = encoder.body()
    assert ("error" in body, body["n"], list(encoder.omitted)) == (False, 1, [UNKNOWN])


def test_deltas_of_the_future_add_up() -> None:
    """In a block that is known too: text goes on, the last of everything else stands."""
    said: list[Any] = ["a", "b", 3, "c", "d"]
    found, omitted = collected({"type": "text", "text": "x"}, *({"type": "newest_delta", "words": one} for one in said))
    assert (found, omitted) == ({"type": "text", "text": "x", "words": "cd"}, ())


@pytest.mark.parametrize(
    ("delta", "written"),
    [
        ({"type": "newest_delta", "words": "b", "count": 2}, {"words": "ab", "count": 2}),
        ({"type": "text_delta", "text": "b"}, {"text": "ab"}),
        ({"type": "signature_delta", "signature": "t"}, {"signature": "t"}),
        ({"type": "input_json_delta", "partial_json": '{"x": 1}'}, {"input": {"x": 1}}),
    ],
)
def test_a_block_of_the_future_takes_what_its_deltas_say(delta: Data, written: Data) -> None:
    """Text is appended, under its own name; the rest is as the last delta said."""
    start = {"type": "newest", "words": "a", "count": 1, "text": "a", "signature": "s"}
    assert collected(start, delta) == ({**start, **written}, ())


def test_the_last_condensed_history_counts() -> None:
    """A `compaction_delta` holds the block's whole value: both SDKs assign it."""
    first, last = ({"type": "compaction_delta", "content": said, "encrypted_content": said} for said in "ab")
    assert collected({"type": "compaction", "content": None}, first, last) == (
        {"type": "compaction", "content": "b", "encrypted_content": "b"},
        (),
    )
