"""Requests of `POST /v1/chat/completions`: what is accepted, and what is refused with a 400 that names it.

Checked is what this package reads. What only the provider can judge (ranges, model names, sizes of images) is left to it.
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
    expect,
    optional,
    read_object,
    refuse,
    required,
)
from luthien_asgi.wire.parameters import Shape

__all__ = ["parse", "parse_count"]

_ROLES: Final = ("developer", "system", "user", "assistant", "tool", "function")
_MAY_BE_SILENT: Final = frozenset({"assistant", "tool", "function"})
_PARTS: Final[Mapping[str, Sequence[tuple[str, Shape]]]] = {
    "text": (("text", "text"),),
    "refusal": (("refusal", "text"),),
    "image_url": (("image_url", "text or object"),),
    "input_audio": (("input_audio", "object"),),
    "file": (("file", "object"),),
}
_INNER: Final[Mapping[str, Sequence[tuple[str, Shape]]]] = {
    "function": (("name", "text"), ("arguments", "text")),
    "custom": (("name", "text"), ("input", "text")),
}


def parse(body: bytes, *, limits: Limits) -> ChatRequest:
    """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
    value = read_object(body, limits=limits)
    check_parameters(value, "openai")
    for at, message in check_messages(value, _ROLES, limits=limits):
        _check_message(message, at)
    _check_tools(value)
    _at_least_one(value, ("n", "max_tokens", "max_completion_tokens"))
    if (value.get("n") or 1) > limits.choices:
        refuse("n", f"asks for {value['n']} choices, more than {limits.choices} (choices)")
    return ChatRequest(wire="openai", body=value)


def parse_count(body: bytes, *, limits: Limits) -> ChatRequest:
    """Check and parse the body of a request to count tokens: a chat request."""
    return parse(body, limits=limits)


def _check_message(message: Mapping[str, Any], at: str) -> None:
    content = message.get("content")
    if content is not None or message["role"] not in _MAY_BE_SILENT:
        required(message, "content", "text or list", at)
        check_parts(content, f"{at}.content", _PARTS)
    for field in ("refusal", "name"):
        optional(message, field, "text", at)
    for field in ("tool_calls", "thinking_blocks"):
        optional(message, field, "list", at)
    for place, call in enumerate(message.get("tool_calls") or ()):
        _check_call(call, f"{at}.tool_calls[{place}]")
    optional(message, "function_call", "object", at)
    if message.get("function_call") is not None:
        _check_inner(message["function_call"], "function", f"{at}.function_call")
    if message["role"] == "tool":
        required(message, "tool_call_id", "text", at)


def _check_call(call: Any, at: str) -> None:  # noqa: ANN401 - JSON
    expect(call, "object", at)
    required(call, "id", "text", at)
    kind = "custom" if call.get("custom") is not None else "function"
    required(call, kind, "object", at)
    _check_inner(call[kind], kind, f"{at}.{kind}")


def _check_inner(inner: Mapping[str, Any], kind: str, at: str) -> None:
    for field, shape in _INNER[kind]:
        required(inner, field, shape, at)


def _check_tools(body: Mapping[str, Any]) -> None:
    for place, tool in enumerate(body.get("tools") or ()):
        required(tool, "type", "text", f"tools[{place}]")
        if tool["type"] in _INNER:
            required(tool, tool["type"], "object", f"tools[{place}]")
            _check_definition(tool[tool["type"]], f"tools[{place}].{tool['type']}")
    for place, function in enumerate(body.get("functions") or ()):
        _check_definition(function, f"functions[{place}]")


def _check_definition(definition: Mapping[str, Any], at: str) -> None:
    required(definition, "name", "text", at)
    optional(definition, "description", "text", at)
    optional(definition, "parameters", "object", at)


def _at_least_one(body: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if body.get(name) is not None and body[name] < 1:
            refuse(name, f"must be at least 1, not {body[name]}")
