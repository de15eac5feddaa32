"""What becomes of a part of a request or an answer on its way to the other format: the words, and the tables that use them.

Strategy: a table knows the fields of one format by their paths, and a walk goes down a JSON value and its table side by side.
What the table refuses or ignores, and what it does not know, comes out of the walk; so the converters only map, and nothing that
has no row is dropped in silence.

A path is written as the field's names with points between them. Where an object says by its `type` (a message by its `role`) what
it is, that stands in brackets: `tools[custom].strict`. Lists leave no mark. Content blocks nest in one another, so a path begins
anew at every `content` and `system`: `content[image].source[url].url`. A value of its own fate is written with `=`:
`tool_choice=auto`. A `*` stands for all fields that have no row. A row that is refused, ignored or carried speaks for all below
it, and so does any row with no rows below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

__all__ = ["Fate", "Finding", "Row", "Table"]


class Fate(StrEnum):
    """What becomes of a part in the other format."""

    MAPPED = "mapped"
    CARRIED = "carried"
    REFUSED = "refused"
    IGNORED = "ignored"
    HANDLED = "handled"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a field, a type of part or a value, of one format."""

    path: str
    fate: Fate
    to: str = ""
    """Where it is in the other format: a path of that one, for rows that are mapped."""
    note: str = ""
    """How, or why not."""
    neutral: Sequence[Any] = ()
    """Values that equal leaving it out in the other format; `null` always does."""
    notice: str = ""
    """The name under which it is noted that it was left out; the path if there is none."""

    @property
    def name(self) -> str:
        """The name of a notice."""
        return self.notice or self.path

    def is_neutral(self, value: Any) -> bool:  # noqa: ANN401 - any JSON value
        """Tell whether leaving it out says the same."""
        return value is None or any(value == same and isinstance(value, bool) == isinstance(same, bool) for same in self.neutral)


@dataclass(frozen=True, slots=True)
class Finding:
    """A place of a JSON value that the table refuses or ignores, or does not know (`row` is None)."""

    at: str
    row: Row | None
    kind: str | None = None
    """What the object says that it is, where that is what was looked up; "" where it does not say."""

    @property
    def reason(self) -> str:
        """Why it cannot go on as it is, in words."""
        why = self.row.note if self.row is not None else "it is not known here what it means"
        if self.kind is None:
            return why
        return f"type {self.kind[:50]}: {why}" if self.kind else "it does not say its type"


_WHOLE: Final = frozenset({Fate.REFUSED, Fate.IGNORED, Fate.CARRIED})
_LEFT: Final = frozenset({Fate.REFUSED, Fate.IGNORED})
_TAGS: Final = frozenset({"type", "role"})
_TURNS: Final[Mapping[str, str]] = MappingProxyType({"content": "content", "system": "content"})
_ANY: Final = "*"

Trail = tuple["Trail", str | int] | None
"""The way to a place of a body, from its end: only a place that is found something at becomes a text."""


