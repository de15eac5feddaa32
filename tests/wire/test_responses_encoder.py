"""Chunks to a client of the Responses API: the exact events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import ApiError, BackendError, PolicyError, RequestError, StreamStateError
from luthien_asgi.reasoning_items import CarriedThinking, decode
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import validate_stream
from luthien_asgi.wire.responses_encoder import ResponsesEncoder

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def chunk(delta: dict[str, Any], finish: str | None = None, *, choice: int = 0, logprobs: Any = None, **more: Any) -> Chunk:
    choices = [{"index": choice, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": choices, **more})


def text(fragment: str, **more: Any) -> Chunk:
    return chunk({"content": fragment}, **more)


def tool(index: int | None, arguments: str = "", call_id: str | None = None, name: str | None = None) -> Chunk:
    call = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [call]})


def custom(index: int, fragment: str, call_id: str | None = None, name: str | None = None) -> Chunk:
    call: dict[str, Any] = {"index": index, "custom": {"input": fragment} | ({"name": name} if name else {})}
    return chunk({"tool_calls": [call | ({"id": call_id, "type": "custom"} if call_id else {})]})


def rider(delta: dict[str, Any], kind: str, phase: str, index: int, event: dict[str, Any] | None = None) -> Chunk:
    fields = {"kind": kind, "phase": phase, "index": index, **({"anthropic": event} if event else {})}
    return chunk(delta, provider_specific_fields=fields)


def thinking(fragment: str, signature: str | None = None) -> dict[str, Any]:
    block = {"type": "thinking", "thinking": fragment} | ({} if signature is None else {"signature": signature})
    return {"reasoning_content": fragment, "thinking_blocks": [block]}


ROLE = chunk({"role": "assistant"})
STOP = chunk({}, "stop")
TOLD = build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": [], "usage": USAGE})


def encoder(*, collect: bool = False, settings: StreamSettings | None = None, **body: Any) -> ResponsesEncoder:
    request = ChatRequest(wire="responses", body={"model": "asked", "input": "hello", **body})
    return ResponsesEncoder(request, settings=settings or StreamSettings(), id="t1", created=9, collect=collect)


def events(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    found = []
    for frame in frames:
        name, data = frame.decode().removesuffix("\n\n").split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def said(chunks: Iterable[Chunk], **body: Any) -> list[dict[str, Any]]:
    """Return the events of an answer, its end included; their numbers have no gap."""
    made = encoder(**body)
    frames = [*(frame for one in chunks for frame in made.feed(one)), *made.finish()]
    assert [one for one in validate_stream("responses", b"".join(frames)) if one.severity == "error"] == []
    found = events(frames)
    assert [event.pop("sequence_number") for event in found] == list(range(len(found)))
    return found


def middle(chunks: Iterable[Chunk], **body: Any) -> list[dict[str, Any]]:
    """Return the events between the beginning and the end of the response."""
    found = said([*chunks, STOP], **body)
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    assert found[-1]["type"] == "response.completed"
    assert [event["item"] for event in found if event["type"] == "response.output_item.done"] == found[-1]["response"]["output"]
    return found[2:-1]


def kinds(found: Iterable[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in found]


def test_text_is_one_message_with_a_delta_for_every_chunk() -> None:
    at = {"item_id": "msg_1_0", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}
    message = {"id": "msg_1_0", "type": "message", "status": "completed", "content": [part], "role": "assistant"}
    assert middle([ROLE, text("Hel"), text("lo")]) == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**message, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
    ]


def test_a_refusal_is_a_part_of_its_own() -> None:
    found = middle([ROLE, text("Well."), chunk({"refusal": "I "}), chunk({"refusal": "can't."}), text("Bye.")])
    assert kinds(found) == [
        "output_item.added",
        *("content_part.added", "output_text.delta", "output_text.done", "content_part.done"),
        *("content_part.added", "refusal.delta", "refusal.delta", "refusal.done", "content_part.done"),
        *("content_part.added", "output_text.delta", "output_text.done", "content_part.done"),
        "output_item.done",
    ]
    at = {"item_id": "msg_1_0", "output_index": 0, "content_index": 1}
    assert found[5:8] == [
        {"type": "response.content_part.added", **at, "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.refusal.delta", **at, "delta": "I "},
        {"type": "response.refusal.delta", **at, "delta": "can't."},
    ]
    assert found[8] == {"type": "response.refusal.done", **at, "refusal": "I can't."}
    assert [part["type"] for part in found[-1]["item"]["content"]] == ["output_text", "refusal", "output_text"]


# --- thinking --------------------------------------------------------------------------------------------------------------


def test_thinking_is_a_summary_of_a_reasoning_item() -> None:
    at = {"item_id": "rs_1_0", "output_index": 0, "summary_index": 0}
    done = {"id": "rs_1_0", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm m"}]}
    assert middle([ROLE, chunk({"reasoning_content": "hm"}), chunk({"reasoning_content": " m"})]) == [
        {"type": "response.output_item.added", "output_index": 0, "item": {**done, "summary": []}},
        {"type": "response.reasoning_summary_part.added", **at, "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": "hm"},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": " m"},
        {"type": "response.reasoning_summary_text.done", **at, "text": "hm m"},
        {"type": "response.reasoning_summary_part.done", **at, "part": {"type": "summary_text", "text": "hm m"}},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]


@pytest.mark.parametrize("body", [{}, {"include": ["reasoning.encrypted_content"], "store": False}])
def test_a_signature_is_carried_with_its_thinking(body: dict[str, Any]) -> None:
    parts = [
        rider(thinking("", ""), "thinking", "open", 0),
        rider(thinking("let me", None), "thinking", "delta", 0),
        rider(thinking(" see", None), "thinking", "delta", 0),
        rider(thinking("", "c2ln"), "thinking", "delta", 0),
        rider({}, "thinking", "close", 0),
        rider({"content": ""}, "text", "open", 1),
        rider({"content": "Four."}, "text", "delta", 1),
    ]
    output = said([ROLE, *parts, STOP], **body)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "let me see"}]
    carried = CarriedThinking(kind="thinking", text="let me see", signature="c2ln")
    assert decode(output[0]["encrypted_content"]) == carried


def test_redacted_and_hidden_thinking_have_encrypted_content_alone() -> None:
    redacted = {"thinking_blocks": [{"type": "redacted_thinking", "data": "b3BhcXVl"}]}
    hidden = [rider(thinking("", ""), "thinking", "open", 1), rider(thinking("", "c2ln"), "thinking", "delta", 1)]
    found = middle([ROLE, rider(redacted, "redacted_thinking", "open", 0), *hidden, rider({}, "thinking", "close", 1), text("x")])
    assert kinds(found)[:4] == ["output_item.added", "output_item.done"] * 2
    items = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert [item.get("summary") for item in items] == [[], [], None]
    assert decode(items[0]["encrypted_content"]) == CarriedThinking(kind="redacted_thinking", signature="b3BhcXVl")
    assert decode(items[1]["encrypted_content"]) == CarriedThinking(kind="thinking", signature="c2ln")


def test_each_block_of_thinking_is_an_item() -> None:
    one = [rider(thinking("a", "s1"), "thinking", "open", 0), rider({}, "thinking", "close", 0)]
    two = [rider(thinking("b", "s2"), "thinking", "open", 1), rider({}, "thinking", "close", 1)]
    output = said([ROLE, *one, *two, STOP])[-1]["response"]["output"]
    assert [item["summary"][0]["text"] for item in output] == ["a", "b"]
    again = said([ROLE, chunk(thinking("a", "s1")), chunk(thinking("b", "s2")), STOP])[-1]["response"]["output"]
    assert again == output


def test_what_follows_thinking_that_will_be_signed_waits_for_the_signature() -> None:
    made = encoder()
    begun = [ROLE, chunk(thinking("hm")), text("Fo"), text("ur")]
    early = events(frame for one in begun for frame in made.feed(one))
    assert kinds(early)[-1] == "reasoning_summary_text.delta"
    late = events(made.feed(chunk(thinking("", "c2ln"))))
    assert kinds(late)[-3:] == ["content_part.added", "output_text.delta", "output_text.delta"]
    assert kinds(events(made.feed(text("!")))) == ["output_text.delta"]


def test_thinking_that_is_never_signed_is_shown_and_not_carried() -> None:
    output = said([ROLE, chunk(thinking("hm")), text("Four"), STOP])[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"]
    assert "encrypted_content" not in output[0]


# --- text of several blocks --------------------------------------------------------------------------------------------------


def cited(citation: dict[str, Any], index: int) -> Chunk:
    event = {"type": "content_block_delta", "index": index, "delta": {"type": "citations_delta", "citation": citation}}
    return rider({}, "text", "delta", index, event)


def block(index: int, *fragments: str) -> list[Chunk]:
    deltas = [rider({"content": fragment}, "text", "delta", index) for fragment in fragments]
    return [rider({"content": ""}, "text", "open", index), *deltas, rider({}, "text", "close", index)]


def test_citations_annotate_the_text_of_their_block() -> None:
    page = {"type": "web_search_result_location", "url": "https://e.org", "title": "E", "cited_text": "quote"}
    file = {"type": "page_location", "file_id": "file_1", "document_title": "doc.pdf", "document_index": 2}
    quote = {"type": "char_location", "document_index": 0, "cited_text": "no file"}
    second = block(1, "is ", "so")
    found = middle(
        [ROLE, *block(0, "This "), *second[:2], *(cited(one, 1) for one in (page, file, quote)), *second[2:], *block(2, ".")]
    )
    added = [event for event in found if event["type"] == "response.output_text.annotation.added"]
    expected = [
        {"type": "url_citation", "start_index": 5, "end_index": 10, "url": "https://e.org", "title": "E"},
        {"type": "file_citation", "file_id": "file_1", "filename": "doc.pdf", "index": 2},
    ]
    assert [event["annotation"] for event in added] == expected
    assert [event["annotation_index"] for event in added] == [0, 1]
    (part,) = found[-1]["item"]["content"]
    assert part["text"] == "This is so."
    assert part["annotations"] == expected
    # They come before what follows their block.
    assert found.index(added[-1]) < kinds(found).index("output_text.delta", kinds(found).index("output_text.annotation.added"))


def test_a_citation_of_no_web_page_is_no_link() -> None:
    source = {"type": "search_result_location", "source": "javascript:alert(1)", "title": "x"}
    link = {"type": "search_result_location", "source": "https://e.org/a", "title": None}
    found = middle([ROLE, *block(0, "text")[:2], cited(source, 0), cited(link, 0)])
    (part,) = found[-1]["item"]["content"]
    assert part["annotations"] == [
        {"type": "url_citation", "start_index": 0, "end_index": 4, "url": "https://e.org/a", "title": ""}
    ]


def test_annotations_of_chat_completions() -> None:
    annotation = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 3}}
    flat = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 3}
    found = middle([ROLE, chunk({"content": "See", "annotations": [annotation]}), chunk({"annotations": [annotation, "?", {}]})])
    (part,) = found[-1]["item"]["content"]
    assert part["annotations"] == [flat, flat]
    strange = [{"type": "file_citation", "file_citation": {"file_id": "f"}}, {"type": "url_citation", "url_citation": {"url": 1}}]
    assert middle([ROLE, chunk({"content": "See", "annotations": strange})])[-1]["item"]["content"][0]["annotations"] == []
    changed = with_text(chunk({"content": "See", "annotations": [annotation]}), "Saw")
    assert middle([ROLE, changed])[-1]["item"]["content"][0]["annotations"] == []


def test_logprobs_go_with_their_text() -> None:
    top = [{"token": "No", "logprob": -2.0, "bytes": None}]
    logprobs = {"content": [{"token": "Yes", "logprob": -0.1, "bytes": [89], "top_logprobs": top}], "refusal": None}
    token = {"token": "Yes", "bytes": [89], "logprob": -0.1, "top_logprobs": [{"token": "No", "bytes": [], "logprob": -2.0}]}
    found = middle([ROLE, text("Yes", logprobs=logprobs), text("!"), chunk({"content": ""}, logprobs=logprobs)])
    deltas = [(event["delta"], event["logprobs"]) for event in found if event["type"] == "response.output_text.delta"]
    assert deltas[:2] == [("Yes", [token]), ("!", [])]
    done = {event["type"]: event for event in found}
    assert done["response.output_text.done"]["logprobs"] == done["response.content_part.done"]["part"]["logprobs"] == [token]
    assert middle([ROLE, with_text(text("Yes", logprobs=logprobs), "No")])[2]["logprobs"] == []
    strange = {"content": ["?", {"token": 1, "bytes": ["x"], "logprob": "y", "top_logprobs": 7}]}
    blank = {"token": "", "bytes": [0], "logprob": 0.0, "top_logprobs": []}
    assert middle([ROLE, text("Yes", logprobs=strange)])[2]["logprobs"] == [blank]


def test_a_tool_that_ran_at_the_provider_parts_two_messages_and_is_not_shown() -> None:
    ran = [rider({}, "other", "open", 1, {"type": "content_block_start"}), rider({}, "other", "close", 1)]
    output = said([ROLE, *block(0, "Let me look."), *ran, *block(2, "Found."), STOP])[-1]["response"]["output"]
    assert [item["content"][0]["text"] for item in output] == ["Let me look.", "Found."]
    called = tool(0, "{}", "srvtoolu_1", "web_search")
    assert middle([ROLE, called, tool(0, "", None)]) == []


# --- the response ------------------------------------------------------------------------------------------------------------


def test_the_response_repeats_the_request_and_has_what_the_api_shows() -> None:
    tools = [{"type": "function", "name": "get", "parameters": {"type": "object"}}, {"type": "custom", "name": "sh"}]
    asked = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}},
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "tools": tools,
        "top_p": None,
    }
    found = said([ROLE, text("x"), STOP, TOLD], **asked)
    created, response = found[0]["response"], found[-1]["response"]
    assert created == found[1]["response"]
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    ended = {"status", "output", "usage", "completed_at"}
    assert {name: created[name] for name in created if name not in ended} == {
        name: response[name] for name in response if name not in ended
    }
    same = {"reasoning": {"effort": "low", "summary": None}, "text": {"format": {"type": "json_object"}, "verbosity": "medium"}}
    shown = [{"description": None, "strict": None, **tools[0]}, tools[1]]
    expected = {**asked, **same, "tools": shown, "top_p": 1.0, "model": "gpt-x", "id": "resp_1", "object": "response"}
    assert {name: response[name] for name in expected} == expected
    assert (response["created_at"], response["store"], response["error"]) == (3, False, None)
    assert response["completed_at"] > 1_700_000_000
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    }


def test_usage_has_the_details_that_are_known() -> None:
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
        "cache_creation_input_tokens": 1,
    }
    told = build({"id": "chatcmpl-1", "created": 3, "model": "m", "choices": [], "usage": usage})
    found = said([ROLE, STOP, told])[-1]["response"]["usage"]
    assert found["input_tokens_details"] == {"cached_tokens": 3, "cache_write_tokens": 1}
    assert found["output_tokens_details"] == {"reasoning_tokens": 2}
    wrong = build({"id": "a", "created": 3, "model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": -1}})
    usage = said([ROLE, STOP, wrong])[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (1, 0, 0)


def test_usage_is_estimated_where_the_backend_was_not_heard_to_the_end() -> None:
    usage = said([ROLE, text("x" * 40), STOP], input="y" * 80)[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (20, 10, 30)


@pytest.mark.parametrize(
    ("given", "stem"), [("chatcmpl-AB", "AB"), ("msg_01", "01"), ("", "t1"), ("a b", "t1"), ("x" * 49, "t1"), ("gen-7", "7")]
)
def test_ids_are_made_of_the_answers_id(given: str, stem: str) -> None:
    first = build({"id": given, "created": 0, "model": "", "choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    found = said([first, text("x"), STOP])
    response = found[-1]["response"]
    assert (response["id"], response["output"][0]["id"]) == (f"resp_{stem}", f"msg_{stem}_0")
    assert (response["created_at"], response["model"]) == (9, "asked")


def test_a_service_tier_that_clients_know_is_told() -> None:
    def tier(value: str) -> Any:
        last = build({"id": "a", "created": 1, "model": "m", "choices": [], "service_tier": value})
        return said([ROLE, STOP, last])[-1]["response"]["service_tier"]

    assert [tier("default"), tier("on_demand")] == ["default", "auto"]


@pytest.mark.parametrize(
    ("reason", "event", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("anything", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_finish_reason_says_how_the_response_ends(reason: str, event: str, details: object) -> None:
    last = said([ROLE, text("x"), chunk({}, reason)])[-1]
    assert (last["type"], last["response"]["status"]) == (f"response.{event}", event)
    assert last["response"]["incomplete_details"] == details
    assert last["response"]["output"][0]["status"] == event
    assert (last["response"]["completed_at"] is None) == (event == "incomplete")


def test_an_answer_without_anything_has_no_output() -> None:
    found = said([ROLE, STOP])
    assert kinds(found) == ["created", "in_progress", "completed"]
    assert found[-1]["response"]["output"] == []


def test_only_the_first_choice_is_written() -> None:
    found = said([ROLE, text("a"), text("b", choice=1), chunk({}, "stop", choice=1), text("c"), STOP, chunk({}, "length")])
    assert [event["delta"] for event in found if event["type"] == "response.output_text.delta"] == ["a", "c"]
    assert found[-1]["type"] == "response.completed"


def test_an_answer_needs_a_finish_reason_and_nothing_follows_it() -> None:
    made = encoder()
    made.feed(text("a"))
    with pytest.raises(StreamStateError, match="without a finish reason"):
        made.finish()
    made.feed(STOP)
    with pytest.raises(StreamStateError, match="nothing may follow"):
        made.feed(text("b"))
    made.finish()
    for end in (made.finish, lambda: made.fail(BackendError("x"))):
        with pytest.raises(StreamStateError):
            end()


# --- failures, pings, bodies -------------------------------------------------------------------------------------------------


def test_a_failure_leaves_what_is_open_and_says_so_once() -> None:
    made = encoder()
    for one in (ROLE, text("Hi"), tool(0, '{"a', "call_a", "rm")):
        made.feed(one)
    found = events(made.fail(BackendError("gone")))
    assert kinds(found) == ["error", "failed"]
    error = {"type": "server_error", "code": "server_error", "message": "gone", "param": None}
    assert found[0] == {"type": "error", "sequence_number": 10, "error": error}
    response = found[1]["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "server_error", "message": "gone"})
    # Half a call is never done: clients run a call when it is.
    assert [item["type"] for item in response["output"]] == ["message"]
    with pytest.raises(StreamStateError):
        made.finish()
    with pytest.raises(StreamStateError):
        made.feed(text("more"))


def test_a_failure_before_anything_begins_the_response_first() -> None:
    assert kinds(events(encoder().fail(BackendError("gone")))) == ["created", "in_progress", "error", "failed"]


def test_a_failure_gives_what_waited_for_a_signature() -> None:
    made = encoder()
    for one in (ROLE, chunk(thinking("hm")), text("Four")):
        made.feed(one)
    assert kinds(events(made.fail(BackendError("gone"))))[-3:] == ["output_text.delta", "error", "failed"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendError("x"), "server_error"),
        (PolicyError("x"), "server_error"),
        (RequestError("x"), "invalid_prompt"),
        (ApiError("x", status=429), "rate_limit_exceeded"),
        (ApiError("x", status=400, code="context_length_exceeded"), "context_length_exceeded"),
        (ApiError("x", status=429, wire="openai", raw={"code": "insufficient_quota", "message": "m"}), "insufficient_quota"),
        (ApiError("x", status=500, wire="openai", raw={"code": 7, "message": None}), "server_error"),
    ],
)
def test_a_failure_always_has_a_code(error: ApiError, code: str) -> None:
    event, failed = events(encoder().fail(error))[-2:]
    assert event["error"]["code"] == failed["response"]["error"]["code"] == code
    assert event["error"]["message"] == failed["response"]["error"]["message"]


def test_a_ping_is_a_comment_or_nothing() -> None:
    for shape, expected in (("comment", [b": ping\n\n"]), ("chunk", [b": ping\n\n"]), ("off", [])):
        made = encoder(settings=StreamSettings(openai_ping=shape))  # type: ignore[arg-type]
        assert made.ping() == expected
        made.feed(text("x"))
        assert made.ping() == expected
        made.feed(STOP)
        made.finish()
        assert made.ping() == []
    assert encoder(collect=True).ping() == []


def test_a_body_is_the_response_of_the_end() -> None:
    answer = [ROLE, chunk({"reasoning_content": "hm"}), text("a"), tool(0, '{"x":1}', "call_a", "get"), STOP, TOLD]
    made = encoder(collect=True)
    assert [frame for one in answer for frame in made.feed(one)] == []
    with pytest.raises(StreamStateError, match="finished"):
        made.body()
    assert made.finish() == []
    streamed = said(answer)[-1]["response"]
    assert {**made.body(), "completed_at": 0} == {**streamed, "completed_at": 0}
    for other in (encoder(), encoder(collect=True)):
        assert other.fail(BackendError("x")) == [] or other.ping() == []
        with pytest.raises(StreamStateError):
            other.body()


# --- what has no place -------------------------------------------------------------------------------------------------------


def omitted(*chunks: Chunk) -> list[str]:
    made = encoder()
    for one in (ROLE, *chunks, STOP):
        made.feed(one)
    made.finish()
    return list(made.omitted)


def test_what_has_no_place_is_named() -> None:
    link = {"type": "web_search_result_location", "url": "https://e.org", "title": "E"}
    quote = {"type": "char_location", "document_index": 0, "cited_text": "no file"}
    logprobs = {"content": None, "refusal": [{"token": "No", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    searched = {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use", "id": "s", "name": "n"}}
    audio = chunk({"audio": {"id": "a", "data": "AA=="}})
    assert omitted(text("x"), chunk(thinking("hm", "c2ln")), text("y", logprobs={"content": []})) == []
    assert omitted(*block(0, "x")[:2], cited(link, 0)) == []
    assert omitted(*block(0, "x")[:2], cited(quote, 0)) == ["content[text].citations"]
    assert omitted(text("x", choice=1)) == ["choices after the first"]
    assert omitted(chunk({"refusal": "No"}, logprobs=logprobs)) == ["choices.logprobs"]
    assert omitted(rider({}, "other", "open", 1, searched)) == ["content[server_tool_use]"]
    assert omitted(chunk({"content": "x", "annotations": [{}]})) == ["message.annotations"]
    assert omitted(audio) == ["message.audio"]
    tiered = build({"id": "a", "created": 1, "model": "m", "choices": [], "service_tier": "flex", "system_fingerprint": "fp"})
    assert omitted(tiered) == ["system_fingerprint"]
