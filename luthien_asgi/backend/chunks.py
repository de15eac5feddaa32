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
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.backend import hygiene
from luthien_asgi.chunks import Chunk

__all__ = ["build"]

_new: Final = object.__new__
_DECLARED: Final = frozenset({"reasoning_content", "thinking_blocks", "reasoning_items"})
_OMITTED_WHEN_NONE: Final = frozenset({*_DECLARED, "images", "annotations", "provider_specific_fields"})
_CHUNK_NAMES: Final = frozenset({"id", "created", "model", "object", "system_fingerprint", "choices", "provider_specific_fields"})
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")
_COMBINATIONS: Final = 256
"""How many combinations of a chunk's field names are remembered."""
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


def _maker() -> Callable[..., Any]:
    """Return what makes an object of one of LiteLLM's classes.

    It uses the slots' own setters: pydantic's `__setattr__` validates, and `object.__setattr__` looks each slot up by its name.
    """
    slots = importlib.import_module("pydantic").BaseModel.__dict__
    set_fields, set_extra = slots["__dict__"].__set__, slots["__pydantic_extra__"].__set__
    set_known, set_private = slots["__pydantic_fields_set__"].__set__, slots["__pydantic_private__"].__set__

    def make(
        cls: Any,  # noqa: ANN401 - LiteLLM's classes
        fields: dict[str, Any],
        extra: dict[str, Any],
        known: set[str],
        private: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        made = _new(cls)
        set_fields(made, fields)
        set_extra(made, extra)
        set_known(made, known)
        set_private(made, private)
        return made

    return make


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
        "_make",
        "_usage",
    )

    def __init__(self, types: Any) -> None:  # noqa: ANN401 - the module `litellm.types.utils`
        self._make = _maker()
        self._chunk, self._choice, self._delta = types.ModelResponseStream, types.StreamingChoices, types.Delta
        self._call, self._function, self._usage = types.ChatCompletionDeltaToolCall, types.Function, types.Usage
        self._chunk_fields = frozenset(self._chunk.model_fields)
        self._chunk_sets: dict[tuple[str, ...], tuple[set[str], tuple[str, ...]]] = {}
        # Shared by all chunks: pydantic notes here which fields were set, and these are set in every chunk.
        self._choice_set = set(self._choice().__pydantic_fields_set__)
        self._delta_set = set(self._delta().__pydantic_fields_set__)

    def chunk(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        get = data.get
        fields = {
            "id": get("id"),
            "created": get("created"),
            "model": get("model"),
            "object": "chat.completion.chunk",
            "system_fingerprint": get("system_fingerprint"),
            "choices": [self.choice(choice) for choice in get("choices") or ()],
            "provider_specific_fields": get("provider_specific_fields"),
        }
        known, further = self._names_of(tuple(data))
        extra = {name: data[name] for name in further} if further else {}
        if isinstance(extra.get("usage"), Mapping):
            extra["usage"] = self._counted(extra["usage"])
        private: dict[str, Any] = {"_hidden_params": {}, "_response_headers": None}
        return self._make(self._chunk, fields, extra, known, private)

    def _counted(self, usage: Mapping[str, Any]) -> Any:  # noqa: ANN401 - LiteLLM's class
        """Return LiteLLM's usage; it reckons with some providers' own counts, which need not be numbers."""
        try:
            return self._usage(**usage)
        except Exception:
            return self._usage(**{name: usage[name] for name in _COUNTS if name in usage})

    def _names_of(self, names: tuple[str, ...]) -> tuple[set[str], tuple[str, ...]]:
        """Return which fields count as set, and which are no declared ones; decoders make only a few combinations."""
        found = self._chunk_sets.get(names)
        if found is None:
            further = tuple(name for name in names if name not in _CHUNK_NAMES)
            known = {"object", "choices", "provider_specific_fields", *self._chunk_fields.intersection(names), *further}
            found = known, further
            if len(self._chunk_sets) < _COMBINATIONS:
                self._chunk_sets[names] = found
        return found

    def choice(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        get = data.get
        extra = {
            "finish_reason": get("finish_reason"),
            "index": get("index", 0),
            "delta": self.delta(get("delta") or _NOTHING),
            "logprobs": get("logprobs"),
        }
        return self._make(self._choice, {}, extra, self._choice_set)

    def delta(self, data: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if len(data) == 1 and "content" in data:  # as most of them are
            extra = {"content": data["content"], "role": None, "function_call": None, "tool_calls": None, "audio": None}
            return self._make(self._delta, {"provider_specific_fields": None}, extra, self._delta_set)
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
        return self._make(self._delta, fields, extra, known)

    def tool_call(self, call: Any) -> Any:  # noqa: ANN401 - a mapping, or an object that a policy made
        if not isinstance(call, Mapping) or call.get("custom") is not None:
            return call
        body = call.get("function") or _NOTHING
        function = {"arguments": body.get("arguments") or "", "name": body.get("name")}
        fields = {
            "id": call.get("id"),
            "function": self._make(self._function, function, {}, {"arguments", "name"}),
            "type": call.get("type") or "function",
            "index": call.get("index", 0),
        }
        known = {"function", "type", "index", "id"} if "id" in call else {"function", "type", "index"}
        return self._make(self._call, fields, {}, known)
