"""What an answer says, in words that belong to no wire, and what becomes of it on the way to another one.

Strategy: `Content` is read from a recording's own events by a reader of a few lines that shares nothing with the package, and
from the objects that the SDKs accumulate. `mapped` is the table of `docs/conversion.md` once more, as a test would write it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from conf_responses import INCOMPLETE, read_response
from conf_said import Content, add, add_logprobs, arguments, new_choice, place

__all__ = ["choices_of", "content_of_answer", "content_of_events", "events_of", "mapped"]

_FINISH: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "model_context_window_exceeded": "length",
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


# --- OpenAI ----------------------------------------------------------------------------------------------------------------


def _openai_usage(usage: Mapping[str, Any] | None) -> dict[str, int]:
    if not usage:
        return {}
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input": usage["prompt_tokens"],
        "output": usage["completion_tokens"],
        "cached": prompt.get("cached_tokens") or 0,
        "written": prompt.get("cache_write_tokens") or 0,
        "thought": completion.get("reasoning_tokens") or 0,
    }


def _openai_text(value: Any) -> str:
    return value if isinstance(value, str) else "".join(part.get("text", "") for part in value or ())


def _add_fields(choice: dict[str, Any], said: Mapping[str, Any]) -> None:
    add(choice, "thinking", said.get("reasoning_content") or said.get("reasoning") or "")
    add(choice, "text", _openai_text(said.get("content")))
    add(choice, "refusal", said.get("refusal") or "")


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
            choice = choices.setdefault(index, new_choice())
            _add_fields(choice, delta)
            add_logprobs(choice, (said.get("logprobs") or {}).get("content"))
            choice["finish"] = choice["finish"] or said.get("finish_reason") or ""
            for call in delta.get("tool_calls") or ():
                known = calls.get((index, call["index"]))
                if known is None or (call.get("id") and call["id"] != known[0]):
                    known = calls[index, call["index"]] = [call["id"], "", ""]
                    choice["calls"].append(known)
                    place(choice, "call")
                known[1] = known[1] or call["function"].get("name") or ""
                known[2] += call["function"].get("arguments") or ""
    for known in [call for choice in choices.values() for call in choice["calls"]]:
        known[2] = arguments(known[2])
    return {"choices": [choices[index] for index in sorted(choices)], "usage": _openai_usage(usage)}


def _openai_answer(answer: Mapping[str, Any]) -> Content:
    choices = []
    for said in answer["choices"]:
        choice, message = new_choice(), said["message"]
        _add_fields(choice, message)
        add_logprobs(choice, (said.get("logprobs") or {}).get("content"))
        choice["finish"] = said["finish_reason"]
        for call in message.get("tool_calls") or ():
            choice["calls"].append([call["id"], call["function"]["name"], arguments(call["function"]["arguments"])])
        choices.append({**choice, "order": []})
    return {"choices": choices, "usage": _openai_usage(answer.get("usage"))}


# --- Anthropic -------------------------------------------------------------------------------------------------------------


def _anthropic_usage(usage: Mapping[str, Any]) -> dict[str, int]:
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    thought = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    total = (usage.get("input_tokens") or 0) + cached + written
    return {"input": total, "output": usage["output_tokens"], "cached": cached, "written": written, "thought": thought}


def _add_block(choice: dict[str, Any], block: Mapping[str, Any]) -> None:
    match block["type"]:
        case "text":
            text = block.get("text") or ""
            add(choice, "text", text)
            choice["cited"] += [[cited.get("url"), text] for cited in block.get("citations") or ()]
        case "thinking":
            add(choice, "thinking", block.get("thinking") or "")
            choice["signed"].append([block.get("thinking") or "", block.get("signature") or ""])
            place(choice, "thinking")
        case "redacted_thinking":
            choice["signed"].append(["", block["data"]])
            place(choice, "thinking")
        case "tool_use":
            choice["calls"].append([block["id"], block["name"], block["input"]])
            place(choice, "call")


_PARTS: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def _anthropic_events(events: Sequence[Mapping[str, Any]]) -> Content:
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    choice = new_choice()
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
            case "content_block_delta" if event["delta"]["type"] == "citations_delta":
                block = blocks[event["index"]]
                block["citations"] = [*(block.get("citations") or ()), event["delta"]["citation"]]
            case "message_delta":
                choice["finish"] = event["delta"].get("stop_reason") or choice["finish"]
                usage |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
    for block in blocks.values():
        _add_block(choice, {**block, "input": arguments(block["partial_json"]) or block.get("input") or {}})
    return {"choices": [choice], "usage": _anthropic_usage(usage)}


def _anthropic_answer(answer: Mapping[str, Any]) -> Content:
    choice = new_choice()
    choice["finish"] = answer["stop_reason"]
    for block in answer["content"]:
        _add_block(choice, block)
    return {"choices": [choice], "usage": _anthropic_usage(answer["usage"])}


# --- all -------------------------------------------------------------------------------------------------------------------

_ANSWERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Content]]] = {
    "openai": _openai_answer,
    "anthropic": _anthropic_answer,
    "responses": read_response,
}


def content_of_events(wire: str, events: Sequence[Mapping[str, Any]]) -> Content:
    """Return what a recording says."""
    return _openai_events(events) if wire == "openai" else _anthropic_events(events)


def content_of_answer(client: str, answer: Mapping[str, Any]) -> Content:
    """Return what an SDK's object says. A response has an error too, which is null in a good one."""
    return {"error": True} if answer.get("error") else _ANSWERS[client](answer)


def mapped(content: Content, *, backend: str, client: str) -> Content:
    """Return what a client has to get of a recording. A body of chat completions tells no order."""
    if "error" in content or client == backend == "anthropic":
        return content
    if client == backend:
        return {**content, "choices": [{**choice, "order": []} for choice in content["choices"]]}
    choice = content["choices"][0]
    if client == "responses":
        said = _for_responses(choice, backend)
    else:
        said = _for_openai(choice) if client == "openai" else _for_anthropic(choice)
    return {**content, "choices": [said]}


def _for_openai(choice: dict[str, Any]) -> dict[str, Any]:
    finish = _FINISH.get(choice["finish"], "stop")
    finish = "stop" if finish == "tool_calls" and not choice["calls"] else finish
    return {**choice, "finish": finish, "signed": [], "cited": [], "order": []}


def _for_anthropic(choice: dict[str, Any]) -> dict[str, Any]:
    stop = _STOP.get(choice["finish"], "end_turn")
    if choice["finish"] == "stop" and (choice["calls"] or choice["refusal"]):
        stop = "tool_use" if choice["calls"] else "refusal"
    elif stop == "tool_use" and not choice["calls"]:
        stop = "end_turn"
    said = {"text": choice["text"] + choice["refusal"], "refusal": "", "finish": stop, "signed": _unsigned(choice)}
    # Calls leave when the answer is over, and a refusal is text.
    order = sorted(("text" if kind == "refusal" else kind for kind in choice["order"]), key="call".__eq__)
    return {**choice, **said, "logprobs": [], "order": order}


def _for_responses(choice: dict[str, Any], backend: str) -> dict[str, Any]:
    finish = _FINISH.get(choice["finish"], "stop") if backend == "anthropic" else choice["finish"]
    signed = choice["signed"] if backend == "anthropic" else _unsigned(choice)
    return {**choice, "finish": INCOMPLETE.get(finish, "completed"), "signed": signed}


def _unsigned(choice: Mapping[str, Any]) -> list[list[str]]:
    return [[choice["thinking"], ""]] if choice["thinking"] else []
