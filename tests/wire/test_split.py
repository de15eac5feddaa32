"""One event's parts, each in a chunk of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.errors import BackendError
from luthien_asgi.wire.split import split_chunk

Data = dict[str, Any]


def event(delta: Any, finish: Any = None, index: Any = 0, **top: Any) -> Data:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": top.pop("logprobs", None)}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [choice], **top}


def deltas(chunks: list[Data]) -> list[Any]:
    return [chunk["choices"][0]["delta"] if chunk["choices"] else None for chunk in chunks]


def test_a_fragment_of_text_is_one_chunk_with_only_the_fields_of_the_shape() -> None:
    """Null fields do not travel; fingerprint and tier do."""
    chunk = event({"content": "x"}, usage=None, service_tier="default", system_fingerprint="fp")
    assert split_chunk(chunk, {0}) == [
        {
            "id": "c1",
            "created": 5,
            "model": "m",
            "system_fingerprint": "fp",
            "service_tier": "default",
            "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None, "logprobs": None}],
        }
    ]


def test_everything_in_one_event_comes_apart_in_the_documented_order() -> None:
    """Role, thinking, text, refusal, each call, finish, usage: one part a chunk."""
    call = {"index": 1, "id": "b", "function": {"name": "g", "arguments": "2"}}
    delta = {
        "role": "assistant",
        "tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}, call],
        "refusal": "no",
        "content": "text",
        "reasoning": "why",
    }
    chunks = split_chunk(event(delta, "tool_calls", usage={"prompt_tokens": 1}), set())
    assert deltas(chunks) == [
        {"role": "assistant"},
        {"reasoning_content": "why"},
        {"content": "text"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "2"}}]},
        {},
        None,
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * 6 + ["tool_calls"]
    assert chunks[-1]["usage"] == {"prompt_tokens": 1}


def test_each_choice_has_its_role_once_and_first_whatever_the_provider_says() -> None:
    """Repeated roles are dropped, missing ones are made: LiteLLM loses those of the choices after the first."""
    seen: set[int] = set()
    first = split_chunk(event({"role": "assistant", "content": "a"}), seen)
    again = split_chunk(event({"role": "assistant", "content": "b"}), seen)
    other = split_chunk(event({"content": "c"}, index=1), seen)
    assert deltas(first) == [{"role": "assistant"}, {"content": "a"}]
    assert deltas(again) == [{"content": "b"}]
    assert deltas(other) == [{"role": "assistant"}, {"content": "c"}]
    assert [chunk["choices"][0]["index"] for chunk in other] == [1, 1]


def test_litellm_usage_with_a_dummy_choice_becomes_a_usage_chunk_without_choices() -> None:
    """The dummy choice begins nothing."""
    chunks = split_chunk(event({"content": None, "role": None}, usage={"prompt_tokens": 1, "completion_tokens": 2}), set())
    assert [(chunk["choices"], chunk["usage"]["completion_tokens"]) for chunk in chunks] == [([], 2)]


def test_litellm_thinking_is_emitted_once() -> None:
    """`reasoning_content` beside `thinking_blocks` is the same text; a signature of its own carries no text."""
    thinking = {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": None}]}
    signed = {"reasoning_content": "", "content": "", "thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}]}
    redacted = {
        "thinking_blocks": [{"type": "redacted_thinking", "data": "d"}],
        "provider_specific_fields": {"thinking_blocks": []},
    }
    assert deltas(split_chunk(event(thinking), {0})) == [
        {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]}
    ]
    assert deltas(split_chunk(event(signed), {0})) == [
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}]}
    ]
    assert deltas(split_chunk(event(redacted), {0})) == [{"thinking_blocks": [{"type": "redacted_thinking", "data": "d"}]}]


def test_thinking_blocks_of_one_delta_are_a_chunk_each() -> None:
    """Two blocks are not merged into one."""
    blocks = [{"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "thinking", "thinking": "b"}]
    found = deltas(split_chunk(event({"reasoning_content": "ab", "thinking_blocks": blocks}), {0}))
    assert [delta["thinking_blocks"] for delta in found] == [[blocks[0]], [blocks[1]]]
    assert [delta["reasoning_content"] for delta in found] == ["a", "b"]


def test_litellm_tool_deltas_lose_what_only_an_opening_has() -> None:
    """`type` on every delta, empty ids and names and the empty content beside them are not passed on."""
    opening = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    going_on = {"index": 0, "id": None, "type": "function", "function": {"name": None, "arguments": "{}"}}
    assert deltas(split_chunk(event({"content": "", "tool_calls": [opening]}), {0})) == [{"tool_calls": [opening]}]
    assert deltas(split_chunk(event({"content": "", "tool_calls": [going_on]}), {0})) == [
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    ]


def test_a_server_tool_never_becomes_a_call_for_the_client() -> None:
    """Its opening and its fragments, which have no id, are of kind other; a client's call at the same index later is a call."""
    seen = {0}
    opening = {"index": 2, "id": "srvtoolu_1", "function": {"name": "web_search", "arguments": ""}}
    fragment = {"index": 2, "function": {"arguments": "{}"}}
    for call in (opening, fragment):
        (chunk,) = split_chunk(event({"tool_calls": [call]}), seen)
        assert chunk["choices"][0]["delta"] == {}
        assert chunk["provider_specific_fields"] == {"kind": "other", "phase": "delta"}
    (other_choice,) = deltas(split_chunk(event({"tool_calls": [fragment]}, index=1), seen | {1}))
    assert other_choice == {"tool_calls": [fragment]}
    client = {"index": 2, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert deltas(split_chunk(event({"tool_calls": [client]}), seen)) == [{"tool_calls": [client]}]
    assert deltas(split_chunk(event({"tool_calls": [fragment]}), seen)) == [{"tool_calls": [fragment]}]


def test_a_call_without_an_index_is_numbered_by_its_place() -> None:
    """Providers that send whole calls leave the index out; digits in a string are an index too."""
    calls = [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}, {"id": "b", "index": "7", "function": {"name": "g"}}]
    found = [delta["tool_calls"][0] for delta in deltas(split_chunk(event({"tool_calls": calls}), {0}))]
    assert [(call["index"], call["function"]["arguments"]) for call in found] == [(0, '{"x":1}'), (7, "")]


