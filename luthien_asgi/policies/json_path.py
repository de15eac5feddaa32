"""Paths into JSON values, in a small part of RFC 9535's syntax: names, indices, wildcards and descent.

Why not a library: filters, functions and slices are what makes JSONPath big, and none of them is needed to name an argument. What
is left is a page of code whose time is bounded by the size of the value, whatever the model writes.

It differs from the RFC where the RFC would let a value get by:

1. A name asks the items of a list, too, and theirs: `$.files.path` finds every path of a list of files.
2. Names differ not by upper and lower case: some languages fill `url` from `URL`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["JsonPath", "leaves"]

_SEGMENT: Final = re.compile(
    r"""(?P<deep>\.\.)?  (?: (?(deep)|\.) (?P<name>[^\s.\[\]*'"$@?(),:]+|\*)
                         | \[ \s* (?: (?P<every>\*) | (?P<index>-?\d{1,9})
                         | '(?P<single>[^'\\]*)' | "(?P<double>[^"\\]*)" ) \s* \] )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class _Segment:
    deep: bool
    name: str | None = None
    index: int | None = None

    def children(self, node: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON value
        if isinstance(node, dict):
            if self.index is None:
                yield from (value for name, value in node.items() if self.name is None or name.casefold() == self.name)
        elif isinstance(node, list):
            if self.index is not None:
                yield from node[self.index :][:1] if -len(node) <= self.index < len(node) else ()
            elif self.name is None:
                yield from node


class JsonPath:
    """One path: `$.url`, `$.files[*].path`, `$..path`, `$['a b'][0]`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._segments = _parsed(text)

    def select(self, value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
        """Return the values that the path leads to, each once; in time that is bounded by the value's size for each step."""
        nodes = [value]
        for segment in self._segments:
            if segment.deep:
                nodes = _containers(nodes)
            elif segment.name is not None:
                nodes = [item for node in nodes for item in _through_lists(node)]
            nodes = [child for node in nodes for child in segment.children(node)]
        return nodes


def _parsed(text: object) -> Sequence[_Segment]:
    if not isinstance(text, str) or not text.startswith("$"):
        msg = f"a path must be a text that begins with $, such as $.url or $..path, not {text!r}"
        raise ValueError(msg)
    segments, at = [], 1
    while at < len(text):
        found = _SEGMENT.match(text, at)
        if found is None:
            wanted = ".name, ['name'], [0], [*], .* or .. before one of them"
            msg = f"the path {text!r} has something else at {text[at:]!r} than {wanted}"
            raise ValueError(msg)
        segments.append(_segment(found))
        at = found.end()
    return segments


def _segment(found: re.Match[str]) -> _Segment:
    deep, index = found["deep"] is not None, found["index"]
    if index is not None:
        return _Segment(deep, index=int(index))
    if found["every"] or found["name"] == "*":
        return _Segment(deep)
    name = next(text for text in (found["name"], found["single"], found["double"]) if text is not None)
    return _Segment(deep, name=name.casefold())


def _containers(nodes: Sequence[Any]) -> list[Any]:
    """Return the objects and lists among the nodes and everything in them, each once."""
    seen: set[int] = set()
    found = []
    pending = list(reversed(nodes))
    while pending:
        node = pending.pop()
        if isinstance(node, dict | list) and id(node) not in seen:
            seen.add(id(node))
            found.append(node)
            pending += node.values() if isinstance(node, dict) else node
    return found


def _through_lists(node: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON value
    pending = [node]
    while pending:
        at = pending.pop()
        if isinstance(at, list):
            pending += reversed(at)
        else:
            yield at


def leaves(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON value
    """Yield the strings, numbers, flags and nulls in a value, or the value itself where it is one."""
    pending = [value]
    while pending:
        at = pending.pop()
        if isinstance(at, dict):
            pending += at.values()
        elif isinstance(at, list):
            pending += at
        else:
            yield at
