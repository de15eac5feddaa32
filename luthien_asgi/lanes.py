"""What is known about each block and each choice of an answer while it passes the policy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from luthien_asgi.assembler import OpenBlock
from luthien_asgi.backlog import Backlog
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk
from luthien_asgi.held import Fragments, HeldChunks
from luthien_asgi.judgements import Judgement
from luthien_asgi.judging import Contexts
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.policy import Handling, Hold

__all__ = ["THINKING", "Choice", "Lane"]

THINKING: Final = frozenset({BlockKind.THINKING, BlockKind.REDACTED_THINKING})


@dataclass(slots=True, eq=False)
class Lane:
    """One block's way."""

    block: OpenBlock
    handling: Handling | None
    waits: bool
    """Whether its chunks stay until the end of the answer."""
    contexts: Contexts = field(default_factory=dict)
    watchers: tuple[PolicyPlan, ...] = ()
    """Policies that see its chunks and do not change them."""
    chunks: HeldChunks = field(default_factory=HeldChunks)
    """What is held or waits."""
    opening: Chunk | None = None
    """The provider's opening of a block that is transformed: it leaves with the first content, so that no empty block does."""
    judge: asyncio.Task[Judgement] | None = None
    dropped: bool = False
    changed: bool = False
    """Whether a transforming policy let something else go on than the backend wrote."""
    behind: Backlog = field(default_factory=Backlog)
    """What a transforming policy keeps back, as long as it has changed nothing."""
    half: str = ""
    """The first half of a character that a transforming policy gets when it is whole."""
    plain: bool = False
    """Whether the transforming policy's hook returned at once when it was called last."""
    unchecked: set[int] = field(default_factory=set)
    """Policies (the `id` of their plans) that failed at it and whose errors pass: its chunks go on without them."""

    def __post_init__(self) -> None:
        if (self.held or self.waits) and not isinstance(self.block.fragments, Fragments):
            self.block.fragments = Fragments(self.block.fragments)
            self.chunks.share(self.block.fragments)

    @property
    def held(self) -> bool:
        """Whether nothing of the block leaves before the verdict."""
        return isinstance(self.handling, Hold)


@dataclass(slots=True, eq=False)
class Choice:
    """What is known about one choice."""

    index: int
    finish: Chunk | None = None
    waiting: list[Lane] = field(default_factory=list)
    """Lanes of tool calls, in the backend's order."""
    messages: list[Block] = field(default_factory=list)
    """What the policy says instead of denied calls: it leaves before the calls that survive."""
    began: bool = False
    said: bool = False
    """Whether the backend wrote anything but thinking."""
    spoke: bool = False
    """Whether the client got anything but thinking."""
    text_sent: bool = False
    thinking_denied: bool = False
