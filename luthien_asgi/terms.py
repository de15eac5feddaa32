"""What the steps of one answer have in common."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from luthien_asgi.context import PolicyContext
from luthien_asgi.hooks import HookCaller
from luthien_asgi.judging import Person, Redraws
from luthien_asgi.recorder import Transaction
from luthien_asgi.settings import StreamSettings
from luthien_asgi.writer import ChunkMaker

__all__ = ["Terms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the steps of one answer have in common."""

    hooks: HookCaller
    make: ChunkMaker
    ctx: PolicyContext
    """The transaction, with the states of this answer."""
    log: Transaction
    settings: StreamSettings
    judges: asyncio.TaskGroup
    """Where judges run that do not stop the stream."""
    wants_blocks: bool = True
    """Whether the record keeps the backend's blocks."""
    person: Person | None = None
    redraws: Redraws | None = None
    shadow: bool = False
    """Nothing leaves, and nothing is done about what policies say."""
