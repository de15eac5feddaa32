"""The shapes of answers: how many deltas, how far apart, and what comes at their end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ALL", "BURST", "BURST_CALL", "OPEN", "PACED", "PACED_CALL", "SHORT", "SHORT_CALL", "Shape"]


@dataclass(frozen=True, slots=True)
class Shape:
    """So many text deltas, one every `interval` milliseconds (0: all in one write); `call`: a tool call follows them."""

    deltas: int
    interval: int = 0
    call: bool = False

    @property
    def path(self) -> str:
        """What the scripted provider is asked for: the first segments of its path."""
        return f"{self.deltas}/{self.interval}" + ("/call" if self.call else "")

    @property
    def name(self) -> str:
        """The same as (a part of) a model's name."""
        return self.path.replace("/", "-")

    @property
    def ideal(self) -> float:
        """Seconds from the first delta to the last."""
        return (self.deltas - 1) * self.interval / 1000


BURST: Final = Shape(200)
SHORT: Final = Shape(20)
"""The second length of a burst: what two lengths have in common is the price of a request."""
PACED: Final = Shape(200, 20)
OPEN: Final = Shape(120, 20)
"""What is open while an open stream is weighed."""
BURST_CALL, SHORT_CALL, PACED_CALL = (Shape(shape.deltas, shape.interval, call=True) for shape in (BURST, SHORT, PACED))
ALL: Final = (BURST, SHORT, PACED, OPEN, BURST_CALL, SHORT_CALL, PACED_CALL)
