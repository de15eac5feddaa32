"""Conditions on a tool call's arguments: a path, an operator and what it is compared with.

Strategy: a condition says what is *denied*, and one value that fulfils it is enough. Lists and objects at a path's end are looked
into, so that wrapping a value hides nothing; operators that say what is allowed (`not_…`) also deny where there is no value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.policies.checks import checked_mapping, checked_pattern
from luthien_asgi.policies.json_path import JsonPath, leaves

__all__ = ["Condition", "condition_of"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, read and checked."""

    tool: str
    path: JsonPath
    operator: str
    fulfilled: Callable[[Sequence[Any]], bool]
    """Given what the path leads to, tell whether the call is denied."""

    def concerns(self, name: str) -> bool:
        """Tell whether the condition is about calls of this tool."""
        return fnmatchcase(name, self.tool)

    def objection(self, arguments: Any) -> str:  # noqa: ANN401 - any JSON value
        """Return why a call with these arguments is denied, or nothing; no value of them is quoted."""
        if not isinstance(arguments, dict) and self.path.text != "$":
            return f"the arguments are no object in which {self.path.text} could be looked up"
        return f"{self.path.text}: {self.operator}" if self.fulfilled(self.path.select(arguments)) else ""


def condition_of(entry: object) -> Condition:
    """Return a condition from its mapping. Raises `ValueError`."""
    fields = checked_mapping(entry, "a condition", ("tool", "path", *_OPERATORS))
    operators = [name for name in fields if name in _OPERATORS]
    if len(operators) != 1:
        msg = f"a condition has one of {', '.join(_OPERATORS)}, not {operators or 'none'}: {entry!r}"
        raise ValueError(msg)
    if "path" not in fields:
        msg = f"a condition needs a path, such as $.url: {entry!r}"
        raise ValueError(msg)
    tool, path, operator = fields.get("tool", "*"), fields["path"], operators[0]
    if not isinstance(tool, str) or not tool:
        msg = f"a condition's tool must be a tool's name, not {tool!r}"
        raise ValueError(msg)
    return Condition(tool, JsonPath(path), operator, _OPERATORS[operator](fields[operator]))  # type: ignore[arg-type]  # it checks


# --- operators -------------------------------------------------------------------------------------------------------------

_Test = Callable[[Sequence[Any]], bool]


def _any(test: Callable[[Any], bool]) -> _Test:
    return lambda nodes: any(test(leaf) for node in nodes for leaf in leaves(node))


def _not_all(test: Callable[[Any], bool]) -> _Test:
    def fulfilled(nodes: Sequence[Any]) -> bool:
        found = [leaf for node in nodes for leaf in leaves(node)]
        return not found or not all(test(leaf) for leaf in found)

    return fulfilled


def _text(leaf: Any) -> str:  # noqa: ANN401 - a JSON scalar
    return leaf if isinstance(leaf, str) else jsontext.dumps(leaf).decode()


def _one_of(values: object) -> Callable[[Any], bool]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        msg = f"in and not_in take a list of values, not {values!r}"
        raise ValueError(msg)
    return _equal_to(*values)


def _equal_to(*values: object) -> Callable[[Any], bool]:
    if any(isinstance(value, Mapping | list) for value in values):
        msg = f"a condition compares texts, numbers, flags and null, not {values!r}"
        raise ValueError(msg)
    # "8080" and 8080 are the same to many a tool.
    texts = {_text(value) for value in values}
    numbers = {value for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
    return lambda leaf: _text(leaf) in texts or (_number(leaf) is not None and _number(leaf) in numbers)


def _matching(pattern: object) -> Callable[[Any], bool]:
    found = checked_pattern(pattern, "a condition's pattern")
    return lambda leaf: found.search(_text(leaf)) is not None


_NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def _number(leaf: Any) -> float | None:  # noqa: ANN401 - a JSON scalar
    if isinstance(leaf, bool) or leaf is None:
        return None
    try:
        return float(leaf) if isinstance(leaf, int | float) or _NUMBER.fullmatch(leaf) else None
    except OverflowError:
        return None


def _compared(limit: object, beyond: Callable[[float, float], bool]) -> Callable[[Any], bool]:
    if not isinstance(limit, int | float) or isinstance(limit, bool):
        msg = f"greater and less take a number, not {limit!r}"
        raise ValueError(msg)  # noqa: TRY004 - a configuration's value is wrong, and callers catch one class
    bound = float(limit)

    def test(leaf: Any) -> bool:  # noqa: ANN401 - a JSON scalar
        number = _number(leaf)
        return number is None or beyond(number, bound)

    return test


def _existing(wanted: object) -> _Test:
    if not isinstance(wanted, bool):
        msg = f"exists takes true (deny where it is there) or false (deny where it is missing), not {wanted!r}"
        raise ValueError(msg)  # noqa: TRY004 - a configuration's value is wrong, and callers catch one class
    return lambda nodes: bool(nodes) is wanted


_OPERATORS: Final[Mapping[str, Callable[[object], _Test]]] = {
    "equals": lambda value: _any(_equal_to(value)),
    "in": lambda values: _any(_one_of(values)),
    "not_in": lambda values: _not_all(_one_of(values)),
    "matches": lambda pattern: _any(_matching(pattern)),
    "not_matches": lambda pattern: _not_all(_matching(pattern)),
    "greater": lambda limit: _any(_compared(limit, lambda number, bound: number > bound)),
    "less": lambda limit: _any(_compared(limit, lambda number, bound: number < bound)),
    "exists": _existing,
}
