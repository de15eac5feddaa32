"""Chunks to OpenAI frames: exact frames, and what the official SDK makes of them."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import BackendError, StreamStateError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.openai_encoder import OpenAIEncoder

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def chunk(delta: dict[str, Any], finish: str | None = None, *, choice: int = 0, logprobs: Any = None, **more: Any) -> Chunk:
    choices = [{"index": choice, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": choices, **more})


def bare(**more: Any) -> Chunk:
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": [], **more})


def text(fragment: str, **more: Any) -> Chunk:
    return chunk({"content": fragment}, **more)


def tool(
    index: int | None, arguments: str = "", *, call_id: str | None = None, name: str | None = None, choice: int = 0
) -> Chunk:
    call = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [call]}, choice=choice)


def rider(delta: dict[str, Any], kind: str, phase: str, index: int, event: dict[str, Any] | None = None) -> Chunk:
    fields = {"kind": kind, "phase": phase, "index": index, **({"anthropic": event} if event else {})}
    return chunk(delta, provider_specific_fields=fields)


ROLE = {"role": "assistant"}
STOP = {"finish": "stop"}


def encoder(*, usage: bool = False, collect: bool = False, n: Any = 1, **settings: Any) -> OpenAIEncoder:
    body = {"model": "asked", "messages": [], "n": n, **({"stream_options": {"include_usage": True}} if usage else {})}
    request = ChatRequest(wire="openai", body=body)
    return OpenAIEncoder(request, settings=StreamSettings(**settings), id="t1", created=9, collect=collect)


def payloads(frames: Iterable[bytes]) -> list[Any]:
    found = []
    for frame in frames:
        assert frame.startswith(b"data: ")
        assert frame.endswith(b"\n\n")
        assert frame.count(b"\n") == 2
        found.append(frame[6:-2].decode() if frame == b"data: [DONE]\n\n" else json.loads(frame[6:]))
    return found


def run(chunks: Iterable[Chunk], **options: Any) -> list[Any]:
    made = encoder(**options)
    return payloads([*(frame for one in chunks for frame in made.feed(one)), *made.finish()])


def deltas(events: list[Any]) -> list[Any]:
    return [event["choices"][0]["delta"] for event in events if event != "[DONE]" and event["choices"]]


def final(events: list[Any]) -> ChatCompletion:
    state = ChatCompletionStreamState()
    for event in events:
        if event != "[DONE]":
            state.handle_chunk(ChatCompletionChunk.model_validate(event))
    return state.get_final_completion()


def collected(chunks: Iterable[Chunk], **options: Any) -> dict[str, Any]:
    made = encoder(collect=True, **options)
    for one in chunks:
        assert made.feed(one) == []
    assert made.finish() == []
    return made.body()


def test_text_gives_one_frame_a_chunk_then_finish_then_done() -> None:
    """Role, each text chunk with its own boundaries, one finish, one `[DONE]`."""
    made = encoder()
    frames = [frame for one in [chunk(ROLE), text("Hi"), text("!"), chunk({}, "stop")] for frame in made.feed(one)]
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":3,"model":"gpt-x","choices":[{"index":0,"delta":'
    assert [*frames, *made.finish()] == [
        head + b'{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}\n\n',
        head + b'{"content":"Hi"},"logprobs":null,"finish_reason":null}]}\n\n',
        head + b'{"content":"!"},"logprobs":null,"finish_reason":null}]}\n\n',
        head + b'{},"logprobs":null,"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]


def test_text_and_finish_in_one_chunk_give_both() -> None:
    """Nothing of a chunk that says two things is lost."""
    events = run([text("x", **STOP)])
    assert deltas(events)[1:] == [{"content": "x"}, {}]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


def test_an_empty_text_chunk_gives_no_frame() -> None:
    """Only what carries something is sent."""
    assert deltas(run([chunk(ROLE), text(""), text("a"), text(""), chunk({}, "stop")]))[1:] == [{"content": "a"}, {}]


def test_the_role_is_sent_once_a_choice() -> None:
    """Providers repeat it; the SDK would add it up to `assistantassistant`."""
    events = run([chunk(ROLE), chunk(ROLE), text("a"), chunk(ROLE), text("b"), chunk({}, "stop")])
    assert [d["role"] for d in deltas(events) if "role" in d] == ["assistant"]
    assert final(events).choices[0].message.content == "ab"


def test_a_tool_first_answer_has_null_content() -> None:
    """No empty text comes before a call."""
    events = run([chunk(ROLE), tool(0, call_id="c1", name="f"), tool(0, "{}"), chunk({}, "tool_calls")])
    assert deltas(events) == [
        {"role": "assistant", "content": None, "refusal": None},
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert final(events).choices[0].message.content is None


def test_interleaved_calls_keep_their_own_arguments() -> None:
    """Fragments 0, 1, 0, 1 arrive whole in two calls."""
    chunks = [
        tool(0, "{", call_id="a", name="f"),
        tool(1, "[", call_id="b", name="g"),
        tool(0, "}"),
        tool(1, "]"),
        chunk({}, "tool_calls"),
    ]
    calls = final(run(chunks)).choices[0].message.tool_calls or []
    assert [(c.id, c.function.name, c.function.arguments) for c in calls if c.type == "function"] == [
        ("a", "f", "{}"),
        ("b", "g", "[]"),
    ]


def test_an_index_that_is_used_again_with_another_id_is_another_call() -> None:
    """Our own numbers are contiguous from 0, whatever the provider's are."""
    chunks = [
        tool(4, "{}", call_id="a", name="f"),
        tool(4, "{", call_id="b", name="g"),
        tool(4, "}"),
        tool(4, "", call_id="b", name="g"),
        chunk({}, "tool_calls"),
    ]
    entries = [d["tool_calls"][0] for d in deltas(run(chunks)) if "tool_calls" in d]
    assert entries == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]


