"""Which of the provider's response headers a client of the same wire gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["pass_headers"]

_TIME: Final = re.compile(
    r"\d{1,9}(?:\.\d{1,9})?"
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT",
    re.ASCII,
)
"""Seconds or a date (RFC 9110, 10.2.3); fractions of a second are common with these APIs."""
_TIMES: Final = frozenset({"retry-after", "retry-after-ms"})
_UNSAFE: Final = re.compile(r"[^\x20-\x7e\x80-\xff]")
"""Control characters would end the header; what latin-1 has no byte for cannot be sent."""


def pass_headers(headers: Mapping[str, str], *, names: frozenset[str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return the headers that a wire knows by name or prefix, lower case.

    Values with control characters are dropped, and waiting times that are none: clients sleep for what they make of them.
    """
    found = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in found.items()
        if (name in names or name.startswith(prefixes)) and not _UNSAFE.search(name) and not _UNSAFE.search(value)
        if name not in _TIMES or _TIME.fullmatch(value)
    }
