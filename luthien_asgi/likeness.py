"""Chunks that differ in their text alone: told apart from others, and made again from one of them.

Strategy: two chunks are alike when one is the other with its text in every place where that has its own, field by field and type
by type. What is not plain data has to be the same object. So a copy of the first with the text of the second is the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from luthien_asgi.chunks import Chunk

__all__ = ["is_like", "made_like"]

_DEPTH: Final = 24
"""How deep a chunk is compared: its own text is at the eighth level, and what is deeper is a provider's own."""
_SLOTS: Final = ("__dict__", "__pydantic_extra__", "__pydantic_private__")
_KNOWN: Final = "__pydantic_fields_set__"
_PLAIN: Final = frozenset({int, bool, type(None)})
_put: Final = object.__setattr__


def is_like(chunk: Chunk, text: str, first: Chunk, first_text: str) -> bool:
    """Tell whether `chunk`, whose text is `text`, is what `made_like(first, first_text, text)` returns."""
    return _same(first, chunk, first_text, text, _DEPTH)


def made_like(first: Chunk, first_text: str, text: str) -> Chunk:
    """Return a copy of a chunk with another text wherever it has its own; nothing that can be changed is shared with it."""
    made: Chunk = _filled(first, first_text, text)
    return made


def _same(one: Any, other: Any, old: str, new: str, depth: int) -> bool:  # noqa: ANN401 - any part of a chunk
    kind = type(one)
    if kind is not type(other) or depth == 0:
        return False
    if kind is str:
        same: bool = other == (new if one == old else one)
        return same
    if kind in _PLAIN:
        return one is other or bool(one == other)
    if kind is dict:
        return [*one] == [*other] and _all_same(one.values(), other.values(), old, new, depth - 1)
    if kind is list:
        return len(one) == len(other) and _all_same(one, other, old, new, depth - 1)
    if (known := getattr(one, _KNOWN, None)) is not None:
        return known == getattr(other, _KNOWN) and _all_same(_slots_of(one), _slots_of(other), old, new, depth - 1)
    return one is other


def _all_same(ones: Iterable[Any], others: Iterable[Any], old: str, new: str, depth: int) -> bool:
    for one, other in zip(ones, others, strict=True):
        if one is other and (one is None or (one != old and type(one) is str)):  # as most are
            continue
        if not _same(one, other, old, new, depth):
            return False
    return True


def _filled(value: Any, old: str, new: str) -> Any:  # noqa: ANN401 - any part of a chunk
    kind = type(value)
    if kind is str:
        return new if value == old else value
    if kind is dict:
        return {name: inner if inner is None else _filled(inner, old, new) for name, inner in value.items()}
    if kind is list:
        return [_filled(inner, old, new) for inner in value]
    if (known := getattr(value, _KNOWN, None)) is not None:
        made = object.__new__(kind)
        for slot, inner in zip(_SLOTS, _slots_of(value), strict=True):
            _put(made, slot, _filled(inner, old, new))
        _put(made, _KNOWN, known)
        return made
    return value


def _slots_of(model: Any) -> tuple[Any, ...]:  # noqa: ANN401 - one of LiteLLM's objects
    return model.__dict__, model.__pydantic_extra__, model.__pydantic_private__
