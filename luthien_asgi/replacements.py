"""What a policy may put in the place of a block."""

from __future__ import annotations

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.errors import PolicyError
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.policy import Hold
from luthien_asgi.verdicts import Replace, Verdict

__all__ = ["check_replacement", "check_texts"]

_TEXTS = ("reason", "message", "instructions", "question", "model")
_WRITABLE = frozenset({BlockKind.TEXT, BlockKind.TOOL_CALL, BlockKind.REFUSAL})


def check_texts(plan: PolicyPlan, verdict: Verdict) -> None:
    """Raise `PolicyError` for a verdict whose texts are something else: they are shown and recorded as they are."""
    for name in _TEXTS:
        if not isinstance(text := getattr(verdict, name, ""), str):
            said = f"{type(verdict).__name__} with a {name} that is {type(text).__name__}"
            msg = f"The policy {plan.name} returned {said}, not a text."
            raise PolicyError(msg)


def check_replacement(plan: PolicyPlan, block: Block, verdict: Replace) -> None:
    """Raise `PolicyError` for blocks that cannot go on instead of this one."""
    if not isinstance(plan.handles.get(block.kind), Hold):
        msg = f"The policy {plan.name} replaced a {block.kind} block that it does not hold."
        raise PolicyError(msg)
    for new in verdict.blocks:
        if not _is_block(new):
            msg = f"The policy {plan.name} replaced a block by something else than blocks of text."
            raise PolicyError(msg)
        if new.kind not in _WRITABLE:
            msg = f"The policy {plan.name} replaced a block by one of a kind that only a provider writes."
            raise PolicyError(msg)
        if new.kind is BlockKind.TOOL_CALL and not _is_whole_call(new):
            msg = f"The policy {plan.name} replaced a block by a tool call that has no name or no JSON object."
            raise PolicyError(msg)


def _is_block(given: object) -> bool:
    return isinstance(given, Block) and all(type(text) is str for text in (given.text, given.id, given.name))


def _is_whole_call(block: Block) -> bool:
    """Tell whether a call that a policy wrote is one that a client can run."""
    if not block.name:
        return False
    if block.custom or not block.text:
        return True
    try:
        return isinstance(jsontext.loads(block.text), dict)
    except ValueError:
        return False
