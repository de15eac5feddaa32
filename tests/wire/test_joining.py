"""What pieces of a streamed answer are as one value, and which of them may leave more than once."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from luthien_asgi.wire.joining import Addable, Additions, joined, joined_audio, joined_logprobs, updated

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"index": st.integers(0, 2)}, optional={"a": inner}), min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b", "index", "type"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["x", "y"]), JSON, max_size=2), max_size=5))
def test_the_official_sdk_can_add_up_what_leaves_at_once(deltas: list[dict[str, object]]) -> None:
    """Whatever a provider sends: in deltas, and once more before the finish."""
    additions = Additions()
    leaving = [*(additions.now(delta) for delta in deltas), additions.late()]
    total: dict[object, object] = {}
    for delta in leaving:
        total = accumulate_delta(total, dict(delta))


@given(st.lists(JSON, min_size=1, max_size=5))
def test_any_pieces_come_to_one_value(pieces: list[object]) -> None:
    """Nothing raises, and one piece is itself."""
    joined(pieces)
    assert joined(pieces[:1]) == pieces[0]
    updated(pieces[0], pieces[-1])


def test_pieces_are_joined_by_their_type() -> None:
    """Texts are put together, names are not, lists go by their index, objects field by field."""
    assert joined(["a", None, "b"]) == "ab"
    assert joined(["a", "a"], name="format") == "a"
    assert joined([[1], [2]]) == [1, 2]
    pieces = [[{"index": 0, "text": "a", "format": "f"}], [{"index": 0, "text": "b", "format": "f"}, {"index": 1, "text": "c"}]]
    assert joined(pieces) == [{"index": 0, "text": "ab", "format": "f"}, {"index": 1, "text": "c"}]
    assert joined([{"a": {"b": "x"}}, {"a": {"b": "y", "c": 1}}]) == {"a": {"b": "xy", "c": 1}}
    assert joined([1, 2]) == 2
    assert updated({"a": 1, "b": {"c": 1}}, {"b": {"d": 2}}) == {"a": 1, "b": {"c": 1, "d": 2}}


@pytest.mark.parametrize(
    ("value", "addable"),
    [("a", True), (1, True), (["a", 1], True), ([{"index": 0}], True), ([{"a": 1}], False), ([{"index": "0"}], False),
     ({"a": [{"b": 1}]}, False), ([["a"]], False)],
)  # fmt: skip
def test_lists_of_objects_need_an_index(value: object, addable: bool) -> None:
    """That is the official SDK's rule."""
    assert Addable().take("x", value) is addable


INDEXED: list[object] = [{"index": 0, "a": 1}]


@pytest.mark.parametrize(
    ("first", "second", "addable"),
    [
        (INDEXED, [1], False),
        ([1], INDEXED, False),
        (INDEXED, [], True),
        ([], INDEXED, True),
        ({"y": INDEXED}, {"y": ["a"]}, False),
        ({"y": INDEXED}, {"z": ["a"]}, True),
        ([{"index": 0, "y": INDEXED}], [{"index": 1, "y": ["a"]}], False),
        ({"y": INDEXED}, "a", True),
    ],
)
def test_a_list_holds_what_it_held(first: object, second: object, addable: bool) -> None:
    """Plain values or objects, in every delta and at every depth: the SDK raises at the other."""
    additions = Additions()
    assert additions.now({"x": first}) == {"x": first}
    assert additions.now({"x": second}) == ({"x": second} if addable else {})
    assert additions.now({"x": first}) == {"x": first}
    assert (additions.late(), additions.lost) == ({}, not addable)


def test_audio_is_joined_as_bytes_and_in_linear_time() -> None:
    """Each piece is whole base64; what is not is put together as it is. A long answer costs milliseconds."""
    pieces = [{"id": "a", "data": base64.b64encode(part).decode()} for part in (b"one", b"two2", b"three33")]
    whole = joined_audio([*pieces, {"transcript": "x"}, {"transcript": "y", "expires_at": 5}])
    assert whole == {"id": "a", "data": base64.b64encode(b"onetwo2three33").decode(), "transcript": "xy", "expires_at": 5}
    assert joined_audio([{"data": "AAA"}, {"data": "A"}]) == {"data": "AAAA"}
    assert joined_audio([{"data": "A\u00e9"}, {"data": "AAAA"}]) == {"data": "A\u00e9AAAA"}
    many = [{"data": "A" * 4000} for _ in range(5000)]
    began = time.process_time()
    assert len(joined_audio(many)["data"]) == 20_000_000
    assert time.process_time() - began < 5


def test_logprobs_are_joined_by_list() -> None:
    """A list that was null at first begins later; what is no list is kept as it was said first."""
    assert joined_logprobs([]) is None
    pieces = [{"content": None, "refusal": [1]}, {"content": [2], "refusal": [3], "model": "m"}]
    assert joined_logprobs(pieces) == {"content": [2], "refusal": [1, 3], "model": "m"}
