"""Sections of a configuration file: typed reading that collects every problem with its line instead of stopping at the first."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

from luthien_asgi.plugins import meant
from luthien_asgi.yaml_lines import Document, Place, Problem

__all__ = ["Section"]


class _Values(Protocol):
    """A dataclass of values that raises `ValueError` for one it does not like."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


_Dataclass = TypeVar("_Dataclass", bound=_Values)


class Section:
    """One place of a document. Readers return None where there was a problem, which is then in the document."""

    def __init__(self, document: Document, place: Place = (), value: Any = None) -> None:  # noqa: ANN401 - a YAML value
        self.document = document
        self.place = place
        self.value = value

    def problem(self, message: str, *, at: object = None) -> None:
        """Note what is wrong here, or with the key `at` below; not a second time where a variable is missing anyway."""
        place = self.place if at is None else (*self.place, at)
        if place not in self.document.unresolved:
            self.document.problems.append(Problem(self.document.line_of(place), place, message))

    def warn(self, message: str) -> None:
        """Note what is likely not what was meant here."""
        self.document.warnings.append(Problem(self.document.line_of(self.place), self.place, message))

    def child(self, key: object) -> Section:
        """Return the section of one key of this mapping."""
        return Section(self.document, (*self.place, key), self.value[key])

    def keys(self, known: Collection[str] | None = None) -> dict[str, Section]:
        """Return the sections below by key; empty where nothing was written. A key that is not known is a problem."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.problem(f"must be a mapping, not {self.shown()}")
            return {}
        good = [key for key in self.value if self._is_known(key, known)]
        return {key: self.child(key) for key in good}

    def _is_known(self, key: object, known: Collection[str] | None) -> bool:
        if not isinstance(key, str):
            self.problem(f"the key {key!r} is not a string: quote it", at=key)
            return False
        if known is None or key in known:
            return True
        self.problem(f"unknown key{meant(key, known)}", at=key)
        return False

    def items(self) -> list[Section]:
        """Return the sections of a list."""
        if isinstance(self.value, list):
            return [Section(self.document, (*self.place, number), item) for number, item in enumerate(self.value)]
        self.problem(f"must be a list, not {self.shown()}")
        return []

    def text(self) -> str | None:
        """Return a string that is not blank."""
        if isinstance(self.value, str) and self.value.strip():
            return self.value
        hint = ": quote it" if isinstance(self.value, bool | int | float) else ""
        self.problem(f"must be a string, not {self.shown()}{hint}")
        return None

    def choice(self, options: Collection[str]) -> str | None:
        """Return one of a few words. YAML reads a bare `off` as false: here it is the word again."""
        value = "off" if self.value is False and "off" in options else self.value
        if isinstance(value, str) and value in options:
            return value
        self.problem(f"{self.shown()}, expected one of {', '.join(options)}")
        return None

    def flag(self) -> bool:
        """Return a truth value; False where there was a problem."""
        if not isinstance(self.value, bool):
            self.problem(f"must be true or false, not {self.shown()}")
        return self.value is True

    def number(self, *, whole: bool) -> float | None:
        """Return a number; one that came from the environment may be written as text."""
        value = self._number_from_environment(whole=whole)
        if isinstance(value, int if whole else int | float) and not isinstance(value, bool):
            return value
        self.problem(f"must be a {'whole ' if whole else ''}number, not {self.shown()}")
        return None

    def positive(self) -> float | None:
        """Return a number above zero."""
        value = self.number(whole=False)
        if value is None or 0 < value < math.inf:
            return value
        self.problem(f"must be positive, not {self.shown()}")
        return None

    def _number_from_environment(self, *, whole: bool) -> Any:  # noqa: ANN401 - a YAML value
        if self.place not in self.document.from_environment:
            return self.value
        try:
            return int(self.value) if whole else float(self.value)
        except ValueError:
            return self.value

    def shown(self) -> str:
        """Return the value for a message; one from the environment is not shown."""
        if self.place in self.document.from_environment:
            return "the variable's value"
        if self.value is None:
            return "nothing"
        if isinstance(self.value, dict | list):
            return "a mapping" if isinstance(self.value, dict) else "a list"
        return repr(self.value)

    def dataclass(self, cls: type[_Dataclass]) -> _Dataclass:
        """Return a dataclass of numbers and words filled from this mapping; each field's own check is reported at its line."""
        kinds = {field.name: str(field.type) for field in fields(cls)}
        given = {key: section.field_value(kinds[key]) for key, section in self.keys(kinds).items()}
        return cls(**{key: value for key, value in given.items() if value is not None and self._accepts(cls, key, value)})

    def field_value(self, kind: str) -> Any:  # noqa: ANN401 - a number or a word
        """Return this value as the field of a dataclass whose annotation is `kind`."""
        if kind in {"int", "float"}:
            return self.number(whole=kind == "int")
        return "off" if self.value is False else self.text()

    def _accepts(self, cls: type[_Dataclass], key: str, value: Any) -> bool:  # noqa: ANN401 - a number or a word
        try:
            cls(**{key: value})
        except ValueError as error:
            self.problem(str(error), at=key)
            return False
        return True
