"""OpenAI requests for Anthropic backends: nothing lost in silence, and a strict provider takes the result."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import Limits
from luthien_asgi.testing.strict import check_history
from luthien_asgi.wire import anthropic_request, openai_request
from luthien_asgi.wire.conversion import Converted
from luthien_asgi.wire.to_anthropic import DEFAULT_MAX_TOKENS, to_anthropic
from luthien_asgi.wire.to_openai import to_openai

SCHEMA = {"type": "object", "properties": {"x": {}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "g"}}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def convert(*messages: Any, options: dict[str, Any] | None = None, **fields: Any) -> Converted:
    body = {"model": "m", "messages": list(messages) or [user("hi")], **fields}
    before = copy.deepcopy(body)
    converted = to_anthropic(ChatRequest(wire="openai", body=body), **(options or {}))
    assert body == before
    assert check_history("anthropic", converted.params) is None
    return converted


def said(*messages: Any, **fields: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(message["role"], message["content"]) for message in convert(*messages, **fields).params["messages"]]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = None, *calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def call(id_: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(id_: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": content}


def refused(*messages: Any, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        convert(*messages, **fields)
    assert caught.value.status == 400
    return caught.value


def test_a_request_of_the_same_wire_is_the_body_itself() -> None:
    """No conversion where none is needed."""
    body = {"model": "m", "messages": [{"role": "user", "content": ""}], "odd": 1}
    assert to_anthropic(ChatRequest(wire="anthropic", body=body)) == Converted(body)


def test_a_two_turn_tool_loop_becomes_what_the_anthropic_sdk_would_send() -> None:
    """System, text, parallel calls, results, follow-up: block by block."""
    converted = convert(
        {"role": "system", "content": "s1"},
        {"role": "developer", "content": [text("s2")]},
        user("weather?"),
        assistant("let me see", call("c1", arguments='{"x": 1}'), call("c2", "g", "")),
        result("c1", "sunny"),
        result("c2", [text("a"), text("b")]),
        user([text("and?")]),
        assistant("fine"),
        user("thanks"),
        tools=[TOOL, OTHER],
        max_tokens=7,
    )
    assert converted.params == {
        "model": "m",
        "max_tokens": 7,
        "system": [text("s1"), text("s2")],
        "messages": [
            {"role": "user", "content": [text("weather?")]},
            {
                "role": "assistant",
                "content": [
                    text("let me see"),
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": [text("a"), text("b")]},
                    text("and?"),
                ],
            },
            {"role": "assistant", "content": [text("fine")]},
            {"role": "user", "content": [text("thanks")]},
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": SCHEMA},
            {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        ],
    }
    assert converted.ignored == ()


def test_messages_of_one_role_in_a_row_become_one() -> None:
    """Roles alternate, and a merged message has the API's order."""
    assert said(user("a"), user("b"), assistant("c", call("1")), assistant("d"), result("1"), user("e")) == [
        ("user", [text("a"), text("b")]),
        ("assistant", [text("c"), text("d"), {"type": "tool_use", "id": "1", "name": "f", "input": {}}]),
        ("user", [{"type": "tool_result", "tool_use_id": "1", "content": "r"}, text("e")]),
    ]


def test_system_messages_between_a_call_and_its_result_do_not_part_them() -> None:
    """What is moved to the front leaves no gap."""
    assert [role for role, _ in said(user("a"), assistant(None, call("1")), {"role": "system", "content": "s"}, result("1"))] == [
        "user",
        "assistant",
        "user",
    ]


@pytest.mark.parametrize("empty", ["", " \n", None, [], [text("")], [text(" ")]])
def test_empty_texts_are_left_out(empty: Any) -> None:
    """The API refuses blank text blocks and empty messages; an empty result has no content at all."""
    content = empty if empty is not None else ""
    assert said(user("a"), assistant(empty), user(content), assistant(empty, call("1")), result("1", empty)) == [
        ("user", [text("a")]),
        ("assistant", [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]),
        ("user", [{"type": "tool_result", "tool_use_id": "1"}]),
    ]
    assert refused(user(content)).param == "messages"


