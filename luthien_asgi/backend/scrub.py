"""Taking the credentials in use out of what a provider says, on top of whatever looks like one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthien_asgi.scrub import MASK, all_of, scrub

__all__ = ["scrub_text", "scrub_value"]

MESSAGE_CHARS: Final = 2000
"""Longest text of a provider that is passed on."""
_DEPTH: Final = 8
_SHORTEST_SECRET: Final = 6
"""A shorter one is a placeholder (`none`, `x`), and taking it out would garble words."""


def scrub_text(text: str, secrets: Sequence[str]) -> str:
    """Return a text without the given secrets and without what looks like a credential, 2000 characters at most."""
    text = text[: 2 * MESSAGE_CHARS]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return scrub(text)[:MESSAGE_CHARS]


def scrub_value(value: Any, secrets: Sequence[str], *, depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON is any shape
    """Return a JSON value with every text in it scrubbed, names too; what is nested deeper than eight levels is left out."""
    if isinstance(value, str):
        return scrub_text(value, secrets)
    if depth == 0 and isinstance(value, Mapping | list | tuple):
        return None
    if isinstance(value, Mapping):
        return all_of((scrub_text(str(key), secrets), scrub_value(item, secrets, depth=depth - 1)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [scrub_value(item, secrets, depth=depth - 1) for item in value]
    return value
