"""What leaves of an answer, and what is known about each choice because of it."""

from __future__ import annotations

from collections.abc import Iterable

from luthien_asgi.assembler import OpenBlock
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk, Part, read_part
from luthien_asgi.lanes import THINKING, Choice, Lane
from luthien_asgi.runs import Run
from luthien_asgi.writer import ChunkMaker, Sink

__all__ = ["Outlet", "is_visible"]


def is_visible(block: OpenBlock, part: Part) -> bool:
    """Tell whether a chunk says something that makes an answer more than empty: neither thinking nor a boundary does."""
    return block.kind not in THINKING and bool(part.text or part.id or block.kind is BlockKind.OTHER)


class Outlet:
    """Sends chunks on and remembers what each choice has said to the client."""

    def __init__(self, make: ChunkMaker, sink: Sink) -> None:
        self._make = make
        self.put = sink.put
        self.offer = sink.offer
        self.takes_run = sink.takes_run
        self.put_run = sink.put_run
        self.end_text = sink.end_text
        self.choices: dict[int, Choice] = {}

    def choice(self, index: int) -> Choice:
        """Return what is known about a choice; it begins when it is asked for."""
        if index not in self.choices:
            self.choices[index] = Choice(index)
        return self.choices[index]

    async def send(self, block: OpenBlock, chunk: Chunk, part: Part, lane: Lane | None = None) -> None:
        """Send a chunk of a block on, after its lane's opening if that has not left."""
        if lane is not None and lane.opening is not None and (part.text or part.event is not None):
            opening, lane.opening = lane.opening, None
            await self.put(opening, read_part(opening))
        choice = self.choice(block.choice)
        if is_visible(block, part):
            choice.spoke = True
            choice.text_sent = choice.text_sent or block.kind in {BlockKind.TEXT, BlockKind.REFUSAL}
        await self.put(chunk, part)

    def send_run(self, block: OpenBlock, run: Run) -> bool:
        """Send a run of a block on, none of whose opening waits, if that can be done at once; tell whether it was."""
        if not self.takes_run(run):
            return False
        choice = self.choice(block.choice)
        if block.kind not in THINKING:
            choice.spoke = True
            choice.text_sent = choice.text_sent or block.kind in {BlockKind.TEXT, BlockKind.REFUSAL}
        self.put_run(run)
        return True

    async def write(self, choice: int, blocks: Iterable[Block]) -> None:
        """Write blocks of a policy's own; a text that follows another stands apart from it."""
        state = self.choice(choice)
        for block in blocks:
            apart = state.text_sent and block.kind is BlockKind.TEXT
            new = block.with_text("\n\n" + block.text) if apart else block
            state.spoke = state.spoke or bool(block.text or block.name)
            state.text_sent = state.text_sent or block.kind is BlockKind.TEXT
            for chunk in self._make.whole(new, choice):
                await self.put(chunk, read_part(chunk))

    async def say(self, choice: int, message: str) -> None:
        """Write a message as a text block; an empty one is none."""
        await self.write(choice, [Block(kind=BlockKind.TEXT, text=message)] if message else [])
