"""OpenAI-style streams: what the bytes hold is what the chunks hold, for every shape and every cut."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.errors import BackendError
from luthien_asgi.wire.openai_decoder import OpenAIDecoder

Data = dict[str, Any]
Outcome = tuple[list[Data], BackendError | None]

CORPUS = Path(__file__).parents[1] / "corpus" / "openai"
NAMES = sorted(path.stem for path in CORPUS.glob("*.sse"))
BROKEN = {
    "done_without_finish": (502, "the provider's stream ended without a finish reason for choice 0"),
    "error_after_finish": (400, "Token limit reached"),
    "error_event": (503, "The server had a problem"),
    "error_in_choice": (502, "Upstream went away"),
    "error_nested": (429, "Too many"),
    "error_text": (502, "went wrong"),
    "error_without_envelope": (400, "too long"),
    "error_in_data": (429, "Rate limit reached"),
    "finish_says_error": (502, "the provider ended the answer with the finish reason 'error'"),
    "not_json": (502, "the provider sent a malformed event"),
    "one_choice_unfinished": (502, "the provider's stream ended without a finish reason for choice 1"),
    "truncated": (502, "the provider's stream ended without a finish reason for choice 0"),
    "truncated_in_event": (502, "the provider's stream ended without a finish reason for choice 0"),
}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def stream(name: str) -> bytes:
    return (CORPUS / f"{name}.sse").read_bytes()


def decode(packets: Iterable[bytes], *, created: int = 99) -> Outcome:
    """Read as a backend does: deliver, then look at `error`."""
    decoder = OpenAIDecoder(1 << 24, created)
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


def deltas(chunks: list[Data]) -> list[Data]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def shown(outcome: Outcome) -> tuple[list[Data], str]:
    return outcome[0], repr(outcome[1])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def content_of(deltas_by_choice: Iterable[tuple[int, Data]]) -> dict[Any, str]:
    """Concatenate what deltas hold, by choice and field, and for calls by index and id."""
    found: dict[Any, str] = defaultdict(str)
    ids: dict[Any, str] = {}
    for choice, delta in deltas_by_choice:
        thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
        content = delta.get("content") or ""
        found[choice, "text"] += content if isinstance(content, str) else ""
        found[choice, "thinking"] += thinking
        found[choice, "refusal"] += delta.get("refusal") or ""
        for call in delta.get("tool_calls") or []:
            key = choice, call.get("index", 0)
            ids[key] = call.get("id") or ids.get(key, "")
            found[*key, ids[key], "name"] += call["function"].get("name") or ""
            found[*key, ids[key], "arguments"] += call["function"].get("arguments") or ""
    return {key: value for key, value in found.items() if value}


def raw_events(data: bytes) -> list[Data]:
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    found = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return [json.loads(line) for line in found if line != b"[DONE]"]


def assert_nothing_is_lost(data: bytes, chunks: list[Data]) -> None:
    raw = [(choice["index"], choice.get("delta") or {}) for event in raw_events(data) for choice in event.get("choices") or []]
    got = [(choice["index"], choice["delta"]) for chunk in chunks for choice in chunk["choices"]]
    assert content_of(got) == content_of(raw)


def assert_well_formed(chunks: list[Data]) -> None:
    """One choice and one part a chunk, one role first and one finish reason per choice, one identity."""
    begun: set[int] = set()
    ended: set[int] = set()
    for chunk in chunks:
        assert set(chunk) <= {
            "id", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "provider_specific_fields"
        }  # fmt: skip
        assert len(chunk["choices"]) <= 1
        for choice in chunk["choices"]:
            assert ("role" in choice["delta"]) is (choice["index"] not in begun)
            begun.add(choice["index"])
            assert not (choice["delta"] and choice["finish_reason"])
            if choice["finish_reason"]:
                assert choice["index"] not in ended
                ended.add(choice["index"])
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks if chunk["choices"]}) <= 1


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
def test_a_good_stream_ends_well(name: str) -> None:
    """No shape that a provider sends is refused."""
    good(name)


@pytest.mark.parametrize(("name", "expected"), BROKEN.items())
def test_a_broken_stream_fails_after_what_it_said(name: str, expected: tuple[int, str]) -> None:
    """The chunks before the break are delivered, the error has the provider's status and words, and no finish is invented."""
    chunks, error = decode([stream(name)])
    assert error is not None
    assert (error.status, error.message) == expected
    assert deltas(chunks)[:1] == [{"role": "assistant"}]
    if name != "error_after_finish":
        assert deltas(chunks)[1:]


