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
6. Logprobs without any content beside them go with an empty part of the text, or with the finish reason.
7. A field of the provider's own goes into the rider (`luthien_asgi.extras`) of the part that it stands beside; null says nothing.
   What its machinery fills in goes with the role or the finish reason where the event has one, so that it does not depend on what
   a policy makes of the text; thinking in other words goes with the thinking.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, Final

import msgspec

from luthien_asgi.wire.faults import malformed, provider_error
from luthien_asgi.wire.own_fields import CHOICE, CHUNK, DELTA, Own, own_fields
from luthien_asgi.wire.split_parts import NOTHING, TEXT_RIDER, SplitPart, items_of, number, parts_of, text_of

__all__ = ["split_chunk"]

_Data = dict[str, Any]


_BEGIN: Final = SplitPart({"role": "assistant"})
_THINKING: Final = frozenset({"reasoning_content", "thinking_blocks"})
_CHOICES: Final = 128
"""Choices of one answer: the OpenAI API's own limit."""
_TOKEN_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_CACHE_COUNTS: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""LiteLLM's names, and those of some gateways."""
_TOKEN_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")


def split_chunk(data: _Data, seen_roles: set[int], *, extras: bool = True) -> list[_Data]:
    """Return the chunk data of one event, one part each; a chunk without choices when there is nothing in it.

    `seen_roles` is the memory of one stream: an empty set at first, the same set with every call. It holds the choices that have
    begun and, as negative numbers, the tool indices that stand for server tools. Without `extras` fields that are not known are
    left out: those of LiteLLM's classes are not the provider's. Raises `BackendError` for an event that is not understood.
    """
    choices = data.get("choices")
    if type(choices) is list and len(choices) == 1 and not data.get("usage"):
        plain = _plain_text(data, choices[0], seen_roles, extras)
        if plain is not None:
            return [plain]
    return _split(data, choices, seen_roles, extras)


def _plain_text(data: _Data, choice: object, seen: set[int], extras: bool) -> _Data | None:
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
    if not (CHUNK.issuperset(data) and CHOICE.issuperset(choice)) and extras:
        if "error" in choice:
            return None
        levels = {"chunk": own_fields(data, CHUNK), "choice": own_fields(choice, CHOICE)}
        if said := {level: fields for level, fields in levels.items() if fields}:
            chunk["provider_specific_fields"] = {"openai": said}
    return chunk


def _split(data: _Data, choices: object, seen: set[int], extras: bool) -> list[_Data]:
    if choices is not None and not isinstance(choices, list):
        raise malformed()
    head = _head(data)
    top = own_fields(data, CHUNK) if extras else {}
    chunks: list[_Data] = []
    for choice in choices or ():
        said = list(_choice_chunks(head, choice, seen, Own(chunk=top) if extras else None))
        if said:
            chunks += said
            top = {}
    usage = _usage(data)
    if usage is not None:
        counted = {name: count for name, count in usage.items() if count is not None or name not in _TOKEN_COUNTS}
        own = Own(chunk=top, usage=counted) if extras else Own()
        chunks.append(_chunk_without_choice(head, own.rider(), _dumpable(usage)))
    elif top:
        chunks.append(_chunk_without_choice(head, Own(chunk=top).rider()))
    return chunks or [{**head, "choices": []}]


def _chunk_without_choice(head: _Data, rider: _Data | None, usage: _Data | None = None) -> _Data:
    chunk = {**head, "choices": []}
    if usage is not None:
        chunk["usage"] = usage
    if rider is not None:
        chunk["provider_specific_fields"] = rider
    return chunk


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


def _choice_chunks(head: _Data, choice: object, seen: set[int], own: Own | None) -> Iterator[_Data]:
    if not isinstance(choice, dict):
        raise malformed()
    if choice.get("error"):  # OpenRouter's form
        raise provider_error(choice["error"], wire="openai")
    index, delta, finish = number(choice.get("index"), 0), choice.get("delta"), _finish_reason(choice)
    if index >= _CHOICES:
        raise malformed()
    if delta is None:
        delta = {}
    if not isinstance(delta, dict):
        raise malformed()
    parts, logprobs = list(parts_of(head, delta, index, seen, extras=own is not None)), _logprobs(choice)
    if logprobs is not None and finish is None and not parts:
        parts.append(SplitPart({"content": ""}, dict(TEXT_RIDER)))
    owner = next((at for at, part in enumerate(parts) if "content" in part.delta or "refusal" in part.delta), 0)
    begin = _BEGIN if index not in seen else None
    end = NOTHING if finish is not None else None
    if own is not None:
        own = own._replace(choice=own_fields(choice, CHOICE), delta=own_fields(delta, DELTA))
        begin, end = _placed(own, parts, owner, begin=begin, end=end)
        if begin is not None and delta.get("role"):
            opening = "" if isinstance(delta.get("content"), str) else None
            begin = begin.beside(Own(form={"opening": opening, "alone": not parts and end is None}))
    if begin is not None and (parts or finish or delta.get("role") or begin.rider):
        seen.add(index)
        yield _chunk(head, index, begin)
    for at, part in enumerate(parts):
        yield _chunk(head, index, part, logprobs=logprobs if at == owner else None)
    if end is not None:
        yield _chunk(head, index, end, finish=finish, logprobs=None if parts else logprobs)


