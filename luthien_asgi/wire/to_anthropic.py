"""OpenAI requests as Anthropic ones: the parameters. The table in `wire.parameters` says what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.conversion import Converted, Draft, Handler, inexpressible, walk
from luthien_asgi.wire.from_responses import from_responses
from luthien_asgi.wire.thinking import BUDGETS, EFFORT_IN_ADAPTIVE, MIN_BUDGET
from luthien_asgi.wire.to_anthropic_messages import ConversationWriter
from luthien_asgi.wire.unsigned import signed_only

__all__ = ["DEFAULT_MAX_TOKENS", "HANDLERS", "Converted", "to_anthropic"]

DEFAULT_MAX_TOKENS: Final = 32_000
"""Tokens: the least of what the models since Claude 4 can write. The API wants a limit, OpenAI's clients seldom give one."""
_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}
_FORCED: Final = frozenset({"any", "tool"})


def to_anthropic(
    request: ChatRequest, *, default_max_tokens: int = DEFAULT_MAX_TOKENS, adaptive_thinking: bool = False
) -> Converted:
    """Return a request as the body of the Messages API; one of the Anthropic format as it is, unsigned thinking apart.

    One of the Responses format becomes one of chat completions on the way.

    `default_max_tokens`: for a request without a limit. `adaptive_thinking`: the model takes `thinking: adaptive` with an effort
    and no budget. Raises `RequestError` that names what the Messages API has no words for.
    """
    if request.wire == "anthropic":
        return signed_only(request)
    if request.wire == "responses":
        chat = from_responses(request, custom_tools=False, keep_thinking=True, rich_results=True)
        with chat.naming():
            further = to_anthropic(chat.request, default_max_tokens=default_max_tokens, adaptive_thinking=adaptive_thinking)
        return chat.merged(further)
    draft = Draft(request)
    walk(draft, HANDLERS)
    writer = _write_messages(draft)
    _write_tools(draft, writer)
    draft.params["max_tokens"] = request.max_tokens or default_max_tokens
    _write_thinking(draft, writer, adaptive=adaptive_thinking)
    return draft.done()


def _write_messages(draft: Draft) -> ConversationWriter:
    writer = ConversationWriter(draft)
    for place, message in enumerate(draft.request.body.get("messages") or ()):
        writer.add(message, f"messages[{place}]")
    writer.finish()
    if writer.system:
        draft.params["system"] = writer.system
    draft.params["messages"] = writer.messages
    return writer


# --- tools -----------------------------------------------------------------------------------------------------------------


def _write_tools(draft: Draft, writer: ConversationWriter) -> None:
    body = draft.request.body
    tools = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(body.get("tools") or ())]
    tools += [_function(function) for function in body.get("functions") or ()]
    choice = _choice(body)
    if choice is not None and choice["type"] == "allowed":
        tools = [tool for tool in tools if tool["name"] in choice["names"]]
        choice = {"type": choice["mode"]}
    if not tools and choice is not None and choice["type"] in _FORCED:
        inexpressible("tool_choice", "there are no tools to choose from")
    if not tools and (called := writer.tool_names()):
        # The API wants every tool that the history used to be defined; OpenAI does not.
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in called]
        choice = {"type": "none"}
    if tools:
        draft.params["tools"] = tools
        _set_choice(draft, choice)


def _tool(tool: Mapping[str, Any], at: str) -> dict[str, Any]:
    if not isinstance(tool.get("function"), dict):
        inexpressible(at, "it has no function")
    mark = {"cache_control": tool["cache_control"]} if tool.get("cache_control") else {}
    return {**_function(tool["function"]), **mark}


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = {"name": function.get("name", "")}
    if function.get("description"):
        definition["description"] = function["description"]
    definition["input_schema"] = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    if function.get("strict"):
        definition["strict"] = True
    return definition


