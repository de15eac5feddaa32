"""Thinking that nobody signed, on its way to the Anthropic API."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import check_history
from luthien_asgi.wire.conversion import Converted
from luthien_asgi.wire.to_anthropic import to_anthropic

UNSIGNED = [{"type": "thinking", "thinking": "a", "signature": ""}, {"type": "thinking", "thinking": "b"}]
SIGNED = {"type": "thinking", "thinking": "c", "signature": "c2ln"}
TEXT = {"type": "text", "text": "hi"}
CALL = {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "call_1", "content": "r"}
BUDGET = {"type": "enabled", "budget_tokens": 2000}
CLEAR = {"type": "clear_thinking_20251015", "keep": "all"}
OTHER = {"type": "clear_tool_uses_20250919"}
LEFT_OUT = "messages[].content[].thinking"


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks) or "q"}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def convert(*messages: Any, **fields: Any) -> Converted:
    body = {"model": "m", "max_tokens": 9000, "messages": list(messages), **fields}
    before = copy.deepcopy(body)
    converted = to_anthropic(ChatRequest(wire="anthropic", body=body))
    assert body == before
    assert check_history("anthropic", converted.params) is None
    return converted


@pytest.mark.parametrize(
    "messages",
    [
        (user(),),
        (user(), {"role": "assistant", "content": "hi"}, user()),
        (user(), assistant(SIGNED, {"type": "redacted_thinking", "data": "r"}, TEXT, CALL), user(RESULT)),
    ],
)
def test_a_history_that_is_signed_goes_on_as_it_is(messages: Any) -> None:
    """Nothing is touched, and thinking stays on."""
    converted = convert(*messages, thinking=BUDGET)
    assert converted.params == {"model": "m", "max_tokens": 9000, "messages": list(messages), "thinking": BUDGET}
    assert converted.ignored == ()


def test_unsigned_thinking_is_left_out_with_notice() -> None:
    """Beside text, beside signed thinking, and where nothing else was said."""
    converted = convert(user(), assistant(*UNSIGNED, TEXT), user(), assistant(*UNSIGNED), user(), assistant(SIGNED, TEXT), user())
    assert converted.params["messages"] == [user(), assistant(TEXT), user(), user(), assistant(SIGNED, TEXT), user()]
    assert converted.ignored == (LEFT_OUT,)


def test_thinking_is_off_where_the_answered_call_has_none_left() -> None:
    """The API wants a tool turn to begin with its thinking; edits that clear thinking go too, others stay."""
    fields = {"thinking": BUDGET, "context_management": {"edits": [CLEAR, OTHER]}}
    converted = convert(user(), assistant(*UNSIGNED, TEXT, CALL), user(RESULT), **fields)
    assert converted.params["messages"][1] == assistant(TEXT, CALL)
    assert "thinking" not in converted.params
    assert converted.params["context_management"] == {"edits": [OTHER]}
    assert converted.ignored == (LEFT_OUT, "thinking", "context_management")


def test_no_empty_list_of_edits_stays_behind() -> None:
    """Claude Code's only edit is the one that clears thinking."""
    fields = {"thinking": BUDGET, "context_management": {"edits": [CLEAR]}}
    assert "context_management" not in convert(user(), assistant(*UNSIGNED, CALL), user(RESULT), **fields).params


@pytest.mark.parametrize(
    ("messages", "thinking"),
    [
        ((user(), assistant(*UNSIGNED, CALL), user(RESULT)), {"type": "adaptive"}),
        ((user(), assistant(*UNSIGNED, CALL), user(RESULT), assistant(SIGNED, TEXT), user()), BUDGET),
        ((user(), assistant(SIGNED, *UNSIGNED), assistant(CALL), user(RESULT)), BUDGET),
        ((user(), assistant(*UNSIGNED, TEXT), user()), BUDGET),
    ],
)
def test_thinking_stays_on_where_the_api_takes_it(messages: Any, thinking: Any) -> None:
    """Adaptive thinking, an earlier turn's call, a turn that begins with signed thinking, a turn without calls."""
    converted = convert(*messages, thinking=thinking)
    assert converted.params["thinking"] == thinking
    assert converted.ignored == (LEFT_OUT,)
