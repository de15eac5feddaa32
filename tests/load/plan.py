"""What each stream of a load does, known before it begins: who asks whom, how much, and what goes wrong.

A plan is made of a seed and the stream's number alone, so any stream of a run can be made again. It travels to the provider in
the request's text: provider, client and judge go by the same plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

__all__ = ["CLIENT_FAULTS", "FAULTS", "PROVIDER_FAULTS", "Plan", "Shape", "plan", "plans"]

Format = Literal["openai", "anthropic"]
FORMATS: Final[Sequence[Format]] = ("openai", "anthropic")

PROVIDER_FAULTS: Final = (
    "reset",  # the connection, by RST
    "cut",  # the connection, by FIN, between two HTTP chunks
    "torn",  # the connection, by FIN, within an HTTP chunk
    "end",  # the body, cleanly, without a finish reason
    "half",  # the body, cleanly, within an event
    "stall",  # silence, for longer than `stall_timeout`
    "error",  # an error event
    "garbage",  # an event that is no JSON, then the rest as if nothing had been
    "500",
    "429",  # with Retry-After
    "silent",  # no answer at all, for longer than `first_chunk_timeout`
)
CLIENT_FAULTS: Final = (
    "leave",  # in mid-stream, by FIN
    "abort",  # in mid-stream, by RST
    "early",  # as soon as it has asked
    "deaf",  # it never reads
    "slow",  # it reads in sips
)
FAULTS: Final = PROVIDER_FAULTS + CLIENT_FAULTS
_AT_ONCE: Final = frozenset({"500", "429", "silent", "early"})
_DEAF_PAD: Final = 64 * 1024
_DEAF_DELTAS: Final = 96
"""6 MB: more than both kernels' buffers of a loopback connection take."""
_SLOW_PAD: Final = 4 * 1024
_TOKEN: Final = re.compile(rb"load:(\d+):(\d+):(\d+):(\d+):(\w*):(\w*):(\d+);")


@dataclass(frozen=True, slots=True)
class Shape:
    """So many deltas at most, `pace` seconds apart."""

    deltas: int
    pace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One stream."""

    number: int
    client: Format = "openai"
    provider: Format = "openai"
    stream: bool = True
    deltas: int
    milliseconds: int
    """Between two deltas; 0: all in one write."""
    pad: int = 0
    """Bytes by which each delta is longer."""
    call: str = ""
    """A tool call at the end, which the policy lets pass (`run`) or denies (`rm`)."""
    fault: str = ""
    after: int = 0
    """Deltas before the fault; for a client, deltas that it has read."""

    @property
    def marker(self) -> str:
        """What each delta of this stream holds, and no other's."""
        return f"~{self.number:08d}~"

    @property
    def said(self) -> int:
        """How many deltas the provider writes."""
        return self.after if self.fault in PROVIDER_FAULTS else self.deltas

    @property
    def seconds(self) -> float:
        """How long the provider takes to write them."""
        return max(self.said - 1, 0) * self.milliseconds / 1000

    def token(self) -> str:
        """Return the provider's part, as the text of a request."""
        return f"load:{self.number}:{self.deltas}:{self.milliseconds}:{self.pad}:{self.call}:{self.fault}:{self.after};"

    @classmethod
    def read(cls, request: bytes) -> Plan | None:
        """Return the provider's part of a plan from a request's bytes."""
        found = _TOKEN.search(request)
        if found is None:
            return None
        number, deltas, milliseconds, pad = (int(found[group]) for group in range(1, 5))
        return cls(
            number=number,
            deltas=deltas,
            milliseconds=milliseconds,
            pad=pad,
            call=found[5].decode(),
            fault=found[6].decode(),
            after=int(found[7]),
        )


def plan(number: int, *, seed: int, shape: Shape, faults: float) -> Plan:
    """Return the plan of a stream. `faults`: the share of streams with which something goes wrong."""
    chance = Random(f"{seed}/{number}")
    deltas = chance.randint(max(2, shape.deltas * 2 // 3), shape.deltas)
    fault = chance.choice(FAULTS) if chance.random() < faults else ""
    milliseconds, pad = round(shape.pace * 1000), 0
    if fault == "deaf":
        deltas, milliseconds, pad = _DEAF_DELTAS, 0, _DEAF_PAD
    elif fault == "slow":
        pad = _SLOW_PAD
    return Plan(
        number=number,
        client=chance.choice(FORMATS),
        provider=chance.choice(FORMATS),
        stream=fault not in {"", "500", "429"} or chance.random() < 0.9,
        deltas=deltas,
        milliseconds=milliseconds,
        pad=pad,
        call=chance.choice(["", "", "run", "rm"]),
        fault=fault,
        after=0 if fault in _AT_ONCE else chance.randint(1, deltas - 1),
    )


def plans(*, seed: int, shape: Shape, faults: float, first: int = 0, count: int | None = None) -> Iterator[Plan]:
    """Yield the plans of a run, `count` of them or without end."""
    number = first
    while count is None or number < first + count:
        yield plan(number, seed=seed, shape=shape, faults=faults)
        number += 1
