"""What `GuardShell` says of a call, by the rule that it names; and the tables of scripts that its tests go through."""

from __future__ import annotations

import json
import re
from typing import Any

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.policies import GuardShell
from luthien_asgi.policy import Deny

__all__ = ["denied_by", "lines", "rule_of"]


def rule_of(arguments: Any, name: str = "bash", **settings: Any) -> str | None:
    """Return the rule by which a call is denied."""
    nobody: Any = None
    block = Block(kind=BlockKind.TOOL_CALL, name=name, text=json.dumps(arguments))
    return denied_by(GuardShell(**settings).on_block_complete(block, nobody))


def denied_by(said: Deny | None) -> str | None:
    """Return the rule that a verdict names; None where there is none."""
    found = re.fullmatch(r"The command was denied by a policy \((\w+)\)\.", said.message) if said is not None else None
    return found[1] if found else None


def lines(table: str) -> list[str]:
    r"""Return a table's scripts; `\n` in one is a new line."""
    return [line.strip().replace("\\n", "\n") for line in table.strip().splitlines()]
