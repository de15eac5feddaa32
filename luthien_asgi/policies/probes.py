r"""Where a regular expression may still match once more text comes: its probe.

Strategy: a *probe* is the expression itself, changed so that it never matches, and asked for a partial match. The engine then
goes through what it would go through for a match, and reports the leftmost start whose attempt reached the end of the text. What
starts before that is settled, whatever comes; what starts there or later is not. `(*PRUNE)` after the expression stops an attempt
that already has its match, so that `foo|foobar` keeps nothing back after `foo`.

What looks at the end of the text without taking a character (`$`, `\b`, `\Z`) would not be noticed there, nor would the engine's
look ahead before it begins a group anew, so in the probe both ask for a character first. An expression with a part that is not
understood here has no probe; its matches are known when the text is whole.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Probe", "probe_of", "split_flags"]


class Probe(NamedTuple):
    """What is known about an expression without running it."""

    flags: str
    """The flags that stand before it, as `(?i)`."""
    body: str
    """The expression as it goes into a probe."""
    context: int
    """How many characters before a place it looks at, at most."""


_MORE: Final = r"(?=[\s\S])"
_AT_END: Final = r"(?:(?=\n?[\s\S])(?!)|(?=[\s\S])$)"
"""For `$`: wants a character after the end and after a last newline; in the middle it is what it was."""

_TOKEN: Final = re.compile(
    r"""(?P<escape>\\.)
      | (?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])
      | (?P<flags>\(\?(?P<letters>[a-zA-Z01]*)(?P<off>-[a-z]+)?[:)])
      | (?P<behind>\(\?<[=!])
      | (?P<group>\(\?(?:[=!>|]|P?<[^\W\d]\w*>|P=\w+\)|\#[^)]*\))|\((?![?*]))
      | (?P<close>\))
      | (?P<end>\$)
      | (?P<count>\{\d*,?\d*\}|[*+?])
      | (?P<plain>[^\\\[({$)])
    """,
    re.VERBOSE | re.DOTALL,
)
_LEADING: Final = re.compile(r"\(\?[a-zA-Z01]+\)")
_KNOWN_FLAGS: Final = frozenset("aimsu")
_BOUNDARIES: Final = frozenset({r"\b", r"\B", r"\m", r"\M"})
_ENDS: Final = frozenset({r"\Z", r"\z"})
_UNKNOWN: Final = frozenset({r"\G", r"\K", r"\L", r"\R", r"\X"})


def probe_of(source: str) -> Probe | None:
    """Return the probe of a valid expression, or None when there is none: recursion, verbs, fuzzy counts, unusual flags."""
    flags, body = split_flags(source)
    if not _KNOWN_FLAGS.issuperset(flags.strip("(?)")):
        return None
    walk = _Walk()
    place = 0
    while place < len(body):
        token = _TOKEN.match(body, place)
        if token is None or not walk.take(token):
            return None
        place = token.end()
    return Probe(flags, "".join(walk.parts), walk.behind + 1)


def split_flags(source: str) -> tuple[str, str]:
    """Return the flags that stand before an expression, for all of it, and the expression."""
    leading = _LEADING.match(source)
    return (leading[0], source[leading.end() :]) if leading else ("", source)


class _Walk:
    """One walk through an expression's tokens."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.behind = 0
        """Characters of the lookbehinds: what they look at is no longer, each of them needs one."""
        self._open: list[bool] = []
        """Of each open group whether it is inside a lookbehind."""

    def take(self, token: re.Match[str]) -> bool:
        """Take one token; tell whether it is understood."""
        kind, text = token.lastgroup, token[0]
        behind = bool(self._open) and self._open[-1]
        if kind == "flags":
            text, kind = self._flags(token)
        understood = kind != "unknown" and not (behind and self._is_beyond(kind, text))
        if kind in {"behind", "group"} and not text.endswith(")"):
            self._open.append(behind or kind == "behind")
        elif kind == "close" and self._open:
            self._open.pop()
        self.behind += len(text) if behind else 0
        self.parts.append(_rewritten(kind, text))
        if kind == "group" and not behind and not text.endswith(")"):
            self.parts.append(_MORE)
        return understood and not (kind == "escape" and text in _UNKNOWN)

    @staticmethod
    def _flags(token: re.Match[str]) -> tuple[str, str]:
        letters = set(token["letters"]) | set((token["off"] or "").lstrip("-"))
        scoped = token[0].endswith(":")
        return token[0], "group" if scoped and _KNOWN_FLAGS.issuperset(letters) else "unknown"

    @staticmethod
    def _is_beyond(kind: str | None, text: str) -> bool:
        """Tell whether a part may make a lookbehind look ahead, or further back than the expression is long."""
        if kind == "escape":
            return text in _BOUNDARIES | _ENDS or text[1].isdigit() or text[1] == "g"
        return kind in {"count", "end"} or text.startswith(("(?P=", "(?=", "(?!"))


def _rewritten(kind: str | None, text: str) -> str:
    if kind == "end":
        return _AT_END
    if kind == "escape" and text in _BOUNDARIES:
        return f"(?:{_MORE}{text})"
    if kind == "escape" and text in _ENDS:
        return f"(?:{_MORE}(?!))"
    return text
