"""Splits what a provider put into one event into chunks of one part each.

The input is an OpenAI-style chunk as parsed JSON, or what LiteLLM's own `ModelResponseStream.model_dump()` gives. The parts of a
choice come in this order: role, thinking, text, refusal, tool calls, audio and images, finish reason; the usage comes last.

Strategy: each reader takes a delta and returns the parts it finds. What is absent or null is skipped; what has a type that
cannot be understood raises `BackendError`, never anything else.

Deliberate differences from the input:

1. Each choice has its role once and first, also when the provider never says it or says it with every event.
2. `reasoning`, `reasoning_content`, the text of `reasoning_details` and Mistral's content lists are `reasoning_content`, once.
3. Empty content is dropped; in a tool call an empty id or name, and `type` without an id or a name.
4. A `function_call` delta, which OpenAI replaced by tool calls in 2023, is a tool call; its id is made from the answer's.
5. A server tool (`srvtoolu_…`) ran at the provider: it is of kind other, and never a call that the client is asked to run.
6. Logprobs without any content beside them go with an empty part of the text; beside a finish reason alone they are dropped.
7. Padding (`obfuscation`), Azure's filter results, Perplexity's cumulative `message` and its citation lists are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, Final, NamedTuple

from luthien_asgi import jsontext
from luthien_asgi.wire.faults import malformed

__all__ = ["split_chunk"]

_Data = dict[str, Any]


class _Part(NamedTuple):
    delta: _Data
    rider: _Data | None = None


_TEXT_RIDER: Final = ("text", "delta")
_OTHER_RIDER: Final = ("other", "delta")
_CHOICES: Final = 128
"""Choices of one answer: the OpenAI API's own limit."""
_TOKEN_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_CACHE_COUNTS: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""LiteLLM's names, and those of some gateways."""
_TOKEN_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")


def split_chunk(data: _Data, seen_roles: set[int]) -> list[_Data]:
    """Return the chunk data of one event, one part each; a chunk without choices when there is nothing in it.

    `seen_roles` is the memory of one stream: an empty set at first, the same set with every call. It holds the choices that have
    begun and, as negative numbers, the tool indices that stand for server tools. Raises `BackendError` for an event that is not
    understood.
    """
    choices = data.get("choices")
    if type(choices) is list and len(choices) == 1 and not data.get("usage"):
        plain = _plain_text(data, choices[0], seen_roles)
        if plain is not None:
            return [plain]
    return _split(data, choices, seen_roles)


def _plain_text(data: _Data, choice: object, seen: set[int]) -> _Data | None:
    """Return the chunk of an event that holds one fragment of text and nothing else, which most of them are."""
    if type(choice) is not dict or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    index, delta = choice.get("index"), choice.get("delta")
    if type(index) is not int or type(delta) is not dict or len(delta) != 1 or index not in seen:
        return None
    content = delta.get("content")
    if type(content) is not str or not content:
        return None
    chunk = _head(data)
    chunk["choices"] = [{"index": index, "delta": delta, "finish_reason": None, "logprobs": None}]
    return chunk


def _split(data: _Data, choices: object, seen: set[int]) -> list[_Data]:
    if choices is not None and not isinstance(choices, list):
        raise malformed()
    head = _head(data)
    chunks = [chunk for choice in choices or () for chunk in _choice_chunks(head, choice, seen)]
    usage = _usage(data)
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    return chunks or [{**head, "choices": []}]


def _head(data: _Data) -> _Data:
    """Return the fields that all chunks of an event share."""
    name, created, model = data.get("id"), data.get("created"), data.get("model")
    head: _Data = {
        "id": name if type(name) is str else "",
        "created": created if type(created) is int else 0,
        "model": model if type(model) is str else "",
        "choices": [],
    }
    fingerprint, tier = data.get("system_fingerprint"), data.get("service_tier")
    if type(fingerprint) is str:
        head["system_fingerprint"] = fingerprint
    if type(tier) is str:
        head["service_tier"] = tier
    return head


