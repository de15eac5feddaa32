"""Block assembly: every shape of stream that providers send."""

from __future__ import annotations

import time

from luthien_asgi.assembler import BlockAssembler
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Part

TEXT, THINKING, TOOL = BlockKind.TEXT, BlockKind.THINKING, BlockKind.TOOL_CALL


def text(fragment: str, choice: int = 0) -> Part:
    return Part(choice, TEXT, text=fragment)


def tool(fragment: str = "", *, source: int | None = 0, id: str = "", name: str = "", choice: int = 0) -> Part:  # noqa: A002
    return Part(choice, TOOL, source=source, text=fragment, id=id, name=name)


def assemble(*parts: Part) -> list[Block]:
    """Feed the parts and a finish of each choice; return the blocks in the order in which they ended."""
    assembler = BlockAssembler()
    ended = []
    for part in parts:
        step = assembler.feed(part)
        ended += step.ended
        if step.closes and step.block is not None:
            ended.append(step.block)
    for choice in sorted({part.choice for part in parts}):
        ended += assembler.finish(choice)
    assert assembler.open_blocks() == []
    return [block.block() for block in ended]


def brief(blocks: list[Block]) -> list[tuple[str, str, str]]:
    return [(str(block.kind), block.id, block.text) for block in blocks]


def test_text_fragments_make_one_block() -> None:
    """Fragments of text are one block that the finish ends."""
    assert brief(assemble(text("Hel"), text("lo"))) == [("text", "", "Hello")]


def test_a_tool_call_ends_the_text_before_it() -> None:
    """Text ends when a tool call begins; its fragments are joined."""
    blocks = assemble(text("a"), tool(id="c1", name="f"), tool('{"x"'), tool(":1}"))
    assert brief(blocks) == [("text", "", "a"), ("tool_call", "c1", '{"x":1}')]
    assert blocks[1].name == "f"
    assert [block.index for block in blocks] == [0, 1]


def test_interleaved_tool_calls_keep_their_own_arguments() -> None:
    """Deltas 0, 1, 0, 1 give two calls, each with its whole JSON."""
    blocks = assemble(
        tool(id="a", name="f"), tool(source=1, id="b", name="g"), tool("{1"), tool("{2", source=1), tool("}"), tool("}", source=1)
    )
    assert brief(blocks) == [("tool_call", "a", "{1}"), ("tool_call", "b", "{2}")]


def test_a_reused_index_with_another_id_is_another_call() -> None:
    """Index 0 again with a new id begins a new call, and ends the one before."""
    blocks = assemble(tool("{}", id="a", name="f"), tool("[]", id="b", name="g"))
    assert brief(blocks) == [("tool_call", "a", "{}"), ("tool_call", "b", "[]")]


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    """A delta without an index and with an id begins a call; one with neither goes on with the last."""
    blocks = assemble(tool("{", source=None, id="a", name="f"), tool("}", source=None), tool("[]", source=None, id="b", name="g"))
    assert brief(blocks) == [("tool_call", "a", "{}"), ("tool_call", "b", "[]")]


def test_a_repeated_id_goes_on_with_its_call() -> None:
    """A provider that repeats id and name on each delta writes one call."""
    blocks = assemble(tool("{", id="a", name="f"), tool("}", id="a", name="f"))
    assert [(block.id, block.name, block.text) for block in blocks] == [("a", "f", "{}")]


def test_text_after_a_tool_call_is_a_block_of_its_own() -> None:
    """Text may follow a call; the call stays open for its later fragments."""
    blocks = assemble(text("a"), tool("{", id="c", name="f"), text("b"), tool("}"))
    assert sorted(brief(blocks)) == [("text", "", "a"), ("text", "", "b"), ("tool_call", "c", "{}")]


def test_thinking_keeps_its_signature_and_ends_before_text() -> None:
    """Thinking and its signature are one block; the text after it another."""
    blocks = assemble(Part(0, THINKING, text="hm"), Part(0, THINKING, signature="s1"), text("x"))
    assert [(str(block.kind), block.text, block.signature) for block in blocks] == [("thinking", "hm", "s1"), ("text", "x", "")]


