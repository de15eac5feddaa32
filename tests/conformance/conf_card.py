"""The score card: for each recording, what each SDK of each client format makes of the answer, streamed and not.

Strategy: a cell is a reader's answer held against what it should be, as a list of differences, each the path of a field. On the
same wire that is what the same SDK makes of the recording itself, field for field, unless it gives up on that; on either wire it
is the recording's content (`conf_content`), which is all that the Responses API is held to: no provider is called in it, and its
own recordings are the oracle of its shapes in `tests/wire/test_responses_oracle.py`. Every difference needs an exception with a
reason, and every exception a difference.

openai-node does not know `reasoning_content`: of a stream it keeps the last fragment, or the null after it. So that field is
compared by content, and not in what it accumulates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from conf_content import choices_of, content_of_answer, content_of_events, events_of, mapped
from conf_exceptions import EXCEPTIONS, Exempt
from conf_legal import complaints
from conf_readers import CLIENTS, Reader, request_of
from conf_stage import Recording, Stage

__all__ = ["Card", "Cell", "Column", "columns", "fill"]

_PRIVATE: Final = ("__", "parsed", "_request_id")
_NOT_COMPARED: Final = frozenset({"object", "reasoning_content"})
"""`chat.completion.chunk` of a stream, `chat.completion` of a body; reasoning is compared by content."""


@dataclass(frozen=True, slots=True, order=True)
class Column:
    """A client format, who reads it, and whether it streams."""

    client: str
    reader: str
    stream: bool

    @property
    def title(self) -> str:
        """The column's name."""
        return f"{self.client} {self.reader} {'stream' if self.stream else 'body'}"


@dataclass(slots=True)
class Cell:
    """What is different from what it should be; `excused` is what an exception says why."""

    red: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """The cell in one character."""
        return "x" if self.red else "e" if self.excused else "."


@dataclass(slots=True)
class Card:
    """All cells, by recording and column, and which exceptions were needed."""

    columns: Sequence[Column]
    cells: dict[str, dict[Column, Cell]] = field(default_factory=dict)
    needed: set[int] = field(default_factory=set)
    complete: bool = True
    """Whether every reader was asked: only then is an exception that nobody needed one too many."""

    @property
    def idle(self) -> list[Exempt]:
        """The exceptions that nothing needed."""
        return [one for place, one in enumerate(EXCEPTIONS) if place not in self.needed] if self.complete else []

    def count(self, mark: str) -> int:
        """Return how many cells have that mark."""
        return sum(cell.mark == mark for row in self.cells.values() for cell in row.values())


def columns(readers: Sequence[str]) -> list[Column]:
    """Return the columns in their order."""
    return [Column(client, reader, stream) for client in CLIENTS for reader in readers for stream in (True, False)]


def fill(card: Card, stage: Stage, readers: Mapping[str, Reader], recorded: Recording) -> None:
    """Fill the row of one recording."""
    events = events_of(stage.replay(recorded))
    content = content_of_events(recorded.wire, events)
    row = card.cells[recorded.name] = {}
    for column in card.columns:
        request = request_of(column.client, recorded.wire, choices_of(events))
        if column.reader == "legal":
            found = complaints(column.client, stage.url, request, stream=column.stream)
        else:
            wanted = mapped(content, backend=recorded.wire, client=column.client)
            found = _differences(stage, readers[column.reader], column, recorded, request, wanted)
        row[column] = _judged(card, recorded, column, found)


def _differences(
    stage: Stage, reader: Reader, column: Column, recorded: Recording, request: dict[str, Any], wanted: dict[str, Any]
) -> list[str]:
    got = reader.read(column.client, stage.url, request, stream=column.stream)
    if "error" not in wanted and got.get("error"):
        return [f"error: {got['error']}"]
    found: list[str] = []
    if column.client == recorded.wire:
        direct = reader.read(column.client, stage.provider_url, request, stream=True)
        if not direct.get("error"):
            found += _diff(_plain(direct), _plain(got), "")
    try:
        content = _comparable(content_of_answer(column.client, got), wanted, column)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [*found, f"content: not readable, {error!r}"]
    return found + list(_diff(wanted, content, "content"))


def _comparable(content: dict[str, Any], wanted: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """Leave out an estimate of the usage, where the provider told none, and what an SDK lost."""
    if "error" in content:
        return content
    usage = {} if wanted.get("usage") == {} else content["usage"]
    choices = content["choices"]
    if (column.client, column.reader, column.stream) == ("openai", "node", True):
        choices = [{**one, "thinking": said["thinking"]} for one, said in zip(choices, wanted["choices"], strict=False)]
    return {**content, "usage": usage, "choices": choices}


def _plain(value: Any) -> Any:
    """Return an SDK's object without what SDKs add, and without nulls and empty values, which they fill in differently."""
    if isinstance(value, Mapping):
        return {
            name: cleaned
            for name, item in value.items()
            if not name.startswith(_PRIVATE) and name not in _NOT_COMPARED and (cleaned := _plain(item)) not in (None, "", [], {})
        }
    if isinstance(value, list):
        # Accumulators keep the index of a call in a stream; a body has none.
        return [_plain({k: v for k, v in item.items() if k != "index"} if _is_call(item) else item) for item in value]
    return value


def _is_call(item: Any) -> bool:
    return isinstance(item, Mapping) and ("function" in item or "custom" in item)


def _diff(wanted: Any, got: Any, path: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(got, Mapping):
        for name in sorted({*wanted, *got}):
            yield from _diff(wanted.get(name), got.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for place, (one, other) in enumerate(zip(wanted, got, strict=True)):
            yield from _diff(one, other, f"{path}[{place}]")
    elif wanted != got or (isinstance(wanted, bool) != isinstance(got, bool)):
        yield f"{path}: {_short(wanted)} became {_short(got)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _judged(card: Card, recorded: Recording, column: Column, found: Sequence[str]) -> Cell:
    cell = Cell()
    for difference in found:
        excuses = [place for place, one in enumerate(EXCEPTIONS) if _covers(one, recorded, column, difference)]
        card.needed.update(excuses)
        (cell.excused if excuses else cell.red).append(difference)
    return cell


def _covers(one: Exempt, recorded: Recording, column: Column, difference: str) -> bool:
    return one.recording == recorded.name and column.client == one.client and re.match(one.path, difference) is not None
