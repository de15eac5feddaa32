"""Turns a whole answer, the body of a call without streaming, into the chunk data that its stream would have given.

Strategy: the body is taken apart into the events of its own wire, and these go through that wire's decoder. So there is one
reader for each format, and what it keeps or leaves out is the same with and without streaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.errors import BackendError
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.faults import provider_error
from luthien_asgi.wire.split import split_chunk

__all__ = ["anthropic_body_chunks", "openai_body_chunks"]

_Data = dict[str, Any]

_NOT_UNDERSTOOD: Final = "the provider sent a malformed answer"


def openai_body_chunks(body: _Data, created: int, *, extras: bool = True) -> list[_Data]:
    """Return an OpenAI-style completion as chunk data, one part each, the usage last.

    `created`, in seconds since 1970, is for a body that gives none. Without `extras` the fields of the provider's own are left
    out: a body that LiteLLM made has fields of LiteLLM's. Raises `BackendError` for an error body, for one that is not
    understood, and for a choice without a finish reason.
    """
    if body.get("error"):
        raise provider_error(body["error"], wire="openai")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BackendError(_NOT_UNDERSTOOD)
    if type(body.get("created")) is not int or body["created"] <= 0:
        body = {**body, "created": created}
    return split_chunk({**body, "choices": [_as_delta(choice) for choice in choices]}, set(), extras=extras)


def _as_delta(choice: object) -> _Data:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise BackendError(_NOT_UNDERSTOOD)
    if not choice.get("finish_reason"):
        raise BackendError("the provider's answer has no finish reason")
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        # A whole call has no index of its own; its place in the list is what a stream would number it by.
        message = {**message, "tool_calls": [_numbered(call, index) for index, call in enumerate(calls)]}
    return {**{name: value for name, value in choice.items() if name != "message"}, "delta": message}


def _numbered(call: object, index: int) -> object:
    return {**call, "index": index} if isinstance(call, dict) else call


def anthropic_body_chunks(body: _Data, created: int) -> list[_Data]:
    """Return an Anthropic message as chunk data with the riders that its stream would have had.

    `created` is in seconds since 1970. Raises `BackendError` for an error body, for one that is not understood, and for one
    without a stop reason.
    """
    if body.get("type") == "error" or body.get("error"):
        raise provider_error(body.get("error") or {}, wire="anthropic")
    blocks = body.get("content")
    if not isinstance(blocks, list):
        raise BackendError(_NOT_UNDERSTOOD)
    if not body.get("stop_reason"):
        raise BackendError("the provider's answer has no stop reason")
    decoder, chunks = AnthropicDecoder(0, created), list[_Data]()
    for event in _message_events(body, blocks):
        decoder.take_event(event, chunks)
    return chunks


def _message_events(body: _Data, blocks: list[Any]) -> Iterator[_Data]:
    start = {**body, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(blocks):
        yield from _block_events(index, block)
    delta: _Data = {"stop_reason": body.get("stop_reason"), "stop_sequence": body.get("stop_sequence")}
    delta.update((name, body[name]) for name in ("stop_details", "container") if name in body)
    ended: _Data = {"type": "message_delta", "delta": delta, "usage": body.get("usage") or {}}
    if "context_management" in body:
        ended["context_management"] = body["context_management"]
    yield ended
    yield {"type": "message_stop"}


def _block_events(index: int, block: object) -> Iterator[_Data]:
    if not isinstance(block, dict):
        raise BackendError(_NOT_UNDERSTOOD)
    start, deltas = _taken_apart(block)
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _taken_apart(block: _Data) -> tuple[_Data, list[_Data]]:
    """Return a block as it starts in a stream, and the deltas that fill it. Results, MCP blocks and the like come whole."""
    match block.get("type"):
        case "text":
            citations = _citations(block)
            start = {**block, "text": "", "citations": []} if citations else {**block, "text": ""}
            deltas = [{"type": "citations_delta", "citation": citation} for citation in citations]
            return start, [*deltas, *_filled("text_delta", "text", block)]
        case "thinking":
            start = {**block, "thinking": "", "signature": ""}
            thinking = _filled("thinking_delta", "thinking", block)
            return start, [*thinking, *_filled("signature_delta", "signature", block)]
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            return {**block, "input": {}}, _input_deltas(block)
        case _:
            return block, []


def _citations(block: _Data) -> list[Any]:
    citations = block.get("citations") or []
    if not isinstance(citations, list):
        raise BackendError(_NOT_UNDERSTOOD)
    return citations


def _filled(kind: str, field: str, block: _Data) -> list[_Data]:
    return [{"type": kind, field: block[field]}] if block.get(field) else []


def _input_deltas(block: _Data) -> list[_Data]:
    if not block.get("input"):
        return []
    return [{"type": "input_json_delta", "partial_json": jsontext.dumps(block["input"]).decode()}]