def test_id_type_and_name_are_said_once() -> None:
    """Providers repeat them; the SDK would join them."""
    chunks = [tool(0, "{", call_id="a", name="f"), tool(0, "}", call_id="a", name="f"), chunk({}, "tool_calls")]
    call = (final(run(chunks)).choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("a", "f", "{}")


def test_a_call_without_an_id_gets_one() -> None:
    """A client needs an id to answer to."""
    calls = collected([tool(0, "{}", name="f"), chunk({}, "tool_calls")])["choices"][0]["message"]["tool_calls"]
    assert calls[0]["id"].startswith("call_")
    assert len(calls[0]["id"]) > 20


def test_a_name_that_comes_late_is_waited_for() -> None:
    """The opening entry has the name; arguments that came before it are in it."""
    chunks = [tool(0, "{", call_id="a"), tool(1, "[]", call_id="b", name="g"), tool(0, "}", name="f"), chunk({}, "tool_calls")]
    entries = [d["tool_calls"][0] for d in deltas(run(chunks)) if "tool_calls" in d]
    assert [(e["index"], e["id"], e["function"]) for e in entries] == [
        (0, "b", {"name": "g", "arguments": "[]"}),
        (1, "a", {"name": "f", "arguments": "{}"}),
    ]


def test_a_call_that_never_gets_a_name_is_not_lost() -> None:
    """It leaves before the finish."""
    entries = [d["tool_calls"] for d in deltas(run([tool(0, "{}", call_id="a"), chunk({}, "tool_calls")])) if "tool_calls" in d]
    assert entries == [[{"index": 0, "id": "a", "type": "function", "function": {"name": "", "arguments": "{}"}}]]


def test_custom_calls_have_their_own_shape() -> None:
    """`custom` instead of `function`, `input` instead of `arguments`."""
    opening = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "sel"}}
    chunks = [
        chunk({"tool_calls": [opening]}),
        chunk({"tool_calls": [{"index": 0, "custom": {"input": "ect"}}]}),
        chunk({}, "tool_calls"),
    ]
    assert deltas(run(chunks))[1:3] == [{"tool_calls": [opening]}, {"tool_calls": [{"index": 0, "custom": {"input": "ect"}}]}]
    call = collected(chunks)["choices"][0]["message"]["tool_calls"][0]
    assert call == {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select"}}


def test_a_tool_that_ran_at_the_provider_is_not_shown_as_a_call() -> None:
    """A client would run it again."""
    events = run([tool(0, "{}", call_id="srvtoolu_1", name="web_search"), text("found"), chunk({}, "tool_calls")])
    assert not any("tool_calls" in delta for delta in deltas(events))
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


def test_finish_reason_follows_what_was_sent() -> None:
    """`tool_calls` without a call is `stop`; `stop` stays with a call; others are kept."""
    call = tool(0, "{}", call_id="a", name="f")
    for chunks, said, expected in [
        ([text("a")], "tool_calls", "stop"),
        ([call], "tool_calls", "tool_calls"),
        ([call], "stop", "stop"),
        ([text("a")], "length", "length"),
        ([text("a")], "content_filter", "content_filter"),
    ]:
        assert run([*chunks, chunk({}, said)])[-2]["choices"][0]["finish_reason"] == expected


def test_a_repeated_finish_is_sent_once() -> None:
    """One finish a choice."""
    events = run([text("a"), chunk({}, "stop"), chunk({}, "stop")])
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None, None, "stop"]