def test_a_conversation_of_a_system_prompt_alone_is_the_users() -> None:
    """The API wants a user message; the words are the client's."""
    params = convert({"role": "system", "content": "do it"}).params
    assert params["messages"] == [{"role": "user", "content": [text("do it")]}]
    assert "system" not in params


def test_a_conversation_that_the_assistant_begins_gets_a_user_before_it() -> None:
    """The API wants the user first."""
    assert [role for role, _ in said(assistant("hello"), user("hi"))] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("  ", {}),
        ("{}", {}),
        ('{"x": {"y": [1]}}', {"x": {"y": [1]}}),
        ("{broken", {"raw_arguments": "{broken"}),
        ("[1]", {"raw_arguments": "[1]"}),
        ("null", {"raw_arguments": "null"}),
        ("{" * 50_000, {"raw_arguments": "{" * 50_000}),
        ('{"x": "\\ud83d"}', {"x": "\ud83d"}),
    ],
)
def test_arguments_always_become_an_object(arguments: str, expected: Any) -> None:
    """What a model wrote that is no JSON object is shown to the next one as it was written."""
    assert said(user("a"), assistant(None, call("1", arguments=arguments)), result("1"))[1][1][0]["input"] == expected


def test_ids_are_made_legal_and_unique_and_still_match() -> None:
    """Servers that number calls by turn, or put dots and colons in ids, are understood."""
    turns = said(
        user("a"),
        assistant(None, call("functions.f:0"), call("")),
        result("functions.f:0", "one"),
        result("", "two"),
        assistant(None, call("functions.f:0"), call("functions_f_0")),
        result("functions.f:0", "three"),
        result("functions_f_0", "four"),
    )
    ids = [block["id"] for _, blocks in turns for block in blocks if block["type"] == "tool_use"]
    results = [
        (block["tool_use_id"], block["content"]) for _, blocks in turns for block in blocks if block["type"] == "tool_result"
    ]
    assert len(set(ids)) == 4
    assert results == list(zip(ids, ["one", "two", "three", "four"], strict=True))


def test_deprecated_functions_become_tools() -> None:
    """`functions`, `function_call` and messages of role `function` are one tool loop."""
    params = convert(
        user("a"),
        assistant(None, function_call={"name": "f", "arguments": '{"x":1}'}),
        {"role": "function", "name": "f", "content": "one"},
        assistant(None, function_call={"name": "f", "arguments": "{}"}),
        {"role": "function", "name": "f", "content": "two"},
        functions=[TOOL["function"]],
        function_call="auto",
    ).params
    assert params["tools"] == [{"name": "f", "description": "d", "input_schema": SCHEMA}]
    assert params["tool_choice"] == {"type": "auto"}
    uses = [message["content"][0] for message in params["messages"][1:]]
    assert uses[0]["id"] == uses[1]["tool_use_id"] != uses[2]["id"] == uses[3]["tool_use_id"]


def test_custom_calls_of_the_history_become_calls() -> None:
    """The free text is an argument then; offering a custom tool is refused."""
    custom = {"id": "1", "type": "custom", "custom": {"name": "f", "input": "free"}}
    assert said(user("a"), assistant(None, custom), result("1"))[1][1][0]["input"] == {"input": "free"}
    assert refused(tools=[TOOL, {"type": "custom", "custom": {"name": "f"}}]).param == "tools[1]"


