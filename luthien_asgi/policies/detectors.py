"""What `Redact` finds, and where in a text it is.

Strategy: each kind has an expression for what may be one, and where a form is not enough a check of what was found: the card's
Luhn sum, the IBAN's remainder, the number of a phone number's digits. Kinds are looked for one after the other, so that what an
earlier kind took a later one does not see. An expression marks with a group `value` what is the value in what it found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Final

from luthien_asgi.policies.search_time import SearchTime
from luthien_asgi.policies.secrets_table import FIRST, GLUED, HINT, KEYS, NAMED_KEYS, PRIVATE_KEY, SECOND
from luthien_asgi.policies.windows import PatternRule, Rules, pattern_rule

__all__ = ["KINDS", "Detectors", "Make"]

Make = Callable[[str, str], str]
"""Makes of a kind and a value what stands in its place."""
Spans = Callable[[Any], Iterator[tuple[int, int]]]
_Row = tuple[str, str, str, str | None, Spans]

_LEFT: Final = r"(?<!(?<!\\|%[0-9A-Fa-f])[A-Za-z0-9])"
"""No letter or digit before it, unless that of an escape."""
_PART: Final = 65_536
_HINT_SIZE: Final = 256
"""Characters of a text that are looked at in one go for a hint, and no hint has more."""
_DASH: Final = r"\-‐-–"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detector:
    """One way to find one kind."""

    kind: str
    rule: PatternRule
    hint: re.Pattern[str]
    """What every text with such a value matches: looked for first in a whole text."""
    spans: Spans

    def may_be_in(self, text: str) -> bool:
        """Tell whether a text may have such a value. A long one is looked at in parts, for threads to take turns."""
        places = range(0, len(text), _PART)
        return any(self.hint.search(text, place, place + _PART + _HINT_SIZE) is not None for place in places)

    def masking(self, make: Make) -> PatternRule:
        """Return the rule that puts something in the place of each value."""
        return replace(self.rule, new=lambda match: _masked(match, self.spans(match), self.kind, make))


def _masked(match: Any, spans: Iterator[tuple[int, int]], kind: str, make: Make) -> str:  # noqa: ANN401 - the library has no types
    text: str = match[0]
    out, place = "", 0
    for start, end in spans:
        out += text[place:start] + make(kind, text[start:end])
        place = end
    return out + text[place:]


class Detectors:
    """Finds values of some kinds. Raises `ValueError` for a kind or a region that there is not, or a library that is missing."""

    def __init__(self, kinds: Collection[str], *, phone_region: str = "") -> None:
        self._detectors = [_built(*row) for row in _table(phone_region) if row[0] in kinds]

    def rules(self, make: Make, text: str | None = None) -> Rules:
        """Return the rules that mask; with a text, those of them alone that may find something in it."""
        return Rules([each.masking(make) for each in self._detectors if text is None or each.may_be_in(text)])

    def masked(self, text: str, make: Make, shared: SearchTime | None = None) -> str:
        """Return a whole text with its values masked. Raises `TimeoutError` when it takes too long."""
        if shared is not None:
            shared.left()
        if not any(each.may_be_in(text) for each in self._detectors):
            return text
        return self.rules(make, text).whole(text, shared)


def _built(kind: str, source: str, hint: str, starts: str | None, spans: Spans) -> _Detector:
    return _Detector(kind=kind, rule=pattern_rule(source, lambda match: match[0], starts), hint=re.compile(hint), spans=spans)


def _table(phone_region: str) -> list[_Row]:
    rows = list(_ROWS)
    return [*rows, ("phone", _NATIONAL, r"\d\D{0,3}\d", r"[\d(]", _in_region(phone_region))] if phone_region else rows


# --- where the value is ------------------------------------------------------------------------------------------------------


def _value(match: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Yield the group `value`, or all of it where there is none."""
    start, end = match.span("value") if "value" in match.re.groupindex else (-1, -1)
    yield (start - match.start(), end - match.start()) if start >= 0 else (0, len(match[0]))


