"""What a provider of the OpenAI wire says in fields of its own, beside the fields that every such provider has.

Strategy: a decoder puts them into the rider `provider_specific_fields["openai"]`, by the level at which they stood (`chunk`,
`choice`, `delta`, a tool `call` and its `body`, `usage`), and the OpenAI encoder writes them there again. `form` is the decoder's
own remark on how the provider wrote a standard part: the content of its `opening` delta and whether that came `alone`, or
`function_call` in the place of a tool call. Which of them pass a policy that is in charge of content is told by two tables of
names; what is in neither may hold the answer in other words, and does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["BOUND", "HARMLESS", "THINKING_FIELDS", "harmless_extras", "is_harmless", "is_name", "is_terse"]

HARMLESS: Final = frozenset(
    {
        # who served it, and the numbers of a request
        "provider", "x_groq", "request_id", "trace_id", "system_fingerprint", "service_tier", "seed", "model_info",
        "model_extra_info", "runtime", "weight_version",
        # why it ended
        "native_finish_reason", "stop_reason", "matched_stop", "finish_details",
        # counters and times
        "usage", "cost", "timings", "time_info", "stats", "metrics", "perf_metrics", "performance_metrics", "usage_info",
        "created_at", "num_sources_used", "kv_transfer_params", "prompt_token_ids", "prompt_progress",
        # results of filters, and padding
        "content_filter_results", "content_filter_result", "content_filter_offsets", "prompt_filter_results", "moderation",
        "obfuscation",
    }
)  # fmt: skip
"""Fields that the provider's own machinery fills: ids, counters, times, results of filters."""

BOUND: Final = frozenset(
    {
        "token_ids", "token_id", "tokens", "logprobs", "citations", "search_results", "annotations", "extra_content", "channel",
        "index",
    }
)  # fmt: skip
"""Fields that say something about the fragment they came with: held with it, dropped when it is changed or denied."""

THINKING_FIELDS: Final = frozenset({"reasoning", "reasoning_details", "reasoning_text", "reasoning_summary", "thinking"})
"""Fields of a delta that hold a model's thinking."""

_WORDS: Final = 64
_WORD: Final = 256
_DEPTH: Final = 16
"""Characters of a short name and of a single word, and levels of a structure, that a harmless value has at most."""

_NAME: Final = re.compile(rf"[\w.:/@$-]{{1,{_WORDS}}}", re.ASCII)


def is_harmless(name: str, value: object) -> bool:
    """Tell whether a field may pass whatever a policy decides: its name is known, and its value has no sentence in it."""
    return name in HARMLESS and is_terse(value)


def is_name(name: object) -> bool:
    """Tell whether the name of a field is one: an identifier of 64 characters at most, without the blanks of a sentence."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_terse(value: object, *, depth: int = _DEPTH) -> bool:
    """Tell whether there is no sentence in a value: numbers, flags, single words and short names, in no deep structure."""
    if isinstance(value, str):
        return len(value) <= _WORDS or (len(value) <= _WORD and len(value.split()) <= 1)
    if not isinstance(value, Mapping | list):
        return True
    if isinstance(value, Mapping) and not all(map(is_name, value)):
        return False
    entries = value.values() if isinstance(value, Mapping) else value
    return depth > 0 and all(is_terse(entry, depth=depth - 1) for entry in entries)


def harmless_extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an `openai` rider may pass whatever becomes of the fragment that it came with."""
    levels = {level: _harmless(fields) for level, fields in extras.items() if level in {"chunk", "choice"}}
    levels["form"] = dict(extras.get("form", {}))
    return {level: fields for level, fields in levels.items() if fields}


def _harmless(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if is_harmless(name, value)}
