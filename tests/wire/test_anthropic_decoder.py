"""Anthropic streams: one event, one chunk; nothing lost, whatever the cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.errors import BackendError
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder

Data = dict[str, Any]
Outcome = tuple[list[Data], BackendError | None]

CORPUS = Path(__file__).parents[1] / "corpus" / "anthropic"
NAMES = sorted(path.stem for path in CORPUS.glob("*.sse"))
BROKEN = {
    "delta_without_block": (502, "the provider sent a malformed event", 1),
    "error_event": (529, "Overloaded", 3),
    "error_first": (429, "Slow down", 0),
    "message_stop_without_reason": (502, "the provider's stream ended without a stop reason", 4),
    "not_json": (502, "the provider sent a malformed event", 1),
    "truncated": (502, "the provider's stream ended without a stop reason", 3),
    "truncated_in_event": (502, "the provider's stream ended without a stop reason", 4),
    "wrong_delta_for_block": (502, "the provider sent a malformed event", 2),
}


def stream(name: str) -> bytes:
    return (CORPUS / f"{name}.sse").read_bytes()


def decode(packets: Iterable[bytes]) -> Outcome:
    """Read as a backend does: deliver, then look at `error`."""
    decoder = AnthropicDecoder(1 << 24, 1750000000)
    chunks: list[Data] = []
    for packet in packets:
        chunks += decoder.feed(packet)
        if decoder.error is not None:
            return chunks, decoder.error
    try:
        chunks += decoder.finish()
    except BackendError as error:
        return chunks, error
    assert decoder.finished
    return chunks, None


def good(name: str) -> list[Data]:
    chunks, error = decode([stream(name)])
    assert error is None
    return chunks


def shown(outcome: Outcome) -> tuple[list[Data], str]:
    return outcome[0], repr(outcome[1])


def delta(chunk: Data) -> Data:
    found: Data = chunk["choices"][0]["delta"]
    return found


def rider(chunk: Data) -> Data:
    found: Data = chunk.get("provider_specific_fields", {})
    return found


def of_block(chunks: list[Data], index: int) -> list[tuple[str, str, Data]]:
    """What the chunks of one block say: phase, kind, delta."""
    return [(rider(c)["phase"], rider(c)["kind"], delta(c)) for c in chunks if rider(c).get("index") == index]


def raw_events(data: bytes) -> list[Data]:
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return [json.loads(line[5:]) for line in text.split(b"\n") if line.startswith(b"data:")]


def raw_event(name: str, kind: str, number: int = 0) -> Data:
    return [event for event in raw_events(stream(name)) if event["type"] == kind][number]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def assert_nothing_is_lost(data: bytes, chunks: list[Data]) -> None:
    """Text, thinking, signatures, redacted data and tool calls are what the events hold; what has no field rides along."""
    raw, got = raw_events(data), [chunk for chunk in chunks if chunk["choices"]]
    tools = {e["index"] for e in raw if e["type"] == "content_block_start" and e["content_block"]["type"] == "tool_use"}
    fragments = [e for e in raw if e["type"] == "content_block_delta"]

    def told(kind: str, field: str) -> str:
        return "".join(
            e["delta"][field] for e in fragments if e["delta"]["type"] == kind and (kind[0] != "i" or e["index"] in tools)
        )

    calls = [call for chunk in got for call in delta(chunk).get("tool_calls", [])]
    blocks = [block for chunk in got for block in delta(chunk).get("thinking_blocks", [])]
    assert "".join(delta(chunk).get("content", "") for chunk in got) == told("text_delta", "text")
    assert "".join(delta(chunk).get("reasoning_content", "") for chunk in got) == told("thinking_delta", "thinking")
    assert "".join(block.get("thinking", "") for block in blocks) == told("thinking_delta", "thinking")
    assert "".join(block.get("signature", "") for block in blocks) == told("signature_delta", "signature")
    written = [call["function"]["arguments"] for call in calls]
    if not any(e["content_block"].get("input") for e in raw if e["type"] == "content_block_start" and e["index"] in tools):
        assert "".join(written) == told("input_json_delta", "partial_json")
    assert [call["id"] for call in calls if "id" in call] == [
        e["content_block"]["id"] for e in raw if e["type"] == "content_block_start" and e["index"] in tools
    ]
    for event in raw:
        if event["type"] == "content_block_start":
            assert any(rider(chunk).get("anthropic") == event for chunk in got)


def assert_well_formed(chunks: list[Data]) -> None:
    """One role first, one finish reason at most, riders with known kinds and phases, one identity."""
    with_choice = [chunk for chunk in chunks if chunk["choices"]]
    assert [delta(chunk) for chunk in with_choice if "role" in delta(chunk)] == [{"role": "assistant"}] * bool(with_choice)
    assert sum(chunk["choices"][0]["finish_reason"] is not None for chunk in with_choice) <= 1
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in with_choice}) <= 1
    opened = [rider(chunk)["index"] for chunk in with_choice if rider(chunk).get("phase") == "open"]
    closed = [rider(chunk)["index"] for chunk in with_choice if rider(chunk).get("phase") == "close"]
    assert len(set(opened)) == len(opened)
    if with_choice and with_choice[-1]["choices"][0]["finish_reason"]:
        assert sorted(closed) == sorted(opened)


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_of_a_stream_gives_the_same_chunks_and_the_same_end(name: str) -> None:
    """Whole, byte by byte and in sevens."""
    data = stream(name)
    whole = decode([data])
    for size in (1, 7):
        assert shown(decode(data[i : i + size] for i in range(0, len(data), size))) == shown(whole)
    assert_well_formed(whole[0])


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.integers(0, 10_000), max_size=6))
def test_random_cuts_give_the_same_chunks(name: str, places: list[int]) -> None:
    """Where packets end does not show."""
    data = stream(name)
    assert shown(decode(cut(data, places))) == shown(decode([data]))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(BROKEN)))
def test_a_good_stream_ends_well_and_loses_nothing(name: str) -> None:
    """No shape that the provider sends is refused, and every fragment arrives."""
    assert_nothing_is_lost(stream(name), good(name))


@pytest.mark.parametrize(("name", "expected"), BROKEN.items())
def test_a_broken_stream_fails_after_what_it_said(name: str, expected: tuple[int, str, int]) -> None:
    """The chunks before the break are delivered, the error has the provider's status and words, and no finish is invented."""
    chunks, error = decode([stream(name)])
    assert error is not None
    assert (error.status, error.message, len(chunks)) == expected
    assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])


