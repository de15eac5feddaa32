"""Changed copies of chunks.

Strategy: a shallow copy of what is changed and of what holds it; the original is never touched. Pydantic's own way to copy and to
set a field costs ten times what the four attributes of its objects do. What tells of a text that is changed goes with it: log
probabilities, annotations, the provider's own event and fields.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, plain_text, provider_fields, read_part, side_data
from luthien_asgi.extras import harmless_extras

__all__ = [
    "annotations_apart",
    "copied",
    "detached",
    "with_extras",
    "with_text",
    "with_usage",
    "without_logprobs",
    "without_side_data",
]

_Model = TypeVar("_Model")
_put: Final = object.__setattr__
_DEPTH: Final = 64
_WRITABLE: Final = frozenset({BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.TOOL_CALL})


def with_text(chunk: Chunk, text: str) -> Chunk:
    """Return a copy of a chunk with other text (for a tool call: another fragment of its arguments); the original is untouched.

    Side data of the text (citations, annotations, logprobs) goes with the text that it spoke of, unless the text stays the same.
    Raises `ValueError` for a chunk that carries thinking, which is not to be edited, or no text at all.
    """
    if plain_text(chunk) is not None and text:
        changed = copied(chunk)
        _set(changed.choices[0].delta, "content", text)
        return changed
    part = read_part(chunk)
    changed = copied(chunk)
    if text == part.text and part.kind in _WRITABLE:
        return changed
    delta = changed.choices[0].delta
    changed.choices[0].logprobs = None
    if part.kind is BlockKind.TEXT:
        delta.content = text
        delta.annotations = None
        _reduce_rider(changed, "anthropic")  # the event holds the text as it was
    elif part.kind is BlockKind.REFUSAL:
        delta.refusal = text
        _reduce_rider(changed)
    elif part.kind is BlockKind.TOOL_CALL:
        delta.tool_calls = [_call_with_text(delta.tool_calls[0], text, custom=part.custom)]
        _reduce_rider(changed)
    else:
        msg = f"a chunk of kind {part.kind} has no text to change"
        raise ValueError(msg)
    return changed


def without_side_data(chunk: Chunk) -> Chunk:
    """Return a chunk without what tells of the text that it had: a copy, or the chunk itself where there is nothing to take."""
    if not side_data(chunk):
        return chunk
    changed = copied(chunk)
    changed.choices[0].logprobs = None
    changed.choices[0].delta.annotations = None
    _reduce_rider(changed)
    return changed


def without_logprobs(chunk: Chunk) -> Chunk:
    """Return a copy of a chunk without log probabilities."""
    changed = copied(chunk)
    changed.choices[0].logprobs = None
    return changed


def annotations_apart(chunk: Chunk) -> tuple[Chunk, Chunk]:
    """Return a chunk that has text and annotations as two: the text, and what speaks of it."""
    text, annotations = copied(chunk), copied(chunk)
    _set(text.choices[0].delta, "annotations", None)
    _set(annotations.choices[0].delta, "content", "")
    _set(annotations.choices[0], "logprobs", None)
    return text, annotations


def with_extras(chunk: Chunk, extras: Mapping[str, Any]) -> Chunk:
    """Return a copy of a chunk with other fields of its provider's own."""
    changed = copied(chunk)
    _set_rider(changed, {**provider_fields(chunk), "openai": extras})
    return changed


def with_event(chunk: Chunk, event: Mapping[str, Any]) -> Chunk:
    """Return a copy of a chunk with another Anthropic event beside it."""
    changed = copied(chunk)
    _set_rider(changed, {**provider_fields(chunk), "anthropic": event})
    return changed


def with_usage(chunk: Chunk, usage: Mapping[str, Any], rider: Mapping[str, Any]) -> Chunk:
    """Return a copy of a chunk that tells another usage, with OpenAI's names, and other fields of its provider's own."""
    changed = copied(chunk)
    changed.usage = dict(usage)  # type: ignore[attr-defined]  # a field of LiteLLM's class
    _set_rider(changed, rider)
    return changed


def _reduce_rider(changed: Chunk, *dropped: str) -> None:
    """Take from a copy's rider what holds the text as it was."""
    rider = provider_fields(changed)
    if "openai" in rider:
        rider = {**rider, "openai": harmless_extras(rider["openai"])}
    if rider:
        _set_rider(changed, {name: value for name, value in rider.items() if name not in dropped})


def _set_rider(changed: Chunk, rider: Mapping[str, Any]) -> None:
    said = {name: value for name, value in rider.items() if value or name != "openai"}
    changed.provider_specific_fields = said or None  # type: ignore[attr-defined]  # a field of LiteLLM's class


def copied(chunk: Chunk) -> Chunk:
    """Return a copy of a chunk whose delta can be edited without touching the original."""
    choices = []
    for choice in chunk.choices:
        new = _copy(choice)
        _set(new, "delta", _copy(choice.delta))
        choices.append(new)
    changed = _copy(chunk)
    _set(changed, "choices", choices)
    return changed


def detached(chunk: Chunk) -> Chunk:
    """Return a copy of a chunk that shares nothing with the original that could be edited in place."""
    return copied(chunk) if plain_text(chunk) is not None else _own(chunk, _DEPTH)


def _own(value: Any, depth: int) -> Any:  # noqa: ANN401 - what a chunk has in its fields
    """Return a value of its own, down to a depth that no provider's events have."""
    if value is None or type(value) is str or not depth:
        return value
    if isinstance(value, dict):
        return {name: _own(inner, depth - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner, depth - 1) for inner in value]
    if not hasattr(value, "__pydantic_extra__"):
        return value
    new = _copy(value)
    for fields in (new.__dict__, new.__pydantic_extra__ or {}):
        fields.update({name: _own(inner, depth - 1) for name, inner in fields.items()})
    return new


def _copy(model: _Model) -> _Model:
    """Return a shallow copy of one of LiteLLM's objects, or of whatever stands in its place."""
    try:
        extra, fields = model.__pydantic_extra__, model.__dict__  # type: ignore[attr-defined]  # of a pydantic object
    except AttributeError:
        return copy.copy(model)
    new = object.__new__(type(model))
    _put(new, "__dict__", fields.copy())
    _put(new, "__pydantic_extra__", None if extra is None else extra.copy())
    _put(new, "__pydantic_fields_set__", model.__pydantic_fields_set__)  # type: ignore[attr-defined]
    _put(new, "__pydantic_private__", None)
    return new


def _set(model: object, name: str, value: object) -> None:
    """Set a field of a copy."""
    extra = getattr(model, "__pydantic_extra__", None)
    if extra is not None and name not in model.__dict__:
        extra[name] = value
    elif name in getattr(model, "__dict__", ()):
        model.__dict__[name] = value
    else:
        setattr(model, name, value)


def _call_with_text(call: Any, text: str, *, custom: bool) -> Any:  # noqa: ANN401 - a dict or LiteLLM's class
    if isinstance(call, Mapping):
        body, field = ("custom", "input") if custom else ("function", "arguments")
        return {**call, body: {**call[body], field: text}}
    new = copy.copy(call)
    if custom:
        new.custom = {**new.custom, "input": text}
    else:
        new.function = copy.copy(new.function)
        new.function.arguments = text
    return new