PNG = "data:image/png;base64,aGk="


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        ),
        (
            {"type": "image_url", "image_url": "https://x/y"},
            {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}},
            {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
        ),
        (
            {"type": "file", "file": {"file_data": "aGk="}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
        ),
        (
            {
                "type": "file",
                "file": {"file_data": "data:text/plain;charset=utf-8;base64," + base64.b64encode("ü".encode()).decode()},
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "ü"}},
        ),
        (text("a", cache_control={"type": "ephemeral"}), text("a", cache_control={"type": "ephemeral"})),
        ({"type": "refusal", "refusal": "no"}, text("no")),
    ],
)
def test_parts_become_their_counterparts(part: Any, block: Any) -> None:
    """Images, files, refusals and cache marks, in messages and in results."""
    assert said(user([text("x"), part])) == [("user", [text("x"), block])]
    assert said(user("a"), assistant(None, call("1")), result("1", [text("x"), part]))[2][1][0]["content"] == [text("x"), block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "x"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "file", "file": {"file_data": 3}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,***"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": 3}},
        {"type": "image_url", "image_url": "data:image/png,raw"},
        {"type": []},
        3,
        None,
        [],
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(part: Any) -> None:
    """The 400 names the part's place."""
    assert (refused(user([text("x"), part])).param or "").startswith("messages[0].content[1]")


def test_what_does_not_change_the_answer_is_ignored_with_notice() -> None:
    """Names, details, reasoning without signature, annotations: each is told."""
    converted = convert(
        {**user([{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]), "name": "ann"},
        assistant("a", reasoning_content="hmm", annotations=[{"x": 1}]),
        user([text("b", prompt_cache_breakpoint={"mode": "explicit"})]),
        response_format={"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": SCHEMA}},
        user="u1",
        safety_identifier="u2",
    )
    assert set(converted.ignored) == {
        "messages[].name",
        "messages[].content[].image_url.detail",
        "messages[].reasoning_content",
        "messages[].annotations",
        "messages[].content[].prompt_cache_breakpoint",
        "response_format.json_schema.description",
        "user",
    }
    assert converted.params["metadata"] == {"user_id": "u2"}


def test_system_prompts_and_audio_that_cannot_cross_are_refused() -> None:
    """Images in a system prompt, the id of an audio answer."""
    image = {"type": "image_url", "image_url": {"url": PNG}}
    assert refused({"role": "system", "content": [image]}, user("a")).param == "messages[0].content"
    assert refused(user("a"), assistant("x", audio={"id": "1"})).param == "messages[1].audio"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
@pytest.mark.parametrize("parallel", [True, False])
def test_tool_choices(choice: Any, expected: Any, parallel: bool) -> None:
    """Each choice, with and without the ban on parallel calls."""
    banned = {} if parallel or choice == "none" else {"disable_parallel_tool_use": True}
    params = convert(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel).params
    assert params["tool_choice"] == {**expected, **banned}


def test_allowed_tools_are_the_only_ones_offered() -> None:
    """OpenAI's `allowed_tools` narrows the list; its mode is the choice."""
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]},
    }
    params = convert(tools=[TOOL, OTHER], tool_choice=allowed).params
    assert [tool["name"] for tool in params["tools"]] == ["g"]
    assert params["tool_choice"] == {"type": "any"}


def test_a_choice_without_tools_is_left_out_where_it_says_nothing() -> None:
    """`none` and `auto` without tools say nothing; `required` cannot be met."""
    assert convert(tools=[], tool_choice="none", parallel_tool_calls=False).params.keys() == {"model", "max_tokens", "messages"}
    assert refused(tool_choice="required").param == "tool_choice"
    assert refused(tools=[TOOL], tool_choice="some").param == "tool_choice"
    assert refused(tools=[TOOL], tool_choice={"type": "custom", "custom": {"name": "f"}}).param == "tool_choice"


def test_tools_that_the_history_used_are_defined() -> None:
    """The API wants a definition for every call in the history; without tools of the client none may be called."""
    params = convert(
        user("a"), assistant(None, call("1"), call("2", "g"), call("3")), result("1"), result("2"), result("3")
    ).params
    assert [tool["name"] for tool in params["tools"]] == ["f", "g"]
    assert params["tool_choice"] == {"type": "none"}


def test_strictness_and_schemas_of_tools() -> None:
    """`strict` is kept, a schema without a type gets the one that the API requires."""
    function = {"name": "f", "strict": True, "parameters": {"properties": {}}}
    (tool,) = convert(tools=[{"type": "function", "function": function}]).params["tools"]
    assert tool == {"name": "f", "strict": True, "input_schema": {"type": "object", "properties": {}}}


