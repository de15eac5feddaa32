"""The tools of a Responses request, and the choice among them, as chat completions have them.

What changes on the way:

1. A tool in a namespace is offered as `<namespace>__<name>`; the encoder of the answer parts the two again. Two tools that would
   be one name are refused.
2. Where the model takes no custom tools (free text input), a custom tool becomes a function with one string, `input`, and the
   encoder takes the text out of its arguments again. A grammar becomes part of the description then, with notice: nothing holds
   the model to it.
3. A web search that the model may use is left out with notice: it answers from what it knows and its other tools, as it may
   anyway. So is a search for more tools that the client itself runs: what it would find is not offered. Every other tool that is
   OpenAI's own is refused by name, and so is one of these that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from luthien_asgi.request_blocks import Path
from luthien_asgi.request_items import flat_tools, given_tools, qualified_name
from luthien_asgi.wire.checks import refuse
from luthien_asgi.wire.conversion import Draft, inexpressible, refuse_unknown

__all__ = ["write_tools"]

_WEB_SEARCH: Final = "web_search"
_TOOL_SEARCH: Final = "tool_search"
_MODES: Final = ("auto", "none", "required")
_TOOL: Final = frozenset({"type", "name", "description", "defer_loading", "allowed_callers"})
_FUNCTION: Final = _TOOL | {"parameters", "strict", "output_schema"}
_CUSTOM: Final = _TOOL | {"format"}
_NAMESPACE: Final = frozenset({"type", "name", "description", "tools"})
_NAMED: Final = frozenset({"type", "name", "namespace"})
_FREE_TEXT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


def write_tools(draft: Draft, *, custom_tools: bool) -> None:
    """Write `tools`, `tool_choice` and `parallel_tool_calls`; without tools the latter two are errors at OpenAI."""
    body = draft.request.body
    tools = list(_tools(draft, custom_tools=custom_tools))
    choice = _choice(draft, body.get("tool_choice"), custom_tools=custom_tools)
    if tools:
        draft.params["tools"] = tools
        if choice is not None:
            draft.params["tool_choice"] = choice
        if body.get("parallel_tool_calls") is False:
            draft.params["parallel_tool_calls"] = False
    elif choice not in (None, "auto", "none"):
        inexpressible("tool_choice", "there are no tools to choose from")


def _tools(draft: Draft, *, custom_tools: bool) -> Iterator[dict[str, Any]]:
    for path, tool in given_tools(draft.request.body):
        if tool.get("type") == "namespace":
            refuse_unknown(tool, _NAMESPACE, _place(path))
    names: set[str] = set()
    for path, tool in flat_tools(draft.request.body):
        at = _place(path)
        kind = str(tool.get("type"))
        if kind in {"function", "custom"}:
            _take_name(names, tool, at)
        if kind == "function":
            refuse_unknown(tool, _FUNCTION, at)
            _check_options(draft, tool, at)
            yield {"type": "function", "function": _definition(tool, ("description", "parameters", "strict"))}
        elif kind == "custom":
            refuse_unknown(tool, _CUSTOM, at)
            _check_options(draft, tool, at)
            yield _custom(tool, at) if custom_tools else _as_function(draft, tool, at)
        elif not _left_out(draft, tool):
            inexpressible(at, f"tools of type {kind[:50]} are OpenAI's own")


def _take_name(names: set[str], tool: Mapping[str, Any], at: str) -> None:
    """Refuse a second tool of one name: which of the two a call means would be a guess."""
    name = str(tool.get("name", ""))
    if name in names:
        refuse(f"{at}.name", f"names a tool that is there already: {name[:100]!r}")
    names.add(name)


def _place(path: Path) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def _check_options(draft: Draft, tool: Mapping[str, Any], at: str) -> None:
    if tool.get("defer_loading"):
        # Offered at once: there is no search that would find it.
        draft.ignore("tools[].defer_loading")
    if tool.get("allowed_callers") not in (None, [], ["direct"]):
        inexpressible(f"{at}.allowed_callers", "other callers than the model run at OpenAI")
    if tool.get("output_schema") is not None:
        draft.ignore("tools[].output_schema")


def _definition(tool: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {"name": tool.get("name", ""), **{field: tool[field] for field in fields if tool.get(field) not in (None, "")}}


def _custom(tool: Mapping[str, Any], at: str) -> dict[str, Any]:
    custom = _definition(tool, ("description",))
    if form := _format(tool, at):
        custom["format"] = {"type": "grammar", "grammar": form}
    return {"type": "custom", "custom": custom}


def _as_function(draft: Draft, tool: Mapping[str, Any], at: str) -> dict[str, Any]:
    function = {**_definition(tool, ("description",)), "parameters": dict(_FREE_TEXT)}
    if form := _format(tool, at):
        draft.ignore("tools[].format")
        grammar = f"The input follows this {form['syntax']} grammar:\n{form['definition']}"
        function["description"] = "\n\n".join(text for text in (function.get("description"), grammar) if text)
    return {"type": "function", "function": function}


def _format(tool: Mapping[str, Any], at: str) -> dict[str, str] | None:
    """Return the grammar of a custom tool, None where its input is any text."""
    form = tool.get("format") or {}
    kind, syntax, definition = form.get("type", "text"), form.get("syntax"), form.get("definition")
    if kind == "text":
        return None
    if kind != "grammar" or syntax not in ("lark", "regex") or not isinstance(definition, str):
        inexpressible(f"{at}.format", "it is neither text nor a grammar in lark or regex")
    return {"syntax": syntax, "definition": definition}


# --- the choice ------------------------------------------------------------------------------------------------------------


def _choice(draft: Draft, given: Any, *, custom_tools: bool) -> Any:  # noqa: ANN401 - JSON
    if given is None:
        return None
    if isinstance(given, str):
        return given if given in _MODES else inexpressible("tool_choice", f"{given[:50]} is not one of {', '.join(_MODES)}")
    if given.get("type") != "allowed_tools":
        return _named(given, "tool_choice", custom_tools=custom_tools)
    refuse_unknown(given, frozenset({"type", "mode", "tools"}), "tool_choice")
    mode, tools = given.get("mode", "auto"), given.get("tools")
    if mode not in ("auto", "required") or not isinstance(tools, list):
        inexpressible("tool_choice", "allowed_tools have a mode, auto or required, and a list of tools")
    allowed = [
        _named(tool, f"tool_choice.tools[{place}]", custom_tools=custom_tools)
        for place, tool in enumerate(tools)
        if not _left_out(draft, tool)
    ]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}


def _left_out(draft: Draft, tool: Any) -> bool:  # noqa: ANN401 - JSON
    """Tell whether the model can do without a tool, and note that it has to."""
    kind = str(tool.get("type")) if isinstance(tool, dict) else ""
    if kind.startswith(_WEB_SEARCH):
        draft.ignore("tools[].web_search")
        return True
    if kind == _TOOL_SEARCH and tool.get("execution") == "client":
        draft.ignore("tools[].tool_search")
        return True
    return False


def _named(tool: Any, at: str, *, custom_tools: bool) -> dict[str, Any]:  # noqa: ANN401 - JSON
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind not in ("function", "custom") or not isinstance(tool.get("name"), str):
        inexpressible(at, f"{str(kind)[:50]} is not a choice among functions and custom tools")
    refuse_unknown(tool, _NAMED, at)
    form = kind if custom_tools else "function"
    return {"type": form, form: {"name": qualified_name(tool["name"], tool.get("namespace"))}}
