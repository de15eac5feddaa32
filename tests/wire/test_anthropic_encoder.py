"""Chunks to Anthropic events: exact events, and what the official SDK makes of them."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import BackendError, StreamStateError
from luthien_asgi.wire.anthropic_encoder import AnthropicEncoder

ROLE = {"role": "assistant"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def chunk(delta: dict[str, Any], finish: str | None = None, *, choice: int = 0, **more: Any) -> Chunk:
    choices = [{"index": choice, "delta": delta, "finish_reason": finish, "logprobs": None}]
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": choices, **more})


def bare(**more: Any) -> Chunk:
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": [], **more})


def text(fragment: str) -> Chunk:
    return chunk({"content": fragment})


def tool(index: int | None, arguments: str = "", *, call_id: str | None = None, name: str | None = None) -> Chunk:
    return chunk(
        {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}]}
    )


def thinking(fragment: str = "", *, signature: str | None = None, blocks: bool = True) -> Chunk:
    block = {"type": "thinking", "thinking": fragment, **({"signature": signature} if signature else {})}
    said = {"reasoning_content": fragment} if fragment else {}
    return chunk({**said, **({"thinking_blocks": [block]} if blocks else {})})


def redacted(data: str) -> Chunk:
    return chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": data}]})


def rider(phase: str, kind: str, index: int, delta: dict[str, Any] | None = None, event: dict[str, Any] | None = None) -> Chunk:
    fields = {"kind": kind, "phase": phase, "index": index, **({"anthropic": event} if event else {})}
    return chunk(delta or {}, provider_specific_fields=fields)


def anthropic(event: dict[str, Any], delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> Chunk:
    if delta is None:
        return bare(provider_specific_fields={"anthropic": event})
    return chunk(delta, finish, provider_specific_fields={"anthropic": event}, **more)


MESSAGE = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "stop_details": None,
    "future": {"a": 1},
    "usage": {"input_tokens": 11, "cache_read_input_tokens": 4, "output_tokens": 2, "service_tier": "standard"},
}
STARTED = anthropic({"type": "message_start", "message": MESSAGE}, ROLE)


def ended(reason: str, finish: str, **delta: Any) -> Chunk:
    said = {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None, **delta},
        "usage": {"output_tokens": 9},
    }
    return anthropic(said, {}, finish, usage={"prompt_tokens": 15, "completion_tokens": 9, "total_tokens": 24})


def encoder(*, collect: bool = False) -> AnthropicEncoder:
    return AnthropicEncoder(model="asked", id="t1", input_tokens=42, collect=collect)


def payloads(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    found = []
    for frame in frames:
        name, data, empty, rest = frame.split(b"\n")
        assert (empty, rest) == (b"", b"")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def run(chunks: Iterable[Chunk]) -> list[dict[str, Any]]:
    made = encoder()
    return payloads([*(frame for one in chunks for frame in made.feed(one)), *made.finish()])


def collected(chunks: Iterable[Chunk]) -> dict[str, Any]:
    made = encoder(collect=True)
    for one in chunks:
        assert made.feed(one) == []
    assert made.finish() == []
    return made.body()


def message(events: list[dict[str, Any]]) -> Message:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)  # type: ignore[arg-type]
    found: Message = snapshot
    return found


def content(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [block.model_dump(mode="json", exclude_none=True, warnings=False) for block in message(events).content]


def brief(events: list[dict[str, Any]]) -> list[str]:
    """The events as short words: `text#0`, its deltas' types, `/0`."""
    words = []
    for event in events:
        if event["type"] == "content_block_start":
            words.append(f"{event['content_block']['type']}#{event['index']}")
        elif event["type"] == "content_block_delta":
            words.append(event["delta"]["type"])
        elif event["type"] == "content_block_stop":
            words.append(f"/{event['index']}")
        elif event["type"] == "message_delta":
            words.append(event["delta"]["stop_reason"])
    return words


# --- conversion ---------------------------------------------------------------------------------------------------------------


