"""The tables of what is below the parameters: complete against the SDKs' types, and true of the conversions, row by row.

Strategy: a type of an SDK is taken apart into places, each with its path in the words of the table and the steps that lead
there; the walk stops where the table speaks for everything below. From the steps a sample is made, the smallest request with
something at that place, and the real conversion shows what becomes of it.
"""

from __future__ import annotations

import collections.abc
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import pytest
import typing_extensions
from anthropic.types import message_create_params as anthropic_params
from anthropic.types.beta import message_create_params as anthropic_beta
from openai.types.chat import completion_create_params as openai_params

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.conversion import PARTS, Converted
from luthien_asgi.wire.fates import Fate, Row, Table
from luthien_asgi.wire.parameters import PARAMETERS
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

MARK = "marked4711"
NUMBER = 4711
LISTS = (list, tuple, collections.abc.Iterable, collections.abc.Sequence)
WRAPPERS = (typing.Annotated, typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.ReadOnly)
SDK: Mapping[str, tuple[Any, ...]] = {
    "openai": (openai_params.CompletionCreateParamsStreaming,),
    "anthropic": (anthropic_params.MessageCreateParamsStreaming, anthropic_beta.MessageCreateParamsStreaming),
}
OTHER = {"openai": "anthropic", "anthropic": "openai"}


# --- types -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A field of a class on the way to a place, and what the object has to say that it is."""

    holder: Any
    name: str
    tag: Any = None


@dataclass(frozen=True)
class Place:
    """A field, a type of part or a value of an SDK's type. `value` is that of a type or of a `Literal`."""

    path: str
    steps: tuple[Step, ...]
    type: Any
    value: Any = None


def members(of: Any) -> Iterator[Any]:
    """Yield the types that a union is made of."""
    while typing.get_origin(of) in WRAPPERS or isinstance(of, typing_extensions.TypeAliasType):
        of = of.__value__ if isinstance(of, typing_extensions.TypeAliasType) else typing.get_args(of)[0]
    if typing.get_origin(of) in {Union, types.UnionType}:
        for member in typing.get_args(of):
            yield from members(member)
    else:
        yield of


def fields_of(of: Any) -> dict[str, Any]:
    """Return the fields of a TypedDict by their names in JSON; no fields for any other type."""
    return typing_extensions.get_type_hints(of) if typing_extensions.is_typeddict(of) else {}


def required_of(of: Any) -> set[str]:
    hints = typing_extensions.get_type_hints(of, include_extras=True)
    return {name for name, hint in hints.items() if typing.get_origin(hint) is typing_extensions.Required}


def literals(of: Any) -> list[Any]:
    return [value for member in members(of) if typing.get_origin(member) is Literal for value in typing.get_args(member)]


def tags_of(of: Any) -> tuple[str, list[Any]]:
    """Return how objects of a type say what they are, by `role` or by `type`, and what they may say."""
    fields = fields_of(of)
    name = "role" if "role" in fields else "type"
    return name, literals(fields.get(name))


def inside(of: Any) -> Any:
    """Return what a list is a list of, None for any other type."""
    origin = typing.get_origin(of)
    return typing.get_args(of)[0] if origin in LISTS or getattr(origin, "__name__", "") == "SequenceNotStr" else None


def places(of: Any, table: Table, path: str, steps: tuple[Step, ...], seen: set[Any]) -> Iterator[Place]:
    """Yield every place of a type, which stands at a path, that the table must know."""
    for member in members(of):
        if inside(member) is not None:
            yield from places(inside(member), table, path, steps, seen)
        elif typing.get_origin(member) is Literal and table.has_values(path):
            yield from (Place(f"{path}={value}", steps, member, value) for value in typing.get_args(member))
        elif fields_of(member):
            yield from places_of_object(member, table, path, steps, seen)


def places_of_object(of: Any, table: Table, path: str, steps: tuple[Step, ...], seen: set[Any]) -> Iterator[Place]:
    tagged = table.is_tagged(path)
    for tag in tags_of(of)[1] if tagged else [None]:
        at = f"{table.turned(path)}[{tag}]" if tagged else path
        if (at, of) in seen:
            continue
        seen.add((at, of))
        if tagged:
            yield Place(at, steps, of, tag)
        if table.goes_on(at):
            for name, hint in fields_of(of).items():
                if not tagged or name not in {"type", "role"}:
                    yield from places_of_field(hint, table, f"{at}.{name}", (*steps, Step(of, name, tag)), seen)


def places_of_field(hint: Any, table: Table, path: str, steps: tuple[Step, ...], seen: set[Any]) -> Iterator[Place]:
    yield Place(path, steps, hint)
    if table.goes_on(path):
        yield from places(hint, table, path, steps, seen)


