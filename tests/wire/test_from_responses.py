"""Responses requests as chat completions, and on to the Messages API: what becomes of items, tools and choices."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.errors import RequestError
from luthien_asgi.reasoning_items import CarriedThinking, encode
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.from_responses import from_responses
from luthien_asgi.wire.to_anthropic import to_anthropic
from luthien_asgi.wire.to_openai import to_openai

SCHEMA = {"type": "object", "properties": {}}
USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"x":1}', "status": "completed"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "one"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": 'say "hi"'}
CUSTOM_OUTPUT = {"type": "custom_tool_call_output", "call_id": "c2", "output": "two"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
SIGNED = encode(CarriedThinking(kind="thinking", text="hmm", signature="sig"))
REDACTED = encode(CarriedThinking(kind="redacted_thinking", signature="data"))
TOOLS = [
    {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": False},
    {"type": "custom", "name": "g", "description": "free", "format": {"type": "grammar", "syntax": "lark", "definition": "x: y"}},
]


def request(items: Any = "hi", **fields: Any) -> ChatRequest:
    return ChatRequest(wire="responses", body={"model": "m", "input": items, **fields})


def message(*content: Any, role: str = "assistant") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content)}


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def reasoning(sealed: str | None, *summary: str) -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": "rs_1", "summary": parts, "encrypted_content": sealed}


def chat(items: Any, **options: Any) -> list[dict[str, Any]]:
    return list(from_responses(request(items), **options).converted.params["messages"])


def function(call: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_turn_with_reasoning_text_and_calls_is_one_message() -> None:
    """Reasoning that nobody signed is left out with notice; the calls are those of the message before them."""
    items = [USER, reasoning("foreign", "hm"), message(said("let me")), CALL, CUSTOM, OUTPUT, CUSTOM_OUTPUT, USER]
    converted = to_openai(request(items, instructions="be brief"))
    assert converted.params["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "let me",
            "tool_calls": [
                function("c1", "f", '{"x":1}'),
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": 'say "hi"'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "user", "content": "hi"},
    ]
    assert converted.ignored == ("input[].reasoning",)


def test_messages_without_calls_stay_apart_and_text_after_a_call_joins_it() -> None:
    """Results follow their calls at once, in every order of the items."""
    assert [m["content"] for m in chat([message(said("a")), message(said("b")), USER])] == ["a", "b", "hi"]
    assert chat([CALL, message(said("after")), OUTPUT]) == [
        {"role": "assistant", "content": "after", "tool_calls": [function("c1", "f", '{"x":1}')]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
    ]


def test_parts_of_every_kind() -> None:
    """Texts, refusals, images and files; a text alone is a string, which every server understands."""
    file = {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}
    items = [
        message({"type": "input_text", "text": "be kind"}, role="developer"),
        message({"type": "input_text", "text": "look"}, IMAGE, file, {"type": "input_file", "file_id": "file_1"}, role="user"),
        message({"type": "refusal", "refusal": "no"}),
    ]
    assert chat(items) == [
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_id": "file_1"}},
            ],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]


def test_a_long_id_of_a_call_is_quoted_in_part() -> None:
    """It is the user's text to the model."""
    items = [{**CALL, "call_id": "c" * 101}, {**OUTPUT, "call_id": "c" * 101, "output": [IMAGE]}]
    assert chat(items)[2]["content"][0]["text"] == f"Attached to the result of tool call {'c' * 100}:"


def test_images_of_a_result_come_in_the_next_user_message() -> None:
    """A tool message of chat completions holds text only; the Messages API takes images where they are."""
    items = [CALL, {**OUTPUT, "output": [IMAGE]}, USER]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    assert chat(items)[1:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "(attached to the next message)"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Attached to the result of tool call c1:"},
                image,
                {"type": "text", "text": "hi"},
            ],
        },
    ]
    result = to_anthropic(request(items)).params["messages"][2]["content"][0]
    assert result["content"] == [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]


def test_attachments_of_the_last_result_are_not_lost() -> None:
    """Results may be the last items, and there may be several."""
    assert [m["role"] for m in chat([CALL, {**OUTPUT, "output": [IMAGE]}])] == ["assistant", "tool", "user"]
    both = chat([CALL, CUSTOM, {**OUTPUT, "output": [IMAGE]}, {**CUSTOM_OUTPUT, "output": [IMAGE]}, message(said("x"))])
    assert [m["role"] for m in both] == ["assistant", "tool", "tool", "user", "assistant"]
    assert len(both[3]["content"]) == 4


