"""The types of the fields of Anthropic's events that the official SDKs count on.

Strategy: one table for each object, name to types; `None` among them allows the field to be absent or null, a number counts
something and is not below 0, and what is in a list is an object. An event goes on as it came, so a field with another type would
reach the client; the SDKs then fail at a place that has nothing to do with it. Fields that are not in a table, and block and
delta types that are not known, are the provider's own affair.
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
_CALL: Final[_Types] = {"id": (str,), "name": (str,), "input": (dict, None), "toolset_name": _TEXT}
_RESULT: Final[_Types] = {"tool_use_id": (str,), "content": (dict, list, str, None)}
"""What every result of a tool that ran at the provider has."""
_BLOCKS: Final[Mapping[str, _Types]] = {
    "text": {"text": _TEXT, "citations": (list, None)},
    "thinking": {"thinking": _TEXT, "signature": _TEXT},
    "redacted_thinking": {"data": (str,)},
    "tool_use": {**_CALL, "id": _TEXT, "name": _TEXT},
    "server_tool_use": _CALL,
    "mcp_tool_use": {**_CALL, "server_name": (str,)},
    "mcp_tool_listing": {"mcp_server_name": (str,), "tools": (list,)},
    "container_upload": {"file_id": (str,)},
    "fallback": {"from": (dict,), "to": (dict,)},
    "compaction": {"content": _TEXT, "encrypted_content": _TEXT, "signature": _TEXT},
}
_DELTAS: Final[Mapping[str, _Types]] = {
    "text_delta": {"text": (str,)},
    "thinking_delta": {"thinking": (str,), "estimated_tokens": _COUNT},
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
        _check(block, _RESULT)
    _check(block, _BLOCKS.get(kind, {}))
    if kind == "fallback":
        _check(block["to"], {"model": (str,)})


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
        if not all(_is(count, _COUNT) for count in counts):
            raise malformed()


def _check(holder: Mapping[str, Any], types: _Types) -> None:
    for name, allowed in types.items():
        if not _is(holder.get(name), allowed):
            raise malformed()


def _is(value: object, allowed: tuple[type | None, ...]) -> bool:
    if value is None:
        return None in allowed
    if type(value) is int:
        return int in allowed and value >= 0
    if type(value) is list:
        return list in allowed and all(type(entry) is dict for entry in value)
    return type(value) in allowed
