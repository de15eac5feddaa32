"""A whole body gives the chunks that its stream would have given."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.errors import BackendError
from luthien_asgi.wire.bodies import anthropic_body_chunks, openai_body_chunks

Data = dict[str, Any]


def completion(message: Any, finish: Any = "stop", **more: Any) -> Data:
    choice = {"index": 0, "message": message, "finish_reason": finish, **more}
    return {"id": "c1", "object": "chat.completion", "created": 5, "model": "m", "choices": [choice]}


def message(*content: Data, **more: Any) -> Data:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    usage = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}
    return {**head, "content": list(content), "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **more}


def deltas(chunks: list[Data]) -> list[Data]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def rider(chunk: Data) -> Data:
    found: Data = chunk["provider_specific_fields"]
    return found


def test_an_openai_body_comes_apart_into_its_parts() -> None:
    """Role, reasoning, text, calls numbered by their place, finish, usage."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    custom = {"id": "b", "type": "custom", "custom": {"name": "g", "input": "ls"}}
    body = completion({"role": "assistant", "content": "x", "reasoning_content": "r", "tool_calls": [call, custom]}, "tool_calls")
    chunks = openai_body_chunks({**body, "usage": {"prompt_tokens": 1}}, 9)
    assert deltas(chunks) == [
        {"role": "assistant"},
        {"reasoning_content": "r"},
        {"content": "x"},
        {"tool_calls": [{"index": 0, **call}]},
        {"tool_calls": [{"index": 1, **custom}]},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], {"prompt_tokens": 1})
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {("c1", 5, "m")}


def test_refusal_audio_annotations_and_logprobs_are_kept() -> None:
    """Side data stays with its part."""
    told = {"content": [{"token": "x"}]}
    said = {"content": "x", "annotations": [{"type": "url_citation"}], "audio": {"id": "a", "data": "AA", "transcript": "x"}}
    assert openai_body_chunks(completion({"content": None, "refusal": "no"}), 9)[1]["choices"][0]["delta"] == {"refusal": "no"}
    chunks = openai_body_chunks(completion(said, logprobs=told), 9)
    assert deltas(chunks)[1:] == [{"content": "x", "annotations": said["annotations"]}, {"audio": said["audio"]}, {}]
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks] == [None, told, None, None]


def test_each_choice_of_a_body_is_whole() -> None:
    """Two choices, two roles, two finish reasons; a body without a time gets ours."""
    body = completion({"content": "a"})
    body["choices"].append({"index": 1, "message": {"content": "b"}, "finish_reason": "length"})
    del body["created"]
    chunks = openai_body_chunks(body, 9)
    assert [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in chunks] == [
        (0, None), (0, None), (0, "stop"), (1, None), (1, None), (1, "length")
    ]  # fmt: skip
    assert {chunk["created"] for chunk in chunks} == {9}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}, 429, "Slow down"),
        ({}, 502, "the provider sent a malformed answer"),
        ({"choices": []}, 502, "the provider sent a malformed answer"),
        ({"choices": ["x"]}, 502, "the provider sent a malformed answer"),
        ({"choices": [{"message": None}]}, 502, "the provider sent a malformed answer"),
        (completion({"content": "x"}, None), 502, "the provider's answer has no finish reason"),
        (completion({"content": 5}), 502, "the provider sent a malformed event"),
    ],
)
def test_an_openai_body_that_is_no_answer_is_a_backend_error(body: Data, status: int, text: str) -> None:
    """An error in a 200 keeps its meaning; a body without a finish reason is not called complete."""
    with pytest.raises(BackendError) as caught:
        openai_body_chunks(body, 9)
    assert (caught.value.status, caught.value.message) == (status, text)


