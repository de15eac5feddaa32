"""What the shipped policies' constructors check alike, and how they show names that a model or a client made up.

Strategy: each check returns the value in the form that is kept, or raises `ValueError` with a sentence that says what to write:
the values come from a configuration file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

__all__ = [
    "checked_choice",
    "checked_count",
    "checked_mapping",
    "checked_message",
    "checked_model",
    "checked_names",
    "checked_number",
    "checked_pattern",
    "checked_text",
    "checked_texts",
    "checked_whole",
    "first_match",
]


def checked_message(message: object) -> str:
    """Return a message for the client."""
    if isinstance(message, str) and message.strip():
        return message
    msg = f"message must be a text that is not blank (providers refuse blank assistant text), not {message!r}"
    raise ValueError(msg)


def checked_text(value: object, what: str) -> str:
    """Return a text that is not blank."""
    if isinstance(value, str) and value.strip():
        return value
    msg = f"{what} must be a text that is not blank, not {value!r}"
    raise ValueError(msg)


def checked_texts(value: object, what: str) -> tuple[str, ...]:
    """Return a list of texts, none of them blank, at least one."""
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return tuple(checked_text(item, f"{what}[{place}]") for place, item in enumerate(value))
    msg = f"{what} must be a list of texts with at least one in it, not {value!r}"
    raise ValueError(msg)


def checked_model(value: object, what: str) -> str:
    """Return the name of a model."""
    if isinstance(value, str) and value.strip():
        return value
    msg = f"{what} must be the name of a model of the configuration, not {value!r}"
    raise ValueError(msg)


def checked_names(names: object, what: str, of: str = "tool names") -> tuple[str, ...]:
    """Return a list of names."""
    if isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) and name for name in names):
        return tuple(names)
    msg = f"{what} must be a list of {of}, not {names!r}"
    raise ValueError(msg)


def checked_choice(value: object, what: str, known: Collection[str]) -> str:
    """Return one of the known words."""
    if isinstance(value, str) and value in known:
        return value
    msg = f"{what} must be one of {', '.join(known)}, not {value!r}"
    raise ValueError(msg)


def checked_count(value: object, what: str) -> int | None:
    """Return a whole number of at least 0, or None."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    msg = f"{what} must be a whole number that is not negative, not {value!r}"
    raise ValueError(msg)


def checked_whole(value: object, what: str, *, low: int) -> int:
    """Return a whole number that is not too small."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= low:
        return value
    msg = f"{what} must be a whole number of at least {low}, not {value!r}"
    raise ValueError(msg)


def checked_number(value: object, what: str, *, low: float, high: float) -> float:
    """Return a number within bounds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    msg = f"{what} must be a number from {low:g} to {high:g}, not {value!r}"
    raise ValueError(msg)


def checked_pattern(pattern: object, what: str) -> re.Pattern[str]:
    """Return a compiled regular expression."""
    if not isinstance(pattern, str):
        msg = f"{what} must be a regular expression, not {pattern!r}"
        raise ValueError(msg)  # noqa: TRY004 - a configuration's value is wrong, and callers catch one class
    try:
        return re.compile(pattern)
    except re.error as error:
        msg = f"{what} is not a regular expression: {error}"
        raise ValueError(msg) from None


def checked_mapping(value: object, what: str, known: Collection[str]) -> Mapping[str, object]:
    """Return a mapping that has no keys but the known ones."""
    if not isinstance(value, Mapping):
        msg = f"{what} must be a mapping, not {value!r}"
        raise ValueError(msg)  # noqa: TRY004 - a configuration's value is wrong, and callers catch one class
    unknown = [key for key in value if key not in known]
    if unknown:
        msg = f"{what} has no {unknown[0]!r}; known: {', '.join(known)}"
        raise ValueError(msg)
    return value


def first_match(names: Collection[str], patterns: Collection[str]) -> str | None:
    """Return the first pattern (`*`, `?`, `[…]`; upper and lower case differ) that one of the names matches."""
    return next((pattern for pattern in patterns if any(fnmatchcase(name, pattern) for name in names)), None)
