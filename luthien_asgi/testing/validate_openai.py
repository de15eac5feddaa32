"""The rules of the OpenAI chat-completions wire, for a stream and for a body.

Strategy: one function a rule or two; each looks at one part of a chunk and at the little that is known of its choice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.testing.framing import Frame
from luthien_asgi.testing.reading_events import Grown, check_total, is_index, is_json_object, read_event
from luthien_asgi.testing.shapes_openai import CHUNK, COMPLETION, ERROR, OWN_FIELDS
from luthien_asgi.testing.violations import Place, Sink, quoted

__all__ = ["OpenAIGrammar", "check_openai_body", "check_openai_error"]


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    kind: str
    place: Place
    arguments: Grown = field(default_factory=Grown)


@dataclass(slots=True)
class _Choice:
    index: int
    finish: str | None = None
    calls: dict[int, _Call] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    lengths: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("content", "reasoning_content", "refusal"), 0))


class OpenAIGrammar:
    """The rules over one stream. `include_usage` is what the request said; None when it is not known."""

    def __init__(self, sink: Sink, *, include_usage: bool | None = None) -> None:
        self._sink = sink
        self._asked = include_usage
        self._choices: dict[int, _Choice] = {}
        self._identity: dict[str, Any] = {}
        self._usage: Mapping[str, Any] | None = None
        self._ended = ""
        self._error: Any = None

    def take(self, frame: Frame) -> None:
        """Take an event."""
        sink = self._sink
        if frame.name is not None:
            sink.report("event-name", f"an `event:` line, {quoted(frame.name)}")
        if self._ended:
            sink.report("after-end", f"{quoted(frame.data)} after {self._ended}")
            return
        if frame.data.strip() == b"[DONE]":
            self._done()
        elif (event := read_event(frame, sink)) is not None:
            self._chunk_or_error(event)

    def end(self) -> None:
        """The stream is over."""
        if self._ended:
            return
        if self._choices and all(choice.finish for choice in self._choices.values()):
            self._sink.report("done", "the stream ends without [DONE]")
        else:
            self._sink.report("not-ended", "the stream ends without [DONE] and without an error event")

    def summary(self) -> Mapping[str, Any]:
        """Return what the stream held."""
        return {
            **self._identity,
            "choices": [_summary_of(choice) for choice in self._choices.values()],
            "usage": self._usage,
            "error": self._error,
            "ended": self._ended or "cut off",
        }

    def _done(self) -> None:
        self._ended = "[DONE]"
        self._check_finished()
        if self._asked and self._usage is None:
            self._sink.report("usage-missing", "the request asked for usage, and no chunk has it")
        for choice in self._choices.values():
            _check_calls(self._sink, choice.calls.values(), choice.finish)

    def _check_finished(self) -> None:
        unfinished = [choice.index for choice in self._choices.values() if choice.finish is None]
        if unfinished or not self._choices:
            what = f"choice {unfinished[0]} has" if unfinished else "there is"
            self._sink.report("finish-missing", f"the stream ends, and {what} no finish reason")

    def _chunk_or_error(self, event: Mapping[str, Any]) -> None:
        if event.get("error"):
            self._ended, self._error = "an error", event["error"]
            check_openai_error(event, self._sink)
            if any(choice.finish for choice in self._choices.values()):
                self._sink.report("error-after-finish", "an error event after a finish reason")
            return
        CHUNK.check(event, "", self._sink)
        self._check_identity(event)
        self._check_usage(event)
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._take_choice(choice)

    def _check_identity(self, event: Mapping[str, Any]) -> None:
        if event.get("object") != "chat.completion.chunk":
            self._sink.report("object", f"object must be chat.completion.chunk, not {quoted(event.get('object'))}")
        _check_own_fields(self._sink, event, "the chunk")
        said = {name: event.get(name) for name in ("id", "model", "created")}
        if not self._identity:
            self._identity = said
        for name, value in said.items():
            if value != self._identity[name]:
                self._sink.report("identity", f"{name} was {quoted(self._identity[name])} and is {quoted(value)}")
                self._identity[name] = value

    # --- usage --------------------------------------------------------------------------------------------------------

    def _check_usage(self, event: Mapping[str, Any]) -> None:
        sink, usage = self._sink, event.get("usage")
        if self._usage is not None:
            sink.report(*(("usage-repeated", "usage again") if usage else ("usage-last", "a chunk after the usage")))
        if not usage:
            self._check_null(event)
            sink.require(event.get("choices") != [], "no-choice", "`choices` is empty, and there is no usage")
        elif isinstance(usage, dict):
            self._usage = usage
            sink.require(event.get("choices") == [], "usage-choices", "the chunk with the usage has choices")
            sink.require(
                self._asked is not False, "usage-null", "usage that was not asked for, or that no `usage: null` announced"
            )
            check_total(sink, usage, "prompt_tokens", "completion_tokens")

    def _check_null(self, event: Mapping[str, Any]) -> None:
        null = "usage" in event
        if self._asked is None and event.get("choices"):
            self._asked = null
        if self._asked is not None and null != self._asked and self._usage is None:
            words = "has no `usage: null`, and usage is" if self._asked else "has `usage: null`, and usage is not"
            self._sink.report("usage-null", f"a chunk {words} asked for")

    # --- choices --------------------------------------------------------------------------------------------------------

    def _take_choice(self, said: Mapping[str, Any]) -> None:
        sink, index, delta = self._sink, said.get("index"), said.get("delta")
        if not is_index(index) or not isinstance(delta, dict):
            return
        choice = self._choices.get(index)
        if choice is None:
            if index != len(self._choices):
                sink.report("choice-order", f"choice {quoted(index)} begins after {len(self._choices)} choices")
            choice = self._choices[index] = _Choice(index)
            if "role" not in delta:
                sink.report("role-missing", f"the first delta of choice {quoted(index)} has no role")
        elif "role" in delta:
            sink.report("role-repeated", f"the role of choice {quoted(index)} again")
        self._take_finish(choice, said, delta)
        self._take_delta(choice, delta)

    def _take_finish(self, choice: _Choice, said: Mapping[str, Any], delta: Mapping[str, Any]) -> None:
        reason = said.get("finish_reason")
        if choice.finish is not None:
            if reason is not None:
                self._sink.report("finish-repeated", f"choice {quoted(choice.index)} has a finish reason again")
            elif any(delta.values()):
                self._sink.report("after-finish", f"a delta of choice {quoted(choice.index)} after its finish reason")
        elif isinstance(reason, str):
            choice.finish = reason
        elif "finish_reason" not in said:
            self._sink.report("finish-null", f"a delta of choice {quoted(choice.index)} without finish_reason")

    def _take_delta(self, choice: _Choice, delta: Mapping[str, Any]) -> None:
        _check_own_fields(self._sink, delta, "the delta")
        for name, value in delta.items():
            if name == "tool_calls":
                for call in value if isinstance(value, list) else []:
                    self._take_call(choice, call)
            elif name in choice.lengths and isinstance(value, str):
                choice.lengths[name] += len(value)
        for path in _unindexed_lists({name: value for name, value in delta.items() if name != "tool_calls"}):
            if path in choice.lists:
                self._sink.report(
                    "list-delta", f"the list {quoted(path)} again: its entries have no index, so it cannot be added up"
                )
            choice.lists.add(path)

    def _take_call(self, choice: _Choice, call: object) -> None:
        index = call.get("index") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not is_index(index):
            self._sink.report("tool-index", f"a fragment of a tool call has the index {quoted(index)}")
        elif (begun := choice.calls.get(index)) is not None:
            self._continue_call(begun, call)
        else:
            if index != len(choice.calls):
                self._sink.report("tool-index", f"tool call {quoted(index)} begins after {len(choice.calls)} calls")
            self._open_call(choice, index, call)

    def _open_call(self, choice: _Choice, index: int, call: Mapping[str, Any]) -> None:
        kind = "custom" if call.get("type") == "custom" else "function"
        inner, text = call.get(kind), _TEXT_OF[kind]
        inner = inner if isinstance(inner, dict) else {}
        wrong = [name for name in ("id", "type") if not isinstance(call.get(name), str) or not call[name]]
        wrong += [f"{kind}.{name}" for name in ("name", text) if not isinstance(inner.get(name), str)]
        wrong += [f"{kind}.name"] if inner.get("name") == "" else []
        if wrong:
            self._sink.report("tool-open", f"tool call {quoted(index)} begins without {', '.join(wrong)}")
        begun = _Call(str(call.get("id") or ""), str(inner.get("name") or ""), kind, self._sink.place)
        begun.arguments.add(inner.get(text))
        choice.calls[index] = begun

    def _continue_call(self, begun: _Call, call: Mapping[str, Any]) -> None:
        inner = call.get(begun.kind)
        repeated = [name for name in ("id", "type") if name in call]
        repeated += ["name"] if isinstance(inner, dict) and "name" in inner else []
        if repeated or not isinstance(inner, dict):
            what = f"has {', '.join(repeated)} again" if repeated else f"has no {begun.kind}"
            self._sink.report("tool-continued", f"a later fragment of tool call {quoted(call['index'])} {what}")
        if isinstance(inner, dict):
            fragment = inner.get(_TEXT_OF[begun.kind])
            if not isinstance(fragment, str):
                self._sink.report("field", f"{begun.kind}.{_TEXT_OF[begun.kind]} must be a string, not {quoted(fragment)}")
            begun.arguments.add(fragment)


def _unindexed_lists(delta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of lists that openai-python cannot add to: those with an entry that is neither plain nor has an index."""
    inside = [("", delta)]
    while inside:
        prefix, value = inside.pop()
        for name, item in value.items():
            if isinstance(item, dict):
                inside.append((f"{prefix}{name}.", item))
            elif isinstance(item, list) and not all(map(_can_be_added, item)):
                yield prefix + name