def known_to_the_sdk(wire: str) -> dict[str, Place]:
    """Return the places of the SDK's request types below the parameters that are mapped, by their paths."""
    found: dict[str, Place] = {}
    for of in SDK[wire]:
        for name, hint in fields_of(of).items():
            if PARAMETERS[wire][name].fate is Fate.MAPPED:  # type: ignore[index]  # the names of the wires
                for place in places(hint, PARTS[wire], name, (Step(of, name),), set()):
                    found.setdefault(place.path, place)
    return found


PLACES = {wire: known_to_the_sdk(wire) for wire in SDK}


@pytest.mark.parametrize("wire", SDK)
def test_every_place_of_the_sdks_request_types_has_a_row(wire: str) -> None:
    """Fields, types of parts and values, however deep. One that is missing needs a row in `wire/parts_<wire>.py`, which says what
    becomes of it, and a line in the converter if it is mapped."""
    assert len(PLACES[wire]) > 80
    assert [path for path in PLACES[wire] if path not in PARTS[wire].rows] == []


# --- samples ---------------------------------------------------------------------------------------------------------------

ALLOWED = [{"type": "function", "function": {"name": "f"}}]
FITTING = {"file_data": "data:application/pdf;base64,", "url": "https://example.test/"}
"""How a text begins where not every text will do."""
QUIET = {"data": "QUJD", "arguments": "{}", "is_error": False, "media_type": "text/plain", "tools": ALLOWED}
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOLS = {
    "openai": [{"type": "function", "function": FUNCTION}],
    "anthropic": [{"name": "f", "input_schema": FUNCTION["parameters"]}],
}


def sample(place: Place) -> Any:
    """Return the smallest value of the first class of a place's steps that has something there."""
    return along(place.steps, place)


def along(steps: Sequence[Step], place: Place) -> Any:
    if not steps:
        return marked(place)
    step, further = steps[0], steps[1:]
    made = smallest(step.holder, step.tag)
    inner = along(further, place)
    following = further[0].holder if further else place.type
    hints = list(members(fields_of(step.holder)[step.name]))
    entries = [entry for hint in hints if inside(hint) is not None for entry in members(inside(hint))]
    in_list = fields_of(following) and following in entries and following not in hints
    return {**made, step.name: [inner] if in_list else inner}


def marked(place: Place) -> Any:
    if fields_of(place.type):
        return smallest(place.type, place.value)
    return value_of(place.type, place.steps[-1].name, marked=True) if place.value is None else place.value


def smallest(of: Any, tag: Any = None) -> dict[str, Any]:
    """Return the smallest value of a class: what it requires."""
    fields, required = fields_of(of), required_of(of)
    made = {name: value_of(hint, name) for name, hint in fields.items() if name in required}
    return made if tag is None else {**made, tags_of(of)[0]: tag}


def value_of(of: Any, name: str, *, marked: bool = False) -> Any:
    """Return a value of a type; with `marked` one that is found again."""
    if not marked and name in QUIET:
        return QUIET[name]
    found = list(members(of))
    first = next((member for member in found if member is str), found[0])
    if typing.get_origin(first) is Literal:
        return typing.get_args(first)[-1]
    if fields_of(first):
        return smallest(first)
    if inside(first) is not None:
        return [value_of(inside(first), name, marked=marked)]
    if typing.get_origin(first) is dict or first is object:
        return {MARK: MARK} if marked else {"type": "object"}
    if first in {bool, int, float}:
        return True if first is bool else NUMBER
    return f"{FITTING.get(name, '')}{MARK if marked else 'x'}"


# --- rows ------------------------------------------------------------------------------------------------------------------

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "output_format[json_schema]": {"output_format": {"type": "json_schema", "schema": {}}},
    "output_format[json_schema].schema": {"output_format": {"type": "json_schema", "schema": {MARK: MARK}}},
    "functions.strict": {"functions": [{**FUNCTION, "strict": True}]},
    "tool_choice[allowed_tools].allowed_tools.tools": {
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ALLOWED}}
    },
    "messages[assistant].thinking_blocks": {
        "messages": [{"role": "assistant", "thinking_blocks": [{"type": "thinking", "thinking": MARK, "signature": "s"}]}]
    },
    "messages[system].clear_at": {"messages": [{"role": "system", "content": "x", "clear_at": "next_user_message"}]},
    "thinking[adaptive]": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    "metadata.*": {"metadata": {"user_id": "x", "team": MARK}},
}
"""Samples where the types say too little to make one."""
SET: Mapping[str, Any] = {
    "content[tool_use].caller": {"type": "code_execution_20250825", "tool_id": "x"},
    "content[document].citations": {"enabled": True},
    "content[search_result].citations": {"enabled": True},
    "content[image].transformations": {"oversized_image": "error"},
    "messages[system].output_config": {"effort": "low"},
    "messages[assistant].audio": {"id": "x"},
    "content[text].citations": [{"type": "char_location"}],
    "tools[custom].allowed_callers": ["code_execution_20250825"],
}
"""What a field is set to where the smallest value of its type says nothing."""
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "response_format[json_schema]": {"json_schema": {"name": "x", "schema": {}}},
    "content[file]": {"file": {"file_data": "QUJD"}},
}
"""What an object of a type has to have, though the SDK's type does not require it, for a conversion to have something to do."""
ROWS = [(wire, row) for wire, table in PARTS.items() for row in table.rows.values()]


