"""Reads an Anthropic messages stream, event by event: one event, one chunk.

What the common format has no field for rides along as the event itself (`provider_specific_fields["anthropic"]`), so that nothing
is lost on the same wire.

Deliberate differences from the bytes:

1. A second `message_start` is ignored: the official SDK for Python does the same, that for TypeScript gives up.
2. Arguments that stand in the start of a tool_use block, with no fragments after it, come as one fragment before its close.
3. A block that the provider left open (`max_tokens` inside a tool call) is closed before the next block or the `message_delta`.
4. A choice has one finish reason: of several `message_delta` the first stop reason counts, all events ride along.
5. A stream without `message_stop` is complete if a stop reason came; one with `message_stop` but no stop reason is not.
6. A ping, a comment and an event without data is a chunk without choices: a sign of life.

What would break the official SDKs is malformed and ends the answer: a field of `luthien_asgi.wire.anthropic_shapes` with another
type, a delta in a block that it does not fit, and a thinking block that goes on after its signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Part
from luthien_asgi.errors import BackendError
from luthien_asgi.extras import is_terse
from luthien_asgi.wire.anthropic_shapes import check_block, check_delta, check_message, check_message_delta
from luthien_asgi.wire.decoding import ChunkData, EventDecoder, is_done, parse
from luthien_asgi.wire.faults import error_fields, malformed, provider_error
from luthien_asgi.wire.sse import SSEEvent
from luthien_asgi.wire.usage import FINISH_REASON_OF_STOP_REASON

__all__ = ["AnthropicDecoder"]

_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {"text": "text", "thinking": "thinking", "redacted_thinking": "redacted_thinking", "tool_use": "tool_call"}
)
_FITTING: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "text_delta": (str(BlockKind.TEXT), "text"),
        "input_json_delta": (str(BlockKind.TOOL_CALL), "partial_json"),
        "thinking_delta": (str(BlockKind.THINKING), "thinking"),
        "signature_delta": (str(BlockKind.THINKING), "signature"),
    }
)
"""The kind of block that a delta type fits, and the field that holds its text."""

_CACHE_COUNTS: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")

_FRAGMENTS: Final = frozenset({"text_delta", "input_json_delta", "thinking_delta"})
"""The delta types of which there are many, one like the other."""
_BARE_RIDER: Final = 3
"""What a rider holds without an event."""
_WHOLE_DELTA: Final = 2
"""A delta of two keys (its type and its text) has nothing that the standard fields do not hold."""
_WHOLE_EVENT: Final = 3
"""So has an event of three: type, index and delta."""


@dataclass(slots=True)
class _OpenBlock:
    kind: str
    said: Mapping[str, Any]
    """What its start said."""
    tool: int = 0
    pending: Any = None
    """A tool's arguments from its start, until a fragment comes."""
    signed: bool = False


