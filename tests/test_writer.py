"""The writer: identity, and the chunks of a policy's own blocks."""

from __future__ import annotations

import pytest

from luthien_asgi.assembler import OpenBlock
from luthien_asgi.backend.chunks import build
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import finish_reason_of, has_role, read_part
from luthien_asgi.errors import PolicyError
from luthien_asgi.writer import ChunkMaker


def make() -> ChunkMaker:
    return ChunkMaker(build, fallback_id="t1", model="asked", created=5)


def open_block(kind: BlockKind, *, bounded: bool = False, custom: bool = False) -> OpenBlock:
    return OpenBlock(kind, choice=1, index=0, source=4, bounded=bounded, custom=custom)


def test_chunks_have_the_fallback_identity_until_the_backend_gave_its_own() -> None:
    """Before the first chunk the transaction's id and the model that was asked for; afterwards the stream's."""
    writer = make()
    before = writer.plain_text("x")
    assert (before.id, before.created, before.model) == ("t1", 5, "asked")
    writer.adopt(build({"id": "c", "created": 9, "model": "served", "choices": []}))
    after = writer.plain_text("x")
    assert (after.id, after.created, after.model) == ("c", 9, "served")
    writer.adopt(build({"id": "", "created": 1, "model": "", "choices": []}))
    assert writer.plain_text("x").id == "c"


@pytest.mark.parametrize("kind", [BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.TOOL_CALL])
@pytest.mark.parametrize("bounded", [True, False])
def test_a_fragment_belongs_to_its_block(kind: BlockKind, bounded: bool) -> None:
    """It has the block's kind and choice, and its provider's number where there are boundaries."""
    part = read_part(make().fragment(open_block(kind, bounded=bounded), "more"))
    assert (part.kind, part.choice, part.text) == (kind, 1, "more")
    if bounded:
        assert (part.phase, part.source) == ("delta", 4)


def test_a_fragment_of_a_custom_call_is_input() -> None:
    """A custom tool call's text is its input."""
    part = read_part(make().fragment(open_block(BlockKind.TOOL_CALL, custom=True), "more"))
    assert (part.custom, part.text) == (True, "more")


@pytest.mark.parametrize("kind", [BlockKind.THINKING, BlockKind.REDACTED_THINKING, BlockKind.OTHER])
def test_what_only_a_provider_writes_cannot_be_written(kind: BlockKind) -> None:
    """Thinking is signed by its provider."""
    with pytest.raises(PolicyError):
        make().fragment(open_block(kind), "x")
    with pytest.raises(PolicyError):
        make().whole(Block(kind=kind, text="x"), 0)


@pytest.mark.parametrize(
    "block",
    [
        Block(kind=BlockKind.TEXT, text="hi"),
        Block(kind=BlockKind.REFUSAL, text="no"),
        Block(kind=BlockKind.TOOL_CALL, id="c", name="f", text="{}"),
        Block(kind=BlockKind.TOOL_CALL, id="c", name="f", text="in", custom=True),
    ],
    ids=lambda block: f"{block.kind}-{block.custom}",
)
def test_a_whole_block_has_boundaries_and_a_number_of_its_own(block: Block) -> None:
    """Open, content, close; two blocks have different numbers, and both below zero."""
    writer = make()
    parts = [read_part(chunk) for chunk in writer.whole(block, 2)]
    assert [part.phase for part in parts] == ["open", "delta", "close"]
    assert {part.choice for part in parts} == {2}
    assert {part.kind for part in parts} == {block.kind}
    assert "".join(part.text for part in parts) == block.text
    assert (parts[0].id, parts[0].name) == (block.id, block.name)
    again = {read_part(chunk).source for chunk in writer.whole(block, 2)}
    assert {part.source for part in parts}.isdisjoint(again)
    assert all(source is not None and source < 0 for source in again)


def test_a_call_without_arguments_has_no_content_chunk() -> None:
    """Nothing is written where there is nothing to write."""
    parts = [read_part(chunk) for chunk in make().whole(Block(kind=BlockKind.TOOL_CALL, id="c", name="f"), 0)]
    assert [part.phase for part in parts] == ["open", "close"]


def test_roles_and_finish_reasons() -> None:
    """What begins and ends a choice."""
    assert finish_reason_of(make().finish(1, "stop")) == "stop"
    assert has_role(make().role(0))
