"""No text of a provider, a model or a policy makes a frame, a line or a field of what a client reads.

Each text of an answer, on either wire of the provider, gets line ends of every kind, control characters and halves of characters
in it. Each client's stream is read by a parser written from the standard alone, and has the frames of the harmless answer.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from hostile_stage import FORMATS, Stage, gateway, question
from hostile_texts import EVIL, HARMLESS, SENTENCE, Event, leaves, read_strictly, with_text

from luthien_asgi import Block, BlockKind, Deny, Hold, Policy, Stop, StreamContext
from luthien_asgi.policy import Verdict
from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import Answer, RawStream, ScriptedProvider, ToolCall

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def every_answer_is_legal(leaving: Any) -> Iterator[None]:
    """Not asked here: a provider whose texts are odd breaks rules of its wire, and passes to a client of that wire."""
    yield
    leaving.wait()
    leaving.taken("illegal")
    leaving.taken("broken_off")


CHUNK: Mapping[str, Any] = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "service_tier": "default"}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": "b"}'}}
CITED = {"type": "url_citation", "url_citation": {"url": "http://a", "title": "t", "start_index": 0, "end_index": 1}}
TOKEN = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2.0, "bytes": [98]}]}


def _chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {**CHUNK, "choices": [{"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None, **more}]}


OPENAI: Sequence[dict[str, Any]] = (
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"reasoning_content": "hm"}),
    _chunk({"content": "one"}, logprobs={"content": [TOKEN], "refusal": None}),
    _chunk({"content": "two", "annotations": [CITED], "own_field": "x"}),
    _chunk({"tool_calls": [CALL]}),
    _chunk({}, "tool_calls", stop_reason="x"),
    {**CHUNK, "choices": [], "system_fingerprint": "f", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
)
ANTHROPIC: Sequence[dict[str, Any]] = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard"},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "b64"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "one"}},
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "citations_delta", "citation": {"type": "web_search_result_location", "url": "http://a", "title": "t"}},
    },
    {"type": "content_block_stop", "index": 2},
    {"type": "unheard_of", "detail": "x"},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"a": "b"}'}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": "s"},
        "usage": {"output_tokens": 9},
        "own_field": "x",
    },
    {"type": "message_stop"},
)
ANSWERS: Mapping[str, Sequence[dict[str, Any]]] = {"openai": OPENAI, "anthropic": ANTHROPIC}


def rendered(kind: str, events: Sequence[Mapping[str, Any]], *, ascii_only: bool) -> RawStream:
    """The events as a provider writes them, with or without its own escapes for what is not ASCII."""
    frames = []
    for event in events:
        data = json.dumps(event, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        named = b"event: " + json.dumps(event["type"]).strip('"').encode() + b"\n" if kind == "anthropic" else b""
        frames.append(named + b"data: " + data + b"\n\n")
    return RawStream([*frames, *([b"data: [DONE]\n\n"] if kind == "openai" else [])])


def shape(wire: str, body: bytes) -> list[tuple[str, str, tuple[str, ...]]]:
    """The frames of a stream: name, type and fields of each; what a client of this wire could take for another is a failure."""
    read = read_strictly(body)
    assert read.others == []
    raw = body.decode("utf-8")
    assert not {letter for letter in raw if letter < " " and letter != "\n"} & {"\r", "\0", "\x1b"}
    return [_shape_of(wire, event) for event in read.events]


def _shape_of(wire: str, event: Event) -> tuple[str, str, tuple[str, ...]]:
    if wire == "openai":
        assert event.name == ""
        if event.data == "[DONE]":
            return ("", "[DONE]", ())
    data = json.loads(event.data)
    kind = data.get("type", "") if wire != "openai" else "error" if "error" in data else "chunk"
    assert wire == "openai" or event.name == kind
    assert "forged" not in kind
    return (event.name, kind, tuple(data))


def asked(stage: Stage, wire: str, kind: str, *, stream: bool) -> Any:
    more = {"stream": stream, **({"stream_options": {"include_usage": True}} if wire == "openai" and stream else {})}
    return stage.ask(wire, question(wire, kind, **more))


def form(wire: str, got: Any, *, stream: bool) -> Any:
    """What an answer is, without its texts."""
    assert "forged" not in json.dumps(dict(got.headers))
    if stream and got.headers["content-type"].startswith("text/event-stream"):
        return got.status, shape(wire, got.body)
    assert got.headers["content-type"] == "application/json"
    return got.status, tuple(json.loads(got.body.decode("utf-8")))


def places(kind: str) -> Iterator[Any]:
    for number, event in enumerate(ANSWERS[kind]):
        for at in leaves(event):
            yield pytest.param(kind, number, at, id=f"{kind}-{number}-{'.'.join(map(str, at))}")


@pytest.mark.parametrize(("kind", "number", "at"), [*places("openai"), *places("anthropic")])
def test_a_text_of_the_answer_forges_nothing(stage: Stage, kind: str, number: int, at: tuple[Any, ...]) -> None:
    """One text after the other, each evil, to every client, streaming or not: the frames are those of a harmless answer."""
    for wire, (stream, ascii_only) in itertools.product(FORMATS, ((True, True), (True, False), (False, True))):
        forms = []
        evil = EVIL if ascii_only else EVIL[:-1]  # half a pair has no UTF-8
        for added in (HARMLESS, SENTENCE, *evil):
            events = list(ANSWERS[kind])
            events[number] = with_text(events[number], at, added)
            stage.provider.script = rendered(kind, events, ascii_only=ascii_only)
            forms.append(form(wire, asked(stage, wire, kind, stream=stream), stream=stream))
        stage.calls()
        # A sentence is no name of a model or of why an answer ended: such a field is left out, or the answer refused.
        assert all(each in forms[:2] for each in forms[2:]), (wire, stream, ascii_only)


# --- policies, errors --------------------------------------------------------------------------------------------------------


class Says(Policy):
    """Denies calls, stops at a word, adds at the end: each with an evil message."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.TEXT: Hold()}

    def __init__(self, evil: str) -> None:
        self.evil = evil

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        if block.kind is BlockKind.TOOL_CALL:
            return Deny(self.evil)
        return Stop(self.evil) if "stop" in block.text else None

    def on_request(self, request: ChatRequest, ctx: Any) -> Deny | None:
        return Deny(self.evil) if "refuse" in str(request.body) else None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wire", FORMATS)