def test_a_call_with_nothing_in_it_is_skipped() -> None:
    """`function: null` on a continuation says nothing; with an id it is a call without arguments."""
    (nothing,) = split_chunk(event({"tool_calls": [{"index": 0, "function": None}, None]}), {0})
    assert nothing["choices"] == []
    (named,) = deltas(split_chunk(event({"tool_calls": [{"index": 0, "id": "a", "function": None}]}), {0}))
    assert named == {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"arguments": ""}}]}


def test_logprobs_stay_with_their_text_and_leave_with_it() -> None:
    """They are on the text's or the refusal's chunk alone, so that a policy that holds the text holds them."""
    told = {"content": [{"token": "x"}], "refusal": None}
    chunks = split_chunk(event({"role": "assistant", "reasoning": "r", "content": "x"}, "stop", logprobs=told), set())
    assert [(c["choices"][0]["delta"], c["choices"][0]["logprobs"]) for c in chunks] == [
        ({"role": "assistant"}, None),
        ({"reasoning_content": "r"}, None),
        ({"content": "x"}, told),
        ({}, None),
    ]


def test_logprobs_without_text_are_marked_as_text() -> None:
    """A token that is half a character has logprobs and no content yet: they must not pass a policy as nothing."""
    told = {"content": [{"token": "\\xf0"}]}
    (chunk,) = split_chunk(event({"content": ""}, logprobs=told), {0})
    assert chunk["choices"][0] == {"index": 0, "delta": {"content": ""}, "finish_reason": None, "logprobs": told}
    assert chunk["provider_specific_fields"] == {"kind": "text", "phase": "delta"}


def test_a_citation_that_litellm_found_is_side_data_of_the_text() -> None:
    """It comes as Anthropic's own event."""
    (chunk,) = split_chunk(event({"content": "", "provider_specific_fields": {"citation": {"cited_text": "c"}}}), {0})
    rider = chunk["provider_specific_fields"]
    assert (rider["kind"], rider["phase"]) == ("text", "delta")
    assert rider["anthropic"]["delta"] == {"type": "citations_delta", "citation": {"cited_text": "c"}}


