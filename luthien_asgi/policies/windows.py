"""Text on its way through substitutions: what is settled leaves, what may still become a match waits.

Strategy: a rule is configuration, a window is one text on its way through one rule. Windows keep back as little as the rule
allows: of a plain string the end that is a beginning of it, of an expression what starts where its probe (`probes`) says. A text
goes through several rules one after the other, so that what the first wrote, the second sees; at the end of the text all that
waits is settled in the same order. What comes out is what substituting in the whole text would have given, for every cut.

What is kept back for long is not searched again at each chunk but when it has grown by a part of itself, so that the time a text
takes grows with its length and not with the square of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from luthien_asgi.halves import ends_in_half, joined
from luthien_asgi.policies.probes import probe_of, split_flags
from luthien_asgi.policies.search_time import SearchTime

__all__ = ["LiteralRule", "PatternRule", "Replacement", "Rule", "Rules", "TextWindow", "pattern_rule"]

Replacement = Callable[[Any], str]
"""Makes of a match (`regex.Match`) what stands in its place."""

_SEARCHED_AT_ONCE: Final = 1024
"""Characters kept back that are searched again at each chunk; what is longer has to grow by a quarter first."""
_GROWTH: Final = 4
_SEARCH_TIME: Final = 0.5
_SEARCH_TIME_A_CHARACTER: Final = 4e-6
"""Seconds that the searches of one text may take, and what each of its characters adds: an ordinary expression needs a hundredth
of that, and one that needs more on some text would stop the whole server."""
_BEFORE: Final = 3
"""Characters before a text that are looked at with it for where a match may start."""
_SNIFFED: Final = 16
"""Characters of a plain string that are looked for before anything else is done."""


class Window(Protocol):
    """One text on its way through one rule."""

    changed: bool
    """Whether something was replaced."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept back."""
        ...

    def feed(self, text: str) -> str:
        """Take more of the text; return what is settled."""
        ...

    def flush(self, text: str) -> str:
        """Take the last of the text; return the rest: the text is over."""
        ...


class Rule(Protocol):
    """One substitution."""

    def window(self, shared: SearchTime | None = None) -> Window:
        """Return a window for one text, whose searches may share a time with others."""
        ...


# --- plain strings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiteralRule:
    """Replace a string by another, as `str.replace` does."""

    old: str
    new: str

    def window(self, shared: SearchTime | None = None) -> Window:  # noqa: ARG002 - it takes what the text's length takes
        """Return a window for one text."""
        return _LiteralWindow(self.old, self.new)


class _LiteralWindow:
    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new
        self._kept = ""
        self.changed = False

    @property
    def is_empty(self) -> bool:
        return not self._kept

    def feed(self, text: str) -> str:
        *before, rest = (self._kept + text).split(self._old)
        self.changed = self.changed or bool(before)
        start = _start_of_beginning(rest, self._old)
        self._kept = rest[start:]
        return self._new.join([*before, rest[:start]])

    def flush(self, text: str) -> str:
        settled = self.feed(text)
        rest, self._kept = self._kept, ""
        return settled + rest


def _start_of_beginning(text: str, old: str) -> int:
    """Return where the longest end of `text` begins that is a beginning of `old`, and not all of it."""
    start = max(0, len(text) - len(old) + 1)
    while (start := text.find(old[0], start)) >= 0:
        if old.startswith(text[start:]):
            return start
        start += 1
    return len(text)


# --- expressions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternRule:
    """Replace what an expression matches by what a function makes of the match, as `regex.sub` does."""

    find: Any
    """The expression, compiled by the library `regex`."""
    find_more: Any
    """The same without an empty match where the search starts: for what follows an empty match there."""
    probe: Any
    """Tells where what is not settled begins; None when matches are known only once the text is whole."""
    probe_more: Any
    context: int
    """How many characters before a place the expression looks at, at most."""
    new: Replacement
    starts: re.Pattern[str] | None = None
    """What a text matches in which a match may begin, where that is known: quicker than the expression. The text has the last
    characters before it at its front, and what may be the beginning of a beginning at its end has to match too."""

    def window(self, shared: SearchTime | None = None) -> Window:
        """Return a window for one text."""
        return _PatternWindow(self, shared)