def test_thinking_that_a_provider_signed_goes_back_to_it() -> None:
    """Text, signature and redacted data reach the Messages API bit by bit, in their order, before the call."""
    items = [USER, reasoning(SIGNED, "another summary"), reasoning(REDACTED), message(said("so")), CALL, OUTPUT]
    converted = to_anthropic(request(items, reasoning={"effort": "high"}, tools=TOOLS[:1]))
    assert converted.params["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hmm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "data"},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
    ]
    assert converted.params["thinking"] == {"type": "enabled", "budget_tokens": 4096}
    assert converted.ignored == ()


def test_thinking_between_texts_stays_where_it_was() -> None:
    """The Messages API refuses a turn whose thinking was moved."""
    second = encode(CarriedThinking(kind="thinking", text="again", signature="sig2"))
    items = [USER, reasoning(SIGNED), message(said("a")), reasoning(second), CALL, OUTPUT]
    content = to_anthropic(request(items)).params["messages"][1]["content"]
    assert [block["type"] for block in content] == ["thinking", "text", "thinking", "tool_use"]


@pytest.mark.parametrize("sealed", ["gAAAA_foreign", "luthien.v1.broken", None])
def test_reasoning_of_others_is_left_out_with_notice_and_thinking_is_turned_off(sealed: str | None) -> None:
    """What is not ours is never sent on; without signed thinking a tool turn cannot go on thinking."""
    converted = to_anthropic(request([USER, reasoning(sealed, "hm"), CALL, OUTPUT], reasoning={"effort": "high"}))
    assert [block["type"] for block in converted.params["messages"][1]["content"]] == ["tool_use"]
    assert "thinking" not in converted.params
    assert converted.ignored == ("input[].reasoning", "reasoning.effort")


def test_reasoning_that_nothing_follows_is_left_out() -> None:
    """A turn of reasoning alone answers nothing."""
    converted = to_anthropic(request([USER, reasoning(SIGNED)]))
    assert [m["role"] for m in converted.params["messages"]] == ["user"]
    assert converted.ignored == ("input[].reasoning",)
    with pytest.raises(RequestError, match="input"):
        to_openai(request([reasoning(SIGNED)]))


