"""The fields of the Anthropic messages wire (anthropic-python 2.12, beta types included), as tables."""

from __future__ import annotations

from typing import Final

from luthien_asgi.testing.shapes import ANY, BOOL, INDEX, OBJECT, TEXT, EitherOf, ListOf, Nullable, Obj, OneOf, Shape, Variant

__all__ = ["BLOCKS", "DELTAS", "ERROR_TYPES", "EVENTS", "MESSAGE", "STOP_REASONS"]

STOP_REASONS: Final = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
    "compaction",
)
ERROR_TYPES: Final = (
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "timeout_error",
    "overloaded_error",
)

_COUNT: Final = Nullable(INDEX)
_COUNTS: Final[dict[str, Shape]] = {
    "cache_creation_input_tokens?": _COUNT,
    "cache_read_input_tokens?": _COUNT,
    "server_tool_use?": Nullable(Obj({"web_search_requests?": INDEX, "web_fetch_requests?": INDEX})),
    "output_tokens_details?": Nullable(Obj({"thinking_tokens?": INDEX})),
    "iterations?": Nullable(ListOf(OBJECT)),
    "fallback_credit?": ANY,
    "cache_creation?": Nullable(Obj({"ephemeral_5m_input_tokens": INDEX, "ephemeral_1h_input_tokens": INDEX})),
    "service_tier?": Nullable(OneOf(("standard", "priority", "batch"))),
    "inference_geo?": Nullable(TEXT),
    "speed?": Nullable(TEXT),
}
_USAGE: Final = Obj({**_COUNTS, "input_tokens": INDEX, "output_tokens": INDEX})
_DELTA_USAGE: Final = Obj({**_COUNTS, "input_tokens?": _COUNT, "output_tokens": INDEX})
_STOP: Final[dict[str, Shape]] = {
    "stop_reason": Nullable(OneOf(STOP_REASONS)),
    "stop_sequence": Nullable(TEXT),
    "stop_details?": Nullable(OBJECT),
    "container?": Nullable(OBJECT),
}


def _block(**fields: Shape) -> Obj:
    return Obj(
        {"type": TEXT, **{name.replace("_opt", "?") if name.endswith("_opt") else name: shape for name, shape in fields.items()}}
    )


def _result(content: Shape) -> Obj:
    return _block(tool_use_id=TEXT, content=content, caller_opt=ANY)


_CALL: Final = _block(id=TEXT, name=TEXT, input=OBJECT, caller_opt=ANY, toolset_name_opt=Nullable(TEXT))
BLOCKS: Final[dict[str, Shape]] = {
    "text": _block(text=TEXT, citations_opt=Nullable(ListOf(OBJECT))),
    "thinking": _block(thinking=TEXT, signature=TEXT),
    "redacted_thinking": _block(data=TEXT),
    "tool_use": _CALL,
    "server_tool_use": _CALL,
    "web_search_tool_result": _result(ANY),
    "web_fetch_tool_result": _result(OBJECT),
    "code_execution_tool_result": _result(OBJECT),
    "bash_code_execution_tool_result": _result(OBJECT),
    "text_editor_code_execution_tool_result": _result(OBJECT),
    "tool_search_tool_result": _result(OBJECT),
    "advisor_tool_result": _result(OBJECT),
    "container_upload": _block(file_id=TEXT),
    "mcp_tool_use": _block(id=TEXT, name=TEXT, input=OBJECT, server_name=TEXT),
    "mcp_tool_result": _block(tool_use_id=TEXT, is_error=BOOL, content=EitherOf(ListOf(OBJECT))),
    "mcp_tool_listing": _block(mcp_server_name=TEXT, tools=ListOf(OBJECT)),
    "compaction": _block(
        content_opt=Nullable(TEXT), encrypted_content_opt=Nullable(TEXT), signature_opt=Nullable(TEXT), tool_changes_opt=ANY
    ),
    "fallback": _block(**{"from": OBJECT, "to": OBJECT, "trigger_opt": ANY}),
}
DELTAS: Final[dict[str, Shape]] = {
    "text_delta": _block(text=TEXT),
    "input_json_delta": _block(partial_json=TEXT),
    "thinking_delta": _block(thinking=TEXT, estimated_tokens_opt=_COUNT),
    "signature_delta": _block(signature=TEXT),
    "citations_delta": _block(citation=OBJECT),
    "compaction_delta": _block(content_opt=Nullable(TEXT), encrypted_content_opt=Nullable(TEXT)),
}

_SHARED: Final[dict[str, Shape]] = {
    "id": TEXT,
    "type": OneOf(("message",), closed=True),
    "role": OneOf(("assistant",), closed=True),
    "model": TEXT,
    "content": ListOf(Variant(BLOCKS)),
    "usage": _USAGE,
    **_STOP,
    "context_management?": ANY,
    "diagnostics?": ANY,
    "input_transformations?": ANY,
}
MESSAGE: Final = Obj(_SHARED)
_ERROR: Final = Obj({"type": OneOf(ERROR_TYPES), "message": TEXT}, open=True)
"""Providers add details; SDKs pass them on."""

EVENTS: Final[dict[str, Shape]] = {
    "message_start": _block(message=MESSAGE),
    "content_block_start": _block(index=INDEX, content_block=Variant(BLOCKS)),
    "content_block_delta": _block(index=INDEX, delta=Variant(DELTAS)),
    "content_block_stop": _block(index=INDEX),
    "message_delta": _block(delta=Obj(_STOP), usage=_DELTA_USAGE, context_management_opt=ANY, input_transformations_opt=ANY),
    "message_stop": Obj({"type": TEXT}, open=True),
    "ping": _block(),
    "error": _block(error=_ERROR, request_id_opt=Nullable(TEXT)),
}
