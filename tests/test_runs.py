"""Runs: what came together travels together, and nobody can tell but by the time it takes."""

from __future__ import annotations

import asyncio
import json
import re
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.backend.chunks import build
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.compose import Chain
from luthien_asgi.context import StreamContext
from luthien_asgi.errors import BackendError, ConfigError
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.policies import DenyTools, ReplaceText, UpperCase
from luthien_asgi.policy import Hold, Observe, Policy, Transform, blocking
from luthien_asgi.queues import StreamQueue
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import Answer, Text, Thinking, ToolCall, assert_policy_holds
from luthien_asgi.testing.chunk_builders import build_chunk
from luthien_asgi.testing.proof.cuts import Cut
from luthien_asgi.testing.proof.stage import Case, Stage, decoded, events_of
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.anthropic_encoder import AnthropicEncoder
from luthien_asgi.wire.decoding import EventDecoder
from luthien_asgi.wire.framing import framed
from luthien_asgi.wire.openai_decoder import OpenAIDecoder
from luthien_asgi.wire.openai_encoder import OpenAIEncoder
from luthien_asgi.wire.protocol import StreamEncoder
from luthien_asgi.wire.responses_encoder import ResponsesEncoder

CORPUS = Path(__file__).parent / "corpus"
STREAMS = sorted((wire, path) for wire in ("openai", "anthropic") for path in (CORPUS / wire).glob("*.sse"))
TEXTS = st.text(st.sampled_from('ab"\\,/\n\t\x7f é\u2028😀{}[]:'), max_size=8)
DECODERS: dict[str, type[EventDecoder]] = {"openai": OpenAIDecoder, "anthropic": AnthropicDecoder}


def decoder_of(wire: str) -> EventDecoder:
    return DECODERS[wire](1 << 20, 9)  # type: ignore[call-arg]  # both take these


def one_by_one(wire: str, data: bytes) -> tuple[list[Any], str]:
    """Read event by event, with a decoder that expects nothing: what parsing each event gives."""
    decoder = decoder_of(wire)
    decoder._tries = 1 << 30
    return _read(decoder, [data])


def _read(decoder: EventDecoder, packets: Iterable[bytes]) -> tuple[list[Any], str]:
    found: list[Any] = []
    try:
        for packet in packets:
            found += decoder.feed(packet)
        found += decoder.finish()
    except BackendError as error:
        return found, error.message
    return found, ""


def openai_events(texts: Sequence[str], *, write: Callable[[Any], str] = json.dumps) -> bytes:
    said = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    chunks = [{"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in said]
    end = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return b"".join(f"data: {write(chunk)}\n\n".encode() for chunk in (*chunks, end)) + b"data: [DONE]\n\n"


# --- decoders -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wire", "path"), STREAMS, ids=[f"{wire}-{path.stem}" for wire, path in STREAMS])
def test_every_stream_reads_as_it_does_event_by_event(wire: str, path: Path) -> None:
    """The same chunks and the same end, whole and in packets of an odd length."""
    data = path.read_bytes()
    expected = one_by_one(wire, data)
    assert _read(decoder_of(wire), [data]) == expected
    assert _read(decoder_of(wire), [data[at : at + 997] for at in range(0, len(data), 997)]) == expected


@given(st.lists(TEXTS, max_size=12), st.booleans())
def test_any_texts_read_as_they_do_event_by_event(texts: list[str], ascii_only: bool) -> None:
    """Quotes, commas, backslashes and empty texts among them: what separates two strings also stands in one."""
    data = openai_events(texts, write=lambda value: json.dumps(value, ensure_ascii=ascii_only))
    assert _read(decoder_of("openai"), [data]) == one_by_one("openai", data)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=4))
def test_any_bytes_in_the_place_of_a_text_read_as_they_do_event_by_event(bodies: list[bytes]) -> None:
    """Bytes that are no JSON string, or more than one, are what the parser says they are."""
    head, tail = openai_events(["one", "two"]).split(b'"two"')
    start = head.rpartition(b"data: ")[2]
    end = tail.partition(b"\n\n")[0]
    events = b"".join(b'data: %s"%s"%s\n\n' % (start, body, end) for body in bodies)
    data = head.rpartition(b"data: ")[0] + events + tail.partition(b"\n\n")[2]
    assert _read(decoder_of("openai"), [data]) == one_by_one("openai", data)