def test_tools_of_every_kind() -> None:
    """Functions, custom tools with their grammar, and those of a namespace under one name."""
    inner = {"type": "function", "name": "stop", "description": "Stops.", "parameters": SCHEMA}
    space = {"type": "namespace", "name": "agents", "description": "Other agents.", "tools": [inner]}
    converted = to_openai(request(tools=[*TOOLS, space, {"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True))
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x: y"}}
    assert converted.params["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False}},
        {"type": "custom", "custom": {"name": "g", "description": "free", "format": grammar}},
        {
            "type": "function",
            "function": {"name": "agents__stop", "description": "Other agents.\n\nStops.", "parameters": SCHEMA},
        },
    ]
    assert converted.params["tool_choice"] == "auto"
    assert "parallel_tool_calls" not in converted.params
    assert converted.ignored == ("tools[].web_search",)


def test_the_description_of_a_namespace_is_said_once() -> None:
    """A long one would be a body of any size if each of its tools had it."""
    inner = [{"type": "function", "name": name} for name in ("f", "g", "h")]
    converted = to_openai(request(tools=[{"type": "namespace", "name": "n", "description": "Others.", "tools": inner}]))
    assert [tool["function"] for tool in converted.params["tools"]] == [
        {"name": "n__f", "description": "Others."},
        {"name": "n__g"},
        {"name": "n__h"},
    ]


def space(name: str, inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": [inner]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].name"),
        ({"tools": [TOOLS[0], {"type": "custom", "name": "f"}]}, "tools[1].name"),
        (
            {"tools": [space("a", {**TOOLS[0], "name": "b__c"}), space("a__b", {"type": "custom", "name": "c"})]},
            "tools[1].tools[0].name",
        ),
        ({"tools": [space("a", {**TOOLS[0], "name": "b__c"}), {**TOOLS[0], "name": "a__b__c"}]}, "tools[1].name"),
        ({"tools": TOOLS, "items": [{"type": "additional_tools", "tools": [TOOLS[1]]}, USER]}, "input[0].tools[0].name"),
    ],
)
def test_two_tools_of_one_name_are_refused(fields: Any, param: str) -> None:
    """A call of that name would be run as either; names of a namespace count as the model knows them."""
    for convert in (to_openai, to_anthropic):
        with pytest.raises(RequestError) as caught:
            convert(request(**fields))
        assert (caught.value.status, caught.value.param) == (400, param)


def test_a_search_for_tools_that_the_client_runs_is_left_out() -> None:
    """Codex offers one beside its tools; a search that OpenAI runs is refused, for tools are missing without it."""
    search = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": SCHEMA}
    for convert in (to_openai, to_anthropic):
        converted = convert(request(tools=[TOOLS[0], search]))
        assert len(converted.params["tools"]) == 1
        assert converted.ignored == ("tools[].tool_search",)
        with pytest.raises(RequestError, match=r"tools\[1\]"):
            convert(request(tools=[TOOLS[0], {**search, "execution": "server"}]))


def test_a_custom_tool_is_a_function_where_there_are_none() -> None:
    """Definition, choice and history agree; the grammar is in the description, with notice."""
    free = request([USER, CUSTOM, CUSTOM_OUTPUT], tools=TOOLS[1:], tool_choice={"type": "custom", "name": "g"})
    chat_form = to_openai(free, custom_tools=False)
    arguments = {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": False,
    }
    about = "free\n\nThe input follows this lark grammar:\nx: y"
    assert chat_form.params["tools"] == [
        {"type": "function", "function": {"name": "g", "description": about, "parameters": arguments}}
    ]
    assert chat_form.params["tool_choice"] == {"type": "function", "function": {"name": "g"}}
    assert chat_form.params["messages"][1]["tool_calls"] == [function("c2", "g", '{"input":"say \\"hi\\""}')]
    assert chat_form.ignored == ("tools[].format",)
    anthropic = to_anthropic(free)
    assert anthropic.params["tools"] == [{"name": "g", "description": about, "input_schema": arguments}]
    assert anthropic.params["tool_choice"] == {"type": "tool", "name": "g"}
    assert anthropic.params["messages"][1]["content"][0]["input"] == {"input": 'say "hi"'}
    assert anthropic.ignored == ("tools[].format",)


@pytest.mark.parametrize(
    ("choice", "openai", "anthropic"),
    [
        ("none", "none", {"type": "none"}),
        ("required", "required", {"type": "any"}),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "g"}, {"type": "web_search"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "g"}}]},
            },
            {"type": "any"},
        ),
    ],
)
def test_every_form_of_the_choice(choice: Any, openai: Any, anthropic: Any) -> None:
    """Modes, one tool by name, and the allowed ones."""
    asked = request(tools=TOOLS, tool_choice=choice)
    assert to_openai(asked).params["tool_choice"] == openai
    converted = to_anthropic(asked).params
    assert converted["tool_choice"] == anthropic
    assert [tool["name"] for tool in converted["tools"]] == (
        ["g"] if isinstance(choice, dict) and "mode" in choice else ["f", "g"]
    )


