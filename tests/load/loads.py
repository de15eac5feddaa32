"""The loads: a crowd of long streams, rounds of short ones, and short ones whose workers are killed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

import records
from client import Clients, Outcome, Patience
from drive import drive
from holding import Peak, growth, held, kept, settled
from ledger import Ledger, Verdict
from plan import Plan, Shape, plans
from provider import Provider
from server import Server, State, running

__all__ = ["Load", "Order", "crowd", "kills", "opened", "rounds"]

_ROUNDS: Final = 8
_WARM_ROUNDS: Final = 3
_KILL_EVERY: Final = 5.0
_WARM: Final = Shape(20, 0)
_WARM_CROWD: Final = Shape(5, 1.0)
_FIRST_WARM: Final = 90_000_000
"""Numbers of the streams that only warm a server up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for."""

    server: str
    workers: int
    streams: int
    at_once: int
    faults: float
    seed: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class Load:
    """A server, its provider and its clients, warm."""

    order: Order
    server: Server
    provider: Provider
    clients: Clients
    before: list[State]
    peak: Peak
    ledger: Ledger = field(default_factory=Ledger)

    async def run(self, *, first: int, streams: int, done: Callable[[Outcome], None], ramp: float) -> None:
        """Run so many streams, from a number on."""
        order = self.order
        planned = plans(seed=order.seed, shape=order.shape, faults=order.faults, first=first, count=streams)
        await self.drive(planned, done=done, ramp=ramp)

    async def drive(self, planned: Iterable[Plan], *, done: Callable[[Outcome], None], ramp: float) -> None:
        """Run streams."""
        await drive(self.clients, planned, at_once=self.order.at_once, ramp=ramp, done=done)
        await asyncio.to_thread(self.ledger.finish)

    async def settled(self) -> list[State]:
        """Return what the workers hold when all is over."""
        return await settled(self.server, self.provider, self.before)

    def lateness(self) -> Verdict:
        """Return how busy the machine was."""
        late = f"{self.peak.late * 1e3:.0f} ms; {self.clients.crossed} requests"
        return Verdict("provider and clients were late themselves, at most; asked again on a new connection", late)

    def recorded(self) -> list[Verdict]:
        """Return the verdict on the records of everything so far."""
        found = records.read_records(self.server.records)
        outcomes, finished = self.ledger.outcomes, self.provider.finished
        wrong = list(records.complaints(found, outcomes, finished=finished, killed=bool(self.ledger.kills)))
        return self.ledger.recorded(found, wrong)


@asynccontextmanager
async def opened(order: Order, patience: Patience) -> AsyncIterator[Load]:
    """Run a server, warm it up, and watch its memory."""
    provider = Provider()
    port = await provider.start()
    with tempfile.TemporaryDirectory(prefix="luthien-load-") as name:
        folder = Path(name)
        with running(order.server, provider=port, folder=folder, patience=patience, workers=order.workers) as server:
            clients = Clients(server.port, patience)
            await _warm_up(order, clients, server)
            before = await settled(server, provider)
            peak = Peak(server, provider)
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(peak.watch())
                yield Load(order, server, provider, clients, before, peak)
                watching.cancel()
            provider.close()


async def _warm_up(order: Order, clients: Clients, server: Server) -> None:
    """Have all that a first request makes, and the room that so many streams at a time take."""
    warm = Ledger()
    few = plans(seed=order.seed, shape=_WARM, faults=0, first=_FIRST_WARM, count=100 * order.workers)
    await drive(clients, few, at_once=20, ramp=1, done=warm.keep)
    many = plans(seed=order.seed, shape=_WARM_CROWD, faults=0, first=2 * _FIRST_WARM // 3, count=order.at_once)
    await drive(clients, many, at_once=order.at_once, ramp=3, done=warm.keep)
    warm.judge()
    if warm.wrong:
        log = server.child.log.read_text(errors="replace")[-2000:]
        msg = f"the server cannot be warmed up: {dict(warm.wrong)}, {warm.samples[:3]}\n{log}"
        raise RuntimeError(msg)


async def crowd(load: Load) -> list[Verdict]:
    """All streams at once, each with a delta a second; nothing is judged before it is over, so that it costs no time."""
    ledger = load.ledger
    started = monotonic()
    await load.run(first=0, streams=load.order.streams, done=ledger.keep, ramp=3)
    seconds = monotonic() - started
    after = await load.settled()
    by_worker = sorted(sum(outcome.worker == state.pid for outcome in ledger.outcomes) for state in load.before)
    ledger.judge()
    return [
        *ledger.streams(),
        Verdict("answers under way at the same time, at most", f"{load.peak.answering}, in {seconds:.0f} s"),
        load.lateness(),
        Verdict("streams by worker", " + ".join(map(str, by_worker))),
        *ledger.times(load.provider),
        *load.recorded(),
        *held(load.before, after, load.peak.memory_mb),
    ]


async def rounds(load: Load) -> list[Verdict]:
    """Round after round, and all of a server's memory looked at after each."""
    size = load.order.streams // _ROUNDS
    looks: dict[int, list[tuple[float, float]]] = {}
    blocks: dict[int, list[tuple[float, float]]] = {}
    after: list[State] = []
    for number in range(_WARM_ROUNDS + _ROUNDS):
        await load.run(first=number * size, streams=size, done=load.ledger.take, ramp=0.5)
        after = await load.settled()
        if number >= _WARM_ROUNDS:
            for state in after:
                looks.setdefault(state.pid, []).append((number * size, state.rss_mb))
                blocks.setdefault(state.pid, []).append((number * size, state.blocks))
    return [
        *load.ledger.streams(),
        load.lateness(),
        *load.ledger.times(load.provider),
        *load.recorded(),
        *held(load.before, after, load.peak.memory_mb),
        *(growth(pid, found, over=f"{size * _ROUNDS} streams") for pid, found in looks.items()),
        *(kept(pid, found) for pid, found in blocks.items()),
    ]


async def kills(load: Load) -> list[Verdict]:
    """Short streams, while every few seconds one of the workers is killed."""
    async with asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(_kill(load))
        await load.run(first=0, streams=load.order.streams, done=load.ledger.take, ramp=1)
        killing.cancel()
    after = await load.settled()
    return [*load.ledger.streams(), load.lateness(), *load.recorded(), *held(load.before, after, load.peak.memory_mb)]


async def _kill(load: Load) -> None:
    chance = Random(load.order.seed)
    while True:
        await asyncio.sleep(_KILL_EVERY)
        if workers := load.server.workers():
            pid = chance.choice(workers)
            load.ledger.killed.add(pid)
            load.ledger.kills.append(monotonic())
            load.server.kill(pid)
