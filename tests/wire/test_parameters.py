"""The tables of parameters: complete against the SDKs' request types, and true of the conversions, row by row."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import pytest
from anthropic.types import message_create_params as anthropic_params
from anthropic.types.beta import message_count_tokens_params as anthropic_count
from anthropic.types.beta import message_create_params as anthropic_beta
from openai.types.chat import completion_create_params as openai_params
from openai.types.responses import response_create_params as responses_params

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire import from_responses as responses_module
from luthien_asgi.wire import to_anthropic as anthropic_module
from luthien_asgi.wire import to_openai as openai_module
from luthien_asgi.wire.conversion import Converted
from luthien_asgi.wire.parameters import ANTHROPIC, OPENAI, OPENAI_OWN, RESPONSES, Fate, Parameter, has_shape, why_unknown
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

SCHEMA = {"type": "object", "properties": {}}
USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "parameters": SCHEMA}

OPENAI_SAMPLES: Mapping[str, Any] = {
    "messages": [USER],
    "model": "m",
    "audio": {"voice": "x", "format": "wav"},
    "frequency_penalty": 0.5,
    "function_call": {"name": "f"},
    "functions": [FUNCTION],
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 3000,
    "max_tokens": 3000,
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "x"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    "safety_identifier": "who",
    "seed": 0,
    "service_tier": "flex",
    "stop": "x",
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0,
    "tool_choice": "required",
    "tools": [{"type": "function", "function": FUNCTION}],
    "top_logprobs": 2,
    "top_p": 0.5,
    "user": "who",
    "verbosity": "low",
    "web_search_options": {},
    "skip_special_tokens": False,
    "top_k": 3,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}
OPENAI_MAPPED: Mapping[str, Mapping[str, Any]] = {
    "messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    "function_call": {"tool_choice": {"type": "tool", "name": "f"}},
    "functions": {"tools": [{"name": "f", "input_schema": SCHEMA}]},
    "max_completion_tokens": {"max_tokens": 3000},
    "max_tokens": {"max_tokens": 3000},
    "parallel_tool_calls": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    "reasoning_effort": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "response_format": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "safety_identifier": {"metadata": {"user_id": "who"}},
    "stop": {"stop_sequences": ["x"]},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "tool_choice": {"tool_choice": {"type": "any"}},
    "tools": {"tools": [{"name": "f", "input_schema": SCHEMA}]},
    "user": {"metadata": {"user_id": "who"}},
}
ANTHROPIC_SAMPLES: Mapping[str, Any] = {
    "max_tokens": 9,
    "messages": [USER],
    "model": "m",
    "metadata": {"user_id": "who"},
    "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": SCHEMA}},
    "output_format": {"type": "json_schema", "schema": SCHEMA},
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "service_tier": "standard_only",
    "speed": "fast",
    "stop_sequences": ["x"],
    "stream": True,
    "system": "sys",
    "temperature": 0,
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "tools": [{"name": "f", "input_schema": SCHEMA}],
    "top_p": 0.5,
    "top_k": 3,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
ANTHROPIC_MAPPED: Mapping[str, Mapping[str, Any]] = {
    "messages": {"messages": [USER]},
    "metadata": {"user": "who"},
    "output_config": {"reasoning_effort": "max", "response_format": FORMAT},
    "output_format": {"response_format": FORMAT},
    "stop_sequences": {"stop": ["x"]},
    "system": {"messages": [{"role": "system", "content": "sys"}, USER]},
    "thinking": {"reasoning_effort": "medium"},
    "tool_choice": {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
    "tools": {"tools": [{"type": "function", "function": FUNCTION}]},
}
FLAT = {"type": "function", **FUNCTION}
RESPONSES_SAMPLES: Mapping[str, Any] = {
    "background": True,
    "include": ["message.output_text.logprobs", "reasoning.encrypted_content"],
    "input": [USER],
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low", "summary": "auto"},
    "store": True,
    "text": {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
    "tool_choice": {"type": "function", "name": "f"},
    "tools": [FLAT],
    "truncation": "auto",
}
RESPONSES_MAPPED: Mapping[str, Mapping[str, Any]] = {
    "include": {"logprobs": True},
    "input": {"messages": [USER]},
    "instructions": {"messages": [{"role": "system", "content": "x"}, USER]},
    "max_output_tokens": {"max_completion_tokens": 7},
    "parallel_tool_calls": {"parallel_tool_calls": False},
    "reasoning": {"reasoning_effort": "low"},
    "text": {"response_format": FORMAT, "verbosity": "low"},
    "tool_choice": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    "tools": {"tools": [{"type": "function", "function": FUNCTION}]},
    "top_logprobs": {"logprobs": True, "top_logprobs": 7},
}
BY_SHAPE: Mapping[str, Any] = {
    "text": "x",
    "flag": True,
    "whole": 7,
    "number": 0.7,
    "list": ["x"],
    "object": {"x": 1},
    "text or list": "x",
    "text or object": "x",
    "anything": "default",
}


def sample(row: Parameter, samples: Mapping[str, Any]) -> Any:
    return samples[row.name] if row.name in samples else BY_SHAPE[row.shape]


def from_openai(name: str, value: Any) -> Converted:
    tools = {"tools": [{"type": "function", "function": FUNCTION}]} if name in NEEDS_TOOLS else {}
    return to_anthropic(ChatRequest(wire="openai", body={"model": "m", "messages": [USER], **tools, name: value}))


def from_anthropic(name: str, value: Any) -> Converted:
    tools = {"tools": [{"name": "f", "input_schema": SCHEMA}]} if name in NEEDS_TOOLS else {}
    return to_openai(
        ChatRequest(wire="anthropic", body={"model": "m", "max_tokens": 9, "messages": [USER], **tools, name: value})
    )


def from_responses(name: str, value: Any) -> Converted:
    tools = {"tools": [FLAT]} if name in NEEDS_TOOLS else {}
    return to_openai(ChatRequest(wire="responses", body={"model": "m", "input": "hi", **tools, name: value}))


NEEDS_TOOLS = {"tool_choice", "parallel_tool_calls", "function_call"}
ROWS = [
    *((from_openai, row, OPENAI_SAMPLES, OPENAI_MAPPED) for row in OPENAI.values()),
    *((from_anthropic, row, ANTHROPIC_SAMPLES, ANTHROPIC_MAPPED) for row in ANTHROPIC.values()),
    *((from_responses, row, RESPONSES_SAMPLES, RESPONSES_MAPPED) for row in RESPONSES.values()),
]
IDS = [f"{case[0].__name__}-{case[1].name}" for case in ROWS]


def fields_of(*types: type) -> set[str]:
    return {name for params in types for name in typing.get_type_hints(params)}


def test_every_parameter_of_the_openai_sdk_is_in_the_table() -> None:
    """A parameter that the SDK knows and the table does not is a defect of the table."""
    sdk = fields_of(openai_params.CompletionCreateParamsNonStreaming, openai_params.CompletionCreateParamsStreaming)
    assert len(sdk) > 30
    assert sdk == OPENAI_OWN


def test_every_parameter_of_the_responses_sdk_is_in_the_table() -> None:
    """And one more: what Codex says about itself."""
    sdk = fields_of(responses_params.ResponseCreateParamsNonStreaming, responses_params.ResponseCreateParamsStreaming)
    assert len(sdk) > 28
    assert RESPONSES.keys() == sdk | {"client_metadata"}


def test_every_parameter_of_the_anthropic_sdk_is_in_the_table() -> None:
    """Stable, beta and token counting: whatever the SDK's types name has a row."""
    sdk = fields_of(
        anthropic_params.MessageCreateParamsNonStreaming,
        anthropic_params.MessageCreateParamsStreaming,
        anthropic_beta.MessageCreateParamsNonStreaming,
        anthropic_beta.MessageCreateParamsStreaming,
    )
    assert len(sdk) > 25
    assert sdk <= ANTHROPIC.keys()
    assert fields_of(anthropic_count.MessageCountTokensParams) <= ANTHROPIC.keys() | {"prefill"}


