"""Bytes that keep a structure: JSON with a value changed, streams with an event changed, texts with a piece repeated.

Strategy: what does not parse any more teaches a fuzzer one branch. So most variations are made on parsed values, from a table of
changes; some break the bytes all the same. Each is a function of bytes and a `Random`, so an input can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

from luthien_asgi import jsontext

__all__ = ["OPTION_BYTES", "repeated", "vary_json", "vary_stream", "vary_text", "with_options"]

OPTION_BYTES: Final = 4
"""Bytes at the front of an input that choose how the rest is used."""
_ODD: Final[Sequence[Any]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 10**30, 1e308, 0.5, "", "a", " ", "x" * 300, "\ud83d", "\u2028", "\x00",
    "\r\n",
    "data: x\n\n", "null", "[]", "{}", '{"a":1}', [], {}, [[]], [{}], [None], ["a"], {"": None}, {"type": "text", "text": "a"},
)  # fmt: skip
_Vary = Callable[[bytes, Random], bytes]
_Place = tuple[Any, Any]


def with_options(vary: _Vary) -> _Vary:
    """Return a variation that changes the options at the front, or what comes after them."""

    def varied(data: bytes, random: Random) -> bytes:
        options, rest = data[:OPTION_BYTES].ljust(OPTION_BYTES, b"\0"), data[OPTION_BYTES:]
        if random.random() < 0.25:
            at = random.randrange(OPTION_BYTES)
            options = options[:at] + bytes([random.randrange(256)]) + options[at + 1 :]
            if random.random() < 0.5:
                return options + rest
        return options + vary(rest, random)

    return varied


def vary_text(data: bytes, random: Random) -> bytes:
    """Cut, join, repeat or swap pieces."""
    if not data:
        return b"a"
    begin = random.randrange(len(data))
    end = min(len(data), begin + random.choice((1, 2, 5, 20, 100)))
    match random.randrange(4):
        case 0:
            return data[:begin] + data[end:]
        case 1:
            return data[:end] + data[begin:end] * random.choice((1, 2, 50, 500)) + data[end:]
        case 2:
            to = random.randrange(len(data))
            return data[:to] + data[begin:end] + data[to:]
        case _:
            return data[:begin] + bytes([random.randrange(256)]) + data[begin + 1 :]


def repeated(data: bytes, random: Random, longest: int) -> bytes:
    """Return the data with one piece of it as often as there is room: what takes longer than the input is longer shows."""
    if not data:
        return data
    begin = random.randrange(len(data))
    end = min(len(data), begin + random.choice((1, 2, 3, 8, 30)))
    room = max(0, longest - len(data)) // (end - begin)
    return data[:end] + data[begin:end] * room + data[end:]


def vary_json(names: Sequence[str]) -> _Vary:
    """Return a variation of JSON texts that knows these names of fields and values."""

    def varied(data: bytes, random: Random) -> bytes:
        try:
            value = jsontext.loads(data)
        except ValueError:
            return vary_text(data, random)
        if random.random() < 0.08:
            return vary_text(data, random)
        holder = {"": value}
        for _ in range(random.choice((1, 1, 2, 4))):
            _change(holder, random, names)
        return _written(holder[""], data)

    return varied


def _written(value: Any, otherwise: bytes) -> bytes:
    for write in (jsontext.dumps, lambda given: json.dumps(given).encode()):  # the second writes whole numbers of any size
        try:
            return bytes(write(value))
        except (ValueError, OverflowError, RecursionError):
            continue
    return otherwise


def _places(value: Any) -> Iterator[_Place]:
    pending = [value]
    while pending:
        at = pending.pop()
        inner = at.items() if isinstance(at, dict) else enumerate(at)
        for key, child in inner:
            yield at, key
            if isinstance(child, dict | list):
                pending.append(child)


def _change(root: dict[str, Any], random: Random, names: Sequence[str]) -> None:
    places = list(_places(root))
    holder, key = random.choice(places)
    if holder is root and len(places) > 1 and random.random() < 0.95:
        holder, key = random.choice(places[1:])
    _CHANGES[random.choice(list(_CHANGES))](holder, key, random, names, places)


def _odd(holder: Any, key: Any, random: Random, names: Sequence[str], _: Sequence[_Place]) -> None:
    holder[key] = random.choice((_copy(random.choice(_ODD)), random.choice(names) if names else ""))


def _named(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    """Put a field under a known name, with a value from elsewhere."""
    target = holder[key] if isinstance(holder[key], dict) else holder
    if isinstance(target, dict) and names and "" not in target:
        other, at = random.choice(places)
        target[random.choice(names)] = _copy(random.choice((other[at], random.choice(_ODD))))


def _moved(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    other, at = random.choice(places)
    holder[key] = _copy(other[at])


def _dropped(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    if key != "":
        del holder[key]


def _doubled(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    if isinstance(holder, list):
        holder[key:key] = [_copy(holder[key]) for _ in range(random.choice((1, 1, 2, 40)))]


def _wrapped(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    for _ in range(random.choice((1, 1, 3, 70))):
        holder[key] = random.choice(([holder[key]], {"a": holder[key]}, {random.choice(names) if names else "b": holder[key]}))


def _swapped(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    if isinstance(holder, list):
        random.shuffle(holder)


def _respelt(holder: Any, key: Any, random: Random, names: Sequence[str], places: Sequence[_Place]) -> None:
    value = holder[key]
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        holder[key] = value[:at] + random.choice(("", "\\", '"', "\n", "\x00", "é", "\ud83d", "{", "a" * 50)) + value[at + 1 :]
    elif isinstance(value, int | float):
        holder[key] = random.choice((-value, value + 1, str(value), value * 10**9))


_CHANGES: Final[Mapping[str, Callable[[Any, Any, Random, Sequence[str], Sequence[_Place]], None]]] = {
    "odd": _odd, "named": _named, "moved": _moved, "dropped": _dropped, "doubled": _doubled, "wrapped": _wrapped,
    "swapped": _swapped, "respelt": _respelt,
}  # fmt: skip


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def vary_stream(names: Sequence[str]) -> _Vary:
    """Return a variation of server-sent events whose data is JSON."""
    vary = vary_json(names)

    def varied(data: bytes, random: Random) -> bytes:
        if random.random() < 0.1:
            return vary_text(data, random)
        events = data.split(b"\n\n")
        at = random.randrange(len(events))
        match random.randrange(6):
            case 0:
                del events[at]
            case 1:
                events[at:at] = [events[at]] * random.choice((1, 1, 2, 30))
            case 2:
                events.insert(random.randrange(len(events)), events.pop(at))
            case _:
                head, mark, body = events[at].partition(b"data:")
                events[at] = head + mark + b" " + vary(body.strip(), random) if mark else vary_text(events[at], random)
        return b"\n\n".join(events)

    return varied
