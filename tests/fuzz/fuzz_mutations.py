"""What a broken or hostile provider may do to a stream, drawn from a seeded generator.

Strategy: a mutation takes the events and gives events (or packets and gives packets), and writes a word about itself into the
trail. Values are changed at a place that is drawn from all places of an event, so nothing has to know the wires.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any, Final

from fuzz_alike import alike
from fuzz_streams import Event, Stream, thinned

__all__ = ["CANARY", "mutated", "plant"]

CANARY: Final = "CANARY-7f3a91"
"""A word that no policy which denies or replaces may let through; the mutator puts it into content alone."""

_DEEP: Any = {"a": [{"b": {"c": [[[[1]]]]}}]}
_HOSTILE: Final[Sequence[Any]] = (
    None, True, False, 0, -1, 1, 2, 7, 1.5, -0.0, 1e308, 2**31, -(2**31), 2**53 + 1, 2**63, -(2**63), 10**30,
    "", " ", "0", "1", "null", "text", "assistant", "tool_use", "text_delta", "message_start", "error", "srvtoolu_1",
    "stop", "tool_calls", "length", "end_turn", "refusal", "\x00", "\ud800", "\udfff x", "a\r\nb", "data: x\n\n", "\u2028",
    "{", "{}", "[]", "\"", "x" * 3000, "\U0001f600", [], {}, [None], [{}], [[]], [1], ["x"], {"type": "text"}, {"index": 0},
    {"content": "x"}, {"text": 1}, {"error": {"message": "x"}}, _DEEP,
)  # fmt: skip
_NAMES: Final = (
    "type", "index", "id", "delta", "content", "text", "error", "usage", "role", "message", "content_block", "finish_reason",
    "stop_reason", "choices", "tool_calls", "function", "custom", "arguments", "name", "input", "logprobs", "annotations",
    "citations", "citation", "refusal", "thinking", "signature", "reasoning", "reasoning_content", "reasoning_details",
    "thinking_blocks", "audio", "images", "partial_json", "data", "x_groq", "object", "created", "model", "caller", "container",
    "context_management", "provider_specific_fields", "function_call", "service_tier", "system_fingerprint", "output_tokens",
    "prompt_tokens_details", "to", "from", "content_filter_results", "moderation", "obfuscation", "phase", "kind",
)  # fmt: skip
_LOGPROB: Final = {"token": "no", "logprob": -0.5, "bytes": None, "top_logprobs": []}
_EXTRA_EVENTS: Final[Sequence[Event]] = (
    Event("ping", {"type": "ping"}),
    Event("", b"[DONE]"),
    Event("", b""),
    Event("", b"{"),
    Event("message_stop", {"type": "message_stop"}),
    Event("message_start", {"type": "message_start"}),
    Event("", {"choices": []}),
    Event("", {"error": {"message": "broken", "type": "server_error"}}),
    Event("error", {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
    Event("future_event", {"type": "future_event", "value": {"x": 1}}),
    Event("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "future", "x": 1}}),
    Event("content_block_stop", {"type": "content_block_stop", "index": 0}),
    Event("", {"choices": [{"index": 3, "delta": {"content": "third"}}]}),
    Event("", {"choices": [{"index": 0, "delta": {"reasoning_content": "late"}}]}),
    Event("", {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}),
    Event("", {"choices": [{"index": 0, "delta": {"refusal": "no"}, "logprobs": {"refusal": [_LOGPROB]}}]}),
)

_Place = tuple[Any, Any]
"""A dict or list, and a key of it."""


def mutated(streams: Sequence[Stream], random: Random, *, canary: bool) -> tuple[Stream, list[bytes], list[str]]:
    """Return the stream that was drawn, the packets that became of it, and what was done to it."""
    stream = random.choice(streams)
    trail: list[str] = [stream.name]
    events = thinned(stream.events, random)
    for _ in range(random.choice((0, 1, 1, 1, 1, 2, 2, 4))):
        mutate = random.choice(_ON_EVENTS)
        events = mutate(events, random, trail, streams) or events
    if random.random() < 0.6:
        events = alike(events, random, trail)
    if canary:
        events = plant(events, random, trail)
    if random.random() < 0.2:
        events = random.choice(_ON_ORDER)(events, random, trail, streams) or events
    data = b"".join(event.encoded() for event in events)
    if random.random() < 0.15:
        data = _break_bytes(data, random, trail)
    return stream, _packets(data, events, random), trail


# --- values ----------------------------------------------------------------------------------------------------------------


def _places(value: Any) -> Iterator[_Place]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _touched(events: list[Event], random: Random) -> tuple[list[Event], Any, _Place] | None:
    """Return a copy of the events in which one may be edited, its data, and a place in it."""
    candidates = [place for place, event in enumerate(events) if isinstance(event.data, dict) and event.data]
    if not candidates:
        return None
    at = random.choice(candidates)
    data = copy.deepcopy(events[at].data)
    place = random.choice(list(_places(data)))
    return [*events[:at], Event(events[at].name, data), *events[at + 1 :]], data, place


_Trail = list[str]
_Mutation = Callable[[list[Event], Random, _Trail, Sequence[Stream]], list[Event] | None]


def _replace(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if (touched := _touched(events, random)) is None:
        return None
    new, _, (holder, key) = touched
    holder[key] = copy.deepcopy(random.choice(_HOSTILE))
    trail.append(f"{key} = {str(holder[key])[:40]!r}")
    return new


def _remove(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if (touched := _touched(events, random)) is None:
        return None
    new, _, (holder, key) = touched
    del holder[key]
    trail.append(f"del {key}")
    return new


def _add(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if (touched := _touched(events, random)) is None:
        return None
    new, _, (holder, _) = touched
    value, name = copy.deepcopy(random.choice(_HOSTILE)), random.choice(_NAMES)
    if isinstance(holder, dict):
        holder[name] = value
    else:
        holder.append(value)
    trail.append(f"add {name} = {str(value)[:40]!r}")
    return new


def _wrap(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if (touched := _touched(events, random)) is None:
        return None
    new, _, (holder, key) = touched
    old = holder[key]
    shapes: tuple[Any, ...] = ([old], {"value": old}, str(old), [old, old], {"type": "text", "text": old})
    holder[key] = random.choice(shapes)
    trail.append(f"wrap {key}")
    return new


def _move_value(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if (touched := _touched(events, random)) is None:
        return None
    new, data, (holder, key) = touched
    other, name = random.choice(list(_places(data)))
    holder[key] = copy.deepcopy(other[name])
    trail.append(f"{key} = the value of {name}")
    return new


# --- order -----------------------------------------------------------------------------------------------------------------


def _swap(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if len(events) < 2:
        return None
    new, first = list(events), random.randrange(len(events) - 1)
    second = random.choice((first + 1, random.randrange(len(events))))
    new[first], new[second] = new[second], new[first]
    trail.append(f"swap {first} {second}")
    return new


def _double(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if not events:
        return None
    at, to = random.randrange(len(events)), random.randrange(len(events) + 1)
    trail.append(f"double {at} at {to}")
    return [*events[:to], events[at], *events[to:]]


def _drop(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if not events:
        return None
    at = random.randrange(len(events))
    end = at + random.choice((1, 1, 1, 2, 5))
    trail.append(f"drop {at}:{end}")
    return [*events[:at], *events[end:]]


def _truncate(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    end = random.randrange(len(events) + 1)
    trail.append(f"truncate at {end}")
    return events[:end]


def _splice(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    other = random.choice(streams)
    begin = random.randrange(len(other.events) + 1)
    end = begin + random.randrange(1, 12)
    at = random.randrange(len(events) + 1)
    back = events[at:] if random.random() < 0.6 else []
    trail.append(f"splice {other.name}[{begin}:{end}] at {at}")
    return [*events[:at], *other.events[begin:end], *back]


def _insert(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    extra, at = random.choice(_EXTRA_EVENTS), random.randrange(len(events) + 1)
    trail.append(f"insert {extra.name or extra.data} at {at}")
    return [*events[:at], extra, *events[at:]]


def _rename(events: list[Event], random: Random, trail: _Trail, streams: Sequence[Stream]) -> list[Event] | None:
    if not events:
        return None
    at, name = (
        random.randrange(len(events)),
        random.choice(("", "error", "message_start", "ping", "x", "\u2028", "content_block_delta")),
    )
    trail.append(f"name {at} {name!r}")
    return [*events[:at], Event(name, events[at].data), *events[at + 1 :]]


_ON_ORDER: Final[Sequence[_Mutation]] = (_swap, _double, _drop, _truncate, _splice, _insert, _rename)
_ON_EVENTS: Final[Sequence[_Mutation]] = (_replace, _replace, _replace, _remove, _remove, _add, _wrap, _move_value, *_ON_ORDER)


# --- the canary ------------------------------------------------------------------------------------------------------------

_NOT_CONTENT: Final = frozenset({"type", "role", "finish_reason", "index", "id", "format", "expires_at", "object"})
_FRAGMENTS: Final = frozenset({"content", "reasoning_content", "reasoning", "refusal", "arguments", "input", "text", "thinking"})


def _content_places(event: Event) -> Iterator[_Place]:
    if not isinstance(event.data, dict):
        return
    found = [choice for choice in event.data.get("choices") or () if isinstance(choice, dict)] if _is_list(event) else []
    roots = [(choice, name) for choice in found for name in ("delta", "logprobs") if name in choice]
    of_block = str(event.data.get("type", event.name)).startswith("content_block_")
    roots += [(event.data, name) for name in ("content_block", "delta") if of_block and name in event.data]
    for holder, name in roots:
        for inner, key in _places(holder[name]):
            if isinstance(inner[key], str) and key not in _NOT_CONTENT:
                yield inner, key


def _is_list(event: Event) -> bool:
    return isinstance(event.data.get("choices"), list)


def plant(events: list[Event], random: Random, trail: _Trail) -> list[Event]:
    """Put the canary into one content string, whole or cut over two events."""
    order = random.sample(range(len(events)), len(events))
    for at in order:
        data = copy.deepcopy(events[at].data)
        places = list(_content_places(Event(events[at].name, data)))
        if not places:
            continue
        holder, key = random.choice(places)
        before, after = events[:at], events[at + 1 :]
        if key in _FRAGMENTS and random.random() < 0.4:
            cut = random.randrange(1, len(CANARY))
            said = holder[key]
            holder[key] = said + CANARY[:cut]
            first = Event(events[at].name, copy.deepcopy(data))
            holder[key] = CANARY[cut:]
            trail.append(f"canary cut in {key} of {at}")
            return [*before, first, Event(events[at].name, data), *after]
        holder[key] = random.choice((CANARY, holder[key] + CANARY, CANARY + holder[key]))
        trail.append(f"canary in {key} of {at}")
        return [*before, Event(events[at].name, data), *after]
    return events


# --- bytes -----------------------------------------------------------------------------------------------------------------


def _break_bytes(data: bytes, random: Random, trail: _Trail) -> bytes:
    at = random.randrange(len(data) + 1)
    kind = random.choice(("flip", "cut", "insert", "truncate"))
    trail.append(f"{kind} bytes at {at}")
    if kind == "flip":
        return data[:at] + bytes(byte ^ (1 << random.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]
    if kind == "cut":
        return data[:at] + data[at + random.randrange(1, 60) :]
    if kind == "insert":
        return (
            data[:at]
            + random.choice((b"\n", b"\n\n", b"\r", b"\x00", b"\xff", b"\xe2\x80\xa8", b"data:", b"{", b'"'))
            + data[at:]
        )
    return data[:at]


def _packets(data: bytes, events: Sequence[Event], random: Random) -> list[bytes]:
    way = random.random()
    if way < 0.3:
        return [data]
    if way < 0.6 and data == b"".join(event.encoded() for event in events):
        return [event.encoded() for event in events]
    count = len(data) if len(data) < 600 and way > 0.95 else random.randrange(1, 12)
    cuts = sorted({0, len(data), *(random.randrange(len(data) + 1) for _ in range(count))})
    return [data[begin:end] for begin, end in pairwise(cuts)]
