"""What goes out beside the next frame of an OpenAI answer: the fields of the provider's own that rode along with its chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luthien_asgi.wire.joining import Additions

__all__ = ["Beside"]


@dataclass(slots=True)
class Beside:
    """Of one choice: what waits for its next frame, and what waits for its finish."""

    delta: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    additions: Additions = field(default_factory=Additions)
    waits: bool = False
    """Whether the next frame has to take something along."""

    def take(self, extras: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the fields of a chunk's rider."""
        if delta := extras.get("delta"):
            self.delta |= self.additions.now(delta)
        if choice := extras.get("choice"):
            self.choice |= choice
        self.waits = bool(self.delta or self.choice)

    def of_choice(self) -> dict[str, Any]:
        """Return the choice's fields for the frame that is written now."""
        choice, self.choice = self.choice, {}
        self.waits = bool(self.delta)
        return choice

    def of_delta(self) -> dict[str, Any]:
        """Return the delta's fields for the frame that is written now."""
        delta, self.delta = self.delta, {}
        self.waits = bool(self.choice)
        return delta
