"""The policy that judges tool calls in a load: each is held for a moment, and those that would remove something are denied."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from luthien_asgi import Block, BlockKind, Deny, Hold, Policy, StreamContext

__all__ = ["Judge"]

_SECONDS: Final = 0.2


class Judge(Policy):
    """Deny calls whose argument begins with `rm`, after a judge's time."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Deny,)

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Deny | None:
        await asyncio.sleep(_SECONDS)
        word: str = block.arguments["at"]
        return Deny(f"Denied: {word}") if word.startswith("rm ") else None
