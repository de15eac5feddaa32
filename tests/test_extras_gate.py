"""Fields of a provider's own under a policy: nothing of what it removes reaches the client beside what it judged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import pytest

from luthien_asgi import Allow, BackendError, Block, BlockKind, Chunk, Deny, Hold, Observe, Policy, Transform, Verdict, with_text
from luthien_asgi.context import StreamContext
from luthien_asgi.request import WireName
from luthien_asgi.testing import PolicyRun, ScriptedBackend, build_chunk, chunks, run_policy
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.openai_decoder import OpenAIDecoder

CANARY: Final = "the secret CANARY word"
USAGE: Final = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def script(*events: dict[str, Any]) -> list[Chunk]:
    """Return the chunks of a provider's events, with its finish and usage after them."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    ending = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}]
    if "usage" in events[-1]:
        events, ending = events[:-1], [ending[0], events[-1]]
    said = b"".join(b"data: " + json.dumps({**head, **event}).encode() + b"\n\n" for event in [*events, *ending])
    decoder = OpenAIDecoder(1 << 20, 1)
    data = [*decoder.feed(said + b"data: [DONE]\n\n"), *decoder.finish()]
    assert decoder.error is None
    return [build_chunk(one) for one in data]


def event(delta: dict[str, Any], *, beside: Mapping[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None, **(beside or {})}], **top}


class HoldAll(Policy):
    """Looks where a policy looks: at text, name and arguments, and at what else a block has."""

    handles: ClassVar = dict.fromkeys(BlockKind, Hold())

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("[removed]") if "CANARY" in f"{block.text}{block.name}{block.raw}" else None


class Watch(Policy):
    """Only observes."""

    handles: ClassVar = dict.fromkeys(BlockKind, Observe())

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Allow()


