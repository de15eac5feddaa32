"""How many requests are under way: in all, and by client.

Strategy: a place is taken or refused at once, and nobody waits for one, so what is waiting cannot grow. The counters are an
object of their own, which knows no limits: a middleware that takes the place of another goes on with its counters, by the
clients' names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Slots"]


class Slots:
    """Places that are taken in one process. For one event loop."""

    __slots__ = ("_by_client", "taken")

    def __init__(self) -> None:
        self.taken = 0
        """Requests under way, of all clients."""
        self._by_client: dict[str, int] = {}

    def of(self, client: str) -> int:
        """Return how many places a client has."""
        return self._by_client.get(client, 0)

    @contextmanager
    def one(self, limit: int) -> Iterator[bool]:
        """Take one of `limit` places for the time of the block; give False where there is none."""
        if self.taken >= limit:
            yield False
            return
        self.taken += 1
        try:
            yield True
        finally:
            self.taken -= 1

    @contextmanager
    def one_of(self, client: str, limit: int) -> Iterator[bool]:
        """Take one of a client's `limit` places for the time of the block; give False where it has them all."""
        if self.of(client) >= limit:
            yield False
            return
        self._by_client[client] = self.of(client) + 1
        try:
            yield True
        finally:
            left = self._by_client.pop(client) - 1
            if left:
                self._by_client[client] = left

    def __repr__(self) -> str:
        return f"Slots(taken={self.taken}, clients={len(self._by_client)})"
