"""What a policy sees of a request, and what an edit changes: the one place, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luthien_asgi import jsontext
from luthien_asgi.request import ChatRequest, RequestBlock

OPENAI: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "name": "ann",
            "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "reasoning_content": "hmm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "free"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "done", "function_call": {"name": "h", "arguments": "{}"}},
    ],
}
ANTHROPIC: dict[str, Any] = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "be brief"}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "image", "source": {"type": "url", "url": "u"}},
                {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hmm", "signature": "s"},
                {"type": "redacted_thinking", "data": "r"},
                {"type": "text", "text": "let me"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "secret"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": [{"type": "text", "text": "one"}]},
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "system", "content": "mid"},
    ],
}


def openai(**fields: Any) -> ChatRequest:
    return ChatRequest(wire="openai", body={**OPENAI, **fields})


def anthropic(**fields: Any) -> ChatRequest:
    return ChatRequest(wire="anthropic", body={**ANTHROPIC, **fields})


def shown(request: ChatRequest) -> list[tuple[str, str, str]]:
    return [(block.role, block.kind, block.text) for block in request.blocks()]


def the_block(request: ChatRequest, text: str) -> RequestBlock:
    (found,) = [block for block in request.blocks() if block.text == text]
    return found


def at(body: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


def test_openai_blocks_are_all_of_the_conversation_in_order() -> None:
    """Every part of an OpenAI conversation is one block, with its role in common words."""
    assert shown(openai()) == [
        ("system", "text", "be brief"),
        ("user", "text", "hi"),
        ("user", "image", ""),
        ("user", "other", "ann"),
        ("assistant", "thinking", "hmm"),
        ("assistant", "refusal", "no"),
        ("assistant", "tool_call", '{"x":1}'),
        ("assistant", "tool_call", "free"),
        ("tool", "tool_result", "one"),
        ("tool", "tool_result", "two"),
        ("assistant", "text", "done"),
        ("assistant", "tool_call", "{}"),
    ]


def test_anthropic_blocks_are_all_of_the_conversation_in_order() -> None:
    """Every part of an Anthropic conversation is one block; a server tool is `other` with its raw form."""
    server = jsontext.dumps(ANTHROPIC["messages"][1]["content"][4]).decode()
    assert shown(anthropic()) == [
        ("system", "text", "be brief"),
        ("user", "text", "hi"),
        ("user", "image", ""),
        ("user", "document", "T"),
        ("user", "document", "doc"),
        ("assistant", "thinking", "hmm"),
        ("assistant", "redacted_thinking", "r"),
        ("assistant", "text", "let me"),
        ("assistant", "tool_call", '{"x":1}'),
        ("assistant", "other", server),
        ("tool", "tool_result", "one"),
        ("user", "text", "go on"),
        ("system", "text", "mid"),
    ]


@pytest.mark.parametrize(("request_", "call"), [(openai(), "c1"), (anthropic(), "t1")])
def test_a_tool_result_names_the_tool_that_was_called(request_: ChatRequest, call: str) -> None:
    """Call and result carry the same id and name in both formats."""
    named = [(block.kind, block.name) for block in request_.blocks() if block.id == call]
    assert named == [("tool_call", "f"), ("tool_result", "f")]


def test_is_error_is_seen() -> None:
    """A failed tool's result says so."""
    assert the_block(anthropic(), "one").is_error
    assert not the_block(openai(), "one").is_error


@pytest.mark.parametrize("request_", [openai(), anthropic()])
def test_every_path_leads_to_the_text(request_: ChatRequest) -> None:
    """A block's path is where its text is in the body (as JSON where the body has no string there)."""
    for block in request_.blocks():
        if block.kind != "image":
            value = at(request_.body, block.path)
            assert block.text == (value if isinstance(value, str) else jsontext.dumps(value).decode())