def test_without_tools_there_is_no_choice() -> None:
    """OpenAI refuses a choice and parallel calls without tools; one that is forced is refused here."""
    searching = {"tools": [{"type": "web_search"}], "parallel_tool_calls": False}
    params = to_openai(request(tool_choice="auto", **searching)).params
    assert not params.keys() & {"tools", "tool_choice", "parallel_tool_calls"}
    with pytest.raises(RequestError, match="tool_choice"):
        to_openai(request(tool_choice="required", **searching))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_label": "s", "server_url": "http://x"}]}, "tools[0]"),
        ({"tools": [{"type": "local_shell"}]}, "tools[0]"),
        ({"tools": [{**TOOLS[0], "allowed_callers": ["programmatic"]}]}, "tools[0].allowed_callers"),
        ({"tools": [{**TOOLS[1], "format": {"type": "grammar", "syntax": "ebnf", "definition": "x"}}]}, "tools[0].format"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}, "tool_choice"),
        ({"include": ["everything"]}, "include[0]"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"odd": 1}}, "reasoning.odd"),
        ({"text": {"odd": 1}}, "text.odd"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "odd": 1}}}, "text.format.odd"),
        ({"tools": [{**TOOLS[0], "odd": 1}]}, "tools[0].odd"),
        ({"tools": [{**TOOLS[1], "parameters": {}}]}, "tools[0].parameters"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{**TOOLS[0], "odd": 1}]}]}, "tools[0].tools[0].odd"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [], "odd": 1}]}, "tools[0].odd"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "f", "odd": 1}}, "tool_choice.odd"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [], "odd": 1}}, "tool_choice.odd"),
    ],
)
def test_what_has_no_words_there_is_refused_by_name(fields: Any, param: str) -> None:
    """Either backend gives the same 400."""
    for convert in (to_openai, to_anthropic):
        with pytest.raises(RequestError) as caught:
            convert(request(**fields))
        assert (caught.value.status, caught.value.param) == (400, param)
        assert caught.value.message.startswith(param)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "local_shell_call", "call_id": "c", "action": {}}, "input[1]"),
        ({"type": "compaction", "encrypted_content": "x"}, "input[1]"),
        ({"type": "item_of_the_future"}, "input[1]"),
        ({**CALL, "caller": {"type": "program", "caller_id": "x"}}, "input[1].caller"),
        (message({"type": "input_image", "file_id": "f"}, role="user"), "input[1].content[0]"),
        (message({"type": "input_file", "file_url": "http://x"}, role="user"), "input[1].content[0].file_url"),
        (message({"type": "input_video"}, role="user"), "input[1].content[0]"),
        ({**USER, "odd": 1}, "input[1].odd"),
        ({**OUTPUT, "odd": 1}, "input[1].odd"),
        (message({"type": "input_text", "text": "x", "odd": 1}, role="user"), "input[1].content[0].odd"),
    ],
)
def test_items_and_parts_that_have_no_words_there_are_refused_by_name(item: Any, param: str) -> None:
    """Never dropped in silence."""
    with pytest.raises(RequestError) as caught:
        to_openai(request([USER, item]))
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_deferred_tool_is_offered_at_once_with_notice() -> None:
    """There is no search here that would find it."""
    converted = to_openai(request([USER], tools=[{"type": "function", "name": "f", "defer_loading": True}]))
    assert [tool["function"]["name"] for tool in converted.params["tools"]] == ["f"]
    assert "tools[].defer_loading" in converted.ignored


def test_a_reference_to_reasoning_is_left_out_with_notice() -> None:
    """A client that does not say `store: false` refers to what it believes to be stored; the model does without."""
    converted = to_openai(request([USER, {"type": "item_reference", "id": "rs_1"}, CALL, OUTPUT]))
    assert [one["role"] for one in converted.params["messages"]] == ["user", "assistant", "tool"]
    assert "input[].reasoning" in converted.ignored