def test_text_is_an_open_its_deltas_and_a_close() -> None:
    """One event, one chunk; the events ride along only where the standard fields do not hold all of them."""
    for name in ("text", "crlf", "byte_order_mark"):
        start, ping, opened, first, second, closed, end = good(name)
        assert (start["id"], start["model"], start["created"]) == ("msg_corpus", "claude-small-1", 1750000000)
        assert (delta(start), rider(start)) == ({"role": "assistant"}, {"anthropic": raw_event("text", "message_start")})
        assert "usage" not in start
        assert ping == {"id": "msg_corpus", "created": 1750000000, "model": "claude-small-1", "choices": []}
        assert delta(opened) == {"content": ""}
        assert rider(opened) == {
            "kind": "text",
            "phase": "open",
            "index": 0,
            "anthropic": raw_event("text", "content_block_start"),
        }
        assert (delta(first), rider(first)) == ({"content": "Hi"}, {"kind": "text", "phase": "delta", "index": 0})
        assert delta(second) == {"content": " – ünï 🦊"}
        assert (delta(closed), rider(closed)) == ({}, {"kind": "text", "phase": "close", "index": 0})
        assert rider(end) == {"anthropic": raw_event("text", "message_delta")}
        assert end["choices"][0]["finish_reason"] == "stop"


def test_tool_calls_are_numbered_among_themselves() -> None:
    """The second call has index 1 whatever block it is; fragments have neither id nor name."""
    chunks = good("two_tool_use")
    opening = {"index": 1, "id": "toolu_b", "type": "function", "function": {"name": "put", "arguments": ""}}
    assert of_block(chunks, 1) == [
        ("open", "tool_call", {"tool_calls": [opening]}),
        ("delta", "tool_call", {"tool_calls": [{"index": 1, "function": {"arguments": '{"y":'}}]}),
        ("delta", "tool_call", {"tool_calls": [{"index": 1, "function": {"arguments": "2}"}}]}),
        ("close", "tool_call", {}),
    ]
    assert [d["tool_calls"][0]["index"] for _, _, d in of_block(good("tool_use"), 1) if d] == [0, 0, 0, 0]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_arguments_in_the_start_come_as_one_fragment() -> None:
    """A call whose input is whole in its start is not a call without arguments."""
    phases = of_block(good("tool_input_in_start"), 0)
    assert [phase for phase, _, _ in phases] == ["open", "delta", "close"]
    assert phases[1][2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"player":"one"}'}}]}