@pytest.mark.parametrize("request_", [openai(), anthropic()])
def test_an_edit_changes_its_place_and_nothing_else(request_: ChatRequest) -> None:
    """Each editable string is replaced alone; the rest of the body is equal, and the original untouched."""
    before = copy.deepcopy(request_.body)
    edited = 0
    for block in request_.blocks():
        if block.kind in {"text", "tool_result", "refusal"} or (block.kind == "document"):
            after = request_.with_text(block, "NEW")
            expected: Any = copy.deepcopy(before)
            at(expected, block.path[:-1])[block.path[-1]] = "NEW"
            assert after.body == expected
            assert request_.body == before
            edited += 1
    assert edited >= 5


def test_what_an_edit_does_not_touch_is_shared() -> None:
    """An edit copies the path it touches and no more."""
    request = anthropic()
    after = request.with_text(the_block(request, "go on"), "NEW")
    assert after.body["messages"][0] is request.body["messages"][0]
    assert after.body["messages"][2]["content"][0] is request.body["messages"][2]["content"][0]
    assert after.body["messages"][2] is not request.body["messages"][2]


def test_several_edits_are_made_in_one_go() -> None:
    """`with_texts` gives what one edit after the other gives."""
    request = openai()
    edits = [(block, block.text.upper()) for block in request.blocks() if block.kind == "text"]
    one_by_one = request
    for block, text in edits:
        one_by_one = one_by_one.with_text(block, text)
    assert request.with_texts(edits).body == one_by_one.body
    assert request.body == OPENAI


def test_arguments_of_either_format_are_edited_as_json_text() -> None:
    """A tool call's text is JSON: put back parsed where the format has an object, as it is where it has a string."""
    request = anthropic()
    after = request.with_text(the_block(request, '{"x":1}'), '{"y": 2}')
    assert after.body["messages"][1]["content"][3]["input"] == {"y": 2}
    request = openai()
    after = request.with_text(the_block(request, '{"x":1}'), '{"y": 2}')
    assert after.body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"y": 2}'


@pytest.mark.parametrize("text", ["{not json", "[1]", '"text"', "3"])
def test_arguments_that_are_no_object_are_refused_in_the_anthropic_format(text: str) -> None:
    """An edit cannot make a body that the provider would refuse."""
    request = anthropic()
    with pytest.raises(ValueError, match=r"."):
        request.with_text(the_block(request, '{"x":1}'), text)


@pytest.mark.parametrize("request_", [openai(), anthropic()])
def test_thinking_cannot_be_edited(request_: ChatRequest) -> None:
    """Editing thinking raises: its signature would no longer fit."""
    thinking = [block for block in request_.blocks() if "thinking" in block.kind]
    assert thinking
    for block in thinking:
        with pytest.raises(ValueError, match="thinking"):
            request_.with_text(block, "NEW")


def test_what_has_no_text_cannot_be_edited() -> None:
    """An image has no text, and a block of another request has no place."""
    request = anthropic()
    (image,) = [block for block in request.blocks() if block.kind == "image"]
    with pytest.raises(ValueError, match="no text"):
        request.with_text(image, "NEW")
    with pytest.raises(ValueError, match="not in this request"):
        request.with_text(RequestBlock(role="user", kind="text", path=("messages", 99, "content")), "NEW")


