"""The parts of an Anthropic answer, and what an OpenAI client gets of them: the message, the events of its stream, and errors.

What the client's format has no field for is ignored with notice: the record names it, and holds the provider's block.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from luthien_asgi.wire.fates import Fate, Row, Table

__all__ = ["ANTHROPIC_ANSWERS", "ANTHROPIC_ERRORS"]

_MAPPED, _CARRIED, _REFUSED, _IGNORED, _HANDLED = Fate.MAPPED, Fate.CARRIED, Fate.REFUSED, Fate.IGNORED, Fate.HANDLED

_MESSAGE: Final = "message"
_CALL: Final = f"{_MESSAGE}.tool_calls[function]"
_STATE: Final = "state or machinery of the Anthropic API"
_RAN: Final = "it ran at the provider, and is no call for the client"
_NUMBER: Final = "the place of a block; what a client gets is numbered anew"
_PARTS_OF_USAGE: Final = "a share of counts that are given, or the provider's own accounting"

_SERVER_BLOCKS: Final = (
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "advisor_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "mcp_tool_use",
    "mcp_tool_result",
    "container_upload",
)
_BLOCKS: Final = (
    Row("content", _MAPPED, _MESSAGE),
    Row("content[text]", _MAPPED, f"{_MESSAGE}.content"),
    Row("content[text].text", _MAPPED, f"{_MESSAGE}.content"),
    Row("content[text].citations", _IGNORED, note="the format has no field for what they say", neutral=([],)),
    Row("content[thinking]", _MAPPED, f"{_MESSAGE}.reasoning_content"),
    Row("content[thinking].thinking", _MAPPED, f"{_MESSAGE}.reasoning_content"),
    Row("content[thinking].signature", _IGNORED, note="a client of the format does not give it back", neutral=("",)),
    Row("content[redacted_thinking]", _IGNORED, note="only the provider can read it"),
    Row("content[tool_use]", _MAPPED, _CALL),
    Row("content[tool_use].id", _MAPPED, f"{_CALL}.id"),
    Row("content[tool_use].name", _MAPPED, f"{_CALL}.function.name"),
    Row("content[tool_use].input", _MAPPED, f"{_CALL}.function.arguments"),
    Row("content[tool_use].caller", _IGNORED, note=_STATE, neutral=({"type": "direct"},)),
    Row("content[tool_use].toolset_name", _IGNORED, note=_STATE),
    *(Row(f"content[{kind}]", _IGNORED, note=_RAN) for kind in _SERVER_BLOCKS),
    *(Row(f"content[{kind}]", _IGNORED, note=_STATE) for kind in ("compaction", "fallback", "mcp_tool_listing")),
)

_STOP_REASONS: Final = (
    ("end_turn", "stop", ""),
    ("stop_sequence", "stop", ""),
    ("pause_turn", "stop", "the provider paused; the format cannot ask it to go on"),
    ("model_context_window_exceeded", "length", ""),
    ("compaction", "stop", ""),
    ("max_tokens", "length", ""),
    ("tool_use", "tool_calls", "if a call reached the client, else `stop`"),
    ("refusal", "content_filter", ""),
)
_MESSAGE_FIELDS: Final = (
    Row("id", _CARRIED, "id"),
    Row("type", _HANDLED, note="what it is, in the words of the format"),
    Row("role", _MAPPED, f"{_MESSAGE}.role"),
    Row("model", _CARRIED, "model"),
    Row("stop_reason", _MAPPED, "choices.finish_reason"),
    *(Row(f"stop_reason={reason}", _MAPPED, f"choices.finish_reason={said}", note) for reason, said, note in _STOP_REASONS),
    Row("stop_sequence", _IGNORED, note="the format does not say which sequence stopped it"),
    Row("stop_details", _IGNORED, note="why a model refused; the format says that it did"),
    Row("container", _IGNORED, note=_STATE),
    Row("context_management", _IGNORED, note=_STATE),
    Row("diagnostics", _IGNORED, note=_STATE),
    Row("input_transformations", _IGNORED, note=_STATE, neutral=([],)),
    Row("usage", _MAPPED, "usage"),
    Row("usage.input_tokens", _MAPPED, "usage.prompt_tokens", "which include the cache, as Anthropic's do not"),
    Row("usage.output_tokens", _MAPPED, "usage.completion_tokens"),
    Row("usage.cache_read_input_tokens", _MAPPED, "usage.prompt_tokens_details.cached_tokens"),
    Row("usage.cache_creation_input_tokens", _MAPPED, "usage.prompt_tokens_details.cache_write_tokens"),
    Row("usage.output_tokens_details", _MAPPED, "usage.completion_tokens_details"),
    Row("usage.output_tokens_details.thinking_tokens", _MAPPED, "usage.completion_tokens_details.reasoning_tokens"),
    *(
        Row(f"usage.{name}", _HANDLED, note=_PARTS_OF_USAGE)
        for name in (
            "cache_creation",
            "server_tool_use",
            "iterations",
            "fallback_credit",
            "service_tier",
            "speed",
            "inference_geo",
        )
    ),
)

_EVENT: Final = "event[content_block_delta]"
_EVENTS: Final = (
    Row("event[message_start]", _MAPPED, "choices"),
    Row("event[message_start].message", _MAPPED, "choices", "as the whole message"),
    Row("event[content_block_start]", _MAPPED, "choices"),
    Row("event[content_block_start].index", _HANDLED, note=_NUMBER),
    Row("event[content_block_start].content_block", _MAPPED, "choices", "as a block of the whole message"),
    Row(_EVENT, _MAPPED, "choices"),
    Row(f"{_EVENT}.index", _HANDLED, note=_NUMBER),
    Row(f"{_EVENT}.delta", _MAPPED, "choices"),
    Row(f"{_EVENT}.delta[text_delta]", _MAPPED, f"{_MESSAGE}.content"),
    Row(f"{_EVENT}.delta[text_delta].text", _MAPPED, f"{_MESSAGE}.content"),
    Row(f"{_EVENT}.delta[input_json_delta]", _MAPPED, f"{_CALL}.function.arguments"),
    Row(f"{_EVENT}.delta[input_json_delta].partial_json", _MAPPED, f"{_CALL}.function.arguments"),
    Row(f"{_EVENT}.delta[thinking_delta]", _MAPPED, f"{_MESSAGE}.reasoning_content"),
    Row(f"{_EVENT}.delta[thinking_delta].thinking", _MAPPED, f"{_MESSAGE}.reasoning_content"),
    Row(f"{_EVENT}.delta[thinking_delta].estimated_tokens", _HANDLED, note="an estimate of what the usage counts"),
    Row(f"{_EVENT}.delta[citations_delta]", _IGNORED, note="as of the whole text", notice="content[text].citations"),
    Row(f"{_EVENT}.delta[signature_delta]", _IGNORED, note="as of the whole block", notice="content[thinking].signature"),
    Row(f"{_EVENT}.delta[compaction_delta]", _IGNORED, note=_STATE, notice="content[compaction]"),
    Row("event[content_block_stop]", _HANDLED, note="blocks have no end of their own in the format"),
    Row("event[content_block_stop].index", _HANDLED, note=_NUMBER),
    Row("event[message_delta]", _MAPPED, "choices"),
    Row("event[message_delta].delta", _MAPPED, "choices", "as in the whole message"),
    Row("event[message_delta].usage", _MAPPED, "usage", "as in the whole message; the counts are cumulative"),
    Row("event[message_delta].context_management", _IGNORED, note=_STATE, notice="context_management"),
    Row("event[message_delta].input_transformations", _IGNORED, note=_STATE, neutral=([],), notice="input_transformations"),
    Row("event[message_stop]", _MAPPED, note="`data: [DONE]`"),
    Row("event[ping]", _HANDLED, note="this server has signs of life of its own"),
    Row("event[error]", _MAPPED, "error", "as an error before the stream"),
)

ANTHROPIC_ANSWERS: Final = Table(
    [*_MESSAGE_FIELDS, *_BLOCKS, *_EVENTS],
    turns=MappingProxyType(
        {
            "content": "content",
            "content_block": "content",
            "event[message_start].message": "",
            "event[message_delta].delta": "",
            "event[message_delta].usage": "usage",
        }
    ),
)
"""An Anthropic answer for an OpenAI client. The paths of events begin with `event`."""

_ERROR_TYPES: Final = (
    ("invalid_request_error", "invalid_request_error"),
    ("authentication_error", "authentication_error"),
    ("billing_error", "insufficient_quota"),
    ("permission_error", "permission_error"),
    ("not_found_error", "invalid_request_error"),
    ("conflict_error", "invalid_request_error"),
    ("request_too_large", "invalid_request_error"),
    ("rate_limit_error", "rate_limit_error"),
    ("timeout_error", "timeout_error"),
    ("api_error", "server_error"),
    ("overloaded_error", "overloaded_error"),
)
ANTHROPIC_ERRORS: Final = Table(
    [
        Row("type", _HANDLED, note="the format has no envelope"),
        Row("request_id", _MAPPED, note="the header `x-request-id`"),
        Row("error", _MAPPED, "error"),
        Row("error.message", _CARRIED, "error.message"),
        Row("error.type", _MAPPED, "error.type"),
        *(Row(f"error.type={said}", _MAPPED, f"error.type={becomes}") for said, becomes in _ERROR_TYPES),
        Row("error.details", _IGNORED, note="the provider's own codes; the message says it"),
    ]
)
"""An Anthropic error for an OpenAI client; the same types name the errors of this package."""
