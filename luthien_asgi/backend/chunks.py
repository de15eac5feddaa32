"""Building LiteLLM's `ModelResponseStream` cheaply: its objects with their fields set, without validation.

Strategy: a pydantic object is four attributes, so a chunk is a few `object.__new__` with those attributes filled in, as LiteLLM's
own constructors leave them. `ModelResponseStream(**data)` takes 60-80 µs, this 3-5.

Deliberate differences from `ModelResponseStream(**data)`:

1. Data without `id`, `created` or `choices` is not completed: decoders always set them.
2. A finish reason is kept as it is: decoders have mapped it.
3. A custom tool call stays a mapping, the form in which `luthien_asgi.chunks` edits it.
4. Log probabilities stay a mapping: they are passed on, not read.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.backend import hygiene
from luthien_asgi.chunks import Chunk

__all__ = ["build"]

_new: Final = object.__new__
_set: Final = object.__setattr__
_DECLARED: Final = frozenset({"reasoning_content", "thinking_blocks", "reasoning_items"})
_OMITTED_WHEN_NONE: Final = frozenset({*_DECLARED, "images", "annotations", "provider_specific_fields"})
_CHUNK_NAMES: Final = frozenset({"id", "created", "model", "object", "system_fingerprint", "choices", "provider_specific_fields"})
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def build(data: Mapping[str, Any], /) -> Chunk:
    """Return a real `ModelResponseStream` for chunk data (the shape in `luthien_asgi.chunks`); the chunk owns the data.

    The first call imports LiteLLM when nobody has yet: await `hygiene.load()` before.
    """
    chunk: Chunk = _builder().chunk(data)
    return chunk


@cache
def _builder() -> _Builder:
    hygiene.load_now()
    return _Builder(importlib.import_module("litellm.types.utils"))


def _make(
    cls: Any,  # noqa: ANN401 - LiteLLM's classes
    fields: dict[str, Any],
    extra: dict[str, Any],
    known: set[str],
    private: dict[str, Any] | None = None,
) -> Any:  # noqa: ANN401
    made = _new(cls)
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_extra__", extra)
    _set(made, "__pydantic_fields_set__", known)
    _set(made, "__pydantic_private__", private)
    return made


class _Builder:
    """LiteLLM's classes, and which of their fields count as set in a chunk that LiteLLM built itself."""

    __slots__ = (
        "_call",
        "_choice",
        "_choice_set",
        "_chunk",
        "_chunk_fields",
        "_chunk_sets",
        "_delta",
        "_delta_set",
        "_function",
        "_usage",
    )

    def __init__(self, types: Any) -> None:  # noqa: ANN401 - the module `litellm.types.utils`
        self._chunk, self._choice, self._delta = types.ModelResponseStream, types.StreamingChoices, types.Delta
        self._call, self._function, self._usage = types.ChatCompletionDeltaToolCall, types.Function, types.Usage
        self._chunk_fields = frozenset(self._chunk.model_fields)
        self._chunk_sets: dict[tuple[str, ...], set[str]] = {}
        # Shared by all chunks: pydantic notes here which fields were set, and these are set in every chunk.
        self._choice_set = set(self._choice().__pydantic_fields_set__)
        self._delta_set = set(self._delta().__pydantic_fields_set__)

    def chunk(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        fields = {
            "id": data.get("id"),
            "created": data.get("created"),
            "model": data.get("model"),
            "object": "chat.completion.chunk",
            "system_fingerprint": data.get("system_fingerprint"),
            "choices": [self.choice(choice) for choice in data.get("choices") or ()],
            "provider_specific_fields": data.get("provider_specific_fields"),
        }
        extra = {} if data.keys() <= _CHUNK_NAMES else {name: data[name] for name in data if name not in _CHUNK_NAMES}
        if isinstance(extra.get("usage"), Mapping):
            extra["usage"] = self._usage(**extra["usage"])
        private: dict[str, Any] = {"_hidden_params": {}, "_response_headers": None}
        return _make(self._chunk, fields, extra, self._chunk_set(tuple(data)), private)

    def _chunk_set(self, names: tuple[str, ...]) -> set[str]:
        """Return which fields count as set; decoders make only a few different combinations."""
        known = self._chunk_sets.get(names)
        if known is None:
            extra = set(names) - _CHUNK_NAMES
            known = {"object", "choices", "provider_specific_fields", *self._chunk_fields.intersection(names), *extra}
            self._chunk_sets[names] = known
        return known

    def choice(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        extra = {
            "finish_reason": data.get("finish_reason"),
            "index": data.get("index", 0),
            "delta": self.delta(data.get("delta") or _NOTHING),
            "logprobs": data.get("logprobs"),
        }
        return _make(self._choice, {}, extra, self._choice_set)

    def delta(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if len(data) == 1 and "content" in data:  # as most of them are
            extra = {"content": data["content"], "role": None, "function_call": None, "tool_calls": None, "audio": None}
            return _make(self._delta, {"provider_specific_fields": None}, extra, self._delta_set)
        fields = {"provider_specific_fields": data.get("provider_specific_fields")}
        calls = data.get("tool_calls")
        extra = {
            "content": data.get("content"),
            "role": data.get("role"),
            "function_call": data.get("function_call"),
            "tool_calls": None if calls is None else [self.tool_call(call) for call in calls],
            "audio": data.get("audio"),
        }
        known = set(self._delta_set)
        for name, value in data.items():
            if name not in extra and (value is not None or name not in _OMITTED_WHEN_NONE):
                (fields if name in _DECLARED else extra)[name] = value
                known.add(name)
        extra.pop("provider_specific_fields", None)
        return _make(self._delta, fields, extra, known)

    def tool_call(self, call: Any) -> Any:  # noqa: ANN401 - a mapping, or an object that a policy made
        if not isinstance(call, Mapping) or call.get("custom") is not None:
            return call
        body = call.get("function") or _NOTHING
        function = {"arguments": body.get("arguments") or "", "name": body.get("name")}
        fields = {
            "id": call.get("id"),
            "function": _make(self._function, function, {}, {"arguments", "name"}),
            "type": call.get("type") or "function",
            "index": call.get("index", 0),
        }
        known = {"function", "type", "index", "id"} if "id" in call else {"function", "type", "index"}
        return _make(self._call, fields, {}, known)
