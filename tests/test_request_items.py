"""What a policy sees of a Responses request, and what an edit changes: the one place, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi import jsontext
from luthien_asgi.reasoning_items import CarriedThinking, encode
from luthien_asgi.request import ChatRequest, RequestBlock, api_of
from luthien_asgi.request_items import qualified_name
from luthien_asgi.settings import Limits
from luthien_asgi.wire import responses_request
from luthien_asgi.wire.from_responses import from_responses

SIGNED = encode(CarriedThinking(kind="thinking", text="hidden", signature="s"))
BODY: dict[str, Any] = {
    "model": "m",
    "instructions": "be brief",
    "input": [
        {"role": "developer", "content": "rules"},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "u"}, {"type": "input_file"}],
        },
        {
            "type": "reasoning",
            "id": "rs",
            "summary": [{"type": "summary_text", "text": "sum"}],
            "content": [{"type": "reasoning_text", "text": "raw"}],
            "encrypted_content": "opaque",
        },
        {
            "type": "message",
            "id": "msg",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "so", "annotations": [{"type": "url_citation", "title": "secret"}]},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "custom_tool_call", "call_id": "c2", "namespace": "n", "name": "g", "input": "free"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        {"type": "mcp_call", "arguments": "secret"},
    ],
}


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(wire="responses", body={**BODY, **fields})


def shown(blocks: list[RequestBlock]) -> list[tuple[str, str, str]]:
    return [(block.role, block.kind, block.text) for block in blocks]


def test_every_item_is_seen_in_order() -> None:
    """Instructions, texts, reasoning, calls, results, and what is not known as JSON."""
    assert shown(request().blocks()) == [
        ("system", "text", "be brief"),
        ("system", "text", "rules"),
        ("user", "text", "hi"),
        ("user", "image", ""),
        ("user", "document", ""),
        ("assistant", "thinking", "sum"),
        ("assistant", "thinking", "raw"),
        ("assistant", "redacted_thinking", "opaque"),
        ("assistant", "text", "so"),
        ("assistant", "other", '[{"type":"url_citation","title":"secret"}]'),
        ("assistant", "refusal", "no"),
        ("assistant", "tool_call", '{"x":1}'),
        ("assistant", "tool_call", "free"),
        ("tool", "tool_result", "one"),
        ("tool", "tool_result", "two"),
        ("assistant", "other", '{"type":"mcp_call","arguments":"secret"}'),
    ]


def test_calls_and_results_have_ids_and_names() -> None:
    """A result has the name of its call, and a name has its namespace."""
    named = [(block.id, block.name) for block in request().blocks() if block.kind in {"tool_call", "tool_result"}]
    assert named == [("c1", "f"), ("c2", "n__g"), ("c1", "f"), ("c2", "n__g")]


def test_an_input_that_is_a_string_is_one_block() -> None:
    """It is the user's."""
    assert shown(request(input="hello", instructions=None).blocks()) == [("user", "text", "hello")]


@pytest.mark.parametrize(
    ("summary", "seen"),
    [("hidden", [("thinking", "hidden")]), ("harmless", [("thinking", "harmless"), ("thinking", "hidden")])],
)
def test_the_text_that_goes_to_the_provider_is_seen_whatever_the_summary_says(summary: str, seen: Any) -> None:
    """Encrypted content of ours holds the thinking that is sent on; a client may write any summary beside it."""
    item = {"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}], "encrypted_content": SIGNED}
    assert [(block.kind, block.text) for block in request(input=[item], instructions=None).blocks()] == seen


def test_fields_that_are_not_known_are_seen() -> None:
    """Text that a policy could not see would pass it; names and states of items are no text."""
    items = [
        {"role": "user", "content": "hi", "odd": "secret", "id": "msg", "status": "completed", "phase": "commentary"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"odd": 1}},
        {"type": "reasoning", "encrypted_content": {"odd": 2}},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": 3}]},
        "secret",
        ["secret"],
        7,
    ]
    seen = [(block.kind, block.text) for block in request(input=items, instructions={"odd": 0}).blocks()]
    assert seen == [
        ("other", '{"odd":0}'),
        ("text", "hi"),
        ("other", "secret"),
        ("other", '{"odd":1}'),
        ("other", '{"odd":2}'),
        ("other", '{"type":"input_text","text":3}'),
        ("other", "secret"),
        ("other", '["secret"]'),
    ]


