"""What a `response` of OpenAI's Responses API says.

Strategy: the signature of thinking is read out of `encrypted_content` by the form that `luthien_asgi.reasoning_items` documents,
in a few lines that share nothing with it. An item of an unknown type stands in the order, and so is a difference.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from conf_said import Content, add, add_logprobs, arguments, new_choice, place

__all__ = ["INCOMPLETE", "read_response"]

INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""What the finish reasons of chat completions are in `incomplete_details`; the others complete the response."""
_PREFIX: Final = "luthien.v1."


def read_response(answer: Mapping[str, Any]) -> Content:
    """Return what a whole response says; `finish` is its status, or why it is incomplete."""
    choice = new_choice()
    for item in answer["output"]:
        _add_item(choice, item)
    choice["finish"] = (answer.get("incomplete_details") or {}).get("reason") or answer["status"]
    return {"choices": [choice], "usage": _usage(answer["usage"])}


def _usage(usage: Mapping[str, Any]) -> dict[str, int]:
    read, written = usage["input_tokens_details"], usage["output_tokens_details"]
    return {
        "input": usage["input_tokens"],
        "output": usage["output_tokens"],
        "cached": read["cached_tokens"],
        "written": read["cache_write_tokens"],
        "thought": written["reasoning_tokens"],
    }


def _add_item(choice: dict[str, Any], item: Mapping[str, Any]) -> None:
    match item["type"]:
        case "message":
            for part in item["content"]:
                kind, field = ("refusal", "refusal") if part["type"] == "refusal" else ("text", "text")
                add(choice, kind, part[field])
                add_logprobs(choice, part.get("logprobs"))
                for link in part.get("annotations") or ():
                    choice["cited"].append([link["url"], part["text"][link["start_index"] : link["end_index"]]])
        case "reasoning":
            text = "".join(part["text"] for part in item["summary"])
            add(choice, "thinking", text)
            choice["signed"].append(_carried(item.get("encrypted_content")) or [text, ""])
            place(choice, "thinking")
        case "function_call":
            choice["calls"].append([item["call_id"], item["name"], arguments(item["arguments"])])
            place(choice, "call")
        case other:
            place(choice, other)


def _carried(sealed: str | None) -> list[str] | None:
    """Return the thinking and the signature that the client sends back, None where there are none."""
    if sealed is None:
        return None
    fields = json.loads(base64.urlsafe_b64decode(sealed.removeprefix(_PREFIX)))
    return [fields.get("text", ""), fields["signature"]]