def test_two_calls_keep_their_own_arguments_however_they_interleave() -> None:
    """Index and id stay what they were."""
    for name in ("parallel_tools", "interleaved_tools"):
        assert content_of((0, delta) for delta in deltas(good(name))) == {
            (0, 0, "call_a", "name"): "get",
            (0, 0, "call_a", "arguments"): '{"x":1}',
            (0, 1, "call_b", "name"): "put",
            (0, 1, "call_b", "arguments"): '{"y":2}',
        }


@pytest.mark.parametrize(
    ("name", "text", "thinking"),
    [
        ("text", "Hi – ünï 🦊", ""),
        ("crlf", "Hi – ünï 🦊", ""),
        ("cr", "Hi – ünï 🦊", ""),
        ("several_data_lines", "Hi – ünï 🦊", ""),
        ("no_blank_line_at_end", "Hi – ünï 🦊", ""),
        ("no_space_and_comments", "Hi – ünï 🦊", ""),
        ("text_and_finish_in_one_chunk", "all of it", ""),
        ("text_after_tool", "beforeafter", ""),
        ("reasoning", "Done", "let me think"),
        ("reasoning_content", "Four", "hmm"),
        ("reasoning_details_only", "so", "why"),
        ("mistral_list", "Four.", "hmm"),
        ("cumulative_message", "ab", ""),
        ("usage_with_each_event", "The end", ""),
        ("line_separators_and_surrogates", "a\u2028b\u2029c\u0085d\u000be\ud83e\udd8a", ""),
    ],
)
def test_text_and_thinking_are_what_the_provider_wrote(name: str, text: str, thinking: str) -> None:
    """Whatever field the provider put them in, once."""
    found = content_of((0, delta) for delta in deltas(good(name)))
    assert (found.get((0, "text"), ""), found.get((0, "thinking"), "")) == (text, thinking)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("reused_index", [(0, "call_a", "get", '{"x":1}'), (0, "call_b", "put", '{"y":2}')]),
        ("two_calls_in_one_delta", [(0, "call_a", "get", '{"x":1}'), (1, "call_b", "put", '{"y":2}')]),
        ("tool_in_one_chunk", [(0, "call_a", "get", '{"x":1}')]),
        ("tool_and_finish_in_one_chunk", [(0, "call_a", "get", '{"x":1}')]),
        ("tool_without_arguments", [(0, "call_a", "now", "")]),
    ],
)
def test_calls_leave_one_a_chunk(name: str, calls: list[Any]) -> None:
    """With index, id, type and name as they came."""
    found = [delta["tool_calls"] for delta in deltas(good(name)) if "tool_calls" in delta]
    assert found == [
        [{"index": i, "id": id_, "type": "function", "function": {"name": label, "arguments": text}}]
        for i, id_, label, text in calls
    ]
    assert good(name)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_continuation_has_neither_id_nor_name_nor_type() -> None:
    """A repeated or empty one breaks the clients' accumulators."""
    found = [delta["tool_calls"][0] for delta in deltas(good("empty_id_and_name")) if "tool_calls" in delta]
    assert found[1] == {"index": 0, "function": {"arguments": '{"x":1}'}}


def test_a_custom_call_keeps_its_free_text() -> None:
    """Its input is not JSON and stays under `custom`."""
    found = [delta["tool_calls"][0] for delta in deltas(good("custom_tool")) if "tool_calls" in delta]
    assert found == [
        {"index": 0, "id": "call_a", "type": "custom", "custom": {"name": "shell", "input": ""}},
        {"index": 0, "custom": {"input": "ls "}},
        {"index": 0, "custom": {"input": "-l"}},
    ]


