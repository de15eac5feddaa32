"""A whole answer of the OpenAI Responses wire, alone or at a stream's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthien_asgi.testing.reading_events import check_total, is_json_object
from luthien_asgi.testing.shapes_openai import ERROR
from luthien_asgi.testing.shapes_responses import RESPONSE
from luthien_asgi.testing.violations import Sink, quoted

__all__ = ["check_arguments", "check_responses_body", "check_responses_error", "check_usage"]


def check_arguments(sink: Sink, call: Mapping[str, Any]) -> None:
    """Check that a function call's arguments are a JSON object."""
    text = call.get("arguments")
    if isinstance(text, str) and text and not is_json_object(text):
        sink.report("tool-json", f"the arguments of {quoted(call.get('name'))} are no JSON object: {quoted(text)}")


def check_usage(sink: Sink, response: Mapping[str, Any], *, required: bool) -> None:
    """Check a response's usage."""
    usage = response.get("usage")
    if isinstance(usage, dict):
        check_total(sink, usage, "input_tokens", "output_tokens")
    elif required:
        sink.report("usage-missing", "a completed response without usage")


def check_responses_error(body: Mapping[str, Any], sink: Sink) -> None:
    """Check an error's body: it is that of the other OpenAI wire."""
    ERROR.check(body["error"], "error", sink)


def check_responses_body(body: Mapping[str, Any], sink: Sink) -> Mapping[str, Any]:
    """Check a `response` and return what it held."""
    RESPONSE.check(body, "", sink)
    output, seen = body.get("output"), set[str]()
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    for item in items:
        call = item.get("call_id")
        if item.get("type") in ("function_call", "custom_tool_call") and isinstance(call, str):
            sink.require(call not in seen, "call-id", f"two calls have the call_id {quoted(call)}")
            seen.add(call)
        if item.get("type") == "function_call" and item.get("status") != "incomplete":
            check_arguments(sink, item)
    status = body.get("status")
    if status not in ("completed", "incomplete", "failed"):
        sink.report("status", f"the status is {quoted(status)}")
    check_usage(sink, body, required=status == "completed")
    held = [{name: item[name] for name in ("type", "name") if isinstance(item.get(name), str)} for item in items]
    shown = {name: body.get(name) for name in ("id", "model", "status", "usage", "error")}
    return {**shown, "items": held, "ended": "whole"}
