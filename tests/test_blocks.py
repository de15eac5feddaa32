"""Blocks: whole parts of an answer, as values."""

from __future__ import annotations

import dataclasses

import pytest

from luthien_asgi.blocks import Block, BlockKind


@pytest.mark.parametrize(
    ("text", "arguments"),
    [('{"a": [1, null]}', {"a": [1, None]}), ("", {}), (" \n", {}), ("[1]", [1]), ('"\\ud83d"', "\ud83d")],
)
def test_arguments_are_parsed_when_asked_for(text: str, arguments: object) -> None:
    """A call without arguments has the empty object."""
    assert Block(kind=BlockKind.TOOL_CALL, text=text).arguments == arguments


@pytest.mark.parametrize("text", ["{", '{"a":}', "NaN", "[" * 100_000])
def test_malformed_arguments_are_a_value_error(text: str) -> None:
    """What a model wrote may not be JSON, or be nested to death; `text` still says what it wrote."""
    block = Block(kind=BlockKind.TOOL_CALL, text=text)
    with pytest.raises(ValueError):
        _ = block.arguments
    assert block.text == text


@pytest.mark.parametrize("kind", [BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.TOOL_CALL])
def test_with_text_changes_the_text_alone(kind: BlockKind) -> None:
    """The identity stays, the provider's raw form goes, the original is untouched."""
    block = Block(kind=kind, text="a", id="i", name="n", choice=2, index=3, custom=True, raw={"x": 1})
    changed = block.with_text("b")
    assert changed == dataclasses.replace(block, text="b", raw=None)
    assert (block.text, block.raw) == ("a", {"x": 1})


@pytest.mark.parametrize("kind", [BlockKind.THINKING, BlockKind.REDACTED_THINKING, BlockKind.OTHER])
def test_what_must_not_be_edited_refuses_it(kind: BlockKind) -> None:
    """Thinking is bit-exact or gone."""
    with pytest.raises(ValueError, match=str(kind)):
        Block(kind=kind, text="a").with_text("b")


def test_a_block_cannot_be_changed_in_place() -> None:
    """A policy that tries cannot falsify the record."""
    block = Block(kind=BlockKind.TEXT, text="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        block.text = "b"  # type: ignore[misc]


def test_a_record_has_the_fields_with_a_value() -> None:
    """Empty ones are left out; the raw form is there where it is all there is."""
    assert Block(kind=BlockKind.TEXT).as_record() == {"kind": "text"}
    call = Block(kind=BlockKind.TOOL_CALL, text="{}", id="i", name="n", choice=1)
    assert call.as_record() == {"kind": "tool_call", "text": "{}", "id": "i", "name": "n", "choice": 1}
    other = Block(kind=BlockKind.OTHER, raw={"type": "server_tool_use"})
    assert other.as_record() == {"kind": "other", "raw": {"type": "server_tool_use"}}
    thinking = Block(kind=BlockKind.THINKING, text="t", signature="s")
    assert thinking.as_record() == {"kind": "thinking", "text": "t", "signature": "s"}


def test_a_record_is_plain_text_for_json() -> None:
    """The kind is a `str`, not an enumeration's member."""
    assert type(Block(kind=BlockKind.TEXT).as_record()["kind"]) is str
