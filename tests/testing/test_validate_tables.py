"""Our tables of fields beside the official SDKs' types: no event, block, item or field that they know is unknown here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from anthropic.types import RawMessageStreamEvent
from anthropic.types.beta import BetaContentBlock, BetaMessage, BetaRawContentBlockDelta, BetaRawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta
from openai.types.completion_usage import CompletionUsage
from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent

from luthien_asgi.testing import shapes_anthropic, shapes_openai, shapes_responses
from luthien_asgi.testing.shapes import ListOf, Nullable, Obj, Shape


def members(union: Any) -> Iterator[Any]:
    """Yield the models of a union."""
    while get_origin(union) is Annotated:
        union = get_args(union)[0]
    yield from get_args(union)


def tag(model: Any) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def names(model: Any) -> dict[str, bool]:
    """Return a model's fields by their names on the wire, and whether each is required."""
    return {field.alias or name: field.is_required() for name, field in model.model_fields.items()}


UNIONS: list[tuple[str, Any, Any]] = [
    ("anthropic events", RawMessageStreamEvent, shapes_anthropic.EVENTS),
    ("anthropic beta events", BetaRawMessageStreamEvent, shapes_anthropic.EVENTS),
    ("anthropic blocks", BetaContentBlock, shapes_anthropic.BLOCKS),
    ("anthropic deltas", BetaRawContentBlockDelta, shapes_anthropic.DELTAS),
    ("responses events", ResponseStreamEvent, shapes_responses.EVENTS),
    ("responses items", ResponseOutputItem, shapes_responses.ITEMS),
]
BEYOND = {
    "anthropic events": {"ping", "error"},
    "anthropic beta events": {"ping", "error"},
}
"""What is on the wire and not in the union: SDKs take these two out before."""


@pytest.mark.parametrize(("name", "union", "table"), UNIONS)
def test_the_types_are_those_of_the_sdk(name: str, union: Any, table: dict[str, Shape]) -> None:
    """Every type it has, and no other."""
    assert set(table) == {tag(model) for model in members(union)} | BEYOND.get(name, set())


@pytest.mark.parametrize(("name", "union", "table"), UNIONS)
def test_a_type_has_the_fields_of_the_sdk(name: str, union: Any, table: dict[str, Shape]) -> None:
    """No field that it knows is unknown, and none is required here that it does not require."""
    for model in members(union):
        compare(table[tag(model)], model)


MODELS: list[tuple[Obj, Any]] = [
    (shapes_openai.CHUNK, ChatCompletionChunk),
    (shapes_openai.COMPLETION, ChatCompletion),
    (shapes_openai.USAGE, CompletionUsage),
    (shapes_anthropic.MESSAGE, BetaMessage),
    (shapes_responses.RESPONSE, Response),
]


def inside(shape: Shape, *path: str) -> Obj:
    """Return the table of a field of a table."""
    for name in path:
        assert isinstance(shape, Obj)
        shape = shape.shapes[name]
        while isinstance(shape, ListOf | Nullable):
            shape = shape.shape
    assert isinstance(shape, Obj)
    return shape


def compare(shape: Any, model: Any) -> None:
    assert isinstance(shape, Obj)
    known = names(model)
    assert shape.open or set(known) <= set(shape.shapes), model
    required = {name for name, needed in known.items() if needed}
    nullable = {name for name in shape.required if isinstance(shape.shapes[name], Nullable)}
    assert set(shape.required) - nullable <= required, model


@pytest.mark.parametrize(("shape", "model"), MODELS)
def test_an_answer_has_the_fields_of_the_sdk(shape: Obj, model: Any) -> None:
    """As above; a field that is always there and may be null is optional for the SDKs."""
    if model is Response:
        assert set(shape.shapes) <= set(names(model))
        return
    compare(shape, model)


def test_the_parts_of_a_chunk_have_the_fields_of_the_sdk() -> None:
    """Choice and delta."""
    choice = inside(shapes_openai.CHUNK, "choices")
    compare(choice, Choice)
    compare(inside(choice, "delta"), ChoiceDelta)
