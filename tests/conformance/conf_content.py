"""What an answer says, in words that belong to neither wire, and what becomes of it on the way to the other one.

Strategy: `Content` is read from a recording's own events by a reader of a few lines that shares nothing with the package, and
from the objects that the SDKs accumulate. `mapped` is the table of `docs/conversion.md` once more, as a test would write it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["choices_of", "content_of_answer", "content_of_events", "events_of", "mapped"]

Content = dict[str, Any]
"""`choices`: a list of {text, thinking, refusal, calls: [[id, name, arguments]], finish, signatures}, and `usage`; or `error`."""

_FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "model_context_window_exceeded": "stop",
    "compaction": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_STOP: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def events_of(pieces: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the JSON of a stream's events."""
    lines = [line[5:].strip() for piece in pieces for line in piece.decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line and line != "[DONE]"]


def choices_of(events: Sequence[Mapping[str, Any]]) -> int:
    """Return how many choices an OpenAI stream has; 1 for one of Anthropic's."""
    return 1 + max((choice.get("index", 0) for event in events for choice in event.get("choices") or ()), default=0)


def _choice() -> dict[str, Any]:
    return {"text": "", "thinking": "", "refusal": "", "calls": [], "finish": "", "signatures": []}


def _arguments(text: str) -> Any:
    return json.loads(text) if text.strip() else {}


# --- OpenAI ----------------------------------------------------------------------------------------------------------------


def _openai_usage(usage: Mapping[str, Any] | None) -> dict[str, int]:
    if not usage:
        return {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {"input": usage["prompt_tokens"], "output": usage["completion_tokens"], "cached": cached}


def _openai_text(value: Any) -> str:
    return value if isinstance(value, str) else "".join(part.get("text", "") for part in value or ())


def _add_fields(choice: dict[str, Any], said: Mapping[str, Any]) -> None:
    choice["text"] += _openai_text(said.get("content"))
    choice["thinking"] += said.get("reasoning_content") or said.get("reasoning") or ""
    choice["refusal"] += said.get("refusal") or ""


def _openai_events(events: Sequence[Mapping[str, Any]]) -> Content:
    choices: dict[int, dict[str, Any]] = {}
    calls: dict[tuple[int, int], list[str]] = {}
    usage: Mapping[str, Any] | None = None
    for event in events:
        if event.get("error"):
            return {"error": True}
        usage = event.get("usage") or (event.get("x_groq") or {}).get("usage") or usage
        for said in event.get("choices") or ():
            index, delta = said["index"], said.get("delta") or {}
            choice = choices.setdefault(index, _choice())
            _add_fields(choice, delta)
            choice["finish"] = choice["finish"] or said.get("finish_reason") or ""
            for call in delta.get("tool_calls") or ():
                known = calls.get((index, call["index"]))
                if known is None or (call.get("id") and call["id"] != known[0]):
                    known = calls[index, call["index"]] = [call["id"], "", ""]
                    choice["calls"].append(known)
                known[1] = known[1] or call["function"].get("name") or ""
                known[2] += call["function"].get("arguments") or ""
    for known in [call for choice in choices.values() for call in choice["calls"]]:
        known[2] = _arguments(known[2])
    return {"choices": [choices[index] for index in sorted(choices)], "usage": _openai_usage(usage)}


def _openai_answer(answer: Mapping[str, Any]) -> Content:
    choices = []
    for said in answer["choices"]:
        choice, message = _choice(), said["message"]
        _add_fields(choice, message)
        choice["finish"] = said["finish_reason"]
        for call in message.get("tool_calls") or ():
            choice["calls"].append([call["id"], call["function"]["name"], _arguments(call["function"]["arguments"])])
        choices.append(choice)
    return {"choices": choices, "usage": _openai_usage(answer.get("usage"))}


# --- Anthropic -------------------------------------------------------------------------------------------------------------


def _anthropic_usage(usage: Mapping[str, Any]) -> dict[str, int]:
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return {"input": (usage.get("input_tokens") or 0) + cached + written, "output": usage["output_tokens"], "cached": cached}


def _add_block(choice: dict[str, Any], block: Mapping[str, Any]) -> None:
    match block["type"]:
        case "text":
            choice["text"] += block.get("text") or ""
        case "thinking":
            choice["thinking"] += block.get("thinking") or ""
            choice["signatures"].append(block.get("signature") or "")
        case "redacted_thinking":
            choice["signatures"].append(block["data"])
        case "tool_use":
            choice["calls"].append([block["id"], block["name"], block["input"]])


_PARTS: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def _anthropic_events(events: Sequence[Mapping[str, Any]]) -> Content:
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    choice = _choice()
    for event in events:
        match event["type"]:
            case "error":
                return {"error": True}
            case "message_start" if not usage:
                usage = dict(event["message"]["usage"])
            case "content_block_start":
                blocks[event["index"]] = {"partial_json": "", **event["content_block"]}
            case "content_block_delta" if part := _PARTS.get(event["delta"]["type"]):
                block = blocks[event["index"]]
                block[part] = (block.get(part) or "") + event["delta"][part]
            case "message_delta":
                choice["finish"] = event["delta"].get("stop_reason") or choice["finish"]
                usage |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
    for block in blocks.values():
        _add_block(choice, {**block, "input": _arguments(block["partial_json"]) or block.get("input") or {}})
    return {"choices": [choice], "usage": _anthropic_usage(usage)}


def _anthropic_answer(answer: Mapping[str, Any]) -> Content:
    choice = _choice()
    choice["finish"] = answer["stop_reason"]
    for block in answer["content"]:
        _add_block(choice, block)
    return {"choices": [choice], "usage": _anthropic_usage(answer["usage"])}


# --- both ------------------------------------------------------------------------------------------------------------------


def content_of_events(wire: str, events: Sequence[Mapping[str, Any]]) -> Content:
    """Return what a recording says."""
    return _openai_events(events) if wire == "openai" else _anthropic_events(events)


def content_of_answer(client: str, answer: Mapping[str, Any]) -> Content:
    """Return what an SDK's object says."""
    if "error" in answer:
        return {"error": True}
    return _openai_answer(answer) if client == "openai" else _anthropic_answer(answer)


def mapped(content: Content, *, backend: str, client: str) -> Content:
    """Return what a client of the other format has to get of a recording."""
    if "error" in content or backend == client:
        return content
    if client == "openai":
        [choice] = content["choices"]
        finish = _FINISH.get(choice["finish"], "stop")
        finish = "stop" if finish == "tool_calls" and not choice["calls"] else finish
        return {**content, "choices": [{**choice, "finish": finish, "signatures": []}]}
    choice = content["choices"][0]
    stop = _STOP.get(choice["finish"], "end_turn")
    if choice["finish"] == "stop" and (choice["calls"] or choice["refusal"]):
        stop = "tool_use" if choice["calls"] else "refusal"
    elif stop == "tool_use" and not choice["calls"]:
        stop = "end_turn"
    signatures = [""] if choice["thinking"] else []
    text = choice["text"] + choice["refusal"]
    return {**content, "choices": [{**choice, "text": text, "refusal": "", "finish": stop, "signatures": signatures}]}
