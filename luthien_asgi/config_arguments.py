"""Values of a configuration file held to a JSON Schema: each that does not fit is a problem with its line and key.

Known are the words that `luthien_asgi.json_schema` writes. Two things are as in the rest of the file: YAML's bare `on` and `off`
are the words where words are meant, and what came from the environment may be a number written as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.config_schema import Section
from luthien_asgi.json_schema import Schema
from luthien_asgi.yaml_lines import Problem

__all__ = ["fitted"]

_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_WORDS: Final[Mapping[str, str]] = {
    "string": "a string",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "integer": int,
    "number": float,
    "boolean": {"true": True, "false": False}.__getitem__,
}
_SWITCHED: Final = MappingProxyType({False: "off", True: "on"})


def fitted(section: Section, schema: Schema) -> Any:  # noqa: ANN401 - a YAML value
    """Return the section's value in the types that a schema asks for; what does not fit is in the document."""
    if "anyOf" in schema:
        return _any(section, schema["anyOf"])
    if "enum" in schema:
        return _one_of(section, schema["enum"])
    types = _types(schema)
    if not types:
        return section.value
    value = _from_environment(section, types)
    if not any(_IS[name](value) for name in types):
        hint = ": quote it" if "string" in types and isinstance(value, bool | int | float) else ""
        section.problem(f"must be {_joined(types)}, not {section.shown()}{hint}")
        return value
    if isinstance(value, list):
        return _list(section, schema)
    return _mapping(section, schema) if isinstance(value, dict) else value


def _types(schema: Schema) -> Sequence[str]:
    found = schema.get("type", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _joined(types: Sequence[str]) -> str:
    words = [_WORDS[name] for name in types if name != "null" or len(types) == 1]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _from_environment(section: Section, types: Sequence[str]) -> Any:  # noqa: ANN401 - a YAML value
    if section.place not in section.document.from_environment or "string" in types:
        return section.value
    for name in types:
        try:
            return _READ[name](section.value)
        except (KeyError, ValueError):
            continue
    return section.value


def _one_of(section: Section, options: Sequence[Any]) -> Any:  # noqa: ANN401 - a YAML value
    value = section.value
    if isinstance(value, bool) and value not in options:
        value = _SWITCHED[value]
    if any(value == option and isinstance(value, bool) == isinstance(option, bool) for option in options):
        return value
    section.problem(f"{section.shown()}, expected one of {', '.join(str(option) for option in options)}")
    return value


def _any(section: Section, branches: Sequence[Schema]) -> Any:  # noqa: ANN401 - a YAML value
    """Return the value as the first branch that it fits; if there is none, the problems are those of the one that is meant."""
    meant_ones = [branch for branch in branches if _is_meant(section.value, branch)]
    if not meant_ones:
        return fitted(section, {"type": [name for branch in branches for name in _types(branch)]})
    problems = section.document.problems
    before = len(problems)
    first: Sequence[Problem] = ()
    for branch in meant_ones:
        value = fitted(section, branch)
        if len(problems) == before:
            return value
        first = first or problems[before:]
        del problems[before:]
    problems += first
    return section.value


def _is_meant(value: Any, branch: Schema) -> bool:  # noqa: ANN401 - a YAML value
    return any(_IS[name](value) for name in _types(branch)) or ("enum" in branch and not isinstance(value, list | dict))


def _list(section: Section, schema: Schema) -> list[Any]:
    items, (least, most) = section.items(), (schema.get("minItems", 0), schema.get("maxItems"))
    if len(items) < least or (most is not None and len(items) > most):
        section.problem(f"must have {least} items, not {len(items)}")
        return list(section.value)
    first: Sequence[Schema] = schema.get("prefixItems", ())
    schemas = [*first, *[schema.get("items", {})] * (len(items) - len(first))]
    return [fitted(item, each) for item, each in zip(items, schemas, strict=True)]


def _mapping(section: Section, schema: Schema) -> dict[str, Any]:
    named, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    known = named if others is False else None
    for name in schema.get("required", ()):
        if name not in section.value:
            section.problem(f"{name} is missing")
    rest: Schema = others if isinstance(others, Mapping) else {}
    return {name: fitted(each, named.get(name, rest)) for name, each in section.keys(known).items()}
