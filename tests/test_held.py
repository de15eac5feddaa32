"""Chunks that wait take little more than their text, and come out as they went in."""

from __future__ import annotations

import tracemalloc
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi import Block, BlockKind, Hold, Policy, PolicyContext, StreamSettings
from luthien_asgi.backend.chunks import build
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.held import Fragments, HeldChunks
from luthien_asgi.likeness import is_like, made_like
from luthien_asgi.testing import chunks, run_policy

TEXTS = st.text(max_size=4) | st.sampled_from(["m", "x", "assistant", "text", "\ud83d", "\ude42", "é" * 300, "x" * 255])
MARK = {"anthropic": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "text", "more": [1, None, True]}}}


def chunk(delta: dict[str, Any], rider: dict[str, Any] | None = None, **more: Any) -> Chunk:
    choice = {"index": more.pop("index", 0), "delta": delta, "finish_reason": None, "logprobs": more.pop("logprobs", None)}
    return build({"id": "x", "created": 1, "model": "m", "choices": [choice], "provider_specific_fields": rider, **more})


def forms(text: str, number: int) -> Chunk:
    """Return a chunk with this text in one of the forms that chunks have."""
    bounds = {"kind": "text", "phase": "delta", "index": 0}
    thinking = [{"type": "thinking", "thinking": text}]
    made = (
        lambda: chunk({"content": text}),
        lambda: chunk({"content": text}, dict(bounds)),
        lambda: chunk({"content": text}, index=1),
        lambda: chunk({"content": text}, service_tier="default"),
        lambda: chunk({"content": text}, logprobs={"content": [{"token": text, "logprob": -0.5, "bytes": None}]}),
        lambda: chunk({"content": text}, {**bounds, **MARK}),
        lambda: chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
        lambda: chunk(
            {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": text}}]}
        ),
        lambda: chunk({"tool_calls": [{"index": 0, "custom": {"input": text}}]}),
        lambda: chunk({"reasoning_content": text, "thinking_blocks": thinking}),
        lambda: chunk({"refusal": text}),
        lambda: chunk({"role": "assistant"}),
        lambda: chunk({}, {**bounds, "phase": "close"}),
    )
    return made[number % len(made)]()


def shown(one: object) -> object:
    """Return all there is in a chunk, types and private fields included."""
    if hasattr(one, "__pydantic_fields_set__"):
        slots = ("__dict__", "__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__")
        return type(one), *(shown(getattr(one, slot)) for slot in slots)
    if isinstance(one, dict):
        return dict, *((name, shown(value)) for name, value in one.items())
    if isinstance(one, list):
        return list, *map(shown, one)
    return type(one), one


@given(st.lists(st.tuples(TEXTS, st.integers(0, 12), st.integers(1, 3)), max_size=30))
def test_chunks_come_out_as_they_went_in(told: list[tuple[str, int, int]]) -> None:
    """Whatever the chunks are, and whatever their text is equal to: every field, in order, with the same cuts."""
    sent = [forms(text, form) for text, form, times in told for _ in range(times)]
    held = HeldChunks(sent)
    assert [shown(one) for one in held] == [shown(one) for one in sent]


@given(st.lists(TEXTS, max_size=20), st.integers(0, 25))
def test_the_text_of_a_block_is_shared_as_far_as_it_is_the_same(texts: list[str], wrong: int) -> None:
    """A chunk whose text is not what its block was given has it of its own, and so have those after it."""
    block, held, sent = Fragments(), HeldChunks(), []
    held.share(block)
    for place, text in enumerate(texts):
        if text:
            block.append(text)
        sent.append(forms(text[::-1] + "!" if place == wrong else text, 0))
        held.append(sent[-1], read_part(sent[-1]))
    assert [shown(one) for one in held] == [shown(one) for one in sent]
    assert "".join(block) == "".join(texts)


def test_fragments_are_the_text() -> None:
    """However many and however long: joined, they are what was added; long ones are not copied."""
    texts = ["ab", "c" * 70_000, "", "d"] * 300
    found = Fragments(texts[:1])
    for text in texts[1:]:
        found.append(text)
    assert "".join(found) == "".join(texts)
    assert found.size == sum(map(len, texts))
    small = Fragments(["ab"] * 10_000)
    assert "".join(small) == "ab" * 10_000
    assert len(small) < 400


def test_who_changes_a_released_chunk_changes_no_other() -> None:
    """Chunks of one run share nothing that can be changed."""
    held = HeldChunks([chunk({"content": text}, {"kind": "text", "phase": "delta", "index": 0}) for text in ("a", "b", "c")])
    seen = []
    for one in held:
        seen.append(read_part(one).text)
        one.choices[0].delta.content = "changed"
        one.provider_specific_fields["index"] = 7  # type: ignore[attr-defined]  # a field of LiteLLM's class
        one.choices[0].index = 3
    assert seen == ["a", "b", "c"]
    assert [read_part(one).source for one in held] == [0, 0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chunk({"content": "a"}), chunk({"content": "b"}, index=1)),
        (chunk({"content": "a"}), chunk({"content": "b"}, service_tier="x")),
        (chunk({"content": "a"}, {"index": 1}), chunk({"content": "b"}, {"index": True})),
        (chunk({"content": "a"}, {"index": 1, "kind": "text"}), chunk({"content": "b"}, {"kind": "text", "index": 1})),
        (chunk({"content": "m"}), chunk({"content": "b"})),
        (chunk({"content": "a"}, {"x": [1]}), chunk({"content": "b"}, {"x": [1, 1]})),
        (chunk({"content": "a"}, {"x": 0.0}), chunk({"content": "b"}, {"x": -0.0})),
    ],
)
def test_chunks_that_differ_in_more_than_their_text_are_not_alike(one: Chunk, other: Chunk) -> None:
    """Another choice, field, type, order of fields, length, sign of zero, or a text that stands elsewhere too."""
    first, second = read_part(one).text, read_part(other).text
    assert not is_like(other, second, one, first)
    assert is_like(one, first, one, first)
    assert shown(made_like(one, first, first)) == shown(one)


