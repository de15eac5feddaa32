"""Changing the strings within a text of JSON.

Strategy: strings are changed at the places where they stand, so that the JSON stays JSON and what is not changed stays as it was
written, digit by digit. Where nothing may be missed (`changed_deeply`), what a reader would make of the text is looked at too:
JSON in a string of JSON, and escapes in what is no JSON because it was cut, or because it is quoted among other words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.halves import joined

__all__ = ["LEFT_OUT", "Change", "changed_deeply", "changed_json", "changed_loosely", "is_object_or_list", "strings_of"]

Change = Callable[[str], str]

LEFT_OUT: Final = "[left out: escaped or nested too often]"
"""What stands in the place of a text that was not read to the end."""
_LEVELS: Final = 8
"""How often JSON may stand in a string of JSON, and how often a text may be escaped."""
_LONG_INSIDE: Final = 1024
"""Characters above which JSON in a string is looked at by itself, and not once more as a part of each level around it."""
_PRIVATE: Final = range(0xE000, 0xE010)
"""Characters that stand for nothing: one that a text does not have marks places in it."""
_STRING: Final = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?', re.DOTALL)
_NUMBER: Final = re.compile(r"-?\d[\d.eE+-]*")
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_ANY_ESCAPE: Final = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/]))')
_SPACE: Final = re.compile(r"\\([bfnrt])")
_SPACES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_BEGINS: Final = re.compile(r'\s*["{\[]')


def changed_json(text: str, change: Change, *, keys: bool = False) -> str:
    """Return JSON with its strings changed; a text that is no object or list is changed as it is.

    With `keys` the names of fields are changed too, and numbers that `change` changes become strings.
    """
    if not is_object_or_list(text):
        return changed_loosely(text, change)
    return _changed_literals(text, lambda literal: _changed_literal(literal, change), change if keys else None)


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


def _changed_literals(text: str, literally: Change, change: Change | None) -> str:
    """Return JSON with its literals changed; with `change`, the names of its fields and its numbers too."""
    out: list[str] = []
    place = 0
    for found in _STRING.finditer(text):
        between = text[place : found.start()]
        literal, colon = found[1], found[2] or ""
        out.append(between if change is None else _with_numbers(between, change))
        out.append((literal if colon and change is None else literally(literal)) + colon)
        place = found.end()
    out.append(text[place:] if change is None else _with_numbers(text[place:], change))
    return "".join(out)


def _changed_literal(literal: str, change: Change) -> str:
    value: str = jsontext.loads(literal)
    new = change(value)
    return literal if new == value else _literal(new)


def _literal(value: str) -> str:
    return jsontext.dumps(value).decode()


def _with_numbers(text: str, change: Change) -> str:
    def changed(found: re.Match[str]) -> str:
        new = change(found[0])
        return found[0] if new == found[0] else _literal(new)

    return _NUMBER.sub(changed, text)


# --- so that nothing is missed -----------------------------------------------------------------------------------------------


def changed_deeply(text: str, change: Change, *, levels: int = _LEVELS) -> str:
    """Return a text changed wherever one who reads it can find something: what is left is nothing that `change` would change.

    JSON is changed in its strings, names and numbers, and in the JSON in these, and stays JSON unless what is changed goes
    over the end of a string. Another text is changed as it is; where escapes hide a part of what is to be changed, without its
    escapes. `change` is called with the parts and with the whole, which may hold what it has returned before; longer JSON in a
    string is not part of the whole around it, so that the characters that `change` gets grow with the text and not with how
    deep it nests. What is nested or escaped more than eight times becomes `LEFT_OUT`. Raises what `change` raises.
    """
    seen: dict[str, str] = {}

    def once(part: str) -> str:
        if part not in seen:
            seen[part] = change(part)
        return seen[part]

    return _changed_level(text, once, levels, is_whole=True)


def _changed_level(text: str, change: Change, levels: int, *, is_whole: bool) -> str:
    if _BEGINS.match(text) is None or not _is_json(text):
        return _changed_with_escapes(text, change)
    if levels == 0:
        return LEFT_OUT if "\\" in text else change(text)

    def inside(value: str) -> str:
        return _changed_level(value, change, levels - 1, is_whole=False)

    aside = _Aside(text)
    plain = _changed_literals(text, lambda literal: aside.put(jsontext.loads(literal)), change)
    whole = change(plain)
    if len(_STRING.findall(whole)) != len(_STRING.findall(plain)):
        return _changed_with_escapes(text, change)  # what is changed goes over the end of a string
    new = change(
        _changed_literals(plain, lambda literal: literal if aside.has(literal) else _changed_literal(literal, inside), inside)
    )
    if aside.texts:
        new = aside.back(new, inside)
        new = change(new) if is_whole else new
    return text if new == _changed_literals(text, lambda literal: _literal(jsontext.loads(literal)), _same) else new


class _Aside:
    """Longer JSON in the strings of a JSON text, each with a mark in its place while the text around it is changed."""

    def __init__(self, text: str) -> None:
        self.texts: dict[str, str] = {}
        """By the literal that stands in the place of each."""
        lower = text.lower() if len(text) > _LONG_INSIDE else ""
        marks = (chr(code) for code in _PRIVATE if chr(code) not in lower and f"{code:04x}" not in lower)
        self._mark = next(marks, "") if lower else ""

    def put(self, value: str) -> str:
        """Return the literal of a string, or of its mark."""
        if not self._mark or len(value) <= _LONG_INSIDE or _BEGINS.match(value) is None or not _is_json(value):
            return _literal(value)
        mark = f'"{self._mark}{len(self.texts)}{self._mark}"'
        self.texts[mark] = value
        return mark

    def has(self, literal: str) -> bool:
        """Tell whether a literal is a mark."""
        return literal in self.texts

    def back(self, text: str, change: Change) -> str:
        """Return a text with what is marked in its places, changed. A mark that was changed stays away with what it stood for."""
        marks = re.compile(f'"{self._mark}\\d+{self._mark}"')
        return marks.sub(lambda found: _literal(change(self.texts[found[0]])) if found[0] in self.texts else found[0], text)


def _same(text: str) -> str:
    return text


def _is_json(text: str) -> bool:
    try:
        return isinstance(jsontext.loads(text), dict | list | str)
    except ValueError:
        return False


def _changed_with_escapes(text: str, change: Change) -> str:
    new = change(text)
    if "\\" not in text:
        return new
    plain = _unescaped(text)
    if plain is None:
        return LEFT_OUT
    told = change(plain)
    if told in (plain, _unescaped(new)):
        told = new  # as it is written: the escapes made no difference, nothing begins, ends or is interrupted by one
    spaced = _SPACE.sub(lambda found: _SPACES[found[1]], told)
    return last if (last := change(spaced)) != spaced else told


def _unescaped(text: str) -> str | None:
    """Return a text without the escapes of JSON, those of backslashes included; None where that takes too many steps.

    Those of white space stay: `\\fw_` may be a form feed, and may be the beginning of a key in a path.
    """
    for _ in range(_LEVELS):
        plain = joined([_ANY_ESCAPE.sub(_character, text)])
        if plain == text:
            return plain
        text = plain
    return None if _ANY_ESCAPE.search(text) else text


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else escape[2]