def test_verbosity_is_left_out_with_notice_where_there_is_none() -> None:
    """How many words an answer takes does not change what it means."""
    converted = to_anthropic(request(input="hi", text={"verbosity": "low"}))
    assert "text.verbosity" in converted.ignored
    assert "verbosity" not in converted.params


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"reasoning": {"effort": "boundless"}}, "reasoning.effort"),
        ({"input": [CALL, OUTPUT, message({"type": "input_text", "text": "x"}, {**IMAGE, "image_url": "ftp://x"}, role="user")]},
         "input[2].content[1]"),
        ({"input": [USER, {"type": "message", "role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
         "input[1].content[0]"),
        ({"input": [CALL, {**OUTPUT, "output": [{**IMAGE, "image_url": "x"}]}]}, "input[1].output[0]"),
        ({"input": [{"role": "system", "content": " "}]}, "input"),
    ],
)  # fmt: skip
def test_what_the_messages_api_refuses_is_named_in_the_clients_words(fields: Any, param: str) -> None:
    """The request goes through chat completions on its way, and no name of theirs is seen."""
    with pytest.raises(RequestError) as caught:
        to_anthropic(request(**{"input": "hi", **fields}) if "input" not in fields else request(fields["input"]))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message.startswith(param)


def test_what_servers_add_to_what_they_say_is_left_out_with_notice() -> None:
    """Clients send it back as it was; a null says nothing, and what the SDK parsed the text says already."""
    plain = [{**message({**said("a"), "parsed": {"x": 1}, "odd": None}), "phase": None}, {**CALL, "parsed_arguments": {}}, OUTPUT]
    assert to_openai(request(plain)).ignored == ()
    for item in ({**CALL, "odd": 1}, message({**said("a"), "odd": 1}), {**message(said("a")), "odd": 1}):
        assert to_openai(request([item])).ignored == ("input[].*",)


def test_settings_become_those_of_either_backend() -> None:
    """Schema, effort, limit and user in each format's own words."""
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": "d"}
    asked = request(
        text={"format": form, "verbosity": "medium"},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=3000,
        top_logprobs=None,
        safety_identifier="who",
        stream=True,
    )
    inner = {"name": "n", "description": "d", "schema": SCHEMA, "strict": True}
    converted = to_openai(asked)
    assert converted.params == {
        "model": "m",
        "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": inner},
        "verbosity": "medium",
        "reasoning_effort": "low",
        "max_completion_tokens": 3000,
        "safety_identifier": "who",
        "stream": True,
    }
    assert converted.droppable == {"reasoning_effort": "reasoning.effort"}
    anthropic = to_anthropic(asked)
    assert anthropic.params["max_tokens"] == 3000
    assert anthropic.params["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert anthropic.params["metadata"] == {"user_id": "who"}
    assert anthropic.ignored == ("text.format.description",)


def test_a_request_as_codex_sends_it_reaches_either_backend() -> None:
    """Its second turn: every field that it sends (0.169), with names and texts of our own."""
    spoken = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [said("Running.")]}
    function = {"type": "function", "name": "exec_command", "description": "Runs.", "strict": False, "parameters": SCHEMA}
    body = {
        "model": "m",
        "stream": True,
        "input": [
            {"type": "message", "id": "msg_0", **message({"type": "input_text", "text": "rules"}, role="developer")},
            {"type": "message", "id": "msg_2", **message({"type": "input_text", "text": "go"}, role="user")},
            {**reasoning(SIGNED, "hmm"), "content": []},
            spoken,
            {**CALL, "name": "exec_command"},
            {**OUTPUT, "id": "fco_1"},
        ],
        "tools": [
            function,
            {"type": "namespace", "name": "agents", "description": "Others.", "tools": [{**function, "name": "close"}]},
            {"type": "web_search", "external_web_access": True},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "thread",
        "client_metadata": {"thread_id": "thread"},
    }
    asked = ChatRequest(wire="responses", body=body)
    chat_form = to_openai(asked)
    assert [m["role"] for m in chat_form.params["messages"]] == ["system", "user", "assistant", "tool"]
    assert chat_form.ignored == ("client_metadata", "input[].reasoning", "tools[].web_search")
    anthropic = to_anthropic(asked)
    assert [block["type"] for block in anthropic.params["messages"][1]["content"]] == ["thinking", "text", "tool_use"]
    assert anthropic.params["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert anthropic.ignored == ("client_metadata", "tools[].web_search", "prompt_cache_key")


def test_tools_that_an_item_brings_are_offered_like_the_others() -> None:
    """Codex sends some of its tools so: in the conversation, a namespace and a free-text tool among them."""
    item = {
        "type": "additional_tools",
        "role": "developer",
        "tools": [
            {"type": "namespace", "name": "functions", "description": "d", "tools": [{"type": "function", "name": "wait"}]},
            {"type": "custom", "name": "exec", "format": {"type": "text"}},
        ],
    }
    asked = request([item, USER], tools=[{"type": "function", "name": "f"}])
    tools = to_openai(asked).params["tools"]
    assert [tool[tool["type"]]["name"] for tool in tools] == ["f", "functions__wait", "exec"]
    assert [(tool.name, tool.path) for tool in asked.tools()] == [
        ("f", ("tools", 0)),
        ("functions__wait", ("input", 0, "tools", 0, "tools", 0)),
        ("exec", ("input", 0, "tools", 1)),
    ]
    assert [block.text for block in asked.blocks()] == ["hi"]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([{"type": "code_interpreter"}], "input[0].tools[0]"),
        ([{"type": "namespace", "name": "n", "tools": [], "x": 1}], "input[0].tools[0].x"),
    ],
)
def test_tools_of_an_item_are_refused_by_their_own_name(tools: list[Any], param: str) -> None:
    """As those of the request are."""
    with pytest.raises(RequestError) as caught:
        to_openai(request([{"type": "additional_tools", "role": "developer", "tools": tools}, USER]))
    assert caught.value.param == param
