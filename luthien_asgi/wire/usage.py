"""Usage and finish reasons, from the words of one wire to those of the other.

LiteLLM's common form is OpenAI's: `prompt_tokens` includes what was read from and written to a cache. Anthropic's `input_tokens`
excludes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.wire.answers_anthropic import ANTHROPIC_ANSWERS
from luthien_asgi.wire.answers_openai import OPENAI_ANSWERS

__all__ = [
    "FINISH_REASON_OF_STOP_REASON",
    "STOP_REASON_OF_FINISH_REASON",
    "anthropic_usage",
    "finish_reason_for",
    "openai_usage",
    "stop_reason_for",
    "stop_reason_kept",
]

FINISH_REASON_OF_STOP_REASON: Final = ANTHROPIC_ANSWERS.values_of("stop_reason")
"""Anthropic's stop reasons in OpenAI's words. One that is not here, of a model to come, is an ordinary end: `stop`."""

STOP_REASON_OF_FINISH_REASON: Final = OPENAI_ANSWERS.values_of("choices.finish_reason")
"""OpenAI's finish reasons in Anthropic's words."""

_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")
_OPENAI_NAMES: Final = {"cache_creation_tokens": "cache_write_tokens"}
"""What LiteLLM calls otherwise than OpenAI does."""
_CALLS: Final = frozenset({"tool_calls", "function_call"})


def finish_reason_for(finish_reason: str, *, calls_sent: bool) -> str:
    """Return the finish reason for an OpenAI client: `tool_calls` only if it was sent a call; `stop` stays, also with calls."""
    if finish_reason not in _CALLS:
        return finish_reason
    return "tool_calls" if calls_sent else "stop"


def stop_reason_for(finish_reason: str, *, tools_sent: bool, refused: bool) -> str:
    """Return Anthropic's stop reason for an answer of another wire.

    `tools_sent`: the client got a tool_use block; `refused`: it got the text of a refusal.
    """
    if tools_sent and (finish_reason == "stop" or finish_reason not in STOP_REASON_OF_FINISH_REASON):
        # OpenAI says `stop` when tool_choice forced the call.
        return "tool_use"
    if finish_reason == "stop" and refused:
        return "refusal"
    return stop_reason_kept(STOP_REASON_OF_FINISH_REASON.get(finish_reason, "end_turn"), tools_sent=tools_sent)


def stop_reason_kept(stop_reason: str, *, tools_sent: bool) -> str:
    """Return an Anthropic stop reason as it is, save that `tool_use` without a tool_use block is `end_turn`."""
    return "end_turn" if stop_reason == "tool_use" and not tools_sent else stop_reason


def openai_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a complete OpenAI usage object: the three counts, and the details where they are known.

    What LiteLLM adds (`cost`, Anthropic's names) is left out.
    """
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = usage.get("total_tokens")
    found: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion if total is None else total,
    }
    for name in _DETAILS:
        if details := _details(usage, name):
            found[name] = {_OPENAI_NAMES.get(key, key): value for key, value in details.items()}
    read = usage.get("cache_read_input_tokens")
    if read and "cached_tokens" not in found.get("prompt_tokens_details", ()):
        found["prompt_tokens_details"] = {**found.get("prompt_tokens_details", {}), "cached_tokens": read}
    return found


def anthropic_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return Anthropic's usage object for a usage with OpenAI's names; what was cached and thought where it is known."""
    details = _details(usage, "prompt_tokens_details")
    read = _known(usage.get("cache_read_input_tokens"), details.get("cached_tokens"))
    written = _known(
        usage.get("cache_creation_input_tokens"), details.get("cache_write_tokens"), details.get("cache_creation_tokens")
    )
    uncached = _count(usage.get("prompt_tokens")) - (read or 0) - (written or 0)
    found: dict[str, Any] = {"input_tokens": max(uncached, 0), "output_tokens": _count(usage.get("completion_tokens"))}
    if read is not None:
        found["cache_read_input_tokens"] = read
    if written is not None:
        found["cache_creation_input_tokens"] = written
    if thought := _details(usage, "completion_tokens_details").get("reasoning_tokens"):
        found["output_tokens_details"] = {"thinking_tokens": thought}
    return found


def _details(usage: Mapping[str, Any], name: str) -> dict[str, Any]:
    details = usage.get(name)
    return {k: v for k, v in details.items() if v is not None} if isinstance(details, Mapping) else {}


def _known(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _count(value: int | None) -> int:
    return value or 0
