"""What a policy may say about a block.

Where several say something about the same block, the verdict that changes most wins: Stop, Deny, Escalate, Defer, Resample,
Replace, Allow, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Literal

from luthien_asgi.blocks import Block

__all__ = ["RANKS", "Allow", "Defer", "Deny", "Escalate", "Replace", "Resample", "Stop", "Verdict", "rank_of"]

_WITHHELD: Final = "[A policy withheld this part of the answer.]"


@dataclass(frozen=True, slots=True)
class Allow:
    """The block goes on as it came."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Replace:
    """These blocks go on instead. Only for a kind that is held."""

    blocks: Sequence[Block]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deny:
    """The block does not reach the client, which sees `message` as text. From `on_request`: the request is refused with a 403."""

    message: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """The answer ends here; the client sees `message` as text. What came before has left."""

    message: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resample:
    """The answer is dropped, the backend is asked for another one, and that is judged from its beginning.

    Only for a policy that declares it in `verdicts`. Raises `ValueError` for an `n` below 1.
    """

    n: int = 1
    """This policy may have so many answers of one transaction dropped. After that the block is denied with `message`."""
    instructions: str = ""
    """What the model is told beside the request, for the new answer only."""
    message: str = _WITHHELD
    reason: str = ""

    def __post_init__(self) -> None:
        if self.n < 1:
            msg = f"n is how many times another answer is asked for, at least 1, not {self.n!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Defer:
    """The answer is dropped and written by another model of the configuration; what that one writes is judged too.

    Only for a policy that declares it in `verdicts`. When the answer is that model's already, the block is denied with `message`.
    """

    model: str
    message: str = _WITHHELD
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Escalate:
    """A person decides. The block stays where it is meanwhile, and the client is kept waiting with pings.

    Only for a policy that declares it in `verdicts`, where there is somebody to ask (`approvals`). Raises `ValueError` for a
    `default` that is neither and for a `timeout` that is not positive.
    """

    question: str
    """What the person is asked, beside the block itself."""
    default: Literal["allow", "deny"] = "deny"
    """The answer when nobody gives one in time."""
    timeout: float | None = None
    """Seconds that the person has; None: those of the desk's own `timeout`."""
    message: str = "[This part of the answer was not approved.]"
    """What the client sees when the answer is no."""
    reason: str = ""

    def __post_init__(self) -> None:
        if self.default not in {"allow", "deny"}:
            msg = f"default must be allow or deny, not {self.default!r}"
            raise ValueError(msg)
        if self.timeout is not None and not 0 < self.timeout < inf:
            msg = f"timeout must be positive and finite, not {self.timeout!r}"
            raise ValueError(msg)


Verdict = Allow | Replace | Resample | Defer | Escalate | Deny | Stop

RANKS: Final[Sequence[type[Verdict]]] = (Allow, Replace, Resample, Defer, Escalate, Deny, Stop)
"""From the verdict that every other one overrules to the one that overrules every other."""


def rank_of(verdict: Verdict | type[Verdict]) -> int:
    """Return a verdict's place in `RANKS`."""
    return RANKS.index(verdict if isinstance(verdict, type) else type(verdict))
