"""What grows as fragments of JSON while a tool is called: when it is whole, and the free text in it."""

from __future__ import annotations

import re
from typing import Any, Final

from luthien_asgi import jsontext

__all__ = ["Balance", "free_text_of"]

_MARK: Final = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


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


def free_text_of(arguments: str) -> str:
    """Return the text in `{"input": "<text>"}`, whole: a custom tool that was offered as a function is called so.

    It is read as policies read a call's arguments, so the client gets the `input` that they judged. What is anything else than an
    object with a string as its `input` is returned as it is.
    """
    try:
        value: Any = jsontext.loads(arguments)
    except ValueError:
        return arguments
    found = value.get("input") if isinstance(value, dict) else None
    return found if isinstance(found, str) else arguments
