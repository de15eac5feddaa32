"""The parts of one delta: thinking, text, refusal, tool calls, audio and images, in this order.

Strategy: each reader takes a delta and returns the parts it finds. What is absent or null is skipped; what has a type that
cannot be understood raises `BackendError`, never anything else. What is deliberately different from the delta is numbered in
`luthien_asgi.wire.split`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from luthien_asgi import jsontext
from luthien_asgi.wire.faults import malformed
from luthien_asgi.wire.own_fields import CALL, INNER, Own, own_fields

__all__ = ["NOTHING", "TEXT_RIDER", "SplitPart", "items_of", "number", "parts_of", "text_of"]

_Data = dict[str, Any]


class SplitPart(NamedTuple):
    """One part of a delta, and the rider of its chunk."""

    delta: Mapping[str, Any]
    rider: _Data | None = None

    def beside(self, own: Own) -> SplitPart:
        """Return the part with a provider's own fields beside it."""
        return self._replace(rider=own.rider(self.rider))


NOTHING: Final = SplitPart({})
TEXT_RIDER: Final = {"kind": "text", "phase": "delta"}
_NUMBERS: Final = 2**31
"""Numbers that a provider can give; the one after them is a `function_call`'s, which is none of the tool calls beside it."""
_LEGACY: Final = Own(form={"function_call": True})
_OTHER_RIDER: Final = {"kind": "other", "phase": "delta"}


def parts_of(head: _Data, delta: _Data, index: int, seen: set[int], *, extras: bool) -> Iterator[SplitPart]:
    """Return the parts of a choice's delta; `head` has the answer's id, `seen` is the memory of `split_chunk`.

    With `extras` a call's own fields ride along. Raises `BackendError`.
    """
    yield from _thinking(delta)
    yield from _content(delta)
    refusal = text_of(delta.get("refusal"))
    if refusal:
        yield SplitPart({"refusal": refusal})
    yield from _tool_calls(delta, index, seen, extras=extras)
    yield from _function_call(head, delta, index, extras=extras)
    yield from _media(delta)


def _thinking(delta: _Data) -> list[SplitPart]:
    text = (
        text_of(delta.get("reasoning_content"))
        or _string(delta.get("reasoning"))
        or _details_text(delta.get("reasoning_details"))
    )
    parts = [part for block in items_of(delta.get("thinking_blocks")) for part in _thinking_block(block)]
    if text and not any("reasoning_content" in part.delta for part in parts):
        parts.insert(0, SplitPart({"reasoning_content": text}))
    return parts


def _thinking_block(block: object) -> Iterator[SplitPart]:
    if not isinstance(block, dict):
        raise malformed()
    if block.get("type") == "redacted_thinking":
        yield SplitPart({"thinking_blocks": [{"type": "redacted_thinking", "data": text_of(block.get("data"))}]})
        return
    text, signature = text_of(block.get("thinking")), text_of(block.get("signature"))
    thinking = {"type": "thinking", "thinking": text} | ({"signature": signature} if signature else {})
    if text:
        yield SplitPart({"reasoning_content": text, "thinking_blocks": [thinking]})
    elif signature:
        yield SplitPart({"thinking_blocks": [thinking]})