def test_a_policys_message_forges_nothing(serve: Any, canary: Any, wire: str, stream: bool) -> None:
    """What a policy says may hold what a model said: a denial, a stop and a refusal of the request, in every format."""
    answers = [Answer("text", ToolCall("call_1", "look")), Answer("stop here"), Answer("never")]
    forms = {}
    with ScriptedProvider(answers[0]) as provider:
        for added in (HARMLESS, *EVIL):
            stage = Stage(provider, canary, serve(gateway(provider.url, policy=Says(f"said{added}")), lifespan="on"))
            for number, words in enumerate(("hi", "hi", "refuse")):
                provider.script = answers[number]
                got = stage.ask(wire, refusing(wire, words, stream=stream))
                forms[number, added] = form(wire, got, stream=stream)
            stage.close()
    assert [forms[2, added][0] for added in EVIL] == [403] * len(EVIL)
    for number, added in itertools.product(range(3), EVIL):
        assert forms[number, added] == forms[number, HARMLESS]


def refusing(wire: str, words: str, *, stream: bool) -> dict[str, Any]:
    asked_for = question(wire, "openai", stream=stream)
    asked_for["input" if wire == "responses" else "messages"] = [{"role": "user", "content": words}]
    return asked_for


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("wire", FORMATS)
def test_an_error_forges_nothing(stage: Stage, wire: str, kind: str) -> None:
    """Each text of a provider's error, as a response and as an event in the middle of an answer."""
    error = {"message": "no", "type": "invalid_request_error", "code": "c", "param": "p", "own": "x"}
    document = {"error": error} if kind == "openai" else {"type": "error", "error": error}
    for at, in_stream, stream in itertools.product(leaves(document), (False, True), (False, True)):
        forms = []
        for added in (HARMLESS, *EVIL):
            said = with_text(document, at, added)
            if in_stream:
                stage.provider.script = rendered(kind, [*ANSWERS[kind][:3], said], ascii_only=True)
            else:
                stage.provider.script = RawStream(json.dumps(said).encode(), content_type="application/json", status=400)
            forms.append(form(wire, asked(stage, wire, kind, stream=stream), stream=stream))
        stage.calls()
        assert forms[1:] == [forms[0]] * len(EVIL), (at, in_stream, stream)


@pytest.mark.parametrize("wire", FORMATS)
def test_what_the_client_wrote_is_repeated_as_json(stage: Stage, wire: str) -> None:
    """Model names, parameters, roles, types and ids of a request that is refused."""
    for added in EVIL:
        user = [{"role": f"user{added}", "content": "hi"}]
        for changed in (
            {"model": f"none{added}"},
            {added: 1},
            {"messages": user, "input": user},
            {"tools": [{"type": f"x{added}", "name": added}]},
            {"tool_choice": {"type": added, added: added}},
            {"metadata": {added: {added: 1}}},
        ):
            got = stage.ask(wire, question(wire, "openai", stream=True) | changed)
            assert "forged" not in json.dumps(dict(got.headers))
            if got.headers["content-type"] == "application/json":
                got.json()
            else:
                shape(wire, got.body)
    stage.calls()
