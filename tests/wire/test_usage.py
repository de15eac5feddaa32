"""Usage and finish reasons keep their meaning from one wire to the other."""

import pytest

from luthien_asgi.wire.usage import (
    FINISH_REASON_OF_STOP_REASON,
    anthropic_usage,
    finish_reason_for,
    openai_usage,
    stop_reason_for,
    stop_reason_kept,
)


def test_anthropic_input_tokens_exclude_what_the_cache_gave_and_took() -> None:
    """Prompt tokens include cache reads and writes, input tokens do not."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
    }
    assert anthropic_usage(usage) == {
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
    }


def test_openai_usage_calls_cache_writes_as_openai_does() -> None:
    """LiteLLM has a name of its own for them."""
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_creation_tokens": 3},
    }
    assert openai_usage(usage)["prompt_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 3}


def test_anthropic_usage_reads_litellms_cache_fields() -> None:
    """LiteLLM writes Anthropic's own names beside OpenAI's."""
    usage = {"prompt_tokens": 50, "completion_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 0}
    assert anthropic_usage(usage) == {
        "input_tokens": 30,
        "output_tokens": 1,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": 0,
    }


def test_anthropic_usage_says_nothing_about_a_cache_that_nobody_mentioned() -> None:
    """Counts that are not known are left out, and none is negative."""
    assert anthropic_usage({"prompt_tokens": 5, "completion_tokens": 7}) == {"input_tokens": 5, "output_tokens": 7}
    assert anthropic_usage({"prompt_tokens": 5, "cache_read_input_tokens": 9})["input_tokens"] == 0


def test_openai_usage_is_complete_and_without_litellms_additions() -> None:
    """The three counts are always there, details are kept, `cost` and Anthropic's names are not."""
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": None},
        "cost": 0.1,
        "cache_read_input_tokens": 2,
    }
    assert openai_usage(usage) == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "completion_tokens_details": {"reasoning_tokens": 3},
        "prompt_tokens_details": {"cached_tokens": 2},
    }


@pytest.mark.parametrize(
    ("finish", "tools", "refused", "stop"),
    [
        ("stop", False, False, "end_turn"),
        ("stop", True, False, "tool_use"),
        ("stop", False, True, "refusal"),
        ("length", False, False, "max_tokens"),
        ("length", True, False, "max_tokens"),
        ("tool_calls", True, False, "tool_use"),
        ("tool_calls", False, False, "end_turn"),
        ("function_call", True, False, "tool_use"),
        ("content_filter", False, False, "refusal"),
        ("something_new", False, False, "end_turn"),
    ],
)
def test_finish_reasons_become_stop_reasons(finish: str, tools: bool, refused: bool, stop: str) -> None:
    """A stop reason follows what was sent."""
    assert stop_reason_for(finish, tools_sent=tools, refused=refused) == stop


def test_only_tool_use_depends_on_what_was_sent_on_the_same_wire() -> None:
    """Every other stop reason of the provider's is kept."""
    assert stop_reason_kept("tool_use", tools_sent=False) == "end_turn"
    assert stop_reason_kept("tool_use", tools_sent=True) == "tool_use"
    for reason in ("max_tokens", "stop_sequence", "refusal", "pause_turn", "model_context_window_exceeded", "compaction"):
        assert stop_reason_kept(reason, tools_sent=False) == reason


def test_openai_finish_reason_changes_only_when_no_call_survived() -> None:
    """`tool_calls` needs a call; `stop` stays `stop`, also beside one."""
    assert finish_reason_for("tool_calls", calls_sent=False) == "stop"
    assert finish_reason_for("tool_calls", calls_sent=True) == "tool_calls"
    assert finish_reason_for("function_call", calls_sent=True) == "tool_calls"
    assert finish_reason_for("stop", calls_sent=True) == "stop"
    assert finish_reason_for("length", calls_sent=False) == "length"


def test_every_stop_reason_has_a_finish_reason_of_openais() -> None:
    """An OpenAI client never sees a word that its format does not have."""
    assert set(FINISH_REASON_OF_STOP_REASON.values()) == {"stop", "length", "tool_calls", "content_filter"}
