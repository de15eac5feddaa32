"""JSON in and out: what is JSON, what is not, and what must survive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi import jsontext

TEXTS = st.text(st.characters(exclude_categories=()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_is_read_back(value: Any) -> None:
    """Any JSON value, lone surrogates and huge numbers included."""
    assert jsontext.loads(jsontext.dumps(value)) == value


@given(JSON)
def test_what_is_written_is_one_line_of_ascii_or_utf_8(value: Any) -> None:
    """No newline within, so that a line is a record."""
    written = jsontext.dumps(value)
    assert b"\n" not in written
    assert b"\r" not in written
    assert json.loads(written.decode("utf-8")) == value


@given(JSON)
def test_the_standard_librarys_json_is_read(value: Any) -> None:
    """With its escapes and spaces, as text and as bytes."""
    text = json.dumps(value, indent=1)
    assert jsontext.loads(text) == value
    assert jsontext.loads(text.encode()) == value


def test_both_halves_of_a_surrogate_pair_survive_apart_and_are_one_together() -> None:
    """A provider that cuts an emoji in two sends two lone surrogates."""
    first, second = jsontext.loads(b'"\\ud83d"'), jsontext.loads('"\\ude00"')
    assert (first, second) == ("\ud83d", "\ude00")
    assert jsontext.loads(jsontext.dumps(first)) == first
    assert jsontext.loads(b'"\\ud83d\\ude00"') == "😀"
    assert jsontext.loads('{"a": "\ud83d"}') == {"a": "\ud83d"}, "in a text that holds the half itself"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        "{'a': 1}",
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        "1 2",
        '"\n"',
        "01",
        "+1",
        "nul",
        '"\\x"',
        "[1] x",
        '["\\ud83d", NaN]',
        '["\\ud83d"',
        "1" * 5000,
        '["\\ud83d", ' + "1" * 5000 + "]",
    ],
)
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    """As text and as bytes, on both ways through the parser."""
    for data in (text, text.encode("utf-8")):
        with pytest.raises(ValueError):
            jsontext.loads(data)


@pytest.mark.parametrize("data", [b"\xff", b'"\xff"', b'"\xed\xa0\xbd"', b'{"a": "\xc3"}', b"\x00"])
def test_bytes_that_are_not_utf_8_are_a_value_error(data: bytes) -> None:
    """Cut, surrogates in UTF-8's form, other encodings."""
    with pytest.raises(ValueError):
        jsontext.loads(data)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_another_encodings_bytes_are_not_guessed(encoding: str) -> None:
    """What stands before this server and reads UTF-8 must see the same request."""
    with pytest.raises(ValueError):
        jsontext.loads('{"a": 1}'.encode(encoding))


@pytest.mark.parametrize("form", ["{}", '["\\ud83d", {}]'])
@pytest.mark.parametrize("bracket", ["[]", '{"a":}'])
def test_nesting_beyond_reason_is_a_value_error_and_no_crash(form: str, bracket: str) -> None:
    """A hundred thousand levels, whichever parser reads them."""
    half = len(bracket) - 1
    text = form.replace("{}", bracket[:half] * 100_000 + "1" + bracket[half:] * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        jsontext.loads(text)


@pytest.mark.parametrize("text", ["1e400", "-1e400", '["\\ud83d", 1e400]'])
def test_a_number_that_no_double_holds_is_refused(text: str) -> None:
    """It must not turn into infinity, which is not JSON."""
    with pytest.raises(ValueError):
        jsontext.loads(text)


def test_keys_of_numbers_become_text() -> None:
    """Finish reasons are kept by choice."""
    assert jsontext.dumps({0: "stop"}) == b'{"0":"stop"}'


def test_what_json_has_no_form_for_is_a_type_error() -> None:
    """It is not written as its `repr`."""
    with pytest.raises(TypeError):
        jsontext.dumps({"a": object()})


@pytest.mark.parametrize(
    ("value", "depth"),
    [(1, 0), ("[[", 0), ([], 1), ({}, 1), ([[]], 2), ({"a": [{"b": 1}]}, 3), ([1, [2], {"c": [[3]]}], 4)],
)
def test_depth_counts_the_levels(value: Any, depth: int) -> None:
    """Objects and lists alike; a scalar has none."""
    assert jsontext.depth_of(value, 64) == depth


def test_depth_stops_one_beyond_the_limit() -> None:
    """However deep the value is."""
    value: Any = []
    for _ in range(50_000):
        value = [value]
    assert jsontext.depth_of(value, 64) == 65
    assert jsontext.depth_of([[]], 2) == 2
    assert jsontext.depth_of([[]], 1) == 2
    while value:  # taken apart level by level: freeing it at once would recurse
        value = value[0]


# --- how many items -----------------------------------------------------------------------------------------------------------


def marks_of(text: bytes) -> int:
    """Count commas and opening brackets outside strings, a character at a time."""
    found, inside, escaped = 0, False, False
    for character in text.decode():
        if inside:
            escaped, inside = character == "\\" and not escaped, character != '"' or escaped
        elif character == '"':
            inside = True
        else:
            found += character in ",[{"
    return found


@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_items_are_counted_outside_strings(value: Any, indent: int | None, ascii_only: bool) -> None:
    """Whatever stands in the strings, escaped or not; the limit itself is allowed, one less is not."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    exact = marks_of(text)
    assert not jsontext.has_more_items(text, exact)
    assert exact == 0 or jsontext.has_more_items(text, exact - 1)


@given(JSON)
def test_there_are_never_more_values_than_items_and_one(value: Any) -> None:
    """So the count bounds what parsing makes."""

    def values(item: Any) -> int:
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        return 1 + sum(values(each) for each in inside)

    text = jsontext.dumps(value)
    assert values(value) <= marks_of(text) + 1
    assert not jsontext.has_more_items(text, marks_of(text))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b'{"a": "[,{[,{"}', 1),
        (b'{"a": "\\",\\"["}', 1),
        (b'{"a\\\\": "b,", "c": ","}', 2),
        (b'["\\\\\\"", ",", "\\\\"]', 3),
        ('["é,", "😀["]'.encode(), 2),
    ],
)
def test_quotes_and_backslashes_are_told_apart(text: bytes, items: int) -> None:
    """An escaped quote ends nothing, one behind an escaped backslash does."""
    assert json.loads(text)
    assert marks_of(text) == items
    assert not jsontext.has_more_items(text, items)
    assert jsontext.has_more_items(text, items - 1)


@pytest.mark.parametrize("text", [b'"' * 1000, b'"",' * 1000, b"[" * 1000, b'{"":' * 1000, b"," * 1000])
def test_what_is_no_json_is_counted_too(text: bytes) -> None:
    """It does not become a way around the count."""
    assert jsontext.has_more_items(text, 100) or len(text.translate(None, b'"')) <= 100


@given(JSON, st.integers(0, 5))
def test_the_depth_is_that_of_the_value_up_to_a_limit(value: Any, limit: int) -> None:
    """Counted by its definition: a plain value has none, a container one more than the deepest in it."""

    def depth(item: Any) -> int:
        if not isinstance(item, dict | list):
            return 0
        return 1 + max(map(depth, item.values() if isinstance(item, dict) else item), default=0)

    assert jsontext.depth_of(value, limit) == min(depth(value), limit + 1)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 5000 + b'"\\ud83d"' + b"]" * 5000])
def test_nesting_beyond_the_interpreters_limit_is_told_apart(text: bytes) -> None:
    """It is no crash, and no error of syntax; also where half an emoji has it read the slow way."""
    with pytest.raises(jsontext.NestingError):
        jsontext.loads(text)
