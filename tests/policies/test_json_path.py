"""Paths into arguments: what each leads to, in time that the value bounds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from luthien_asgi.policies.json_path import JsonPath, leaves

VALUE: Any = {"url": "a", "files": [{"path": "b"}, {"path": ["c", {"path": "d"}]}], "x y": {"0": "e"}, "n": [1, [2, 3]]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", [VALUE]),
        ("$.url", ["a"]),
        ("$.URL", ["a"]),
        ("$['url']", ["a"]),
        ('$["x y"].0', ["e"]),
        ("$[ 'x y' ]['0']", ["e"]),
        ("$.files[0].path", ["b"]),
        ("$.files[-1].path[0]", ["c"]),
        ("$.files[2]", []),
        ("$.files[*].path", ["b", ["c", {"path": "d"}]]),
        ("$.files.path", ["b", ["c", {"path": "d"}]]),
        ("$..path", ["b", ["c", {"path": "d"}], "d"]),
        ("$..files..path", ["b", ["c", {"path": "d"}], "d"]),
        ("$..[0]", [{"path": "b"}, 1, "c", 2]),
        ("$.n.*", [1, [2, 3]]),
        ("$.n[1][*]", [2, 3]),
        ("$.missing.path", []),
        ("$.url.path", []),
    ],
)
def test_what_a_path_leads_to(path: str, found: list[Any]) -> None:
    """Names, indices, wildcards, descent; a name looks through lists."""
    selected = JsonPath(path).select(VALUE)
    assert sorted(map(repr, selected)) == sorted(map(repr, found))


def test_one_value_is_found_once() -> None:
    """However many ways lead to it."""
    assert JsonPath("$..*..x").select({"a": {"b": {"c": {"x": 1}}}}) == [1]


def test_leaves_are_all_scalars() -> None:
    """Wrapped as deep as it may be."""
    assert sorted(map(str, leaves(VALUE))) == ["1", "2", "3", "a", "b", "c", "d", "e"]
    assert list(leaves(None)) == [None]


@pytest.mark.parametrize(
    "path", ["", "url", "$url", "$.", "$..", "$[", "$[]", "$['a]", "$[1:2]", "$[?@.a]", "$.a b", "$.a,b", None, 1]
)
def test_what_is_no_path_is_refused(path: Any) -> None:
    """When the policy is loaded, and not when a call comes."""
    with pytest.raises(ValueError, match="path"):
        JsonPath(path)


def test_descent_into_descent_is_bounded_by_the_value() -> None:
    """Twenty steps down a value of 20 000 parts, each deeper than the last, take no more than twenty walks through it."""
    value: Any = {}
    for _ in range(40):
        value = {"a": value, "b": [{} for _ in range(500)]}
    once, often = JsonPath("$..*"), JsonPath("$" + "..*" * 20)
    began = time.thread_time()
    once.select(value)
    between = time.thread_time()
    often.select(value)
    assert time.thread_time() - between < 60 * (between - began)
