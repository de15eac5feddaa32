"""The rules of the OpenAI Responses wire, for a stream.

Strategy: what grows is a `_Text`: the text of a part, or the arguments of a call. Deltas add to it, and everything that repeats
it (the done event, the part, the item, the response) must equal it. So memory is that of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.testing.framing import Frame
from luthien_asgi.testing.reading_events import Grown, check_name, is_index, read_event
from luthien_asgi.testing.responses_body import check_arguments, check_usage
from luthien_asgi.testing.shapes_responses import EVENTS
from luthien_asgi.testing.violations import Sink, quoted

__all__ = ["ResponsesGrammar"]

_LAST: Final[Mapping[str, str]] = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
_STATUS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "response.created": ("in_progress", "queued"),
    "response.in_progress": ("in_progress",),
    "response.queued": ("queued",),
    **{event: (status,) for event, status in _LAST.items()},
}
_PART_TEXTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "response.output_text": ("content", "output_text", "text"),
    "response.refusal": ("content", "refusal", "refusal"),
    "response.reasoning_text": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text": ("summary", "summary_text", "text"),
}
"""Events of a part's text: in which list of the item the part is, its type, and the field of the text."""
_ITEM_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "response.function_call_arguments": ("function_call", "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", "input"),
    "response.mcp_call_arguments": ("mcp_call", "arguments"),
    "response.code_interpreter_call_code": ("code_interpreter_call", "code"),
}
"""Events of an item's own text: the item's type, and the field of the text."""
_TEXT_FIELD: Final[Mapping[str, str]] = {kind: name for _, kind, name in _PART_TEXTS.values()}
_ITEM_FIELD: Final[Mapping[str, str]] = dict(_ITEM_TEXTS.values())
_HALF: Final = re.compile("[\ud800-\udfff]")
_INDEX_OF: Final[Mapping[str, str]] = {"content": "content_index", "summary": "summary_index"}


@dataclass(slots=True)
class _Text:
    """A part of an item, or the item's own text."""

    type: str
    grown: Grown = field(default_factory=Grown)
    done: bool = False
    """The part is done."""
    whole: bool = False
    """Its text's done event came."""
    deltas: bool = False


@dataclass(slots=True)
class _Item:
    index: int
    added: Mapping[str, Any]
    own: _Text
    parts: dict[str, list[_Text]] = field(default_factory=lambda: {"content": [], "summary": []})
    done: Mapping[str, Any] | None = None

    @property
    def type(self) -> str:
        return str(self.added.get("type"))