SAID_BY_THE_ASSISTANT = ("content[tool_use]", "content[thinking]", "content[redacted_thinking]")


def request_for(wire: str, row: Row) -> dict[str, Any]:
    """Return a request with something at the place of a row."""
    said = said_of(wire, row)
    if row.path.startswith(SAID_BY_THE_ASSISTANT):
        said["messages"][0]["role"] = "assistant"
    tools = {"tools": TOOLS[wire]} if "choice" in row.path or "function_call" in row.path else {}
    messages = [*said.get("messages", ()), {"role": "user", "content": "hi"}]
    return {"model": "m", "max_tokens": 3000, **tools, **said, "messages": messages}


def said_of(wire: str, row: Row) -> dict[str, Any]:
    """Return the parameter that has something at the place of a row."""
    if row.path in EXAMPLES:
        return dict(EXAMPLES[row.path])
    place = PLACES[wire].get(row.path)
    known = place or PLACES[wire][row.path.rpartition(".")[0]]
    said = {known.steps[0].name: sample(known)[known.steps[0].name]}
    if row.path in SET:
        set_in(said, row.path, SET[row.path])
    for holder in NEEDED:
        if row.path.startswith(holder):
            complete(object_at(said, holder), NEEDED[holder])
    if place is None:
        set_in(said, row.path, MARK)
    return said


def object_at(body: Any, path: str) -> Any:
    """Return the object at a path, which leads through the first entries of lists."""
    names = plain(path).split(".")
    for name in [*["messages"] * (names[0] == "content"), *names]:
        body = body[name][0] if isinstance(body[name], list) else body[name]
    return body


def set_in(body: Any, path: str, value: Any) -> None:
    holder, _, name = path.rpartition(".")
    object_at(body, holder)[name] = value


def complete(made: dict[str, Any], needed: Mapping[str, Any]) -> None:
    """Add what is needed to an object, however deep; what is there stays."""
    for name, value in needed.items():
        if isinstance(made.setdefault(name, value), dict):
            complete(made[name], value)


def convert(wire: str, body: dict[str, Any]) -> Converted:
    request = ChatRequest(wire=wire, body=body)  # type: ignore[arg-type]  # the names of the wires
    return to_anthropic(request) if wire == "openai" else to_openai(request)


def paths_in(value: Any, table: Table, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every place of a converted request in the words of its own table, with what stands there."""
    if isinstance(value, list):
        for entry in value:
            yield from paths_in(entry, table, path)
        return
    yield path, value
    if isinstance(value, dict):
        tag = table.tag_of(path, value) if table.is_tagged(path) else None
        at = f"{table.turned(path)}[{tag}]" if tag is not None else path
        yield at, value
        for name, inner in value.items():
            yield from paths_in(inner, table, f"{at}.{name}" if at else name)
    elif isinstance(value, str):
        yield f"{path}={value}", value
        if path.rpartition(".")[2] in {"content", "system"}:
            yield "content[text].text", value


def plain(path: str) -> str:
    return re.sub(r"\[[^\]]*\]|=.*", "", path)


@pytest.mark.parametrize(("wire", "row"), ROWS, ids=[f"{wire}-{row.path}" for wire, row in ROWS])
def test_the_conversion_does_what_the_row_says(wire: str, row: Row) -> None:
    """Refused with a 400 that names the place; ignored with notice; mapped or carried to where the row says; or handled."""
    body = request_for(wire, row)
    if row.fate is Fate.REFUSED:
        with pytest.raises(RequestError) as caught:
            convert(wire, body)
        assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")
        assert plain(caught.value.param or "").endswith(plain(row.path))
        return
    converted = convert(wire, body)
    text = json.dumps(converted.params)
    assert (row.name in converted.ignored) == (row.fate is Fate.IGNORED)
    if row.fate in {Fate.IGNORED, Fate.HANDLED}:
        assert MARK not in text
        return
    there = [value for path, value in paths_in(converted.params, PARTS[OTHER[wire]]) if path.startswith(row.to)]
    assert there, converted.params
    if MARK in json.dumps(body):
        assert any(MARK in json.dumps(value) for value in there), converted.params


def test_a_place_that_no_row_knows_is_refused_by_name() -> None:
    """A field of a provider's own, a type to come: it may mean anything."""
    for wire, message in (
        ("openai", {"role": "user", "content": [{"type": "text", "text": "x", "odd": 1}]}),
        ("anthropic", {"role": "user", "content": [{"type": "text", "text": "x", "odd": 1}]}),
    ):
        with pytest.raises(RequestError) as caught:
            convert(wire, {"model": "m", "max_tokens": 1, "messages": [message]})
        assert caught.value.param == "messages[0].content[0].odd"
