"""The servers under measurement, up together, and what to ask of them.

Provider and client (this process) have one core to themselves, and the servers another, where one at a time is asked; on a
machine with one core they share it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import layers
from load import Target
from peers import Peer
from processes import Child, script, spawn
from shapes import Shape
from subjects import DIRECT, OURS, Subject

__all__ = ["Fleet", "fleet", "held_cores"]

_PATHS: Final = {"openai": "v1/chat/completions", "anthropic": "v1/messages"}


def held_cores() -> tuple[int, int]:
    """Return the core of client and provider, and that of the servers."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The provider and the servers."""

    provider: int
    directory: Path
    peers: Mapping[str, tuple[Peer, Path]]
    children: dict[str, tuple[Child, int]] = field(default_factory=dict)
    """By name: the process and its port."""

    @contextmanager
    def running(self, names: Iterable[str]) -> Iterator[Mapping[str, tuple[Child, int]]]:
        """Run servers, started side by side; they are gone afterwards."""
        with ExitStack() as stack:
            started = {name: stack.enter_context(self._spawn(name)) for name in names if name != DIRECT}
            yield {name: (child, child.port()) for name, child in started.items()}

    def _spawn(self, name: str) -> Any:
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))
        if name in self.peers:
            peer, home = self.peers[name]
            command, port = peer.start(home, directory, self.provider)
        else:
            command, port = script("apps.py", name, "--upstream", str(self.provider), "--records", str(directory)), 0
        return spawn(command, name=name, directory=directory, cpu=held_cores()[1], port=port)

    def target(self, subject: Subject, shape: Shape, port: int) -> Target:
        """Return what to ask of a server that listens on `port`."""
        client = subject.client
        if subject.server == OURS:
            return Target(
                port=port,
                path=layers.path(subject.layer, client),
                dialect=client,
                model=layers.model_name(subject.provider, shape),
                shape=shape,
            )
        if subject.server in self.peers:
            peer, _ = self.peers[subject.server]
            headers = peer.headers(shape, self.provider)
            return Target(
                port=port, path=peer.paths[client], dialect=client, model=peer.model(shape), shape=shape, headers=headers
            )
        where = self.provider if subject.server == DIRECT else port
        return Target(port=where, path=f"/{shape.path}/{_PATHS[client]}", dialect=client, model="x", shape=shape)


@contextmanager
def fleet(peers: Mapping[str, tuple[Peer, Path]]) -> Iterator[Fleet]:
    """Run the provider, and keep this process to its core."""
    core, _ = held_cores()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with tempfile.TemporaryDirectory() as directory:
            there = Path(directory)
            with spawn(script("upstream.py"), name="provider", directory=there, cpu=core) as provider:
                yield Fleet(provider=provider.port(), directory=there, peers=peers)
    finally:
        os.sched_setaffinity(0, before)