class Mask(Policy):
    """Transforms text, by a copy or in place."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def __init__(self, change: Callable[[Chunk, str], Chunk]) -> None:
        self.change = change

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        return [self.change(chunk, "****")]


def in_place(chunk: Chunk, text: str) -> Chunk:
    chunk.choices[0].delta.content = text
    return chunk


TEXT: Final = {"content": "fine"}
TOKEN: Final = {"token": CANARY, "logprob": 0.0, "bytes": None, "top_logprobs": []}
PLACES: Final[dict[str, dict[str, Any]]] = {
    "unknown field of a delta": event({**TEXT, "speech": CANARY}),
    "unknown field of a choice": event(TEXT, beside={"message": {"role": "assistant", "content": CANARY}}),
    "unknown field of a chunk": event(TEXT, summary=CANARY),
    "unknown field of an event without choices": {"choices": [], "summary": CANARY},
    "unknown field of an event without text": event({}, beside={"raw_output": {"completion": CANARY}}),
    "known name, unknown use": event(TEXT, provider=CANARY * 9),
    "citations": event(TEXT, citations=["https://a.example/" + CANARY]),
    "search results": event(TEXT, search_results=[{"title": CANARY}]),
    "tokens": event(TEXT, beside={"tokens": CANARY.split()}),
    "reasoning details": event({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": CANARY}]}),
    "reasoning details alone": event({"reasoning_details": [{"type": "reasoning.encrypted", "data": CANARY}]}),
    "another reasoning": event({"reasoning_content": "hm", "reasoning": CANARY}),
    "a call's own field": event(
        {"tool_calls": [{"index": 0, "id": "1", "type": "function", "notes": CANARY, "function": {"name": "f", "arguments": ""}}]}
    ),
    "a call's bound field": event(
        {"tool_calls": [{"index": 0, "id": "1", "extra_content": {"x": CANARY}, "function": {"name": "f", "arguments": "{}"}}]}
    ),
    "a function's own field": event(
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "", "x": CANARY}}]}
    ),
    "an image": event({"images": [{"type": "image_url", "image_url": {"url": CANARY}}]}),
    "audio": event({"audio": {"id": "a", "data": "", "expires_at": 1, "transcript": CANARY}}),
    "annotations": event({**TEXT, "annotations": [{"type": "url_citation", "url_citation": {"title": CANARY}}]}),
    "usage": {"choices": [], "usage": {**USAGE, "remarks": CANARY * 9}},
    "a name in the usage": {"choices": [], "usage": {**USAGE, CANARY: 1}},
    "a name in a detail of the usage": {"choices": [], "usage": {**USAGE, "completion_tokens_details": {CANARY: 1}}},
    "a name within the usage": {"choices": [], "usage": {**USAGE, "cost_details": {"upstream": [{CANARY: 1}]}}},
    "a name in a harmless field": event(TEXT, timings={"a": {CANARY: 1}}),
    "beside the finish": {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "explanation": CANARY}]},
    "logprobs beside the finish": {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": {"content": [TOKEN], "refusal": None}}]
    },
}  # fmt: skip


def raw(run: PolicyRun) -> bytes:
    assert run.status == 200
    assert run.error is None
    return b"".join(run.frames)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_a_canary_is_caught_wherever_a_provider_may_put_it(place: str, stream: bool, client: WireName) -> None:
    """Judged as part of a block, or left out."""
    run = await run_policy(
        HoldAll(), script(event({"role": "assistant", "content": "Hi"}), PLACES[place]), client=client, stream=stream
    )
    assert b"CANARY" not in raw(run)
    assert run.text in {"Hi", "Hifine", "Hi[removed]", "[removed]", "Hi\n\n[removed]"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("policy", [Policy(), Watch()], ids=["none", "observing"])
async def test_everything_passes_where_nobody_is_in_charge(place: str, stream: bool, policy: Policy) -> None:
    """Streamed and not, at an OpenAI client."""
    run = await run_policy(policy, script(event({"role": "assistant", "content": "Hi"}), PLACES[place]), stream=stream)
    said = raw(run).decode()
    # A body has a choice's own message and no other.
    assert ("CANARY" in said) is (stream or place != "unknown field of a choice")
    assert run.record is not None
    assert not [note for note in run.record.notes if "policy" in note]


@pytest.mark.parametrize("change", [with_text, in_place])
@pytest.mark.parametrize("place", ["citations", "tokens", "annotations", "unknown field of a delta"])
async def test_what_tells_of_a_text_goes_with_it_when_it_is_changed(change: Callable[[Chunk, str], Chunk], place: str) -> None:
    """Whether the policy makes a copy or edits in place."""
    logprobs = {"content": [TOKEN], "refusal": None}
    hot = event({"role": "assistant", **TEXT}, beside={"logprobs": logprobs, "token_ids": [4711], "stop_reason": None})
    run = await run_policy(Mask(change), script(hot, PLACES[place], event(TEXT, x_groq={"id": "r1"})))
    said = raw(run)
    assert run.text == "****" * 3
    assert b"CANARY" not in said
    assert b"4711" not in said
    assert b'"x_groq":{"id":"r1"}' in said


async def test_what_a_policy_leaves_as_it_is_keeps_what_belongs_to_it() -> None:
    """Bound fields are held and released with their block, harmless ones pass, the rest is noted once."""
    beside = {"token_ids": [7], "content_filter_results": {"hate": {"filtered": False}}}
    told = event({"content": "a", "speech": "x"}, beside=beside, citations=["https://a.example"], provider="Google AI Studio")
    run = await run_policy(HoldAll(), script(event({"role": "assistant"}), told, told))
    said = raw(run).decode()
    assert run.text == "aa"
    for kept in ('"token_ids":[7]', '"citations":["https://a.example"]', '"provider":"Google AI Studio"', '"filtered":false'):
        assert said.count(kept) == 2
    assert "speech" not in said
    assert run.record is not None
    assert run.record.notes == ("left out, because the policy could not judge it: speech",)


async def test_thinking_under_another_name_passes_with_the_thinking() -> None:
    """The same words: what was judged."""
    run = await run_policy(HoldAll(), script(event({"role": "assistant", "reasoning": "hm"}), event({"content": "a"})))
    assert raw(run).count(b'"reasoning":"hm"') == 1


async def test_a_denied_block_takes_its_fields_along() -> None:
    """Nothing of what was held with it is left."""
    told = event({"content": CANARY}, beside={"token_ids": [4711]}, citations=["https://hidden.example"])
    run = await run_policy(HoldAll(), script(event({"role": "assistant"}), told))
    assert run.text == "[removed]"
    assert b"4711" not in raw(run)
    assert b"hidden" not in raw(run)


async def test_an_anthropic_client_gets_none_of_it_and_the_record_says_so() -> None:
    """Images and citation lists have no place in a message."""
    images = event({"images": [{"type": "image_url", "image_url": {"url": "data:,x"}}]})
    told = event({"content": "a"}, citations=["https://a.example"], provider="p", obfuscation="xx")
    run = await run_policy(Policy(), script(event({"role": "assistant"}), told, images), client="anthropic")
    assert run.body["content"] == [{"type": "text", "text": "a"}]
    assert run.record is not None
    assert {"citations", "provider", "message.images"} <= set(run.record.ignored)


async def test_an_answer_with_gaps_between_its_choices_is_the_providers_error() -> None:
    """The client gets a legal stream that ends in an error."""
    only_third = {"choices": [{"index": 3, "delta": {"role": "assistant", "content": "a"}, "finish_reason": None}]}
    ended = {"choices": [{"index": 3, "delta": {}, "finish_reason": "stop"}]}
    chunks = [chunk for chunk in script(only_third, ended) if not chunk.choices or chunk.choices[0].index]
    run = await run_policy(Policy(), chunks)
    assert run.error is not None
    assert run.error["message"] == "The provider's answer has no choice 0."
    assert run.record is not None
    assert run.record.ending == "failed"


@pytest.mark.parametrize(("policy", "status"), [(HoldAll(), 400), (Mask(with_text), 400), (Watch(), 200), (Policy(), 200)])
async def test_a_spoken_answer_is_refused_where_a_policy_may_alter_text(policy: Policy, status: int) -> None:
    """When the request comes in, by name."""
    asked = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    run = await run_policy(policy, script(event({"role": "assistant", "content": "a"})), request=asked)
    assert run.status == status
    assert (run.error or {}).get("param") == ("modalities" if status == 400 else None)
    assert (len(run.backend.calls) == 0) is (status == 400)


@pytest.mark.parametrize(("handling", "kept"), [(Hold(), False), (Observe(), True)])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_error_quotes_of_the_answer_is_held_back_too(handling: Any, kept: bool, stream: bool) -> None:
    """Groq's error says what the model wrote instead of a call; a policy in charge has not judged it."""

    class Judge(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: handling}

        def on_block_complete(self, block: Block, ctx: Any) -> Verdict:
            return Allow()

    raw = {"message": "no call", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "canary in it"}
    error = BackendError("no call", status=400, code="tool_use_failed", raw=raw, wire="openai")
    for script in ([error], [[*chunks("Hel", finish_reason=None), error]]):
        run = await run_policy(Judge(), ScriptedBackend(script), stream=stream)
        assert run.error is not None
        assert (run.error["message"], run.error["code"]) == ("no call", "tool_use_failed")
        assert (b"canary" in b"".join(run.frames)) == kept


