"""A policy that denies tool calls by their name or by what their arguments say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.context import PolicyContext, StreamContext
from luthien_asgi.json_strings import strings_of
from luthien_asgi.names import shown_name
from luthien_asgi.policies.checks import checked_choice, checked_message, checked_names, checked_pattern, first_match
from luthien_asgi.policies.conditions import Condition, condition_of
from luthien_asgi.policies.server_tools import MODES, ServerTool, judge_server_tools
from luthien_asgi.policies.tool_arguments import ArgumentsError, read_arguments
from luthien_asgi.policy import Allow, Deny, Handling, Hold, Policy
from luthien_asgi.request import ChatRequest

__all__ = ["DenyTools"]

_MESSAGE: Final = "The call of {name} was denied by a policy."


class DenyTools(Policy):
    """Deny calls of the tools named, of all tools but those named, and of tools whose arguments say what they must not.

    - `names`: tools that may not be called. `allow_only`: tools that may be called, when all others may not.
    - `patterns` maps a tool's name to a regular expression that is searched in the arguments as the model wrote them, and in
      every string of them once parsed, so that a JSON escape hides nothing.
    - `conditions` look at single arguments: `{tool: fetch, path: $.url, not_matches: ^https://example.com/}`. The call is
      denied when a value at the path is what the operator says: `equals`, `in` and `matches` (a regular expression, searched),
      `not_in` and `not_matches` (also where there is no value), `greater` and `less` (also where it is no number), `exists`
      (true or false). A condition without a `tool` is about all tools. Paths are a part of JSONPath: `$.a.b`, `$['a b']`,
      `$.list[0]`, `$.list[*].x`, `$..path`; upper and lower case of a name do not count, and a list is looked into.

    Names of tools may hold `*`, `?` and `[…]`; upper and lower case count. `message` is what the client sees in place of the
    call; `{name}` in it becomes the tool's name.

    Arguments that have no one reading (no JSON, a name twice in one object, deeper than 64, longer than a million characters) are
    not judged: where a pattern or condition applies, such a call is denied. The regular expressions are yours: one that
    backtracks without end takes as long on hostile arguments as on others.

    No part of a call leaves before its verdict. A tool that runs at the provider (web search, code execution, MCP servers) is
    never asked about: the call ran before anyone saw it, and its block passes. So these are judged where the request declares
    them: one that the rules would deny by its name or type, or whose arguments they would have to see, is refused with a 403
    (`server_tools: refuse`, the default), left out of the request (`strip`), or let be (`pass`). An MCP server whose tools the
    request does not list may have tools of any name, so every rule for names objects to it.
    """

    handles: ClassVar[Mapping[BlockKind, Handling]] = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Allow, Deny)

    def __init__(
        self,
        *,
        names: Sequence[str] = (),
        patterns: Mapping[str, str] | None = None,
        conditions: Sequence[Mapping[str, Any]] = (),
        allow_only: Sequence[str] | None = None,
        server_tools: str = "refuse",
        message: str = _MESSAGE,
    ) -> None:
        if not names and not patterns and not conditions and allow_only is None:
            msg = "give names, patterns, conditions or allow_only: without any of them nothing is ever denied"
            raise ValueError(msg)
        self.names = checked_names(names, "names")
        self.patterns = {name: _compiled(name, pattern) for name, pattern in _checked_patterns(patterns or {})}
        self.conditions = _checked_conditions(conditions)
        self.allow_only = checked_names(allow_only, "allow_only") if allow_only is not None else None
        self.server_tools = checked_choice(server_tools, "server_tools", MODES)
        self.message = checked_message(message)

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest | Deny | None:
        """Refuse or leave out declared tools that run at the provider, where the rules would deny them."""
        del ctx
        return judge_server_tools(request, self.server_tools, self._objection_to_server_tool)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Deny | None:
        """Deny the call if its name or its arguments are on the list."""
        del ctx
        reason = self._objection(block)
        return Deny(self.message.replace("{name}", shown_name(block.name)), reason=reason) if reason else None

    def _objection(self, block: Block) -> str:
        if rule := first_match([block.name], self.names):
            return f"the tool's name matches {rule!r}"
        if self.allow_only is not None and first_match([block.name], self.allow_only) is None:
            return "the tool's name is not among those allowed"
        patterns = [(name, pattern) for name, pattern in self.patterns.items() if fnmatchcase(block.name, name)]
        conditions = [condition for condition in self.conditions if condition.concerns(block.name)]
        if not patterns and not conditions:
            return ""
        try:
            arguments = read_arguments(block)
        except ArgumentsError as error:
            return str(error)
        written = [block.text, *strings_of(arguments)]
        found = (f"the arguments match the pattern of {name!r}" for name, pattern in patterns if _found(pattern, written))
        return next(found, "") or next(filter(None, (condition.objection(arguments) for condition in conditions)), "")

    def _objection_to_server_tool(self, tool: ServerTool) -> str:
        """Say which rule a tool that runs at the provider would have to be judged by."""
        if self.allow_only is not None and first_match(tool.kinds, self.allow_only) is None:
            return "it is not among the tools allowed"
        rules = (*self.names, *self.patterns, *(condition.tool for condition in self.conditions))
        if tool.any_name and rules:
            return "it may hold tools of any name"
        rule = first_match(tool.names, rules)
        return f"it matches {rule!r}" if rule is not None else ""


def _checked_patterns(patterns: object) -> list[tuple[str, str]]:
    if isinstance(patterns, Mapping) and all(isinstance(part, str) for pair in patterns.items() for part in pair):
        return list(patterns.items())
    msg = f"patterns must map tool names to regular expressions, not {patterns!r}"
    raise ValueError(msg)


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    return checked_pattern(pattern, f"the pattern of {name!r}")


def _checked_conditions(conditions: object) -> tuple[Condition, ...]:
    if isinstance(conditions, Sequence) and not isinstance(conditions, str):
        return tuple(condition_of(entry) for entry in conditions)
    msg = f"conditions must be a list of conditions, not {conditions!r}"
    raise ValueError(msg)


def _found(pattern: re.Pattern[str], written: Sequence[str]) -> bool:
    return any(pattern.search(text) for text in written)
