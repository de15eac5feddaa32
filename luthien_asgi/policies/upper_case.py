"""A policy that changes every chunk and keeps nothing back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.context import StreamContext
from luthien_asgi.policy import Handling, Policy, Transform
from luthien_asgi.runs import Run

__all__ = ["UpperCase"]


class UpperCase(Policy):
    """Write the model's text in capitals.

    Tool calls, thinking and refusals are left alone. Chunks leave when they come, with the same boundaries: Unicode's upper case
    of a text does not depend on where it is cut.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        """Send a copy in upper case on, or the chunk itself where that changes nothing."""
        del ctx
        text = read_part(chunk).text
        upper = text.upper()
        return None if upper == text else (with_text(chunk, upper),)

    def on_run_added(self, run: Run, ctx: StreamContext) -> Sequence[str] | None:
        """Send the texts in upper case on."""
        del ctx
        return [text.upper() for text in run.texts]