def test_tools_are_seen_one_by_one() -> None:
    """Those of a namespace by the name that the model calls them by; the first also has the description of all."""
    inner = {"type": "custom", "name": "h", "description": "inner"}
    tools = [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}},
        {"type": "namespace", "name": "n", "description": "outer", "tools": [inner, {"type": "function", "name": "k"}, 3]},
        {"type": "web_search"},
    ]
    found = request(tools=tools).tools()
    assert [(tool.type, tool.name, tool.description, tool.path) for tool in found] == [
        ("function", "f", "d", ("tools", 0)),
        ("custom", "n__h", "outer\n\ninner", ("tools", 1, "tools", 0)),
        ("function", "n__k", "", ("tools", 1, "tools", 1)),
        ("web_search", "web_search", "", ("tools", 2)),
    ]
    assert found[0].parameters == {"type": "object"}


def test_the_cut_of_a_long_name_leaves_the_tools_own_name_whole() -> None:
    """No API takes more than 64 characters, two namespaces never become one, and a rule for the tool's name holds."""
    long = "mcp__corp_server_with_a_long_name_for_namespacing_xx"
    assert qualified_name("delete_everything", long) == "mcp__corp_server_with_a_long_name_fo_0c4d004c__delete_everything"
    names = {qualified_name("delete_everything", long + end) for end in ("a", "b")}
    assert {len(name) for name in names} == {64}
    assert len(names) == 2
    assert qualified_name("f" * 53, long) == "_0c4d004c__" + "f" * 53
    assert qualified_name("f" * 54, long) == f"{long}__{'f' * 54}"
    assert qualified_name("f" * 61, "n") == "n__" + "f" * 61
    assert qualified_name("f" * 100) == "f" * 100


@pytest.mark.parametrize("kind", [{}, {"type": None}])
def test_an_item_without_a_type_is_a_message_where_it_has_a_role(kind: dict[str, Any]) -> None:
    """Null is as good as absent: what is checked and sent as a message is seen as one."""
    body = {"model": "m", "input": [{**kind, "role": "developer", "content": "hi"}]}
    parsed = responses_request.parse(jsontext.dumps(body), limits=Limits())
    assert shown(parsed.blocks()) == [("system", "text", "hi")]
    assert from_responses(parsed).converted.params["messages"] == [{"role": "system", "content": "hi"}]


EDITABLE = {"text", "refusal", "tool_call", "tool_result"}
PLACES = [place for place, block in enumerate(request().blocks()) if block.kind in EDITABLE]


def at(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


@given(st.dictionaries(st.sampled_from(PLACES), st.text(max_size=8), min_size=1))
def test_an_edit_changes_its_places_and_nothing_else(edits: dict[int, str]) -> None:
    """Whatever is edited: the new text is where the block was, the rest is the client's, and the original is untouched."""
    original, before = request(), copy.deepcopy(BODY)
    blocks = original.blocks()
    edited = original.with_texts([(blocks[place], text) for place, text in edits.items()])
    assert original.body == before
    expected = copy.deepcopy(before)
    for place, text in edits.items():
        holder = at(expected, blocks[place].path[:-1])
        holder[blocks[place].path[-1]] = text
    assert edited.body == expected
    seen = edited.blocks()
    assert all(seen[place].text == text for place, text in edits.items())


def test_a_string_input_and_instructions_can_be_edited() -> None:
    """The two places that are no items."""
    asked = request(input="hello")
    edited = asked.with_texts([(block, block.text.upper()) for block in asked.blocks()])
    assert (edited.body["instructions"], edited.body["input"]) == ("BE BRIEF", "HELLO")


def test_reasoning_and_images_cannot_be_edited() -> None:
    """A signature would no longer fit."""
    asked = request()
    for block in asked.blocks():
        if block.kind in {"thinking", "redacted_thinking", "image", "document"}:
            with pytest.raises(ValueError, match="input"):
                asked.with_text(block, "x")


def test_unknown_items_are_edited_as_json() -> None:
    """JSON of the same sort takes their place."""
    asked = request()
    edited = asked.with_text(asked.blocks()[-1], jsontext.dumps({"type": "mcp_call"}).decode())
    assert edited.body["input"][-1] == {"type": "mcp_call"}


def test_whose_api_a_format_belongs_to() -> None:
    """Credentials and headers of the Responses format are OpenAI's."""
    assert [api_of(wire) for wire in ("openai", "anthropic", "responses")] == ["openai", "anthropic", "openai"]
