"""How many requests are under way: in all, by client, and of those whose sender is not known yet.

Strategy: a place is taken or refused at once, and nobody waits for one, so what is waiting cannot grow. Who is not authenticated
has none of the clients' places, but one of others while the authenticator is asked. The counters are an object of their own,
which knows no limits: a middleware that takes the place of another goes on with its counters, by the clients' names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

__all__ = ["Places", "Room", "Slots"]


class Places:
    """Places of one sort that are taken. For one event loop."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0

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


@dataclass(frozen=True, slots=True)
class Room:
    """Places, and how many there are."""

    places: Places
    limit: int

    def one(self) -> AbstractContextManager[bool]:
        """Take a place for the time of the block; give False where there is none."""
        return self.places.one(self.limit)


class Slots(Places):
    """Places that are taken in one process, by requests whose client is known."""

    __slots__ = ("_by_client", "unknown", "unknown_operators")

    def __init__(self) -> None:
        super().__init__()
        self.unknown = Places()
        """Of requests while the clients' authenticator is asked."""
        self.unknown_operators = Places()
        """Of requests while the operators' is: those who ask for the one keep nobody from the other."""
        self._by_client: dict[str, int] = {}

    def of(self, client: str) -> int:
        """Return how many places a client has."""
        return self._by_client.get(client, 0)

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