class AnthropicDecoder(EventDecoder):
    """Bytes of one Anthropic stream in, chunk data out. `created` is seconds since 1970: this wire has no time of its own."""

    def __init__(self, frame_bytes: int, created: int) -> None:
        super().__init__(frame_bytes)
        self._id = ""
        self._model = ""
        self._created = created
        self._started = False
        self._stopped = False
        self._blocks: dict[int, _OpenBlock] = {}
        self._tools = 0
        self._usage: dict[str, Any] = {}

    def _take(self, event: SSEEvent, chunks: list[ChunkData]) -> None:
        data = event.data
        if not data or is_done(data):
            chunks.append(self._bare())
            return
        parsed = parse(data)
        if event.event == "error" or (parsed.get("error") and "type" not in parsed):
            raise provider_error(parsed.get("error") or error_fields(parsed), wire="anthropic")
        if "type" not in parsed and event.event:
            parsed = {"type": event.event, **parsed}
        self.take_event(parsed, chunks)

    def take_event(self, event: ChunkData, chunks: list[ChunkData]) -> None:
        """Append what one event gives, as parsed JSON. Raises `BackendError` for an error event and for one that is malformed."""
        kind = event.get("type")
        if kind == "content_block_delta":
            self._block_delta(event, chunks)
        elif kind == "content_block_start":
            self._block_start(event, chunks)
        elif kind == "content_block_stop":
            self._block_stop(event, chunks)
        else:
            self._message_event(kind, event, chunks)

    def _message_event(self, kind: object, event: ChunkData, chunks: list[ChunkData]) -> None:
        match kind:
            case "message_start":
                self._message_start(event, chunks)
            case "message_delta":
                self._message_delta(event, chunks)
            case "message_stop":
                self._end(chunks)
            case "ping":
                chunks.append(self._bare())
            case "error":
                raise provider_error(event.get("error") or {}, wire="anthropic")
            case str():
                chunks.append({**self._bare(), "provider_specific_fields": {"anthropic": event}})
            case _:
                raise malformed()

    def _message_start(self, event: ChunkData, chunks: list[ChunkData]) -> None:
        if self._started:
            return
        message = _mapping(event.get("message"))
        check_message(message)
        self._started = True
        self._id, self._model = _name(message.get("id")), _name(message.get("model"))
        self._usage.update(_counts(message.get("usage")))
        chunks.append(self._chunk({"role": "assistant"}, {"anthropic": event}))

    def _block_start(self, event: ChunkData, chunks: list[ChunkData]) -> None:
        content, index = _mapping(event.get("content_block")), _index(event)
        if not self._started or index in self._blocks:
            raise malformed()
        check_block(content)
        kind = _KINDS.get(content["type"], "other")
        for left_open in list(self._blocks):
            self._close(left_open, chunks)
        block = self._blocks[index] = _OpenBlock(kind, content)
        rider = {"kind": kind, "phase": "open", "index": index, "anthropic": event}
        chunks.append(self._chunk(self._opening(content, block), rider))

    def _opening(self, content: ChunkData, block: _OpenBlock) -> ChunkData:
        match block.kind:
            case "text":
                return {"content": _text(content.get("text"))}
            case "thinking":
                block.signed = bool(content.get("signature"))
                return _thinking(_text(content.get("thinking")), _text(content.get("signature")))
            case "redacted_thinking":
                return {"thinking_blocks": [{"type": "redacted_thinking", "data": _text(content.get("data"))}]}
            case "tool_call":
                return self._tool_opening(content, block)
            case _:
                return {}

    def _tool_opening(self, content: ChunkData, block: _OpenBlock) -> ChunkData:
        block.tool, block.pending = self._tools, content.get("input") or None
        self._tools += 1
        function = {"name": _text(content.get("name")), "arguments": ""}
        return {"tool_calls": [{"index": block.tool, "id": _text(content.get("id")), "type": "function", "function": function}]}

    def _block_delta(self, event: ChunkData, chunks: list[ChunkData]) -> None:
        index, delta = event.get("index"), event.get("delta")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or type(delta) is not dict:
            raise malformed()
        rider = {"kind": block.kind, "phase": "delta", "index": index}
        fields = _delta_fields(block, delta)
        if not fields or len(delta) != _WHOLE_DELTA or len(event) != _WHOLE_EVENT:
            rider["anthropic"] = event
        chunks.append(self._chunk(fields, rider))
        if len(rider) == _BARE_RIDER and delta["type"] in _FRAGMENTS:
            self._expect_like(block, rider, delta)

    def _expect_like(self, block: _OpenBlock, rider: ChunkData, delta: ChunkData) -> None:
        """Expect more fragments like this one."""
        type_ = delta["type"]
        kind, name = _FITTING[type_]
        like = dict(rider)  # the chunk has that one, and who gets the chunk may change it

        def data(text: str, _: str) -> ChunkData:
            return self._chunk(_fragment(type_, text, block.tool), dict(like))

        if delta[name]:
            self._expect(name, delta[name], Part(kind=BlockKind(kind), source=like["index"]), data)

    def _block_stop(self, event: ChunkData, chunks: list[ChunkData]) -> None:
        index = _index(event)
        if index in self._blocks:
            self._close(index, chunks)

    def _close(self, index: int, chunks: list[ChunkData]) -> None:
        block = self._blocks.pop(index)
        if block.pending is not None:
            fields = _fragment("input_json_delta", jsontext.dumps(block.pending).decode(), block.tool)
            chunks.append(self._chunk(fields, {"kind": block.kind, "phase": "delta", "index": index}))
        chunks.append(self._chunk({}, {"kind": block.kind, "phase": "close", "index": index}))

    def _message_delta(self, event: ChunkData, chunks: list[ChunkData]) -> None:
        if not self._started:
            raise malformed()
        check_message_delta(event)
        for index in list(self._blocks):
            self._close(index, chunks)
        stop_reason = (event.get("delta") or {}).get("stop_reason")
        finish = FINISH_REASON_OF_STOP_REASON.get(stop_reason, "stop") if stop_reason and not self._stopped else None
        self._stopped = self._stopped or bool(stop_reason)
        self._usage.update(_counts(event.get("usage")))
        chunk = self._chunk({}, {"anthropic": event}, finish)
        if self._usage:
            chunk["usage"] = _openai_usage(self._usage)
        chunks.append(chunk)

    def _end(self, chunks: list[ChunkData]) -> None:
        del chunks
        if not self._stopped:
            raise BackendError("the provider's stream ended without a stop reason")
        self._finished = True

    def _bare(self) -> ChunkData:
        return {"id": self._id, "created": self._created, "model": self._model, "choices": []}

    def _chunk(self, delta: ChunkData, rider: ChunkData, finish: str | None = None) -> ChunkData:
        return {
            "id": self._id,
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
            "provider_specific_fields": rider,
        }


