"""Anthropic requests whose history has thinking that nobody signed, or none where there has to be some.

A model of another provider thinks without a signature or not at all, its Anthropic client keeps what it got and sends it back;
and the next model of the conversation may be a Claude, whose API takes signed thinking only, and wants some in front of the calls
that are being answered. What it would refuse is left out here, with notice. Any other history goes on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.conversion import Converted, unconverted

__all__ = ["signed_only"]

_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
_CLEARS_THINKING: Final = "clear_thinking_20251015"

Message = Mapping[str, Any]


def signed_only(request: ChatRequest) -> Converted:
    """Return an Anthropic request as it is, but for unsigned thinking.

    Where the turn that is being answered called a tool and has no thinking left in front, thinking with a budget is off: the API
    wants both or none.
    """
    before = list(request.body.get("messages") or ())
    after = [_signed(message) for message in before]
    ignored: list[str] = []
    params = dict(request.body)
    if after != before:
        params["messages"] = [message for message in after if message.get("content")]
        ignored.append("messages[].content[].thinking")
    if _has_budget(params) and _calls_without_thinking(params.get("messages") or []):
        del params["thinking"]
        ignored.append("thinking")
        ignored += _without_clearing(params)
    return Converted(params, tuple(ignored)) if ignored else unconverted(request)


def _signed(message: Message) -> Message:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return message
    kept = [block for block in content if block.get("type") != "thinking" or block.get("signature")]
    return message if len(kept) == len(content) else {**message, "content": kept}


def _has_budget(params: Mapping[str, Any]) -> bool:
    return (params.get("thinking") or {}).get("type") == "enabled"


def _calls_without_thinking(messages: list[Message]) -> bool:
    """Tell whether the last assistant turn (messages in a row are one) calls a tool and does not begin with thinking."""
    last = max((place for place, message in enumerate(messages) if message.get("role") == "assistant"), default=-1)
    first = last
    while first > 0 and messages[first - 1].get("role") == "assistant":
        first -= 1
    blocks = [block for message in messages[first : last + 1] for block in _blocks(message)]
    kinds = [block.get("type") for block in blocks]
    return "tool_use" in kinds and kinds[0] not in _THINKING


def _blocks(message: Message) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text"}]


def _without_clearing(params: dict[str, Any]) -> list[str]:
    """Leave out the edits that clear thinking, which the API takes only while it is on; return what is to be noticed."""
    management = params.get("context_management") or {}
    edits = management.get("edits") or []
    kept = [edit for edit in edits if not isinstance(edit, dict) or edit.get("type") != _CLEARS_THINKING]
    if len(kept) == len(edits):
        return []
    params["context_management"] = {**management, "edits": kept}
    if not kept:
        del params["context_management"]
    return ["context_management"]
