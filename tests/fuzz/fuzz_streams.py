"""The streams that mutations begin with: the recorded ones, where they are there, and the tests' own corpus.

Strategy: a stream is a list of events, each with its parsed JSON where it has any; what is not touched by a mutation is written
as its bytes were. Streams with hundreds of deltas are thinned (`thinned`): one more delta is no other case.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from luthien_asgi import jsontext

__all__ = ["Event", "Stream", "load_streams", "thinned"]

Wire = Literal["openai", "anthropic"]

_TESTS: Final = Path(__file__).parents[1]
_NOT_CHAT: Final = "openai-responses"
_KEPT: Final = 24
"""Events of one type in a row that a thinned stream keeps."""
_LARGEST: Final = 30_000
"""Bytes of one event; a page of search results teaches nothing that a line of it does not."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name (empty where it has none), and its data: JSON, or bytes that are none."""

    name: str
    data: Any

    def encoded(self) -> bytes:
        """Return the event as it goes over the wire."""
        head = f"event: {self.name}\n".encode("utf-8", "surrogatepass") if self.name else b""
        data = self.data if isinstance(self.data, bytes) else _json(self.data)
        return head + b"data: " + data + b"\n\n"


def _json(value: object) -> bytes:
    try:
        return jsontext.dumps(value)
    except (ValueError, OverflowError, RecursionError):
        return repr(value).encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream to begin with."""

    name: str
    wire: Wire
    events: Sequence[Event]


def load_streams() -> list[Stream]:
    """Return all streams in a fixed order; without recordings there is the corpus."""
    recorded = Path(os.environ.get("LUTHIEN_RECORDED") or _TESTS.parents[1] / "shared" / "recorded")
    paths = [path for folder in (recorded, _TESTS / "corpus") for path in sorted(folder.glob("*/*.*"))]
    return [_read(path) for path in paths if path.suffix in {".sse", ".jsonl"} and path.parent.name != _NOT_CHAT]


def _read(path: Path) -> Stream:
    wire: Wire = "anthropic" if path.parent.name == "anthropic" else "openai"
    data = path.read_bytes().lstrip(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = data.split(b"\n") if path.suffix == ".jsonl" else [_data_of(block) for block in data.split(b"\n\n")]
    events = [_event(line, wire) for line in lines if line.strip()]
    return Stream(f"{path.parent.name}/{path.name}", wire, [event for event in events if len(event.encoded()) < _LARGEST])


def _data_of(block: bytes) -> bytes:
    lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def _event(data: bytes, wire: Wire) -> Event:
    try:
        value = jsontext.loads(data)
    except ValueError:
        return Event("", data.replace(b"\n", b" "))
    name = value.get("type") if wire == "anthropic" and isinstance(value, dict) else None
    return Event(name if isinstance(name, str) else "", value)


def thinned(events: Sequence[Event], random: Random) -> list[Event]:
    """Return the events with long rows of one kind cut down to a window, somewhere."""
    if len(events) <= 2 * _KEPT:
        return list(events)
    start = random.randrange(_KEPT // 2, len(events) - _KEPT)
    skipped = range(start, min(start + random.randrange(len(events)), len(events) - _KEPT // 2))
    kept = [event for place, event in enumerate(events) if place not in skipped or _is_structure(event)]
    return [event for place, event in enumerate(kept) if place < 4 * _KEPT or _is_structure(event)]


def _is_structure(event: Event) -> bool:
    """Tell whether an event is more than one fragment among many."""
    return bool(event.name) and event.name != "content_block_delta"