def test_thinking_after_a_signature_is_the_next_block() -> None:
    """A signed thinking block is over: more thinking is another one."""
    parts = (
        Part(0, THINKING, text="a"),
        Part(0, THINKING, signature="1"),
        Part(0, THINKING, text="b"),
        Part(0, THINKING, signature="2"),
    )
    assert [(block.text, block.signature) for block in assemble(*parts)] == [("a", "1"), ("b", "2")]


def test_each_redacted_chunk_is_a_whole_block() -> None:
    """Redacted thinking comes whole: two chunks are two blocks."""
    kind = BlockKind.REDACTED_THINKING
    assert [block.signature for block in assemble(Part(0, kind, signature="x"), Part(0, kind, signature="y"))] == ["x", "y"]


def test_choices_do_not_mix() -> None:
    """Interleaved choices have their own blocks, counted each from 0."""
    blocks = assemble(text("a"), text("x", choice=1), text("b"), text("y", choice=1))
    assert [(block.choice, block.index, block.text) for block in blocks] == [(0, 0, "ab"), (1, 0, "xy")]


def test_the_providers_own_boundaries_are_kept() -> None:
    """Two text blocks side by side stay two where the provider says so."""
    blocks = assemble(
        Part(0, TEXT, "open", 0), Part(0, TEXT, "delta", 0, text="a"), Part(0, TEXT, "close", 0),
        Part(0, TEXT, "open", 1), Part(0, TEXT, "delta", 1, text="b"), Part(0, TEXT, "close", 1),
    )  # fmt: skip
    assert [block.text for block in blocks] == ["a", "b"]


def test_side_data_and_unknown_blocks_keep_their_events() -> None:
    """What the common format has no field for is kept in the block's raw form."""
    start = {"type": "content_block_start", "content_block": {"type": "server_tool_use"}}
    delta = {"type": "content_block_delta", "delta": {"type": "x"}}
    kind = BlockKind.OTHER
    blocks = assemble(Part(0, kind, "open", 2, event=start), Part(0, kind, "delta", 2, event=delta), Part(0, kind, "close", 2))
    assert blocks[0].raw == {"events": [start, delta]}


def test_a_bounded_block_that_is_not_closed_ends_with_the_finish() -> None:
    """A provider that stops inside a block leaves a block that the finish ends."""
    assert brief(assemble(Part(0, TOOL, "open", 0, id="t", name="f"), Part(0, TOOL, "delta", 0, text="{"))) == [
        ("tool_call", "t", "{")
    ]


def test_a_boundary_of_a_block_that_nobody_opened_is_ignored() -> None:
    """A stray close or a part without a kind belongs to no block."""
    assembler = BlockAssembler()
    assert assembler.feed(Part(0, TEXT, "close", 7)).block is None
    assert assembler.feed(Part(0, None)).block is None


def test_opening_a_bounded_block_ends_an_unbounded_one() -> None:
    """A block with boundaries ends what a policy or another wire left open, and reopening an index ends its old block."""
    blocks = assemble(text("a"), Part(0, TEXT, "open", 0, text="b"), Part(0, TEXT, "open", 0, text="c"))
    assert [block.text for block in blocks] == ["a", "b", "c"]


def test_ending_many_calls_takes_time_in_proportion() -> None:
    """Eight times the calls may not take anything like sixty-four times as long."""

    def seconds(count: int) -> float:
        assembler = BlockAssembler()
        parts = [tool(source=number, id=f"c{number}", name="t") for number in range(count)]
        began = time.process_time()
        for part in parts:
            assembler.feed(part)
        assert len(assembler.finish(0)) == count
        return time.process_time() - began

    assert min(seconds(8000) for _ in range(3)) < 30 * max(min(seconds(1000) for _ in range(3)), 0.001)
