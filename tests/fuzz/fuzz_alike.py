"""Fragments that follow one another and are alike, as most of an answer is, and that are not quite: what is read as runs.

Strategy: one fragment of a stream becomes many, with texts that try a reader which looks at bytes: quotes, escapes, halves of
characters, words that stand elsewhere in the event. All of them are written in one odd way, which JSON allows or nearly.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from fuzz_streams import Event

__all__ = ["alike"]

_FIELDS: Final = ("content", "reasoning_content", "reasoning", "refusal", "arguments", "text", "thinking", "partial_json")
_TEXTS: Final = (
    "a", "b", " the", " cat", "text", "delta", "thinking", "redacted_thinking", "assistant", "m", "function", "open", "close",
    '"', '","', "\\", "\\u0041", "\n", "\n\n", "é", "\U0001f600", "\ud83d", "\ude00", "\u2028", "\u2307", "\x7f", "{", "}", "]}",
    '"}}]}', "data: ", "", "CANARY", "-7f3a91", "sk-ant-api03-" + "A" * 95, "me@example.com", "ß", "x" * 300,
)  # fmt: skip
_Written = Callable[[bytes, Random], bytes]


def alike(events: Sequence[Event], random: Random, trail: list[str]) -> list[Event]:
    """Return the events with one fragment many times, in the place of the one."""
    places = [place for place, event in enumerate(events) if next(_texts_in(event.data), None) is not None]
    if not places:
        return list(events)
    at, count, way = random.choice(places), random.choice((2, 3, 5, 9, 20)), random.choice(list(_WAYS))
    few = random.sample(_TEXTS, random.choice((1, 2, 3, len(_TEXTS))))
    made = [_written(_said(events[at], random.choice(few)), way, random) for _ in range(count)]
    if random.random() < 0.3:
        made.insert(random.randrange(count), random.choice(events))
    trail.append(f"{count} like {at}, written {way}")
    return [*events[: at + 1], *made, *events[at + 1 :]]


def _texts_in(value: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _FIELDS and isinstance(inner, str) and inner:
                yield value, name
            yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)


def _said(event: Event, text: str) -> Event:
    data = copy.deepcopy(event.data)
    for holder, name in list(_texts_in(data)):
        holder[name] = text
    return Event(event.name, data)


def _written(event: Event, way: str, random: Random) -> Event:
    data = copy.deepcopy(event.data)
    if way in _VALUES:
        _VALUES[way](data, random)
        return Event(event.name, data)
    return Event(event.name, _WAYS[way](json.dumps(data, ensure_ascii=random.random() < 0.5).encode("utf-8", "replace"), random))


def _beside(name: str) -> Callable[[Any, Random], None]:
    def put(data: Any, random: Random) -> None:
        twin = next((holder[field] for holder, field in _texts_in(data)), "x")
        data[name] = {"content": twin, "arguments": twin, "text": twin, "obfuscation": "abc"}
        if name == "usage":
            data[name]["prompt_tokens"] = -1

    return put


def _padded_first(data: Any, random: Random) -> None:
    said = dict(data)
    data.clear()
    data.update({"obfuscation": random.choice(("aaa", "bb")), **said})


def _padded(data: Any, random: Random) -> None:
    data["obfuscation"] = random.choice(("", "aB3", "x" * random.choice((1, 20, 400)), "a b", 'a"', "é", None, 7))


_VALUES: Final[dict[str, Callable[[Any, Random], None]]] = {
    "with usage that is none": _beside("usage"),
    "with fields of LiteLLM's": _beside("provider_specific_fields"),
    "with fields of its own": _beside("own"),
    "with x_groq": _beside("x_groq"),
    "padded": _padded,
    "padded first": _padded_first,
    "with another id": lambda data, random: data.update(id=random.choice("abc")),
}


def _plain(data: bytes, _: Random) -> bytes:
    return data


def _spaced(data: bytes, random: Random) -> bytes:
    return data[:-1] + b" " * random.randrange(4) + b"}" + b" " * random.randrange(2)


def _escaped(data: bytes, random: Random) -> bytes:
    name = random.choice(_FIELDS).encode()
    return data.replace(b'"%s":' % name, b'"\\u%04x%s":' % (name[0], name[1:]))


def _twice(data: bytes, random: Random) -> bytes:
    """The field of the text twice: the last one counts."""
    name, escape = random.choice(_FIELDS).encode(), random.random() < 0.5
    again = b'"\\u%04x%s"' % (name[0], name[1:]) if escape else b'"%s"' % name
    other = random.choice((b'"other"', b'"a"', b"null"))
    return data.replace(b'"%s":' % name, b'%s:%s,"%s":' % (again, other, name), 1)


def _twice_after(data: bytes, random: Random) -> bytes:
    again = random.choice((b'"choices":[]', b'"delta":{}', b'"\\u0064elta":{"content":"x"}', b'"index":0', b'"error":null'))
    return data[:-1] + b"," + again + b"}"


def _raw(data: bytes, random: Random) -> bytes:
    """With bytes in the text that no JSON string holds."""
    bad = random.choice((b"\xff", b"\x00", b"\t", b"\xed\xa0\xbd", b"\\x", b"\\u12", b"\n", b"\ndata: x", b'","content":"'))
    return data.replace(b"a", b"a" + bad, 1) if random.random() < 0.3 else data


_WAYS: Final[dict[str, _Written]] = {
    "as it is": _plain,
    "with spaces": _spaced,
    "with an escaped name": _escaped,
    "with a name twice": _twice,
    "with more after it": _twice_after,
    "with bad bytes": _raw,
    **dict.fromkeys(_VALUES, _plain),
}
