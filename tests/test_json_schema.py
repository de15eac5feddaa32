"""Schemas of constructors: right by the standard's own meta-schema, and true to what the constructor says."""

# ruff: noqa: F401 - the annotations under test are strings, and name what is imported

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NewType, TypedDict

import jsonschema
import pytest

from luthien_asgi import docstrings, policies
from luthien_asgi.json_schema import schema_of

Name = NewType("Name", str)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Opaque(Enum):
    THING = object()


class Rule(TypedDict, total=False):
    name: str
    more: Rule


class Required(TypedDict):
    name: str


CASES: Final[list[tuple[Any, Any]]] = [
    ("str", {"type": "string"}),
    ("int", {"type": "integer"}),
    ("float", {"type": "number"}),
    ("bool", {"type": "boolean"}),
    ("None", {"type": "null"}),
    ("Any", {}),
    ("object", {}),
    ("str | None", {"type": ["string", "null"]}),
    ("str | Any", {}),
    ("Sequence[str]", {"type": "array", "items": {"type": "string"}}),
    ("list", {"type": "array"}),
    ("Iterable[Any]", {"type": "array"}),
    ("Collection[int]", {"type": "array", "items": {"type": "integer"}}),
    ("frozenset[str]", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    ("AbstractSet[str]", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    ("tuple[str, ...]", {"type": "array", "items": {"type": "string"}}),
    (
        "tuple[str, int]",
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2},
    ),
    ("tuple", {"type": "array"}),
    ("Mapping[str, int]", {"type": "object", "additionalProperties": {"type": "integer"}}),
    ("dict", {"type": "object"}),
    ("Mapping[int, str]", {}),
    ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
    ("Literal['a', 1, None]", {"enum": ["a", 1, None]}),
    ("Literal['a'] | None", {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}),
    ("str | Sequence[str]", {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ("Colour", {"type": "string", "enum": ["red", "blue"]}),
    ("Level", {"enum": [1]}),
    ("Opaque", {}),
    ("Opaque | float | None", {"type": ["number", "null"]}),
    ("Sequence[Opaque | str]", {"type": "array", "items": {"type": "string"}}),
    ("Mapping[str, Opaque]", {"type": "object"}),
    ("Path", {"type": "string"}),
    ("Name", {"type": "string"}),
    ("Annotated[int, 'of something']", {"type": "integer"}),
    ("Callable[[], int]", {}),
    ("bytes", {}),
    ("Missing", {}),
    ("not python", {}),
    (
        "Required",
        {
            "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False,
        },
    ),
]  # fmt: skip


def constructed(annotation: str, default: Any = None) -> type[Any]:
    """Return a class whose constructor takes `it`."""

    def init(self: Any, *, it: Any) -> None: ...

    init.__annotations__ = {"it": annotation}
    if default is not None:
        init.__kwdefaults__ = {"it": default}
    return type("Made", (), {"__init__": init})


@pytest.mark.parametrize(("annotation", "expected"), CASES, ids=[case[0] for case in CASES])
def test_an_annotation_is_the_schema_that_says_the_same(annotation: str, expected: Mapping[str, Any]) -> None:
    """What JSON cannot say, and what cannot be evaluated, is anything."""
    schema = schema_of(constructed(annotation))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["it"] == expected
    assert schema["required"] == ["it"]


def test_a_type_that_holds_itself_ends() -> None:
    """After some levels anything goes."""
    schema = schema_of(constructed("Rule"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert str(schema).count("'name'") == 9


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement `type` came with 3.12")
def test_a_type_statement_is_followed() -> None:
    """What it names counts."""
    made: dict[str, Any] = {}
    exec("type Names = list[str]", made)  # noqa: S102 - a syntax error before 3.12
    found = constructed("str")
    vars(found)["__init__"].__annotations__["it"] = made["Names"]
    assert schema_of(found)["properties"]["it"] == {"type": "array", "items": {"type": "string"}}


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ((), []),
        (("a", ["b"]), ["a", ["b"]]),
        ({"a": (1,)}, {"a": [1]}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (frozenset({"b", "a"}), ["a", "b"]),
        (Colour.RED, "red"),
    ],
)
def test_a_default_is_there_as_json(default: Any, expected: Any) -> None:
    """Tuples and sets are lists."""
    assert schema_of(constructed("Any", default))["properties"]["it"] == {"default": expected}


@pytest.mark.parametrize("default", [object(), (object(),), {1: 2}, {"a": print}, float("inf")])
def test_a_default_that_json_does_not_have_is_left_out(default: Any) -> None:
    """The parameter is optional all the same."""
    schema = schema_of(constructed("Any", default))
    assert (schema["properties"]["it"], schema["required"]) == ({}, [])


def test_a_default_of_none_may_be_written() -> None:
    """Also where the annotation forgot to say so."""

    class Forgetful:
        def __init__(self, *, it: str = None, **more: Any) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - people do

    schema = schema_of(Forgetful)
    assert schema["properties"] == {"it": {"type": ["string", "null"], "default": None}}
    assert schema["additionalProperties"] is True


def test_a_dataclass_and_an_inherited_constructor_have_one() -> None:
    """Wherever the constructor was written."""

    @dataclass
    class Base:
        """A base."""

        names: Sequence[str]
        limit: int = 3
        more: Mapping[str, int] = field(default_factory=dict)

    class Derived(Base): ...

    found = schema_of(Derived)
    assert found["required"] == ["names"]
    assert found["properties"]["limit"] == {"type": "integer", "default": 3}
    assert found["description"] == ""


@pytest.mark.parametrize("cls", [type("Old", (int,), {}), type("None", (), {})])
def test_a_class_that_does_not_tell_takes_nothing(cls: type[Any]) -> None:
    """Some classes written in C have no signature."""
    assert schema_of(cls)["properties"] == {}


@pytest.mark.parametrize("name", policies.__all__)
def test_a_policy_that_ships_has_a_schema_with_everything_in_it(name: str) -> None:
    """Each parameter has a type, what is required is described, and defaults fit their schema."""
    schema = schema_of(getattr(policies, name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"]
    for parameter, each in schema["properties"].items():
        assert set(each) & {"type", "anyOf", "enum"}, parameter
        assert each.get("description") or parameter not in schema["required"], f"{name} does not say what `{parameter}` is"
        if "default" in each:
            jsonschema.validate(each["default"], each)


DOCUMENTED: Final = """Do a thing
    in two lines.

    - `names`, a list: what they are,
      in two lines. And `level`: how much.
    - `other`: more.

    `message` is what one sees; `level` is not said here. Not `nothing`.

        names: a block of code

    Args:
        path (str): where it is,
            in two lines.
        size: how large
    """


def test_a_docstring_says_what_each_parameter_is() -> None:
    """Items of a list, entries under `Args`, and sentences."""
    cls = type("Documented", (), {"__doc__": DOCUMENTED})
    text = docstrings.of(cls)
    assert docstrings.summary(text) == "Do a thing in two lines."
    assert docstrings.about(text, ["names", "level", "message", "path", "size", "absent"]) == {
        "names": "`names`, a list: what they are, in two lines. And `level`: how much.",
        "level": "And `level`: how much.",
        "message": "`message` is what one sees",
        "path": "where it is, in two lines.",
        "size": "how large",
    }


def test_a_class_without_a_docstring_does_not_have_its_base_s() -> None:
    """That of `Policy` says nothing about it."""
    assert docstrings.of(type("Bare", (policies.UpperCase,), {})) == ""