def test_a_call_without_arguments_has_none() -> None:
    """An empty fragment is passed on, an absent one is not invented."""
    chunks = good("tool_without_arguments")
    assert [phase for phase, _, _ in of_block(chunks, 0)] == ["open", "delta", "close"]
    assert [phase for phase, _, _ in of_block(chunks, 1)] == ["open", "close"]


def test_thinking_has_its_text_and_its_signature_apart() -> None:
    """`reasoning_content` and `thinking_blocks` say the same; the signature is a chunk of its own, without text."""
    assert of_block(good("thinking"), 0) == [
        (
            "open",
            "thinking",
            {"reasoning_content": "", "thinking_blocks": [{"type": "thinking", "thinking": "", "signature": ""}]},
        ),
        ("delta", "thinking", {"reasoning_content": "let me", "thinking_blocks": [{"type": "thinking", "thinking": "let me"}]}),
        ("delta", "thinking", {"reasoning_content": " see", "thinking_blocks": [{"type": "thinking", "thinking": " see"}]}),
        ("delta", "thinking", {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "c2lnbmVk"}]}),
        ("close", "thinking", {}),
    ]
    signed = of_block(good("signature_only"), 0)
    assert [phase for phase, _, _ in signed] == ["open", "delta", "close"]


def test_what_the_standard_fields_do_not_hold_of_a_delta_rides_along() -> None:
    """`estimated_tokens` beside the thinking is not lost."""
    within = [chunk for chunk in good("thinking_estimated") if rider(chunk).get("index") == 0]
    thinking = within[1]
    assert delta(thinking)["reasoning_content"] == "hm"
    assert rider(thinking)["anthropic"] == raw_event("thinking_estimated", "content_block_delta")


def test_redacted_thinking_comes_whole_in_its_opening() -> None:
    """Its data has no deltas."""
    opened, closed = of_block(good("redacted"), 0)
    assert opened == ("open", "redacted_thinking", {"thinking_blocks": [{"type": "redacted_thinking", "data": "b3BhcXVl"}]})
    assert closed == ("close", "redacted_thinking", {})


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("server_tool", 0),
        ("server_tool", 1),
        ("mcp", 0),
        ("mcp", 1),
        ("compaction", 0),
        ("fallback", 0),
        ("unknown_block_delta_event", 0),
    ],
)
def test_blocks_without_a_counterpart_are_of_kind_other_with_every_event(name: str, block: int) -> None:
    """Nothing of them is in the standard fields: a server tool is never a call; start and deltas ride along as they came."""
    chunks = [chunk for chunk in good(name) if rider(chunk).get("index") == block]
    events = [e for e in raw_events(stream(name)) if e.get("index") == block and e["type"] != "content_block_stop"]
    assert {rider(chunk)["kind"] for chunk in chunks} == {"other"}
    assert [delta(chunk) for chunk in chunks] == [{}] * len(chunks)
    assert [rider(chunk).get("anthropic") for chunk in chunks] == [*events, None]


def test_citations_are_side_data_of_their_text() -> None:
    """They have the kind of their block and ride along; so does a delta type of the future."""
    _, cited, *_ = [chunk for chunk in good("server_tool") if rider(chunk).get("index") == 2]
    assert (delta(cited), rider(cited)["kind"], rider(cited)["phase"]) == ({}, "text", "delta")
    assert rider(cited)["anthropic"]["delta"]["type"] == "citations_delta"
    _, sparkle, text, _ = [chunk for chunk in good("unknown_block_delta_event") if rider(chunk).get("index") == 2]
    assert (delta(sparkle), rider(sparkle)["anthropic"]["delta"]["type"]) == ({}, "sparkle_delta")
    assert delta(text) == {"content": "!"}


def test_unknown_events_are_carried() -> None:
    """For a client of the same wire, in a chunk without choices."""
    (carried,) = [chunk for chunk in good("unknown_block_delta_event") if not chunk["choices"]]
    assert rider(carried) == {"anthropic": {"type": "weather", "is": "fine"}}