class ResponsesGrammar:
    """The rules over one stream."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._items: list[_Item] = []
        self._sequence = 0
        self._identity: dict[str, Any] = {}
        self._last: Mapping[str, Any] = {}
        self._calls: set[str] = set()
        self._events = 0
        self._error: Any = None
        self._ended = ""

    def take(self, frame: Frame) -> None:
        """Take an event."""
        sink = self._sink
        event = read_event(frame, sink)
        if event is None:
            return
        check_name(frame, event, sink)
        kind = event.get("type")
        if self._ended and not (self._ended == "an error" and kind == "response.failed"):
            sink.report("after-end", f"{quoted(kind)} after {self._ended}")
            return
        self._check_sequence(event)
        self._events += 1
        if self._events == 1 and kind not in ("response.created", "error"):
            sink.report("created-first", f"the stream begins with {quoted(kind)}")
        if not isinstance(kind, str) or kind not in EVENTS:
            sink.report("unknown-type", f"an event of type {quoted(kind)}, which the protocol does not know")
            return
        EVENTS[kind].check(event, "", sink)
        self._dispatch(kind, event)

    def end(self) -> None:
        """The stream is over."""
        if not self._ended:
            self._sink.report(
                "not-ended", "the stream ends without response.completed, .incomplete or .failed, and without an error"
            )

    def summary(self) -> Mapping[str, Any]:
        """Return what the stream held."""
        return {
            **{name: self._identity.get(name) for name in ("id", "model")},
            "items": [_summary_of(item) for item in self._items],
            "status": self._last.get("status"),
            "usage": self._last.get("usage"),
            "error": self._error or self._last.get("error"),
            "ended": self._ended or "cut off",
        }

    def _check_sequence(self, event: Mapping[str, Any]) -> None:
        number = event.get("sequence_number")
        if number != self._sequence:
            self._sink.report("sequence", f"sequence_number is {quoted(number)} where {self._sequence} is due")
        self._sequence = (number if is_index(number) else self._sequence) + 1

    def _dispatch(self, kind: str, event: Mapping[str, Any]) -> None:
        stem, _, word = kind.rpartition(".")
        if kind in _STATUS_OF:
            self._take_response(kind, event)
        elif kind == "error":
            self._ended, self._error = "an error", event.get("error") or event.get("message")
            if self._error is None:
                self._sink.report("field", "message is missing")
        elif kind == "response.output_item.added":
            self._add_item(event)
        elif "output_index" in event and (item := self._item_of(event)) is not None:
            if stem in _PART_TEXTS:
                self._part_text(item, event, stem, word)
            elif stem in _ITEM_TEXTS:
                self._item_text(item, event, stem, word)
            else:
                _HANDLERS.get(kind, ResponsesGrammar._state)(self, item, event)

    # --- the response -----------------------------------------------------------------------------------------------------

    def _take_response(self, kind: str, event: Mapping[str, Any]) -> None:
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        self._sink.require(kind != "response.created" or not self._identity, "created-twice", "response.created again")
        self._check_identity(response)
        if response.get("status") not in _STATUS_OF[kind]:
            self._sink.report("status", f"the status in {kind} is {quoted(response.get('status'))}")
        if kind in _LAST:
            self._last, self._ended = response, kind
            self._check_output(response, kind)

    def _check_identity(self, response: Mapping[str, Any]) -> None:
        said = {name: response.get(name) for name in ("id", "model", "created_at")}
        self._identity = self._identity or said
        for name, value in said.items():
            if value != self._identity[name]:
                self._sink.report("identity", f"{name} was {quoted(self._identity[name])} and is {quoted(value)}")
                self._identity[name] = value

    def _check_output(self, response: Mapping[str, Any], kind: str) -> None:
        sink, output = self._sink, response.get("output")
        unfinished = [item.index for item in self._items if item.done is None]
        if kind == "response.completed" and unfinished:
            sink.report("item-unfinished", f"the response is completed, and item {unfinished[0]} is not done")
        if kind != "response.failed":
            check_usage(sink, response, required=kind == "response.completed")
            self._compare_output(output if isinstance(output, list) else [])

    def _compare_output(self, output: list[Any]) -> None:
        done = [item.done for item in self._items]
        if len(output) != len(done):
            self._sink.report("output", f"the response's output has {len(output)} items, the stream had {len(done)}")
        for place, (said, item) in enumerate(zip(output, done, strict=False)):
            if item is not None and said != item:
                self._sink.report("output", f"output[{place}] differs from the done item {_difference(said, item)}")

    # --- items ------------------------------------------------------------------------------------------------------------

    def _add_item(self, event: Mapping[str, Any]) -> None:
        index, item = event.get("output_index"), event.get("item")
        if not is_index(index) or index != len(self._items):
            self._sink.report("item-index", f"item {quoted(index)} is added after {len(self._items)} items")
            return
        item = item if isinstance(item, dict) else {}
        if isinstance(call := item.get("call_id"), str) and item.get("type") in ("function_call", "custom_tool_call"):
            self._sink.require(call not in self._calls, "call-id", f"two calls have the call_id {quoted(call)}")
            self._calls.add(call)
        added = _Item(index, item, _Text(str(item.get("type"))))
        added.own.grown.add(item.get(_ITEM_FIELD.get(added.type, "")))
        self._items.append(added)

    def _item_of(self, event: Mapping[str, Any]) -> _Item | None:
        index, said = event.get("output_index"), event.get("item_id")
        item = self._items[index] if is_index(index) and 0 <= index < len(self._items) else None
        if item is None or item.done is not None:
            what = "is done" if item else "was not added"
            self._sink.report("item-not-open", f"{quoted(event['type'])} for item {quoted(index)}, which {what}")
            return None
        if said is not None and said != item.added.get("id"):
            self._sink.report("item-not-open", f"item {index} has the id {quoted(item.added.get('id'))}, not {quoted(said)}")
        return item

    def _item_done(self, item: _Item, event: Mapping[str, Any]) -> None:
        said = event.get("item")
        said = said if isinstance(said, dict) else {}
        item.done = said
        for name in ("type", "id", "call_id", "name"):
            if said.get(name) != item.added.get(name):
                changed = f"{name} was {quoted(item.added.get(name))} and is {quoted(said.get(name))}"
                self._sink.report("item-changed", f"item {item.index}: {changed}")
        own = _ITEM_FIELD.get(item.type)
        if own is not None and item.own.deltas:
            self._compare("item-done", f"{own} of item {item.index}", said.get(own), item.own)
        for where, parts in item.parts.items():
            self._compare_parts(item, where, parts, said.get(where))
        if item.type == "function_call" and said.get("status") != "incomplete":
            check_arguments(self._sink, said)

    def _compare_parts(self, item: _Item, where: str, parts: list[_Text], said: object) -> None:
        listed = said if isinstance(said, list) else []
        if len(listed) != len(parts):
            self._sink.report("item-done", f"item {item.index} has {len(listed)} in {where}, {len(parts)} parts were added")
        for place, (part, whole) in enumerate(zip(parts, listed, strict=False)):
            text = whole.get(_TEXT_FIELD.get(part.type, "")) if isinstance(whole, dict) else None
            self._compare("item-done", f"{where}[{place}] of item {item.index}", text, part)
            self._sink.require(part.done, "item-done", f"{where}[{place}] of item {item.index} is not done")

    # --- parts and texts ----------------------------------------------------------------------------------------------------

    def _part_added(self, item: _Item, event: Mapping[str, Any]) -> None:
        where = _where(event)
        index, part, parts = event.get(_INDEX_OF[where]), event.get("part"), item.parts[where]
        if index != len(parts):
            self._sink.report("part-index", f"part {quoted(index)} of item {item.index} is added after {len(parts)} parts")
            return
        part = part if isinstance(part, dict) else {}
        added = _Text(str(part.get("type")))
        added.grown.add(part.get(_TEXT_FIELD.get(added.type, "")))
        parts.append(added)

    def _part_done(self, item: _Item, event: Mapping[str, Any]) -> None:
        part, said = self._part_of(item, _where(event), event), event.get("part")
        if part is not None:
            part.done = True
            self._sink.require(part.whole or not part.deltas, "text-done", "a part is done whose text is not")
            text = said.get(_TEXT_FIELD.get(part.type, "")) if isinstance(said, dict) else None
            self._compare("part-done", "the text of the done part", text, part)

    def _part_of(self, item: _Item, where: str, event: Mapping[str, Any]) -> _Text | None:
        index, parts = event.get(_INDEX_OF[where]), item.parts[where]
        part = parts[index] if is_index(index) and 0 <= index < len(parts) else None
        if part is None or part.done:
            what = "is done" if part else "was not added"
            message = f"{quoted(event['type'])} for part {quoted(index)} of item {item.index}, which {what}"
            self._sink.report("part-not-open", message)
            return None
        return part

    def _part_text(self, item: _Item, event: Mapping[str, Any], stem: str, word: str) -> None:
        where, kind, name = _PART_TEXTS[stem]
        part = self._part_of(item, where, event)
        if part is None:
            return
        if part.type != kind:
            self._sink.report("delta-fits", f"{event['type']} for a part of type {quoted(part.type)}")
        elif word in {"delta", "done"}:
            self._grow(part, event, name, word)

    def _item_text(self, item: _Item, event: Mapping[str, Any], stem: str, word: str) -> None:
        kind, name = _ITEM_TEXTS[stem]
        if item.type != kind:
            self._sink.report("delta-fits", f"{event['type']} for an item of type {quoted(item.type)}")
        else:
            self._grow(item.own, event, name, word)

    def _grow(self, text: _Text, event: Mapping[str, Any], name: str, word: str) -> None:
        text.deltas = True
        if text.whole:
            self._sink.report("text-done", f"{event['type']} after the text's done event")
        elif word == "delta":
            text.grown.add(event.get("delta"))
        else:
            text.whole = True
            self._compare("text-done", name, event.get(name), text)

    def _compare(self, rule: str, what: str, said: object, text: _Text) -> None:
        added_up = text.grown.text
        if added_up is not None and isinstance(said, str) and said != _paired(added_up) and said != added_up:
            self._sink.report(rule, f"{what} differs from the deltas {_where_texts_differ(said, added_up)}")

    def _state(self, item: _Item, event: Mapping[str, Any]) -> None:
        stem = str(event["type"]).removeprefix("response.").rpartition(".")[0]
        if stem.endswith(("_call", "_tools")) and item.type != stem:
            self._sink.report("delta-fits", f"{event['type']} for an item of type {quoted(item.type)}")

    def _annotation(self, item: _Item, event: Mapping[str, Any]) -> None:
        self._part_of(item, "content", event)


_HANDLERS: Final[Mapping[str, Callable[[ResponsesGrammar, _Item, Mapping[str, Any]], None]]] = {
    "response.output_item.done": ResponsesGrammar._item_done,  # noqa: SLF001 - the class's own table
    "response.content_part.added": ResponsesGrammar._part_added,  # noqa: SLF001
    "response.content_part.done": ResponsesGrammar._part_done,  # noqa: SLF001
    "response.reasoning_summary_part.added": ResponsesGrammar._part_added,  # noqa: SLF001
    "response.reasoning_summary_part.done": ResponsesGrammar._part_done,  # noqa: SLF001
    "response.output_text.annotation.added": ResponsesGrammar._annotation,  # noqa: SLF001
}


def _where(event: Mapping[str, Any]) -> str:
    return "summary" if "summary" in str(event["type"]) else "content"


def _paired(text: str) -> str:
    """Return a text in which halves of a surrogate pair that came in two deltas are the character that they are together."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") if _HALF.search(text) else text


def _difference(said: object, item: Mapping[str, Any]) -> str:
    if not isinstance(said, dict):
        return f"(it is {quoted(said)})"
    names = [name for name in (*item, *said) if said.get(name) != item.get(name)]
    return f"in {quoted(names[0])}" if names else "in which fields it has"


def _where_texts_differ(one: str, other: str) -> str:
    place = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"at character {place}: {quoted(one[place : place + 80])} instead of {quoted(other[place : place + 80])}"


def _summary_of(item: _Item) -> dict[str, Any]:
    lengths = sum(part.grown.length for parts in item.parts.values() for part in parts) + item.own.grown.length
    named = {"name": item.added["name"]} if isinstance(item.added.get("name"), str) else {}
    return {"type": item.type, **named, "characters": lengths}
