"""The rules of the Anthropic messages wire, for a stream and for a body.

Strategy: one handler an event, chosen by dict; what is known of the answer is which block is open and what came before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.testing.framing import Frame
from luthien_asgi.testing.reading_events import Grown, check_name, is_json_object, read_event
from luthien_asgi.testing.shapes_anthropic import BLOCKS, DELTAS, EVENTS, MESSAGE
from luthien_asgi.testing.violations import Place, Sink, quoted

__all__ = ["AnthropicGrammar", "check_anthropic_body", "check_anthropic_error"]

_FITTING: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"text_delta", "citations_delta"}),
    "thinking": frozenset({"thinking_delta", "signature_delta"}),
    "compaction": frozenset({"compaction_delta"}),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), frozenset({"input_json_delta"})),
}
"""Every other block that is known comes whole in its start."""
_INPUT_COUNTS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_CUT_OFF: Final = frozenset({"max_tokens", "model_context_window_exceeded", "refusal"})
_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_NOT_AFTER_TOOL: Final = frozenset({"text", "thinking", "redacted_thinking"})


@dataclass(slots=True)
class _Block:
    type: str
    index: int
    name: str = ""
    text: int = 0
    signed: bool = False
    json: Grown = field(default_factory=Grown)


class _Content:
    """What is known of an answer's blocks, streamed or whole."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.blocks: list[dict[str, Any]] = []
        self._ids: set[str] = set()
        self.calls = 0
        self.unparsed: tuple[Place, str] | None = None

    def begin(self, block: Mapping[str, Any]) -> _Block:
        kind = _text(block.get("type"))
        if self.calls and kind in _NOT_AFTER_TOOL:
            self._sink.report("after-tool", f"a {kind} block after a tool_use block")
        self.calls += kind == "tool_use"
        if kind in _CALLS:
            call = quoted(block.get("id"))
            self._sink.require(call not in self._ids, "tool-id", f"two calls have the id {call}")
            self._ids.add(call)
        return _Block(kind, len(self.blocks), _text(block.get("name")))

    def stop(self, block: _Block) -> None:
        self._flush()
        sink = self._sink
        if block.type == "text":
            sink.require(block.text, "empty-text", "a text block without text")
        elif block.type == "thinking":
            sink.require(block.signed, "unsigned", "a thinking block without a signature")
        elif block.type in _CALLS and (text := block.json.text) and not is_json_object(text):
            self.unparsed = (sink.place, f"the input of {quoted(block.name)} is no JSON object: {quoted(text)}")
        self.blocks.append({"type": block.type, **({"name": block.name} if block.name else {}), "characters": block.text})

    def _flush(self) -> None:
        if self.unparsed is not None:
            place, message = self.unparsed
            self._sink.report("tool-json", message, place=place)
            self.unparsed = None

    def ended(self, said: Mapping[str, Any]) -> None:
        """Compare what the end says with what came. The last call's input may be cut off where the answer was."""
        sink, reason, sequence = self._sink, said.get("stop_reason"), said.get("stop_sequence")
        if isinstance(reason, str) and reason in _CUT_OFF:
            self.unparsed = None
        self.over()
        if not isinstance(reason, str):
            sink.report("stop-reason", f"stop_reason is {quoted(reason)}")
        elif reason == "tool_use" and not self.calls:
            sink.report("tool-stop", "stop_reason is tool_use, and there is no tool_use block")
        elif reason == "end_turn" and self.calls:
            sink.report("tool-stop", "stop_reason is end_turn, and there is a tool_use block")
        if (reason == "stop_sequence") != isinstance(sequence, str):
            sink.report("stop-sequence", f"stop_reason is {quoted(reason)}, stop_sequence is {quoted(sequence)}")

    def over(self) -> None:
        """The answer is over, with or without an end."""
        self._flush()


