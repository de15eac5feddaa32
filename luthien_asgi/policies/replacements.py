r"""What `ReplaceText` is told to replace: the entries of its configuration, made into rules.

An entry is a pair `[old, new]`, or a mapping:

    {old: a string, new: a string, ignore_case: false, match_case: false}
    {pattern: an expression, new: a template, ignore_case: false, match_case: false}

In a template `\1` and `\g<name>` stand for what a group matched (nothing where it took no part), `\n`, `\t` and the like for the
characters that they are in Python, and `\\` for a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from luthien_asgi.policies.windows import LiteralRule, PatternRule, Replacement, Rule, pattern_rule

__all__ = ["cased_like", "rules_of"]

_FIELDS: Final = frozenset({"old", "pattern", "new", "ignore_case", "match_case"})
_WORD: Final = re.compile(r"[^\W\d_][\w'’]*")
_REFERENCE: Final = re.compile(r"\\(?:(?P<number>[1-9]\d?)|g<(?P<name>\w+)>|(?P<other>.?))", re.DOTALL)
_CHARACTERS: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def rules_of(replacements: object, *, ignore_case: bool, match_case: bool) -> list[Rule]:
    """Return the rules of a list of entries; the two flags hold where an entry has none of its own. Raises `ValueError`."""
    if isinstance(replacements, str | Mapping) or not isinstance(replacements, Sequence):
        msg = f"replacements must be a list of pairs [old, new] or of mappings, not {replacements!r}"
        raise ValueError(msg)  # noqa: TRY004 - it comes from a configuration, and callers catch one class
    if not replacements:
        msg = "replacements is empty: nothing would ever be replaced"
        raise ValueError(msg)
    flags = {"ignore_case": ignore_case, "match_case": match_case}
    return [_rule({**flags, **_fields(entry)}, entry) for entry in replacements]


def _fields(entry: object) -> Mapping[str, Any]:
    match entry:
        case [str() as old, str() as new]:
            return {"old": old, "new": new}
        case Mapping():
            return entry
    msg = f"a replacement must be a pair of strings [old, new], or a mapping, not {entry!r}"
    raise ValueError(msg)


def _rule(fields: Mapping[str, Any], entry: object) -> Rule:
    old, pattern, new = fields.get("old"), fields.get("pattern"), fields.get("new")
    ignore_case, match_case = fields["ignore_case"], fields["match_case"]
    if unknown := [name for name in fields if name not in _FIELDS]:
        msg = f"a replacement has no {unknown[0]!r}: {entry!r}"
        raise ValueError(msg)
    if not isinstance(new, str) or (old is None) == (pattern is None):
        msg = f"a replacement must be a pair of strings [old, new], or a mapping with old or pattern, and new, not {entry!r}"
        raise ValueError(msg)
    if not isinstance(ignore_case, bool) or not isinstance(match_case, bool):
        msg = f"ignore_case and match_case must be true or false, not {ignore_case!r} and {match_case!r}"
        raise ValueError(msg)  # noqa: TRY004 - as above
    if pattern is not None:
        return _of_pattern(pattern, new, ignore_case=ignore_case or match_case, match_case=match_case)
    if not isinstance(old, str) or not old:
        msg = f"a replacement must be made with a non-empty old, not {entry!r}"
        raise ValueError(msg)
    if not (ignore_case or match_case):
        return LiteralRule(old, new)
    return pattern_rule(f"(?i){re.escape(old)}", _cased(lambda _: new) if match_case else lambda _: new)


def _of_pattern(pattern: object, new: str, *, ignore_case: bool, match_case: bool) -> PatternRule:
    if not isinstance(pattern, str) or not pattern:
        msg = f"a pattern must be a regular expression that is not empty, not {pattern!r}"
        raise ValueError(msg)
    try:
        rule = pattern_rule(f"(?i){pattern}" if ignore_case else pattern, lambda _: "")
        made = _template(new, groups=rule.find.groups, names=rule.find.groupindex)
    except ValueError as error:
        msg = f"the pattern {pattern!r} cannot be used: {error}"
        raise ValueError(msg) from None
    return replace(rule, new=_cased(made) if match_case else made)


# --- templates -------------------------------------------------------------------------------------------------------------


def _template(new: str, *, groups: int, names: Mapping[str, int]) -> Replacement:
    """Return what makes a match's replacement of a template. Raises `ValueError` for a reference to nothing."""
    parts: list[str | int] = []
    place = 0
    for found in _REFERENCE.finditer(new):
        parts += [new[place : found.start()], _reference(found, groups, names)]
        place = found.end()
    parts.append(new[place:])
    if all(isinstance(part, str) for part in parts):
        text = "".join(str(part) for part in parts)
        return lambda _: text
    return lambda match: "".join(part if isinstance(part, str) else match[part] or "" for part in parts)


def _reference(found: re.Match[str], groups: int, names: Mapping[str, int]) -> str | int:
    if (other := found["other"]) is not None:
        if other in _CHARACTERS:
            return _CHARACTERS[other]
        if other and not (other.isascii() and other.isalnum()):
            return found[0]  # as `re` has it: only letters and digits are kept for a meaning
        msg = f"{found[0]} means nothing in a replacement; a backslash is written twice"
        raise ValueError(msg)
    given = found["number"] or found["name"]
    number = int(given) if given.isdecimal() else names.get(given, -1)
    if not 0 <= number <= groups:
        msg = f"there is no group {given}"
        raise ValueError(msg)
    return number


# --- upper and lower case ----------------------------------------------------------------------------------------------------


def _cased(made: Callable[[Any], str]) -> Replacement:
    return lambda match: cased_like(match[0], made(match))


def cased_like(matched: str, new: str) -> str:
    """Return `new` in the case of `matched`: all small, all capitals, the first letter or each word's a capital.

    One letter that is a capital is a first letter. A mixture of another kind (`iPhone`) and a text without letters say nothing:
    then `new` is as it is.
    """
    letters = [character for character in matched if character.lower() != character.upper()]
    if not letters:
        return new
    if all(character == character.lower() for character in letters):
        return new.lower()
    words = _WORD.findall(matched)
    if len(letters) > 1 and all(character == character.upper() for character in letters):
        return new.upper()
    if len(words) > 1 and all(word == word.capitalize() for word in words):
        return _WORD.sub(lambda word: word[0].capitalize(), new)
    if words and words[0] == words[0].capitalize() and all(word == word.lower() for word in words[1:]):
        return _WORD.sub(lambda word: word[0].capitalize(), new.lower(), count=1)
    return new