def test_a_result_without_content_can_be_given_one() -> None:
    """A tool that said nothing is a block too, and editable."""
    request = anthropic(messages=[{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}])
    (block,) = request.blocks()[1:]
    assert (block.kind, block.text, block.id) == ("tool_result", "", "t")
    assert request.with_text(block, "x").body["messages"][0]["content"][0]["content"] == "x"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "of the future", "blob": {"deep": "canary"}}]}]},
        {"messages": [{"role": "user", "content": "", "field_of_the_future": ["canary"]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": ["canary"]}]}]},
        {"messages": [{"role": "assistant", "content": [["canary"]]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "canary": {}}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": "canary"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": "canary"}}}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "web_search_tool_result", "content": [{"title": "canary"}]}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "", "citations": [{"cited_text": "canary"}]}]}]},
        {"messages": [{"role": "user", "content": [{"type": "search_result", "title": "canary", "source": "", "content": []}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": "canary"}}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "compaction", "content": "canary"}]}]},
        {"messages": [{"role": "assistant", "reasoning_details": [{"text": "canary"}]}]},
        {"messages": [{"role": "function", "name": "f", "content": "canary"}]},
        {"messages": [], "prediction": {"type": "content", "content": [{"type": "text", "text": "canary"}]}},
        {"messages": [], "system": "canary"},
    ],
)
def test_text_hides_nowhere(body: dict[str, Any]) -> None:
    """Malformed parts, types and fields of the future: what they hold is in some block's text."""
    for wire in ("openai", "anthropic"):
        request = ChatRequest(wire=wire, body={"model": "m", **body})  # type: ignore[arg-type]
        assert any("canary" in block.text for block in request.blocks())


@pytest.mark.parametrize("junk", [None, 3, True, "x", [], {}, [None], [3], [[]], {"type": 3}, [{"type": None}], [{"type": []}]])
def test_reading_malformed_bodies_does_not_raise(junk: Any) -> None:
    """A body that no parser let in may still be made by a policy: reading it never raises."""
    for field in ("content", "tool_calls", "function_call", "thinking_blocks", "name", "refusal", "role", "tool_call_id"):
        body = {"messages": [{"role": "assistant", field: junk}], "tools": junk, "functions": junk, "system": junk}
        request = ChatRequest(wire="openai", body=body)
        request.blocks()
        request.tools()
    ChatRequest(wire="openai", body={"messages": junk, "prediction": junk}).blocks()


def test_lone_surrogates_survive_an_edit() -> None:
    """Half an emoji is text like any other."""
    request = anthropic(messages=[{"role": "user", "content": "a\ud83d"}])
    block = the_block(request, "a\ud83d")
    assert request.with_text(block, "b\ud83d").body["messages"][0]["content"] == "b\ud83d"


def test_tools_of_either_format_are_read_alike() -> None:
    """Name, description, schema and type of a tool are the same words in both formats."""
    schema = {"type": "object"}
    function = {"name": "f", "description": "d", "parameters": schema}
    tools = [{"type": "function", "function": function}, {"type": "custom", "custom": {"name": "g"}}]
    read = openai(tools=tools, functions=[function]).tools()
    assert [(tool.name, tool.description, tool.type, tool.parameters) for tool in read] == [
        ("f", "d", "function", schema),
        ("g", "", "custom", {}),
        ("f", "d", "function", schema),
    ]
    tools = [{"name": "f", "description": "d", "input_schema": schema}, {"type": "web_search_20250305", "name": "web_search"}]
    read = anthropic(tools=tools).tools()
    assert [(tool.name, tool.description, tool.type, tool.parameters) for tool in read] == [
        ("f", "d", "function", schema),
        ("web_search", "", "web_search_20250305", {}),
    ]
    assert all(at({"tools": tools}, tool.path)["name"] == tool.name for tool in read)


def test_fields_are_set_and_removed_on_a_copy() -> None:
    """Editing a field leaves the original as it was."""
    request = openai(temperature=1)
    assert request.with_field("temperature", 0).body["temperature"] == 0
    assert "temperature" not in request.without_field("temperature").body
    assert request.without_field("not there").body == request.body
    assert request.with_model("other").model == "other"
    assert request.body == {**OPENAI, "temperature": 1}


def test_properties_say_what_was_asked_for() -> None:
    """The view's properties, with their values for a request that says nothing."""
    bare = openai()
    assert (bare.model, bare.stream, bare.choices, bare.include_usage, bare.max_tokens, bare.has_tools) == (
        "m",
        False,
        1,
        False,
        None,
        False,
    )
    asked = openai(stream=True, n=3, stream_options={"include_usage": True}, max_tokens=9, max_completion_tokens=7, tools=[{}])
    assert (asked.stream, asked.choices, asked.include_usage, asked.max_tokens, asked.has_tools) == (True, 3, True, 7, True)
    assert anthropic().include_usage
    assert anthropic().max_tokens == 5
    assert openai(stream=None, n=None, max_tokens=None, stream_options=None).choices == 1
    assert openai(functions=[{}]).has_tools