def test_an_anthropic_body_has_the_events_of_its_stream() -> None:
    """Each block opens, is filled and closes; what has no field in the common format rides along."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    text = {"type": "text", "text": "x", "citations": [{"cited_text": "c"}]}
    search = {"type": "server_tool_use", "id": "srvtoolu_a", "name": "web_search", "input": {"q": 1}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_a", "content": []}
    tool = {"type": "tool_use", "id": "toolu_a", "name": "f", "input": {"x": "ü"}, "caller": {"type": "direct"}}
    chunks = anthropic_body_chunks(message(thinking, search, result, text, tool, stop_reason="tool_use"), 9)
    assert [(rider(c)["index"], rider(c)["phase"], rider(c)["kind"]) for c in chunks[1:-1]] == [
        (0, "open", "thinking"), (0, "delta", "thinking"), (0, "delta", "thinking"), (0, "close", "thinking"),
        (1, "open", "other"), (1, "delta", "other"), (1, "close", "other"),
        (2, "open", "other"), (2, "close", "other"),
        (3, "open", "text"), (3, "delta", "text"), (3, "delta", "text"), (3, "close", "text"),
        (4, "open", "tool_call"), (4, "delta", "tool_call"), (4, "close", "tool_call"),
    ]  # fmt: skip
    found = deltas(chunks)
    assert found[0] == {"role": "assistant"}
    assert found[3] == {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}]}
    assert {"content": "x"} in found
    assert {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":"ü"}'}}]} in found
    assert rider(chunks[6])["anthropic"]["delta"] == {"type": "input_json_delta", "partial_json": '{"q":1}'}
    assert rider(chunks[8])["anthropic"]["content_block"] == result
    assert rider(chunks[11])["anthropic"]["delta"] == {"type": "citations_delta", "citation": {"cited_text": "c"}}
    assert rider(chunks[14])["anthropic"]["content_block"] == {**tool, "input": {}}


def test_an_anthropic_body_s_end_is_that_of_a_stream() -> None:
    """Finish reason, stop sequence, details and usage, in the standard fields and in the event."""
    details = {"type": "refusal", "category": "cyber"}
    first, last = anthropic_body_chunks(message(stop_reason="refusal", stop_details=details), 9)
    assert rider(first)["anthropic"]["message"]["stop_reason"] is None
    assert (first["id"], first["model"], first["created"]) == ("msg_1", "m", 9)
    assert last["choices"][0]["finish_reason"] == "content_filter"
    assert rider(last)["anthropic"]["delta"] == {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (5, 4)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, 529, "Busy"),
        ({"content": "x"}, 502, "the provider sent a malformed answer"),
        (message("x"), 502, "the provider sent a malformed answer"),  # type: ignore[arg-type]  # a block that is none
        (message({"type": "text", "text": 5}), 502, "the provider sent a malformed event"),
        (message({"type": "text", "text": "x", "citations": 5}), 502, "the provider sent a malformed answer"),
        (message({"type": "text", "text": "x"}, stop_reason=None), 502, "the provider's answer has no stop reason"),
    ],
)
def test_an_anthropic_body_that_is_no_answer_is_a_backend_error(body: Data, status: int, text: str) -> None:
    """The same errors as in a stream."""
    with pytest.raises(BackendError) as caught:
        anthropic_body_chunks(body, 9)
    assert (caught.value.status, caught.value.message) == (status, text)


def test_a_whole_answers_own_fields_ride_along() -> None:
    """Of the body, the choice and the message; those of LiteLLM's form of a body do not."""
    message = {"role": "assistant", "content": "x", "audio": {"id": "a", "data": "AA=="}, "citations": [{"url": "u"}]}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "native_finish_reason": "STOP"}
    body = {"id": "c", "created": 1, "model": "m", "choices": [choice], "provider": "p", "search_results": [{"title": "t"}]}
    riders = [chunk.get("provider_specific_fields") for chunk in openai_body_chunks(body, 1)]
    assert riders == [
        {"openai": {"form": {"opening": "", "alone": False}}},
        {"openai": {"chunk": {"search_results": [{"title": "t"}]}, "delta": {"citations": [{"url": "u"}]}}},
        None,
        {"openai": {"chunk": {"provider": "p"}, "choice": {"native_finish_reason": "STOP"}}},
    ]
    assert [chunk.get("provider_specific_fields") for chunk in openai_body_chunks(body, 1, extras=False)] == [None] * 4