def test_a_legacy_function_call_is_a_tool_call() -> None:
    """With an id and a number of its own, and the finish reason of tool calls."""
    chunks = good("function_call")
    found = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    assert found == [
        {"index": 2**31, "id": "call_chatcmpl-corpus_0", "type": "function", "function": {"name": "get", "arguments": ""}},
        {"index": 2**31, "function": {"arguments": '{"x":1}'}},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_refusals_and_logprobs_stay_together() -> None:
    """Each chunk of text or refusal has its own logprobs, no other chunk has any."""
    for name, field, words in (("logprobs", "content", ["Yes", "!"]), ("refusal_logprobs", "refusal", ["No"])):
        told = [choice for chunk in good(name) for choice in chunk["choices"] if choice["logprobs"]]
        assert [choice["delta"] for choice in told] == [{field: word} for word in words]
        assert [choice["logprobs"][field][0]["token"] for choice in told] == words
    assert {"refusal": "I cannot"} in deltas(good("refusal"))


def test_choices_keep_their_own_text_role_and_finish() -> None:
    """Two answers that interleave are two answers."""
    chunks = good("two_choices")
    assert content_of((c["choices"][0]["index"], c["choices"][0]["delta"]) for c in chunks if c["choices"]) == {
        (0, "text"): "ab",
        (1, "text"): "xy",
    }
    ends = [
        (choice["index"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]
    ]
    assert ends == [(0, "stop"), (1, "length")]


@pytest.mark.parametrize(
    "name", ["text", "usage_on_finish_chunk", "usage_with_each_event", "azure_filter_first", "groq_usage", "reasoning_content"]
)
def test_usage_comes_once_after_the_finish_reason(name: str) -> None:
    """Wherever the provider put it, in a chunk without choices; it is the last one told."""
    chunks = good(name)
    assert [chunk["usage"] for chunk in chunks if "usage" in chunk] == [USAGE]
    assert chunks[-1]["choices"] == []
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop" if name != "azure_filter_first" else True


def test_usage_that_came_early_is_given_out_with_the_end() -> None:
    """A provider that tells usage before the finish reason, and not again, is not unheard."""
    early = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}\n\n'
    finish = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    for end in (b"", b"data: [DONE]\n\n"):
        chunks, error = decode([early, finish, end])
        assert error is None
        assert chunks[-1]["usage"] == {"prompt_tokens": 1}
        assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_audio_and_annotations_arrive_as_they_are() -> None:
    """The fields that the shape knows for them."""
    assert [delta["audio"] for delta in deltas(good("audio")) if "audio" in delta] == [
        {"id": "audio_1"},
        {"transcript": "Hel"},
        {"data": "AAAA"},
        {"expires_at": 1750000600},
    ]
    (annotated,) = [delta for delta in deltas(good("annotations")) if "annotations" in delta]
    assert annotated["annotations"][0]["url_citation"]["url"] == "https://example.org"


def test_a_stream_has_one_identity_from_its_first_words_on() -> None:
    """Azure's first event has neither id nor model nor time: it is a sign of life and does not name the stream."""
    chunks = good("azure_filter_first")
    assert chunks[0]["choices"] == []
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks[1:]} == {
        ("chatcmpl-corpus", "small-1", 1750000000)
    }


def test_a_provider_that_gives_no_time_gets_ours() -> None:
    """`created` is never 0."""
    chunks, _ = decode(
        [b'data: {"id":"c","created":0,"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'], created=42
    )
    assert {chunk["created"] for chunk in chunks} == {42}


def test_comments_are_signs_of_life() -> None:
    """One chunk without choices each, so that the stall timeout knows that the provider is there."""
    decoder = OpenAIDecoder(100, 1)
    assert [chunk["choices"] for chunk in decoder.feed(b": PROCESSING\n\n: PROCESSING\n\n")] == [[], []]


def test_the_same_finish_reason_twice_is_one() -> None:
    """OpenRouter repeats it."""
    finish = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"length"}]}\n\n'
    chunks, error = decode([finish, finish])
    assert error is None
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, "length"]


