"""A policy that denies tool calls by their name or by what their arguments say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import StreamContext
from luthien_asgi.policy import Deny, Handling, Hold, Policy

__all__ = ["DenyTools"]

_MESSAGE: Final = "The call of {name} was denied by a policy."


class DenyTools(Policy):
    """Deny calls of the tools named, and of tools whose arguments match a pattern.

    `names` are tool names; `patterns` maps a tool name to a regular expression that is searched in the arguments as the model
    wrote them, and in every string of them once parsed, so that a JSON escape hides nothing. Names may hold `*`, `?` and `[…]`.
    Arguments that are not JSON cannot be searched like that: where a pattern applies, such a call is denied. `message` is what
    the client sees in place of the call; `{name}` in it becomes the tool's name.

    No part of a call leaves before its verdict. Tools that ran at the provider (web search and the like) are not seen by it.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self, *, names: Sequence[str] = (), patterns: Mapping[str, str] | None = None, message: str = _MESSAGE) -> None:
        if not names and not patterns:
            msg = "give names or patterns: without either nothing is ever denied"
            raise ValueError(msg)
        self.names = _checked_names(names)
        self.patterns = {name: _compiled(name, pattern) for name, pattern in _checked_patterns(patterns or {})}
        self.message = _checked_message(message)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Deny | None:
        """Deny the call if its name or its arguments are on the list."""
        del ctx
        reason = self._objection(block)
        return Deny(self.message.replace("{name}", block.name), reason=reason) if reason else None

    def _objection(self, block: Block) -> str:
        if rule := next((name for name in self.names if fnmatchcase(block.name, name)), None):
            return f"the tool's name matches {rule!r}"
        rules = [(name, pattern) for name, pattern in self.patterns.items() if fnmatchcase(block.name, name)]
        if not rules:
            return ""
        try:
            written = list(_written(block))
        except ValueError:
            return "the arguments are not JSON"
        return next((f"the arguments match the pattern of {name!r}" for name, pattern in rules if _found(pattern, written)), "")


def _checked_message(message: object) -> str:
    if isinstance(message, str) and message.strip():
        return message
    msg = f"message must be a text that is not blank (providers refuse blank assistant text), not {message!r}"
    raise ValueError(msg)


def _checked_names(names: object) -> tuple[str, ...]:
    if isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names):
        return tuple(names)
    msg = f"names must be a list of tool names, not {names!r}"
    raise ValueError(msg)


def _checked_patterns(patterns: object) -> list[tuple[str, str]]:
    if isinstance(patterns, Mapping) and all(isinstance(part, str) for pair in patterns.items() for part in pair):
        return list(patterns.items())
    msg = f"patterns must map tool names to regular expressions, not {patterns!r}"
    raise ValueError(msg)


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        msg = f"the pattern of {name!r} is not a regular expression: {error}"
        raise ValueError(msg) from None


def _found(pattern: re.Pattern[str], written: Sequence[str]) -> bool:
    return any(pattern.search(text) for text in written)


def _written(block: Block) -> Iterator[str]:
    yield block.text
    try:
        yield from _strings(block.arguments)
    except ValueError:
        if not block.custom:  # a custom tool's input is free text
            raise


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                yield text
            case dict() as fields:
                pending += [*fields.keys(), *fields.values()]
            case list() as items:
                pending += items
