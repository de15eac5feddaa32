"""Anthropic requests as OpenAI ones: the parameters. The table in `wire.parameters` says what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.conversion import Converted, Draft, Handler, inexpressible, unconverted, walk
from luthien_asgi.wire.from_responses import from_responses
from luthien_asgi.wire.thinking import effort_of_budget
from luthien_asgi.wire.to_openai_messages import MessageWriter

__all__ = ["HANDLERS", "Converted", "to_openai"]

_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_DEFAULT_CHOICES: Final = ("auto", "none")


def to_openai(
    request: ChatRequest,
    *,
    extras: bool = False,
    keep_thinking: bool = False,
    keep_cache_control: bool = False,
    custom_tools: bool = True,
) -> Converted:
    """Return a request as OpenAI parameters; one of chat completions as it is, one of Responses by `wire.from_responses`.

    `extras`: the backend takes `top_k` beside OpenAI's own parameters. `keep_thinking` and `keep_cache_control`: it is a Claude
    behind LiteLLM (Bedrock, Vertex), which takes `thinking`, the thinking of earlier turns as `thinking_blocks`, and cache marks
    where Anthropic has them.
    Raises `RequestError` that names what OpenAI's format has no words for.
    """
    if request.wire == "openai":
        return unconverted(request)
    if request.wire == "responses":
        return from_responses(request, custom_tools=custom_tools, keep_thinking=keep_thinking).converted
    draft = Draft(request)
    writer = MessageWriter(draft, keep_thinking=keep_thinking, keep_cache_control=keep_cache_control)
    kept = frozenset([*["cache_control"] * keep_cache_control, *["messages[].content[].thinking"] * keep_thinking])
    walk(draft, HANDLERS, carry=frozenset(["top_k"] * extras + ["thinking"] * keep_thinking), keep=kept)
    _write_messages(draft, writer)
    _write_tools(draft, writer)
    return draft.done()


def _write_messages(draft: Draft, writer: MessageWriter) -> None:
    body = draft.request.body
    writer.system(body.get("system"))
    for place, message in enumerate(body.get("messages") or ()):
        writer.add(message, f"messages[{place}]")
    if not writer.messages:
        inexpressible("messages", "they hold nothing but thinking or empty texts")
    draft.params["messages"] = writer.messages


def _write_tools(draft: Draft, writer: MessageWriter) -> None:
    """Write the tools, or leave out what only makes sense with tools: OpenAI refuses it."""
    tools = draft.request.body.get("tools")
    if tools:
        draft.params["tools"] = [_tool(writer, tool) for tool in tools]
        return
    draft.params.pop("parallel_tool_calls", None)
    if draft.params.get("tool_choice") in _DEFAULT_CHOICES:
        del draft.params["tool_choice"]


def _tool(writer: MessageWriter, tool: Mapping[str, Any]) -> dict[str, Any]:
    schema = tool.get("input_schema") or {"type": "object", "properties": {}}
    if tool.get("input_examples"):
        schema = {**schema, "examples": tool["input_examples"]}
    function = {"name": tool.get("name", ""), "parameters": schema}
    function.update({field: tool[field] for field in ("description", "strict") if tool.get(field) is not None})
    return writer.cached(tool, {"type": "function", "function": function})


# --- parameters ------------------------------------------------------------------------------------------------------------


def _written_later(draft: Draft, value: Any) -> None:  # noqa: ANN401
    """Messages, system and tools depend on each other: they are written after the walk."""
    del draft, value


def _metadata(draft: Draft, value: Mapping[str, Any]) -> None:
    if isinstance(value.get("user_id"), str):
        draft.params["user"] = value["user_id"]


def _output_config(draft: Draft, value: Mapping[str, Any]) -> None:
    if value.get("effort") is not None:
        _set_effort(draft, str(value["effort"]), "output_config.effort")
    if value.get("format") is not None:
        _output_format(draft, value["format"])


def _output_format(draft: Draft, value: Any) -> None:  # noqa: ANN401 - JSON
    """Map a schema. Anthropic guarantees that the answer fits, which is OpenAI's `strict`."""
    if not isinstance(value, dict) or value.get("type") != "json_schema":
        inexpressible("output_config.format", "only json_schema is understood")
    schema = {"name": "answer", "schema": value.get("schema"), "strict": True}
    draft.params["response_format"] = {"type": "json_schema", "json_schema": schema}


def _set_effort(draft: Draft, effort: str, asked: str) -> None:
    draft.params["reasoning_effort"] = effort
    draft.droppable["reasoning_effort"] = asked


def _thinking(draft: Draft, value: Mapping[str, Any]) -> None:
    if (draft.request.body.get("output_config") or {}).get("effort"):
        return
    if value.get("type") == "enabled":
        budget = value.get("budget_tokens")
        _set_effort(draft, effort_of_budget(budget if isinstance(budget, int) else 0), "thinking")
    elif value.get("type") == "adaptive":
        # How much the model thinks is its own affair then, bounded by output_config.effort, which is mapped by itself.
        draft.ignore("thinking")


def _stop_sequences(draft: Draft, value: Any) -> None:  # noqa: ANN401 - JSON
    draft.params["stop"] = value


def _tool_choice(draft: Draft, value: Mapping[str, Any]) -> None:
    kind = str(value.get("type"))
    if kind == "tool":
        draft.params["tool_choice"] = {"type": "function", "function": {"name": value.get("name", "")}}
    else:
        draft.params["tool_choice"] = _CHOICES[kind]
    if value.get("disable_parallel_tool_use"):
        draft.params["parallel_tool_calls"] = False


HANDLERS: Final[Mapping[str, Handler]] = {
    "messages": _written_later,
    "metadata": _metadata,
    "output_config": _output_config,
    "output_format": _output_format,
    "stop_sequences": _stop_sequences,
    "system": _written_later,
    "thinking": _thinking,
    "tool_choice": _tool_choice,
    "tools": _written_later,
}
