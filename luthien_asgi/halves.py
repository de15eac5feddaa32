"""Characters that a provider cut in halves: a surrogate pair over two fragments of a text.

JSON escapes such a character as two `\\u` sequences, and a stream may be cut between them. Alone, each half is a character that
no UTF-8 can carry; together they are the character that was meant, which is what policies and records have to see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["ends_in_half", "holds_half", "joined"]

_HALF: Final = re.compile("[\ud800-\udbff]")


def ends_in_half(text: str) -> bool:
    """Tell whether the last character of a text is the first half of one."""
    return "\ud800" <= text[-1:] <= "\udbff"


def holds_half(text: str) -> bool:
    """Tell whether the first half of a character stands anywhere in a text, with its other half or without."""
    return not text.isascii() and _HALF.search(text) is not None


def joined(fragments: Iterable[str]) -> str:
    """Return the fragments as one text, with halves that meet made whole; a half without its other stays."""
    text = "".join(fragments)
    if holds_half(text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text
