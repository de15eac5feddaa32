"""Requests of `POST /v1/messages`: what is accepted, and what is refused with a 400 that names it.

Checked is what this package reads. What only the provider can judge (ranges, model names, signatures) is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits
from luthien_asgi.wire.checks import (
    check_messages,
    check_parameters,
    check_parts,
    optional,
    read_object,
    refuse,
    required,
)
from luthien_asgi.wire.parameters import Shape

__all__ = ["parse", "parse_count"]

_ROLES: Final = ("user", "assistant", "system")
_PARTS: Final[Mapping[str, Sequence[tuple[str, Shape]]]] = {
    "text": (("text", "text"),),
    "thinking": (("thinking", "text"),),
    "redacted_thinking": (("data", "text"),),
    "tool_use": (("id", "text"), ("name", "text"), ("input", "object")),
    "tool_result": (("tool_use_id", "text"),),
    "image": (("source", "object"),),
    "document": (("source", "object"),),
    "search_result": (("content", "list"),),
}


def parse(body: bytes, *, limits: Limits) -> ChatRequest:
    """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
    request = parse_count(body, limits=limits)
    required(request.body, "max_tokens", "whole")
    if request.body["max_tokens"] < 1:
        refuse("max_tokens", f"must be at least 1, not {request.body['max_tokens']}")
    return request


def parse_count(body: bytes, *, limits: Limits) -> ChatRequest:
    """Check and parse the body of a request to count tokens: a chat request without `max_tokens`."""
    value = read_object(body, limits=limits)
    check_parameters(value, "anthropic")
    if value.get("system") is not None:
        check_parts(value["system"], "system", _PARTS)
    for at, message in check_messages(value, _ROLES, limits=limits):
        required(message, "content", "text or list", at)
        _check_content(message["content"], f"{at}.content")
    _check_tools(value)
    return ChatRequest(wire="anthropic", body=value)


def _check_content(content: Any, at: str) -> None:  # noqa: ANN401 - JSON
    check_parts(content, at, _PARTS)
    for place, part in enumerate(content if isinstance(content, list) else ()):
        where = f"{at}[{place}]"
        if part["type"] == "thinking":
            # Thinking of a provider that signs none comes back without: clients keep what they were sent.
            optional(part, "signature", "text", where)
        elif part["type"] == "tool_result":
            optional(part, "is_error", "flag", where)
            if part.get("content") is not None:
                check_parts(part["content"], f"{where}.content", _PARTS)
        elif part["type"] == "search_result":
            check_parts(part["content"], f"{where}.content", _PARTS)


def _check_tools(body: Mapping[str, Any]) -> None:
    for place, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") in {None, "custom"}:
            required(tool, "name", "text", f"tools[{place}]")
            required(tool, "input_schema", "object", f"tools[{place}]")
            optional(tool, "description", "text", f"tools[{place}]")