def pattern_rule(source: str, new: Replacement, starts: str | None = None) -> PatternRule:
    """Return the rule of an expression, in the syntax of the library `regex`, which takes what `re` takes.

    `starts` (see `PatternRule`) is for one that never matches nothing. Raises `ValueError` for what is no expression, and for
    one that searches backwards.
    """
    import regex  # whoever replaces plain strings does not pay for it

    def compiled(flags: str, body: str, ending: str) -> Any:  # noqa: ANN401 - the library has no types
        return regex.compile(f"{flags}(?:{body}{line_end}){ending}")

    try:
        find = regex.compile(source)
    except regex.error as error:
        raise ValueError(str(error)) from None
    if find.flags & regex.REVERSE:
        msg = "an expression cannot search backwards in a text that is still being written"
        raise ValueError(msg)
    line_end = "\n" if find.flags & regex.VERBOSE else ""  # it may end in a comment
    probe = probe_of(source)
    return PatternRule(
        find=find,
        find_more=compiled(*split_flags(source), _NOT_EMPTY),
        probe=None if probe is None else compiled(probe.flags, probe.body, _NEVER),
        probe_more=None if probe is None else compiled(probe.flags, probe.body, _NOT_EMPTY + _NEVER),
        context=0 if probe is None else probe.context,
        new=new,
        starts=None if starts is None else re.compile(starts),
    )


_NOT_EMPTY: Final = r"(?!\G)"
_NEVER: Final = "(*PRUNE)(*FAIL)"


class _PatternWindow:
    def __init__(self, rule: PatternRule, shared: SearchTime | None) -> None:
        self._rule = rule
        self._shared = shared
        self._text = ""
        """What was kept back, after as much of the text before it as the expression looks at."""
        self._place = 0
        """Where what was kept back begins."""
        self._added: list[str] = []
        self._size = 0
        self._wait = 0
        self._after_empty = False
        self.changed = False

    @property
    def is_empty(self) -> bool:
        return self._size == 0

    def feed(self, text: str) -> str:
        starts = self._rule.starts
        if starts is not None and self._size == 0:
            before = self._text + text
            if starts.search(before, max(0, self._place - _BEFORE)) is None:
                self._keep(before, len(before), after_empty=False)
                return text
        self._added.append(text)
        self._size += len(text)
        if self._rule.probe is None or self._size < self._wait:
            return ""
        settled = self._settle(last=False)
        self._wait = self._size + self._size // _GROWTH if self._size > _SEARCHED_AT_ONCE else 0
        return settled

    def flush(self, text: str) -> str:
        self._added.append(text)
        return self._settle(last=True)

    def _settle(self, *, last: bool) -> str:
        """Return what is settled. Raises `TimeoutError` when the expression takes too long."""
        text = self._text + "".join(self._added)
        search = _Search(self._rule, text, self._shared)
        out: list[str] = []
        place, limit = self._place, -1
        while True:
            if limit < place or self._after_empty:
                limit = len(text) + 1 if last else search.limit(place, self._after_empty)
            found = search.next(place, self._after_empty)
            if found is None or found.start() >= limit:
                break
            new = self._rule.new(found)
            self.changed = self.changed or new != found[0]
            out += [text[place : found.start()], new]
            place = found.end()
            self._after_empty = found.start() == place
        limit = min(limit, len(text))
        out.append(text[place:limit])
        self._keep(text, limit, after_empty=self._after_empty and limit == place)
        return "".join(out)

    def _keep(self, text: str, start: int, *, after_empty: bool) -> None:
        self._added = []
        self._after_empty = after_empty
        self._size = len(text) - start
        self._place = min(start, self._rule.context)
        self._text = text[start - self._place :]