def test_text_gives_the_whole_sequence() -> None:
    """message_start, one block with the chunks' own boundaries, message_delta, message_stop."""
    made = encoder()
    chunks = [chunk(ROLE), text("Hi"), text("!"), chunk({}, "stop"), bare(usage=USAGE)]
    frames = [frame for one in chunks for frame in made.feed(one)]
    usage = b'{"input_tokens":42,"output_tokens":1}'
    message = b'{"type":"message","role":"assistant","id":"msg_t1","model":"gpt-x","usage":%s,"content":[],' % usage
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
    expected = [
        (b"message_start", b'{"type":"message_start","message":%s"stop_reason":null,"stop_sequence":null}}' % message),
        (b"content_block_start", b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'),
        (b"content_block_delta", delta % b"Hi"),
        (b"content_block_delta", delta % b"!"),
        (b"content_block_stop", b'{"type":"content_block_stop","index":0}'),
        (b"message_delta", b'{"type":"message_delta","delta":{"stop_sequence":null,"stop_reason":"end_turn"},"usage":%s}'),
        (b"message_stop", b'{"type":"message_stop"}'),
    ]
    used = b'{"input_tokens":5,"output_tokens":7}'
    written = [b"event: %s\ndata: %s\n\n" % (name, data.replace(b"%s", used)) for name, data in expected]
    assert [*frames, *made.finish()] == written


def test_the_message_starts_with_the_first_chunk_that_says_something() -> None:
    """The role counts; a sign of life or a prompt filter without choices does not."""
    made = encoder()
    assert made.feed(bare()) == []
    assert [event["type"] for event in payloads(made.feed(chunk(ROLE)))] == ["message_start"]
    assert made.feed(chunk(ROLE)) == []


def test_a_tool_first_answer_has_no_empty_text_block() -> None:
    """Empty text never opens a block on conversion."""
    chunks = [chunk(ROLE), text(""), tool(0, call_id="c1", name="f"), tool(0, '{"a":'), tool(0, "1}"), chunk({}, "tool_calls")]
    events = run(chunks)
    assert brief(events) == ["tool_use#0", "input_json_delta", "input_json_delta", "/0", "tool_use"]
    assert events[1]["content_block"] == {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
    assert content(events) == [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]


def test_text_is_closed_before_a_tool() -> None:
    """Blocks are strictly nested and numbered 0, 1, 2."""
    chunks = [
        text("a"),
        tool(0, "{", call_id="c", name="f"),
        tool(0, "}"),
        tool(1, "{}", call_id="d", name="g"),
        chunk({}, "tool_calls"),
    ]
    assert brief(run(chunks)) == [
        *("text#0", "text_delta", "/0"),
        *("tool_use#1", "input_json_delta", "input_json_delta", "/1"),
        *("tool_use#2", "input_json_delta", "/2"),
        "tool_use",
    ]


def test_text_and_finish_in_one_chunk_close_everything() -> None:
    """Case of a provider that says both at once."""
    assert brief(run([chunk({"content": "x"}, "stop")])) == ["text#0", "text_delta", "/0", "end_turn"]
    both = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    assert brief(run([chunk(both, "tool_calls")])) == ["tool_use#0", "input_json_delta", "/0", "tool_use"]


def test_interleaved_calls_are_written_one_after_the_other() -> None:
    """Fragments 0, 1, 0, 1: two whole calls in the order of their first appearance, with their own cuts."""
    chunks = [
        tool(0, '{"x":', call_id="a", name="f"),
        tool(1, '{"y":', call_id="b", name="g"),
        tool(0, "1}"),
        tool(1, "2}"),
        chunk({}, "tool_calls"),
    ]
    events = run(chunks)
    assert brief(events) == [
        *("tool_use#0", "input_json_delta", "input_json_delta", "/0"),
        *("tool_use#1", "input_json_delta", "input_json_delta", "/1"),
        "tool_use",
    ]
    assert [(block["id"], block["input"]) for block in content(events)] == [("a", {"x": 1}), ("b", {"y": 2})]
    assert [(block["id"], block["input"]) for block in collected(chunks)["content"]] == [("a", {"x": 1}), ("b", {"y": 2})]


def test_an_index_that_is_used_again_with_another_id_is_another_call() -> None:
    """Some providers number every call 0, or not at all."""
    for indices in ((0, 0, 0), (None, None, None)):
        first, second, third = indices
        chunks = [
            tool(first, "{}", call_id="a", name="f"),
            tool(second, "{", call_id="b", name="g"),
            tool(third, "}"),
            chunk({}, "tool_calls"),
        ]
        events = run(chunks)
        assert [(block["id"], block["name"]) for block in content(events)] == [("a", "f"), ("b", "g")]
        assert [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"] == ["{}", "{", "}"]


def test_a_call_without_arguments_has_empty_input() -> None:
    """`input: {}` at the start and no delta."""
    chunks = [tool(0, "", call_id="c", name="f"), chunk({}, "tool_calls")]
    assert brief(run(chunks)) == ["tool_use#0", "/0", "tool_use"]
    assert collected(chunks)["content"] == [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]


def test_ids_that_anthropic_would_refuse_are_replaced() -> None:
    """Missing, ill-formed and repeated ids; good ones are kept."""
    chunks = [
        tool(0, "{}", name="f"),
        tool(1, "{}", call_id="functions.f:0", name="f"),
        tool(2, "{}", call_id="call_ok-1", name="f"),
        tool(3, "{}", call_id="call_ok-1", name="f"),
        chunk({}, "tool_calls"),
    ]
    ids = [block["id"] for block in content(run(chunks))]
    assert ids[2] == "call_ok-1"
    assert all(one.startswith("toolu_") for one in (ids[0], ids[1], ids[3]))
    assert len(set(ids)) == 4


def test_a_name_that_comes_late_is_waited_for() -> None:
    """A block's start has the name; without one the call still leaves at the end."""
    events = run([tool(0, "{", call_id="a"), tool(0, "}", name="f"), tool(1, "{}", call_id="b"), chunk({}, "tool_calls")])
    assert [(block["name"], block["input"]) for block in content(events)] == [("f", {}), ("", {})]


def test_a_custom_call_is_one_input_in_json() -> None:
    """Free text, quotes and half emojis included, becomes `{"input": text}`."""
    parts = ['say "hi"\n', "\ud83d", "\ude00"]
    chunks = [chunk({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": parts[0]}}]})]
    chunks += [chunk({"tool_calls": [{"index": 0, "custom": {"input": part}}]}) for part in parts[1:]]
    events = run([*chunks, chunk({}, "tool_calls")])
    written = "".join(event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta")
    assert json.loads(written) == {"input": 'say "hi"\n\U0001f600'}
    empty = chunk({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": ""}}]})
    assert content(run([empty, chunk({}, "tool_calls")]))[0]["input"] == {"input": ""}


def test_a_tool_that_ran_at_the_provider_is_not_shown_as_a_call() -> None:
    """A client would run it again."""
    events = run([tool(0, "{}", call_id="srvtoolu_1", name="web_search"), text("found"), chunk({}, "tool_calls")])
    assert brief(events) == ["text#0", "text_delta", "/0", "end_turn"]


def test_text_after_a_tool_of_another_wire_cannot_leave() -> None:
    """[tool, text] would be refused for ever after; what was legal is closed and the error can still be sent."""
    made = encoder()
    made.feed(tool(0, "{}", call_id="a", name="f"))
    with pytest.raises(StreamStateError):
        made.feed(text("late"))
    assert [event["type"] for event in payloads(made.fail(BackendError("x")))] == ["error"]


def test_reasoning_without_signatures_is_a_thinking_block() -> None:
    """Start with an empty signature, deltas, stop; thinking after text is a block of its own."""
    chunks = [
        thinking("h", blocks=False),
        thinking("m", blocks=False),
        text("a"),
        thinking("again", blocks=False),
        chunk({}, "stop"),
    ]
    events = run(chunks)
    assert events[1]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert brief(events) == [
        *("thinking#0", "thinking_delta", "thinking_delta", "/0"),
        *("text#1", "text_delta", "/1"),
        *("thinking#2", "thinking_delta", "/2"),
        "end_turn",
    ]


def test_thinking_is_closed_with_its_signature_before_text() -> None:
    """The signature is sent once, whole, as the last word of its block."""
    events = run([thinking("h"), thinking("m"), thinking(signature="sig"), text("a"), chunk({}, "stop")])
    assert brief(events) == [
        "thinking#0",
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "/0",
        "text#1",
        "text_delta",
        "/1",
        "end_turn",
    ]
    assert content(events)[0] == {"type": "thinking", "thinking": "hm", "signature": "sig"}


def test_text_waits_for_a_late_signature() -> None:
    """The signature may come after text has begun: it still gets inside its block, and nothing is lost."""
    made = encoder()
    made.feed(thinking("h"))
    assert made.feed(text("a")) == []
    assert made.feed(text("b")) == []
    released = payloads(made.feed(thinking(signature="sig")))
    assert brief(released) == ["signature_delta", "/0", "text#1", "text_delta", "text_delta"]
    assert brief(payloads([*made.feed(text("c")), *made.feed(chunk({}, "stop"))])) == ["text_delta", "/1"]


def test_what_waits_for_a_signature_leaves_at_the_finish_and_before_an_error() -> None:
    """A signature that never comes keeps nothing back."""
    chunks = [thinking("h"), text("a"), tool(0, "{}", call_id="c", name="f")]
    whole = ["thinking#0", "thinking_delta", "/0", "text#1", "text_delta", "/1", "tool_use#2", "input_json_delta", "/2"]
    assert brief(run([*chunks, chunk({}, "tool_calls")])) == [*whole, "tool_use"]
    made = encoder()
    frames = [frame for one in chunks for frame in made.feed(one)]
    assert brief(payloads([*frames, *made.fail(BackendError("x"))])) == whole


def test_a_block_may_be_a_signature_only_and_two_blocks_stay_two() -> None:
    """[sig] and [th sig][th sig] as LiteLLM delivers them."""
    chunks = [
        thinking(signature="s1"),
        thinking("b", signature="s2"),
        thinking("c"),
        thinking(signature="s3"),
        text("a"),
        chunk({}, "stop"),
    ]
    assert [(block["thinking"], block["signature"]) for block in content(run(chunks))[:3]] == [
        ("", "s1"),
        ("b", "s2"),
        ("c", "s3"),
    ]


def test_redacted_thinking_is_whole_in_its_start() -> None:
    """It has no deltas; text follows in the next block."""
    events = run([redacted("d1"), redacted("d2"), text("a"), chunk({}, "stop")])
    assert brief(events) == ["redacted_thinking#0", "/0", "redacted_thinking#1", "/1", "text#2", "text_delta", "/2", "end_turn"]
    assert events[1]["content_block"] == {"type": "redacted_thinking", "data": "d1"}


def test_thinking_comes_first_and_the_tool_last() -> None:
    """The tool turn keeps its signed thinking."""
    events = run([thinking("h"), thinking(signature="s"), tool(0, "{}", call_id="c", name="f"), chunk({}, "tool_calls")])
    assert brief(events) == [
        "thinking#0",
        "thinking_delta",
        "signature_delta",
        "/0",
        "tool_use#1",
        "input_json_delta",
        "/1",
        "tool_use",
    ]


def test_a_refusal_is_text_and_a_stop_reason() -> None:
    """OpenAI ends a refusal with `stop`, Anthropic with `refusal`."""
    events = run([chunk({"refusal": "I"}), chunk({"refusal": "'m sorry"}), chunk({}, "stop")])
    assert brief(events) == ["text#0", "text_delta", "text_delta", "/0", "refusal"]
    assert content(events)[0]["text"] == "I'm sorry"


def test_a_block_that_starts_with_words_starts_empty() -> None:
    """The API's blocks start empty; the words are the first fragment."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hel", "own": 1}}
    opened = {"kind": "text", "phase": "open", "index": 0, "anthropic": start}
    more = {"kind": "text", "phase": "delta", "index": 0}
    events = run(
        [
            chunk({"content": "Hel"}, provider_specific_fields=opened),
            chunk({"content": "lo"}, provider_specific_fields=more),
            chunk({}, "stop"),
        ]
    )
    assert brief(events) == ["text#0", "text_delta", "text_delta", "/0", "end_turn"]
    assert events[1]["content_block"] == {"type": "text", "text": "", "own": 1}
    assert content(events)[0]["text"] == "Hello"


def test_a_refusal_is_a_block_apart_from_text_around_it() -> None:
    """A policy judged them as two blocks; joined, they could say what neither of them said."""
    events = run([chunk({"content": "ca"}), chunk({"refusal": "na"}), chunk({"content": "ry"}), chunk({}, "stop")])
    texts = ["text#0", "text_delta", "/0", "text#1", "text_delta", "/1", "text#2", "text_delta", "/2"]
    assert brief(events) == [*texts, "refusal"]


@pytest.mark.parametrize(
    ("finish", "stop"), [("length", "max_tokens"), ("content_filter", "refusal"), ("tool_calls", "end_turn")]
)
def test_finish_reasons_are_mapped(finish: str, stop: str) -> None:
    """tool_calls without a call is an ordinary end."""
    assert brief(run([text("a"), chunk({}, finish)]))[-1] == stop


def test_stop_with_a_surviving_call_is_tool_use() -> None:
    """OpenAI says `stop` for a forced tool_choice."""
    assert brief(run([tool(0, "{}", call_id="c", name="f"), chunk({}, "stop")]))[-1] == "tool_use"


def test_usage_without_cache_reads_waits_for_the_last_chunk() -> None:
    """`message_delta` is written at the end; input_tokens are what the cache did not give."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 2}, "cost": 1.0}
    delta = run([text("a"), chunk({}, "stop"), bare(usage=USAGE), bare(usage=usage)])[-2]
    assert delta["usage"] == {"input_tokens": 3, "output_tokens": 7, "cache_read_input_tokens": 2}


def test_usage_that_nobody_told_is_estimated() -> None:
    """The SDKs read `usage.output_tokens` of every message_delta."""
    assert run([text("a" * 400), chunk({}, "stop")])[-2]["usage"] == {"output_tokens": 100}


def test_only_choice_0_is_written() -> None:
    """A message has one content; another choice's finish does not end it."""
    events = run([text("a"), chunk({"content": "b"}, choice=1), chunk({}, "length", choice=1), text("c"), chunk({}, "stop")])
    assert content(events)[0]["text"] == "ac"
    assert brief(events)[-1] == "end_turn"


def test_an_answer_without_a_block_is_a_whole_message() -> None:
    """A refusal may come with no content at all."""
    assert [event["type"] for event in run([chunk({}, "content_filter")])] == ["message_start", "message_delta", "message_stop"]


# --- same wire ----------------------------------------------------------------------------------------------------------------


def test_message_start_is_the_providers_own() -> None:
    """Unknown fields, id, model and usage as they came; content empty and no stop reason."""
    start = run([STARTED, ended("end_turn", "stop")])[0]
    assert start == {"type": "message_start", "message": MESSAGE}


def test_message_delta_is_the_providers_own() -> None:
    """Stop details, container, unknown fields and usage verbatim."""
    chunks = [STARTED, ended("pause_turn", "stop", container={"id": "c"}, stop_details={"x": 1}, future=2)]
    delta = run(chunks)[-2]
    assert delta["delta"] == {
        "stop_reason": "pause_turn",
        "stop_sequence": None,
        "container": {"id": "c"},
        "stop_details": {"x": 1},
        "future": 2,
    }
    assert delta["usage"] == {"output_tokens": 9}


def test_tool_use_without_a_surviving_tool_is_end_turn() -> None:
    """A policy took the call away; every other reason is kept."""
    denied = [STARTED, text("no"), ended("tool_use", "tool_calls")]
    assert brief(run(denied))[-1] == "end_turn"
    for reason in ("max_tokens", "stop_sequence", "refusal", "model_context_window_exceeded", "compaction"):
        assert brief(run([STARTED, text("a"), ended(reason, "stop")]))[-1] == reason


def test_an_end_that_a_policy_wrote_is_not_the_providers() -> None:
    """Its finish has no event: the reason is mapped, the usage that is known is used."""
    delta = run([STARTED, text("stopped"), chunk({}, "stop")])[-2]
    assert delta["delta"]["stop_reason"] == "end_turn"
    assert delta["usage"] == {"output_tokens": 2}


def test_blocks_keep_the_providers_order_also_after_a_tool() -> None:
    """Same wire: text after tool_use, empty blocks and boundaries between two texts stand."""
    opening = {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    start = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}, "caller": {"type": "direct"}}
    chunks = [
        STARTED,
        rider("open", "text", 0, {"content": ""}),
        rider("close", "text", 0),
        rider("open", "tool_call", 1, opening, {"type": "content_block_start", "index": 1, "content_block": start}),
        rider("delta", "tool_call", 1, {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}),
        rider("delta", "tool_call", 1, {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        rider("close", "tool_call", 1),
        rider("open", "text", 2, {"content": "x"}),
        rider("delta", "text", 2, {"content": "y"}),
        rider("close", "text", 2),
        ended("end_turn", "stop"),
    ]
    events = run(chunks)
    assert brief(events) == [
        *("text#0", "/0"),
        *("tool_use#1", "input_json_delta", "input_json_delta", "/1"),
        *("text#2", "text_delta", "text_delta", "/2", "end_turn"),
    ]
    assert events[3]["content_block"] == start
    assert content(events)[2]["text"] == "xy"


def test_a_policys_block_after_a_tool_is_not_the_providers_order() -> None:
    """Its number is negative: it has no licence to stand there."""
    made = encoder()
    made.feed(tool(0, "{}", call_id="a", name="f"))
    made.feed(rider("open", "text", -1, {"content": ""}))
    with pytest.raises(StreamStateError):
        made.feed(rider("delta", "text", -1, {"content": "late"}))


def test_a_policys_empty_block_leaves_no_trace() -> None:
    """Providers refuse an empty text block in the next turn."""
    chunks = [rider("open", "text", -1, {"content": ""}), rider("close", "text", -1), text("a"), chunk({}, "stop")]
    assert brief(run(chunks)) == ["text#0", "text_delta", "/0", "end_turn"]


OPENS = rider("open", "text", 0, {"content": ""})
EMPTY = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}
SAYS_NOTHING = rider("delta", "text", 0, {"content": ""}, EMPTY)


@pytest.mark.parametrize("before", [[OPENS], [OPENS, SAYS_NOTHING], [OPENS, SAYS_NOTHING, SAYS_NOTHING]])
def test_a_provider_that_dies_before_the_first_word_leaves_no_empty_block(before: list[Any]) -> None:
    """Its client would send that back, and the API refuses an empty text block."""
    made = encoder()
    frames = [frame for each in [STARTED, *before] for frame in made.feed(each)] + made.fail(BackendError("died"))
    assert [event["type"] for event in payloads(frames)] == ["message_start", "error"]


@pytest.mark.parametrize("says_nothing", [0, 1, 2, 20])
def test_a_block_that_begins_late_has_everything_that_came_for_it(says_nothing: int) -> None:
    """Its fragments are the provider's, the empty ones too."""
    chunks = [STARTED, OPENS, *[SAYS_NOTHING] * says_nothing, rider("delta", "text", 0, {"content": "a"})]
    events = run([*chunks, rider("close", "text", 0), ended("end_turn", "stop")])
    assert brief(events) == ["text#0", *["text_delta"] * (says_nothing + 1), "/0", "end_turn"]
    assert content(events) == [{"type": "text", "text": "a"}]


def test_an_empty_block_that_its_provider_never_ends_is_none() -> None:
    """Whatever comes instead of its first words: another block, a call, the end of the answer."""
    call = {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    start = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    opens = rider("open", "tool_call", 1, call, {"type": "content_block_start", "index": 1, "content_block": start})
    tool_use = [opens, rider("close", "tool_call", 1)]
    assert brief(run([STARTED, OPENS, *tool_use, ended("tool_use", "tool_calls")])) == ["tool_use#0", "/0", "tool_use"]
    assert brief(run([STARTED, OPENS, ended("end_turn", "stop")])) == ["end_turn"]
    second = [rider("open", "text", 1, {"content": ""}), rider("delta", "text", 1, {"content": "a"}), rider("close", "text", 1)]
    assert brief(run([STARTED, OPENS, *second, ended("end_turn", "stop")])) == ["text#0", "text_delta", "/0", "end_turn"]


def test_a_block_that_says_something_in_its_opening_begins_at_once() -> None:
    """Text, or citations: nothing of it may be lost."""
    cited = {"type": "text", "text": "", "citations": [{"type": "newest"}]}
    for opening in (
        rider("open", "text", 0, {"content": "a"}),
        rider("open", "text", 0, {"content": ""}, {"type": "content_block_start", "index": 0, "content_block": cited}),
    ):
        made = encoder()
        made.feed(STARTED)
        assert brief(payloads(made.feed(opening)))[0] == "text#0"


def test_numbers_are_our_own_when_a_block_was_taken_away() -> None:
    """Indices are contiguous; the close of a block that never began is nothing."""
    chunks = [
        STARTED,
        rider("close", "text", 0),
        rider("open", "text", 1, {"content": ""}),
        rider("delta", "text", 1, {"content": "a"}),
    ]
    events = run([*chunks, rider("close", "text", 1), ended("end_turn", "stop")])
    assert brief(events) == ["text#0", "text_delta", "/0", "end_turn"]


def test_text_that_a_policy_adds_joins_the_open_block() -> None:
    """A flush before the close has no rider of its own."""
    chunks = [STARTED, rider("open", "text", 0, {"content": ""}), rider("delta", "text", 0, {"content": "a"}), text("b")]
    events = run([*chunks, rider("close", "text", 0), ended("end_turn", "stop")])
    assert brief(events) == ["text#0", "text_delta", "text_delta", "/0", "end_turn"]


def test_unknown_blocks_and_deltas_come_through_with_our_number() -> None:
    """Server tools, compaction, the future: the provider's own events."""
    start = {"type": "content_block_start", "index": 5, "content_block": {"type": "newest", "a": 1}, "extra": True}
    delta = {"type": "content_block_delta", "index": 5, "delta": {"type": "newest_delta", "b": 2}}
    json_delta = {"type": "content_block_delta", "index": 5, "delta": {"type": "input_json_delta", "partial_json": "{}"}}
    chunks = [
        STARTED,
        rider("open", "other", 5, event=start),
        rider("delta", "other", 5, event=delta),
        rider("delta", "other", 5, event=json_delta),
        rider("close", "other", 5),
        ended("end_turn", "stop"),
    ]
    assert run(chunks)[1:4] == [{**start, "index": 0}, {**delta, "index": 0}, {**json_delta, "index": 0}]
    assert collected(chunks)["content"] == [{"type": "newest", "a": 1, "b": 2, "input": {}}]


def test_a_block_of_kind_other_that_was_denied_takes_its_deltas_along() -> None:
    """Without a start there is nothing to add to."""
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "newest_delta", "b": 2}}
    chunks = [STARTED, rider("delta", "other", 0, event=delta), rider("close", "other", 0), text("a"), ended("end_turn", "stop")]
    assert brief(run(chunks)) == ["text#0", "text_delta", "/0", "end_turn"]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 0}, 42),
        ({"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": None}, 42),
        ({"input_tokens": 0, "cache_read_input_tokens": 9}, 0),
        ({"input_tokens": 0, "cache_creation_input_tokens": 9}, 0),
        ({"input_tokens": 3}, 3),
    ],
)
def test_an_input_of_no_tokens_is_estimated(usage: dict[str, Any], tokens: int) -> None:
    """Clients decide by it when to condense; with a cache there may be nothing else."""
    start, *_ = run(
        [anthropic({"type": "message_start", "message": {**MESSAGE, "usage": usage}}, ROLE), ended("end_turn", "stop")]
    )
    assert start["message"]["usage"]["input_tokens"] == tokens


def test_citations_are_side_data_of_their_text() -> None:
    """They keep their place in the block; the body collects them."""
    citation = {"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": None}
    event = {"type": "content_block_delta", "index": 3, "delta": {"type": "citations_delta", "citation": citation}}
    opening = {"type": "content_block_start", "index": 3, "content_block": {"type": "text", "text": "", "citations": []}}
    chunks = [
        STARTED,
        rider("open", "text", 3, {"content": ""}, opening),
        rider("delta", "text", 3, event=event),
        rider("delta", "text", 3, {"content": "a"}),
        rider("close", "text", 3),
        ended("end_turn", "stop"),
    ]
    events = run(chunks)
    assert events[1:3] == [{**opening, "index": 0}, {**event, "index": 0}]
    assert collected(chunks)["content"] == [{"type": "text", "text": "a", "citations": [citation]}]


def test_extras_of_a_delta_survive_and_go_with_a_text_that_was_changed() -> None:
    """What the provider says beside the text belongs to that text."""
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "foo", "estimated_tokens": 1}}
    original = rider("delta", "text", 0, {"content": "foo"}, event)
    for chunk, delta in ((original, event["delta"]), (with_text(original, "bar"), {"type": "text_delta", "text": "bar"})):
        events = run([STARTED, rider("open", "text", 0, {"content": ""}), chunk, ended("end_turn", "stop")])
        assert events[2]["delta"] == delta


def test_unknown_events_are_passed_on_after_message_start() -> None:
    """One that comes before waits; a name that would break the frame does not leave."""
    news, bad = {"type": "news", "x": 1}, {"type": "a\ndata: b"}
    events = run([anthropic(news), STARTED, anthropic(bad), anthropic({"type": "message_stop"}), ended("end_turn", "stop")])
    assert [event["type"] for event in events] == ["message_start", "news", "message_delta", "message_stop"]
    assert events[1] == news


# --- ends ---------------------------------------------------------------------------------------------------------------------


def test_a_failure_closes_the_open_block_and_is_the_last_event() -> None:
    """Neither message_delta nor message_stop goes with it."""
    made = encoder()
    made.feed(text("a"))
    error = BackendError("Overloaded", status=529)
    assert payloads(made.fail(error)) == [
        {"type": "content_block_stop", "index": 0},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    ]
    for late in (lambda: made.feed(text("b")), made.finish, lambda: made.fail(error)):
        with pytest.raises(StreamStateError):
            late()
    assert made.ping() == []


def test_a_failure_needs_no_message_before_it() -> None:
    """The error may be the first event."""
    assert [event["type"] for event in payloads(encoder().fail(BackendError("x")))] == ["error"]


def test_an_answer_without_a_finish_reason_cannot_be_finished() -> None:
    """`end_turn` is never invented; the error can still be sent."""
    for chunks in ([], [STARTED], [text("a")]):
        made = encoder()
        for one in chunks:
            made.feed(one)
        with pytest.raises(StreamStateError):
            made.finish()
        assert payloads(made.fail(BackendError("x")))[-1]["type"] == "error"


def test_pings_are_comments_before_the_message_and_events_after() -> None:
    """Nothing of the grammar comes before message_start."""
    made = encoder()
    assert made.ping() == [b": ping\n\n"]
    made.feed(chunk(ROLE))
    assert made.ping() == [b'event: ping\ndata: {"type": "ping"}\n\n']
    made.feed(text("a"))
    assert made.ping() == [b'event: ping\ndata: {"type": "ping"}\n\n']


def test_a_body_is_the_message_that_a_stream_adds_up_to() -> None:
    """Text, thinking, tools, stop reason and usage; malformed arguments are kept where a client can see them."""
    chunks = [
        thinking("hm"),
        thinking(signature="s"),
        text("a"),
        text("b"),
        tool(0, '{"x":1}', call_id="c", name="f"),
        tool(1, "{bad", call_id="d", name="g"),
        chunk({}, "tool_calls"),
        bare(usage=USAGE),
    ]
    body = collected(chunks)
    assert body["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "ab"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "d", "name": "g", "input": {"INVALID_JSON": "{bad"}},
    ]
    assert (body["stop_reason"], body["usage"]) == ("tool_use", {"input_tokens": 5, "output_tokens": 7})
    assert Message.model_validate(body).id == "msg_t1"


def test_a_body_has_the_providers_fields() -> None:
    """What message_start and message_delta said beside the known fields is in the message."""
    late = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "container": {"id": "c"}},
        "usage": {"output_tokens": 9},
    }
    body = collected([STARTED, text("a"), anthropic({**late, "context_management": {"x": 1}}, {}, "stop")])
    assert body == {
        **MESSAGE,
        "content": [{"type": "text", "text": "a"}],
        "stop_reason": "end_turn",
        "container": {"id": "c"},
        "context_management": {"x": 1},
        "usage": {**MESSAGE["usage"], "output_tokens": 9},  # type: ignore[dict-item]
    }


def test_there_is_no_body_before_the_end_and_none_without_collecting() -> None:
    """Half an answer is not handed out."""
    made = encoder(collect=True)
    made.feed(text("a"))
    with pytest.raises(StreamStateError):
        made.body()
    streaming = encoder()
    streaming.feed(chunk({"content": "a"}, "stop"))
    streaming.finish()
    with pytest.raises(StreamStateError):
        streaming.body()
