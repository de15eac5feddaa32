"""Which way a policy looks: at requests, at answers, or at both.

Strategy: what a policy does not look at must cost nothing, and a hook is free only when its class does not override it. So the
object gets a class of its own in which the hooks of the other way are `Policy`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from luthien_asgi.blocks import BlockKind
from luthien_asgi.policy import Handling, Policy

__all__ = ["Where", "checked_where", "look"]

Where = Literal["request", "response", "both"]
_BLOCK_HOOKS: Final = ("on_chunk_added", "on_run_added", "on_block_end", "on_block_complete")


def checked_where(where: object) -> Where:
    """Return a `where` that is one. Raises `ValueError`."""
    for known in get_args(Where):
        if where == known:
            return known  # type: ignore[no-any-return]  # get_args gives Any
    msg = f"where must be request, response or both, not {where!r}"
    raise ValueError(msg)


def look(policy: Policy, *, at_request: bool, handles: Mapping[BlockKind, Handling]) -> None:
    """Let a policy look at requests or not, and at these kinds of block and no others."""
    policy.__class__ = _looking(type(policy), at_request, handles)


def _looking(cls: type[Policy], at_request: bool, handles: Mapping[BlockKind, Handling]) -> type[Policy]:
    unused = (() if at_request else ("on_request",)) + (() if handles else _BLOCK_HOOKS)
    members: dict[str, Any] = {name: getattr(Policy, name) for name in unused}
    described = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), {**members, **described, "handles": dict(handles)})