def _can_be_added(entry: object) -> bool:
    return isinstance(entry, str | int | float) or (isinstance(entry, dict) and is_index(entry.get("index")))


_TEXT_OF: Final = {"function": "arguments", "custom": "input"}


def _summary_of(choice: _Choice) -> dict[str, Any]:
    calls = [{"name": call.name, "characters": call.arguments.length} for call in choice.calls.values()]
    return {"index": choice.index, "characters": choice.lengths, "tool_calls": calls, "finish_reason": choice.finish}


def _check_own_fields(sink: Sink, value: Mapping[str, Any], what: str) -> None:
    for name in sorted(value.keys() & OWN_FIELDS):
        sink.report("own-field", f"{what} has {name}")


def _check_calls(sink: Sink, calls: Collection[_Call], finish: str | None) -> None:
    if finish == "tool_calls" and not calls:
        sink.report("tool-finish", "the finish reason is tool_calls, and no tool call was sent")
    ids: set[str] = set()
    for call in calls:
        if call.id in ids:
            sink.report("tool-id", f"two tool calls have the id {quoted(call.id)}", place=call.place)
        ids.add(call.id)
        text = call.arguments.text
        if call.kind == "function" and finish != "length" and text and not is_json_object(text):
            sink.report("tool-json", f"the arguments of {quoted(call.name)} are no JSON object: {quoted(text)}", place=call.place)


