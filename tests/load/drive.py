"""Drives a load: so many clients, each with one stream after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from random import Random

from client import Clients, Outcome
from plan import Plan

__all__ = ["drive"]


async def drive(clients: Clients, plans: Iterable[Plan], *, at_once: int, ramp: float, done: Callable[[Outcome], None]) -> None:
    """Run streams, `at_once` at a time, their first requests spread at random over `ramp` seconds."""
    chance = Random(at_once)
    numbers = iter(plans)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(_client(clients, numbers, delay=chance.uniform(0, ramp), done=done))
    clients.close()


async def _client(clients: Clients, plans: Iterator[Plan], *, delay: float, done: Callable[[Outcome], None]) -> None:
    await asyncio.sleep(delay)
    for plan in plans:
        done(await clients.ask(plan))
