"""The policies of the gateways under test, named in their configuration by class path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from luthien_asgi import Allow, Block, BlockKind, Hold, Policy, StreamContext
from luthien_asgi.policy import Handling

__all__ = ["AllowTools"]


class AllowTools(Policy):
    """Hold every tool call, look at the whole of it, and let it go."""

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Allow:
        """Allow the call; one whose arguments are no JSON raises, and is denied."""
        del ctx
        return Allow(reason=f"{block.name} with {len(block.arguments)} arguments" if not block.custom else block.name)