def _choice_chunks(head: _Data, choice: object, seen: set[int]) -> Iterator[_Data]:
    if not isinstance(choice, dict):
        raise malformed()
    index, delta, finish = _number(choice.get("index"), 0), choice.get("delta"), _finish_reason(choice)
    if index >= _CHOICES:
        raise malformed()
    if delta is None:
        delta = {}
    if not isinstance(delta, dict):
        raise malformed()
    parts, logprobs = list(_parts(head, delta, index, seen)), _logprobs(choice)
    if logprobs is not None and finish is None and not parts:
        parts.append(_Part({"content": ""}, _rider(_TEXT_RIDER)))
    if index not in seen and (parts or finish or delta.get("role")):
        seen.add(index)
        yield _chunk(head, index, _Part({"role": "assistant"}))
    owner = next((part for part in parts if "content" in part.delta or "refusal" in part.delta), parts[0] if parts else None)
    for part in parts:
        yield _chunk(head, index, part, logprobs=logprobs if part is owner else None)
    if finish is not None:
        yield _chunk(head, index, _Part({}), finish=finish)


def _logprobs(choice: _Data) -> _Data | None:
    """Return a choice's logprobs if they say anything; they belong to its text or refusal, or else to its first part."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict) or not any(logprobs.values()):
        return None
    if not all(_is_logprob(token) for name in ("content", "refusal") for token in _items(logprobs.get(name))):
        raise malformed()
    return logprobs


def _is_logprob(token: object) -> bool:
    """Tell whether the fields of one token's log probability have their types, as far as they are there."""
    if not isinstance(token, dict) or not isinstance(token.get("token"), str | None):
        return False
    number, said, top = token.get("logprob"), token.get("bytes"), token.get("top_logprobs")
    sound = type(number) in {int, float, NoneType} and isinstance(said, list | None) and isinstance(top, list | None)
    return sound and all(map(_is_logprob, top or ()))


def _chunk(head: _Data, index: int, part: _Part, *, finish: str | None = None, logprobs: _Data | None = None) -> _Data:
    chunk = {**head, "choices": [{"index": index, "delta": part.delta, "finish_reason": finish, "logprobs": logprobs}]}
    if part.rider is not None:
        chunk["provider_specific_fields"] = part.rider
    return chunk


def _rider(what: tuple[str, str]) -> _Data:
    return {"kind": what[0], "phase": what[1]}


def _parts(head: _Data, delta: _Data, index: int, seen: set[int]) -> Iterator[_Part]:
    yield from _thinking(delta)
    yield from _content(delta)
    refusal = _text(delta.get("refusal"))
    if refusal:
        yield _Part({"refusal": refusal})
    yield from _tool_calls(delta, index, seen)
    yield from _function_call(head, delta, index)
    yield from _media(delta)


def _thinking(delta: _Data) -> list[_Part]:
    text = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning")) or _details_text(delta.get("reasoning_details"))
    parts = [part for block in _items(delta.get("thinking_blocks")) for part in _thinking_block(block)]
    if text and not any("reasoning_content" in part.delta for part in parts):
        parts.insert(0, _Part({"reasoning_content": text}))
    return parts


def _thinking_block(block: object) -> Iterator[_Part]:
    if not isinstance(block, dict):
        raise malformed()
    if block.get("type") == "redacted_thinking":
        yield _Part({"thinking_blocks": [{"type": "redacted_thinking", "data": _text(block.get("data"))}]})
        return
    text, signature = _text(block.get("thinking")), _text(block.get("signature"))
    thinking = {"type": "thinking", "thinking": text} | ({"signature": signature} if signature else {})
    if text:
        yield _Part({"reasoning_content": text, "thinking_blocks": [thinking]})
    elif signature:
        yield _Part({"thinking_blocks": [thinking]})


def _details_text(details: object) -> str:
    found = [entry for entry in _items(details) if isinstance(entry, dict)]
    return "".join(_text(entry.get("text")) or _text(entry.get("summary")) for entry in found)


def _content(delta: _Data) -> list[_Part]:
    content = delta.get("content")
    parts = _content_list(content if isinstance(content, list) else [_text(content)])
    annotations = _items(delta.get("annotations"))
    if not all(isinstance(one, dict) and isinstance(one.get("type"), str | None) for one in annotations):
        raise malformed()
    if annotations:
        first = next((part for part in parts if "content" in part.delta), None)
        if first is None:
            parts.append(_Part({"annotations": annotations}))
        else:
            first.delta["annotations"] = annotations
    return [*parts, *_citation(delta.get("provider_specific_fields"))]


