"""What a mask makes of a record before it is a line.

Strategy: a table says which fields hold nothing but words of this package and of its configuration; the strings of all others are
changed, the names of fields within them included, whatever they are for. So a field that is new is masked until the table has it.

A text that the mask fails at is left out, that one alone; and a record has a time, so that nobody's text can hold up the record
of others. The shortest come first, so that it is the longest for which there is no time; and what is as short as names, ids and
reasons are has as much time again, of which a long text takes nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final, TypeVar, cast

import msgspec

from luthien_asgi.blocks import Block
from luthien_asgi.json_strings import changed_deeply
from luthien_asgi.recorder import Begin, End, ModelCall, SampleRecord, VerdictRecord
from luthien_asgi.scrub import all_of

__all__ = ["FAILED", "MASK_TIME", "NO_TIME", "Mask", "masked"]

Mask = Callable[[str], str]
"""Changes a text before it is written, so that what a policy masks for the client is masked in the record too."""

_Record = TypeVar("_Record", Begin, End)

_OURS: Final[Mapping[type[Any], frozenset[str]]] = {
    Begin: frozenset({"id", "wire", "client"}),
    End: frozenset({"id", "ending", "decoder", "unchecked", "timings"}),
    SampleRecord: frozenset({"policy", "verdict"}),
    VerdictRecord: frozenset({"policy", "hook", "verdict", "action", "mode", "kind"}),
    ModelCall: frozenset({"policy"}),
    Block: frozenset({"kind"}),
}
"""Fields that no client, model or hook writes: a policy is called by its class, a client by its name in the configuration."""
_ERROR_FIELDS: Final = frozenset({"type", "message", "code", "param"})
"""Names of fields of an error's, which the record gives it."""
_FIGURES: Final = frozenset({"usage"})
"""Fields whose numbers are counted and summed up: they stay numbers."""
_SMALLEST: Final = 10**6
"""A number with fewer digits is none that says who somebody is."""
_LONG: Final = 1024
"""Characters above which a text is long: it has the record's time alone. What is shorter may take as much again."""
_BEGINNING: Final = 512
"""Characters of a value in which it is looked for what the name before it gives away."""

MASK_TIME: Final = 1.0
"""Seconds of its thread's time that the mask of one record may take before long texts are left out; with twice that, all are.

Looked at before each call of the mask: what one call takes comes on top.
"""
FAILED: Final = "[left out: the mask failed]"
"""What stands in the place of a text at which the mask raised."""
NO_TIME: Final = "[left out: no time left to mask it]"
"""What stands in the place of a text that came when the record's time was spent, or that spent it."""


def masked(record: _Record, mask: Mask, *, clock: Callable[[], float] = time.thread_time) -> _Record:
    """Return a record with its texts masked: alone, in the JSON and behind the escapes that they hold, and as names of fields.

    Names that become the same get a number. A text at which `mask` raises becomes `FAILED`, one for which there is no time left
    `NO_TIME`, the others stay; an end's notes say how many. `clock` gives seconds of this thread's time.
    """
    masking = _Masking(mask, clock)
    masking.look_at(record)
    changed: Any = masking.record(record)
    if masking.left_out and isinstance(record, End):
        why = ", ".join(f"{count} {reason}" for reason, count in masking.left_out.items())
        changed = replace(changed, notes=[*changed.notes, f"texts left out of the record: {why}"])
    return cast("_Record", changed)


class _SpentError(Exception):
    """There is no time left for a text."""


class _Masking:
    """The masking of one record."""

    def __init__(self, mask: Mask, clock: Callable[[], float]) -> None:
        self._mask, self._clock = mask, clock
        self._start = clock()
        self._texts: dict[str, str] = {}
        """What became of the texts, of which many come more than once: as a name, as what a model said and a client got."""
        self._collects = False
        self.left_out: Counter[str] = Counter()
        """How many different texts were left out, by the reason."""

    def look_at(self, record: Any) -> None:  # noqa: ANN401 - one of `_OURS`
        """Mask all texts of a record, the shortest first."""
        self._collects = True
        self.record(record)
        self._collects = False
        for text in sorted(self._texts, key=len):
            self._texts[text] = self._told(text, self._deeply)

    def record(self, record: Any) -> Any:  # noqa: ANN401 - one of `_OURS`
        ours = _OURS[type(record)]
        changed = {}
        for field in fields(record):
            value = getattr(record, field.name)
            if field.name in ours or isinstance(value, int | float):
                continue
            if field.name == "error" and isinstance(value, Mapping):
                changed[field.name] = self._fields(value, kept=_ERROR_FIELDS)
            else:
                changed[field.name] = self._value(value, numbers=field.name not in _FIGURES)
        return replace(record, **changed)

    def _value(self, value: Any, *, numbers: bool) -> Any:  # noqa: ANN401 - JSON, and records
        if isinstance(value, str):
            return self._text(value)
        if type(value) in _OURS:
            return self.record(value)
        if isinstance(value, Mapping):
            return self._fields(value, numbers=numbers)
        if isinstance(value, list | tuple):
            return [self._value(item, numbers=numbers) for item in value]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._number(value) if numbers and abs(value) >= _SMALLEST else value
        return self._value(msgspec.to_builtins(value), numbers=numbers)  # whatever else `jsontext` would make a text of

    def _number(self, value: float) -> float | str:
        if self._collects:
            return value
        return value if (told := self._told(str(value), self._call)) == str(value) else told

    def _fields(self, value: Mapping[Any, Any], *, kept: frozenset[str] = frozenset(), numbers: bool = True) -> dict[Any, Any]:
        def changed() -> Iterator[tuple[Any, Any]]:
            for name, item in value.items():
                new = self._name(name) if name not in kept else name
                told = self._value(item, numbers=numbers)
                if isinstance(told, str) and isinstance(new, str) and not self._collects:
                    told = self._known_by_name(new, told)
                yield new, told

        return all_of(changed())

    def _text(self, text: str) -> str:
        if not text:
            return text
        if self._collects:
            return self._texts.setdefault(text, text)
        return self._texts[text]  # a text that was not looked at is none that may be written

    def _name(self, name: Any) -> Any:  # noqa: ANN401 - a text, or the number of a choice
        return name if isinstance(name, int) else self._text(str(name))

    def _known_by_name(self, name: str, value: str) -> str:
        """Return a value masked where it is the name before it that gives it away, as in `Authorization: Basic …`.

        One that is longer is looked at whole if its beginning is given away.
        """
        if value in {FAILED, NO_TIME}:
            return value
        for known in (value[:_BEGINNING], value):
            told = self._told(f"{name}: {known}", self._call)
            if told == f"{name}: {known}":
                return value
            if told in {FAILED, NO_TIME} or known == value:
                break
        return told.removeprefix(f"{name}: ")

    def _told(self, text: str, change: Mask) -> str:
        try:
            return change(text)
        except _SpentError:
            self.left_out["for want of time"] += 1
            return NO_TIME
        except Exception as error:  # whatever a mask raises; not its text, which may quote content
            self.left_out[f"because the mask failed ({type(error).__name__})"] += 1
            return FAILED

    def _deeply(self, text: str) -> str:
        end = self._time(text)
        return changed_deeply(text, lambda part: self._call(part, end))

    def _call(self, part: str, end: float | None = None) -> str:
        if self._clock() >= (self._time(part) if end is None else end):
            raise _SpentError
        return self._mask(part)

    def _time(self, text: str) -> float:
        """Return until when a text may be masked."""
        return self._start + (MASK_TIME if len(text) > _LONG else 2 * MASK_TIME)
