"""Which of the provider's response headers a client of the same wire gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["pass_headers"]

_UNSAFE: Final = re.compile(r"[^\x20-\x7e\x80-\xff]")
"""Control characters would end the header; what latin-1 has no byte for cannot be sent."""


def pass_headers(headers: Mapping[str, str], *, names: frozenset[str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """Return the headers that a wire knows by name or prefix, lower case; values with control characters are dropped."""
    found = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in found.items()
        if (name in names or name.startswith(prefixes)) and not _UNSAFE.search(name) and not _UNSAFE.search(value)
    }
