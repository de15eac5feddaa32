"""The fields of the OpenAI Responses wire (openai-python 2.54), as tables.

Of an item only what is there from its beginning is required: an item that is in progress has not all of its fields yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from luthien_asgi.testing.shapes import (
    ANY,
    BOOL,
    INDEX,
    NUMBER,
    OBJECT,
    TEXT,
    EitherOf,
    ListOf,
    Nullable,
    Obj,
    OneOf,
    Shape,
    Variant,
)

__all__ = ["EVENTS", "ITEMS", "RESPONSE", "STATUSES"]

STATUSES: Final = ("completed", "failed", "in_progress", "cancelled", "queued", "incomplete")
_NULL_TEXT: Final = Nullable(TEXT)
_STATUS: Final = Nullable(
    OneOf(("in_progress", "completed", "incomplete", "failed", "searching", "generating", "interpreting", "calling"))
)


def _typed(fields: dict[str, Shape]) -> Obj:
    return Obj({"type": TEXT, **fields})


PARTS: Final[dict[str, Shape]] = {
    "output_text": _typed({"text": TEXT, "annotations": ListOf(OBJECT), "logprobs?": Nullable(ListOf(OBJECT))}),
    "refusal": _typed({"refusal": TEXT}),
    "reasoning_text": _typed({"text": TEXT}),
    "summary_text": _typed({"text": TEXT}),
}
_CALL: Final[dict[str, Shape]] = {
    "id?": _NULL_TEXT,
    "call_id": TEXT,
    "name": TEXT,
    "caller?": ANY,
    "namespace?": _NULL_TEXT,
    "status?": _STATUS,
}
_SERVER: Final[dict[str, Shape]] = {"id": TEXT, "status?": _STATUS, "created_by?": _NULL_TEXT}
_CALLED: Final[dict[str, Shape]] = {**_SERVER, "call_id?": _NULL_TEXT, "caller?": ANY}


def _with(known: dict[str, Shape], *names: str) -> Obj:
    return _typed({**known, **{f"{name}?": ANY for name in names}})


ITEMS: Final[dict[str, Shape]] = {
    "message": _typed(
        {
            "id": TEXT,
            "role": OneOf(("assistant",), closed=True),
            "status": _STATUS,
            "content": ListOf(Variant(PARTS)),
            "phase?": Nullable(OneOf(("commentary", "final_answer"))),
        }
    ),
    "reasoning": _typed(
        {
            "id": TEXT,
            "summary": ListOf(Variant(PARTS)),
            "content?": Nullable(ListOf(Variant(PARTS))),
            "encrypted_content?": _NULL_TEXT,
            "status?": _STATUS,
        }
    ),
    "function_call": _typed({**_CALL, "arguments": TEXT}),
    "custom_tool_call": _typed({**_CALL, "input": TEXT}),
    "function_call_output": _with(_CALLED, "output", "name", "namespace"),
    "custom_tool_call_output": _with(_CALLED, "output"),
    "file_search_call": _with(_SERVER, "queries", "results"),
    "web_search_call": _with(_SERVER, "action"),
    "computer_call": _with(_CALLED, "pending_safety_checks", "action", "actions"),
    "computer_call_output": _with(_CALLED, "output", "acknowledged_safety_checks"),
    "program": _with(_CALLED, "code", "fingerprint"),
    "program_output": _with(_CALLED, "result"),
    "tool_search_call": _with(_CALLED, "arguments", "execution"),
    "tool_search_output": _with(_CALLED, "execution", "tools"),
    "additional_tools": _with(_SERVER, "role", "tools"),
    "compaction": _with(_SERVER, "encrypted_content"),
    "image_generation_call": _with(
        _SERVER, "result", "background", "output_format", "quality", "size", "revised_prompt", "action", "fingerprint"
    ),
    "code_interpreter_call": _with(_SERVER, "code", "container_id", "outputs"),
    "local_shell_call": _with(_CALLED, "action"),
    "local_shell_call_output": _with(_CALLED, "output"),
    "shell_call": _with(_CALLED, "action", "environment"),
    "shell_call_output": _with(_CALLED, "output", "max_output_length"),
    "apply_patch_call": _with(_CALLED, "operation"),
    "apply_patch_call_output": _with(_CALLED, "output"),
    "mcp_call": _with(_SERVER, "arguments", "name", "server_label", "approval_request_id", "error", "output"),
    "mcp_list_tools": _with(_SERVER, "server_label", "tools", "error"),
    "mcp_approval_request": _with(_SERVER, "arguments", "name", "server_label"),
    "mcp_approval_response": _with(_SERVER, "approval_request_id", "approve", "reason"),
}

_DETAILS: Final = Obj({"cached_tokens?": INDEX, "cache_write_tokens?": INDEX, "reasoning_tokens?": INDEX})
_USAGE: Final = Obj(
    {
        "input_tokens": INDEX,
        "input_tokens_details?": Nullable(_DETAILS),
        "output_tokens": INDEX,
        "output_tokens_details?": Nullable(_DETAILS),
        "total_tokens": INDEX,
    }
)
RESPONSE: Final = Obj(
    {
        "id": TEXT,
        "object": OneOf(("response",), closed=True),
        "created_at": NUMBER,
        "status": OneOf(STATUSES, closed=True),
        "model": TEXT,
        "output": ListOf(Variant(ITEMS)),
        "error?": Nullable(Obj({"code": TEXT, "message": TEXT}, open=True)),
        "incomplete_details?": Nullable(Obj({"reason?": TEXT}, open=True)),
        "usage?": Nullable(_USAGE),
        "parallel_tool_calls?": Nullable(BOOL),
        "tools?": ListOf(OBJECT),
        "metadata?": Nullable(OBJECT),
        "instructions?": ANY,
        "tool_choice?": Nullable(EitherOf(OBJECT)),
    },
    open=True,
)
"""The rest are the request's own parameters, which a response repeats."""