def _content_list(content: list[Any]) -> list[_Part]:
    """Return the parts of a content list, in its order: Mistral streams thinking so."""
    parts = []
    for entry in content:
        field, text = ("content", entry) if isinstance(entry, str) else _listed(entry)
        if text:
            parts.append(_Part({field: text}))
    return parts


def _listed(entry: object) -> tuple[str, str]:
    if not isinstance(entry, dict):
        raise malformed()
    thinking = entry.get("thinking")
    if isinstance(thinking, list):
        return "reasoning_content", "".join(_listed(item)[1] for item in thinking)
    if entry.get("type") == "thinking":
        return "reasoning_content", _text(thinking)
    return "content", _text(entry.get("text"))


def _citation(fields: object) -> Iterator[_Part]:
    """Return the citation that LiteLLM found in an Anthropic stream, as the side data of the text it is."""
    citation = fields.get("citation") if isinstance(fields, dict) else None
    if isinstance(citation, dict):
        event = {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": citation}}
        yield _Part({}, {**_rider(_TEXT_RIDER), "anthropic": event})


def _tool_calls(delta: _Data, choice: int, seen: set[int]) -> Iterator[_Part]:
    for position, call in enumerate(_items(delta.get("tool_calls"))):
        if call is None:
            continue
        if not isinstance(call, dict):
            raise malformed()
        index, name = _number(call.get("index"), position), _text(call.get("id"))
        if _is_server_tool(choice, index, name, seen):
            yield _Part({}, _rider(_OTHER_RIDER))
        else:
            yield from _tool_call(call, index, name)


def _is_server_tool(choice: int, index: int, name: str, seen: set[int]) -> bool:
    mark = -1 - (choice << 32 | index)
    if name.startswith("srvtoolu_"):
        seen.add(mark)
    elif name:
        seen.discard(mark)
    return mark in seen


def _tool_call(call: _Data, index: int, name: str) -> Iterator[_Part]:
    kind, argument = ("custom", "input") if isinstance(call.get("custom"), dict) else ("function", "arguments")
    body = call.get(kind)
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise malformed()
    label = _text(body.get("name"))
    if not (name or body):
        return
    opening: _Data = {"id": name} if name else {}
    if name or label:
        opening["type"] = kind
    inside = {"name": label, argument: _written(body.get(argument))} if label else {argument: _written(body.get(argument))}
    yield _Part({"tool_calls": [{"index": index, **opening, kind: inside}]})


def _function_call(head: _Data, delta: _Data, choice: int) -> Iterator[_Part]:
    call = delta.get("function_call")
    if call is None:
        return
    if not isinstance(call, dict):
        raise malformed()
    name = f"call_{head['id']}_{choice}" if call.get("name") else ""
    yield from _tool_call({"function": call}, 0, name)


def _media(delta: _Data) -> Iterator[_Part]:
    audio, images = delta.get("audio"), _items(delta.get("images"))
    if isinstance(audio, dict) and audio:
        yield _Part({"audio": audio})
    if images:
        yield _Part({"images": images}, _rider(_OTHER_RIDER))


def _finish_reason(choice: _Data) -> str | None:
    reason = _text(choice.get("finish_reason"))
    return "tool_calls" if reason == "function_call" else reason or None


def _usage(data: _Data) -> _Data | None:
    """Return the usage, or None; one whose counts are not whole numbers is no usage; a detail that is none is left out."""
    groq = data.get("x_groq")
    usage = data.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
    if not isinstance(usage, dict) or not usage:
        return None
    counts = all(usage.get(field) is None or _is_count(usage[field]) for field in (*_TOKEN_COUNTS, *_CACHE_COUNTS))
    details = all(isinstance(usage.get(field), dict | None) for field in _TOKEN_DETAILS)
    if not counts or not details:
        return None
    return usage | {field: _whole_counts(usage[field]) for field in _TOKEN_DETAILS if usage.get(field)}


def _whole_counts(details: _Data) -> _Data:
    return {name: count for name, count in details.items() if _is_count(count)}


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed()
    return value


def _written(value: object) -> str:
    """Return a tool call's arguments as text; some providers send the object itself."""
    return jsontext.dumps(value).decode() if isinstance(value, dict | list) else _text(value)


def _items(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise malformed()
    return value


def _number(value: object, default: int) -> int:
    """Return an index; digits in a string are one too."""
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if type(value) is int and 0 <= value < 2**31:
        return value
    raise malformed()
