"""What grows as fragments of JSON while a tool is called: when it is whole, and the free text in it."""

from __future__ import annotations

import re
from typing import Any, Final

from luthien_asgi import jsontext

__all__ = ["Balance", "FreeText"]

_MARK: Final = re.compile(r'\\.|["{}\[\]]', re.DOTALL)
_BEGINNING: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_LONGEST_BEGINNING: Final = 64
_PIECE: Final = re.compile(r'[^"\\]+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\[^u]')
"""What can be read of a JSON string without what follows: a half of a pair waits for the other."""


class Balance:
    """Tells whether fragments of JSON make a whole object. Each character is looked at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._begun = False
        self._in_string = False
        self._carry = ""
        self._unread: list[str] = []

    def add(self, fragment: str) -> None:
        """Add a fragment, to be looked at when somebody asks."""
        self._unread.append(fragment)

    @property
    def whole(self) -> bool:
        """Whether what was opened is closed; nothing but white space can follow then."""
        if self._unread:
            text, self._unread = self._carry + "".join(self._unread), []
            backslashes = len(text) - len(text.rstrip("\\"))
            self._carry = "\\" if backslashes % 2 else ""
            for mark in _MARK.findall(text):
                self._take(mark)
        return self._begun and self._depth <= 0 and not self._in_string

    def _take(self, mark: str) -> None:
        if mark == '"':
            self._in_string = not self._in_string
        elif not self._in_string and mark in "{[":
            self._depth += 1
            self._begun = True
        elif not self._in_string and mark in "}]":
            self._depth -= 1


class FreeText:
    """Takes the text out of `{"input": "<text>"}` as it grows: a custom tool that was offered as a function is called so.

    Arguments of any other form are given out at the end: their `input` where they have one, else as they are.
    """

    def __init__(self) -> None:
        self._all: list[str] = []
        self._rest = ""
        self._begun = False
        self._other = False
        """Whether it is of another form for certain."""
        self._ended = False
        self._given = False

    def add(self, fragment: str) -> str:
        """Return what a fragment of the arguments adds to the text, perhaps nothing."""
        if self._ended:
            return ""
        if not self._other:
            self._rest += fragment
        if not self._given:
            self._all.append(fragment)
        if not self._begun and not self._begin():
            return ""
        text = self._read()
        self._given = self._given or text != ""
        return text

    def end(self) -> str:
        """Return what is missing of the text when there are no more fragments."""
        if self._ended or self._given:
            return ""
        said = "".join(self._all)
        try:
            value: Any = jsontext.loads(said)
        except ValueError:
            return "" if self._begun else said
        found = value.get("input") if isinstance(value, dict) else None
        return found if isinstance(found, str) else said

    def _begin(self) -> bool:
        if self._other:
            return False
        match = _BEGINNING.match(self._rest)
        if match is not None:
            self._begun, self._rest = True, self._rest[match.end() :]
        elif len(self._rest) > _LONGEST_BEGINNING:
            self._other, self._rest = True, ""
        return match is not None

    def _read(self) -> str:
        """Return what of the rest is text for certain."""
        place = 0
        while match := _PIECE.match(self._rest, place):
            place = match.end()
        raw, self._rest = self._rest[:place], self._rest[place:]
        self._ended = self._rest.startswith('"')
        if not raw:
            return ""
        try:
            text: str = jsontext.loads(f'"{raw}"')
        except ValueError:  # no JSON, and so is what was meant
            return raw
        return text