def check_openai_error(body: Mapping[str, Any], sink: Sink) -> None:
    """Check an error object, in a response's body or in an event."""
    ERROR.check(body["error"], "error", sink)


def check_openai_body(body: Mapping[str, Any], sink: Sink) -> Mapping[str, Any]:
    """Check a `chat.completion` and return what it held."""
    COMPLETION.check(body, "", sink)
    said = body.get("choices")
    choices = [choice for choice in said if isinstance(choice, dict)] if isinstance(said, list) else []
    sink.require(choices, "no-choice", "the completion has no choice")
    _check_own_fields(sink, body, "the completion")
    held = [_check_whole(choice, place, sink) for place, choice in enumerate(choices)]
    usage = body.get("usage")
    if isinstance(usage, dict):
        check_total(sink, usage, "prompt_tokens", "completion_tokens")
    return {"id": body.get("id"), "model": body.get("model"), "choices": held, "usage": usage, "error": None, "ended": "whole"}


def _check_whole(choice: Mapping[str, Any], place: int, sink: Sink) -> dict[str, Any]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if choice.get("index") != place:
        sink.report("choice-order", f"choices[{place}] has the index {quoted(choice.get('index'))}")
    _check_own_fields(sink, message, "the message")
    held = _Choice(place, finish=choice.get("finish_reason"))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        kind = str(call.get("type")) if isinstance(call, dict) else ""
        inner = call.get(kind) if kind in _TEXT_OF else None
        if isinstance(inner, dict):
            whole = _Call(str(call.get("id")), str(inner.get("name")), kind, sink.place)
            whole.arguments.add(inner.get(_TEXT_OF[kind]))
            held.calls[len(held.calls)] = whole
    _check_calls(sink, held.calls.values(), held.finish)
    held.lengths = {name: len(message[name]) if isinstance(message.get(name), str) else 0 for name in held.lengths}
    return _summary_of(held)