class _Search:
    """The searches in one text, which share a time, perhaps with those in others."""

    def __init__(self, rule: PatternRule, text: str, shared: SearchTime | None) -> None:
        self._rule = rule
        self._shared = shared
        self._text = text
        self._deadline = time.monotonic() + _SEARCH_TIME + len(text) * _SEARCH_TIME_A_CHARACTER

    def next(self, place: int, after_empty: bool) -> Any:  # noqa: ANN401 - a match or None
        """Return the leftmost match from a place on."""
        find = self._rule.find_more if after_empty else self._rule.find
        return find.search(self._text, place, timeout=self._left())

    def limit(self, place: int, after_empty: bool) -> int:
        """Return where what is not settled begins."""
        probe = self._rule.probe_more if after_empty else self._rule.probe
        found = probe.search(self._text, place, partial=True, timeout=self._left())
        start: int = len(self._text) if found is None else found.start()
        return start

    def _left(self) -> float:
        left = max(self._deadline - time.monotonic(), 0.001)
        return left if self._shared is None else min(left, self._shared.left())


# --- several rules ---------------------------------------------------------------------------------------------------------


class Rules:
    """Several rules, in their order."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._sniff: Final = _sniffer(rules)

    def then(self, *rules: Rule) -> Rules:
        """Return these rules and others after them."""
        return Rules((*self._rules, *rules))

    def window(self, shared: SearchTime | None = None) -> TextWindow:
        """Return a window for one text, whose searches may share a time with others."""
        return TextWindow(self._rules, shared)

    def pass_by(self, text: str) -> bool:
        """Tell whether a chunk's text leaves as it is when nothing was kept back before it. False where that is not known."""
        return self._sniff is not None and self._sniff(text) is None

    def whole(self, text: str, shared: SearchTime | None = None) -> str:
        """Return what becomes of a whole text. Raises `TimeoutError` when the searches take too long."""
        return self.window(shared).flush(text)


def _sniffer(rules: Sequence[Rule]) -> Callable[[str], object] | None:
    """Return a search for any sign of a match or a beginning of one, where plain strings are all that is replaced."""
    signs = [r"[\ud800-\udfff]"]
    for rule in rules:
        if not isinstance(rule, LiteralRule):
            return None
        start = rule.old[:_SNIFFED]
        signs.append(re.escape(start))
        beginning = ""
        for character in reversed(start[:-1]):
            beginning = re.escape(character) + (f"(?:{beginning})?" if beginning else "")
        signs += [rf"{beginning}\Z"] if beginning else []
    return re.compile("|".join(signs)).search


class TextWindow:
    """One text on its way through several rules. Halves of a character that a provider cut are put together."""

    def __init__(self, rules: Sequence[Rule], shared: SearchTime | None = None) -> None:
        self._windows = [rule.window(shared) for rule in rules]
        self._half = ""
        self.is_empty = True
        """Whether nothing is kept back."""

    @property
    def changed(self) -> bool:
        """Whether something was replaced."""
        return any(window.changed for window in self._windows)

    def feed(self, text: str) -> str:
        """Take more of the text; return what is settled."""
        if self._half or not text.isascii():
            text = self._with_whole_characters(text)
        for window in self._windows:
            text = window.feed(text)
        self.is_empty = not self._half and all(window.is_empty for window in self._windows)
        return text

    def flush(self, text: str = "") -> str:
        """Take the last of the text; return the rest: the text is over."""
        if self._half or not text.isascii():
            text = self._with_whole_characters(text) + self._half
            self._half = ""
        for window in self._windows:
            text = window.flush(text)
        self.is_empty = True
        return text

    def _with_whole_characters(self, text: str) -> str:
        text, self._half = joined((self._half, text)), ""
        if ends_in_half(text):
            text, self._half = text[:-1], text[-1]
        return text