def _choice(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return Anthropic's tool choice, None where there is none, or `{"type": "allowed", "names", "mode"}`."""
    given = body.get("tool_choice")
    if given is None and body.get("function_call") is not None:
        called = body["function_call"]
        given = {"type": "function", "function": called} if isinstance(called, dict) else called
    if given is None:
        return None
    if isinstance(given, str):
        return {"type": _CHOICES[given]}
    kind = str(given.get("type"))
    if not isinstance(given.get(kind), dict):
        inexpressible("tool_choice", "it does not say what is chosen")
    return _allowed(given[kind]) if kind == "allowed_tools" else {"type": "tool", "name": given[kind].get("name", "")}


def _allowed(allowed: Mapping[str, Any]) -> dict[str, Any]:
    given = allowed.get("tools")
    tools = [tool for tool in (given if isinstance(given, list) else ()) if isinstance(tool, dict)]
    names = {str(tool["function"].get("name")) for tool in tools if isinstance(tool.get("function"), dict)}
    return {"type": "allowed", "names": names, "mode": "any" if allowed.get("mode") == "required" else "auto"}


def _set_choice(draft: Draft, choice: dict[str, Any] | None) -> None:
    if draft.request.body.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        draft.params["tool_choice"] = choice


# --- thinking --------------------------------------------------------------------------------------------------------------


def _write_thinking(draft: Draft, writer: ConversationWriter, *, adaptive: bool) -> None:
    """Turn thinking on as the client asks for, where the Messages API would accept it; note where it would not."""
    body = draft.request.body
    asked = "thinking" if body.get("thinking") is not None else "reasoning_effort"
    thinking = body.get("thinking") if asked == "thinking" else _thinking_of(draft, adaptive=adaptive)
    if thinking is None:
        return
    if thinking.get("type") == "enabled" and not _may_think(draft, writer, thinking):
        draft.ignore(asked)
        return
    draft.params["thinking"] = thinking


def _thinking_of(draft: Draft, *, adaptive: bool) -> dict[str, Any] | None:
    effort = draft.request.body.get("reasoning_effort")
    if effort is None or effort == "none":
        return None
    if effort not in BUDGETS:
        inexpressible("reasoning_effort", f"{str(effort)[:50]} is not one of none, {', '.join(BUDGETS)}")
    if adaptive:
        draft.params.setdefault("output_config", {})["effort"] = EFFORT_IN_ADAPTIVE[effort]
        return {"type": "adaptive"}
    # The budget counts as output: half of what may be written is left for the answer.
    return {"type": "enabled", "budget_tokens": min(BUDGETS[effort], draft.params["max_tokens"] // 2)}


def _may_think(draft: Draft, writer: ConversationWriter, thinking: Mapping[str, Any]) -> bool:
    """Tell whether the API would accept thinking with a budget: signed thinking before calls, no call forced, room for it."""
    forced = draft.params.get("tool_choice", {}).get("type") in _FORCED
    budget = thinking.get("budget_tokens")
    too_small = isinstance(budget, int) and budget < MIN_BUDGET and "thinking" not in draft.request.body
    return not (forced or too_small or writer.has_unsigned_tool_turn())


# --- parameters ------------------------------------------------------------------------------------------------------------


def _written_later(draft: Draft, value: Any) -> None:  # noqa: ANN401
    """Messages, tools, limit and thinking depend on each other: they are written after the walk."""
    del draft, value


def _response_format(draft: Draft, value: Mapping[str, Any]) -> None:
    inner = value.get("json_schema")
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        inexpressible("response_format.json_schema", "it has no schema")
    draft.params.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": inner["schema"]}


def _user(draft: Draft, value: str) -> None:
    if draft.request.body.get("safety_identifier"):
        draft.ignore("user")
    else:
        draft.params["metadata"] = {"user_id": value}


def _safety_identifier(draft: Draft, value: str) -> None:
    draft.params["metadata"] = {"user_id": value}


def _stop(draft: Draft, value: Any) -> None:  # noqa: ANN401 - JSON
    draft.params["stop_sequences"] = [value] if isinstance(value, str) else value


HANDLERS: Final[Mapping[str, Handler]] = {
    "function_call": _written_later,
    "functions": _written_later,
    "max_completion_tokens": _written_later,
    "max_tokens": _written_later,
    "messages": _written_later,
    "parallel_tool_calls": _written_later,
    "reasoning_effort": _written_later,
    "response_format": _response_format,
    "safety_identifier": _safety_identifier,
    "stop": _stop,
    "thinking": _written_later,
    "tool_choice": _written_later,
    "tools": _written_later,
    "user": _user,
}
