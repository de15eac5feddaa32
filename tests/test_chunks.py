"""Chunks: what one says about a block, and how it is changed without touching the original."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.backend.chunks import build
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunk_edits import copied, with_text
from luthien_asgi.chunks import (
    Chunk,
    content_size,
    delta_fields,
    finish_reason_of,
    has_role,
    plain_text,
    provider_fields,
    read_part,
    text_size,
    usage_of,
)


def chunk(delta: dict[str, Any] | None, *, rider: dict[str, Any] | None = None, **more: Any) -> Chunk:
    choices = [] if delta is None else [{"index": 2, "delta": delta, "finish_reason": more.pop("finish", None), "logprobs": None}]
    data = {"id": "c", "created": 1, "model": "m", "choices": choices, **more}
    return build(data | ({"provider_specific_fields": rider} if rider else {}))


CALL = {"index": 3, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{"}}
THOUGHT = {"type": "thinking", "thinking": "r"}
SIGNED = {"type": "thinking", "thinking": "", "signature": "s"}
REDACTED = {"type": "redacted_thinking", "data": "d"}
CUSTOM = {"index": 4, "id": "u", "type": "custom", "custom": {"name": "g", "input": "x"}}


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"content": "a"}, (BlockKind.TEXT, "a", "", "", "", False)),
        ({"refusal": "no"}, (BlockKind.REFUSAL, "no", "", "", "", False)),
        ({"reasoning_content": "r"}, (BlockKind.THINKING, "r", "", "", "", False)),
        ({"reasoning_content": "r", "thinking_blocks": [THOUGHT]}, (BlockKind.THINKING, "r", "", "", "", False)),
        ({"thinking_blocks": [SIGNED]}, (BlockKind.THINKING, "", "", "", "s", False)),
        ({"thinking_blocks": [REDACTED]}, (BlockKind.REDACTED_THINKING, "", "", "", "d", False)),
        ({"tool_calls": [CALL]}, (BlockKind.TOOL_CALL, "{", "t", "f", "", False)),
        ({"tool_calls": [CUSTOM]}, (BlockKind.TOOL_CALL, "x", "u", "g", "", True)),
        ({"audio": {"data": "x"}}, (BlockKind.OTHER, "", "", "", "", False)),
        ({"annotations": [{"type": "url_citation"}]}, (BlockKind.TEXT, "", "", "", "", False)),
        ({"role": "assistant"}, (None, "", "", "", "", False)),
        ({}, (None, "", "", "", "", False)),
    ],
)  # fmt: skip
def test_a_chunk_says_one_thing_about_one_block(delta: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Kind, text, id, name, signature and whether a call is custom."""
    part = read_part(chunk(delta))
    assert (part.kind, part.text, part.id, part.name, part.signature, part.custom) == expected
    assert part.choice == 2
    assert part.phase == "delta"


def test_the_rider_tells_the_providers_boundaries() -> None:
    """Kind, phase, number and event come from the rider, also without a choice."""
    event = {"type": "x"}
    part = read_part(chunk({}, rider={"kind": "other", "phase": "open", "index": 5, "anthropic": event}))
    assert (part.choice, part.kind, part.phase, part.source, part.event) == (2, BlockKind.OTHER, "open", 5, event)
    assert read_part(chunk(None, rider={"anthropic": event})).event == event
    assert read_part(chunk(None)).kind is None


def test_finish_usage_and_role_are_read() -> None:
    """What is no part of a block has a reader of its own."""
    assert finish_reason_of(chunk({}, finish="stop")) == "stop"
    assert finish_reason_of(chunk(None)) is None
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert (usage_of(chunk(None, usage=usage)) or {})["completion_tokens"] == 2
    assert usage_of(chunk({"content": "a"})) is None
    assert has_role(chunk({"role": "assistant"}))
    assert not has_role(chunk(None))
    assert delta_fields(chunk({"content": "a"})) == {"content": "a"}
    assert delta_fields(chunk(None)) == {}
    assert provider_fields(chunk({})) == {}


