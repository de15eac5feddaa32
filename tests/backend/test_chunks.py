"""The cheap way to build a `ModelResponseStream` gives what LiteLLM's own constructor gives."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import read_part

pytestmark = pytest.mark.litellm


def data(delta: Any = None, *, finish: Any = None, **fields: Any) -> Any:
    choices = [] if delta is None else [{"index": fields.pop("index", 0), "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "created": 7, "model": "m", "choices": choices, **fields}


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
SHAPES = {
    "keepalive": data(),
    "role": data({"role": "assistant"}),
    "text": data({"content": "a"}),
    "second choice": data({"content": "a"}, index=1),
    "empty": data({}),
    "finish": data({}, finish="stop"),
    "usage": data(usage=USAGE),
    "usage in detail": data(
        usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}
    ),
    "tool call": data({"tool_calls": [CALL]}),
    "tool fragment": data({"tool_calls": [{"index": 2, "function": {"arguments": '{"a'}}]}),
    "custom tool": data({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]}),
    "thinking": data({"reasoning_content": "t", "thinking_blocks": [{"type": "thinking", "thinking": "t"}]}),
    "signature": data({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}]}),
    "redacted": data({"thinking_blocks": [{"type": "redacted_thinking", "data": "d"}]}),
    "refusal": data({"refusal": "no"}),
    "annotations": data({"content": "a", "annotations": [{"type": "url_citation"}]}),
    "audio": data({"audio": {"id": "a", "data": "AA=="}}),
    "fingerprint": data({"content": "a"}, system_fingerprint="fp", service_tier="default"),
    "no model": {**data({"content": "a"}), "model": None},
    "rider": data({}, provider_specific_fields={"kind": "text", "phase": "open", "index": 0, "anthropic": {"type": "x"}}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_what_litellm_builds(shape: Any) -> None:
    """Dump, JSON and set fields are the same, for every shape that decoders give."""
    build(data())
    from litellm.types.utils import ModelResponseStream

    ours, theirs = build(copy.deepcopy(SHAPES[shape])), ModelResponseStream(**copy.deepcopy(SHAPES[shape]))
    assert type(ours) is type(theirs)
    assert ours.model_dump() == theirs.model_dump()
    assert json.loads(ours.model_dump_json()) == json.loads(theirs.model_dump_json())
    assert ours.model_fields_set == theirs.model_fields_set


def test_log_probabilities_are_kept() -> None:
    """Log probabilities dump as LiteLLM's do, every field of theirs included."""
    found = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    chunk = build(
        {**data(), "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [found], "refusal": None}}]}
    )
    assert chunk.model_dump()["choices"][0]["logprobs"] == {"content": [found], "refusal": None}


def test_attributes_read_as_on_litellms_own() -> None:
    """What policies read: content, tool calls, None where there is nothing, the rider."""
    chunk = build(copy.deepcopy(SHAPES["tool call"]))
    assert chunk.choices[0].delta.tool_calls[0].function.name == "f"
    assert chunk.choices[0].delta.content is None
    assert build(copy.deepcopy(SHAPES["rider"])).provider_specific_fields["kind"] == "text"
    assert build(copy.deepcopy(SHAPES["usage"])).usage.total_tokens == 7


def test_a_policy_may_edit_in_place() -> None:
    """Assigning to a delta shows in the part that is read, and in no other chunk."""
    chunk, other = build(data({"content": "a"})), build(data({"content": "a"}))
    chunk.choices[0].delta.content = "X"
    chunk.choices[0].finish_reason = "stop"
    assert (read_part(chunk).text, read_part(other).text) == ("X", "a")
    assert other.choices[0].finish_reason is None


@pytest.mark.parametrize("shape", ["text", "tool call", "tool fragment", "custom tool", "refusal"])
def test_a_copy_with_other_text_leaves_the_original(shape: Any) -> None:
    """`with_text` works on what is built here."""
    chunk = build(copy.deepcopy(SHAPES[shape]))
    before = chunk.model_dump()
    assert read_part(with_text(chunk, "other")).text == "other"
    assert chunk.model_dump() == before


def test_lone_surrogates_survive() -> None:
    """Half an emoji is kept as it came."""
    assert read_part(build(data({"content": "\ud83d"}))).text == "\ud83d"
