"""Changing the texts of a request, JSON included.

Strategy: a text is changed as it is; the arguments of a tool call, and whatever else is JSON, string by string at the places
where they stand, so that the JSON stays JSON and what is not changed stays as it was written, digit by digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.request import ChatRequest

__all__ = ["Change", "changed_json", "changed_loosely", "is_object_or_list", "strings_of", "with_changed_texts"]

Change = Callable[[str], str]

_JSON_KINDS: Final = frozenset({"tool_call", "other"})
_STRING: Final = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?', re.DOTALL)
_NUMBER: Final = re.compile(r"-?\d[\d.eE+-]*")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")


def with_changed_texts(request: ChatRequest, change: Change, *, kinds: Collection[str], keys: bool = False) -> ChatRequest:
    """Return a request whose blocks of some kinds have their texts changed; the same request where nothing is.

    In JSON the strings are changed; with `keys` also the names of fields, and numbers that `change` changes become strings.
    """
    edits = []
    for block in request.blocks():
        if block.kind not in kinds or not block.text:
            continue
        text = changed_json(block.text, change, keys=keys) if block.kind in _JSON_KINDS else change(block.text)
        if text != block.text:
            edits.append((block, text))
    return request.with_texts(edits) if edits else request


def changed_json(text: str, change: Change, *, keys: bool = False) -> str:
    """Return JSON with its strings changed (see `with_changed_texts`); a text that is no object or list is changed as it is."""
    if not is_object_or_list(text):
        return changed_loosely(text, change)
    out: list[str] = []
    place = 0
    for found in _STRING.finditer(text):
        out.append(_with_numbers(text[place : found.start()], change) if keys else text[place : found.start()])
        literal, colon = found[1], found[2] or ""
        out.append((literal if colon and not keys else _changed_literal(literal, change)) + colon)
        place = found.end()
    out.append(_with_numbers(text[place:], change) if keys else text[place:])
    return "".join(out)


def is_object_or_list(text: str) -> bool:
    """Tell whether a text is JSON with something in it."""
    try:
        return isinstance(jsontext.loads(text), dict | list)
    except ValueError:
        return False


def changed_loosely(text: str, change: Change) -> str:
    """Return a text changed; one in which an escape as JSON has them hides something is changed without its escapes."""
    new = change(text)
    if "\\u" in new:
        plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), new)
        if (told := change(plain)) != plain:
            return told
    return new


def strings_of(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield every string of a JSON value, names of fields included."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                yield text
            case dict() as fields:
                pending += [*fields.keys(), *fields.values()]
            case list() | tuple() as items:
                pending += items


def _changed_literal(literal: str, change: Change) -> str:
    value: str = jsontext.loads(literal)
    new = change(value)
    return literal if new == value else jsontext.dumps(new).decode()


def _with_numbers(text: str, change: Change) -> str:
    def changed(found: re.Match[str]) -> str:
        new = change(found[0])
        return found[0] if new == found[0] else jsontext.dumps(new).decode()

    return _NUMBER.sub(changed, text)
