"""Taking credentials out of texts that are kept or shown: error messages, notes, headers.

Strategy: a text is scrubbed by what credentials look like (the prefixes that providers give their keys, `Authorization` schemes,
named fields, the user part of a URL), because whoever writes a record does not know every key in play. A false alarm costs a
word of a message; a miss costs a key. All patterns are linear: none can be made slow by a hostile text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

__all__ = ["MASK", "all_of", "scrub", "scrub_headers", "scrub_name", "scrub_value"]

_Item = TypeVar("_Item")

MASK: Final = "[redacted]"
"""What stands where a credential was."""

_FIELD: Final = (
    r"(?:(?:proxy-)?authorization|[\w-]{0,32}api[-_ ]?key|(?:access|auth|refresh|session|security)[-_ ]?token"
    r"|[\w-]{0,32}secret(?:[-_]\w{1,32})?|password|passwd|credentials?|signature|(?:set-)?cookie)"
)
_PREFIXES: Final = (
    r"(?:sk|pk|rk|gsk|xai|hf|pplx|r8|fw|nvapi|tgp|csk|glpat|gh[pousr]|github_pat|xox[abeoprs])[-_][\w*-]{8,}"
    r"|AIza[\w-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|ya29\.[\w.-]{8,}|eyJ[\w-]{8,2048}\.[\w-]+(?:\.[\w-]*)?"
)
_NAMED: Final = (
    rf"(?<![\w-])({_FIELD}(?: provided)?[\"']?\s{{0,8}}[:=]\s{{0,8}}[\"']?(?:(?:bearer|basic) )?)"
    r"(?!\[redacted\])[^\s\"',;&}]{4,}"
)
_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\b(bearer|basic)\s{1,8}[\w.~+/=*-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"(://)[^\s/]{1,512}@"), rf"\1{MASK}@"),
    (re.compile(rf"(?<![A-Za-z0-9])(?:{_PREFIXES})"), MASK),
    (re.compile(r"([?&](?:key|sig|token|code)=)[^\s&\"'#]+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(_NAMED, re.IGNORECASE), rf"\1{MASK}"),
)
_SHORTEST: Final = len("sk-") + 8
"""What is shorter is no credential by itself; with a colon or an equals sign it may be one by what is before that."""
_SECRET_NAME: Final = re.compile(rf"{_FIELD}\Z", re.IGNORECASE)
_SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie|password|credential|signature|session", re.IGNORECASE)


def scrub(text: str) -> str:
    """Return a text with everything that looks like a credential masked. Scrubbing twice is scrubbing once."""
    if len(text) < _SHORTEST and ":" not in text and "=" not in text:
        return text  # most values of headers: numbers
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def scrub_value(value: Any) -> Any:  # noqa: ANN401 - JSON is any shape
    """Return a copy of a JSON value: its texts and names scrubbed, and masked whole under a name that says "credential"."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return all_of((scrub_name(name), _scrub_field(name, item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return [scrub_value(item) for item in value]
    return value


def scrub_name(name: Any) -> Any:  # noqa: ANN401 - a text, as a rule
    """Return the name of a field scrubbed; what is no text, as it is."""
    return scrub(name) if isinstance(name, str) else name


def scrub_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers by lower-case name, those that carry credentials or sessions masked, the others and all names scrubbed."""
    return all_of(
        (scrub(name).lower(), MASK if _SECRET_HEADER.search(name) is not None else scrub(value))
        for name, value in headers.items()
    )


def all_of(fields: Iterable[tuple[Any, _Item]]) -> dict[Any, _Item]:
    """Return fields by name. A name that comes again, since what was different in it is masked, gets a number: none is lost."""
    found: dict[Any, _Item] = {}
    numbers: dict[Any, int] = {}
    for name, item in fields:
        place = name
        while place in found:
            numbers[name] = numbers.get(name, 1) + 1
            place = f"{name} ({numbers[name]})"
        found[place] = item
    return found


def _scrub_field(name: object, item: Any) -> Any:  # noqa: ANN401
    if isinstance(item, str) and isinstance(name, str) and _SECRET_NAME.match(name):
        return MASK if item else item
    return scrub_value(item)
