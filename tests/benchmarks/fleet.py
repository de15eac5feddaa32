"""The servers under measurement, up together, and how one is weighed while it answers."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from apps import Shape, model_name
from load import Tally, Target, fire
from processes import Child, child

__all__ = ["FLOOR", "OURS", "PLAIN", "Server", "Weight", "fleet", "weigh"]

OURS: Final = "luthien"
PLAIN: Final = "plain"
FLOOR: Final = "relay"
_SETTLE: Final = 0.3
"""Seconds for what a server still does after the last byte, which is part of its cost."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens."""

    child: Child
    port: int

    def ours(self, shape: Shape, *, layer: str = "none", client: str = "openai", provider: str = "openai") -> Target:
        """Return what to ask of the middleware."""
        path = f"/{layer}/v1/{'chat/completions' if client == 'openai' else 'messages'}"
        return self._target(path, shape, dialect=client, model=model_name(provider, shape))

    def theirs(self, shape: Shape) -> Target:
        """Return what to ask of the other servers."""
        return self._target(f"/{shape[0]}/{shape[1]}/v1/chat/completions", shape, dialect="openai", model="x")

    def _target(self, path: str, shape: Shape, *, dialect: str, model: str) -> Target:
        calls = len(shape) > 2
        return Target(port=self.port, path=path, dialect=dialect, model=model, deltas=shape[0], paced=shape[1] > 0, calls=calls)


@dataclass(frozen=True, slots=True)
class Weight:
    """What a load came to and what it cost."""

    tally: Tally
    cpu: float
    """Seconds of the server's process tree."""
    wall: float


@contextmanager
def fleet() -> Iterator[Mapping[str, Server]]:
    """Run the provider and the servers; they start side by side and are gone afterwards.

    Provider and client, this process, have one core to themselves, and the servers another; on a machine with one they share it.
    """
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {available[0]})
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(child("upstream.py", "--cpu", str(available[0]), directory=directory)).port()
        options = ("--upstream", str(provider), "--records", str(directory / "records.jsonl"), "--cpu", str(available[-1]))
        children = {
            name: stack.enter_context(child("apps.py", name, *options, directory=directory)) for name in (OURS, PLAIN, FLOOR)
        }
        yield {name: Server(started, started.port()) for name, started in children.items()}


def weigh(server: Server, target: Target, *, streams: int, at_once: int, limit: float, ramp: float = 0) -> Weight:
    """Fire at a server and weigh it."""
    before, began = server.child.cpu_seconds(), time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(fire(target, streams=streams, at_once=at_once, ramp=ramp, limit=limit))
    wall = time.monotonic() - began
    time.sleep(_SETTLE)
    return Weight(tally, server.child.cpu_seconds() - before, wall)
