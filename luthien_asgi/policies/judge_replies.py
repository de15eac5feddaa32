"""Reading what a judge replied.

Strategy: a verdict is the one JSON object in the reply that holds the question's nonce. The nonce was drawn after what is judged
had been written, so nothing that a judge quotes of it can be taken for its verdict. What is left open is refused and never
guessed: no such object, two of them, a name twice in one, a score out of range. Code fences and words around it do no harm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

__all__ = ["Score", "read_score", "read_violations", "said", "verdict_in"]

_REPLY_CHARACTERS: Final = 50_000
"""A judge that writes more has not answered."""
_ATTEMPTS: Final = 100
"""Braces that begin no JSON, before a reply is given up: reading stays linear whatever a judge was made to write."""
_EXPLANATION: Final = 500
"""Characters of an explanation that are kept."""
_NAMES: Final = ("score", "probability")


@dataclass(frozen=True, slots=True)
class Score:
    """How a judge sees something: from 0, nothing speaks against it, to 1."""

    value: float
    explanation: str


def verdict_in(reply: str, nonce: str) -> Mapping[str, Any]:
    """Return the verdict of a reply. Raises `ValueError` when there is none, or more than one."""
    if len(reply) > _REPLY_CHARACTERS:
        _refuse("the reply is too long")
    if (times := reply.count(nonce)) != 1:
        _refuse(f"the nonce is in the reply {times} times, not once: what is quoted could be taken for the verdict")
    found = [value for value, text in _objects(reply) if value.get("nonce") == nonce and nonce in text]
    if len(found) != 1:
        _refuse(f"the reply has {len(found)} verdicts, not one")
    return found[0]


def read_score(verdict: Mapping[str, Any]) -> Score:
    """Return a verdict's `score`, or `probability`. Raises `ValueError` for one that is no number from 0 to 1."""
    given = [verdict[name] for name in _NAMES if name in verdict]
    if len(given) != 1 or isinstance(given[0], bool) or not isinstance(given[0], int | float) or not 0 <= given[0] <= 1:
        _refuse("the verdict has no score from 0 to 1")
    return Score(float(given[0]), said(verdict.get("explanation")))


def read_violations(verdict: Mapping[str, Any], rules: int) -> tuple[int, ...]:
    """Return which rules are violated, counted from 1, in order. Raises `ValueError` for anything else than a list of them."""
    given = verdict.get("violated")
    if not isinstance(given, list) or any(isinstance(item, bool) or not isinstance(item, int) for item in given):
        _refuse("the verdict does not list the rules that are violated")
    if any(not 1 <= number <= rules for number in given):
        _refuse("the verdict names a rule that there is not")
    return tuple(sorted(set(given)))


def said(explanation: object) -> str:
    """Return a judge's explanation as it is kept: one line of printable text, bounded; empty when it is no text."""
    if not isinstance(explanation, str):
        return ""
    words = " ".join(explanation[: _EXPLANATION * 4].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in words)
    return line if len(line) <= _EXPLANATION else f"{line[: _EXPLANATION - 1]}…"


def _objects(reply: str) -> list[tuple[dict[str, Any], str]]:
    """Return the JSON objects in a text that are not inside one another, each with its own text."""
    found: list[tuple[dict[str, Any], str]] = []
    place, failed = reply.find("{"), 0
    while place >= 0:
        try:
            value, end = _DECODER.raw_decode(reply, place)
            found.append((value, reply[place:end]))
        except (ValueError, RecursionError):
            failed += 1
            end = place + 1
        if failed > _ATTEMPTS:
            _refuse("the reply has too many braces that begin no JSON")
        place = reply.find("{", end)
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        _refuse("a name is there twice: which one counts depends on the reader")
    return value


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        _refuse("a number is beyond what a double holds")
    return value


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_doubles, parse_constant=_refuse, parse_float=_finite)