def test_litellm_top_level_fields_are_not_taken_for_a_rider() -> None:
    """A provider cannot make a chunk claim a kind that it is not."""
    (chunk,) = split_chunk(event({"content": "x"}, provider_specific_fields={"kind": "other", "phase": "open"}), {0})
    assert "provider_specific_fields" not in chunk


@pytest.mark.parametrize("usage", [{"prompt_tokens": "12"}, {"prompt_tokens_details": 3}, "many", [], {"total_tokens": True}])
def test_a_usage_whose_counts_are_not_numbers_is_left_out(usage: Any) -> None:
    """Nobody downstream adds strings."""
    (chunk,) = split_chunk(event({}, usage=usage), {0})
    assert chunk == {"id": "c1", "created": 5, "model": "m", "choices": []}


@pytest.mark.parametrize("data", [{}, {"choices": None}, {"choices": []}, event(None), event({}), event({"content": None})])
def test_an_event_with_nothing_in_it_is_a_sign_of_life(data: Data) -> None:
    """Exactly one chunk, without choices."""
    (chunk,) = split_chunk(data, {0})
    assert chunk["choices"] == []


@pytest.mark.parametrize(
    "data",
    [
        {"choices": 3},
        {"choices": {}},
        {"choices": [None]},
        {"choices": ["x"]},
        event("text"),
        event([]),
        event({"content": 5}),
        event({"content": {"a": 1}}),
        event({"content": [7]}),
        event({"refusal": ["no"]}),
        event({"reasoning_content": 1}),
        event({"tool_calls": {"index": 0}}),
        event({"tool_calls": ["f"]}),
        event({"tool_calls": [{"index": "first", "id": "a"}]}),
        event({"tool_calls": [{"index": -1, "id": "a"}]}),
        event({"tool_calls": [{"index": True, "id": "a"}]}),
        event({"tool_calls": [{"index": 0, "id": 9}]}),
        event({"tool_calls": [{"index": 0, "function": "f"}]}),
        event({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": 5}}]}),
        event({"thinking_blocks": ["x"]}),
        event({"thinking_blocks": [{"type": "thinking", "thinking": 1}]}),
        event({"function_call": "f"}),
        event({}, finish=1),
        event({"content": "x"}, index="one"),
        event({"content": "x"}, index=[]),
    ],
)
def test_what_cannot_be_understood_is_a_backend_error(data: Data) -> None:
    """Never a TypeError, a KeyError or a part that is silently lost."""
    with pytest.raises(BackendError, match=r"^the provider sent a malformed event$"):
        split_chunk(data, {0})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIELDS = (
    "content",
    "role",
    "refusal",
    "tool_calls",
    "thinking_blocks",
    "reasoning",
    "reasoning_details",
    "function_call",
    "audio",
)
CALLS = st.fixed_dictionaries({}, optional=dict.fromkeys(("index", "id", "type", "function", "custom"), JUNK))
DELTAS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*FIELDS, "images", "annotations", "provider_specific_fields"), JUNK)
    | {"tool_calls": st.lists(CALLS)},
)
CHOICES = st.fixed_dictionaries({}, optional=dict.fromkeys(("index", "finish_reason", "logprobs"), JUNK) | {"delta": DELTAS})
EVENTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "created", "model", "usage", "x_groq"), JUNK) | {"choices": st.lists(CHOICES) | JUNK}
)


@settings(deadline=None)
@given(EVENTS)
def test_hostile_types_give_chunks_or_a_backend_error(data: Data) -> None:
    """Whatever JSON a provider sends."""
    try:
        chunks = split_chunk(data, set())
    except BackendError:
        return
    assert chunks
    assert all(len(chunk["choices"]) <= 1 for chunk in chunks)


def test_thinking_in_a_content_list_may_be_a_plain_string() -> None:
    """And the list may hold plain text; what has no text in it, a reference, is skipped."""
    content = [
        {"type": "thinking", "thinking": "hm"},
        "a",
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "b"},
    ]
    assert deltas(split_chunk(event({"content": content}), {0})) == [
        {"reasoning_content": "hm"},
        {"content": "a"},
        {"content": "b"},
    ]


