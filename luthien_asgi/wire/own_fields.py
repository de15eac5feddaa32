"""The fields of a provider's own in one event, by the level at which they stand.

Strategy: what every OpenAI-style provider has is named; the rest is the provider's own. Null says nothing, and in a delta neither
does an empty list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from luthien_asgi.extras import THINKING_FIELDS, is_harmless

__all__ = ["CALL", "CHOICE", "CHUNK", "DELTA", "INNER", "Own", "own_fields"]

CHUNK: Final = frozenset(
    {
        "id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "error",
        "provider_specific_fields",
    }
)  # fmt: skip
CHOICE: Final = frozenset({"index", "delta", "finish_reason", "logprobs", "provider_specific_fields"})
DELTA: Final = frozenset(
    {
        "role", "content", "refusal", "tool_calls", "function_call", "audio", "images", "annotations", "reasoning_content",
        "thinking_blocks", "provider_specific_fields",
    }
)  # fmt: skip
"""`thinking_blocks` and `provider_specific_fields` are LiteLLM's, whose proxy is a provider too: the decoder reads them."""
CALL: Final = frozenset({"index", "id", "type", "function", "custom"})
INNER: Final = frozenset({"name", "arguments", "input"})

_LITELLMS: Final = frozenset({"thinking_blocks", "provider_specific_fields"})
"""Fields of a LiteLLM proxy's at any level: the decoder reads them where they belong, and SDKs cannot add them up."""
_TYPES: Final[Mapping[str, type]] = {"obfuscation": str}
_NOTHING: Final[Mapping[str, Any]] = {}


def own_fields(fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return the fields that are not known and say something, of those that clients know the ones with their type."""
    if known.issuperset(fields):
        return {}
    return {name: value for name, value in fields.items() if name not in known and name not in _LITELLMS and _says(name, value)}


def _says(name: str, value: Any) -> bool:  # noqa: ANN401 - JSON
    return value is not None and value != [] and isinstance(value, _TYPES.get(name, object))


class Own(NamedTuple):
    """A provider's own fields, by level."""

    chunk: Mapping[str, Any] = _NOTHING
    choice: Mapping[str, Any] = _NOTHING
    delta: Mapping[str, Any] = _NOTHING
    call: Mapping[str, Any] = _NOTHING
    body: Mapping[str, Any] = _NOTHING
    """Of a call's `function` or `custom`."""
    usage: Mapping[str, Any] = _NOTHING
    form: Mapping[str, Any] = _NOTHING
    """How the provider wrote a standard part."""

    def rider(self, rider: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return a chunk's rider with these fields in it, or None where there is nothing to tell."""
        before = rider or _NOTHING
        levels = dict(before.get("openai", _NOTHING))
        for level, fields in zip(self._fields, self, strict=True):
            if fields:
                levels[level] = {**levels.get(level, _NOTHING), **fields}
        made = {**before, "openai": levels} if levels else dict(before)
        return made or None

    def sorted(self) -> tuple[Own, Own, Own]:
        """Return what is thinking, what is about the text, and what is harmless whatever becomes of the text."""
        thinking = {name: value for name, value in self.delta.items() if name in THINKING_FIELDS}
        delta = {name: value for name, value in self.delta.items() if name not in thinking}
        chunk, choice = _harmless(self.chunk), _harmless(self.choice)
        about = Own(chunk=_rest(self.chunk, chunk), choice=_rest(self.choice, choice), delta=delta)
        return Own(delta=thinking), about, Own(chunk=chunk, choice=choice)


def _harmless(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in fields.items() if is_harmless(name, value)}


def _rest(fields: Mapping[str, Any], without: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in fields.items() if name not in without}
