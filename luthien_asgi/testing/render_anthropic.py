"""Scripted answers on the Anthropic messages wire, as the API itself writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, assert_never

from luthien_asgi import jsontext
from luthien_asgi.testing.parts import Answer, Part, Redacted, Refusal, Text, Thinking, ToolCall, Usage

__all__ = ["body", "error_body", "error_frame", "events", "usage_fields"]

_WORDS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_PING: Final[Mapping[str, Any]] = {"type": "ping"}


def events(answer: Answer, request: Mapping[str, Any]) -> list[bytes]:
    """Return the event stream: message_start, a ping after the first block's start, the blocks, message_delta, message_stop."""
    shell = _shell(answer, request) | {"content": [], "stop_reason": None, "stop_sequence": None}
    start = {"type": "message_start", "message": shell | {"usage": usage_fields(answer.usage) | {"output_tokens": 1}}}
    blocks = [event for index, part in enumerate(answer.parts) for event in _block_events(part, index)]
    if blocks:
        blocks.insert(1, _PING)
    return [_frame(event) for event in (start, *blocks, *_ending(answer))]


def body(answer: Answer, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an answer that was not streamed."""
    ending = {"content": [_block(part) for part in answer.parts], "stop_reason": _stop_reason(answer), "stop_sequence": None}
    return _shell(answer, request) | ending | {"usage": usage_fields(answer.usage)}


def error_body(type: str, message: str) -> dict[str, Any]:  # noqa: A002 - the field's name
    """Return the body of an error response."""
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_scripted"}


def error_frame(type: str, message: str) -> bytes:  # noqa: A002 - the field's name
    """Return an error as an event of the stream."""
    return _frame(error_body(type, message))


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Return a usage in Anthropic's names: input tokens exclude what the cache gave and took."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }


def _shell(answer: Answer, request: Mapping[str, Any]) -> dict[str, Any]:
    model = answer.model or request.get("model", "scripted")
    return {"id": f"msg_{answer.id}", "type": "message", "role": "assistant", "model": model}


def _stop_reason(answer: Answer) -> str | None:
    if answer.finish == "auto" and any(isinstance(part, Refusal) for part in answer.parts):
        return "refusal"
    reason = answer.finish_reason
    return None if reason is None else _WORDS.get(reason, reason)


def _frame(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + jsontext.dumps(event) + b"\n\n"


def _ending(answer: Answer) -> Iterator[dict[str, Any]]:
    """Return the terminal events; an answer without a stop reason has none."""
    if (reason := _stop_reason(answer)) is not None:
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": usage_fields(answer.usage)}
        yield {"type": "message_stop"}


def _block_events(part: Part, index: int) -> Iterator[Mapping[str, Any]]:
    yield {"type": "content_block_start", "index": index, "content_block": _opened(part)}
    yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(part))
    yield {"type": "content_block_stop", "index": index}


def _opened(part: Part) -> dict[str, Any]:
    match part:
        case Text() | Refusal():
            return {"type": "text", "text": ""}
        case Thinking():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
        case Redacted():
            return _block(part)
        case _:
            assert_never(part)


def _deltas(part: Part) -> Iterator[dict[str, Any]]:
    match part:
        case Text() | Refusal():
            yield from ({"type": "text_delta", "text": fragment} for fragment in part.fragments)
        case Thinking():
            yield from ({"type": "thinking_delta", "thinking": fragment} for fragment in part.fragments)
            if part.signature:
                yield {"type": "signature_delta", "signature": part.signature}
        case ToolCall():
            yield from ({"type": "input_json_delta", "partial_json": fragment} for fragment in ("", *part.fragments))
        case Redacted():
            return
        case _:
            assert_never(part)


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Text() | Refusal():
            return {"type": "text", "text": "".join(part.fragments)}
        case Thinking():
            return {"type": "thinking", "thinking": "".join(part.fragments), "signature": part.signature}
        case ToolCall():
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": jsontext.loads(part.text or "{}")}
        case Redacted():
            return {"type": "redacted_thinking", "data": part.data}
        case _:
            assert_never(part)