def test_a_deep_field_is_not_followed() -> None:
    """A chunk as deep as a provider likes costs no stack, and is kept as it is."""
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    one, other = chunk({"content": "a"}, {"x": deep}), chunk({"content": "b"}, {"x": [*deep]})
    assert not is_like(other, "b", one, "a")


class Held(Policy):
    """Holds text."""

    handles: ClassVar = {BlockKind.TEXT: Hold()}

    def on_block_complete(self, block: Block, ctx: PolicyContext) -> None:
        del block, ctx


@pytest.mark.parametrize("form", [0, 1, 6, 9])
def test_fragments_take_little_more_than_their_text(form: int) -> None:
    """Six thousand tokens of four bytes, in the forms that providers have for them: text, calls, thinking, refusals."""
    held, count = HeldChunks(), 6_000
    forms("warm", form)
    tracemalloc.start()
    try:
        for number in range(count):
            one = forms(f"{number % 9000:04}", form)
            held.append(one, read_part(one))
        del one
        weight = tracemalloc.get_traced_memory()[0] / (4 * count)
    finally:
        tracemalloc.stop()
    assert weight < 3
    assert held.size < 2 * 4 * count


async def test_a_held_text_in_tokens_is_within_the_limit_that_it_has_as_a_whole() -> None:
    """What is counted against `queue_bytes` is the text and two bytes a cut, not a share of a chunk's for each token."""
    texts = ["abcd"] * 1_000
    run = await run_policy(Held(), chunks(*texts), settings=StreamSettings(queue_bytes=6_200))
    assert run.text == "".join(texts)
    refused = await run_policy(Held(), chunks(*texts), settings=StreamSettings(queue_bytes=5_900))
    assert refused.text == ""
