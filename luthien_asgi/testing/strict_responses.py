"""What the OpenAI Responses API refuses in a request.

Strategy: each function checks one rule for one input item and raises `HistoryError` in the API's own words. Nothing is stored
here, so references to earlier responses and items cannot be checked and are let pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthien_asgi.testing.history import require, unique

__all__ = ["check"]

_ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_OUTPUT_OF: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "assistant": frozenset({"output_text", "refusal"}),
    "user": frozenset({"input_text", "input_image", "input_file", "input_audio"}),
}

Item = Mapping[str, Any]


def check(body: Mapping[str, Any]) -> None:
    """Raise `HistoryError` with the first complaint about a request body."""
    require(body.get("model") or body.get("prompt"), "Missing required parameter: 'model'.")
    given = body.get("input")
    if isinstance(given, str) or (given is None and (body.get("prompt") or body.get("previous_response_id"))):
        return
    require(isinstance(given, list) and given, "Missing required parameter: 'input'.")
    assert isinstance(given, list)  # noqa: S101 - for the type checker
    for place, item in enumerate(given):
        _check_item(item, f"input[{place}]")
    _check_calls(given, stored=body.get("previous_response_id") is not None or body.get("conversation") is not None)
    _check_reasoning(given)


def _type(item: Item) -> str:
    return str(item.get("type") or "message")


def _check_item(item: Item, at: str) -> None:
    kind = _type(item)
    if kind == "message":
        _check_message(item, at)
    elif kind in _OUTPUT_OF:
        _check_call(item, kind, at)
    elif kind in _OUTPUT_OF.values():
        require(item.get("call_id"), f"Missing required parameter: '{at}.call_id'.")
        require(isinstance(item.get("output"), str | list), f"Missing required parameter: '{at}.output'.")
    elif kind == "reasoning":
        require(isinstance(item.get("summary"), list), f"Missing required parameter: '{at}.summary'.")


def _check_message(item: Item, at: str) -> None:
    role, content = item.get("role"), item.get("content")
    require(role in _ROLES, f"Invalid value: '{role}' for '{at}.role'.")
    require(isinstance(content, str | list), f"Missing required parameter: '{at}.content'.")
    for place, part in enumerate(content if isinstance(content, list) else ()):
        known = _PARTS["assistant" if role == "assistant" else "user"]
        said = part.get("type")
        require(
            said in known, f"Invalid value: '{said}'. Supported values are: {', '.join(sorted(known))} ('{at}.content[{place}]')."
        )
        for name in {"text", "refusal"} & {str(said).removeprefix("input_").removeprefix("output_")}:
            require(isinstance(part.get(name), str), f"Missing required parameter: '{at}.content[{place}].{name}'.")


def _check_call(item: Item, kind: str, at: str) -> None:
    text = "arguments" if kind == "function_call" else "input"
    require(isinstance(item.get("call_id"), str) and item["call_id"], f"Missing required parameter: '{at}.call_id'.")
    require(_NAME.fullmatch(item.get("name") or ""), f"Invalid '{at}.name': string does not match pattern.")
    require(isinstance(item.get(text), str), f"Missing required parameter: '{at}.{text}'.")


def _check_calls(items: Sequence[Item], *, stored: bool) -> None:
    """Check that every call has its output, after it and once, and every output its call, unless that is stored at the API."""
    unique((f"{item['call_id']}" for item in items if _type(item) in _OUTPUT_OF), "Duplicate item found with call_id {}.")
    outputs = [item for item in items if _type(item) in _OUTPUT_OF.values()]
    unique((str(item["call_id"]) for item in outputs), "Duplicate tool output found for call_id {}.")
    called: dict[str, str] = {}
    for item in items:
        kind = _type(item)
        if kind in _OUTPUT_OF:
            called[item["call_id"]] = _OUTPUT_OF[kind]
        elif kind in _OUTPUT_OF.values():
            expected = called.pop(item["call_id"], kind if stored else None)
            what = "function call" if kind == "function_call_output" else "custom tool call"
            require(expected == kind, f"No tool call found for {what} output with call_id {item['call_id']}.")
    missing = next(iter(called), None)
    require(missing is None, f"No tool output found for function call {missing}.")


def _check_reasoning(items: Sequence[Item]) -> None:
    """Check that a reasoning item is followed by what it led to."""
    for item, after in zip(items, [*items[1:], None], strict=True):
        if _type(item) != "reasoning":
            continue
        led_to = after is not None and (_type(after) in {"reasoning", *_OUTPUT_OF} or after.get("role") == "assistant")
        require(
            led_to or item.get("encrypted_content"),
            f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item.",
        )