def _details_text(details: object) -> str:
    found = [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []
    return "".join(_string(entry.get("text")) or _string(entry.get("summary")) for entry in found)


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _content(delta: _Data) -> list[SplitPart]:
    content = delta.get("content")
    parts = _content_list(content if isinstance(content, list) else [text_of(content)])
    annotations = items_of(delta.get("annotations"))
    if not all(isinstance(one, dict) and isinstance(one.get("type"), str | None) for one in annotations):
        raise malformed()
    if annotations:
        first = next((part for part in parts if "content" in part.delta), None)
        if first is None:
            parts.append(SplitPart({"annotations": annotations}))
        else:
            parts[parts.index(first)] = first._replace(delta={**first.delta, "annotations": annotations})
    return [*parts, *_citation(delta.get("provider_specific_fields"))]


def _content_list(content: list[Any]) -> list[SplitPart]:
    """Return the parts of a content list, in its order: Mistral streams thinking so."""
    parts = []
    for entry in content:
        field, text = ("content", entry) if isinstance(entry, str) else _listed(entry)
        if text:
            parts.append(SplitPart({field: text}))
    return parts


def _listed(entry: object) -> tuple[str, str]:
    if not isinstance(entry, dict):
        raise malformed()
    thinking = entry.get("thinking")
    if isinstance(thinking, list):
        return "reasoning_content", "".join(_listed(item)[1] for item in thinking)
    if entry.get("type") == "thinking":
        return "reasoning_content", text_of(thinking)
    return "content", text_of(entry.get("text"))


def _citation(fields: object) -> Iterator[SplitPart]:
    """Return the citation that LiteLLM found in an Anthropic stream, as the side data of the text it is."""
    citation = fields.get("citation") if isinstance(fields, dict) else None
    if isinstance(citation, dict):
        event = {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": citation}}
        yield SplitPart({}, {**TEXT_RIDER, "anthropic": event})


def _tool_calls(delta: _Data, choice: int, seen: set[int], *, extras: bool) -> Iterator[SplitPart]:
    for position, call in enumerate(items_of(delta.get("tool_calls"))):
        if call is None:
            continue
        if not isinstance(call, dict):
            raise malformed()
        index, name = number(call.get("index"), position), text_of(call.get("id"))
        if _is_server_tool(choice, index, name, seen):
            yield SplitPart({}, dict(_OTHER_RIDER))
        else:
            yield from _tool_call(call, index, name, extras=extras)


def _is_server_tool(choice: int, index: int, name: str, seen: set[int]) -> bool:
    mark = -1 - (choice << 32 | index)
    if name.startswith("srvtoolu_"):
        seen.add(mark)
    elif name:
        seen.discard(mark)
    return mark in seen


def _tool_call(call: _Data, index: int, name: str, *, extras: bool, form: Own = Own()) -> Iterator[SplitPart]:  # noqa: B008 - immutable
    kind, argument = ("custom", "input") if isinstance(call.get("custom"), dict) else ("function", "arguments")
    body = call.get(kind)
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise malformed()
    label = text_of(body.get("name"))
    own = Own(call=own_fields(call, CALL), body=own_fields(body, INNER)) if extras else Own()
    if not (name or body or own.call):
        return
    opening: _Data = {"id": name} if name else {}
    if name or label:
        opening["type"] = kind
    inside = {"name": label, argument: _written(body.get(argument))} if label else {argument: _written(body.get(argument))}
    yield SplitPart({"tool_calls": [{"index": index, **opening, kind: inside}]}, own._replace(form=form.form).rider())


def _function_call(head: _Data, delta: _Data, choice: int, *, extras: bool) -> Iterator[SplitPart]:
    call = delta.get("function_call")
    if call is None:
        return
    if not isinstance(call, dict):
        raise malformed()
    name = f"call_{head['id']}_{choice}" if call.get("name") else ""
    yield from _tool_call({"function": call}, _NUMBERS, name, extras=False, form=_LEGACY if extras else Own())


def _media(delta: _Data) -> Iterator[SplitPart]:
    audio, images = delta.get("audio"), items_of(delta.get("images"))
    if isinstance(audio, dict) and audio:
        # What is added up has to be text.
        text_of(audio.get("data"))
        text_of(audio.get("transcript"))
        yield SplitPart({"audio": audio})
    if images:
        yield SplitPart({"images": images}, dict(_OTHER_RIDER))


def text_of(value: object) -> str:
    """Return a text; null is an empty one. Raises `BackendError` for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed()
    return value


def _written(value: object) -> str:
    """Return a tool call's arguments as text; some providers send the object itself."""
    return jsontext.dumps(value).decode() if isinstance(value, dict | list) else text_of(value)


def items_of(value: object) -> list[Any]:
    """Return a list; null is an empty one. Raises `BackendError` for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise malformed()
    return value


def number(value: object, default: int) -> int:
    """Return an index; digits in a string are one too, null is the default. Raises `BackendError` for anything else."""
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if type(value) is int and 0 <= value < _NUMBERS:
        return value
    raise malformed()
