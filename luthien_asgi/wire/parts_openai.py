"""The parts of an OpenAI request, and what becomes of them at an Anthropic backend. The parameters are in `wire.parameters`."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from luthien_asgi.wire.fates import Fate, Row, Table

__all__ = ["OPENAI_PARTS"]

_MAPPED, _CARRIED, _REFUSED, _IGNORED, _HANDLED = Fate.MAPPED, Fate.CARRIED, Fate.REFUSED, Fate.IGNORED, Fate.HANDLED

_LABEL: Final = "a label of the speaker; the Messages API has none"
_MARK: Final = "Anthropic's own mark, which many clients know"
_FOREIGN: Final = "for the provider that gave it"


def _message(role: str, *rows: Row) -> list[Row]:
    """Return the rows of one role, and those that any message has."""
    at = f"messages[{role}]"
    return [
        Row(at, _MAPPED, "messages" if role not in {"system", "developer"} else "system"),
        *rows,
        Row(f"{at}.cache_control", _IGNORED, note="cache marks are taken from content parts", notice="messages[].cache_control"),
        Row(f"{at}.provider_specific_fields", _IGNORED, note=_FOREIGN, notice="messages[].provider_specific_fields"),
        Row(f"{at}.extra_content", _IGNORED, note=_FOREIGN, notice="messages[].extra_content"),
    ]


def _name(role: str) -> Row:
    return Row(f"messages[{role}].name", _IGNORED, note=_LABEL, notice="messages[].name")


def _side(name: str, note: str) -> Row:
    return Row(f"messages[assistant].{name}", _IGNORED, note=note, notice=f"messages[].{name}")


_ASSISTANT: Final = (
    Row("messages[assistant].content", _MAPPED, "messages[assistant].content", "blocks; empty texts are left out"),
    _name("assistant"),
    Row("messages[assistant].refusal", _MAPPED, "content[text].text"),
    Row("messages[assistant].audio", _REFUSED, note="the Messages API has no audio", neutral=({},)),
    Row("messages[assistant].function_call", _MAPPED, "content[tool_use]", "the deprecated form of a tool call"),
    Row("messages[assistant].function_call.name", _MAPPED, "content[tool_use].name"),
    Row("messages[assistant].function_call.arguments", _MAPPED, "content[tool_use].input"),
    Row("messages[assistant].tool_calls", _MAPPED, "content[tool_use]", "after the message's other content"),
    Row("messages[assistant].tool_calls[function]", _MAPPED, "content[tool_use]"),
    Row("messages[assistant].tool_calls[function].id", _MAPPED, "content[tool_use].id", "in the alphabet of the API"),
    Row("messages[assistant].tool_calls[function].function", _MAPPED, "content[tool_use]"),
    Row("messages[assistant].tool_calls[function].function.name", _MAPPED, "content[tool_use].name"),
    Row(
        "messages[assistant].tool_calls[function].function.arguments",
        _MAPPED,
        "content[tool_use].input",
        "what is no JSON object becomes `raw_arguments`",
    ),
    Row(
        "messages[assistant].tool_calls[function].function.parsed_arguments",
        _HANDLED,
        note="a helper of the SDK: the arguments say it already",
    ),
    Row("messages[assistant].tool_calls[custom]", _MAPPED, "content[tool_use]"),
    Row("messages[assistant].tool_calls[custom].id", _MAPPED, "content[tool_use].id"),
    Row("messages[assistant].tool_calls[custom].custom", _MAPPED, "content[tool_use]"),
    Row("messages[assistant].tool_calls[custom].custom.name", _MAPPED, "content[tool_use].name"),
    Row(
        "messages[assistant].tool_calls[custom].custom.input",
        _MAPPED,
        "content[tool_use].input",
        'as `{"input": "<as written>"}`',
    ),
    Row("messages[assistant].parsed", _HANDLED, note="a helper of the SDK: the content says it already"),
    Row(
        "messages[assistant].thinking_blocks",
        _MAPPED,
        "content[thinking]",
        "those with a signature; the others are ignored with notice",
    ),
    _side("annotations", "what an answer cited; its text stays"),
    _side("reasoning_content", "thinking without a signature is not accepted back"),
    _side("reasoning", "thinking without a signature is not accepted back"),
    _side("reasoning_details", "thinking of another provider"),
)


def _call_extras(kind: str) -> list[Row]:
    at = f"messages[assistant].tool_calls[{kind}]"
    return [
        Row(f"{at}.index", _HANDLED, note="the number of a call in a stream; its place in the list says it"),
        Row(f"{at}.extra_content", _IGNORED, note=_FOREIGN, notice="messages[].tool_calls[].extra_content"),
        Row(f"{at}.provider_specific_fields", _IGNORED, note=_FOREIGN, notice="messages[].tool_calls[].provider_specific_fields"),
    ]


def _part(kind: str, becomes: str, *rows: Row) -> list[Row]:
    """Return the rows of one type of part, and the cache marks that any of them may have."""
    breakpoint_ = "messages[].content[].prompt_cache_breakpoint"
    return [
        *rows,
        Row(
            f"content[{kind}].prompt_cache_breakpoint",
            _IGNORED,
            note="where prompts are cached; the answer is the same",
            notice=breakpoint_,
        ),
        Row(f"content[{kind}].cache_control", _CARRIED, f"content[{becomes}].cache_control", _MARK),
    ]


_PARTS: Final = (
    *_part(
        "text", "text", Row("content[text]", _MAPPED, "content[text]"), Row("content[text].text", _CARRIED, "content[text].text")
    ),
    *_part(
        "refusal",
        "text",
        Row("content[refusal]", _MAPPED, "content[text]"),
        Row("content[refusal].refusal", _MAPPED, "content[text].text"),
    ),
    *_part(
        "image_url",
        "image",
        Row("content[image_url]", _MAPPED, "content[image]"),
        Row("content[image_url].image_url", _MAPPED, "content[image].source"),
        Row("content[image_url].image_url.url", _MAPPED, "content[image].source", "a data URL as base64, others as url"),
        Row(
            "content[image_url].image_url.detail",
            _IGNORED,
            note="how finely an image is read, and at what price; the image is the same",
            neutral=("auto",),
            notice="messages[].content[].image_url.detail",
        ),
    ),
    Row("content[input_audio]", _REFUSED, note="the Messages API has no audio"),
    *_part(
        "file",
        "document",
        Row("content[file]", _MAPPED, "content[document]"),
        Row("content[file].file", _MAPPED, "content[document].source"),
        Row("content[file].file.file_data", _MAPPED, "content[document].source", "text as text, anything else as base64"),
        Row("content[file].file.file_id", _REFUSED, note="uploaded files are stored at OpenAI"),
        Row("content[file].file.filename", _MAPPED, "content[document].title"),
    ),
)

_TOOLS: Final = (
    Row("tools[function]", _MAPPED, "tools[custom]"),
    Row("tools[function].function", _MAPPED, "tools[custom]"),
    Row("tools[function].function.name", _MAPPED, "tools[custom].name"),
    Row("tools[function].function.description", _MAPPED, "tools[custom].description"),
    Row(
        "tools[function].function.parameters",
        _MAPPED,
        "tools[custom].input_schema",
        "an object's schema, since the API wants one",
    ),
    Row("tools[function].function.strict", _MAPPED, "tools[custom].strict", neutral=(False,)),
    Row("tools[function].cache_control", _CARRIED, "tools[custom].cache_control", _MARK),
    Row("tools[custom]", _REFUSED, note="the Messages API calls tools with JSON, never with free text"),
    Row("functions.name", _MAPPED, "tools[custom].name"),
    Row("functions.description", _MAPPED, "tools[custom].description"),
    Row("functions.parameters", _MAPPED, "tools[custom].input_schema"),
    Row("functions.strict", _MAPPED, "tools[custom].strict", neutral=(False,)),
)

_CHOICES: Final = (
    Row("tool_choice=none", _MAPPED, "tool_choice[none]"),
    Row("tool_choice=auto", _MAPPED, "tool_choice[auto]"),
    Row("tool_choice=required", _MAPPED, "tool_choice[any]"),
    Row("tool_choice[function]", _MAPPED, "tool_choice[tool]"),
    Row("tool_choice[function].function", _MAPPED, "tool_choice[tool]"),
    Row("tool_choice[function].function.name", _MAPPED, "tool_choice[tool].name"),
    Row("tool_choice[allowed_tools]", _MAPPED, "tools", "the others are left out of the tools, with what the choice allows"),
    Row("tool_choice[allowed_tools].allowed_tools", _MAPPED, "tools"),
    Row("tool_choice[allowed_tools].allowed_tools.mode", _MAPPED, "tool_choice"),
    Row("tool_choice[allowed_tools].allowed_tools.mode=auto", _MAPPED, "tool_choice[auto]"),
    Row("tool_choice[allowed_tools].allowed_tools.mode=required", _MAPPED, "tool_choice[any]"),
    Row("tool_choice[allowed_tools].allowed_tools.tools", _MAPPED, "tools"),
    Row("tool_choice[custom]", _REFUSED, note="the Messages API calls tools with JSON, never with free text"),
    Row("function_call=none", _MAPPED, "tool_choice[none]"),
    Row("function_call=auto", _MAPPED, "tool_choice[auto]"),
    Row("function_call.name", _MAPPED, "tool_choice[tool].name"),
)

_SETTINGS: Final = (
    Row("response_format[text]", _HANDLED, note="the default"),
    Row("response_format[json_object]", _REFUSED, note="the Messages API writes JSON by a schema only"),
    Row("response_format[json_schema]", _MAPPED, "output_config.format"),
    Row("response_format[json_schema].json_schema", _MAPPED, "output_config.format"),
    Row("response_format[json_schema].json_schema.name", _HANDLED, note="a label that the API has no use for"),
    Row(
        "response_format[json_schema].json_schema.description",
        _IGNORED,
        note="the schema says what is wanted",
        neutral=("",),
        notice="response_format.json_schema.description",
    ),
    Row("response_format[json_schema].json_schema.schema", _MAPPED, "output_config.format[json_schema].schema"),
    Row("response_format[json_schema].json_schema.strict", _HANDLED, note="the Messages API always keeps to the schema"),
    *(Row(f"reasoning_effort={effort}", _MAPPED, "thinking") for effort in ("minimal", "low", "medium", "high", "xhigh", "max")),
    Row("reasoning_effort=none", _HANDLED, note="no thinking is asked for"),
)

OPENAI_PARTS: Final = Table(
    [
        *_message("system", Row("messages[system].content", _MAPPED, "system"), _name("system")),
        *_message("developer", Row("messages[developer].content", _MAPPED, "system"), _name("developer")),
        *_message("user", Row("messages[user].content", _MAPPED, "messages[user].content"), _name("user")),
        *_message("assistant", *_ASSISTANT, *_call_extras("function"), *_call_extras("custom")),
        *_message(
            "tool",
            Row("messages[tool].content", _MAPPED, "content[tool_result].content"),
            Row("messages[tool].tool_call_id", _MAPPED, "content[tool_result].tool_use_id"),
            _name("tool"),
        ),
        *_message(
            "function",
            Row("messages[function].content", _MAPPED, "content[tool_result].content"),
            Row("messages[function].name", _MAPPED, "content[tool_result].tool_use_id", "the id of the call with this name"),
        ),
        *_PARTS,
        *_TOOLS,
        *_CHOICES,
        *_SETTINGS,
    ],
    defaults=MappingProxyType({"messages[assistant].tool_calls": "function"}),
)
"""What is below the parameters of `POST /v1/chat/completions`."""
