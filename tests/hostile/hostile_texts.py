"""Texts that try to be more than text, and how to tell whether they got anywhere."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

ENDS_A_FRAME = '\r\n\r\ndata: {"forged": 1}\r\n\r\nevent: forged\ndata: {}\n\n: forged\rid: 9\rretry: 1\r\r'
NEARLY_A_LINE_END = "\u2028data: forged\u2029\u0085\x0b\x0c\x1c\x1d\x1e\nevent: forged"
CONTROLS = "\x00\x07\x08\x1b]0;forged\x07\x1b[2J\x1b]8;;http://forged\x1b\\\x9b31m\x7f\ufeff\u202eforged"
HALF_A_PAIR = "\ud83d\n\ndata: [DONE]\n\n"
EVIL = (ENDS_A_FRAME, NEARLY_A_LINE_END + CONTROLS, HALF_A_PAIR)
"""What is put where a text may stand."""
HARMLESS = " z"
SENTENCE = " word" * 40
"""Harmless too, and longer than any name."""
"""What stands there in the answer that the others are compared with: no word of an API either."""


class Event(NamedTuple):
    """One dispatched event."""

    name: str
    data: str


class Stream(NamedTuple):
    """An event stream as a strict client reads it."""

    events: list[Event]
    comments: int
    others: list[str]
    """Lines of any other field: `id`, `retry`, and what is none."""


def read_strictly(body: bytes) -> Stream:
    """Read an event stream as the WHATWG's HTML standard says (9.2.6), by its words and not by ours.

    Raises `ValueError` for a stream that ends within an event.
    """
    text = body.decode("utf-8").removeprefix("\ufeff")
    events: list[Event] = []
    comments, others = 0, []
    name, data = "", []
    *lines, rest = re.split(r"\r\n|\n|\r", text)
    for line in lines:
        if not line:
            if data:
                events.append(Event(name, "\n".join(data)))
            name, data = "", []
        elif line.startswith(":"):
            comments += 1
        else:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
            else:
                others.append(line)
    if rest or data:
        msg = f"the stream ends within an event: {rest or data!r}"
        raise ValueError(msg)
    return Stream(events, comments, others)


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all texts in a JSON value."""
    if isinstance(value, str):
        yield at
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*at, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*at, place))


def with_text(value: Any, at: tuple[Any, ...], added: str) -> Any:
    """Return a copy of a JSON value with something added to one of its texts."""
    copied = copy.deepcopy(value)
    holder = copied
    for step in at[:-1]:
        holder = holder[step]
    holder[at[-1]] += added
    return copied
