"""The `message_start` of an Anthropic answer, and the events that its grammar does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["is_unknown", "message_start"]

_GRAMMAR: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    }
)
_EVENT_NAME: Final = re.compile(r"[\w.-]+", re.ASCII)
"""What can stand in an SSE `event:` line whoever reads it."""
_INPUT_COUNTS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def is_unknown(event: Mapping[str, Any]) -> bool:
    """Tell whether an event is one that goes on as it came: of a type that we do not write ourselves, and that can be written."""
    name = event.get("type")
    return isinstance(name, str) and name not in _GRAMMAR and _EVENT_NAME.fullmatch(name) is not None


def message_start(said: Mapping[str, Any] | None, *, id: str, model: str, input_tokens: int) -> dict[str, Any]:  # noqa: A002
    """Return the `message_start` event: the provider's own (`said`) with nothing in it yet, or one of ours.

    `id`, `model` and the estimate of `input_tokens` stand where the provider said nothing.
    """
    event = said if said is not None and said.get("type") == "message_start" else {}
    message = event.get("message") or {}
    begun: dict[str, Any] = {"type": "message", "role": "assistant", "content": [], "stop_reason": None, "stop_sequence": None}
    known = {
        "id": message.get("id") or id,
        "model": message.get("model") or model,
        "usage": _with_counts(message.get("usage") or {}, input_tokens),
    }
    return {**event, "type": "message_start", "message": {"type": "message", "role": "assistant", **message, **known, **begun}}


def _with_counts(usage: Mapping[str, Any], input_tokens: int) -> dict[str, Any]:
    """Return a usage that has both counts: the estimate of the input, and one token written, where the provider told none.

    No request is empty: a provider whose counts of the input are all 0 has not counted yet. With a cache, 0 of them may be new.
    """
    counts = {"input_tokens": max(1, input_tokens), "output_tokens": 1}
    missing = {name: count for name, count in counts.items() if usage.get(name) is None}
    if not any(usage.get(name) for name in _INPUT_COUNTS):
        missing["input_tokens"] = counts["input_tokens"]
    return {**usage, **missing}