ANTHROPIC: Final[list[dict[str, Any]]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "usage": {"input_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
LONG: Final = f"{CANARY} with more words after it than any name that a provider's machinery gives to something"
SAID: Final[dict[str, tuple[int, tuple[str, ...], Any]]] = {
    "an event's field": (0, ("note",), LONG),
    "a message's field": (0, ("message", "note"), [LONG]),
    "a message's id": (0, ("message", "id"), LONG),
    "a message's model": (0, ("message", "model"), LONG),
    "a field of the usage": (0, ("message", "usage", "note"), {"a": [{"b": LONG}]}),
    "a name in the usage": (0, ("message", "usage", LONG), 1),
    "the opening of a block": (1, ("note",), CANARY),
    "a short name in the usage": (0, ("message", "usage", CANARY), 1),
    "a name within the usage": (0, ("message", "usage", "server_tool_use"), {CANARY: 1}),
    "a name in a list of the usage": (4, ("usage", "iterations"), [{"type": "message", CANARY: 1}]),
    "a name within the last usage": (4, ("usage", "output_tokens_details"), {CANARY: 1}),
    "what stopped it": (4, ("delta", "stop_sequence"), CANARY),
    "what stopped it, in one word": (4, ("delta", "stop_sequence"), "CANARY"),
    "what stopped it, at the start": (0, ("message", "stop_sequence"), CANARY),
    "why it ended": (4, ("delta", "stop_details"), {"type": "refusal", "explanation": LONG}),
    "the last usage": (4, ("usage", "note"), LONG),
}


@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("what", SAID)
async def test_no_sentence_leaves_beside_what_an_anthropic_provider_says(what: str, stream: bool, client: WireName) -> None:
    """In what is no part of a block: the frame of a message, names of fields included."""
    said = copy.deepcopy(ANTHROPIC)
    place, path, value = SAID[what]
    at = said[place]
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    decoder = AnthropicDecoder(1 << 20, 1)
    data = decoder.feed(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said))
    assert decoder.error is None
    backend = ScriptedBackend([build_chunk(one) for one in (*data, *decoder.finish())], wire="anthropic")
    run = await run_policy(HoldAll(), backend, client=client, stream=stream)
    assert b"CANARY" not in b"".join(run.frames)
    assert run.text in {"Hi", "[removed]"}


STOPS: Final[dict[str, tuple[WireName, Any, str | None]]] = {
    "Anthropic's": ("anthropic", {"stop_sequences": ["x", LONG]}, LONG),
    "OpenAI's list": ("openai", {"stop": [LONG]}, None),
    "OpenAI's text": ("openai", {"stop": LONG}, None),
    "another": ("anthropic", {"stop_sequences": [LONG + "."]}, None),
    "none": ("anthropic", {}, None),
    "a longer one": ("anthropic", {"stop_sequences": [LONG * 2]}, None),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("policy", [HoldAll(), Mask(with_text), Watch()])
@pytest.mark.parametrize("which", STOPS)
async def test_what_stopped_an_answer_is_told_where_the_client_asked_for_it(which: str, policy: Policy, stream: bool) -> None:
    """Its own words, at any length; a policy that only observes keeps no provider from saying others."""
    client, asked, told = STOPS[which]
    said = copy.deepcopy(ANTHROPIC)
    said[4]["delta"] = {"stop_reason": "stop_sequence", "stop_sequence": LONG}
    decoder = AnthropicDecoder(1 << 20, 1)
    data = decoder.feed(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said))
    backend = ScriptedBackend([build_chunk(one) for one in (*data, *decoder.finish())], wire="anthropic")
    run = await run_policy(policy, backend, client=client, stream=stream, request=asked)
    assert run.status == 200
    assert run.record is not None
    note = "left out, because the policy could not judge it: stop_sequence"
    observed = isinstance(policy, Watch)
    if client == "anthropic":
        expected = LONG if observed else told
        assert (run.body["stop_reason"], run.body["stop_sequence"]) == ("stop_sequence" if expected else "end_turn", expected)
        assert (note in run.record.notes) is (told is None and not observed)
    else:
        assert b"CANARY" not in b"".join(run.frames)
        assert note not in run.record.notes


@pytest.mark.parametrize("stream", [True, False])
async def test_fields_of_a_usage_that_are_new_pass(stream: bool) -> None:
    """Names as machines give them, at any level, beside those that are none."""
    said = copy.deepcopy(ANTHROPIC)
    told = {"output_tokens": 3, "server_tool_use": {"web_search_requests": 1, "x-new.count": 2}, "iterations": [{"new_field": 1}]}
    said[4]["usage"] = {**told, "a sentence": 1}
    decoder = AnthropicDecoder(1 << 20, 1)
    data = decoder.feed(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said))
    backend = ScriptedBackend([build_chunk(one) for one in (*data, *decoder.finish())], wire="anthropic")
    run = await run_policy(HoldAll(), backend, client="anthropic", stream=stream)
    assert {name: run.body["usage"].get(name) for name in (*told, "a sentence")} == {**told, "a sentence": None}
    assert run.record is not None
    assert run.record.notes == ("left out, because the policy could not judge it: a sentence",)


@pytest.mark.parametrize("field", ["id", "model", "system_fingerprint", "service_tier"])
async def test_a_sentence_is_no_name(field: str) -> None:
    """What an OpenAI-style provider says about itself."""
    run = await run_policy(HoldAll(), ScriptedBackend(script({**event({"content": "Hi"}), field: LONG})))
    assert b"CANARY" not in b"".join(run.frames)
    assert run.text == "Hi"