def _delta_fields(block: _OpenBlock, delta: ChunkData) -> ChunkData:
    """Return a delta in the common format's fields; empty where it has none. Raises `BackendError` for one that does not fit."""
    kind = delta.get("type")
    if type(kind) is not str:
        raise malformed()
    fitting = _FITTING.get(kind)
    if fitting is None or block.kind == "other":
        check_delta(delta, block.said["type"])
        if fitting is not None and kind != "input_json_delta" and not isinstance(block.said.get(fitting[1]), str):
            raise malformed()
        return {}
    text = delta.get(fitting[1])
    if block.kind != fitting[0] or type(text) is not str:
        raise malformed()
    if len(delta) > _WHOLE_DELTA:
        check_delta(delta, block.said["type"])
    if block.signed and block.kind == BlockKind.THINKING:
        raise malformed()
    if kind == "signature_delta":
        block.signed = True
        return {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": text}]}
    if kind == "input_json_delta" and text:
        block.pending = None
    return _fragment(kind, text, block.tool)


def _fragment(kind: str, text: str, tool: int) -> ChunkData:
    """Return one fragment of a block in the common format's fields; `tool` is the number of a call among its like."""
    if kind == "input_json_delta":
        return {"tool_calls": [{"index": tool, "function": {"arguments": text}}]}
    return {"content": text} if kind == "text_delta" else _thinking(text, None)


def _thinking(text: str, signature: str | None) -> ChunkData:
    block = {"type": "thinking", "thinking": text}
    if signature is not None:
        block["signature"] = signature
    return {"reasoning_content": text, "thinking_blocks": [block]}


def _counts(usage: object) -> ChunkData:
    """Return the token counts that a usage object gives. Those of a `message_delta` are cumulative and replace earlier ones."""
    if not isinstance(usage, dict):
        return {}
    counts = {name: usage[name] for name in ("input_tokens", "output_tokens", *_CACHE_COUNTS) if type(usage.get(name)) is int}
    details = usage.get("output_tokens_details")
    thought = details.get("thinking_tokens") if isinstance(details, dict) else None
    return counts | ({"thinking_tokens": thought} if type(thought) is int else {})


def _openai_usage(usage: Mapping[str, int]) -> ChunkData:
    """Return the counts with OpenAI's names, whose prompt includes the cache; the cache's own counts where they are known."""
    read, written = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
    prompt, completion = usage.get("input_tokens", 0) + read + written, usage.get("output_tokens", 0)
    known: ChunkData = {name: usage[name] for name in _CACHE_COUNTS if name in usage}
    details = {"cached_tokens": read} | ({"cache_write_tokens": written} if written else {})
    if "thinking_tokens" in usage:
        known["completion_tokens_details"] = {"reasoning_tokens": usage["thinking_tokens"]}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        **known,
    }


def _index(event: ChunkData) -> int:
    index = event.get("index")
    if type(index) is not int:
        raise malformed()
    return index


def _mapping(value: object) -> ChunkData:
    if not isinstance(value, dict):
        raise malformed()
    return value


def _name(value: object) -> str:
    """Return an id or a name; a sentence is none."""
    text = _text(value)
    return text if is_terse(text) else ""


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed()
    return value
