"""Requests of `POST /v1/responses`: what is accepted, and what is refused with a 400 that names it.

Checked is what this package reads. Refused at once is what needs a store (`previous_response_id`, `item_reference`, …), because
none is kept; what only some provider has no words for is refused by the conversion, and ranges are left to the provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from luthien_asgi.request import ChatRequest
from luthien_asgi.request_items import ADDITIONAL_TOOLS, LONGEST_NAME, flat_tools, qualified_name, type_of_item
from luthien_asgi.settings import Limits
from luthien_asgi.wire.checks import (
    check_model,
    check_parameters,
    check_parts,
    check_tools,
    expect,
    optional,
    read_object,
    refuse,
    required,
)
from luthien_asgi.wire.parameters import RESPONSES, Fate, Shape

__all__ = ["is_reasoning_reference", "parse"]

_LONGEST_GIVEN: Final = 128
"""Characters of the name of a tool or namespace (OpenAI API reference)."""
_ROLES: Final = ("user", "assistant", "system", "developer")
_PARTS: Final[Mapping[str, Sequence[tuple[str, Shape]]]] = {
    "input_text": (("text", "text"),),
    "output_text": (("text", "text"),),
    "summary_text": (("text", "text"),),
    "reasoning_text": (("text", "text"),),
    "refusal": (("refusal", "text"),),
}
_OPTIONAL_TEXTS: Final[Mapping[str, Sequence[str]]] = {
    "input_image": ("image_url", "file_id", "detail"),
    "input_file": ("file_data", "file_id", "file_url", "filename"),
}
_CALL: Final[Sequence[tuple[str, Shape]]] = (("call_id", "text"), ("name", "text"))
_ITEMS: Final[Mapping[str, Sequence[tuple[str, Shape]]]] = {
    "message": (("role", "text"), ("content", "text or list")),
    "function_call": (*_CALL, ("arguments", "text")),
    "custom_tool_call": (*_CALL, ("input", "text")),
    "function_call_output": (("call_id", "text"), ("output", "text or list")),
    "custom_tool_call_output": (("call_id", "text"), ("output", "text or list")),
}
_LISTS: Final = ("content", "output", "summary")
_SETTINGS: Final[Mapping[str, Sequence[tuple[str, Shape]]]] = {
    "reasoning": tuple((name, "text") for name in ("effort", "summary", "generate_summary", "mode", "context")),
    "text": (("format", "object"), ("verbosity", "text")),
    "stream_options": (("include_obfuscation", "flag"),),
}


def parse(body: bytes, *, limits: Limits) -> ChatRequest:
    """Check and parse a request body. Raises `RequestError` (400 or 413) that names the field."""
    value = read_object(body, limits=limits)
    check_parameters(value, "responses")
    _check_stateless(value)
    check_model(value)
    check_tools(value, limits=limits)
    for place, tool in enumerate(value.get("tools") or ()):
        _check_tool(tool, f"tools[{place}]")
    _check_settings(value, limits=limits)
    _check_input(value, limits=limits)
    number = sum(1 for _ in flat_tools(value))
    if number > limits.tools:
        refuse("input", f"brings the tools to {number}, more than {limits.tools} (tools)")
    return ChatRequest(wire="responses", body=value)


def is_reasoning_reference(item: Mapping[str, Any]) -> bool:
    """Tell whether an item refers to reasoning, which a client may leave out: it is for the model alone, and not stored here."""
    name = item.get("id")
    return type_of_item(item) == "item_reference" and isinstance(name, str) and name.startswith("rs_")


def _check_stateless(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        row = RESPONSES[name]
        if row.fate is Fate.REFUSED and not row.is_neutral(value):
            refuse(name, f"is not supported: {row.note}")


# --- input -----------------------------------------------------------------------------------------------------------------


def _check_input(body: Mapping[str, Any], *, limits: Limits) -> None:
    required(body, "input", "text or list")
    items = body["input"]
    if isinstance(items, str):
        return
    if not items:
        refuse("input", "must hold at least one item")
    if len(items) > limits.messages:
        refuse("input", f"holds {len(items)} items, more than {limits.messages} (messages)")
    for place, item in enumerate(items):
        expect(item, "object", f"input[{place}]")
    parts = sum(len(item[name]) for item in items for name in _LISTS if isinstance(item.get(name), list))
    if parts > limits.parts:
        refuse("input", f"holds {parts} content parts, more than {limits.parts} (parts)")
    for place, item in enumerate(items):
        _check_item(item, f"input[{place}]")


def _check_item(item: Mapping[str, Any], at: str) -> None:
    optional(item, "type", "text", at)
    kind = type_of_item(item)
    if kind == "item_reference" and not is_reasoning_reference(item):
        refuse(at, "refers to an item that would have to be stored, and nothing is stored here; send the item itself")
    for field, shape in _ITEMS.get(kind, ()):
        required(item, field, shape, at)
    optional(item, "namespace", "text", at)
    if kind in {"function_call", "custom_tool_call"}:
        _check_qualified(item, item.get("namespace"), at)
    if kind == "message" and item["role"] not in _ROLES:
        refuse(f"{at}.role", f"must be one of {', '.join(_ROLES)}, not {item['role'][:50]!r}")
    if kind == ADDITIONAL_TOOLS:
        required(item, "tools", "list", at)
        for place, tool in enumerate(item["tools"]):
            expect(tool, "object", f"{at}.tools[{place}]")
            _check_tool(tool, f"{at}.tools[{place}]")
    if kind == "reasoning":
        for field in ("summary", "content"):
            optional(item, field, "list", at)
        optional(item, "encrypted_content", "text", at)
    if kind in _ITEMS or kind == "reasoning":
        for field in _LISTS:
            if item.get(field) is not None:
                _check_list(item[field], f"{at}.{field}")


def _check_list(content: Any, at: str) -> None:  # noqa: ANN401 - JSON
    check_parts(content, at, _PARTS)
    for place, part in enumerate(content if isinstance(content, list) else ()):
        for field in _OPTIONAL_TEXTS.get(part["type"], ()):
            optional(part, field, "text", f"{at}[{place}]")


# --- tools and settings ----------------------------------------------------------------------------------------------------


def _check_tool(tool: Mapping[str, Any], at: str) -> None:
    required(tool, "type", "text", at)
    if tool["type"] in {"function", "custom", "namespace"}:
        required(tool, "name", "text", at)
        if len(tool["name"]) > _LONGEST_GIVEN:
            refuse(f"{at}.name", f"is longer than {_LONGEST_GIVEN} characters")
    optional(tool, "description", "text", at)
    if tool["type"] == "function":
        optional(tool, "parameters", "object", at)
        optional(tool, "strict", "flag", at)
    elif tool["type"] == "custom":
        optional(tool, "format", "object", at)
    elif tool["type"] == "namespace":
        required(tool, "tools", "list", at)
        for place, named in enumerate(tool["tools"]):
            expect(named, "object", f"{at}.tools[{place}]")
            required(named, "type", "text", f"{at}.tools[{place}]")
            if named["type"] not in {"function", "custom"}:
                refuse(f"{at}.tools[{place}].type", f"must be function or custom, not {named['type'][:50]!r}")
            _check_tool(named, f"{at}.tools[{place}]")
            _check_qualified(named, tool["name"], f"{at}.tools[{place}]")


def _check_qualified(named: Mapping[str, Any], namespace: str | None, at: str) -> None:
    """Refuse a name that the model cannot be told together with its namespace."""
    if namespace and len(qualified_name(named["name"], namespace)) > LONGEST_NAME:
        refuse(f"{at}.name", f"is too long for a tool in a namespace: both are one name of {LONGEST_NAME} characters at most")


def _check_settings(body: Mapping[str, Any], *, limits: Limits) -> None:
    for name, fields in _SETTINGS.items():
        for field, shape in fields:
            optional(body.get(name) or {}, field, shape, name)
    if (form := (body.get("text") or {}).get("format")) is not None:
        required(form, "type", "text", "text.format")
        if form["type"] == "json_schema":
            required(form, "name", "text", "text.format")
            required(form, "schema", "object", "text.format")
    if isinstance(choice := body.get("tool_choice"), dict):
        required(choice, "type", "text", "tool_choice")
        number = len(choice["tools"]) if isinstance(choice.get("tools"), list) else 0
        if number > limits.tools:
            refuse("tool_choice.tools", f"holds {number} tools, more than {limits.tools} (tools)")
    for at, value in _texts(body):
        expect(value, "text", at)
    if body.get("max_output_tokens") is not None and body["max_output_tokens"] < 1:
        refuse("max_output_tokens", f"must be at least 1, not {body['max_output_tokens']}")


def _texts(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for place, value in enumerate(body.get("include") or ()):
        yield f"include[{place}]", value
    for name, value in (body.get("metadata") or {}).items():
        yield f"metadata.{name[:50]}", value