def test_a_function_stands_behind_every_mapped_row_and_behind_no_other() -> None:
    """The table and the conversions cannot drift apart."""
    assert anthropic_module.HANDLERS.keys() == {row.name for row in OPENAI.values() if row.fate is Fate.MAPPED}
    assert openai_module.HANDLERS.keys() == {row.name for row in ANTHROPIC.values() if row.fate is Fate.MAPPED}
    assert responses_module.HANDLERS.keys() == {row.name for row in RESPONSES.values() if row.fate is Fate.MAPPED}


@pytest.mark.parametrize(("convert", "row", "samples", "mapped"), ROWS, ids=IDS)
def test_the_conversion_does_what_the_row_says(convert: Any, row: Parameter, samples: Any, mapped: Any) -> None:
    """Mapped, carried, refused, ignored, handled: seen in what the conversion returns or raises."""
    value = sample(row, samples)
    assert has_shape(value, row.shape)
    if row.fate is Fate.REFUSED:
        with pytest.raises(RequestError) as caught:
            convert(row.name, value)
        assert (caught.value.status, caught.value.param) == (400, row.name)
        assert row.name in caught.value.message
        return
    converted = convert(row.name, value)
    assert converted.ignored == ((row.name,) if row.fate is Fate.IGNORED else ())
    if row.fate is Fate.CARRIED:
        assert converted.params[row.name] == value
    elif row.fate is Fate.MAPPED:
        expected = mapped[row.name]
        assert {name: converted.params.get(name) for name in expected} == expected
        assert row.name in expected or row.name not in converted.params
    else:
        assert row.name not in converted.params


