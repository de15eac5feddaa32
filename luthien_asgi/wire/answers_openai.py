"""The parts of an OpenAI answer, and what an Anthropic client gets of them: the completion, its chunks, and errors.

What the client's format has no field for is ignored with notice: the record names it, and holds the provider's block.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from luthien_asgi.wire.fates import Fate, Row, Table

__all__ = ["OPENAI_ANSWERS", "OPENAI_ERRORS"]

_MAPPED, _CARRIED, _REFUSED, _IGNORED, _HANDLED = Fate.MAPPED, Fate.CARRIED, Fate.REFUSED, Fate.IGNORED, Fate.HANDLED

_NONE: Final = "the format has no field for it"
_CHOICE: Final = "a message has one content; more choices are not asked for across formats"
_CALL: Final = "content[tool_use]"

_FINISH_REASONS: Final = (
    ("stop", "end_turn", "`tool_use` with a call that reached the client, `refusal` after the text of one"),
    ("length", "max_tokens", ""),
    ("tool_calls", "tool_use", "if a call reached the client, else `end_turn`"),
    ("function_call", "tool_use", "if a call reached the client, else `end_turn`"),
    ("content_filter", "refusal", ""),
)

_ANSWER: Final = (
    Row("id", _HANDLED, note="a message has an id of its own form"),
    Row("object", _HANDLED, note="what it is, in the words of the format"),
    Row("created", _HANDLED, note="a message has no time of its own"),
    Row("model", _CARRIED, "model"),
    Row("service_tier", _IGNORED, note="price and capacity of another provider", neutral=("auto", "default")),
    Row("system_fingerprint", _IGNORED, note=_NONE, neutral=("",)),
    Row("moderation", _IGNORED, note=_NONE),
    Row("choices", _MAPPED, "content"),
    Row("choices.index", _HANDLED, note=_CHOICE),
    Row("choices.finish_reason", _MAPPED, "stop_reason"),
    *(Row(f"choices.finish_reason={said}", _MAPPED, f"stop_reason={becomes}", note) for said, becomes, note in _FINISH_REASONS),
    Row("choices.logprobs", _IGNORED, note=_NONE),
)

_MESSAGE: Final = (
    Row("choices.message", _MAPPED, "content"),
    Row("choices.delta", _MAPPED, "content", "as the whole message"),
    Row("message.role", _MAPPED, "role"),
    Row("message.content", _MAPPED, "content[text].text"),
    Row("message.refusal", _MAPPED, "content[text].text", "and the stop reason `refusal`", ("",)),
    Row("message.reasoning_content", _MAPPED, "content[thinking].thinking", "with an empty signature"),
    Row("message.annotations", _IGNORED, note=_NONE, neutral=([],)),
    Row("message.audio", _IGNORED, note=_NONE, neutral=({},)),
    Row("message.images", _IGNORED, note=_NONE, neutral=([],)),
    Row("message.function_call", _MAPPED, _CALL),
    Row("message.function_call.name", _MAPPED, f"{_CALL}.name"),
    Row("message.function_call.arguments", _MAPPED, f"{_CALL}.input"),
    Row("message.tool_calls", _MAPPED, _CALL, "after every text, because a history with text after a call is refused"),
    Row("message.tool_calls[function]", _MAPPED, _CALL),
    Row("message.tool_calls[function].index", _HANDLED, note="which call a fragment belongs to"),
    Row("message.tool_calls[function].id", _MAPPED, f"{_CALL}.id", "in the alphabet of the API"),
    Row("message.tool_calls[function].function", _MAPPED, _CALL),
    Row("message.tool_calls[function].function.name", _MAPPED, f"{_CALL}.name"),
    Row("message.tool_calls[function].function.arguments", _MAPPED, f"{_CALL}.input"),
    Row("message.tool_calls[custom]", _MAPPED, _CALL),
    Row("message.tool_calls[custom].id", _MAPPED, f"{_CALL}.id"),
    Row("message.tool_calls[custom].custom", _MAPPED, _CALL),
    Row("message.tool_calls[custom].custom.name", _MAPPED, f"{_CALL}.name"),
    Row("message.tool_calls[custom].custom.input", _MAPPED, f"{_CALL}.input", 'as `{"input": "<as written>"}`'),
)

_PROMPT: Final = "usage.prompt_tokens_details"
_COMPLETION: Final = "usage.completion_tokens_details"
_SHARE: Final = "a share of a count that is given"
_USAGE: Final = (
    Row("usage", _MAPPED, "usage"),
    Row("usage.prompt_tokens", _MAPPED, "usage.input_tokens", "without what was read from and written to a cache"),
    Row("usage.completion_tokens", _MAPPED, "usage.output_tokens"),
    Row("usage.total_tokens", _HANDLED, note="the sum of the others"),
    Row(_PROMPT, _MAPPED, "usage"),
    Row(f"{_PROMPT}.cached_tokens", _MAPPED, "usage.cache_read_input_tokens"),
    Row(f"{_PROMPT}.cache_write_tokens", _MAPPED, "usage.cache_creation_input_tokens"),
    Row(f"{_PROMPT}.audio_tokens", _HANDLED, note=_SHARE),
    Row(_COMPLETION, _MAPPED, "usage"),
    Row(f"{_COMPLETION}.reasoning_tokens", _MAPPED, "usage.output_tokens_details.thinking_tokens"),
    Row(f"{_COMPLETION}.audio_tokens", _HANDLED, note=_SHARE),
    Row(f"{_COMPLETION}.accepted_prediction_tokens", _HANDLED, note=_SHARE),
    Row(f"{_COMPLETION}.rejected_prediction_tokens", _HANDLED, note=_SHARE),
)

OPENAI_ANSWERS: Final = Table(
    [*_ANSWER, *_MESSAGE, *_USAGE],
    defaults=MappingProxyType({"message.tool_calls": "function"}),
    turns=MappingProxyType({"choices.message": "message", "choices.delta": "message"}),
)
"""An OpenAI answer for an Anthropic client, whole or in chunks. What is said of a message begins with `message`."""

OPENAI_ERRORS: Final = Table(
    [
        Row("error", _MAPPED, "error"),
        Row("error.message", _CARRIED, "error.message"),
        Row("error.type", _MAPPED, "error.type", "by the status, since types differ from provider to provider"),
        Row("error.code", _HANDLED, note="the type and the message say it"),
        Row("error.param", _HANDLED, note="the message names it"),
    ]
)
"""An OpenAI error for an Anthropic client."""
