"""Scripted answers on the OpenAI chat-completions wire, as the API itself writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, assert_never

from luthien_asgi import jsontext
from luthien_asgi.testing.parts import Answer, Part, Redacted, Refusal, Text, Thinking, ToolCall, Usage

__all__ = ["body", "error_body", "error_frame", "events", "usage_fields"]

CREATED: Final = 1_700_000_000
_WORDS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def events(answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
    """Return the event stream: role, parts, finish, usage if it was asked for, `[DONE]`."""
    asked = bool((request.get("stream_options") or {}).get("include_usage"))
    common = _identity(answer, request, "chat.completion.chunk") | ({"usage": None} if asked else {})
    chunks = [common | {"choices": [_choice(delta)]} for delta in _deltas(answer)]
    if (finish := _finish(answer)) is not None:
        chunks.append(common | {"choices": [_choice({}, finish)]})
    if asked:
        chunks.append(common | {"choices": [], "usage": usage_fields(answer.usage)})
    return [*map(_frame, chunks), b"data: [DONE]\n\n"]


def body(answer: Answer, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an answer that was not streamed."""
    choice = {"index": 0, "message": _message(answer), "logprobs": None, "finish_reason": _finish(answer)}
    return _identity(answer, request, "chat.completion") | {"choices": [choice], "usage": usage_fields(answer.usage)}


def error_body(type: str, message: str) -> dict[str, Any]:  # noqa: A002 - the field's name
    """Return the body of an error response."""
    return {"error": {"message": message, "type": type, "param": None, "code": None}}


def error_frame(type: str, message: str) -> bytes:  # noqa: A002 - the field's name
    """Return an error as an event of the stream."""
    return _frame(error_body(type, message))


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Return a usage in OpenAI's names: prompt tokens include what the cache gave and took."""
    prompt = usage.input + usage.cache_read + usage.cache_write
    fields: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": usage.output, "total_tokens": prompt + usage.output}
    return fields | ({"prompt_tokens_details": {"cached_tokens": usage.cache_read}} if usage.cache_read else {})


def _identity(answer: Answer, request: Mapping[str, Any], kind: str) -> dict[str, Any]:
    model = answer.model or request.get("model", "scripted")
    return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": CREATED, "model": model}


def _finish(answer: Answer) -> str | None:
    reason = answer.finish_reason
    return None if reason is None else _WORDS.get(reason, reason)


def _frame(value: Mapping[str, Any]) -> bytes:
    return b"data: " + jsontext.dumps(value) + b"\n\n"


def _choice(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    has_text = any(isinstance(part, Text) for part in answer.parts)
    yield {"role": "assistant", "content": "" if has_text or not calls else None, "refusal": None}
    for part in answer.parts:
        yield from _part_deltas(part, calls)


def _part_deltas(part: Part, calls: list[ToolCall]) -> Iterator[dict[str, Any]]:
    match part:
        case Text():
            yield from ({"content": fragment} for fragment in part.fragments)
        case Thinking():
            yield from ({"reasoning_content": fragment} for fragment in part.fragments)
        case Refusal():
            yield from ({"refusal": fragment} for fragment in part.fragments)
        case ToolCall():
            yield from _call_deltas(part, next(index for index, call in enumerate(calls) if call is part))
        case Redacted():
            return
        case _:
            assert_never(part)


def _call_deltas(call: ToolCall, index: int) -> Iterator[dict[str, Any]]:
    function = {"name": call.name, "arguments": ""}
    yield {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]}
    for fragment in call.fragments:
        yield {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _joined(answer, Text) or None,
        "refusal": _joined(answer, Refusal) or None,
    }
    if thinking := _joined(answer, Thinking):
        message["reasoning_content"] = thinking
    if calls := [_call(part) for part in answer.parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = calls
    return message


def _joined(answer: Answer, kind: type[Text] | type[Refusal] | type[Thinking]) -> str:
    return "".join("".join(part.fragments) for part in answer.parts if isinstance(part, kind))


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