@pytest.mark.parametrize(
    "body",
    [
        b'a","content":"b',
        b'a"},"x":{"content":"b',
        b"a\\",
        b"\\",
        b'","',
        b"\xff",
        b"\\ud83d",
        b"a\nb",
        b'a"}}]}\n\ndata: {"x":"',
    ],
)
def test_what_would_be_something_else_than_a_text_is_read_as_that(body: bytes) -> None:
    """A provider's text cannot become structure, nor structure text."""
    data = openai_events(["one", "two", "HERE", "three"]).replace(b"HERE", body)
    assert _read(decoder_of("openai"), [data]) == one_by_one("openai", data)


@pytest.mark.parametrize("twin", ["one", "assistant", "m", "c", "content", "stop"])
def test_a_text_that_also_stands_elsewhere_is_told_apart(twin: str) -> None:
    """The place of the text is found by trying, not by its looks."""
    data = openai_events([twin, twin, "other"])
    found = [chunk["choices"][0]["delta"] for chunk in _read(decoder_of("openai"), [data])[0] if chunk["choices"]]
    assert [delta["content"] for delta in found if "content" in delta] == [twin, twin, "other"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('"usage":{"prompt_tokens":-1,"content":"one"}', '"usage":{"prompt_tokens":-1,"content":"HIDDEN"}'),
        ('"provider_specific_fields":{"content":"one"}', '"provider_specific_fields":{"content":"HIDDEN"}'),
        ('"x":0,"usage":{"content":"\u2307","prompt_tokens":-1}', '"x":0,"usage":{"content":"HIDDEN","prompt_tokens":-1}'),
    ],
)
def test_a_twin_that_nobody_reads_is_no_text(first: str, second: str) -> None:
    """Where a field is passed over, what stands in it is not the text, though it reads the same once."""
    said = "\u2307" if "\u2307" in first else "one"
    frame = 'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}],%s}\n\n'
    begin = 'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    data = (begin + frame % (said, first) + frame % (said, second)).encode()
    found = one_by_one("openai", data)
    assert "HIDDEN" not in str(found)
    assert _read(decoder_of("openai"), [data]) == found


def test_reasoning_in_two_fields_is_the_one_that_counts() -> None:
    """An empty `reasoning_content` leaves the word to `reasoning`."""
    event = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"reasoning_content":"","reasoning":"%s"}}]}\n\n'
    data = b"".join(event % text for text in (b"a", b"b", b"c"))
    decoder = decoder_of("openai")
    assert _read(decoder, [data]) == one_by_one("openai", data)


def test_a_run_says_what_its_chunks_say() -> None:
    """Its part is theirs but for the text, for each kind, on both wires."""
    answer = Answer(Text("a", "b", "c", "d"), ToolCall("call_1", "f", '{"x":1}', cuts=(2, 3, 4, 5)))
    for wire in ("openai", "anthropic"):
        runs = [item for item in decoded(events_of(answer, wire), wire, together=True) if isinstance(item, Run)]
        assert {run.part.kind for run in runs} == {BlockKind.TEXT, BlockKind.TOOL_CALL}
        for run in runs:
            assert [read_part(chunk) for chunk in run.chunks()] == [run.part._replace(text=text) for text in run.texts]
            assert run.size == sum(len(text) + 64 for text in run.texts)


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_chunk_that_was_changed_in_place_changes_none_after_it(wire: str) -> None:
    """Policies may do that to the chunks that they get."""
    events = events_of(Answer(Text("a", "b", "c"), ToolCall("call_1", "f", '{"x":1}', cuts=(2, 3, 4, 5))), wire)  # type: ignore[arg-type]
    decoder = decoder_of(wire)
    found: list[Any] = []
    for event in events:
        for item in decoder.feed_runs(event):
            chunks = item.made_by(build).chunks() if isinstance(item, Run) else [build(item)]
            found += map(read_part, chunks)
            for chunk in chunks:
                for choice in chunk.choices:
                    choice.__pydantic_extra__.clear()
                (chunk.provider_specific_fields or {}).clear()  # type: ignore[attr-defined]  # a field of LiteLLM's class
    expected, _ = one_by_one(wire, b"".join(events))
    assert found == [read_part(build(data)) for data in expected]


