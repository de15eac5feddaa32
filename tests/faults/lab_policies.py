"""Policies that fail as the request tells them: `policy:<hook>=<how>` in its text names a row of the table below.

Two classes, so that both ways of the engine are tried: one rewrites text as it flows, one holds tool calls until they are judged.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

from luthien_asgi import BlockKind, Hold, Policy, Transform
from luthien_asgi.hooks import keepalive

BLOCK_SECONDS: Final = 1.5
SWALLOW_SECONDS: Final = 6.0
"""How long a hook refuses to be cancelled: longer than `policy_timeout` and what follows, so that its stream has to end without
it; and not for ever, so that the laboratory can see that nothing else is left."""


def told(ctx: Any, hook: str) -> Any:
    """Do what the request says this hook does; None where it says nothing."""
    found = re.search(rf"policy:{hook}=(\w+)", str(ctx.request.body))
    return ACTS[found[1]](ctx) if found else None


def _raise(_: Any) -> Any:
    raise LookupError("the policy is broken: sk-policy-secret")


def _cancelled(_: Any) -> Any:
    raise asyncio.CancelledError


async def _hang(_: Any) -> None:
    await asyncio.Event().wait()


def _block(ctx: Any) -> None:
    """Block the loop, once in a transaction: gunicorn kills a worker that says nothing for 30 s."""
    if not ctx.scratchpad.setdefault("blocked", False):
        ctx.scratchpad["blocked"] = True
        time.sleep(BLOCK_SECONDS)


def _rubbish(_: Any) -> Any:
    return 42


def _rubbish_items(_: Any) -> Any:
    return ["no chunk", object()]


def _endless(ctx: Any) -> Any:
    return (ctx.text("again ") for _ in itertools.count())


async def _swallow(_: Any) -> None:
    end = time.monotonic() + SWALLOW_SECONDS
    while (left := end - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                await asyncio.Event().wait()
        except (asyncio.CancelledError, TimeoutError):
            continue


async def _think(_: Any) -> None:
    """Judge for longer than `policy_timeout`, and say all the time that it is at work."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        keepalive()
        await asyncio.sleep(0.2)


ACTS: Final[dict[str, Callable[[Any], Any]]] = {
    "raise": _raise,
    "cancelled": _cancelled,
    "hang": _hang,
    "block": _block,
    "rubbish": _rubbish,
    "items": _rubbish_items,
    "endless": _endless,
    "swallow": _swallow,
    "think": _think,
}


class LabTransform(Policy):
    """Rewrites text, to itself where nothing else was asked for."""

    handles: ClassVar[Any] = {BlockKind.TEXT: Transform()}

    def on_request(self, request: Any, ctx: Any) -> Any:
        return told(ctx, "on_request")

    def on_chunk_added(self, chunk: Any, ctx: Any) -> Any:
        return told(ctx, "on_chunk_added")

    def on_block_end(self, block: Any, ctx: Any) -> Any:
        return told(ctx, "on_block_end")

    def on_stream_complete(self, ctx: Any) -> Any:
        return told(ctx, "on_stream_complete")

    def on_error(self, error: Any, ctx: Any) -> Any:
        return told(ctx, "on_error")


class LabHold(Policy):
    """Holds tool calls, and lets them pass where nothing else was asked for."""

    handles: ClassVar[Any] = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Any, ctx: Any) -> Any:
        return told(ctx, "on_block_complete")