class Table:
    """The rows of one format in one direction, by path.

    `defaults` are the types of objects that need not say theirs; `turns` the paths, or last names of paths, where a path begins
    anew, and with what.
    """

    def __init__(
        self, rows: Sequence[Row], *, defaults: Mapping[str, str] = MappingProxyType({}), turns: Mapping[str, str] = _TURNS
    ) -> None:
        self.rows: Final[Mapping[str, Row]] = MappingProxyType({row.path: row for row in rows})
        if len(self.rows) != len(rows):
            msg = "a path has two rows"
            raise ValueError(msg)
        self._defaults, self._turns = defaults, turns
        self._kinds: dict[str, dict[str, Row]] = {}
        self._values: dict[str, dict[str, Row]] = {}
        self._fields: dict[str, dict[str, Row]] = {}
        for row in rows:
            self._file(row)
        self._deep = frozenset(path for path in self.rows if self.goes_on(path))

    def _file(self, row: Row) -> None:
        place, is_value, value = row.path.partition("=")
        holder, _, name = place.rpartition("[") if place.endswith("]") else place.rpartition(".")
        if is_value:
            self._values.setdefault(place, {})[value] = row
        elif place.endswith("]"):
            self._kinds.setdefault(holder, {})[name[:-1]] = row
        else:
            self._fields.setdefault(holder, {})[name] = row

    def goes_on(self, path: str) -> bool:
        """Tell whether what stands below a path has rows of its own."""
        row = self.rows.get(path)
        if row is not None and row.fate in _WHOLE:
            return False
        return self.turned(path) in self._fields or path in self._values or self.is_tagged(path)

    def is_tagged(self, path: str) -> bool:
        """Tell whether the objects at a path say what they are."""
        return self.turned(path) in self._kinds

    def has_values(self, path: str) -> bool:
        """Tell whether the values at a path have rows."""
        return path in self._values

    def values_of(self, path: str) -> Mapping[str, str]:
        """Return what the values at a path are in the other format, for those that are mapped to a value."""
        rows = self._values[path].items()
        return MappingProxyType({value: row.to.partition("=")[2] for value, row in rows if "=" in row.to})

    def turned(self, path: str) -> str:
        """Return the path under which the objects of a field are known: that of content begins anew."""
        return self._turns.get(path, self._turns.get(path.rpartition(".")[2], path))

    def below(self, holder: str, name: str) -> str:
        """Return the path of a field of an object."""
        return f"{holder}.{name}" if holder else name

    def tag_of(self, path: str, value: Mapping[str, Any]) -> str:
        """Return what an object says that it is."""
        said = value.get("role" if path == "messages" else "type")
        if said is None:
            said = next((tag for tag in self._kinds.get(self.turned(path), ()) if tag in value), self._defaults.get(path))
        return said if isinstance(said, str) else ""

    def survey(self, value: Any, path: str, at: str) -> list[Finding]:  # noqa: ANN401 - any JSON value
        """Return what is refused, ignored or not known of a value, which stands at `path` in the table and `at` in the body."""
        found: list[tuple[Trail, Row | None, str | None]] = []
        self._walk(value, path, None, found)
        return [Finding(_place(trail, at), row, kind) for trail, row, kind in found]

    def _walk(self, value: Any, path: str, trail: Trail, found: list[tuple[Trail, Row | None, str | None]]) -> None:  # noqa: ANN401
        if isinstance(value, list):
            for place, item in enumerate(value):
                self._walk(item, path, (trail, place), found)
        elif isinstance(value, dict):
            self._walk_object(value, path, trail, found)
        elif path in self._values:
            self._settle(self._values[path].get(value) if isinstance(value, str) else None, value, trail, None, found)

    def _walk_object(
        self, value: Mapping[str, Any], path: str, trail: Trail, found: list[tuple[Trail, Row | None, str | None]]
    ) -> None:
        turned = self.turned(path)
        kinds = self._kinds.get(turned)
        if kinds is not None:
            kind = self.tag_of(path, value)
            row = kinds.get(kind)
            if row is None or row.fate in _WHOLE:
                self._settle(row, value, trail, kind, found)
                return
            turned = row.path
        fields = self._fields.get(turned)
        if fields is not None:
            for name, inner in value.items():
                if inner is not None and (kinds is None or name not in _TAGS):
                    self._settle(fields.get(name) or fields.get(_ANY), inner, (trail, name), None, found)
        elif path in self._values:
            found.append((trail, None, None))

    def _settle(
        self,
        row: Row | None,
        value: Any,  # noqa: ANN401
        trail: Trail,
        kind: str | None,
        found: list[tuple[Trail, Row | None, str | None]],
    ) -> None:
        if row is None:
            found.append((trail, None, kind))
        elif row.neutral and row.is_neutral(value):
            return
        elif row.fate in _LEFT:
            found.append((trail, row, kind))
        elif row.path in self._deep:
            self._walk(value, row.path, trail, found)


def _place(trail: Trail, at: str) -> str:
    steps: list[str] = []
    while trail is not None:
        trail, step = trail
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:100]}")
    return (at + "".join(reversed(steps))).removeprefix(".")
