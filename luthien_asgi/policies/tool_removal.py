"""Takes declared tools out of a request so that what is left is one that the provider accepts.

What goes with a tool: a choice that names it, a choice among tools where none is left, and what providers refuse without tools
(`parallel_tool_calls`, an empty `tools`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from luthien_asgi.request import ChatRequest
from luthien_asgi.request_blocks import Path

__all__ = ["Path", "without_tools"]

_LISTS: Final = frozenset({"tools", "mcp_servers"})
_NEEDS_TOOLS: Final = ("tool_choice", "parallel_tool_calls")
_NEEDS_EXECUTION: Final = "container"


def without_tools(request: ChatRequest, paths: Collection[Path]) -> ChatRequest:
    """Return the request without what is declared at these paths."""
    removed = [_at(request.body, path) for path in paths]
    touched = frozenset(path[:length] for path in paths for length in range(len(path)))
    body: dict[str, Any] = dict(_without(request.body, frozenset(paths), touched, ()))
    if any(str(tool.get("type")).startswith("code_execution") for tool in removed if isinstance(tool, Mapping)):
        body.pop(_NEEDS_EXECUTION, None)
    edited = ChatRequest(wire=request.wire, body=body)
    return _with_valid_choice(edited, {name for tool in removed for name in _names(tool)})


def _at(body: Any, path: Path) -> Any:  # noqa: ANN401 - JSON
    for key in path:
        body = body[key]
    return body


def _without(value: Any, paths: frozenset[Path], touched: frozenset[Path], at: Path) -> Any:  # noqa: ANN401 - JSON
    """Return a container without what is at the paths, copied where that is in it; lists that are empty then go, too."""
    if at not in touched:
        return value
    if isinstance(value, list):
        pairs = [(old, _without(old, paths, touched, (*at, n))) for n, old in enumerate(value) if (*at, n) not in paths]
        return [new for old, new in pairs if not _emptied(new, old)]
    fields = {key: (old, _without(old, paths, touched, (*at, key))) for key, old in value.items() if (*at, key) not in paths}
    return {key: new for key, (old, new) in fields.items() if at or key not in _LISTS or new or new is old}


def _emptied(item: Any, old: Any) -> bool:  # noqa: ANN401 - JSON
    """Tell whether a namespace lost its last tool."""
    return item is not old and isinstance(item, Mapping) and item.get("type") == "namespace" and not item.get("tools")


def _names(tool: Any) -> set[str]:  # noqa: ANN401 - JSON
    """Return the words by which a choice may mean a tool."""
    if not isinstance(tool, Mapping):
        return set()
    return {str(tool[key]) for key in ("name", "type", "server_label") if isinstance(tool.get(key), str)} - {"function", "custom"}


def _with_valid_choice(request: ChatRequest, removed: Collection[str]) -> ChatRequest:
    if not request.has_tools:
        for field in _NEEDS_TOOLS:
            request = request.without_field(field)
        return request
    choice = request.body.get("tool_choice")
    if not isinstance(choice, Mapping):
        return request
    if choice.get("type") != "allowed_tools":
        return request.without_field("tool_choice") if _names(choice) & set(removed) else request
    return _with_allowed(request, choice, removed)


def _with_allowed(request: ChatRequest, choice: Mapping[str, Any], removed: Collection[str]) -> ChatRequest:
    """Take the removed tools from a list of allowed ones: in chat completions it is nested, in the Responses format it is not."""
    nested = choice.get("allowed_tools")
    holder = nested if isinstance(nested, Mapping) else choice
    given = holder.get("tools")
    if not isinstance(given, list):
        return request
    kept = [tool for tool in given if not _names(tool) & set(removed)]
    if not kept:
        return request.with_field("tool_choice", "none")
    changed = {**holder, "tools": kept}
    return request.with_field("tool_choice", {**choice, "allowed_tools": changed} if holder is nested else changed)
