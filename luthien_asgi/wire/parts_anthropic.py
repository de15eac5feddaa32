"""The parts of an Anthropic request, and what becomes of them at an OpenAI backend. The parameters are in `wire.parameters`."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.wire.fates import Fate, Row, Table

__all__ = ["ANTHROPIC_PARTS"]

_MAPPED, _CARRIED, _REFUSED, _IGNORED, _HANDLED = Fate.MAPPED, Fate.CARRIED, Fate.REFUSED, Fate.IGNORED, Fate.HANDLED

_STORED: Final = "it is stored at the Anthropic API"
_RAN: Final = "it ran at the Anthropic API, and OpenAI's format has no place for what came of it"
_TOOLSET: Final = "toolsets belong to the Anthropic API"
_THINKING: Final = "OpenAI's format takes no thinking back; kept for Claude behind Bedrock and Vertex"
_CITE: Final = "the answer would come without the citations that are asked for"
_NO_CITATIONS: Final[Sequence[Any]] = ({}, {"enabled": False})
_TEXT: Final = "content[text].text"


def _cached(path: str) -> Row:
    note = "where and how long prompts are cached; kept for Claude behind Bedrock and Vertex"
    return Row(f"{path}.cache_control", _IGNORED, note=note, notice="cache_control")


def _block(kind: str, to: str, *rows: Row) -> list[Row]:
    return [Row(f"content[{kind}]", _MAPPED, to), *rows, _cached(f"content[{kind}]")]


def _refused(why: str, *kinds: str) -> list[Row]:
    return [Row(f"content[{kind}]", _REFUSED, note=why) for kind in kinds]


_BLOCKS: Final = (
    *_block(
        "text",
        "content[text]",
        Row("content[text].text", _CARRIED, _TEXT),
        Row(
            "content[text].citations",
            _IGNORED,
            note="what an earlier answer cited; its text stays",
            neutral=([],),
            notice="messages[].content[].citations",
        ),
        Row("content[text].parsed_output", _HANDLED, note="a helper of the SDK: the text says it already"),
    ),
    *_block(
        "image",
        "content[image_url]",
        Row("content[image].source", _MAPPED, "content[image_url].image_url"),
        Row("content[image].source[base64]", _MAPPED, "content[image_url].image_url", "a data URL"),
        Row("content[image].source[base64].data", _MAPPED, "content[image_url].image_url.url"),
        Row("content[image].source[base64].media_type", _MAPPED, "content[image_url].image_url.url"),
        Row("content[image].source[url]", _MAPPED, "content[image_url].image_url"),
        Row("content[image].source[url].url", _MAPPED, "content[image_url].image_url.url"),
        Row("content[image].source[file]", _REFUSED, note=_STORED),
        Row("content[image].transformations", _REFUSED, note="they are made by the Anthropic API", neutral=({},)),
    ),
    *_block(
        "document",
        "content[file]",
        Row("content[document].source", _MAPPED, "content[file].file"),
        Row("content[document].source[base64]", _MAPPED, "content[file].file"),
        Row("content[document].source[base64].data", _MAPPED, "content[file].file.file_data"),
        Row("content[document].source[base64].media_type", _MAPPED, "content[file].file.file_data"),
        Row("content[document].source[text]", _MAPPED, "content[text]"),
        Row("content[document].source[text].data", _MAPPED, _TEXT),
        Row("content[document].source[text].media_type", _HANDLED, note="text is text"),
        Row("content[document].source[content]", _MAPPED, "content"),
        Row("content[document].source[content].content", _MAPPED, "content", "part by part"),
        Row("content[document].source[url]", _REFUSED, note="a document source of type url is read by the Anthropic API"),
        Row("content[document].source[file]", _REFUSED, note=_STORED),
        Row("content[document].citations", _REFUSED, note=_CITE, neutral=_NO_CITATIONS),
        Row("content[document].title", _MAPPED, "content[file].file.filename", "of a text: a line before it"),
        Row("content[document].context", _MAPPED, _TEXT, "a text before the document"),
    ),
    *_block(
        "search_result",
        "content[text]",
        Row("content[search_result].content", _MAPPED, "content"),
        Row("content[search_result].source", _MAPPED, _TEXT),
        Row("content[search_result].title", _MAPPED, _TEXT),
        Row("content[search_result].citations", _REFUSED, note=_CITE, neutral=_NO_CITATIONS),
    ),
    Row("content[thinking]", _IGNORED, note=_THINKING, notice="messages[].content[].thinking"),
    Row("content[redacted_thinking]", _IGNORED, note=_THINKING, notice="messages[].content[].thinking"),
    *_block(
        "tool_use",
        "messages[assistant].tool_calls[function]",
        Row("content[tool_use].id", _MAPPED, "messages[assistant].tool_calls[function].id"),
        Row("content[tool_use].name", _MAPPED, "messages[assistant].tool_calls[function].function.name"),
        Row("content[tool_use].input", _MAPPED, "messages[assistant].tool_calls[function].function.arguments"),
        Row(
            "content[tool_use].caller",
            _REFUSED,
            note="other callers than the model run at the Anthropic API",
            neutral=({"type": "direct"},),
        ),
        Row("content[tool_use].toolset_name", _REFUSED, note=_TOOLSET),
    ),
    *_block(
        "tool_result",
        "messages[tool]",
        Row("content[tool_result].tool_use_id", _MAPPED, "messages[tool].tool_call_id"),
        Row(
            "content[tool_result].content", _MAPPED, "messages[tool].content", "images and files in the user message that follows"
        ),
        Row("content[tool_result].is_error", _MAPPED, "messages[tool].content", "the text begins with `Error: `", (False,)),
        Row("content[tool_result].toolset_name", _REFUSED, note=_TOOLSET),
    ),
    *_refused(
        _RAN,
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "advisor_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
    ),
    *_refused(_STORED, "container_upload"),
    *_refused("a condensed history that only the Anthropic API can read", "compaction"),
    *_refused("state or machinery of the Anthropic API", "fallback", "mcp_tool_listing", "tool_addition", "tool_removal"),
    *_refused("a part of a toolset's result", "tool_reference", "browser_state"),
)

_MESSAGES: Final = (
    Row("messages[user]", _MAPPED, "messages[user]"),
    Row("messages[user].content", _MAPPED, "messages[user].content", "results of tools become messages of their own, before it"),
    Row("messages[assistant]", _MAPPED, "messages[assistant]"),
    Row("messages[assistant].content", _MAPPED, "messages[assistant].content"),
    Row("messages[system]", _MAPPED, "messages[system]"),
    Row("messages[system].content", _MAPPED, "messages[system].content"),
    Row("messages[system].clear_at", _REFUSED, note="the history is edited at the Anthropic API", neutral=("never",)),
    Row("messages[system].output_config", _REFUSED, note="OpenAI's format has one effort for a request", neutral=({},)),
)

_SERVER_TOOLS: Final = (
    "advisor_20260301",
    "bash_20241022",
    "bash_20250124",
    "browser_toolset_20260801",
    "code_execution_20250522",
    "code_execution_20250825",
    "code_execution_20260120",
    "code_execution_20260521",
    "computer_20241022",
    "computer_20250124",
    "computer_20251124",
    "computer_toolset_20260801",
    "mcp_toolset",
    "memory_20250818",
    "text_editor_20241022",
    "text_editor_20250124",
    "text_editor_20250429",
    "text_editor_20250728",
    "tool_search_tool_bm25",
    "tool_search_tool_bm25_20251119",
    "tool_search_tool_regex",
    "tool_search_tool_regex_20251119",
    "web_fetch_20250910",
    "web_fetch_20260209",
    "web_fetch_20260309",
    "web_fetch_20260318",
    "web_search_20250305",
    "web_search_20260209",
    "web_search_20260318",
)

_TOOLS: Final = (
    Row("tools[custom]", _MAPPED, "tools[function]"),
    Row("tools[custom].name", _MAPPED, "tools[function].function.name"),
    Row("tools[custom].description", _MAPPED, "tools[function].function.description"),
    Row("tools[custom].input_schema", _MAPPED, "tools[function].function.parameters"),
    Row("tools[custom].input_examples", _MAPPED, "tools[function].function.parameters.examples", neutral=([],)),
    Row("tools[custom].strict", _MAPPED, "tools[function].function.strict"),
    Row(
        "tools[custom].defer_loading", _REFUSED, note="deferred tools are found by a tool of the Anthropic API", neutral=(False,)
    ),
    Row(
        "tools[custom].allowed_callers",
        _REFUSED,
        note="other callers than the model run at the Anthropic API",
        neutral=([], ["direct"]),
    ),
    Row(
        "tools[custom].eager_input_streaming",
        _IGNORED,
        note="when arguments are streamed, not what they are",
        notice="tools[].eager_input_streaming",
    ),
    _cached("tools[custom]"),
    *(Row(f"tools[{kind}]", _REFUSED, note="the tool belongs to the Anthropic API") for kind in _SERVER_TOOLS),
)

_PARALLEL: Final = "parallel_tool_calls"
_CHOICES: Final = (
    Row("tool_choice[auto]", _MAPPED, "tool_choice=auto"),
    Row("tool_choice[auto].disable_parallel_tool_use", _MAPPED, _PARALLEL, neutral=(False,)),
    Row("tool_choice[any]", _MAPPED, "tool_choice=required"),
    Row("tool_choice[any].disable_parallel_tool_use", _MAPPED, _PARALLEL, neutral=(False,)),
    Row("tool_choice[tool]", _MAPPED, "tool_choice[function]"),
    Row("tool_choice[tool].name", _MAPPED, "tool_choice[function].function.name"),
    Row("tool_choice[tool].disable_parallel_tool_use", _MAPPED, _PARALLEL, neutral=(False,)),
    Row("tool_choice[none]", _MAPPED, "tool_choice=none"),
)

_SHOWN: Final = "whether and how thinking is shown"
_BOUND: Final = "checks of earlier thinking, which is not sent"
_SETTINGS: Final = (
    Row("metadata.user_id", _MAPPED, "user"),
    Row("metadata.*", _IGNORED, note="labels; OpenAI's format has the user alone", notice="metadata"),
    Row("output_config.effort", _MAPPED, "reasoning_effort", "as it is"),
    Row("output_config.format", _MAPPED, "response_format"),
    Row("output_config.format[json_schema]", _MAPPED, "response_format[json_schema]", "strict, as Anthropic's always is"),
    Row("output_config.format[json_schema].schema", _MAPPED, "response_format[json_schema].json_schema.schema"),
    Row("output_config.task_budget", _REFUSED, note="a budget that the Anthropic API keeps"),
    Row("output_format[json_schema]", _MAPPED, "response_format[json_schema]"),
    Row("output_format[json_schema].schema", _MAPPED, "response_format[json_schema].json_schema.schema"),
    Row("thinking[enabled]", _MAPPED, "reasoning_effort"),
    Row("thinking[enabled].budget_tokens", _MAPPED, "reasoning_effort", "by the budgets in `wire.thinking`"),
    Row("thinking[enabled].display", _IGNORED, note=_SHOWN, notice="thinking.display"),
    Row("thinking[enabled].block_binding", _IGNORED, note=_BOUND, notice="thinking.block_binding"),
    Row("thinking[adaptive]", _MAPPED, "reasoning_effort", "by output_config.effort; ignored with notice where there is none"),
    Row("thinking[adaptive].display", _IGNORED, note=_SHOWN, notice="thinking.display"),
    Row("thinking[adaptive].block_binding", _IGNORED, note=_BOUND, notice="thinking.block_binding"),
    Row("thinking[disabled]", _HANDLED, note="the default"),
    Row("thinking[between_tools]", _REFUSED, note="between_tools is a mode of the Anthropic API"),
)

ANTHROPIC_PARTS: Final = Table(
    [*_MESSAGES, *_BLOCKS, *_TOOLS, *_CHOICES, *_SETTINGS], defaults=MappingProxyType({"tools": "custom"})
)
"""What is below the parameters of `POST /v1/messages`."""