def test_the_limit_of_tokens() -> None:
    """The client's, the smaller of two, or the default."""
    assert convert().params["max_tokens"] == DEFAULT_MAX_TOKENS
    assert convert(options={"default_max_tokens": 50}).params["max_tokens"] == 50
    assert convert(max_tokens=9, max_completion_tokens=7).params["max_tokens"] == 7


@pytest.mark.parametrize(
    ("effort", "budget"), [("minimal", 1024), ("low", 1024), ("medium", 2048), ("high", 4096), ("xhigh", 8192), ("max", 16000)]
)
def test_effort_becomes_a_budget(effort: str, budget: int) -> None:
    """The documented budgets, never more than half of the limit."""
    converted = convert(reasoning_effort=effort)
    assert converted.params["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert converted.ignored == ()
    assert convert(reasoning_effort=effort, max_tokens=2100).params["thinking"]["budget_tokens"] <= 1050


def test_effort_for_models_that_think_adaptively() -> None:
    """An effort and no budget, beside an output format."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    params = convert(reasoning_effort="minimal", response_format=form, options={"adaptive_thinking": True}).params
    assert params["thinking"] == {"type": "adaptive"}
    assert params["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([user("a"), assistant(None, call("1")), result("1")], {"tools": [TOOL]}),
        ([user("a"), assistant("x", call("1")), result("1"), assistant("y"), user("b")], {"tools": [TOOL]}),
        ([user("a")], {"tools": [TOOL], "tool_choice": "required"}),
        ([user("a")], {"max_tokens": 1500}),
    ],
)
def test_thinking_that_the_api_would_refuse_is_off_with_notice(messages: Any, fields: Any) -> None:
    """Calls without signed thinking, a forced call, no room: the request goes on without thinking, and says so."""
    converted = convert(*messages, reasoning_effort="low", **fields)
    assert "thinking" not in converted.params
    assert converted.ignored == ("reasoning_effort",)


def test_signed_thinking_of_the_history_keeps_thinking_on() -> None:
    """A client that returns `thinking_blocks` gets them through, first in their message; unsigned ones are left out."""
    signed = {"type": "thinking", "thinking": "hmm", "signature": "s"}
    redacted = {"type": "redacted_thinking", "data": "d"}
    blocks = [signed, redacted, {"type": "thinking", "thinking": "unsigned"}, 3]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    converted = convert(
        user("a"),
        assistant("x", call("1"), thinking_blocks=blocks),
        result("1"),
        tools=[TOOL],
        thinking=thinking,
        max_tokens=5000,
    )
    assert converted.params["thinking"] == thinking
    assert [block["type"] for block in converted.params["messages"][1]["content"]] == [
        "thinking",
        "redacted_thinking",
        "text",
        "tool_use",
    ]
    assert converted.ignored == ("messages[].thinking_blocks",)


def test_thinking_given_by_the_client_is_passed_as_it_is() -> None:
    """Adaptive and disabled need no signatures; a budget's size is the provider's to judge."""
    loop = [user("a"), assistant(None, call("1")), result("1")]
    for thinking in ({"type": "adaptive"}, {"type": "disabled"}):
        assert convert(*loop, thinking=thinking, tools=[TOOL]).params["thinking"] == thinking
    assert convert(*loop, thinking={"type": "enabled", "budget_tokens": 2000}, tools=[TOOL]).ignored == ("thinking",)
    assert convert(thinking={"type": "enabled", "budget_tokens": 5}).params["thinking"]["budget_tokens"] == 5


def test_settings_without_a_counterpart_inside_of_one_that_has_are_refused() -> None:
    """JSON mode without a schema, an effort that nobody knows."""
    assert refused(response_format={"type": "json_object"}).param == "response_format"
    assert refused(response_format={"type": "json_schema", "json_schema": {"name": "x"}}).param == "response_format.json_schema"
    assert refused(reasoning_effort="heroic").param == "reasoning_effort"


# --- round trips -----------------------------------------------------------------------------------------------------------


def test_a_history_dumped_by_the_openai_sdk_converts_and_comes_back() -> None:
    """What openai-python dumps of an answer, nulls and all, is the same conversation after both conversions."""
    answer = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": "see", "tool_calls": [call("c1", "f", '{"x":1}')]}
    )
    history = [
        user("q"),
        answer.model_dump(),
        result("c1", "one"),
        {**ChatCompletionMessage(role="assistant", content="a").model_dump()},
    ]
    raw = json.dumps({"model": "m", "max_tokens": 9, "messages": [*history, user("b")], "tools": [TOOL]}).encode()
    there = to_anthropic(openai_request.parse(raw, limits=Limits()))
    assert (check_history("anthropic", there.params), there.ignored) == (None, ())
    back = to_openai(ChatRequest(wire="anthropic", body=there.params)).params
    assert check_history("openai", back) is None
    assert back["tools"] == [TOOL]
    assert back["messages"] == [
        user("q"),
        {"role": "assistant", "content": "see", "tool_calls": [call("c1", "f", '{"x":1}')]},
        result("c1", "one"),
        {"role": "assistant", "content": "a"},
        user("b"),
    ]


def test_a_history_dumped_by_the_anthropic_sdk_converts_and_comes_back() -> None:
    """What anthropic-python dumps of an answer is the same conversation after both conversions, save its thinking."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
        "content": [
            {"type": "thinking", "thinking": "hmm", "signature": "s"},
            text("see"),
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}},
        ],
    }
    dumped = [block.model_dump() for block in Message.model_validate(message).content]
    tool_result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "one"}
    tools = [{"name": "f", "description": "d", "input_schema": SCHEMA}]
    history = [user("q"), {"role": "assistant", "content": dumped}, user([tool_result, text("and?")])]
    raw = json.dumps({"model": "m", "max_tokens": 9, "messages": history, "tools": tools}).encode()
    there = to_openai(anthropic_request.parse(raw, limits=Limits()))
    assert check_history("openai", there.params) is None
    assert there.ignored == ("messages[].content[].thinking",)
    back = to_anthropic(ChatRequest(wire="openai", body=there.params)).params
    assert check_history("anthropic", back) is None
    assert back["tools"] == tools
    assert back["messages"] == [
        {"role": "user", "content": [text("q")]},
        {"role": "assistant", "content": [text("see"), {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [tool_result, text("and?")]},
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", " ", "text", "auto", "low", "{"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "function", "name", "tools", "url"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "refusal", "input_audio", "other"])},
    optional=dict.fromkeys(("text", "image_url", "file", "refusal", "cache_control"), JSON),
)
CALL = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b", "", "x.y"])},
    optional={
        "function": st.fixed_dictionaries({"name": st.just("f"), "arguments": st.sampled_from(["", "{}", "{", "[]"])}),
        "custom": JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer", "tool", "function"])},
    optional={
        "content": st.lists(PART, max_size=3) | JSON,
        "tool_calls": st.lists(CALL, max_size=3) | JSON,
        "function_call": JSON,
        "tool_call_id": st.sampled_from(["a", "b", "", "x.y"]),
        "thinking_blocks": JSON,
        "refusal": JSON,
        "name": JSON,
        "audio": JSON,
        "reasoning_content": JSON,
    },
)


@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=4),
    fields=st.dictionaries(
        st.sampled_from(
            ["tools", "functions", "tool_choice", "function_call", "response_format", "stop", "thinking", "reasoning_effort"]
        ),
        JSON,
    ),
)
def test_whatever_the_parser_lets_in_converts_or_is_a_400(messages: Any, fields: Any) -> None:
    """No body makes the server fail; what converts alternates in roles and holds no blank text."""
    raw = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    try:
        params = to_anthropic(openai_request.parse(raw, limits=Limits())).params
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 - one of two outcomes
        return
    roles = [message["role"] for message in params["messages"]]
    assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
    assert all(block["text"].strip() for message in params["messages"] for block in message["content"] if block["type"] == "text")
