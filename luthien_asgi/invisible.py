"""Characters that a person does not see: what somebody else wrote is shown with their escapes in their place.

Three sorts: what Python's `isprintable` refuses (control characters, separators, marks of direction); what Unicode calls
Default_Ignorable_Code_Point, which fonts leave out (fillers, joiners, variation selectors, tags), assigned or not; and letters
and symbols whose glyph is blank.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_visible", "shows_all"]

_IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Default_Ignorable_Code_Point, 4 174 code points (Unicode's DerivedCoreProperties.txt), which has room for those to come."""
_BLANK: Final = "\u2800\U00013441\U00013442\U00016fe4\U0001d159"
"""Braille without dots, Egyptian blanks, the Khitan filler, a note without a head."""
_UNSEEN: Final = re.compile(f"[{_IGNORABLE}{_BLANK}]")


def is_visible(letter: str) -> bool:
    """Tell whether a character is one that a person sees, or the plain space."""
    return letter.isprintable() and _UNSEEN.match(letter) is None


def shows_all(text: str) -> bool:
    """Tell whether every character of a text is visible."""
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)
