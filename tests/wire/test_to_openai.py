"""Anthropic requests for OpenAI backends: nothing lost in silence, and a strict provider takes the result."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits
from luthien_asgi.testing.strict import check_history
from luthien_asgi.wire import anthropic_request
from luthien_asgi.wire.conversion import Converted
from luthien_asgi.wire.to_openai import to_openai

PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
IMAGE = {"type": "image", "source": PNG}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"x": {}}}}
MARK = {"cache_control": {"type": "ephemeral"}}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def convert(*messages: Any, options: dict[str, Any] | None = None, **fields: Any) -> Converted:
    body = {"model": "m", "max_tokens": 9, "messages": list(messages) or [user("hi")], **fields}
    before = copy.deepcopy(body)
    converted = to_openai(ChatRequest(wire="anthropic", body=body), **(options or {}))
    assert body == before
    if not options:
        assert check_history("openai", converted.params) is None
    return converted


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def tool_use(call: str, name: str = "f", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": name, "input": arguments}


def result(call: str, content: Any = "r", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


def refused(*messages: Any, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        convert(*messages, **fields)
    assert caught.value.status == 400
    return caught.value


def test_a_request_of_the_same_wire_is_the_body_itself() -> None:
    """No conversion where none is needed."""
    body = {"model": "m", "messages": [{"role": "user", "content": ""}], "odd": 1}
    assert to_openai(ChatRequest(wire="openai", body=body)) == Converted(body)


def test_a_two_turn_tool_loop_becomes_what_the_openai_sdk_would_send() -> None:
    """System, text, parallel calls, results, follow-up: message by message."""
    converted = convert(
        user("weather?"),
        assistant(
            {"type": "thinking", "thinking": "hmm", "signature": "s"},
            text("let me see"),
            tool_use("t1", x=1),
            tool_use("t2", "g"),
        ),
        user(result("t1", "sunny"), result("t2", [text("a"), text("b")]), text("and?")),
        assistant("fine"),
        user("thanks"),
        system=[text("s1"), text("s2", **MARK)],
        tools=[TOOL, {**TOOL, "name": "g"}],
    )
    assert converted.params["messages"] == [
        {"role": "system", "content": [text("s1"), text("s2")]},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "t2", "content": [text("a"), text("b")]},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "thanks"},
    ]
    assert set(converted.ignored) == {"messages[].content[].thinking", "cache_control"}


def test_results_come_first_wherever_they_stood() -> None:
    """A tool message follows the call directly, also when the client wrote text before the result."""
    messages = convert(user("q"), assistant(tool_use("t")), user(text("before"), result("t")), tools=[TOOL]).params["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[1]["content"] is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("boom", "Error: boom"),
        ("", "Error: the tool gave no output"),
        (None, "Error: the tool gave no output"),
        ([text("a"), text("b")], [text("Error: a"), text("b")]),
    ],
)
def test_a_failed_result_says_so(content: Any, expected: Any) -> None:
    """`is_error` has no counterpart: the text says it."""
    messages = convert(user("q"), assistant(tool_use("t")), user(result("t", content, is_error=True))).params["messages"]
    assert messages[2] == {"role": "tool", "tool_call_id": "t", "content": expected}


def test_images_of_a_result_follow_in_a_user_message() -> None:
    """A tool message holds text only; the images come next, announced, before what the user says."""
    messages = convert(
        user("q"),
        assistant(tool_use("t"), tool_use("u")),
        user(result("t", [text("see"), IMAGE]), result("u", [IMAGE]), text("so?")),
    ).params["messages"]
    assert messages[2]["content"] == "see"
    assert messages[3]["content"] == "(attached to the next message)"
    assert messages[4] == {
        "role": "user",
        "content": [
            text("Attached to the result of tool call t:"),
            IMAGE_PART,
            text("Attached to the result of tool call u:"),
            IMAGE_PART,
            text("so?"),
        ],
    }


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        (IMAGE, [IMAGE_PART]),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
            [{"type": "image_url", "image_url": {"url": "https://x/y"}}],
        ),
        (
            {"type": "document", "source": PDF, "title": "a.pdf"},
            [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}}],
        ),
        (
            {
                "type": "document",
                "title": "T",
                "context": "C",
                "source": {"type": "text", "media_type": "text/plain", "data": "D"},
            },
            [text("T\nC\nD")],
        ),
        ({"type": "document", "source": {"type": "content", "content": [text("a"), IMAGE]}}, [text("a"), IMAGE_PART]),
        ({"type": "document", "source": {"type": "content", "content": "a"}}, [text("a")]),
        ({"type": "search_result", "title": "T", "source": "S", "content": [text("a")]}, [text("T\nS"), text("a")]),
    ],
)
def test_parts_become_their_counterparts(block: Any, parts: Any) -> None:
    """Images, documents and search results of every source that can be expressed."""
    assert convert(user(block, text("end"))).params["messages"] == [{"role": "user", "content": [*parts, text("end")]}]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "file"),
        ({"type": "document", "source": {"type": "url", "url": "https://x"}}, "url"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "file"),
        ({"type": "document", "source": PDF, "citations": {"enabled": True}}, "citations"),
        ({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}, "server_tool_use"),
        ({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, "web_search_tool_result"),
        ({"type": "mcp_tool_use", "id": "m", "name": "x", "input": {}}, "mcp_tool_use"),
        ({"type": "compaction", "content": "x"}, "compaction"),
        ({"type": "container_upload", "file_id": "x"}, "container_upload"),
        ({"type": "of_the_future"}, "of_the_future"),
        ({"type": []}, "does not say its type"),
        (3, "content block"),
        ([], "content block"),
        (None, "content block"),
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_what_cannot_be_expressed_is_refused_by_name(block: Any, words: str, role: str) -> None:
    """The 400 names the block's place and its type."""
    error = refused({"role": role, "content": [text("x"), block]})
    assert words in error.message
    assert (error.param or "").startswith("messages[0].content[1]")