def test_usage_is_the_last_chunk_and_null_before_for_a_client_that_asked() -> None:
    """`choices: []`, complete, without LiteLLM's additions; before it every frame says null."""
    events = run([text("a"), chunk({}, "stop"), bare(usage={**USAGE, "cost": 1.0})], usage=True)
    assert [event["usage"] for event in events[:-2]] == [None, None, None]
    assert events[-2]["choices"] == []
    assert events[-2]["usage"] == USAGE
    assert events[-1] == "[DONE]"


def test_usage_is_not_sent_to_a_client_that_did_not_ask() -> None:
    """What we asked the provider for is stripped."""
    events = run([text("a"), chunk({}, "stop"), bare(usage=USAGE)])
    assert all("usage" not in event for event in events[:-1])
    assert len(events) == 4


def test_usage_beside_the_finish_is_found() -> None:
    """Some providers put it there; the later chunk wins field by field."""
    events = run(
        [text("a"), chunk({}, "stop", usage=USAGE), bare(usage={**USAGE, "completion_tokens": 8, "total_tokens": 13})], usage=True
    )
    assert events[-2]["usage"]["completion_tokens"] == 8


def test_stream_options_of_a_wrong_shape_ask_for_nothing() -> None:
    """An encoder never falls over a request."""
    request = ChatRequest(wire="openai", body={"model": "m", "stream_options": "include_usage", "n": "2"})
    made = OpenAIEncoder(request, settings=StreamSettings(), id="t", created=1)
    assert b"usage" not in b"".join(made.feed(text("a", **STOP)))


def test_identity_is_the_backends_and_does_not_change() -> None:
    """id, model and created of the first frame are those of all, also in chunks that a policy wrote."""
    other = build(
        {
            "id": "other",
            "created": 99,
            "model": "else",
            "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": None}],
        }
    )
    events = run([text("a"), other, chunk({}, "stop")])
    assert {(event["id"], event["created"], event["model"]) for event in events[:-1]} == {("chatcmpl-1", 3, "gpt-x")}


def test_an_empty_first_chunk_does_not_fix_the_identity() -> None:
    """Azure's prompt filter comes first, without a model or an id; where nobody has one, ours stand."""
    nobody = build({"id": "", "created": 0, "model": "", "choices": []})
    assert run([nobody, text("a", **STOP)])[0]["id"] == "chatcmpl-1"
    anonymous = build(
        {"id": "", "created": 0, "model": None, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    )
    first = run([nobody, anonymous])[0]
    assert (first["id"], first["created"], first["model"]) == ("chatcmpl-t1", 9, "asked")


def test_fingerprint_and_service_tier_are_carried() -> None:
    """They are on every frame."""
    more = {"system_fingerprint": "fp_1", "service_tier": "flex"}
    events = run([chunk(ROLE, **more), text("a", **more), chunk({}, "stop", **more)])
    assert {(event["system_fingerprint"], event["service_tier"]) for event in events[:-1]} == {("fp_1", "flex")}


def test_thinking_is_reasoning_content_once() -> None:
    """The text goes out; thinking_blocks, signatures and redacted data have no place in this format."""
    th = {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]}
    sig = {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}]}
    red = {"thinking_blocks": [{"type": "redacted_thinking", "data": "d"}]}
    events = run([chunk(th), chunk(sig), chunk(red), text("a"), chunk({}, "stop")])
    assert deltas(events)[1:] == [{"reasoning_content": "hm"}, {"content": "a"}, {}]
    assert collected([chunk(th), chunk({}, "stop")])["choices"][0]["message"]["reasoning_content"] == "hm"