@pytest.mark.parametrize(("convert", "row", "samples", "mapped"), ROWS, ids=IDS)
def test_a_value_that_says_nothing_leaves_no_trace(convert: Any, row: Parameter, samples: Any, mapped: Any) -> None:
    """`null`, and what equals the other format's default, converts like an absent field: no 400, no notice."""
    del samples, mapped
    if row.name in {"input", "messages", "model", "max_tokens"}:
        return
    without = convert("stream", None)
    for value in (None, *row.neutral):
        converted = convert(row.name, value)
        assert (converted.params, converted.ignored) == (without.params, ()) or row.name in NEEDS_TOOLS
        assert converted.ignored == ()


def test_values_that_only_look_neutral_are_not() -> None:
    """`false` is not 0, and a list of one harmless edit is not a list of any edits."""
    assert OPENAI["n"].is_neutral(1)
    assert not OPENAI["n"].is_neutral(True)
    assert not OPENAI["logprobs"].is_neutral(0)
    assert not OPENAI["modalities"].is_neutral(["audio"])


def test_clearing_thinking_is_ignored_with_notice() -> None:
    """Claude Code always asks for it, and thinking of earlier turns does not cross anyway; any other edit is refused."""
    clear = {"type": "clear_thinking_20251015", "keep": "all"}
    assert from_anthropic("context_management", {"edits": [clear]}).ignored == ("context_management",)
    for edits in ([clear, {"type": "compact_20260112"}], [3], "x"):
        with pytest.raises(RequestError, match="context_management"):
            from_anthropic("context_management", {"edits": edits})


def test_every_row_gives_its_reason() -> None:
    """No row without a note, no name in the table under another."""
    for table in (OPENAI, ANTHROPIC, RESPONSES):
        assert all(row.note and name == row.name for name, row in table.items())


def test_names_of_no_row_and_headers_are_refused() -> None:
    """`why_unknown` is None exactly for what is accepted."""
    assert why_unknown("temperature", "openai") is None
    assert why_unknown("temperature", "anthropic") is None
    assert "header" in (why_unknown("betas", "anthropic") or "")
    assert "configuration" in (why_unknown("litellm_anything", "openai") or "")
    assert why_unknown("tempratur", "openai")
    assert why_unknown("stop", "anthropic")


@pytest.mark.parametrize("wire", ["openai", "anthropic", "responses"])
def test_a_field_of_no_row_is_not_dropped_by_a_conversion(wire: Any) -> None:
    """A field that a policy put there is refused by name rather than lost."""
    messages = {"input": [USER]} if wire == "responses" else {"messages": [USER]}
    request = ChatRequest(wire=wire, body={"model": "m", **messages, "odd": 1})
    with pytest.raises(RequestError, match="odd"):
        (to_openai if wire == "anthropic" else to_anthropic)(request)