def test_an_error_keeps_the_provider_s_words() -> None:
    """Type, code and parameter for a client of the same wire; the type in Anthropic's names for everyone else."""
    _, error = decode([b'data: {"error":{"message":"Too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}\n\n'])  # fmt: skip # noqa: E501
    assert error is not None
    assert (error.status, error.type, error.code, error.param) == (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    )
    assert (error.raw or {})["message"] == "Too long"
    assert error.wire == "openai"


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        ('{"error":{"message":"x","code":"tool_use_failed","type":"invalid_request_error"}}', 400, "invalid_request_error"),
        ('{"error":{"message":"x","code":"529"}}', 529, "overloaded_error"),
        ('{"error":{"message":"x","code":200}}', 502, "api_error"),
        ('{"error":{"message":"x","type":"server_error","code":null}}', 500, "api_error"),
        ('{"error":"it broke"}', 502, "api_error"),
        ('{"type":"error","error":{"type":"overloaded_error","message":"x"}}', 529, "overloaded_error"),
        ('{"id":"c","choices":[],"x_groq":{"error":"stopped early"}}', 502, "api_error"),
    ],
)
def test_an_error_s_status_follows_from_its_type_or_code(sent: str, status: int, kind: str) -> None:
    """It is never 200, and 502 where nothing is known."""
    _, error = decode([f"data: {sent}\n\n".encode()])
    assert error is not None
    assert (error.status, error.type) == (status, kind)


def test_a_long_error_message_is_cut_and_an_empty_one_named() -> None:
    """2000 characters are enough for a client's log."""
    _, long = decode([b'data: {"error":{"message":"' + b"x" * 5000 + b'"}}\n\n'])
    _, empty = decode([b'data: {"error":{"message":""}}\n\n'])
    assert long is not None
    assert len(long.message) == 2000
    assert empty is not None
    assert empty.message == "the provider reported an error"


def test_an_error_in_the_middle_of_a_packet_loses_nothing_before_it() -> None:
    """`feed` returns what came before; the next call raises, whichever it is."""
    for following in ("feed", "finish"):
        decoder = OpenAIDecoder(1 << 20, 1)
        assert len(decoder.feed(stream("error_in_data"))) == 2
        with pytest.raises(BackendError, match="Rate limit reached"):
            decoder.feed(b"") if following == "feed" else decoder.finish()
        assert not decoder.finished


def test_an_event_that_is_too_large_ends_the_stream_after_what_came_before() -> None:
    """The limit's error is reported like any other."""
    decoder = OpenAIDecoder(300, 1)
    first = stream("text").split(b"\n\n")[0] + b"\n\n"
    assert decoder.feed(first + b"data: " + b"x" * 400 + b"\n\n")
    assert decoder.error is not None


def test_a_stream_without_anything_is_a_failure() -> None:
    """An empty 200, with or without the end mark, is no answer."""
    for packets in ([], [b"data: [DONE]\n\n"], [b": hello\n\n"]):
        _, error = decode(packets)
        assert error is not None
        assert error.message == "the provider's stream ended before an answer began"


def test_what_follows_the_end_is_ignored() -> None:
    """After `[DONE]` the answer is whole."""
    decoder = OpenAIDecoder(1 << 20, 1)
    decoder.feed(stream("text"))
    assert decoder.finished
    assert decoder.feed(b'data: {"error":"late"}\n\ndata: {oops\n\n') == []
    assert decoder.finish() == []


@pytest.mark.parametrize("data", [b"[1]", b'"x"', b"3", b"null", b"{", b"\xff", b"[" * 100_000])
def test_data_that_is_no_json_object_is_a_malformed_event(data: bytes) -> None:
    """Also JSON of another kind, bytes that are not UTF-8, and endless nesting."""
    _, error = decode([b"data: " + data + b"\n\n"])
    assert error is not None
    assert error.message == "the provider sent a malformed event"


def recorded_streams(folder: Path) -> list[tuple[Path, bytes]]:
    found = [path for path in sorted(folder.glob("*/*")) if path.parent.name not in {"anthropic", "openai-responses"}]
    return [(path, framed(path)) for path in found]


def framed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".sse":
        return data
    return b"".join(b"data: " + line + b"\n\n" for line in data.split(b"\n") if line.strip())


def test_recorded_streams_lose_nothing(recorded: Path) -> None:
    """Text, thinking, refusals and calls of every recording are what its events hold; only the one with an error fails."""
    streams = recorded_streams(recorded)
    assert len(streams) > 15
    for path, data in streams:
        chunks, error = decode([data])
        assert (error is not None) is (path.name == "pai-stream-error.sse"), path
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
    _, stream_ = data.draw(st.sampled_from(recorded_streams(recorded)))
    places = data.draw(st.lists(st.integers(0, len(stream_)), max_size=6))
    assert shown(decode(cut(stream_, places))) == shown(decode([stream_]))