def _cards(match: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Yield the numbers of cards in a row of digits that may be in groups, the Luhn sum being right."""
    text = match[0]
    places = [place for place, character in enumerate(text) if character.isdigit()]
    digits = [int(text[place]) for place in places]
    number = "".join(map(str, digits))
    sums = [list(accumulate(_luhn_terms(digits, parity), initial=0)) for parity in (0, 1)]
    first = 0
    while first + 13 <= len(digits):
        if first and places[first] == places[first - 1] + 1:
            first += 1
            continue
        last = next(
            (first + size for size in _card_sizes(number[first : first + 6]) if _is_card(places, sums, first, first + size)), 0
        )
        if last:
            yield places[first], places[last - 1] + 1
        first = last or first + 1


def _luhn_terms(digits: Sequence[int], doubled: int) -> Iterator[int]:
    """Yield what each digit adds where those at even (0) or odd (1) places are doubled."""
    for place, digit in enumerate(digits):
        yield digit if place % 2 != doubled else digit * 2 - 9 * (digit > 4)


def _is_card(places: Sequence[int], sums: Sequence[Sequence[int]], first: int, last: int) -> bool:
    if last > len(places) or (last < len(places) and places[last] == places[last - 1] + 1):
        return False
    groups = [place for place in range(first + 1, last) if places[place] != places[place - 1] + 1]
    sizes = {end - start for start, end in pairwise([first, *groups])}
    if sizes and min(sizes) < _GROUP and sizes != {1}:
        return False
    doubled = sums[last % 2]  # the last digit is not doubled, the one before it is
    return (doubled[last] - doubled[first]) % 10 == 0


def _card_sizes(start: str) -> Sequence[int]:
    """Return how many digits a card has whose number starts like this (ISO/IEC 7812, the networks' own ranges)."""
    for pattern, sizes in _NETWORKS:
        if pattern.match(start):
            return sizes
    return ()


_GROUP: Final = 3
"""Digits of a group in a card's number, but the last: fewer are numbers of a list, unless each digit stands by itself."""
_NETWORKS: Final[Sequence[tuple[re.Pattern[str], Sequence[int]]]] = [
    (re.compile(r"4"), (16, 13, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"30[0-5]|309|36|38|39"), (14, 16, 19)),
    (re.compile(r"35|62|60|64|65|81|82|9792|220[0-4]"), (16, 19, 18, 17)),
    (re.compile(r"5[06-9]|6[379]"), (16, 19, 18, 17, 15, 14, 13)),
]


def _iban(match: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Yield an IBAN whose check digits are right (ISO 13616: the remainder by 97 is 1)."""
    compact = re.sub(r"[^0-9A-Za-z]", "", match["value"])
    if int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1:
        yield from _value(match)


def _phone(match: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Yield a number with as many digits as an international one has (ITU-T E.164: fifteen at most)."""
    digits = sum(character.isdigit() for character in match["value"]) - 2 * match["value"].startswith("00")
    if 8 <= digits <= 15:
        yield from _value(match)


def _in_region(region: str) -> Spans:
    """Return what finds numbers as they are written within a region (ISO 3166: `DE`)."""
    try:
        import phonenumbers
    except ImportError:
        msg = "phone_region needs the package phonenumbers: install luthien-asgi[redact]"
        raise ValueError(msg) from None
    if region not in phonenumbers.SUPPORTED_REGIONS:
        msg = f"phone_region must be a country's code of two capitals such as 'DE', not {region!r}"
        raise ValueError(msg)

    def spans(match: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401
        yield from ((found.start, found.end) for found in phonenumbers.PhoneNumberMatcher(match[0], region))

    return spans


# --- the table ---------------------------------------------------------------------------------------------------------------

_IBAN_SIZES: Final[Mapping[int, str]] = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG DZ",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
"""Characters of an IBAN, by country (SWIFT's registry of IBANs)."""
_IBAN: Final = "|".join(
    f"(?:{'|'.join((*codes.split(), *codes.lower().split()))})[0-9][0-9](?:[  {_DASH}]?[0-9A-Za-z]){{{size - 4}}}"
    for size, codes in _IBAN_SIZES.items()
)
_COUNTRY: Final = "[A-Za-z][A-Za-z][0-9][0-9]"
_COUNTRY_BEGINS: Final = r"[A-Za-z](?:[A-Za-z](?:[0-9](?:[0-9]|\Z)|\Z)|\Z)"
_KEY: Final = f"(?={FIRST}{SECOND})"
_LOCAL: Final = r"[\w.+'-]{0,127}+(?:%(?!40)[\w.+'-]{0,127}+){0,7}+"
"""Of the part before the `@`: no place in it is tried twice, because `%40` ends it."""
_EMAIL: Final = (
    rf"(?=\w)(?<!\w)(?:(?<=\\)[nrt])?+(?P<value>(?!git@)\w{_LOCAL}(?:%40{_LOCAL})?"
    r"(?:@|%40)(?=[\w.-]{1,520}?\.(?:xn--|[^\W\d_]{2}))(?:[\w-]{1,63}+\.){1,8}(?:xn--[\w-]{1,59}|[^\W\d_]{2,63}))"
)
_SEPARATED_DIGIT: Final = rf"(?:[  .()/{_DASH}]{{0,3}}\d)"
_INTERNATIONAL: Final = rf"(?=[+0])(?:(?<![\w+])|(?<=\\[nrt]))(?P<value>(?:\+ ?\(?|00)[1-9]{_SEPARATED_DIGIT}{{6,14}})(?!\d)"
_NATIONAL: Final = rf"(?<![\w+])[\d(]{_SEPARATED_DIGIT}{{5,16}}(?!\d)"

_ROWS: Final[Sequence[_Row]] = [
    ("private_key", PRIVATE_KEY, "PRIVATE KEY", "-", _value),
    (
        "password",
        r"(?<=://)[^\s/:@\\\"'<>]{0,128}:(?P<value>(?!\[PASSWORD_)[^\s/?#\\\"'<>]{1,256})(?=@)",
        "://",
        "://",
        _value,
    ),
    (
        "api_key",
        f"{_KEY}(?:{_LEFT}(?:{'|'.join((*KEYS.values(), *NAMED_KEYS.values()))})|{'|'.join(GLUED.values())})",
        HINT,
        rf"{FIRST}(?:{SECOND}|\Z)",
        _value,
    ),
    ("email", _EMAIL, "@|%40", None, _value),
    ("iban", rf"(?={_COUNTRY}){_LEFT}(?P<value>{_IBAN})(?![0-9A-Za-z])", _COUNTRY, _COUNTRY_BEGINS, _iban),
    ("card", rf"(?=\d)(?<!\d)(?<!\d\.)\d(?:[ \t {_DASH}]?\d){{12,}}+", r"\d.?\d.?\d.?\d.?\d", r"\d", _cards),
    ("phone", _INTERNATIONAL, r"\+|00", "[+0]", _phone),
]
"""Kind, expression, what every text with such a value matches, what one in which it may begin matches, where the value is."""
KINDS: Final = tuple(dict.fromkeys(row[0] for row in _ROWS))
"""What can be found, in the order in which it is looked for."""