def test_a_field_that_changes_with_every_event_costs_a_few_tries_and_no_more() -> None:
    """Some providers pad each event: then each is parsed."""
    padded = [b"%d" % n for n in range(20)]
    data = b"".join(
        b'data: {"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"x"}}],"nonce":"%s"}\n\n' % pad
        for pad in padded
    )
    decoder = OpenAIDecoder(1 << 20, 9)
    first = b'data: {"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    found = decoder.feed_runs(first + data)
    assert not any(isinstance(item, Run) for item in found)
    assert len(found) == 21


def test_a_large_event_costs_no_more_than_to_read_it() -> None:
    """What is looked for in the bytes of an event is not looked for in megabytes."""
    begin, large, _ = openai_events(["x" * 500_000]).split(b"\n\n", 2)
    decoder = decoder_of("openai")
    decoder.feed_runs(begin + b"\n\n")
    tracemalloc.start()
    try:
        (item,) = decoder.feed_runs(large + b"\n\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not isinstance(item, Run)
    assert peak < 5_000_000


def _padded_events(texts: Sequence[str], paddings: Sequence[str]) -> bytes:
    events = openai_events(texts).split(b"\n\n")[:-1]
    pads = cycle(paddings)
    for place, event in enumerate(events):
        if event.startswith(b"data: {"):
            said = json.loads(event[6:]) | {"obfuscation": next(pads)}
            events[place] = b"data: " + json.dumps(said).encode()
    return b"\n\n".join([*events, b""])


@given(st.lists(TEXTS, max_size=12), st.lists(st.sampled_from(["", "aB3", "x" * 20, "a b", 'a"', "é", "\\"]), min_size=1))
def test_events_that_are_padded_with_a_string_read_as_they_do_event_by_event(texts: list[str], paddings: list[str]) -> None:
    """The padding comes out again; one that is not letters and digits is read as what it is."""
    data = _padded_events(texts, paddings)
    assert _read(decoder_of("openai"), [data]) == one_by_one("openai", data)
    before = re.sub(rb'\{(.*), ("obfuscation": .*)\}\n', rb"{\2, \1}\n", data)
    assert _read(decoder_of("openai"), [before]) == one_by_one("openai", before)


def test_a_padding_that_is_too_long_for_one_is_looked_at() -> None:
    """It may be a text: the gate of what a provider says beside the answer has to see it."""
    decoder = decoder_of("openai")
    items = decoder.feed_runs(_padded_events(["a", "b", "c", "d"], ["x", "x" * 64, "x" * 65, "x"]))
    assert [item.texts for item in items if isinstance(item, Run)] == [["c", "d"]]


def test_padded_events_are_a_run_and_their_padding_leaves_with_each_frame() -> None:
    """So that the length of a frame tells the client's network no more than the provider's did."""
    decoder = decoder_of("openai")
    items = decoder.feed_runs(_padded_events(["a", "b", "c", "d"], ["Q1", "Rr2", "S"]))
    (run,) = [item for item in items if isinstance(item, Run)]
    assert list(run.texts) == ["b", "c", "d"]
    whole, single = encoders("openai")
    frames = b"".join(_fed(whole, items))
    assert frames == b"".join(_fed(single, [data for item in items for data in _apart(item)]))
    assert frames.count(b'"obfuscation"') >= 4
    assert len(run.with_texts(["x"] * 7).data()) == 7
    assert [d["choices"][0]["delta"]["content"] for d in run.after(1).data()] == ["c", "d"]


@given(st.lists(TEXTS, min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_spaces_before_the_last_brace_are_no_difference(texts: list[str], spaces: list[int]) -> None:
    """Anthropic pads its events with them."""
    plain = b"".join(events_of(Answer(Text(*texts, "end")), "anthropic"))
    padded = b""
    for place, event in enumerate(plain.split(b"\n\n")):
        padded += (event[:-1] + b" " * spaces[place % len(spaces)] + b"}\n\n") if event.endswith(b"}") else event
    assert _read(decoder_of("anthropic"), [padded]) == _read(decoder_of("anthropic"), [plain]) == one_by_one("anthropic", padded)
    if all(texts) and len(texts) > 2:
        assert any(isinstance(item, Run) for item in decoder_of("anthropic").feed_runs(padded))


# --- encoders -----------------------------------------------------------------------------------------------------------------


def encoders(client: str, *, collect: bool = False) -> list[StreamEncoder]:
    request = ChatRequest(wire="openai", body={"model": "m", "messages": [], "stream_options": {"include_usage": True}})

    def make() -> StreamEncoder:
        if client == "anthropic":
            return AnthropicEncoder(model="m", id="1", input_tokens=3, collect=collect)
        kind: Any = OpenAIEncoder if client == "openai" else ResponsesEncoder
        encoder: StreamEncoder = kind(request, settings=StreamSettings(), id="1", created=7, collect=collect)
        return encoder

    return [make(), make()]


@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize(("wire", "path"), STREAMS, ids=[f"{wire}-{path.stem}" for wire, path in STREAMS])
def test_a_run_s_frames_are_those_of_its_chunks(client: str, wire: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, and the same body for a client that does not stream."""
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)  # it is in the frames
    decoder = decoder_of(wire)
    try:
        items = decoder.feed_runs(path.read_bytes())
        items += decoder.finish()
    except BackendError:
        pass
    for collect in (False, True):
        whole, single = encoders(client, collect=collect)
        assert b"".join(_fed(whole, items)) == b"".join(_fed(single, [d for i in items for d in _apart(i)]))
        assert whole.omitted == single.omitted


def _apart(item: Any) -> list[Any]:
    return item.data() if isinstance(item, Run) else [item]


def _fed(encoder: StreamEncoder, items: Iterable[Any]) -> list[bytes]:
    frames: list[bytes] = []
    try:
        for item in items:
            frames += encoder.feed_run(item.made_by(build)) if isinstance(item, Run) else encoder.feed(build(item))
        frames += encoder.finish()
    except Exception as error:
        return [*frames, type(error).__name__.encode()]
    return frames


@given(st.lists(TEXTS, min_size=1, max_size=9))
def test_frames_written_together_are_those_written_one_by_one(texts: list[str]) -> None:
    """Whatever the texts hold."""
    assert framed(b"<", texts, b">") == b"".join(framed(b"<", [text], b">") for text in texts)


def test_a_lone_surrogate_is_written_too() -> None:
    """As the escape that it is in JSON."""
    assert framed(b"", ["a", "\ud83d"], b"\n") == b'"a"\n"\\ud83d"\n'


# --- policies -----------------------------------------------------------------------------------------------------------------


class _Counting(Policy):
    """Counts how its hooks are called."""

    handles: ClassVar[Any] = {BlockKind.TEXT: Transform()}

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self.runs: list[list[str]] = []

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        del ctx
        self.chunks.append(read_part(chunk).text)

    def on_run_added(self, run: Run, ctx: StreamContext) -> Sequence[str] | None:
        del ctx
        self.runs.append(list(run.texts))
        return None


class _Older(_Counting):
    """Knows nothing of runs, and inherits from one that does."""

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Any:
        super().on_chunk_added(chunk, ctx)
        return ()


def as_written(answer: Answer) -> Cut:
    """Return the cut in which an answer's texts stand, and its calls whole."""
    texts = [part.fragments if isinstance(part, Text) else () for part in answer.parts]
    return Cut(tuple(tuple(accumulate(map(len, fragments))) for fragments in texts))


async def _run(policy: Any, answer: Answer, *, client: WireName = "openai", provider: WireName = "openai") -> Any:
    stage = Stage(make=lambda: policy, runs=1)
    return await stage.run(Case(answer, as_written(answer), client=client, provider=provider))


async def test_a_policy_gets_a_run_as_one_and_every_text_once() -> None:
    """The first chunk of a block comes alone: only then is it known how its like looks."""
    policy = _Counting()
    run = await _run(policy, Answer(Text("a", "b", "c", "d")))
    assert (policy.chunks, policy.runs) == (["a"], [["b", "c", "d"]])
    assert run.text == "abcd"


async def test_a_class_that_knows_nothing_of_runs_is_asked_about_each_chunk() -> None:
    """Also where the class that it is made of knows them: its own hook would be passed by."""
    policy = _Older()
    run = await _run(policy, Answer(Text("a", "b", "c", "d")))
    assert (policy.chunks, policy.runs) == (["a", "b", "c", "d"], [])
    assert run.text == StreamSettings().empty_notice
    assert PolicyPlan.of(policy).on_run_added is None


class _Wrong(_Counting):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def on_run_added(self, run: Run, ctx: StreamContext) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize("result", ["bcd", [1], 5, RuntimeError("no")])
async def test_a_hook_that_gives_something_else_than_texts_ends_the_answer(result: Any) -> None:
    """Fail closed: nothing of the run leaves."""
    run = await _run(_Wrong(result), Answer(Text("a", "b", "c", "d")))
    assert run.record is not None
    assert run.record.ending == "failed"
    assert b"bcd" not in b"".join(run.frames)


async def test_texts_that_are_kept_back_or_empty_give_no_chunk() -> None:
    """What comes back is what goes on, one chunk each."""
    run = await _run(_Wrong(["B", "", "D"]), Answer(Text("a", "b", "c", "d")))
    assert run.text == "aBD"


def test_a_hook_for_runs_stands_beside_one_for_chunks() -> None:
    """Else the first chunk of each block would pass nobody."""

    class Alone(Policy):
        handles: ClassVar[Any] = {BlockKind.TEXT: Transform()}

        def on_run_added(self, run: Run, ctx: StreamContext) -> Any:
            del run, ctx

    with pytest.raises(ConfigError, match="Alone overrides on_run_added without on_chunk_added"):
        PolicyPlan.of(Alone())


def test_an_object_s_own_hook_for_chunks_is_not_passed_by() -> None:
    """It is nearer than what its class does with runs."""
    policy = UpperCase()
    assert PolicyPlan.of(policy).on_run_added is not None
    policy.on_chunk_added = lambda chunk, ctx: ()  # type: ignore[method-assign]
    assert PolicyPlan.of(policy).on_run_added is None


def test_a_hook_for_runs_returns_at_once() -> None:
    """It has no time of its own, so it is no coroutine and does not block."""

    class Slow(_Counting):
        async def on_run_added(self, run: Run, ctx: StreamContext) -> Any:  # type: ignore[override]
            del run, ctx

    class Blocking(_Counting):
        @blocking
        def on_run_added(self, run: Run, ctx: StreamContext) -> Any:
            del run, ctx

    for policy in (Slow(), Blocking()):
        with pytest.raises(ConfigError, match="on_run_added has to return at once"):
            PolicyPlan.of(policy)


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("fobar"), min_size=1, max_size=4), min_size=2, max_size=12))
def test_replacing_in_runs_is_replacing_in_chunks(texts: list[str]) -> None:
    """The same text, in a chain too, where one policy's run is the next one's."""
    answer = Answer(Text(*texts))
    for make in (
        lambda: ReplaceText(replacements=[["foo", "X"], ["bar", ""]]),
        lambda: Chain([ReplaceText(replacements=[["foo", "bar"]]), UpperCase(), ReplaceText(replacements=[["BAR", "o"]])]),
    ):
        both = [asyncio.run(Stage(make=make, runs=runs).run(Case(answer, as_written(answer)))) for runs in (0, 1)]
        assert both[0].text == both[1].text
        kept = [[(b.kind, b.text) for b in run.record.final_blocks] for run in both if run.record is not None]
        assert kept[0] == kept[1]


async def test_a_call_that_waits_is_kept_and_leaves_as_it_came() -> None:
    """With the provider's cuts, for a client of the other format, which gets its calls at the end."""
    arguments = '{"command": "ls -la /tmp", "why": "to look"}'
    answer = Answer(Text("I look."), ToolCall("call_1", "run", arguments), finish="tool_calls")
    cut = Cut(((), tuple(range(1, len(arguments)))))
    for policy in (UpperCase(), DenyTools(names=["other"])):
        both = [
            await Stage(make=lambda policy=policy: policy, runs=runs).run(Case(answer, cut, client="anthropic"))  # type: ignore[misc]
            for runs in (0, 1)
        ]
        assert both[0].frames[1:] == both[1].frames[1:]
        assert b"".join(both[0].frames).count(b"input_json_delta") == len(arguments)


class _Whole(Policy):
    """Sees whole characters, in runs too; holds nothing and changes nothing but the case."""

    handles: ClassVar[Any] = {BlockKind.TOOL_CALL: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Any:
        del ctx
        text = read_part(chunk).text
        text.encode()
        return (with_text(chunk, text.upper()),) if text else None

    def on_run_added(self, run: Run, ctx: StreamContext) -> Sequence[str] | None:
        del ctx
        return [text.encode().decode().upper() for text in run.texts]


class _Allowing(Policy):
    """Holds everything and lets it through."""

    handles: ClassVar[Any] = dict.fromkeys((BlockKind.TEXT, BlockKind.THINKING, BlockKind.TOOL_CALL), Hold())

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        del block, ctx


class _Seeing(Policy):
    """Keeps what each chunk says."""

    handles: ClassVar[Any] = {BlockKind.TEXT: Observe(), BlockKind.THINKING: Observe()}

    def __init__(self) -> None:
        self.parts: list[Any] = []

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        del ctx
        self.parts.append(read_part(chunk))


@pytest.mark.parametrize(
    "texts",
    [["text", "text", "x"], ["text", "delta", "x", "y"], ["a", "text", "delta"], ["thinking", "thinking", "redacted_thinking"]],
)
@pytest.mark.parametrize("kind", [Text, Thinking])
async def test_a_held_text_that_also_stands_elsewhere_is_told_apart(kind: Any, texts: list[str]) -> None:
    """A model may write the very words that its provider's events, and our chunks, are made of."""
    data = b"".join(events_of(Answer(kind(*texts), Text("end")), "anthropic"))
    seen = []
    for together in (False, True):
        decoder = decoder_of("anthropic")
        decoder._tries = 0 if together else 1 << 30
        items = decoder.feed_runs(data)
        assert any(isinstance(item, Run) for item in items) is together
        steps = [item.made_by(build) if isinstance(item, Run) else build(item) for item in items]
        policy = _Seeing()
        run = await Stage(make=lambda policy=policy: Chain([_Allowing(), policy])).play(Case(Answer(Text("x"))), steps)  # type: ignore[misc]
        seen.append((policy.parts, run.frames))
    assert seen[0] == seen[1]
    assert [part.text for part in seen[1][0] if part.text] == [*texts, "end"]


async def test_halves_of_a_character_that_were_held_are_whole_for_the_next_policy() -> None:
    """As they are when chunks come one by one."""
    arguments = ['{"a": "', "\ud83d", "\ude00", "b", '"}']
    opening = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    said = [
        {"content": "I look."},
        {"tool_calls": [opening]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in arguments),
    ]
    head = {"id": "c", "created": 1, "model": "m"}
    data = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}]} for delta in said]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls", "logprobs": None}]}
    steps = [build_chunk(each) for each in (*data, end)]
    case = Case(Answer(Text("x")))
    run = await Stage(make=lambda: Chain([_Allowing(), _Whole()])).play(case, steps)
    assert [call.text for call in run.tool_calls] == ['{"A": "\U0001f600B"}']


