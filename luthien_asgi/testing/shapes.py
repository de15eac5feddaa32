"""Shapes of JSON: which fields an event has, and of which types. Tables are written in it, and it says where a value differs.

    CHUNK = Obj({"id": TEXT, "choices": ListOf(CHOICE), "usage?": Nullable(USAGE)})

A field with `?` may be missing. A field that the table does not know is a warning: protocols grow. Checking is linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from luthien_asgi.testing.violations import Sink, joined, quoted

__all__ = [
    "ANY",
    "BOOL",
    "INDEX",
    "NUMBER",
    "OBJECT",
    "TEXT",
    "EitherOf",
    "ListOf",
    "Nullable",
    "Obj",
    "OneOf",
    "Shape",
    "Variant",
]


class Shape(Protocol):
    """What a value may be."""

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401 - JSON is any shape
        """Report where the value differs. `at` is the path of the value, for messages."""


@dataclass(frozen=True, slots=True)
class Simple:
    """A value of one of Python's types; `true` is no number."""

    types: tuple[type, ...]
    words: str
    least: int | None = None

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        fits = isinstance(value, self.types) and (not isinstance(value, bool) or bool in self.types)
        if not fits or (self.least is not None and value < self.least):
            sink.report("field", f"{at} must be {self.words}, not {quoted(value)}")


@dataclass(frozen=True, slots=True)
class _Any:
    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401, ARG002
        """Report where the value differs."""
        return


ANY: Final[Shape] = _Any()
TEXT: Final[Shape] = Simple((str,), "a string")
BOOL: Final[Shape] = Simple((bool,), "true or false")
INDEX: Final[Shape] = Simple((int,), "a number from 0 on", 0)
NUMBER: Final[Shape] = Simple((int, float), "a number")
OBJECT: Final[Shape] = Simple((dict,), "an object")


@dataclass(frozen=True, slots=True)
class Nullable:
    """The shape, or null."""

    shape: Shape

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        if value is not None:
            self.shape.check(value, at, sink)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some strings. Another string is a value that the table does not know, which is a warning, unless `closed`."""

    values: tuple[str, ...]
    closed: bool = False

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        if not isinstance(value, str):
            sink.report("field", f"{at} must be a string, not {quoted(value)}")
        elif value not in self.values:
            known = " or ".join(self.values) if len(self.values) <= 4 else "a documented value"
            sink.report("field" if self.closed else "unknown-value", f"{at} must be {known}, not {quoted(value)}")


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose entries have one shape."""

    shape: Shape

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        if not isinstance(value, list):
            sink.report("field", f"{at} must be a list, not {quoted(value)}")
            return
        for place, item in enumerate(value):
            self.shape.check(item, f"{at}[{place}]", sink)


@dataclass(frozen=True, slots=True)
class EitherOf:
    """A string, or what else a field may be."""

    other: Shape

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        if not isinstance(value, str):
            self.other.check(value, at, sink)


@dataclass(frozen=True, slots=True)
class Obj:
    """An object. `open` ones may have fields that the table does not know without a warning."""

    fields: Mapping[str, Shape]
    open: bool = False
    required: tuple[str, ...] = field(init=False)
    shapes: Mapping[str, Shape] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "required", tuple(name for name in self.fields if not name.endswith("?")))
        object.__setattr__(self, "shapes", {name.removesuffix("?"): shape for name, shape in self.fields.items()})

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        if not isinstance(value, dict):
            sink.report("field", f"{at or 'the event'} must be an object, not {quoted(value)}")
            return
        prefix = f"{at}." if at else ""
        for name in self.required:
            if name not in value:
                sink.report("field", f"{prefix}{name} is missing")
        for name, item in value.items():
            if (shape := self.shapes.get(name)) is not None:
                shape.check(item, prefix + name, sink)
        if not self.open and (unknown := value.keys() - self.shapes.keys()):
            where = at or "the event"
            sink.report("unknown-field", f"{where} has fields that the protocol does not: {quoted(joined(unknown))}")


@dataclass(frozen=True, slots=True)
class Variant:
    """An object whose shape depends on its `type`. A type that the table does not know is a warning."""

    shapes: Mapping[str, Shape]
    tag: str = "type"

    def check(self, value: Any, at: str, sink: Sink) -> None:  # noqa: ANN401
        """Report where the value differs."""
        kind = value.get(self.tag) if isinstance(value, dict) else None
        if not isinstance(kind, str):
            sink.report("field", f"{at} must be an object with a {self.tag}, not {quoted(value)}")
        elif (shape := self.shapes.get(kind)) is None:
            sink.report("unknown-type", f"{at} has the {self.tag} {quoted(kind)}, which the protocol does not know")
        else:
            shape.check(value, at, sink)