def test_a_refusal_is_a_refusal() -> None:
    """Its fragments go into `refusal`, its first delta says so, content stays null."""
    chunks = [chunk(ROLE), chunk({"refusal": "I'm"}), chunk({"refusal": " sorry"}), chunk({}, "stop")]
    events = run(chunks)
    assert deltas(events)[0] == {"role": "assistant", "content": None, "refusal": ""}
    message = final(events).choices[0].message
    assert (message.refusal, message.content) == ("I'm sorry", None)
    assert collected(chunks)["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": "I'm sorry"}


def test_blocks_of_kind_other_give_nothing_and_boundaries_neither() -> None:
    """Server tools and citations have no place in this format; empty blocks leave no trace."""
    server = {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "id": "srvtoolu_1"}}
    citation = {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {}}}
    chunks = [
        rider({}, "other", "open", 0, server),
        rider({}, "other", "close", 0),
        rider({"content": ""}, "text", "open", 1),
        rider({"content": "a"}, "text", "delta", 1),
        rider({}, "text", "delta", 1, citation),
        rider({}, "text", "close", 1),
        chunk({}, "stop"),
    ]
    assert deltas(run(chunks)) == [{"role": "assistant", "content": "", "refusal": None}, {"content": "a"}, {}]


def test_an_anthropic_tool_block_is_one_call() -> None:
    """Its number among the calls is ours, not that of the block."""
    opening = {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    chunks = [
        rider(opening, "tool_call", "open", 3),
        rider({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}, "tool_call", "delta", 3),
        rider({}, "tool_call", "close", 3),
        chunk({}, "tool_calls"),
    ]
    call = (final(run(chunks)).choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert (call.id, call.function.arguments) == ("toolu_1", '{"a":1}')


def test_logprobs_stay_beside_their_text_and_add_up_in_a_body() -> None:
    """Tokens are carried as they came; changed text has lost them."""
    tokens = [{"token": t, "logprob": -0.5, "bytes": None, "top_logprobs": []} for t in "ab"]
    chunks = [text(token["token"], logprobs={"content": [token], "refusal": None}) for token in tokens]
    assert [event["choices"][0]["logprobs"] for event in run([*chunks, chunk({}, "stop")])[1:3]] == [
        {"content": [token], "refusal": None} for token in tokens
    ]
    assert collected([*chunks, chunk({}, "stop")])["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}
    assert run([with_text(chunks[0], "x"), chunk({}, "stop")])[1]["choices"][0]["logprobs"] is None


def test_annotations_are_sent_once_where_the_sdk_can_add_them_up() -> None:
    """A list without indices in two deltas breaks the official SDK."""
    notes = [{"type": "url_citation", "url_citation": {"url": u, "title": u, "start_index": 0, "end_index": 1}} for u in "ab"]
    chunks = [chunk({"content": n["type"], "annotations": [n]}) for n in notes] + [chunk({}, "stop")]
    found = final(run(chunks)).choices[0].message.annotations or []
    assert [note.url_citation.url for note in found] == ["a", "b"]
    assert collected(chunks)["choices"][0]["message"]["annotations"] == notes


def test_audio_is_carried() -> None:
    """A body holds the whole sound and transcript."""
    parts = [{"id": "au", "data": "AAE=", "transcript": "he"}, {"data": "Ag==", "transcript": "y", "expires_at": 4}]
    chunks = [chunk({"audio": part}) for part in parts] + [chunk({}, "stop")]
    assert deltas(run(chunks))[1:3] == [{"audio": part} for part in parts]
    assert collected(chunks)["choices"][0]["message"]["audio"] == {
        "id": "au",
        "data": "AAEC",
        "transcript": "hey",
        "expires_at": 4,
    }


def test_each_choice_has_its_role_and_finish_and_the_lower_begins_first() -> None:
    """The official SDK fails when choice 1 comes before choice 0."""
    chunks = [
        text("b", choice=1),
        text("a"),
        tool(0, "{}", call_id="x", name="f", choice=1),
        chunk({}, "stop"),
        chunk({}, "tool_calls", choice=1),
    ]
    events = run(chunks, n=2)
    assert [event["choices"][0]["index"] for event in events[:2]] == [0, 1]
    done = final(events)
    assert [(c.message.content, c.finish_reason, c.message.role) for c in done.choices] == [
        ("a", "stop", "assistant"),
        ("b", "tool_calls", "assistant"),
    ]


def test_an_answer_without_a_finish_reason_cannot_be_finished() -> None:
    """`stop` is never invented, for no choice."""
    for chunks in ([], [chunk(ROLE)], [text("a")], [text("a", **STOP), text("b", choice=1)]):
        made = encoder()
        for one in chunks:
            made.feed(one)
        with pytest.raises(StreamStateError):
            made.finish()
        assert made.fail(BackendError("broke off"))


def test_nothing_follows_a_finish_or_an_end() -> None:
    """Content after a finish is refused; so is everything after the end."""
    made = encoder()
    made.feed(text("a", **STOP))
    with pytest.raises(StreamStateError):
        made.feed(text("b"))
    made.finish()
    for late in (lambda: made.feed(text("b")), made.finish, lambda: made.fail(BackendError("x"))):
        with pytest.raises(StreamStateError):
            late()
    assert made.ping() == []


def test_a_failure_is_one_error_frame() -> None:
    """Neither a finish nor `[DONE]` goes with it; the SDK raises from it."""
    made = encoder()
    made.feed(text("a"))
    raw = {"message": "boom", "type": "server_error", "param": None, "code": "x"}
    assert payloads(made.fail(BackendError("boom", raw=raw, wire="openai"))) == [{"error": raw}]
    with pytest.raises(StreamStateError):
        made.finish()


def test_pings_have_the_shape_that_the_settings_say() -> None:
    """A comment; or an empty chunk while choice 0 is being written; or nothing."""
    assert encoder().ping() == [b": ping\n\n"]
    assert encoder(openai_ping="off").ping() == []
    made = encoder(openai_ping="chunk")
    assert made.ping() == [b": ping\n\n"]
    made.feed(text("a"))
    assert payloads(made.ping())[0]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    made.feed(chunk({}, "stop"))
    assert made.ping() == [b": ping\n\n"]


def test_text_is_escaped_and_half_an_emoji_survives() -> None:
    """One frame is one line; a surrogate pair split over two chunks is whole again for the client."""
    fragments = ['a\n\r\0\u2028"', "\ud83d", "\ude00"]
    events = run([*map(text, fragments), chunk({}, "stop")])
    assert "".join(delta.get("content") or "" for delta in deltas(events)) == "".join(fragments)


def test_a_body_is_a_strict_chat_completion() -> None:
    """The collected answer has every field, and usage although nobody asked for a usage chunk."""
    chunks = [
        chunk(ROLE),
        text("Hel"),
        text("lo"),
        tool(0, "{", call_id="c", name="f"),
        tool(0, "}"),
        chunk({}, "tool_calls"),
        bare(usage=USAGE),
    ]
    body = collected(chunks)
    assert ChatCompletion.model_validate(body, strict=True)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hello", "refusal": None, "tool_calls": [call]}
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 3,
        "model": "gpt-x",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}],
        "usage": USAGE,
    }


def test_there_is_no_body_before_the_end_and_none_without_collecting() -> None:
    """Half an answer is not handed out."""
    made = encoder(collect=True)
    made.feed(text("a"))
    with pytest.raises(StreamStateError):
        made.body()
    assert made.fail(BackendError("x")) == []
    with pytest.raises(StreamStateError):
        made.body()
    streaming = encoder()
    streaming.feed(text("a", **STOP))
    streaming.finish()
    with pytest.raises(StreamStateError):
        streaming.body()
