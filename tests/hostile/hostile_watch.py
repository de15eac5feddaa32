"""What this process does while a hostile request is served: whom it connects to, which names it looks up, what it opens and runs.

Strategy: the interpreter's own audit events (PEP 578), which no library goes around. A hook cannot be taken out again, so there
is one, and it notes nothing while nobody watches.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Seen", "watching"]

_RUNS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"})


@dataclass
class Seen:
    """What was done, in its order."""

    connected: list[tuple[str, int]] = field(default_factory=list)
    """Hosts and ports of IP connections."""
    looked_up: list[str] = field(default_factory=list)
    """Host names that the resolver was asked for; addresses are not among them."""
    opened: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)

    def note(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(args[1], tuple):
            self.connected.append((str(args[1][0]), int(args[1][1])))
        elif event == "socket.getaddrinfo":
            self.looked_up.append(_text(args[0]))
        elif event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            self.opened.append(_text(os.fspath(args[0])))
        elif event in _RUNS:
            self.ran.append(f"{event}: {args[0]!r}")
        elif event == "import":
            self.imported.append(str(args[0]))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


_watchers: list[Seen] = []
_hooked: list[bool] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    for seen in tuple(_watchers):
        seen.note(event, args)


@contextmanager
def watching() -> Iterator[Seen]:
    """Note what the whole process does inside of the block."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_hook)
    seen = Seen()
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)
