"""The tables of fates: complete against the types of the SDKs, and true of what the converters and encoders do, row by row.

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
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Union

import pytest
import typing_extensions
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types import message_create_params as anthropic_params
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from anthropic.types.beta import message_create_params as anthropic_beta
from anthropic.types.shared import ErrorResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat import completion_create_params as openai_params
from openai.types.shared import ErrorObject
from pydantic import BaseModel

from luthien_asgi.errors import ApiError, BackendError, RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.testing import build_chunk
from luthien_asgi.wire.answers_anthropic import ANTHROPIC_ANSWERS, ANTHROPIC_ERRORS
from luthien_asgi.wire.answers_openai import OPENAI_ANSWERS, OPENAI_ERRORS
from luthien_asgi.wire.anthropic import AnthropicWire
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.anthropic_encoder import AnthropicEncoder
from luthien_asgi.wire.bodies import anthropic_body_chunks, openai_body_chunks
from luthien_asgi.wire.conversion import PARTS, Converted
from luthien_asgi.wire.error_bodies import anthropic_error, openai_error
from luthien_asgi.wire.fates import Fate, Row, Table
from luthien_asgi.wire.omissions import UNKNOWN
from luthien_asgi.wire.openai import OpenAIWire
from luthien_asgi.wire.openai_encoder import OpenAIEncoder
from luthien_asgi.wire.parameters import PARAMETERS
from luthien_asgi.wire.split import split_chunk
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
    """Return the fields of a TypedDict or a model by their names in JSON; no fields for any other type."""
    if isinstance(of, type) and issubclass(of, BaseModel):
        return {field.alias or name: field.annotation for name, field in of.model_fields.items()}
    return typing_extensions.get_type_hints(of) if typing_extensions.is_typeddict(of) else {}


def required_of(of: Any) -> set[str]:
    if issubclass(of, BaseModel):
        return {field.alias or name for name, field in of.model_fields.items() if field.is_required()}
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
        at = f"{table.turned(path)}[{tag}]" if tagged else table.turned(path)
        if (at, of) in seen:
            continue
        seen.add((at, of))
        if tagged:
            yield Place(at, steps, of, tag)
        if not tagged or table.goes_on(at):
            for name, hint in fields_of(of).items():
                if not tagged or name not in {"type", "role"}:
                    yield from places_of_field(hint, table, table.below(at, name), (*steps, Step(of, name, tag)), seen)


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
        return True if first is bool else NUMBER if marked else 1
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
        at = f"{table.turned(path)}[{tag}]" if tag is not None else table.turned(path)
        yield at, value
        for name, inner in value.items():
            yield from paths_in(inner, table, table.below(at, name))
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


ODD: Sequence[Any] = (None, True, 0, "x", [], {}, [None], [{}], {"type": []})
WIRES: Mapping[str, Any] = {"openai": OpenAIWire(), "anthropic": AnthropicWire()}


def spots_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, name)
        yield from spots_in(inner, (*path, name))


def with_odd(body: dict[str, Any], path: tuple[Any, ...], odd: Any) -> bytes:
    changed = json.loads(json.dumps(body))
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = odd
    return json.dumps(changed).encode()


@pytest.mark.parametrize("wire", WIRES)
def test_an_odd_value_anywhere_is_a_400_or_converts(wire: str) -> None:
    """Whatever the type of whatever a client sends: no other exception."""
    for row in PARTS[wire].rows.values():
        body = request_for(wire, row)
        for path in spots_in(body):
            for odd in ODD:
                with suppress(RequestError):
                    request = WIRES[wire].parse_request(with_odd(body, path, odd), limits=Limits())
                    convert(wire, dict(request.body))


# --- answers ---------------------------------------------------------------------------------------------------------------

ANSWERS = {"anthropic": ANTHROPIC_ANSWERS, "openai": OPENAI_ANSWERS}
ERRORS = {"anthropic": ANTHROPIC_ERRORS, "openai": OPENAI_ERRORS}
ANSWER_TYPES: Mapping[str, Sequence[tuple[Any, str]]] = {
    "anthropic": [(Message, ""), (BetaMessage, ""), (RawMessageStreamEvent, "event"), (BetaRawMessageStreamEvent, "event")],
    "openai": [(ChatCompletion, ""), (ChatCompletionChunk, "")],
}
ERROR_TYPES: Mapping[str, tuple[Any, str]] = {"anthropic": (ErrorResponse, ""), "openai": (ErrorObject, "error")}


def places_of_answers(wire: str) -> dict[str, Place]:
    found: dict[str, Place] = {}
    seen: set[Any] = set()
    for of, path in ANSWER_TYPES[wire]:
        for place in places(of, ANSWERS[wire], path, (), seen):
            found.setdefault(place.path, place)
    return found


ANSWER_PLACES = {wire: places_of_answers(wire) for wire in ANSWERS}


@pytest.mark.parametrize("wire", ANSWERS)
def test_every_place_of_the_sdks_answer_types_has_a_row(wire: str) -> None:
    """Blocks, deltas, events, reasons and counts. One that is missing needs a row in `wire/answers_<wire>.py`, and what
    it says."""
    assert len(ANSWER_PLACES[wire]) > 40
    assert [path for path in ANSWER_PLACES[wire] if path not in ANSWERS[wire].rows] == []


@pytest.mark.parametrize("wire", ERRORS)
def test_every_place_of_the_sdks_error_types_has_a_row(wire: str) -> None:
    """Each type of error among them."""
    of, path = ERROR_TYPES[wire]
    assert [place.path for place in places(of, ERRORS[wire], path, (), set()) if place.path not in ERRORS[wire].rows] == []


@pytest.mark.parametrize("path", ["tools[custom].strict", "content[image].source[url]", "tool_choice[none]"])
def test_the_walk_finds_what_no_row_knows(path: str) -> None:
    """A field, a type of part, a choice: were its row not there, the test above would say so."""
    rows = [row for row in PARTS["anthropic"].rows.values() if row.path != path and not row.path.startswith(f"{path}.")]
    fewer = Table(rows, defaults={"tools": "custom"})
    of = SDK["anthropic"][0]
    found = [place for name, hint in fields_of(of).items() for place in places(hint, fewer, name, (Step(of, name),), set())]
    assert path in {place.path for place in found} - fewer.rows.keys()


WHOLE: Mapping[str, dict[str, Any]] = {
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "openai": {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": []},
}
HI: Mapping[str, Any] = {
    "anthropic": {"type": "text", "text": "hi"},
    "openai": {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"},
}
BLOCK_OF_DELTA = {
    "input_json_delta": "tool_use",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "compaction_delta": "compaction",
}
BLOCKS: Mapping[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "tool_use": {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    "compaction": {"type": "compaction", "content": None},
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER_EXAMPLES: Mapping[str, Any] = {
    "content[text].citations": {"content": [{"type": "text", "text": "x", "citations": [{"type": "char_location"}]}]},
    "content[tool_use].caller": {"content": [{**BLOCKS["tool_use"], "caller": {"type": "code_execution_20250825"}}]},
    "event[ping]": {"event": {"type": "ping"}},
    "message.images": {"choices": [{"index": 0, "message": {"images": [{"image_url": {"url": MARK}}]}, "finish_reason": "stop"}]},
    "message.reasoning_content": {"choices": [{"index": 0, "message": {"reasoning_content": MARK}, "finish_reason": "stop"}]},
    "message.annotations": {"choices": [{"index": 0, "message": {"annotations": [{"url": MARK}]}, "finish_reason": "stop"}]},
    "service_tier": {"service_tier": "flex"},
    "choices.logprobs": {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]},
    "choices.finish_reason=tool_calls": {"choices": [{"message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"}]},
    "choices.finish_reason=function_call": {"choices": [{"message": {"tool_calls": [CALL]}, "finish_reason": "function_call"}]},
    "stop_reason=tool_use": {"content": [BLOCKS["tool_use"]], "stop_reason": "tool_use"},
    "event[content_block_delta].delta[input_json_delta].partial_json": {
        "event": {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": f'{{"a":"{MARK}"}}'}}
    },
}
"""Answers where the types say too little to make one."""
ELSEWHERE = {
    "event[error]": "raised by the decoder: see its own tests",
    "event[message_stop]": "the end of a stream is no field of an answer",
    "moderation": "left out by the reader of the stream before an encoder sees it",
}
"""Rows that no collected answer shows."""
ANSWER_ROWS = [(wire, row) for wire, table in ANSWERS.items() for row in table.rows.values() if row.path not in ELSEWHERE]


def answer_said(wire: str, row: Row) -> dict[str, Any]:
    """Return a part of an answer, or of its event, with something at the place of a row."""
    if row.path in ANSWER_EXAMPLES:
        return dict(ANSWER_EXAMPLES[row.path])
    place = ANSWER_PLACES[wire][row.path]
    if row.path.startswith("event["):
        return {"event": sample(place)}
    return {place.steps[0].name: sample(place)[place.steps[0].name]}


def chunk_data(wire: str, said: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an answer with what is said in it, as the decoders read it."""
    if "event" in said:
        decoder, chunks = AnthropicDecoder(0, 1), list[dict[str, Any]]()
        for event in stream_around(said["event"]):
            decoder.take_event(event, chunks)
        return chunks
    whole = {**WHOLE[wire], **said}
    if wire == "anthropic":
        whole["usage"] = {"input_tokens": 1, "output_tokens": 1, **whole["usage"]}
        return anthropic_body_chunks({**whole, "content": whole["content"] or [HI[wire]]}, 1)
    choices = [complete_choice(choice) for choice in whole["choices"]] or [HI[wire]]
    if "delta" in choices[0]:
        return split_chunk({**whole, "choices": choices}, set())
    return openai_body_chunks({**whole, "choices": choices}, 1)