def test_thinking_goes_along_where_the_backend_takes_it() -> None:
    """For a Claude behind LiteLLM thinking keeps its signature, its place and its parameter, and cache marks stay."""
    blocks = [{"type": "thinking", "thinking": "hmm", "signature": "s"}, {"type": "redacted_thinking", "data": "r"}]
    thinking = {"type": "enabled", "budget_tokens": 2000}
    converted = convert(
        user(text("q", **MARK)),
        assistant(*blocks, text("a")),
        user("b"),
        thinking=thinking,
        tools=[{**TOOL, **MARK}],
        top_k=3,
        options={"keep_thinking": True, "keep_cache_control": True, "extras": True},
    )
    assert converted.ignored == ()
    assert converted.params["messages"][0]["content"] == [text("q", **MARK)]
    assert converted.params["messages"][1] == {
        "role": "assistant",
        "content": "a",
        "thinking_blocks": blocks,
        "reasoning_content": "hmm",
    }
    assert converted.params["tools"][0]["cache_control"] == MARK["cache_control"]
    assert (converted.params["thinking"], converted.params["top_k"]) == (thinking, 3)


def test_only_signed_thinking_goes_along() -> None:
    """What another provider thought has no signature, and a Claude takes none of it: it is left out with notice."""
    blocks = [{"type": "thinking", "thinking": "a"}, {"type": "thinking", "thinking": "b", "signature": ""}]
    signed = {"type": "thinking", "thinking": "c", "signature": "s"}
    options = {"keep_thinking": True, "keep_cache_control": True, "extras": True}
    converted = convert(user("q"), assistant(*blocks, text("hi")), assistant(*blocks, signed, text("ho")), options=options)
    assert converted.params["messages"][1:] == [
        {"role": "assistant", "content": "hi"},
        {"role": "assistant", "content": "ho", "thinking_blocks": [signed], "reasoning_content": "c"},
    ]
    assert converted.ignored == ("messages[].content[].thinking",)


def test_what_says_nothing_is_left_out() -> None:
    """Empty texts, thinking alone, an empty system prompt: no empty message stays behind."""
    converted = convert(
        user("q"),
        assistant({"type": "thinking", "thinking": "x", "signature": "s"}),
        user(text(""), text("b")),
        {"role": "system", "content": "mid"},
        assistant(""),
        system=[],
    )
    roles = [(message["role"], message["content"]) for message in converted.params["messages"]]
    assert roles == [("user", "q"), ("user", "b"), ("system", "mid")]
    assert refused(assistant({"type": "redacted_thinking", "data": "x"})).param == "messages"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
    ],
)
def test_tool_choices(choice: Any, expected: Any) -> None:
    """Each of the four choices, and the ban on parallel calls."""
    params = convert(tools=[TOOL], tool_choice=choice).params
    assert {name: params.get(name) for name in ("tool_choice", "parallel_tool_calls") if name in params} == expected


