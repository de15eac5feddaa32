"""Tool calls to a client of the Responses API: one after the other, as the client offered its tools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_asgi import jsontext
from luthien_asgi.backend.chunks import build
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import validate_stream
from luthien_asgi.wire.responses_encoder import ResponsesEncoder
from luthien_asgi.wire.responses_free_text import Balance, free_text_of


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> Chunk:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": choices, **more})


def text(fragment: str) -> Chunk:
    return chunk({"content": fragment})


def tool(index: int | None, arguments: str = "", call_id: str | None = None, name: str | None = None, **more: Any) -> Chunk:
    call = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [call]}, **more)


def custom(index: int, fragment: str, call_id: str | None = None, name: str | None = None) -> Chunk:
    call: dict[str, Any] = {"index": index, "custom": {"input": fragment} | ({"name": name} if name else {})}
    return chunk({"tool_calls": [call | ({"id": call_id, "type": "custom"} if call_id else {})]})


def bounded(phase: str, index: int) -> dict[str, Any]:
    return {"provider_specific_fields": {"kind": "tool_call", "phase": phase, "index": index}}


ROLE = chunk({"role": "assistant"})
CALLS = chunk({}, "tool_calls")


def encoder(**body: Any) -> ResponsesEncoder:
    request = ChatRequest(wire="responses", body={"model": "asked", "input": "hello", **body})
    return ResponsesEncoder(request, settings=StreamSettings(), id="t1", created=9)


def events(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    return [json.loads(frame.split(b"\ndata: ")[1]) for frame in frames]


def said(chunks: Iterable[Chunk], **body: Any) -> list[dict[str, Any]]:
    made = encoder(**body)
    frames = [*(frame for one in chunks for frame in made.feed(one)), *made.finish()]
    assert [one for one in validate_stream("responses", b"".join(frames)) if one.severity == "error"] == []
    return events(frames)


def kinds(found: Iterable[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in found]


def output(chunks: Iterable[Chunk], **body: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = said(chunks, **body)[-1]["response"]["output"]
    return items


def test_a_function_call() -> None:
    found = said([ROLE, tool(0, "", "call_a", "get"), tool(0, '{"x"'), tool(0, ":1}"), CALLS])
    call = {"id": "fc_1_0", "type": "function_call", "status": "completed", "arguments": '{"x":1}'}
    call |= {"call_id": "call_a", "name": "get"}
    at = {"item_id": "fc_1_0", "output_index": 0}
    delta = {"type": "response.function_call_arguments.delta", **at}
    done = {"type": "response.function_call_arguments.done", **at, "arguments": '{"x":1}', "name": "get"}
    added = {**call, "status": "in_progress", "arguments": ""}
    assert [{name: event[name] for name in event if name != "sequence_number"} for event in found[2:-1]] == [
        {"type": "response.output_item.added", "output_index": 0, "item": added},
        {**delta, "delta": '{"x"'},
        {**delta, "delta": ":1}"},
        done,
        {"type": "response.output_item.done", "output_index": 0, "item": call},
    ]
    assert found[-1]["response"]["output"] == [call]


def test_a_custom_tool_call() -> None:
    found = said([ROLE, custom(0, "", "call_a", "sh"), custom(0, "ls "), custom(0, "-l"), CALLS])
    assert kinds(found)[2:-1] == [
        "output_item.added",
        *["custom_tool_call_input.delta"] * 2,
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    assert found[-1]["response"]["output"] == [
        {
            "id": "ctc_1_0",
            "type": "custom_tool_call",
            "status": "completed",
            "input": "ls -l",
            "call_id": "call_a",
            "name": "sh",
        }
    ]


def test_a_whole_call_gives_way_to_the_next_at_once() -> None:
    made = encoder()
    for one in (ROLE, tool(0, '{"x":', "call_a", "get"), tool(0, "1}")):
        made.feed(one)
    found = events(made.feed(tool(1, '{"y":2}', "call_b", "put")))
    assert kinds(found) == [
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
    ]


def test_interleaved_calls_are_written_one_after_the_other() -> None:
    chunks = [
        ROLE,
        tool(0, "", "call_a", "get"),
        tool(1, "", "call_b", "put"),
        tool(1, '{"y"'),
        tool(0, '{"x":'),
        tool(1, ":2}"),
        tool(0, "1}"),
        CALLS,
    ]
    found = said(chunks)
    assert [event["output_index"] for event in found if "output_index" in event] == [0] * 5 + [1] * 5
    deltas = [event["delta"] for event in found if event["type"].endswith("arguments.delta")]
    assert deltas == ['{"x":', "1}", '{"y"', ":2}"]
    assert [item["call_id"] for item in found[-1]["response"]["output"]] == ["call_a", "call_b"]


def test_free_text_is_over_when_its_provider_says_so_or_with_the_answer() -> None:
    chunks = [ROLE, custom(0, "a{}", "call_a", "sh"), custom(1, "b", "call_b", "sh"), custom(0, "c"), CALLS]
    assert [item["input"] for item in output(chunks)] == ["a{}c", "b"]


def test_a_provider_that_ends_its_calls() -> None:
    first = [tool(0, "", "toolu_a", "now", **bounded("open", 1)), chunk({}, **bounded("close", 1))]
    made = encoder()
    for one in (ROLE, *first):
        made.feed(one)
    second = tool(1, "", "toolu_b", "here", **bounded("open", 2))
    assert kinds(events(made.feed(second))) == [
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
    ]
    items = output([ROLE, *first, second, chunk({}, **bounded("close", 2)), CALLS])
    assert [item["arguments"] for item in items] == ["{}", "{}"]


def test_text_after_a_call_is_another_message() -> None:
    items = output([ROLE, text("a"), tool(0, '{"x":1}', "call_a", "get"), text("b"), CALLS])
    assert [item["type"] for item in items] == ["message", "function_call", "message"]
    assert [item["id"] for item in items] == ["msg_1_0", "fc_1_1", "msg_1_2"]


def test_what_follows_a_call_waits_until_that_is_over() -> None:
    made = encoder()
    for one in (ROLE, tool(0, '{"x"', "call_a", "get"), tool(1, "", "call_b", "put")):
        made.feed(one)
    assert made.feed(text("so")) == made.feed(chunk({"reasoning_content": "hm"})) == []
    assert kinds(events(made.feed(tool(0, ":1}")))) == [
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
    ]
    frames = events(made.feed(tool(1, "{}")))
    assert kinds(frames)[:4] == [
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
    ]
    assert kinds(frames)[-1] == "reasoning_summary_text.delta"
    items = output(
        [ROLE, tool(0, "{", "call_a", "get"), text("b"), tool(0, "}"), custom(1, "x", "call_b", "sh"), text("c"), CALLS]
    )
    assert [item["type"] for item in items] == ["function_call", "message", "custom_tool_call", "message"]


def test_a_fragment_after_the_whole_arguments_is_dropped_with_notice() -> None:
    made = encoder()
    for one in (ROLE, tool(0, "{}", "call_a", "get"), tool(1, "{}", "call_b", "get")):
        made.feed(one)
    assert made.feed(tool(0, " \n")) == []
    assert made.omitted == []
    assert made.feed(tool(0, "x")) == []
    assert made.omitted == ["what follows the whole arguments of a call"]
    made.feed(CALLS)
    assert [item["arguments"] for item in events(made.finish())[0]["response"]["output"]] == ["{}", "{}"]


def test_a_call_waits_for_its_name() -> None:
    items = output([ROLE, tool(0, '{"x"', "call_a"), tool(0, ":1}", None, "get"), tool(1, "{}", "call_b"), CALLS])
    assert [(item["name"], item["arguments"]) for item in items] == [("get", '{"x":1}'), ("", "{}")]


def test_every_call_has_an_id_of_its_own() -> None:
    same = [tool(0, "{}", "call_a", "get"), tool(1, "{}", "call_a", "get"), tool(2, "{}", None, "get")]
    found = [item["call_id"] for item in output([ROLE, *same, CALLS])]
    assert found == ["call_a", "call_1_1", "call_1_2"]
    assert output([ROLE, *same, CALLS]) == output([ROLE, *same, CALLS])


@pytest.mark.parametrize(("arguments", "status"), [('{"x": "unfin', "incomplete"), ('{"x":1}', "completed"), ("", "incomplete")])
def test_a_call_that_was_cut_off_is_incomplete(arguments: str, status: str) -> None:
    (item,) = output([ROLE, tool(0, arguments, "call_a", "get"), chunk({}, "length")])
    assert (item["status"], item["arguments"]) == (status, arguments)


# --- as the client offered its tools -----------------------------------------------------------------------------------------

NAMESPACE = {"type": "namespace", "name": "math", "tools": [{"type": "function", "name": "add"}]}
SHELL = {"type": "custom", "name": "sh"}


def test_a_tool_of_a_namespace_has_its_names_back() -> None:
    (item,) = output([ROLE, tool(0, "{}", "call_a", "math__add"), CALLS], tools=[NAMESPACE])
    assert (item["namespace"], item["name"]) == ("math", "add")
    (other,) = output([ROLE, tool(0, "{}", "call_a", "math__mul"), CALLS], tools=[NAMESPACE])
    assert (other.get("namespace"), other["name"]) == (None, "math__mul")


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (json.dumps({"input": 'echo "ü\\ 🦊"\n\tdone'}), 'echo "ü\\ 🦊"\n\tdone'),
        (r'{"input":"rm\u0020-rf /","input":"ls"}', "ls"),
        (r'{"inp\u0075t":"rm","input":"ls"}', "ls"),
        (r'{"input":"ls","inp\u0075t":"rm"}', "rm"),
        (r'{"input":"rm","input":7}', r'{"input":"rm","input":7}'),
        (r'{"input":"a\ud83d b"}', "a\ud83d b"),
        (r'{"input":"a\ud83d\ud83e\udd8a"}', "a\ud83d🦊"),
        (r'{"input":"\ud83dx rm -rf /"}', "\ud83dx rm -rf /"),
    ],
)
def test_a_custom_tool_that_was_called_as_a_function_has_its_free_text_back(arguments: str, expected: str, size: int) -> None:
    """In one delta, which says what the item says at its end: the `input` of the whole arguments, however they were cut."""
    cut = [arguments[i : i + size] for i in range(0, len(arguments), size)]
    found = said([ROLE, tool(0, "", "call_a", "sh"), *(tool(0, part) for part in cut), CALLS], tools=[SHELL])
    (item,) = found[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"], item["status"]) == ("custom_tool_call", "sh", expected, "completed")
    assert [event["delta"] for event in found if event["type"] == "response.custom_tool_call_input.delta"] == [expected]


@pytest.mark.parametrize("sent", ['{"input": "cut of', '{"input": "half \\', '{"input": "done"'])
def test_free_text_of_a_call_that_was_cut_off_is_as_it_was_written(sent: str) -> None:
    (item,) = output([ROLE, tool(0, "", "call_a", "sh"), tool(0, sent), chunk({}, "length")], tools=[SHELL])
    assert (item["input"], item["status"]) == (sent, "incomplete")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"other": 1, "input": "late"}', "late"),
        ('{"input": ""}', ""),
        ('{"input": "a"}  ', "a"),
        ('{"x": {"input": "inner"}, "input": "outer"}', "outer"),
    ],
)
def test_free_text_of_the_arguments(arguments: str, expected: str) -> None:
    assert free_text_of(arguments) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "plain words",
        '"words"',
        '["input"]',
        '{"input": 7}',
        '{"x": "no input"}',
        '{"input": "a"}  trailing',
        '{"input": "raw \n line"}',
        '{"input": "' + "[" * 9 + '"]',
        "[" * 100_000,
    ],
)
def test_arguments_of_any_other_form_are_given_as_they_are(arguments: str) -> None:
    assert free_text_of(arguments) == arguments


PAIRS = st.lists(
    st.tuples(st.sampled_from([r'"input"', r'"inp\u0075t"', '"x"']), st.text() | st.integers() | st.none()), max_size=4
)


@given(PAIRS)
def test_a_client_gets_the_input_that_policies_read(pairs: list[tuple[str, Any]]) -> None:
    """Whatever keys come twice."""
    arguments = "{" + ",".join(f"{key}:{jsontext.dumps(value).decode()}" for key, value in pairs) + "}"
    judged = Block(kind=BlockKind.TOOL_CALL, text=arguments).arguments.get("input")
    assert free_text_of(arguments) == (judged if isinstance(judged, str) else arguments)


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text(), st.lists, max_leaves=5)), st.data())
def test_an_object_is_whole_at_its_end_and_not_before(value: dict[str, Any], data: st.DataObject) -> None:
    arguments = jsontext.dumps(value).decode()
    balance, rest = Balance(), arguments
    while rest:
        assert not balance.whole
        size = data.draw(st.integers(1, len(rest)))
        balance.add(rest[:size])
        rest = rest[size:]
    assert balance.whole