class AnthropicGrammar:
    """The rules over one stream."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._content = _Content(sink)
        self._message: Mapping[str, Any] = {}
        self._began = False
        self._open: _Block | None = None
        self._delta: Mapping[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        self._ended = ""
        self._error: Any = None

    def take(self, frame: Frame) -> None:
        """Take an event."""
        event = read_event(frame, self._sink)
        if event is None:
            return
        check_name(frame, event, self._sink)
        kind = event.get("type")
        if self._ended:
            self._sink.report("after-end", f"{quoted(kind)} after {self._ended}")
        elif not isinstance(kind, str) or kind not in EVENTS:
            self._sink.report("unknown-type", f"an event of type {quoted(kind)}, which the protocol does not know")
        else:
            EVENTS[kind].check(event, "", self._sink)
            self._order(kind)
            _HANDLERS[kind](self, event)

    def end(self) -> None:
        """The stream is over."""
        self._content.over()
        if not self._ended:
            self._sink.report("not-ended", "the stream ends without message_stop and without an error event")

    def summary(self) -> Mapping[str, Any]:
        """Return what the stream held."""
        reason = (self._delta or {}).get("stop_reason")
        return {
            "id": self._message.get("id"),
            "model": self._message.get("model"),
            "blocks": self._content.blocks,
            "stop_reason": reason,
            "usage": self._usage or None,
            "error": self._error,
            "ended": self._ended or "cut off",
        }

    def _order(self, kind: str) -> None:
        if kind in {"ping", "error"}:
            return
        if not self._began and kind != "message_start":
            self._sink.report("message-first", f"{kind} before message_start")
            self._began = True
        if self._delta is not None and kind not in {"message_stop", "message_delta"}:
            self._sink.report("after-message-delta", f"{kind} after message_delta")

    # --- one handler an event -----------------------------------------------------------------------------------------------

    def _message_start(self, event: Mapping[str, Any]) -> None:
        self._sink.require(not self._began, "message-twice", "message_start again")
        self._began = True
        message = event.get("message")
        if not isinstance(message, dict):
            return
        self._message = self._message or message
        self._add_usage(message)
        counted = any(self._usage.get(name) for name in _INPUT_COUNTS)
        self._sink.require(counted or not self._usage, "usage-zero", "message_start says that the input has no tokens")
        fresh = message.get("content") == [] and message.get("stop_reason") is None
        self._sink.require(fresh, "message-fresh", "message_start has content or a stop reason")

    def _block_start(self, event: Mapping[str, Any]) -> None:
        index, block = event.get("index"), event.get("content_block")
        if self._open is not None:
            self._sink.report("block-overlap", f"block {quoted(index)} starts while block {self._open.index} is open")
            self._content.stop(self._open)
        if index != len(self._content.blocks):
            self._sink.report("block-index", f"block {quoted(index)} starts after {len(self._content.blocks)} blocks")
        block = block if isinstance(block, dict) else {}
        self._open = self._content.begin(block)
        self._open.index = index if isinstance(index, int) else self._open.index
        for name in ("text", "thinking", "signature", "input"):
            if block.get(name):
                self._sink.report("block-fresh", f"the block starts with {name} {quoted(block[name])}")
        self._open.text += _length(block.get("text")) + _length(block.get("thinking"))
        self._open.signed = bool(block.get("signature"))

    def _block_delta(self, event: Mapping[str, Any]) -> None:
        block, delta = self._block_of(event, "a delta"), event.get("delta")
        kind = delta.get("type") if isinstance(delta, dict) else None
        if block is None or not isinstance(delta, dict) or not isinstance(kind, str) or kind not in DELTAS:
            return
        if block.type in BLOCKS and kind not in _FITTING.get(block.type, ()):
            self._sink.report("delta-fits", f"{kind} in a {quoted(block.type)} block")
            return
        if block.type == "thinking" and block.signed:
            self._sink.report("signature", f"{kind} after the block's signature")
        block.signed = block.signed or kind == "signature_delta"
        block.text += sum(_length(delta.get(name)) for name in ("text", "thinking", "partial_json", "content"))
        block.json.add(delta.get("partial_json"))

    def _block_stop(self, event: Mapping[str, Any]) -> None:
        block = self._block_of(event, "the stop")
        if block is not None:
            self._content.stop(block)
            self._open = None

    def _block_of(self, event: Mapping[str, Any], what: str) -> _Block | None:
        index = event.get("index")
        if self._open is not None and self._open.index == index:
            return self._open
        opened = "none" if self._open is None else f"block {quoted(self._open.index)}"
        self._sink.report("block-not-open", f"{what} of block {quoted(index)}, and {opened} is open")
        return None

    def _message_delta(self, event: Mapping[str, Any]) -> None:
        again, delta = self._delta is not None, event.get("delta")
        self._sink.require(not again, "message-delta", "message_delta again")
        self._sink.require(isinstance(event.get("usage"), dict), "usage-missing", "message_delta without usage")
        self._delta = delta if isinstance(delta, dict) else {}
        self._add_usage(event)
        if self._open is not None:
            self._sink.report("block-unstopped", f"message_delta while block {quoted(self._open.index)} is open")
            self._content.stop(self._open)
            self._open = None
        if not again:
            self._content.ended(self._delta)

    def _message_stop(self, event: Mapping[str, Any]) -> None:
        self._sink.require(self._delta is not None, "message-delta", f"{event['type']} without message_delta")
        self._ended = "message_stop"

    def _take_error(self, event: Mapping[str, Any]) -> None:
        self._ended, self._error = "an error", event.get("error")

    def _ignore(self, event: Mapping[str, Any]) -> None:
        del event

    def _add_usage(self, holder: Mapping[str, Any]) -> None:
        usage = holder.get("usage")
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}


_HANDLERS: Final[Mapping[str, Callable[[AnthropicGrammar, Mapping[str, Any]], None]]] = {
    "message_start": AnthropicGrammar._message_start,  # noqa: SLF001 - the class's own table
    "content_block_start": AnthropicGrammar._block_start,  # noqa: SLF001
    "content_block_delta": AnthropicGrammar._block_delta,  # noqa: SLF001
    "content_block_stop": AnthropicGrammar._block_stop,  # noqa: SLF001
    "message_delta": AnthropicGrammar._message_delta,  # noqa: SLF001
    "message_stop": AnthropicGrammar._message_stop,  # noqa: SLF001
    "error": AnthropicGrammar._take_error,  # noqa: SLF001
    "ping": AnthropicGrammar._ignore,  # noqa: SLF001
}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else 0


def check_anthropic_error(body: Mapping[str, Any], sink: Sink) -> None:
    """Check an error's body."""
    EVENTS["error"].check(body, "", sink)


def check_anthropic_body(body: Mapping[str, Any], sink: Sink) -> Mapping[str, Any]:
    """Check a `message` and return what it held."""
    MESSAGE.check(body, "", sink)
    content = _Content(sink)
    said = body.get("content")
    for block in said if isinstance(said, list) else []:
        if isinstance(block, dict):
            begun = content.begin(block)
            begun.text = _length(block.get("text")) + _length(block.get("thinking"))
            begun.signed = bool(block.get("signature"))
            content.stop(begun)
    content.ended(body)
    shown = {name: body.get(name) for name in ("id", "model", "stop_reason", "usage")}
    return {**shown, "blocks": content.blocks, "error": None, "ended": "whole"}
