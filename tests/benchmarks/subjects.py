"""What is measured: who is asked, in which way, and under which load.

A subject is a server and a way to ask it; a load is a number of streams and a shape. Which subjects a load is put on is a table:
the whole of it takes an hour (`--everything`), and most of what is left out by default is told by its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shapes import PACED, Shape

__all__ = ["BARS_NEED", "DIRECT", "LOADS", "OURS", "Load", "Subject", "subjects"]

OURS: Final = "luthien"
DIRECT: Final = "direct"
"""No server: the client asks the provider. What is left is the measurement's own."""
FLOORS: Final = ("plain", "raw", "aio")
FORMATS: Final = ("openai", "anthropic")
_PAIRS: Final = tuple((client, provider) for client in FORMATS for provider in FORMATS)
_SAME: Final = ("openai", "openai")
_LIKE: Final = (_SAME, ("anthropic", "anthropic"))
_SHORT: Final = {"openai": "O", "anthropic": "A"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A server, asked in one way."""

    server: str
    layer: str = ""
    """Ours only: one of `layers.py`."""
    client: str = "openai"
    provider: str = "openai"

    @property
    def key(self) -> str:
        """The name in results: `rewrite A-O` is ours, an Anthropic client on an OpenAI backend."""
        if self.server == OURS or self.client != "openai":
            return f"{self.layer or self.server} {_SHORT[self.client]}-{_SHORT[self.provider]}"
        return self.server


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many streams at a time."""

    name: str
    at_once: int
    shape: Shape | None = None
    """Of a paced load; a burst has two lengths."""


LOADS: Final = {
    load.name: load
    for load in (
        Load(name="burst", at_once=8),
        *(Load(name=f"paced-{count}", at_once=count, shape=PACED) for count in (1, 20, 100, 300)),
    )
}


BARS_NEED: Final = {
    "burst": ("plain", "raw", "tensorzero", "replace O-O", "none O-O", "rewrite O-O", "rewrite A-O", "rewrite A-A"),
    "paced-20": ("aio", "rewrite O-O", "held O-O"),
    "paced-100": ("raw", "aio", "none O-O", "rewrite O-O"),
    "paced-300": ("rewrite O-O",),
    "footprint": ("rewrite O-O",),
}
"""Without what no bar can be told: all that a quick run measures."""
FOOTPRINTS: Final = ("raw", "aio", "tensorzero", "portkey")
"""Who keeps up with so many streams that an open one can be weighed, beside ours."""


def _ours(layer: str, pairs: Sequence[tuple[str, str]] = (_SAME,)) -> list[Subject]:
    return [Subject(OURS, layer, *pair) for pair in pairs]


def subjects(load: str, *, peers: Sequence[str], everything: bool) -> list[Subject]:
    """Return what a load is put on. Who is full long before it is left out."""
    if load == "footprint":
        return [*(Subject(name) for name in FOOTPRINTS if name in (*FLOORS, *peers)), *_ours("none"), *_ours("rewrite")]
    full = set() if load in ("burst", "paced-1", "paced-20") else {"plain", "litellm"}
    others = [Subject(name) for name in (*FLOORS, *peers) if name not in full]
    if load == "burst":
        cross = [Subject("litellm", client="anthropic")] if "litellm" in peers else []
        return [*others, *cross, *_ours("jsonl"), *_ours("replace"), *_all_ours()]
    own = _all_ours() if everything else _chosen(load)
    return [Subject(DIRECT), *others, *own] if everything or load in ("paced-20", "paced-100") else [*others, *own]


def _all_ours() -> list[Subject]:
    return [subject for layer in ("none", "rewrite", "held") for subject in _ours(layer, _PAIRS)]


def _chosen(load: str) -> list[Subject]:
    match load:
        case "paced-20":
            return [*_ours("none"), *_ours("rewrite", _PAIRS), *_ours("held", _LIKE)]
        case "paced-100":
            return [*_ours("none"), *_ours("rewrite", _LIKE), *_ours("held")]
        case "paced-1":
            return [*_ours("rewrite"), *_ours("held")]
        case _:
            return _ours("rewrite")