def complete_choice(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice that says something and ends, whatever the SDK's type does not require of it."""
    name = "delta" if "delta" in choice else "message"
    message = choice.get(name) or {}
    if message.keys() <= {"role"}:
        message = {**message, "content": "hi"}
    return {**choice, name: message, "index": 0, "finish_reason": choice.get("finish_reason") or "stop"}


def stream_around(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a stream with one in its place."""
    delta = event.get("delta") or {}
    block = BLOCKS[BLOCK_OF_DELTA.get(delta.get("type"), "text")]
    ending = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
    events: dict[str, dict[str, Any]] = {
        "message_start": {"type": "message_start", "message": WHOLE["anthropic"]},
        "content_block_start": {"type": "content_block_start", "content_block": block},
        "content_block_delta": {},
        "content_block_stop": {"type": "content_block_stop"},
        "ping": {},
        "message_delta": ending,
    }
    events[event["type"]] = {**events.get(event["type"], {}), **event}
    if event["type"] == "message_start":
        events["message_start"]["message"] = {**WHOLE["anthropic"], **event["message"]}
    if event["type"] == "message_delta":
        events["message_delta"]["delta"] = {**ending["delta"], **{k: v for k, v in delta.items() if v is not None}}
    return [{**found, "index": 0} for found in events.values() if found]


def encoded(wire: str, data: list[dict[str, Any]]) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the body that a client of the other format gets, and what was noted as left out."""
    request = ChatRequest(wire="openai", body={"model": "m", "messages": []})
    encoder: Any = (
        OpenAIEncoder(request, settings=StreamSettings(), id="x", created=1, collect=True)
        if wire == "anthropic"
        else AnthropicEncoder(model="m", id="x", input_tokens=1, collect=True)
    )
    for chunk in data:
        encoder.feed(build_chunk(chunk))
    encoder.finish()
    return encoder.body(), encoder.omitted


@pytest.mark.parametrize(("wire", "row"), ANSWER_ROWS, ids=[f"{wire}-{row.path}" for wire, row in ANSWER_ROWS])
def test_the_other_client_gets_what_the_row_says(wire: str, row: Row) -> None:
    """Mapped or carried to where the row says; ignored with notice; or handled. Nothing of an answer is refused."""
    said = answer_said(wire, row)
    body, omitted = encoded(wire, chunk_data(wire, said))
    text = json.dumps(body)
    assert (row.name in omitted) == (row.fate is Fate.IGNORED)
    if row.fate in {Fate.IGNORED, Fate.HANDLED}:
        assert MARK not in text
        return
    there = [value for path, value in paths_in(body, ANSWERS[OTHER[wire]]) if path.startswith(row.to)]
    assert there, (row.to, body)
    if MARK in json.dumps(said):
        assert any(MARK in json.dumps(value) for value in there), (row.to, body)
    elif str(NUMBER) in json.dumps(said):
        assert str(NUMBER) in json.dumps(there), (row.to, body)


@pytest.mark.parametrize("row", [row for row in ANTHROPIC_ERRORS.rows.values() if "=" in row.path], ids=lambda row: row.path)
def test_an_error_has_the_type_that_its_row_says(row: Row) -> None:
    """The types of this package's errors are Anthropic's."""
    error = ApiError("x", type=row.path.partition("=")[2])
    assert f"error.type={openai_error(error)['type']}" == row.to


def test_an_error_keeps_its_message_across_formats() -> None:
    """The rest is in the record: code and parameter for an Anthropic client, details for an OpenAI one."""
    error = BackendError("said", status=429, code="tokens", param="n", raw={"message": "said", "code": "tokens"}, wire="openai")
    assert anthropic_error(error) == {"type": "rate_limit_error", "message": "said"}
    theirs = {"type": "rate_limit_error", "message": "said", "details": {"error_code": MARK}}
    assert MARK not in json.dumps(openai_error(BackendError("said", status=429, raw=theirs, wire="anthropic")))


def test_what_no_row_of_an_answer_knows_is_noted() -> None:
    """A block type and a field to come: an OpenAI client gets neither, and the record says so."""
    for said in ({"content": [{"type": "odd"}]}, {"odd": 1}):
        assert UNKNOWN in encoded("anthropic", chunk_data("anthropic", said))[1]
