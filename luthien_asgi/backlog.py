"""What a rewriting policy keeps back while it has changed nothing: a text that grows at its end and goes from its beginning."""

from __future__ import annotations

from collections import deque

__all__ = ["Backlog"]


class Backlog:
    """Fragments of a text, of which beginnings are taken off. Each character is looked at twice, however it is cut."""

    __slots__ = ("_at", "_fragments")

    def __init__(self) -> None:
        self._fragments: deque[str] = deque()
        self._at = 0

    def __bool__(self) -> bool:
        return bool(self._fragments)

    def add(self, text: str) -> None:
        """Add to the end."""
        if text:
            self._fragments.append(text)

    def take(self, text: str) -> bool:
        """Take a text off the beginning; tell whether it was there. If not, what is left is of no use."""
        place = 0
        while place < len(text):
            if not self._fragments:
                return False
            first = self._fragments[0]
            size = min(len(first) - self._at, len(text) - place)
            if first[self._at : self._at + size] != text[place : place + size]:
                return False
            place += size
            self._at += size
            if self._at == len(first):
                self._fragments.popleft()
                self._at = 0
        return True

    def clear(self) -> str:
        """Take all of it and return it."""
        text = "".join(self._fragments)[self._at :]
        self._fragments.clear()
        self._at = 0
        return text