@pytest.mark.parametrize("delta", [{"content": "a"}, {"refusal": "a"}, {"tool_calls": [CALL]}, {"tool_calls": [CUSTOM]}])
def test_with_text_changes_a_copy(delta: dict[str, Any]) -> None:
    """The copy says something else, the original what it said; everything but the text is kept."""
    original = chunk(delta)
    before = read_part(original)
    changed = read_part(with_text(original, "new"))
    assert changed == before._replace(text="new")
    assert read_part(original) == before


def test_with_text_drops_what_holds_the_old_text() -> None:
    """Logprobs, annotations and the provider's event of a changed text go with it."""
    original = build(
        {
            "id": "c",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None, "logprobs": {"content": []}}],
            "provider_specific_fields": {"kind": "text", "phase": "delta", "index": 0, "anthropic": {"text": "a"}},
        }
    )
    changed = with_text(original, "b")
    assert changed.choices[0].logprobs is None
    assert read_part(changed).event is None
    assert read_part(changed).source == 0
    assert original.choices[0].logprobs is not None


@pytest.mark.parametrize("delta", [{"reasoning_content": "r"}, {"role": "assistant"}, {}])
def test_thinking_and_what_has_no_text_cannot_be_changed(delta: dict[str, Any]) -> None:
    """with_text refuses what must not be edited."""
    with pytest.raises(ValueError, match="no text to change"):
        with_text(chunk(delta), "x")


def test_a_copy_can_be_edited_in_place() -> None:
    """Editing a copy leaves the original alone."""
    original = chunk({"content": "a"})
    copied(original).choices[0].delta.content = "b"
    assert original.choices[0].delta.content == "a"


def test_the_size_of_chunks() -> None:
    """Size grows with the content, a provider's event included."""
    small, large = chunk({"content": "a"}), chunk({"content": "a" * 1000})
    assert content_size(read_part(large)) - content_size(read_part(small)) == 999
    event = chunk({}, rider={"kind": "other", "phase": "open", "index": 1, "anthropic": {"data": "x" * 1000}})
    assert content_size(read_part(event)) > 1000


def test_plain_text_is_what_a_chunk_says_that_says_nothing_else() -> None:
    """The short cut agrees with `read_part`, choice and size included."""
    one = chunk({"content": "Grüße"})
    assert plain_text(one) == (2, "Grüße") == read_part(one)[0:5:4]
    assert text_size("Grüße") == content_size(read_part(one), one)
    assert plain_text(chunk({"content": "a"}, service_tier="default")) == (2, "a")


@pytest.mark.parametrize(
    "other",
    [
        chunk(None),
        chunk({}),
        chunk({"content": ""}),
        chunk({"role": "assistant"}),
        chunk({"role": "assistant", "content": "a"}),
        chunk({"refusal": "a"}),
        chunk({"content": "a", "refusal": "b"}),
        chunk({"content": "a", "reasoning_content": "b"}),
        chunk({"content": "a", "annotations": [{"type": "url_citation"}]}),
        chunk({"content": "a", "tool_calls": [CALL]}),
        chunk({"content": "a", "audio": {"data": "x"}}),
        chunk({"content": "a"}, finish="stop"),
        chunk({"content": "a"}, rider={"kind": "text", "phase": "delta", "index": 0}),
        chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        build({"id": "c", "created": 1, "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]}),
        build({"id": "c", "created": 1, "choices": [{"index": n, "delta": {"content": "a"}} for n in (0, 1)]}),
    ],
)
def test_a_chunk_that_says_more_is_not_plain_text(other: Chunk) -> None:
    """Whatever is beside the text, the short cut is not for it."""
    assert plain_text(other) is None


def test_a_chunk_of_another_class_is_not_plain_text() -> None:
    """A policy's own class only has to have the attributes that are read."""

    class Own:
        choices = (object(),)

    assert plain_text(Own()) is None  # type: ignore[arg-type]
