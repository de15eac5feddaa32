"""Placeholders: what stands in the place of a value, derived from the value and from a key.

Strategy: an HMAC (RFC 2104) with SHA-256 of kind and value, cut to forty bits. The same value has the same placeholder wherever
it stands, as long as the key is the same, and who does not have the key cannot find a value by trying all of them.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from luthien_asgi.policies.windows import PatternRule, pattern_rule

__all__ = ["Originals", "Placeholders"]

_DIGITS: Final = 10
"""Hexadecimal digits: of a thousand values in one request two have the same placeholder once in two million requests."""
_SHORTEST_KEY: Final = 16


class Placeholders:
    """Makes placeholders like `[EMAIL_3fa9c1b2d4]`. Raises `ValueError` for a key that could be guessed."""

    def __init__(self, key: object, kinds: Collection[str]) -> None:
        if not isinstance(key, str) or 0 < len(key) < _SHORTEST_KEY:
            msg = f"key must be a text of {_SHORTEST_KEY} characters at least, or left out"
            raise ValueError(msg)
        self._key = key.encode("utf-8", "surrogatepass") if key else secrets.token_bytes(32)
        names = "|".join(kind.upper() for kind in kinds)
        self._rule = pattern_rule(rf"\[(?:{names})_[0-9a-f]{{{_DIGITS}}}\]", lambda match: match[0])

    def of(self, kind: str, value: str) -> str:
        """Return the placeholder of a value."""
        message = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        return f"[{kind.upper()}_{hmac.digest(self._key, message, 'sha256').hex()[:_DIGITS]}]"

    def restoring(self, originals: Originals) -> PatternRule:
        """Return the rule that puts the originals back."""
        return replace(self._rule, new=originals.of)


class Originals:
    """What the placeholders of one transaction stand for."""

    def __init__(self) -> None:
        self._values: dict[str, str | None] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, placeholder: str, value: str) -> None:
        """Note a value. Where another one has the same placeholder, neither is restored."""
        if self._values.setdefault(placeholder, value) != value:
            self._values[placeholder] = None

    def of(self, match: Any) -> str:  # noqa: ANN401 - the library has no types
        """Return the original of a placeholder that was matched, or the placeholder where there is none."""
        placeholder: str = match[0]
        return self._values.get(placeholder) or placeholder
