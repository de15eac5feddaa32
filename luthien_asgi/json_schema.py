"""What a constructor takes, as a JSON Schema (draft 2020-12): from its annotations, its defaults and the class's docstring.

Strategy: a schema says no more than the annotation does. What has no JSON form (a function, a compiled pattern), what cannot be
evaluated and what nests too deeply is `{}`: anything, and the constructor decides.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

from luthien_asgi import docstrings

__all__ = ["DIALECT", "Schema", "parameters_of", "schema_of"]

Schema = Mapping[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_MOST_NESTED: Final = 8
_NOTHING: Final = object()
_NO_JSON: Final[dict[str, Any]] = {"not": {}}
"""A class whose objects have no JSON form: beside others it is left out, alone it is anything."""
_SCALARS: Final[Mapping[object, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null",
}  # fmt: skip
_LISTS: Final = (Sequence, Collection, Iterable, Set)
_SPREAD: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def schema_of(cls: type[Any]) -> dict[str, Any]:
    """Return the schema of the mapping that becomes a constructor's arguments."""
    parameters = parameters_of(cls)
    named = {name: each for name, each in parameters.items() if each.kind not in _SPREAD}
    said = docstrings.about(docstrings.of(cls), named)
    found: dict[str, Any] = {"$schema": DIALECT, "title": cls.__name__, "description": docstrings.summary(docstrings.of(cls))}
    return found | {
        "type": "object",
        "properties": {name: _property(cls, each, said.get(name, "")) for name, each in named.items()},
        "required": [name for name, each in named.items() if each.default is inspect.Parameter.empty],
        "additionalProperties": any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()),
    }


def parameters_of(cls: type[Any]) -> Mapping[str, inspect.Parameter]:
    """Return what a constructor takes by name, `**more` included; nothing for a class that does not tell."""
    try:
        found = inspect.signature(cls).parameters
    except ValueError:
        return {}
    return {name: each for name, each in found.items() if each.kind is not inspect.Parameter.VAR_POSITIONAL}


def _property(cls: type[Any], parameter: inspect.Parameter, description: str) -> dict[str, Any]:
    schema = _union([_schema(_hint(cls, parameter.annotation))])
    default = _NOTHING if parameter.default is inspect.Parameter.empty else _plain(parameter.default)
    if default is None and schema:
        schema = _union([schema, {"type": "null"}])
    found: dict[str, Any] = {**schema, "description": description} if description else {**schema}
    return found if default is _NOTHING else found | {"default": default}


def _hint(cls: type[Any], annotation: object) -> object:
    """Return the type that an annotation means, evaluated where its constructor was written."""
    if annotation is inspect.Parameter.empty:
        return Any

    def carrier() -> None: ...

    carrier.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(carrier, _globals(cls), dict(vars(cls)))["it"]
    except Exception:  # an author's annotation may be anything, and need not be there at run time
        return Any


def _globals(cls: type[Any]) -> dict[str, Any]:
    for owner in cls.__mro__:
        for name in ("__init__", "__new__"):
            function = inspect.unwrap(vars(owner)[name]) if callable(vars(owner).get(name)) else None
            if isinstance(function, types.FunctionType):
                return function.__globals__
    return {}


def _schema(hint: Any, depth: int = 0) -> dict[str, Any]:  # noqa: ANN401 - whatever an author wrote
    if depth > _MOST_NESTED:
        return {}
    if (same := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        return _schema(same, depth + 1)  # a `NewType`, or a `type X = …`
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return _union([_schema(each, depth + 1) for each in inner])
    if origin is typing.Literal:
        return _enum(inner)
    kind = hint if origin is None else origin
    return _of_class(kind, inner, depth) if isinstance(kind, type) and kind not in {object, Any} else {}


def _of_class(kind: type[Any], inner: Sequence[Any], depth: int) -> dict[str, Any]:
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if typing.is_typeddict(kind):
        return _fields(kind, depth)
    if issubclass(kind, Enum):
        return _enum(tuple(kind)) if issubclass(kind, str | int) else _NO_JSON
    if issubclass(kind, PurePath):
        return {"type": "string"}
    if issubclass(kind, Mapping):
        return _mapping(inner, depth)
    if issubclass(kind, tuple):
        return _tuple(inner, depth)
    if kind in _LISTS or (issubclass(kind, Sequence | Set) and not issubclass(kind, str | bytes | bytearray | memoryview)):
        items = _union([_schema(each, depth + 1) for each in inner[:1]])
        unique = {"uniqueItems": True} if issubclass(kind, Set) else {}
        return {"type": "array", **({"items": items} if items else {}), **unique}
    return _NO_JSON


def _mapping(inner: Sequence[Any], depth: int) -> dict[str, Any]:
    if inner and inner[0] not in {str, Any}:
        return {}  # the keys of JSON are strings
    values = _union([_schema(each, depth + 1) for each in inner[1:]])
    return {"type": "object", "additionalProperties": values} if values else {"type": "object"}


def _tuple(inner: Sequence[Any], depth: int) -> dict[str, Any]:
    if not inner:
        return {"type": "array"}
    if inner[-1] is Ellipsis:
        return _of_class(list, inner[:1], depth)
    each = [_union([_schema(item, depth + 1)]) for item in inner]
    return {"type": "array", "prefixItems": each, "minItems": len(each), "maxItems": len(each)}


def _fields(kind: Any, depth: int) -> dict[str, Any]:  # noqa: ANN401 - a `TypedDict` class
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # as above
        return {"type": "object"}
    properties = {name: _union([_schema(hint, depth + 1)]) for name, hint in hints.items()}
    required = [name for name in properties if name in kind.__required_keys__]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _enum(values: Sequence[Any]) -> dict[str, Any]:
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    if not all(value is None or isinstance(value, str | int | float) for value in plain):
        return {}
    return {"type": "string", "enum": plain} if all(isinstance(value, str) for value in plain) else {"enum": plain}


def _union(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    branches: list[dict[str, Any]] = []
    for schema in schemas:
        branches += [each for each in schema.get("anyOf", [schema]) if each not in (*branches, _NO_JSON)]
    if not branches or {} in branches:
        return {}
    plain = [each["type"] for each in branches if set(each) == {"type"}]
    if len(plain) == len(branches):
        names = [name for each in plain for name in ([each] if isinstance(each, str) else each)]
        return {"type": names[0] if len(names) == 1 else list(dict.fromkeys(names))}
    return branches[0] if len(branches) == 1 else {"anyOf": branches}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a default
    """Return a default as JSON has it; `_NOTHING` for one that has no such form."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return _NOTHING
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return _filled(dict, ((key, _plain(each)) for key, each in value.items()))
    if isinstance(value, Set):
        return _filled(lambda pairs: sorted((each for _, each in pairs), key=str), (("", _plain(each)) for each in value))
    if isinstance(value, list | tuple):
        return _filled(lambda pairs: [each for _, each in pairs], (("", _plain(each)) for each in value))
    return _NOTHING


def _filled(make: Callable[[Iterable[tuple[Any, Any]]], Any], pairs: Iterable[tuple[Any, Any]]) -> Any:  # noqa: ANN401 - JSON
    listed = [*pairs]
    good = all(each is not _NOTHING and isinstance(key, str) for key, each in listed)
    return make(listed) if good else _NOTHING
