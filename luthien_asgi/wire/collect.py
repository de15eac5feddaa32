"""Collects the events of an Anthropic answer into the body of a `stream: false` response.

Strategy: a delta that is known writes the field that is its own, as the official SDKs do. What else a delta says adds to the
block where nothing is known of it: what a policy judged, and a client reads, under a name is written in no other way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.wire.anthropic_shapes import settled_fields
from luthien_asgi.wire.omissions import UNKNOWN, Omissions

__all__ = ["AnthropicCollector"]


@dataclass(slots=True)
class _Block:
    """A block as its start gave it, and what its deltas add."""

    said: dict[str, Any]
    settled: frozenset[str]
    """What only the deltas that are known write."""
    texts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Fragments by the field that they go on with."""
    json: list[str] = field(default_factory=list)
    citations: list[object] = field(default_factory=list)

    def add(self, name: str, value: object) -> None:
        """Add to a field of which nothing is known: text goes on, everything else stands in the place of what was there."""
        if name != "signature" and isinstance(value, str) and isinstance(self.said.get(name), str):
            self.texts[name].append(value)
        else:
            self.said[name] = value
            self.texts.pop(name, None)

    def whole(self) -> dict[str, Any]:
        """Return the block."""
        found = dict(self.said)
        for name, fragments in self.texts.items():
            found[name] = (found.get(name) or "") + "".join(fragments)
        if self.citations:
            found["citations"] = [*(found.get("citations") or ()), *self.citations]
        written = "".join(self.json)
        return {**found, "input": _input(written)} if written.strip() else found


class AnthropicCollector:
    """Takes events as `AnthropicFrames` does, and gives no frames but a message at the end.

    What a delta says and its block has no place for is named in `omissions`.
    """

    def __init__(self, omissions: Omissions) -> None:
        self._omissions = omissions
        self._message: dict[str, Any] = {}
        self._blocks: list[_Block] = []

    def event(self, event: Mapping[str, Any]) -> list[bytes]:
        """Add one event; there is no frame. Events that say nothing about the message are passed over."""
        if take := _EVENTS.get(event["type"]):
            take(self, event)
        return []

    def texts(self, index: int, kind: tuple[str, str], texts: Sequence[str]) -> list[bytes]:
        """Add deltas to a block; there is no frame."""
        return self.event({"type": "content_block_delta", "index": index, "delta": {"type": kind[0], kind[1]: "".join(texts)}})

    def body(self) -> dict[str, Any]:
        """Return the message."""
        message = dict(self._message)
        if message.pop("error", None):
            # A body with an error is one, whoever reads it.
            self._omissions.add(UNKNOWN)
        return {**message, "content": [block.whole() for block in self._blocks]}

    def _start(self, event: Mapping[str, Any]) -> None:
        self._message = dict(event["message"])

    def _open(self, event: Mapping[str, Any]) -> None:
        block = event["content_block"]
        self._blocks.append(_Block(dict(block), settled_fields(block)))
        served = block.get("to") if block.get("type") == "fallback" else None
        if isinstance(served, Mapping) and served.get("model"):
            # The last fallback block names the model that answered, as in the provider's own whole message.
            self._message["model"] = served["model"]

    def _delta(self, event: Mapping[str, Any]) -> None:
        block, delta = self._blocks[event["index"]], event["delta"]
        kind = delta["type"]
        if kind == "input_json_delta":
            block.json.append(delta.get("partial_json") or "")
        elif kind == _TEXT_DELTAS.get(block.said["type"]):
            block.texts[block.said["type"]].append(delta.get(block.said["type"]) or "")
        else:
            self._fields(block, delta, _WRITES.get(kind, ()))

    def _fields(self, block: _Block, delta: Mapping[str, Any], own: tuple[str, ...]) -> None:
        """Take a delta that is no fragment. `own` are the fields that its type gives whole."""
        for name, value in delta.items():
            if name == "type":
                continue
            if name not in own:
                self._further(block, name, value)
            elif name == "citation":
                block.citations.append(value)
            else:
                block.said[name] = value

    def _further(self, block: _Block, name: str, value: object) -> None:
        if name in block.settled:
            self._omissions.add(UNKNOWN)
        else:
            block.add(name, value)

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
_TEXT_DELTAS: Final[Mapping[str, str]] = {"text": "text_delta", "thinking": "thinking_delta"}
"""Blocks whose text stands under the name of their type, and the delta that goes on with it."""
_WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "citations_delta": ("citation",),
    "signature_delta": ("signature",),
    "compaction_delta": ("content", "encrypted_content"),
}
"""The fields that a delta gives whole."""


def _known(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


def _input(text: str) -> dict[str, Any]:
    """Return a tool's input. What is no JSON object is wrapped as Anthropic's documentation of fine-grained streaming advises."""
    try:
        found = jsontext.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"INVALID_JSON": text}