class _Other(Policy):
    """Lets chunks pass, and does something else to runs."""

    handles: ClassVar[Any] = {BlockKind.TEXT: Transform()}

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        del chunk, ctx

    def on_run_added(self, run: Run, ctx: StreamContext) -> Any:
        del ctx
        return self.kind(text for text in run.texts[1:]) if self.kind is not str else "".join(run.texts)


@pytest.mark.parametrize("kind", [list, str, iter])
def test_the_kit_tells_a_hook_for_runs_that_does_something_else(kind: type) -> None:
    """By a promise of its own: it drops a text, or returns what is no list of texts."""
    with pytest.raises(AssertionError, match="fragments that come together give something else than one by one"):
        assert_policy_holds(_Other(kind), answers=["Some words."], cuts=1)


# --- the queue ----------------------------------------------------------------------------------------------------------------


def test_a_run_takes_the_room_of_its_chunks() -> None:
    """In items and in bytes; one that is larger than the queue goes chunk by chunk."""
    queue = StreamQueue[str](max_items=5, max_bytes=100, timeout=1)
    assert queue.has_room(100, 5)
    assert not queue.has_room(101, 2)
    assert not queue.has_room(10, 6)
    queue.hand("run", 60, 4)
    assert len(queue) == 4
    assert queue.has_room(40)
    assert not queue.has_room(40, 2)
    assert not queue.has_room(41)


async def test_a_small_queue_gets_the_chunks_one_by_one() -> None:
    """The bounds of an answer hold whatever came together."""
    answer = Answer(Text(*(f"{n} " for n in range(40))))
    stage = Stage(make=UpperCase, runs=1, settings=StreamSettings(queue_size=3))
    run = await stage.run(Case(answer, as_written(answer)))
    assert run.text == "".join(f"{n} " for n in range(40))