def _placed(
    own: Own, parts: list[SplitPart], owner: int, *, begin: SplitPart | None, end: SplitPart | None
) -> tuple[SplitPart | None, SplitPart | None]:
    """Put a provider's own fields beside the parts that they belong to; return what begins and what ends the choice.

    A part of their own is appended where the event has nothing else to carry them.
    """
    thinking, about, harmless = own.sorted()
    carrier = owner if parts else None
    if thinking.delta:
        at = next((at for at, part in enumerate(parts) if part.delta.keys() & _THINKING), None)
        _put(parts, at, thinking)
    if any(about):
        if carrier is None and end is not None:
            end = end.beside(about)
        elif carrier is None and begin is not None:
            begin = begin.beside(about)
        else:
            carrier = _put(parts, carrier, about)
    if any(harmless):
        if end is not None:
            end = end.beside(harmless)
        elif begin is not None:
            begin = begin.beside(harmless)
        else:
            _put(parts, carrier, harmless)
    return begin, end


def _put(parts: list[SplitPart], at: int | None, own: Own) -> int:
    if at is None:
        parts.append(NOTHING)
        at = len(parts) - 1
    parts[at] = parts[at].beside(own)
    return at


def _logprobs(choice: _Data) -> _Data | None:
    """Return a choice's logprobs if they say anything; they belong to its text or refusal, or else to its first part."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict) or not any(logprobs.values()):
        return None
    if not all(_is_logprob(token) for name in ("content", "refusal") for token in items_of(logprobs.get(name))):
        raise malformed()
    return logprobs


def _is_logprob(token: object) -> bool:
    """Tell whether the fields of one token's log probability have their types, as far as they are there."""
    if not isinstance(token, dict) or not isinstance(token.get("token"), str | None):
        return False
    number, said, top = token.get("logprob"), token.get("bytes"), token.get("top_logprobs")
    sound = type(number) in {int, float, NoneType} and isinstance(said, list | None) and isinstance(top, list | None)
    return sound and all(map(_is_logprob, top or ()))


def _chunk(head: _Data, index: int, part: SplitPart, *, finish: str | None = None, logprobs: _Data | None = None) -> _Data:
    chunk = {**head, "choices": [{"index": index, "delta": dict(part.delta), "finish_reason": finish, "logprobs": logprobs}]}
    if part.rider is not None:
        chunk["provider_specific_fields"] = part.rider
    return chunk


def _finish_reason(choice: _Data) -> str | None:
    reason = text_of(choice.get("finish_reason"))
    return "tool_calls" if reason == "function_call" else reason or None


def _choice_usage(choices: object) -> object:
    """Return the usage that Moonshot puts into the choice."""
    return next((choice["usage"] for choice in choices if choice.get("usage")), None) if isinstance(choices, list) else None


def _usage(data: _Data) -> _Data | None:
    """Return the usage, or None; one whose counts are not whole numbers is no usage; a detail that is none is left out."""
    groq = data.get("x_groq")
    usage = data.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None) or _choice_usage(data.get("choices"))
    if not isinstance(usage, dict) or not usage:
        return None
    counts = all(usage.get(field) is None or _is_count(usage[field]) for field in (*_TOKEN_COUNTS, *_CACHE_COUNTS))
    details = all(isinstance(usage.get(field), dict | None) for field in _TOKEN_DETAILS)
    if not counts or not details:
        return None
    return usage | {field: _whole_counts(usage[field]) for field in _TOKEN_DETAILS if usage.get(field)}


def _dumpable(usage: _Data) -> _Data:
    """Return a usage that LiteLLM's object can be dumped with: one with half a character somewhere is its counts alone."""
    try:
        msgspec.json.encode(usage)
    except UnicodeEncodeError:
        return {name: usage[name] for name in (*_TOKEN_COUNTS, *_CACHE_COUNTS) if name in usage}
    return usage


def _whole_counts(details: _Data) -> _Data:
    return {name: count for name, count in details.items() if _is_count(count)}


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