_ITEM: Final[dict[str, Shape]] = {"item_id": TEXT, "output_index": INDEX}
_PART: Final[dict[str, Shape]] = {**_ITEM, "content_index": INDEX}
_SUMMARY: Final[dict[str, Shape]] = {**_ITEM, "summary_index": INDEX}
_DELTA: Final[dict[str, Shape]] = {"delta": TEXT, "obfuscation?": TEXT}


def _events(names: Iterable[str], fields: dict[str, Shape]) -> dict[str, Obj]:
    # A missing sequence number is a rule of its own.
    return {name: _typed({"sequence_number?": INDEX, **fields}) for name in names}


def _named(stem: str, words: str) -> list[str]:
    return [f"response.{stem}.{word}" for word in words.split()]


_LOGPROBS: Final[dict[str, Shape]] = {"logprobs?": Nullable(ListOf(OBJECT))}
_STATES: Final = ("created", "in_progress", "queued", "completed", "incomplete", "failed")
_STARTS: Final = ("added", "done")
EVENTS: Final[dict[str, Obj]] = {
    **_events([f"response.{name}" for name in _STATES], {"response": RESPONSE}),
    **_events([f"response.output_item.{name}" for name in _STARTS], {"output_index": INDEX, "item": Variant(ITEMS)}),
    **_events([f"response.content_part.{name}" for name in _STARTS], {**_PART, "part": Variant(PARTS)}),
    **_events(
        [f"response.reasoning_summary_part.{name}" for name in _STARTS], {**_SUMMARY, "part": Variant(PARTS), "status?": ANY}
    ),
    **_events(["response.output_text.delta"], {**_PART, **_DELTA, **_LOGPROBS}),
    **_events(["response.output_text.done"], {**_PART, "text": TEXT, **_LOGPROBS}),
    **_events(["response.output_text.annotation.added"], {**_PART, "annotation": OBJECT, "annotation_index": INDEX}),
    **_events(["response.refusal.delta", "response.reasoning_text.delta"], {**_PART, **_DELTA}),
    **_events(["response.refusal.done"], {**_PART, "refusal": TEXT}),
    **_events(["response.reasoning_text.done"], {**_PART, "text": TEXT}),
    **_events(["response.reasoning_summary_text.delta"], {**_SUMMARY, **_DELTA}),
    **_events(["response.reasoning_summary_text.done"], {**_SUMMARY, "text": TEXT}),
    **_events(_named("function_call_arguments", "delta") + _named("mcp_call_arguments", "delta"), {**_ITEM, **_DELTA}),
    **_events(_named("custom_tool_call_input", "delta") + _named("code_interpreter_call_code", "delta"), {**_ITEM, **_DELTA}),
    **_events(_named("function_call_arguments", "done"), {**_ITEM, "arguments": TEXT, "name?": TEXT}),
    **_events(_named("mcp_call_arguments", "done"), {**_ITEM, "arguments": TEXT}),
    **_events(_named("custom_tool_call_input", "done"), {**_ITEM, "input": TEXT}),
    **_events(_named("code_interpreter_call_code", "done"), {**_ITEM, "code": TEXT}),
    **_events(_named("web_search_call", "in_progress searching completed"), _ITEM),
    **_events(_named("file_search_call", "in_progress searching completed"), _ITEM),
    **_events(_named("code_interpreter_call", "in_progress interpreting completed"), _ITEM),
    **_events(_named("image_generation_call", "in_progress generating completed"), _ITEM),
    **_events(
        _named("image_generation_call", "partial_image"),
        {
            **_ITEM,
            "partial_image_b64": TEXT,
            "partial_image_index": INDEX,
            **{f"{name}?": ANY for name in ("background", "output_format", "quality", "size")},
        },
    ),
    **_events(_named("mcp_call", "in_progress completed failed"), _ITEM),
    **_events(_named("mcp_list_tools", "in_progress completed failed"), _ITEM),
    **_events(_named("audio", "delta") + _named("audio.transcript", "delta"), {**_DELTA, "response_id?": TEXT}),
    **_events(_named("audio", "done") + _named("audio.transcript", "done"), {"response_id?": TEXT}),
    **_events(
        ["error"], {"message?": TEXT, "code?": _NULL_TEXT, "param?": _NULL_TEXT, "error?": Obj({"message": TEXT}, open=True)}
    ),
}
