"""Collects the events of an Anthropic answer into the body of a `stream: false` response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from luthien_asgi import jsontext

__all__ = ["AnthropicCollector"]


class AnthropicCollector:
    """Takes events as `AnthropicFrames` does, and gives no frames but a message at the end."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: list[dict[str, Any]] = []
        self._fragments: list[list[str]] = []

    def event(self, event: Mapping[str, Any]) -> list[bytes]:
        """Add one event; there is no frame. Events that say nothing about the message are passed over."""
        if take := _EVENTS.get(event["type"]):
            take(self, event)
        return []

    def text(self, index: int, text: str) -> list[bytes]:
        """Add text to a block; there is no frame."""
        self._fragments[index].append(text)
        return []

    def body(self) -> dict[str, Any]:
        """Return the message."""
        blocks = [_whole(block, "".join(texts)) for block, texts in zip(self._blocks, self._fragments, strict=True)]
        return {**self._message, "content": blocks}

    def _start(self, event: Mapping[str, Any]) -> None:
        self._message = dict(event["message"])

    def _open(self, event: Mapping[str, Any]) -> None:
        block = event["content_block"]
        self._blocks.append(dict(block))
        self._fragments.append([])
        served = block.get("to") if block.get("type") == "fallback" else None
        if isinstance(served, Mapping) and served.get("model"):
            # The last fallback block names the model that answered, as in the provider's own whole message.
            self._message["model"] = served["model"]

    def _delta(self, event: Mapping[str, Any]) -> None:
        index, delta = event["index"], event["delta"]
        name = _FRAGMENT_OF.get(delta["type"])
        if name is not None:
            self._fragments[index].append(delta.get(name) or "")
        else:
            _merge(self._blocks[index], delta)

    def _end(self, event: Mapping[str, Any]) -> None:
        usage = {**(self._message.get("usage") or {}), **_known(event.get("usage") or {})}
        further = {name: value for name, value in {**event["delta"], **event}.items() if name not in _NOT_FURTHER}
        self._message |= {**further, "usage": usage}


_EVENTS: Final[Mapping[str, Callable[[AnthropicCollector, Mapping[str, Any]], None]]] = {
    "message_start": AnthropicCollector._start,  # noqa: SLF001 - the class's own table
    "content_block_start": AnthropicCollector._open,  # noqa: SLF001
    "content_block_delta": AnthropicCollector._delta,  # noqa: SLF001
    "message_delta": AnthropicCollector._end,  # noqa: SLF001
}
_NOT_FURTHER: Final = frozenset({"type", "delta", "usage", "id", "model", "role", "content"})
"""Fields of a last event that are its own, or what the message has said already."""
_FRAGMENT_OF: Final[Mapping[str, str]] = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _known(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


def _merge(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add a delta that is not a fragment: a citation, a signature, or a field of a block type to come."""
    for name, value in delta.items():
        if name == "type":
            continue
        if name == "citation":
            block["citations"] = [*(block.get("citations") or []), value]
        elif name != "signature" and isinstance(value, str) and isinstance(block.get(name), str):
            block[name] += value
        else:
            block[name] = value


def _whole(block: dict[str, Any], text: str) -> dict[str, Any]:
    for name in ("text", "thinking"):
        if block["type"] == name:
            return {**block, name: (block.get(name) or "") + text}
    return {**block, "input": _input(text)} if text.strip() else block


def _input(text: str) -> dict[str, Any]:
    """Return a tool's input. What is no JSON object is wrapped as Anthropic's documentation of fine-grained streaming advises."""
    try:
        found = jsontext.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"INVALID_JSON": text}
