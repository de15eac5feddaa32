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

from collections.abc import Iterator, Mapping, Sequence
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
_TURNS: Final[Mapping[str, str]] = MappingProxyType({"content": "content", "system": "content"})


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
        self._tags: dict[str, list[str]] = {}
        for path in self.rows:
            if path.endswith("]"):
                holder, _, tag = path[:-1].rpartition("[")
                self._tags.setdefault(holder, []).append(tag)
        self._valued = frozenset(path.partition("=")[0] for path in self.rows if "=" in path)
        self._holders = frozenset(path.rpartition(".")[0] for path in self.rows)

    def goes_on(self, path: str) -> bool:
        """Tell whether what stands below a path has rows of its own."""
        row = self.rows.get(path)
        if row is not None and row.fate in _WHOLE:
            return False
        return self.turned(path) in self._holders or path in self._valued or self.is_tagged(path)

    def is_tagged(self, path: str) -> bool:
        """Tell whether the objects at a path say what they are."""
        return self.turned(path) in self._tags

    def has_values(self, path: str) -> bool:
        """Tell whether the values at a path have rows."""
        return path in self._valued

    def values_of(self, path: str) -> Mapping[str, str]:
        """Return what the values at a path are in the other format, for those that are mapped to a value."""
        found = {row.path.partition("=")[::2]: row.to.partition("=")[2] for row in self.rows.values() if row.fate is Fate.MAPPED}
        return MappingProxyType({value: to for (place, value), to in found.items() if place == path and value and to})

    def turned(self, path: str) -> str:
        """Return the path under which the objects of a field are known: that of content begins anew."""
        return self._turns.get(path, self._turns.get(path.rpartition(".")[2], path))

    def tag_of(self, path: str, value: Mapping[str, Any]) -> str:
        """Return what an object says that it is."""
        said = value.get("role" if path == "messages" else "type")
        if said is None:
            said = next((tag for tag in self._tags.get(self.turned(path), ()) if tag in value), self._defaults.get(path))
        return said if isinstance(said, str) else ""

    def row(self, holder: str, name: str) -> Row | None:
        """Return the row of a field: its own, or the one (`*`) for all the fields of its holder that have none."""
        return self.rows.get(self.below(holder, name)) or self.rows.get(self.below(holder, "*"))

    def below(self, holder: str, name: str) -> str:
        """Return the path of a field of an object."""
        return f"{holder}.{name}" if holder else name

    def survey(self, value: Any, path: str, at: str) -> Iterator[Finding]:  # noqa: ANN401 - any JSON value
        """Yield what is refused, ignored or not known of a value, which stands at `path` in the table and `at` in the body."""
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield from self.survey(item, path, f"{at}[{place}]")
        elif isinstance(value, dict):
            yield from self._object(value, path, at)
        elif path in self._valued:
            yield from self._settled(self.rows.get(f"{path}={value}"), value, at)

    def _object(self, value: Mapping[str, Any], path: str, at: str) -> Iterator[Finding]:
        said: frozenset[str] = frozenset()
        if self.is_tagged(path):
            kind = self.tag_of(path, value)
            path, said = f"{self.turned(path)}[{kind}]", frozenset({"type", "role"})
            row = self.rows.get(path)
            if row is None or row.fate in _WHOLE:
                yield from (Finding(found.at, found.row, kind) for found in self._settled(row, value, at))
                return
        else:
            path = self.turned(path)
        if path not in self._holders:
            if path in self._valued:
                yield Finding(at, None)
            return
        for name, inner in value.items():
            if inner is not None and name not in said:
                yield from self._settled(self.row(path, name), inner, f"{at}.{name[:100]}")

    def _settled(self, row: Row | None, value: Any, at: str) -> Iterator[Finding]:  # noqa: ANN401
        if row is None:
            yield Finding(at, None)
        elif row.is_neutral(value):
            return
        elif row.fate in {Fate.REFUSED, Fate.IGNORED}:
            yield Finding(at, row)
        elif self.goes_on(row.path):
            yield from self.survey(value, row.path, at)