def test_a_choice_without_tools_is_left_out_where_it_says_nothing() -> None:
    """OpenAI refuses `tool_choice`, `parallel_tool_calls` and `tools: []` without tools."""
    params = convert(tools=[], tool_choice={"type": "auto", "disable_parallel_tool_use": True}).params
    assert params.keys() == {"model", "max_tokens", "messages"}
    assert refused(tools=[TOOL], tool_choice={"type": "all"}).param == "tool_choice"


def test_tools_keep_what_they_say() -> None:
    """Description, schema, strictness and examples cross; a type of `custom` is the plain kind."""
    tool = {**TOOL, "type": "custom", "strict": True, "input_examples": [{"x": 1}], "eager_input_streaming": True}
    converted = convert(tools=[tool])
    assert converted.params["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "strict": True,
                "parameters": {**TOOL["input_schema"], "examples": [{"x": 1}]},  # type: ignore[dict-item]
            },
        }
    ]
    assert converted.ignored == ("tools[].eager_input_streaming",)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "computer_20250124", "name": "computer"},
        {**TOOL, "defer_loading": True},
        {**TOOL, "allowed_callers": ["code_execution_20250825"]},
    ],
)
def test_tools_of_the_anthropic_api_are_refused(tool: Any) -> None:
    """A tool that runs at Anthropic, or is defined there, cannot be offered by another provider."""
    assert (refused(tools=[TOOL, tool]).param or "").startswith("tools[1]")


@pytest.mark.parametrize(
    ("fields", "effort", "ignored"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low", ()),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "medium", ()),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, "high", ()),
        ({"thinking": {"type": "disabled"}}, None, ()),
        ({"thinking": {"type": "adaptive"}}, None, ("thinking",)),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, "xhigh", ()),
        ({"output_config": {"effort": "low"}, "thinking": {"type": "enabled", "budget_tokens": 9000}}, "low", ()),
        ({"output_config": {"effort": None}, "thinking": {"type": "enabled", "budget_tokens": 9000}}, "high", ()),
        ({"thinking": {"type": "enabled", "budget_tokens": 9000, "display": "omitted"}}, "high", ("thinking.display",)),
    ],
)
def test_thinking_becomes_effort(fields: Any, effort: str | None, ignored: Any) -> None:
    """By budget, or by the effort that the client names; the backend may drop it for a model that does not reason."""
    converted = convert(**fields)
    assert converted.params.get("reasoning_effort") == effort
    assert converted.ignored == ignored
    assert set(converted.droppable) == ({"reasoning_effort"} if effort else set())


def test_settings_without_a_counterpart_inside_of_one_that_has_are_refused() -> None:
    """`between_tools`, task budgets and formats other than a schema."""
    assert refused(thinking={"type": "between_tools"}).param == "thinking"
    assert refused(output_config={"task_budget": {"total": 5}}).param == "output_config.task_budget"
    assert refused(output_config={"format": {"type": "xml"}}).param == "output_config.format"
    assert convert(metadata={"user_id": None, "other": 1}).ignored == ("metadata",)


def test_lone_surrogates_and_odd_arguments_survive() -> None:
    """Half an emoji in text and arguments crosses unharmed."""
    messages = convert(user("a\ud83d"), assistant(tool_use("t", x="\ud83d")), user(result("t", "\ude00"))).params["messages"]
    assert messages[0]["content"] == "a\ud83d"
    assert json.loads(messages[1]["tool_calls"][0]["function"]["arguments"]) == {"x": "\ud83d"}
    assert messages[2]["content"] == "\ude00"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", " ", "text", "user", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "content", "source"]), inner, max_size=3)
    ),
    max_leaves=6,
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "search_result", "other"])},
    optional=dict.fromkeys(
        ("text", "source", "id", "name", "input", "tool_use_id", "content", "is_error", "thinking", "signature", "title"), JSON
    ),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.lists(BLOCK, max_size=3) | JSON}
)


@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=3),
    fields=st.dictionaries(
        st.sampled_from(["system", "tools", "tool_choice", "thinking", "output_config", "metadata", "context_management"]), JSON
    ),
)
def test_whatever_the_parser_lets_in_converts_or_is_a_400(messages: Any, fields: Any) -> None:
    """No body makes the server fail: it is refused by the parser, refused by the conversion, or converted."""
    raw = json.dumps({"model": "m", "max_tokens": 5, "messages": messages, **fields}).encode()
    try:
        request = anthropic_request.parse(raw, limits=Limits())
        converted = to_openai(request)
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 - one of two outcomes
    else:
        assert all(message["role"] in {"system", "user", "assistant", "tool"} for message in converted.params["messages"])