BLOCKS: dict[str, Data] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "redacted_thinking": {"data": "x"},
    "tool_use": {"id": "c", "name": "f", "input": {}},
    "server_tool_use": {"id": "c", "name": "f", "input": {}},
    "mcp_tool_use": {"id": "c", "name": "f", "input": {}, "server_name": "s"},
    "web_search_tool_result": {"tool_use_id": "c", "content": []},
    "compaction": {"content": None},
    "container_upload": {"file_id": "f"},
    "newest": {"text": "", "thinking": "", "signature": ""},
}
DELTAS: dict[str, tuple[Data, set[str]]] = {
    "text_delta": ({"text": "x"}, {"text"}),
    "citations_delta": ({"citation": {"type": "x"}}, {"text"}),
    "thinking_delta": ({"thinking": "x"}, {"thinking"}),
    "signature_delta": ({"signature": "x"}, {"thinking"}),
    "input_json_delta": ({"partial_json": "{}"}, {"tool_use", "server_tool_use", "mcp_tool_use"}),
    "compaction_delta": ({"content": "x"}, {"compaction"}),
    "newest_delta": ({"n": 1}, set(BLOCKS)),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", DELTAS)
def test_a_delta_is_for_the_blocks_that_it_fits(kind: str, block: str) -> None:
    """And for those of the future, as a delta of the future is for all."""
    fields, fits = DELTAS[kind]
    events: list[Data] = [
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": block, **BLOCKS[block]}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    _, error = decode([b"data: %s\n\n" % json.dumps(event).encode() for event in events])
    assert (error is None) == (block in fits | {"newest"})
    assert error is None or "malformed" in error.message


@pytest.mark.parametrize(
    ("name", "finish", "stop"),
    [
        ("text", "stop", "end_turn"),
        ("stop_sequence", "stop", "stop_sequence"),
        ("pause_turn", "stop", "pause_turn"),
        ("compaction_stop", "stop", "compaction"),
        ("max_tokens_inside_tool", "length", "max_tokens"),
        ("tool_use", "tool_calls", "tool_use"),
        ("refusal_without_blocks", "content_filter", "refusal"),
        ("unknown_stop_reason", "stop", "something_new"),
        ("no_message_stop", "stop", "end_turn"),
    ],
)
def test_stop_reasons_are_mapped_and_kept(name: str, finish: str, stop: str) -> None:
    """The finish reason in OpenAI's words, the provider's own in the event."""
    last = good(name)[-1]
    assert last["choices"][0]["finish_reason"] == finish
    assert rider(last)["anthropic"]["delta"]["stop_reason"] == stop


def test_a_block_that_the_provider_left_open_is_closed_before_the_finish() -> None:
    """Its arguments stay as unfinished as they are."""
    chunks = good("max_tokens_inside_tool")
    assert of_block(chunks, 1)[-2:] == [
        ("delta", "tool_call", {"tool_calls": [{"index": 0, "function": {"arguments": '{"x": "unfin'}}]}),
        ("close", "tool_call", {}),
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_usage_is_the_start_s_overridden_by_the_end_s() -> None:
    """Cumulative counts replace earlier ones, null does not; the prompt includes the cache, as OpenAI counts."""
    usages = [chunk["usage"] for chunk in good("cumulative_usage") if "usage" in chunk]
    assert usages == [
        {
            "prompt_tokens": 132,
            "completion_tokens": 30,
            "total_tokens": 162,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
        }
    ]
    plain = good("text")[-1]["usage"]
    assert plain == {
        "prompt_tokens": 11,
        "completion_tokens": 9,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_of_several_message_deltas_the_stop_reason_counts_once() -> None:
    """The one without a reason has no finish; both events and the latest usage are there."""
    first, second = good("two_message_deltas")[-2:]
    assert (first["choices"][0]["finish_reason"], second["choices"][0]["finish_reason"]) == (None, "stop")
    assert (first["usage"]["completion_tokens"], second["usage"]["completion_tokens"]) == (5, 9)


def test_a_second_message_start_is_ignored() -> None:
    """One role, one identity."""
    assert len([chunk for chunk in good("second_message_start") if "message_start" in str(rider(chunk))]) == 1


def test_a_ping_before_the_start_and_comments_are_signs_of_life() -> None:
    """Chunks without choices and without anything else."""
    assert good("ping_before_start")[0] == {"id": "", "created": 1750000000, "model": "", "choices": []}
    # The stream's ping, and eight comments; the ninth comes after the end.
    assert sum(not chunk["choices"] for chunk in good("no_space_and_comments")) == 9


def test_the_type_may_stand_in_the_event_s_name_alone() -> None:
    """Some gateways leave it out of the JSON."""
    data = stream("text").replace(b'"type":"content_block_stop",', b"").replace(b'"type":"message_stop"', b"")
    chunks, error = decode([data])
    assert error is None
    assert [rider(chunk).get("phase") for chunk in chunks].count("close") == 1


def test_an_error_event_keeps_the_provider_s_object() -> None:
    """Type and raw form for a client of the same wire."""
    _, error = decode([stream("error_event")])
    assert error is not None
    assert (error.type, error.wire, error.raw) == (
        "overloaded_error",
        "anthropic",
        {"type": "overloaded_error", "message": "Overloaded"},
    )


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        ('event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}', 500, "api_error"),
        ('event: error\ndata: {"type":"overloaded_error","message":"x"}', 529, "overloaded_error"),
        ('data: {"error":{"message":"x","code":"429"}}', 429, "rate_limit_error"),
        ('data: {"type":"error"}', 502, "api_error"),
        ('data: {"type":"error","error":{"type":"brand_new_error","message":"x"}}', 502, "api_error"),
        ('data: {"type":"error","error":{"type":"timeout_error","message":"x"}}', 504, "timeout_error"),
    ],
)
def test_an_error_s_status_follows_from_its_type(sent: str, status: int, kind: str) -> None:
    """Never 200; 502 where the type is not known."""
    _, error = decode([f"{sent}\n\n".encode()])
    assert error is not None
    assert (error.status, error.type) == (status, kind)


def test_an_error_in_the_middle_of_a_packet_loses_nothing_before_it() -> None:
    """`feed` returns what came before; the next call raises, whichever it is."""
    for following in ("feed", "finish"):
        decoder = AnthropicDecoder(1 << 20, 1)
        assert len(decoder.feed(stream("error_event"))) == 3
        with pytest.raises(BackendError, match="Overloaded"):
            decoder.feed(b"") if following == "feed" else decoder.finish()


def test_what_follows_message_stop_is_ignored() -> None:
    """The answer is whole."""
    decoder = AnthropicDecoder(1 << 20, 1)
    decoder.feed(stream("text"))
    assert decoder.finished
    assert decoder.feed(stream("error_event")) == []
    assert decoder.finish() == []


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 5},
        {"type": "message_start"},
        {"type": "message_start", "message": "m"},
        {"type": "message_start", "message": {"id": 5}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ],
)
def test_a_malformed_beginning_is_a_malformed_event(event: Data) -> None:
    """Also a block before the message."""
    _, error = decode([b"data: " + json.dumps(event).encode() + b"\n\n"])
    assert error is not None
    assert error.message == "the provider sent a malformed event"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_hostile_types_give_chunks_or_a_backend_error(name: str, data: st.DataObject) -> None:
    """Any value of any event replaced by any JSON: never another exception."""
    blocks = stream(name).split(b"\n\n")
    number = data.draw(st.integers(0, len(blocks) - 1))
    event = (
        next(iter(raw_events(blocks[number])), None)
        if b"{oops" not in blocks[number] and b"_del" not in blocks[number][-6:]
        else None
    )
    if event is not None:
        target = data.draw(st.sampled_from([event, *(value for value in event.values() if isinstance(value, dict))]))
        target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JUNK)
        blocks[number] = b"data: " + json.dumps(event).encode()
    chunks, error = decode([b"\n\n".join(blocks)])
    assert error is None or error.message
    assert all(len(chunk["choices"]) <= 1 for chunk in chunks)


