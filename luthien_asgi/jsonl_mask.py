"""What a mask makes of a record before it is a line.

Strategy: a table says which fields hold nothing but words of this package and of its configuration; the strings of all others are
changed, the names of fields within them included, whatever they are for. So a field that is new is masked until the table has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final, TypeVar, cast

import msgspec

from luthien_asgi.blocks import Block
from luthien_asgi.json_strings import changed_deeply
from luthien_asgi.recorder import Begin, End, ModelCall, SampleRecord, VerdictRecord
from luthien_asgi.scrub import all_of

__all__ = ["Mask", "masked"]

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
_LONGEST_VALUE: Final = 512
"""Characters of a value that may be known for what it is by the name before it."""


def masked(record: _Record, mask: Mask) -> _Record:
    """Return a record with its texts masked: alone, in the JSON and behind the escapes that they hold, and as names of fields.

    Names that become the same get a number. Raises what `mask` raises.
    """
    return cast("_Record", _Masking(mask).record(record))


class _Masking:
    """The masking of one record."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._names: dict[str, str] = {}
        """What became of the names of fields, which are few and come often."""

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
        return value if (told := self._mask(str(value))) == str(value) else told

    def _fields(self, value: Mapping[Any, Any], *, kept: frozenset[str] = frozenset(), numbers: bool = True) -> dict[Any, Any]:
        def changed() -> Iterator[tuple[Any, Any]]:
            for name, item in value.items():
                new = self._name(name) if name not in kept else name
                told = self._value(item, numbers=numbers)
                if isinstance(told, str) and isinstance(new, str) and len(told) <= _LONGEST_VALUE:
                    told = self._known_by_name(new, told)
                yield new, told

        return all_of(changed())

    def _text(self, text: str) -> str:
        return changed_deeply(text, self._mask) if text else text

    def _name(self, name: Any) -> Any:  # noqa: ANN401 - a text, or the number of a choice
        if isinstance(name, int):
            return name
        if name not in self._names:
            self._names[name] = self._text(str(name))
        return self._names[name]

    def _known_by_name(self, name: str, value: str) -> str:
        """Return a value masked where it is the name before it that gives it away, as in `Authorization: Basic …`."""
        return self._mask(f"{name}: {value}").removeprefix(f"{name}: ")
