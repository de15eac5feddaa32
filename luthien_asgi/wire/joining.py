"""What the pieces of a streamed OpenAI answer are as one value: the rules of a `stream: false` body.

Strategy: as the official SDK adds deltas up (strings are put together, lists by their entries' `index`, objects field by field),
save that what names something, and a number, is said again and not added.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["Addable", "Additions", "joined", "joined_audio", "joined_logprobs", "updated"]

_DEPTH: Final = 32
"""Levels of a structure that are added up; what is deeper is taken as it is said last."""
_LABELS: Final = frozenset({"id", "type", "index", "role", "name", "format", "channel", "signature"})


def joined(pieces: Sequence[Any], *, name: str = "", depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a field whose deltas had these pieces of it, at least one."""
    said = [piece for piece in pieces if piece is not None]
    if len(said) < 2:
        return said[0] if said else None
    if all(isinstance(piece, str) for piece in said):
        return said[-1] if name in _LABELS else "".join(said)
    if depth == 0:
        return said[-1]
    if all(isinstance(piece, Mapping) for piece in said):
        names = dict.fromkeys(key for piece in said for key in piece)
        return {key: joined([piece[key] for piece in said if key in piece], name=key, depth=depth - 1) for key in names}
    if all(isinstance(piece, list) for piece in said):
        return _joined_lists([entry for piece in said for entry in piece], depth - 1)
    return said[-1]


def _joined_lists(entries: list[Any], depth: int) -> list[Any]:
    if not all(isinstance(entry, Mapping) and isinstance(entry.get("index"), int) for entry in entries):
        return entries
    by_index: dict[int, list[Any]] = {}
    for entry in entries:
        by_index.setdefault(entry["index"], []).append(entry)
    return [joined(pieces, depth=depth) for pieces in by_index.values()]


def updated(first: Any, second: Any, *, depth: int = _DEPTH) -> Any:  # noqa: ANN401 - JSON
    """Return a field of a chunk or a choice after it was said again: the later word counts, in objects field by field."""
    if isinstance(first, Mapping) and isinstance(second, Mapping) and depth:
        return {**first, **{key: updated(first.get(key), value, depth=depth - 1) for key, value in second.items()}}
    return second


def joined_audio(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the audio of an answer whose deltas had these pieces of it."""
    audio: dict[str, Any] = {}
    for piece in pieces:
        audio |= {name: said for name, said in piece.items() if said is not None}
    for name, join in (("data", _joined_base64), ("transcript", "".join)):
        if said := [piece[name] for piece in pieces if isinstance(piece.get(name), str)]:
            audio[name] = join(said)
    return audio


def _joined_base64(pieces: Sequence[str]) -> str:
    try:
        return base64.b64encode(b"".join(map(base64.b64decode, pieces))).decode("ascii") if len(pieces) > 1 else pieces[0]
    except (binascii.Error, ValueError):  # cut elsewhere than between whole groups
        return "".join(pieces)


def joined_logprobs(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the logprobs of a choice whose deltas had these, or None where none had any."""
    if not pieces:
        return None
    found: dict[str, Any] = {"content": None, "refusal": None}
    for piece in pieces:
        for name, tokens in piece.items():
            if not isinstance(tokens, list):
                found.setdefault(name, tokens)
            elif found.get(name) is None:
                found[name] = list(tokens)
            else:
                found[name] += tokens
    return found


_Path = tuple[str | None, ...]
"""The names on the way to a list; None for each list on it."""


class Addable:
    """Which values of a delta's fields the official SDK can add to those before them.

    It adds a list of plain values to the end, and the objects of another by their index, and raises at anything else. So what a
    list has in it may not change from delta to delta, wherever in a field it is.
    """

    __slots__ = ("_plain",)

    def __init__(self) -> None:
        self._plain: dict[_Path, bool] = {}

    def take(self, name: str, value: object) -> bool:
        """Tell whether a field can be added; then it counts as said."""
        if not isinstance(value, Mapping | list):
            return True
        found: dict[_Path, bool] = {}
        if not _lists(value, (name,), found, _DEPTH) or any(self._plain.get(path, is_) != is_ for path, is_ in found.items()):
            return False
        self._plain |= found
        return True


def _lists(value: object, path: _Path, found: dict[_Path, bool], depth: int) -> bool:
    """Find the lists in a value, and whether they hold plain values. Returns False for one that cannot be added to any other."""
    if not isinstance(value, Mapping | list) or not value:
        return True
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return all(_lists(entry, (*path, name), found, depth - 1) for name, entry in value.items())
    plain = all(isinstance(entry, str | int | float) for entry in value)
    if found.setdefault(path, plain) != plain:
        return False
    return plain or all(
        isinstance(entry, Mapping) and isinstance(entry.get("index"), int) and _lists(entry, (*path, None), found, depth - 1)
        for entry in value
    )


class Additions:
    """The fields of one choice's deltas: what the official SDK can add up leaves at once, the rest once, before the finish."""

    __slots__ = ("_addable", "_late", "_live", "lost")

    def __init__(self) -> None:
        self._addable = Addable()
        self._late: dict[str, Any] = {}
        self._live: set[str] = set()
        self.lost = False
        """Whether a field could neither be added to what had left, nor kept."""

    def now(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what leaves at once, and keep the rest."""
        leaving: dict[str, Any] = {}
        for name, value in fields.items():
            if name in self._late:
                self.keep(name, value)
            elif self._addable.take(name, value):
                self._live.add(name)
                leaving[name] = value
            elif name in self._live:
                self.lost = True
            else:
                self.keep(name, value)
        return leaving

    def late(self) -> dict[str, Any]:
        """Return what was kept, once."""
        late, self._late = self._late, {}
        return late

    def keep(self, name: str, value: object) -> None:
        """Keep a field until the finish; a list is added to the one that is kept."""
        kept = self._late.get(name)
        if isinstance(kept, list) and isinstance(value, list):
            kept += value
        else:
            self._late[name] = list(value) if isinstance(value, list) else value
