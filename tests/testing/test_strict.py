"""The history checks: each thing that the APIs refuse, and that nothing else is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from luthien_asgi.testing import check_history

USER = {"role": "user", "content": "Hi"}
TEXT = {"type": "text", "text": "a"}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
USE2 = USE | {"id": "t2"}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "r"}
RESULT2 = RESULT | {"tool_use_id": "t2"}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"role": "tool", "tool_call_id": "c1", "content": "r"}
THINK: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}


def anthropic(*messages: Any, **fields: Any) -> str | None:
    return check_history("anthropic", {"model": "m", "max_tokens": 9, "messages": list(messages)} | fields)


def openai(*messages: Any, **fields: Any) -> str | None:
    return check_history("openai", {"model": "m", "messages": list(messages)} | fields)


def says(*blocks: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def user(*blocks: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


ANTHROPIC_GOOD: dict[str, list[Any]] = {
    "one question": [USER],
    "text then tools": [USER, says(TEXT, USE, USE2), user(RESULT2, RESULT, TEXT)],
    "results in two messages": [USER, says(USE, USE2), user(RESULT), user(RESULT2)],
    "thinking first": [USER, says(THINKING, TEXT, USE), user(RESULT)],
    "redacted thinking": [USER, says({"type": "redacted_thinking", "data": "d"}, TEXT)],
    "prefill": [USER, {"role": "assistant", "content": "The answer is"}],
    "empty prefill": [USER, {"role": "assistant", "content": ""}],
    "system message inside": [USER, {"role": "system", "content": "be brief"}],
    "server tool after a tool": [
        USER,
        says(USE, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "w", "input": {}}),
        user(RESULT),
    ],
    "empty tool result": [USER, says(USE), user({"type": "tool_result", "tool_use_id": "t1"})],
    "image": [user({"type": "image", "source": {}}, TEXT)],
}
ANTHROPIC_BAD: dict[str, tuple[list[Any], str]] = {
    "no messages": ([], "at least one message"),
    "assistant first": ([says(TEXT)], 'first message must use the "user" role'),
    "empty content": ([{"role": "user", "content": ""}], "non-empty content"),
    "empty list": ([USER, says(), USER], "non-empty content"),
    "no content": ([{"role": "user"}], "content: Field required"),
    "bad role": ([{"role": "tool", "content": "x"}], "Unexpected role"),
    "empty text block": ([USER, says({"type": "text", "text": ""}, USE), user(RESULT)], "must be non-empty"),
    "blank text block": ([USER, says({"type": "text", "text": " \n"}), USER], "non-whitespace"),
    "empty text in a result": (
        [USER, says(USE), user(RESULT | {"content": [{"type": "text", "text": ""}]})],
        "must be non-empty",
    ),
    "text after tool": ([USER, says(USE, TEXT), user(RESULT)], "`text` is not allowed after a `tool_use`"),
    "tool text tool": ([USER, says(USE, TEXT, USE2), user(RESULT, RESULT2)], "`text` is not allowed after a `tool_use`"),
    "thinking after tool": ([USER, says(USE, THINKING), user(RESULT)], "`thinking` is not allowed after a `tool_use`"),
    "no result": ([USER, says(USE, USE2), user(RESULT)], "without `tool_result` blocks immediately after: t2"),
    "tool at the end": ([USER, says(USE)], "without `tool_result` blocks immediately after: t1"),
    "orphaned result": ([USER, says(TEXT), user(RESULT)], "unexpected `tool_use_id` found in `tool_result` blocks: t1"),
    "result first": ([user(RESULT)], "unexpected `tool_use_id`"),
    "result twice": ([USER, says(USE), user(RESULT, RESULT)], "single result"),
    "text before result": ([USER, says(USE), user(TEXT, RESULT)], "must come first"),
    "id twice": ([USER, says(USE, USE), user(RESULT)], "ids must be unique: t1"),
    "id pattern": ([USER, says(USE | {"id": "t.1"}), user(RESULT)], "tool_use.id"),
    "tool without name": ([USER, says(USE | {"name": ""}), user(RESULT)], "tool_use.name"),
    "input is text": ([USER, says(USE | {"input": "{}"}), user(RESULT)], "valid dictionary"),
    "tool_use of the user": ([user(USE)], "can only be in `assistant`"),
    "no signature": ([USER, says({"type": "thinking", "thinking": "hm"}), USER], "signature: Field required"),
    "empty signature": ([USER, says(THINKING | {"signature": ""}), USER], "Invalid `signature`"),
    "redacted without data": ([USER, says({"type": "redacted_thinking", "data": ""}), USER], "data: Field required"),
    "field of another format": ([USER, says(TEXT | {"index": 0}), USER], "text.index: Extra inputs"),
    "field of a message": ([USER | {"name": "x"}], "name: Extra inputs"),
    "not a block": ([user({"text": "no type"})], "malformed request"),
}
OPENAI_GOOD: dict[str, list[Any]] = {
    "a call without arguments": [
        USER,
        {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": ""}}]},
        TOOL,
    ],
    "one question": [USER],
    "system and developer": [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, USER],
    "tool loop": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, TOOL],
    "text and tools": [
        USER,
        {"role": "assistant", "content": "a", "tool_calls": [CALL, CALL | {"id": "c2"}]},
        TOOL | {"tool_call_id": "c2"},
        TOOL,
    ],
    "empty text": [USER, {"role": "assistant", "content": ""}, USER],
    "refusal": [USER, {"role": "assistant", "content": None, "refusal": "no"}, USER],
    "same id in another turn": [
        USER,
        {"role": "assistant", "tool_calls": [CALL]},
        TOOL,
        {"role": "assistant", "tool_calls": [CALL]},
        TOOL,
    ],
    "custom tool": [
        USER,
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "free"}}]},
        TOOL,
    ],
}
OPENAI_BAD: dict[str, tuple[list[Any], str]] = {
    "arguments that are not JSON": (
        [USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{'a': 1}"}}]}, TOOL],
        "it must be a JSON object",
    ),
    "arguments that are no object": (
        [USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "[]"}}]}, TOOL],
        "it must be a JSON object",
    ),
    "no messages": ([], "Invalid 'messages': empty array"),
    "bad role": ([{"role": "robot", "content": "x"}], "Invalid value: 'robot'"),
    "null content": ([USER, {"role": "assistant", "content": None}], "expected a string, got null"),
    "null content of the user": ([{"role": "user", "content": None}], "expected a string, got null"),
    "empty list": ([{"role": "user", "content": []}], "empty array"),
    "empty tool calls": ([USER, {"role": "assistant", "content": "a", "tool_calls": []}], "tool_calls': empty array"),
    "orphaned tool message": ([USER, TOOL], "must be a response to a preceeding message"),
    "tool message first": ([TOOL], "must be a response to a preceeding message"),
    "unknown call id": (
        [USER, {"role": "assistant", "tool_calls": [CALL]}, TOOL, TOOL | {"tool_call_id": "x"}],
        "'tool_call_id' of 'x'",
    ),
    "no result": ([USER, {"role": "assistant", "tool_calls": [CALL]}, USER], "did not have response messages: c1"),
    "no result at the end": ([USER, {"role": "assistant", "tool_calls": [CALL]}], "did not have response messages: c1"),
    "id twice": ([USER, {"role": "assistant", "tool_calls": [CALL, CALL]}, TOOL], "Duplicate value for 'tool_call_id' of 'c1'"),
    "no id": ([USER, {"role": "assistant", "tool_calls": [CALL | {"id": ""}]}, TOOL], "tool_calls[0].id"),
    "null type": ([USER, {"role": "assistant", "tool_calls": [CALL | {"type": None}]}, TOOL], "Invalid value: 'None'"),
    "no name": ([USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"arguments": ""}}]}, TOOL], "function.name"),
    "arguments parsed": (
        [USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": {}}}]}, TOOL],
        "arguments'",
    ),
}


@pytest.mark.parametrize("messages", ANTHROPIC_GOOD.values(), ids=ANTHROPIC_GOOD)
def test_anthropic_accepts(messages: list[Any]) -> None:
    """What the API accepts passes."""
    assert anthropic(*messages) is None


@pytest.mark.parametrize(("messages", "complaint"), ANTHROPIC_BAD.values(), ids=ANTHROPIC_BAD)
def test_anthropic_refuses(messages: list[Any], complaint: str) -> None:
    """What the API refuses is refused for that reason."""
    assert complaint in (anthropic(*messages) or "")


@pytest.mark.parametrize("messages", OPENAI_GOOD.values(), ids=OPENAI_GOOD)
def test_openai_accepts(messages: list[Any]) -> None:
    """What the API accepts passes."""
    assert openai(*messages) is None


@pytest.mark.parametrize(("messages", "complaint"), OPENAI_BAD.values(), ids=OPENAI_BAD)
def test_openai_refuses(messages: list[Any], complaint: str) -> None:
    """What the API refuses is refused for that reason."""
    assert complaint in (openai(*messages) or "")


@pytest.mark.parametrize("name", ["api_base", "provider_specific_fields", "stream_options"])
def test_anthropic_refuses_unknown_fields(name: str) -> None:
    """A top-level field that is not documented is named."""
    assert anthropic(USER, **{name: 1}) == f"{name}: Extra inputs are not permitted"


def test_openai_refuses_unknown_fields() -> None:
    """A top-level field that is not documented is named."""
    assert openai(USER, top_k=1) == "Unknown parameter: 'top_k'."


@pytest.mark.parametrize("value", [0, "9", True, None])
def test_anthropic_wants_max_tokens(value: Any) -> None:
    """`max_tokens` is there and a positive number."""
    assert "max_tokens" in (anthropic(USER, max_tokens=value) or "")


def test_anthropic_wants_no_empty_system_text() -> None:
    """System blocks are text blocks like the others."""
    assert "system: text content blocks must be non-empty" in (anthropic(USER, system=[{"type": "text", "text": ""}]) or "")


def test_a_model_is_wanted_by_both() -> None:
    """Without a model there is no answer."""
    assert "model" in (check_history("openai", {"messages": [USER]}) or "")
    assert "model" in (check_history("anthropic", {"messages": [USER], "max_tokens": 1}) or "")


def test_with_thinking_enabled_a_tool_turn_begins_with_its_thinking() -> None:
    """The turn that is being answered needs its thinking; earlier turns and turns without tools do not."""
    assert "must start with a thinking block" in (anthropic(USER, says(TEXT, USE), user(RESULT), **THINK) or "")
    assert "found `text`" in (anthropic(USER, says(TEXT, THINKING, USE), user(RESULT), **THINK) or "")
    assert anthropic(USER, says(THINKING, USE), user(RESULT), **THINK) is None
    assert anthropic(USER, says(USE), user(RESULT), says(TEXT), USER, **THINK) is None
    assert anthropic(USER, says(TEXT, USE), user(RESULT)) is None


# --- responses ---------------------------------------------------------------------------------------------------------------

SAID = {
    "type": "message",
    "id": "m",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "a"}],
}
ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
FUNCTION = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "r"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c2", "name": "f", "input": "free"}
CUSTOM_OUTPUT = {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "r"}]}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
RESPONSES_GOOD: dict[str, Any] = {
    "a text": "Hi",
    "a message without its type": [USER],
    "a conversation": [ASKED, SAID, ASKED],
    "a refusal": [ASKED, SAID | {"content": [{"type": "refusal", "refusal": "no"}]}],
    "calls and outputs in any order": [ASKED, FUNCTION, CUSTOM, SAID, CUSTOM_OUTPUT, OUTPUT],
    "reasoning before its call": [ASKED, REASONING, FUNCTION, OUTPUT],
    "reasoning before its message": [ASKED, REASONING, SAID],
    "reasoning that carries itself": [ASKED, REASONING | {"encrypted_content": "x"}, ASKED],
}
RESPONSES_BAD: dict[str, tuple[Any, str]] = {
    "nothing": ([], "'input'"),
    "a role that is none": ([ASKED | {"role": "tool"}], "Invalid value: 'tool'"),
    "no content": ([{"role": "user"}], "'input[0].content'"),
    "a user's part in an answer": ([SAID | {"content": ASKED["content"]}], "Invalid value: 'input_text'"),
    "an answer's part in a question": ([ASKED | {"content": SAID["content"]}], "Invalid value: 'output_text'"),
    "a part without its text": ([ASKED | {"content": [{"type": "input_text"}]}], "content[0].text'"),
    "a call without an output": ([ASKED, FUNCTION], "No tool output found for function call c1"),
    "an output without a call": ([ASKED, OUTPUT], "No tool call found for function call output with call_id c1"),
    "an output before its call": ([OUTPUT, FUNCTION], "No tool call found for function call output"),
    "an output of another kind": ([CUSTOM, OUTPUT | {"call_id": "c2"}], "No tool call found for function call output"),
    "an output twice": ([FUNCTION, OUTPUT, OUTPUT], "Duplicate tool output found for call_id c1"),
    "a call twice": ([FUNCTION, FUNCTION, OUTPUT], "Duplicate item found with call_id c1"),
    "a call without an id": ([FUNCTION | {"call_id": ""}], "'input[0].call_id'"),
    "a call without a name": ([FUNCTION | {"name": ""}], "Invalid 'input[0].name'"),
    "arguments that are no text": ([FUNCTION | {"arguments": {}}], "'input[0].arguments'"),
    "an output without its content": ([FUNCTION, {"type": "function_call_output", "call_id": "c1"}], "'input[1].output'"),
    "reasoning without a summary": ([{"type": "reasoning"}, SAID], "'input[0].summary'"),
    "reasoning alone": ([ASKED, REASONING, ASKED], "without its required following item"),
}


@pytest.mark.parametrize("items", RESPONSES_GOOD.values(), ids=RESPONSES_GOOD)
def test_responses_accepts(items: Any) -> None:
    """What the API takes is no complaint."""
    assert check_history("responses", {"model": "m", "input": items}) is None


@pytest.mark.parametrize(("items", "complaint"), RESPONSES_BAD.values(), ids=RESPONSES_BAD)
def test_responses_refuses(items: Any, complaint: str) -> None:
    """Each rule has its words."""
    assert complaint in (check_history("responses", {"model": "m", "input": items}) or "")


def test_responses_that_are_stored_may_hold_the_call() -> None:
    """An output may answer a call of the response that is gone on with."""
    assert check_history("responses", {"model": "m", "input": [OUTPUT], "previous_response_id": "resp_1"}) is None