def recorded_streams(folder: Path) -> list[tuple[Path, bytes]]:
    return [(path, framed(path)) for path in sorted((folder / "anthropic").iterdir())]


def framed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".sse":
        return data
    lines = [line for line in data.split(b"\n") if line.strip()]
    return b"".join(b"event: " + json.loads(line)["type"].encode() + b"\ndata: " + line + b"\n\n" for line in lines)


def test_recorded_streams_lose_nothing(recorded: Path) -> None:
    """Text, thinking, signatures and calls of every recording are what its events hold, and every stream ends well."""
    streams = recorded_streams(recorded)
    assert len(streams) > 20
    for path, data in streams:
        chunks, error = decode([data])
        assert error is None, path
        assert_nothing_is_lost(data, chunks)
        assert_well_formed(chunks)


def test_recorded_streams_decode_the_same_in_every_cut(recorded: Path) -> None:
    """Whole, byte by byte, and in pieces of 1000 bytes that cut wherever they cut."""
    for _, data in recorded_streams(recorded):
        whole = shown(decode([data]))
        for size in (1, 1000):
            assert shown(decode(data[i : i + size] for i in range(0, len(data), size))) == whole


@settings(deadline=None)
@given(st.data())
def test_recorded_streams_decode_the_same_in_random_cuts(recorded: Path, data: st.DataObject) -> None:
    """Random borders."""
    _, recording = data.draw(st.sampled_from(recorded_streams(recorded)))
    places = data.draw(st.lists(st.integers(0, len(recording)), max_size=6))
    assert shown(decode(cut(recording, places))) == shown(decode([recording]))
