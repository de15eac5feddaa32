"""What a client puts together from a stream: the body that the same answer would have had without streaming.

The accumulators hold the stream to its grammar and raise `ValueError` where it is broken: a strict client's view.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.testing.events import sse_events

__all__ = ["Accumulated", "accumulate_anthropic", "accumulate_openai"]


@dataclass(slots=True)
class Accumulated:
    """What a stream came to."""

    body: dict[str, Any] = field(default_factory=dict)
    """In the shape of the response that is not streamed."""
    error: dict[str, Any] | None = None
    """The error object of the error event that ended the stream."""
    done: bool = False
    """The stream ended with its good terminal event: `[DONE]` or `message_stop`."""
    pings: int = 0


def _check(holds: object, complaint: str) -> None:
    if not holds:
        raise ValueError(complaint)


def accumulate_openai(body: bytes) -> Accumulated:
    """Put the chunks of an OpenAI stream together into the body of a `chat.completion`."""
    result = Accumulated()
    for event in sse_events(body, comments=True):
        _check(not result.done and result.error is None, f"an event after the end: {event}")
        if event.event == ":":
            result.pings += 1
        elif event.data == "[DONE]":
            result.done = True
        else:
            _add_openai(result, jsontext.loads(event.data))
    return result


def _add_openai(result: Accumulated, chunk: dict[str, Any]) -> None:
    if error := chunk.get("error"):
        result.error = error
        return
    _check(chunk["object"] == "chat.completion.chunk", f"not a chunk: {chunk}")
    identity = {name: chunk[name] for name in ("id", "created", "model")}
    if not result.body:
        result.body = identity | {"object": "chat.completion", "choices": [], "usage": None}
    _check(identity.items() <= result.body.items(), f"the identity changed: {identity}")
    _check(result.body["usage"] is None, f"a chunk after the usage: {chunk}")
    result.body["usage"] = chunk.get("usage")
    for choice in chunk["choices"]:
        _add_choice(result.body["choices"], choice)


def _add_choice(choices: list[dict[str, Any]], choice: dict[str, Any]) -> None:
    place, delta = choice["index"], choice["delta"]
    _check(place <= len(choices), f"choice {place} begins before choice {len(choices)}")
    if place == len(choices):
        choices.append({"index": place, "message": {}, "logprobs": None, "finish_reason": None})
    whole = choices[place]
    message = whole["message"]
    _check("finish_reason" in choice, f"a choice without finish_reason, null included: {choice}")
    _check(whole["finish_reason"] is None, f"a delta after the finish: {choice}")
    _check(("role" in delta) == (not message), f"the role belongs to the first delta, and only there: {choice}")
    whole["finish_reason"] = choice["finish_reason"]
    for name in ("role", "content", "refusal", "reasoning_content"):
        if (text := delta.get(name)) is not None:
            message[name] = (message.get(name) or "") + text
    for name, entries in (choice.get("logprobs") or {}).items():
        whole["logprobs"] = whole["logprobs"] or {}
        whole["logprobs"][name] = (
            [*(whole["logprobs"].get(name) or []), *entries] if isinstance(entries, list) else whole["logprobs"].get(name)
        )
    message.setdefault("content", None)
    for call in delta.get("tool_calls") or []:
        _add_call(message.setdefault("tool_calls", []), call)


def _add_call(calls: list[dict[str, Any]], call: dict[str, Any]) -> None:
    kind = "custom" if "custom" in call else "function"
    part = call[kind]
    if call["index"] == len(calls):
        # A provider may leave the name out for good; then it is there and empty.
        _check(call.get("id") and "name" in part, f"a call begins without id or name: {call}")
        calls.append({"id": call["id"], "type": call["type"], kind: dict(part)})
        return
    _check(call["index"] < len(calls), f"a gap before tool index {call['index']}")
    _check(not {"id", "type"} & call.keys() and "name" not in part, f"id, type or name of a call again: {call}")
    text = "input" if kind == "custom" else "arguments"
    calls[call["index"]][kind][text] = calls[call["index"]][kind].get(text, "") + part[text]


_TEXT_FIELDS: Final = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def accumulate_anthropic(body: bytes) -> Accumulated:
    """Put the events of an Anthropic stream together into the body of a `message`. Tool input is parsed; malformed raises."""
    result = Accumulated()
    state = _Messages(result)
    for event in sse_events(body, comments=True):
        _check(not result.done and result.error is None, f"an event after the end: {event}")
        if event.event == ":":
            result.pings += 1
            continue
        data = jsontext.loads(event.data)
        _check(event.event == data["type"], f"the name {event.event!r} is not the type {data['type']!r}")
        state.add(data)
    return result


class _Messages:
    """The Anthropic accumulator's state: which block is open, and its tool input so far."""

    def __init__(self, result: Accumulated) -> None:
        self.result = result
        self.open: int | None = None
        self.json = ""
        self.ended = False

    def add(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "error":
            self.result.error = event["error"]
        elif kind == "ping":
            self.result.pings += 1
        elif kind == "message_start":
            _check(not self.result.body, "message_start twice")
            self.result.body = event["message"]
            _check(self.result.body["content"] == [], "message_start with content")
        else:
            _check(self.result.body, f"{kind} before message_start")
            _check(not self.ended or kind == "message_stop", f"{kind} after message_delta")
            _HANDLERS.get(kind, _Messages.ignore)(self, event)

    def ignore(self, event: dict[str, Any]) -> None:
        """Unknown event types are to be ignored."""

    def block_start(self, event: dict[str, Any]) -> None:
        content = self.result.body["content"]
        _check(self.open is None, f"a block begins while block {self.open} is open")
        _check(event["index"] == len(content), f"block {event['index']} after {len(content)} blocks")
        content.append(dict(event["content_block"]))
        self.open, self.json = event["index"], ""

    def block_delta(self, event: dict[str, Any]) -> None:
        _check(event["index"] == self.open, f"a delta for block {event['index']}, open is {self.open}")
        block, delta = self.result.body["content"][event["index"]], event["delta"]
        if delta["type"] == "input_json_delta":
            self.json += delta["partial_json"]
        elif delta["type"] == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        elif name := _TEXT_FIELDS.get(delta["type"]):
            _check(name in block, f"{delta['type']} in a {block['type']} block")
            block[name] += delta[name]

    def block_stop(self, event: dict[str, Any]) -> None:
        _check(event["index"] == self.open, f"the end of block {event['index']}, open is {self.open}")
        if self.json:
            self.result.body["content"][event["index"]]["input"] = jsontext.loads(self.json)
        self.open = None

    def message_delta(self, event: dict[str, Any]) -> None:
        _check(self.open is None, f"message_delta while block {self.open} is open")
        self.ended = True
        self.result.body |= event["delta"]
        self.result.body["usage"] = self.result.body["usage"] | event["usage"]

    def message_stop(self, event: dict[str, Any]) -> None:
        _check(self.ended, f"{event['type']} without message_delta")
        self.result.done = True


_HANDLERS: Final = {
    "content_block_start": _Messages.block_start,
    "content_block_delta": _Messages.block_delta,
    "content_block_stop": _Messages.block_stop,
    "message_delta": _Messages.message_delta,
    "message_stop": _Messages.message_stop,
}
