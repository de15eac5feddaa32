"""The types of the fields of Anthropic's events that the official SDKs count on.

Strategy: one table for each object, name to types; `None` among them allows the field to be absent or null. An event goes on as
it came, so a field with another type would reach the client; the SDKs then fail at a place that has nothing to do with it. Fields
that are not in a table, and block and delta types that are not known, are the provider's own affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.wire.faults import malformed

__all__ = ["check_block", "check_delta", "check_message", "check_message_delta", "settled_fields"]

_Types = Mapping[str, tuple[type | None, ...]]

_TEXT: Final = (str, None)
_COUNT: Final = (int, None)

_MESSAGE: Final[_Types] = {
    "id": _TEXT,
    "model": _TEXT,
    "usage": (dict, None),
    "stop_details": (dict, None),
    "container": (dict, None),
}
_MESSAGE_DELTA: Final[_Types] = {"delta": (dict, None), "usage": (dict, None)}
_DELTA: Final[_Types] = {"stop_reason": _TEXT, "stop_sequence": _TEXT, "stop_details": (dict, None), "container": (dict, None)}
_USAGE: Final[_Types] = {
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "cache_creation_input_tokens": _COUNT,
    "cache_read_input_tokens": _COUNT,
    "cache_creation": (dict, None),
    "server_tool_use": (dict, None),
    "output_tokens_details": (dict, None),
    "iterations": (list, None),
}
_LABELS: Final[_Types] = {"service_tier": _TEXT, "inference_geo": _TEXT}
"""What else stands in a usage."""
_CALL: Final[_Types] = {"id": (str,), "name": (str,), "input": (dict, None)}
_RESULT: Final[_Types] = {"tool_use_id": (str,), "content": (dict, list, str, None)}
"""What every result of a tool that ran at the provider has."""
_BLOCKS: Final[Mapping[str, _Types]] = {
    "text": {"text": _TEXT, "citations": (list, None)},
    "thinking": {"thinking": _TEXT, "signature": _TEXT},
    "redacted_thinking": {"data": (str,)},
    "tool_use": {**_CALL, "id": _TEXT, "name": _TEXT},
    "server_tool_use": _CALL,
    "mcp_tool_use": _CALL,
    "fallback": {"from": (dict,), "to": (dict,)},
    "compaction": {"content": _TEXT, "encrypted_content": _TEXT},
}
_DELTAS: Final[Mapping[str, _Types]] = {
    "text_delta": {"text": (str,)},
    "thinking_delta": {"thinking": (str,)},
    "signature_delta": {"signature": (str,)},
    "input_json_delta": {"partial_json": (str,)},
    "citations_delta": {"citation": (dict,)},
    "compaction_delta": {"content": _TEXT, "encrypted_content": _TEXT},
}
_WHOLE: Final = (
    "redacted_thinking",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
    "mcp_tool_result",
    "mcp_tool_listing",
    "container_upload",
    "fallback",
)
"""Blocks that come whole in their start."""
_DELTAS_OF: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"text_delta", "citations_delta"}),
    "thinking": frozenset({"thinking_delta", "signature_delta"}),
    "compaction": frozenset({"compaction_delta"}),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), frozenset({"input_json_delta"})),
    **dict.fromkeys(_WHOLE, frozenset[str]()),
}
"""The deltas that fit a block, of those that are known; a delta or a block of the future fits everything."""


def check_message(message: Mapping[str, Any]) -> None:
    """Check the message of a `message_start`. Raises `BackendError`, as all of these."""
    _check(message, _MESSAGE)
    _check_usage(message.get("usage") or {})


def check_block(block: Mapping[str, Any]) -> None:
    """Check the `content_block` of a start."""
    kind = block.get("type")
    if not isinstance(kind, str) or not kind:
        raise malformed()
    if kind.endswith("_tool_result"):
        _check_result(block)
    _check(block, _BLOCKS.get(kind, {}))
    if kind == "fallback":
        _check(block["to"], {"model": (str,)})
    if kind == "text" and not all(isinstance(citation, dict) for citation in block.get("citations") or ()):
        raise malformed()


def _check_result(block: Mapping[str, Any]) -> None:
    _check(block, _RESULT)
    parts = block.get("content")
    if isinstance(parts, list) and not all(isinstance(part, dict) for part in parts):
        raise malformed()


def check_delta(delta: Mapping[str, Any], block: str) -> None:
    """Check the `delta` of a block of that type."""
    kind = delta.get("type")
    if type(kind) is not str or (kind in _DELTAS and kind not in _DELTAS_OF.get(block, _DELTAS)):
        raise malformed()
    _check(delta, _DELTAS.get(kind, {}))


def settled_fields(block: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a block that only deltas which are known write: all that one of a known type has, or may have."""
    kind = block["type"]
    return frozenset((*block, *_BLOCKS.get(kind, {}))) if kind in _DELTAS_OF else frozenset()


def check_message_delta(event: Mapping[str, Any]) -> None:
    """Check a `message_delta` event."""
    _check(event, _MESSAGE_DELTA)
    _check(event.get("delta") or {}, _DELTA)
    _check_usage(event.get("usage") or {})


def _check_usage(usage: Mapping[str, Any]) -> None:
    _check(usage, _USAGE)
    _check(usage, _LABELS)
    for name in _USAGE:
        value = usage.get(name)
        counts = value.values() if type(value) is dict else () if type(value) is list else (value,)
        if not all(count is None or (type(count) is int and count >= 0) for count in counts):
            raise malformed()


def _check(holder: Mapping[str, Any], types: _Types) -> None:
    for name, allowed in types.items():
        value = holder.get(name)
        if (type(value) if value is not None else None) not in allowed:
            raise malformed()
