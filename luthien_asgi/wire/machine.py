"""A stream of events as a table: which event is allowed in which state, and where it leads. A missing entry is the error."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from enum import Enum
from typing import Generic, Self, TypeVar

from luthien_asgi.errors import StreamStateError

__all__ = ["Machine"]

_State = TypeVar("_State", bound=Enum)
_Event = TypeVar("_Event", bound=Enum)


class Machine(Generic[_State, _Event]):
    """Where one stream stands in its table."""

    __slots__ = ("_transitions", "state")

    def __init__(self, transitions: Mapping[_State, Mapping[_Event, _State]], state: _State) -> None:
        self._transitions = transitions
        self.state = state

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return a machine of its own in the same state; the table is the same."""
        twin = copy(self)
        memo[id(self)] = twin
        return twin

    def go(self, event: _Event) -> None:
        """Take one event. Raises `StreamStateError` when it is not allowed now; the state is then what it was."""
        following = self._transitions[self.state].get(event)
        if following is None:
            msg = f"{event.name} is not allowed in state {self.state.name}"
            raise StreamStateError(msg)
        self.state = following
