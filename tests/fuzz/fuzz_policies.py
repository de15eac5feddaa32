"""Policies of every kind of handling, for streams that their provider broke."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from fuzz_mutations import CANARY

from luthien_asgi import (
    Allow,
    Block,
    BlockKind,
    Deny,
    Hold,
    Observe,
    Policy,
    Replace,
    Stop,
    StreamContext,
    Transform,
    jsontext,
    read_part,
    with_text,
)
from luthien_asgi.chunks import Chunk
from luthien_asgi.policy import Handling, Verdict

__all__ = ["JUDGES", "POLICIES"]

_ALL: Final[Mapping[BlockKind, Handling]] = dict.fromkeys(BlockKind, Hold())
_WRITABLE: Final = (BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.TOOL_CALL)


def _suspect(block: Block) -> bool:
    said = (block.text, block.name, block.id, block.signature)
    return any(CANARY in text for text in said) or CANARY in jsontext.dumps(block.raw).decode()


class AllowAll(Policy):
    """Holds every block and lets it through."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Allow()


class ObserveAll(Policy):
    """Looks at everything."""

    handles: ClassVar = dict.fromkeys(BlockKind, Observe())

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        read_part(chunk)


class TransformAll(Policy):
    """Writes every fragment in upper case, and a word at each block's end."""

    handles: ClassVar = dict.fromkeys(_WRITABLE, Transform())

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        text = read_part(chunk).text
        return [with_text(chunk, text.upper())] if text else None

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        return None if block.kind is BlockKind.TOOL_CALL else [ctx.text("!")]


class DenyCanary(Policy):
    """Denies every block with the canary in it."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("denied") if _suspect(block) else None


class ReplaceCanary(Policy):
    """Writes another block in the place of one with the canary in it."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        if not _suspect(block):
            return None
        if block.kind is BlockKind.TOOL_CALL:
            return Replace([Block(kind=BlockKind.TEXT, text="another"), Block(kind=block.kind, id="call_1", name="f", text="{}")])
        return Replace([Block(kind=BlockKind.TEXT, text="another")])


class StopAtCanary(Policy):
    """Ends the answer at the first block with the canary in it."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Stop("stopped") if _suspect(block) else None


class DenySome(Policy):
    """Denies some tool calls and thinking, by what is in them; says something at the end."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.THINKING: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("not this one") if zlib.crc32(repr(block.text).encode()) % 3 == 0 else None

    def on_stream_complete(self, ctx: StreamContext) -> Iterable[Chunk] | None:
        return [ctx.text("the end")]


JUDGES: Final[Mapping[str, Policy]] = {"deny": DenyCanary(), "replace": ReplaceCanary(), "stop": StopAtCanary()}
"""Policies that let no canary through."""

POLICIES: Final[Mapping[str, Policy | None]] = {
    "none": None,
    "hold": AllowAll(),
    "observe": ObserveAll(),
    "transform": TransformAll(),
    "some": DenySome(),
    **JUDGES,
}