def test_an_empty_thinking_block_is_nothing() -> None:
    """LiteLLM sends one when a block opens."""
    (chunk,) = split_chunk(event({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": ""}]}), {0})
    assert chunk["choices"] == []


def test_images_are_of_kind_other() -> None:
    """A policy sees that there is something it cannot read."""
    (chunk,) = split_chunk(event({"content": "", "images": [{"image_url": {"url": "data:"}}]}), {0})
    assert chunk["choices"][0]["delta"] == {"images": [{"image_url": {"url": "data:"}}]}
    assert chunk["provider_specific_fields"] == {"kind": "other", "phase": "delta"}


def rider(chunk: Data) -> Any:
    return (chunk.get("provider_specific_fields") or {}).get("openai")


def test_fields_of_a_providers_own_ride_with_what_they_belong_to() -> None:
    """With the text they stand beside; ids, counters and the like with the role or the finish reason."""
    choice = {"index": 0, "delta": {"content": "x", "shade": 1}, "finish_reason": None, "token_ids": [7], "seed": 3}
    beside = {"id": "c1", "created": 5, "model": "m", "choices": [choice], "provider": "p", "summary": "s", "none": None}
    role, text = split_chunk(beside, set())
    assert rider(role) == {"chunk": {"provider": "p"}, "choice": {"seed": 3}}
    assert rider(text) == {"chunk": {"summary": "s"}, "choice": {"token_ids": [7]}, "delta": {"shade": 1}}
    text, finish = split_chunk({**beside, "choices": [{**choice, "finish_reason": "stop"}]}, {0})
    assert rider(text) == {"chunk": {"summary": "s"}, "choice": {"token_ids": [7]}, "delta": {"shade": 1}}
    assert rider(finish) == {"chunk": {"provider": "p"}, "choice": {"seed": 3}}


def test_thinking_in_other_words_rides_with_the_thinking() -> None:
    """Not with the text beside it: what is decided about one is not decided about the other."""
    thinking, text = split_chunk(event({"reasoning": "hm", "reasoning_details": [{"text": "hm"}], "content": "x"}), {0})
    assert rider(thinking) == {"delta": {"reasoning": "hm", "reasoning_details": [{"text": "hm"}]}}
    assert rider(text) is None
    text, alone = split_chunk(event({"reasoning_details": [{"data": "e"}], "content": "x"}), {0})
    assert (rider(text), rider(alone)) == (None, {"delta": {"reasoning_details": [{"data": "e"}]}})


def test_an_event_with_nothing_but_own_fields_is_a_chunk_of_its_own() -> None:
    """With its choice, or without one."""
    (chunk,) = split_chunk(event({}, blocked=False), {0})
    assert (deltas([chunk]), rider(chunk)) == ([{}], {"chunk": {"blocked": False}})
    (chunk,) = split_chunk({"choices": [{"index": 1, "content_filter_offsets": {"end": 4}}]}, {1})
    assert (deltas([chunk]), rider(chunk)) == ([{}], {"choice": {"content_filter_offsets": {"end": 4}}})


def test_litellms_own_fields_do_not_travel() -> None:
    """Its iteration has fields that are no provider's."""
    dumped = event({"content": "x", "reasoning_items": [1]}, citations=["u"], usage={"prompt_tokens": 1, "cost": 2}, stats=1)
    dumped["choices"][0]["enhancements"] = {}
    assert [rider(chunk) for chunk in split_chunk(dumped, set(), extras=False)] == [None] * 3


@pytest.mark.parametrize(
    "logprobs",
    [[], "x", 7, {}, {"content": [], "refusal": None}],
)
def test_logprobs_that_are_none_do_not_travel(logprobs: Any) -> None:
    """The official SDK would add them to a list."""
    (chunk,) = split_chunk(event({"content": "x"}, logprobs=logprobs), {0})
    assert chunk["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("delta", [{"audio": {"data": 5}}, {"audio": {"transcript": []}}, {"refusal": {}}, {"images": "x"}])
def test_what_is_no_text_where_text_is_due_is_the_providers_error(delta: Data) -> None:
    """Never a crash of ours later on."""
    with pytest.raises(BackendError, match="malformed"):
        split_chunk(event(delta), {0})
