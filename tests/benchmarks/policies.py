"""The policies that are measured, by the name of their layer; LuthienMiddleware's package is imported when one is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

__all__ = ["JUDGE_SECONDS", "POLICIES"]

JUDGE_SECONDS: Final = 0.2
"""What a judge takes for its verdict."""


def _replace() -> Any:
    from luthien_asgi.policies import ReplaceText

    return ReplaceText(replacements=[["password", "********"], ["secret", "******"]])


def _tools() -> Any:
    from luthien_asgi import BlockKind, Deny, Hold, Policy

    class Tools(Policy):
        """Judges tool calls, at once, and nothing else."""

        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
        verdicts = (Deny,)

        def on_block_complete(self, block: Any, ctx: Any) -> None:
            return None

    return Tools()


def _hookless() -> Any:
    from luthien_asgi import Policy

    class Hookless(Policy):
        """Has no hook."""

    return Hookless()


def _judge() -> Any:
    from luthien_asgi import BlockKind, Deny, Hold, Policy

    class Judge(Policy):
        """Judges tool calls, and thinks about each."""

        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
        verdicts = (Deny,)

        async def on_block_complete(self, block: Any, ctx: Any) -> None:
            await asyncio.sleep(JUDGE_SECONDS)

    return Judge()


POLICIES: Final[Mapping[str, Callable[[], Any]]] = MappingProxyType(
    {"replace": _replace, "tools": _tools, "hookless": _hookless, "judge": _judge}
)
