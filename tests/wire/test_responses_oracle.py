"""What a client of the Responses API gets, held against what OpenAI sent and what its SDK takes.

Three oracles: the events that OpenAI was recorded with, whose fields ours have; the SDK's types, validated without any leniency;
and the SDK's accumulator, which makes of our stream what the provider said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import BaseModel, omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import BackendError
from luthien_asgi.reasoning_items import decode
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing import Violation, validate_body, validate_stream
from luthien_asgi.wire.anthropic_decoder import AnthropicDecoder
from luthien_asgi.wire.openai_decoder import OpenAIDecoder
from luthien_asgi.wire.responses_encoder import ResponsesEncoder

OPENAI = ["openai", "azure", "deepseek", "groq", "mistral", "openai-compat", "openrouter", "perplexity", "zai", "alibaba"]
TOOLS = [
    {"type": "function", "name": "get", "parameters": {"type": "object"}},
    {"type": "custom", "name": "sh", "description": "runs", "format": {"type": "text"}},
]
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
TYPES: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> Chunk:
    logprobs = more.pop("logprobs", None)
    choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]
    return build({"id": "chatcmpl-1", "created": 3, "model": "gpt-x", "choices": choices, **more})


def call(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> Chunk:
    said = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [said]})


def signed(text: str, signature: str | None = None) -> Chunk:
    block = {"type": "thinking", "thinking": text} | ({} if signature is None else {"signature": signature})
    return chunk({"reasoning_content": text, "thinking_blocks": [block]})


def written(chunks: Iterable[Chunk], *, collect: bool = False, **body: Any) -> ResponsesEncoder:
    request = ChatRequest(wire="responses", body={"model": "asked", "input": "hello", **body})
    return ResponsesEncoder(request, settings=StreamSettings(), id="t1", created=9, collect=collect)


def errors(found: list[Violation]) -> list[str]:
    return [str(violation) for violation in found if violation.severity == "error"]


def events(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the events of a stream that is over, and legal."""
    frames = list(frames)
    assert errors(validate_stream("responses", b"".join(frames))) == []
    return [json.loads(frame.split(b"\ndata: ")[1]) for frame in frames]


def streamed(chunks: Iterable[Chunk], **body: Any) -> list[dict[str, Any]]:
    made = written(chunks, **body)
    return events([*(frame for one in chunks for frame in made.feed(one)), *made.finish()])


def collected(chunks: Iterable[Chunk], **body: Any) -> dict[str, Any]:
    made = written(chunks, collect=True, **body)
    for one in chunks:
        made.feed(one)
    made.finish()
    assert errors(validate_body("responses", made.body())) == []
    return {**made.body(), "completed_at": 0}


def everything() -> list[dict[str, Any]]:
    """Return the events of two answers that have between them all that the encoder writes."""
    link = {"type": "url_citation", "url_citation": {"url": "https://e.org", "title": "t", "start_index": 0, "end_index": 2}}
    top = [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}]
    logprobs = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": top}]}
    chunks = [
        chunk({"role": "assistant"}),
        signed("hm"),
        signed("", "c2ln"),
        chunk({"content": "Hi", "annotations": [link]}, logprobs=logprobs),
        chunk({"content": "."}),
        chunk({"refusal": "No."}),
        call(0, '{"x":1}', "call_a", "get"),
        call(1, '{"input":"ls"}', "call_b", "sh"),
    ]
    ended = [chunk({}, "stop"), build({"id": "a", "created": 3, "model": "m", "choices": [], "usage": USAGE})]
    asked = {"tools": TOOLS, "instructions": "Be brief.", "metadata": {"a": "b"}, "reasoning": {"effort": "low"}}
    failing = written(chunks)
    broken = [frame for one in chunks for frame in failing.feed(one)]
    cut = streamed([*chunks, chunk({}, "length")], **asked)
    return [*streamed([*chunks, *ended], **asked), *cut, *events([*broken, *failing.fail(BackendError("gone"))])]


# --- the recorded events ---------------------------------------------------------------------------------------------------


def recorded_events(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "openai-responses").iterdir()):
        for line in path.read_text().splitlines():
            data = line.removeprefix("data:").strip() if path.suffix == ".sse" else line
            if data.startswith("{"):
                yield json.loads(data)


def kind_of(value: object) -> str:
    return "number" if type(value) in {int, float} else type(value).__name__


def shape(value: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the type of every field; an item or a part has its type in its path."""
    for name, child in value.items():
        path = f"{at}{name}"
        if name in OPAQUE:
            continue
        yield path, kind_of(child)
        for one in child if isinstance(child, list) else [child]:
            if isinstance(one, dict):
                inner = f"{path}<{one['type']}>" if path != "error" and "type" in one else path
                yield from shape(one, f"{inner}.")


OPAQUE = {"metadata", "tools", "instructions", "format"}
"""The client's own words, repeated."""
NEWER = {
    "response.usage.input_tokens_details.cache_write_tokens": "the SDK's type demands it",
    "name": "of a call's done event: the SDK's type demands it",
}
"""Fields that the recordings are too old to have."""
NULL = {"response.completed_at", "response.error", "response.incomplete_details", "response.usage"}


def test_our_events_have_the_fields_of_the_recorded_ones(recorded: Path) -> None:
    theirs: dict[str, dict[str, set[str]]] = {}
    for event in recorded_events(recorded):
        for path, kind in shape(event):
            theirs.setdefault(event["type"], {}).setdefault(path, set()).add(kind)
    # A response has the same fields in every event.
    responses: dict[str, set[str]] = {}
    for known in theirs.values():
        for path in known:
            if path.startswith("response."):
                responses[path] = responses.get(path, set()) | known[path]
    compared = set()
    for event in everything():
        if event["type"] not in theirs:
            continue
        compared.add(event["type"])
        known = {**theirs[event["type"]], **responses}
        for path, kind in shape(event):
            if path in NEWER or "custom_tool_call" in path or "refusal" in path or "logprobs." in path:
                continue
            assert path in known, (event["type"], path)
            assert kind in known[path] | ({"NoneType"} if path in NULL else set()), (event["type"], path, kind, known[path])
    assert compared == {
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.output_text.annotation.added",
        "response.content_part.done",
        "response.output_item.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
        "response.failed",
        "error",
    }


LEFT_OUT = {
    "obfuscation": "padding",
    "response.output": "an item that is not written",
}


def test_fields_that_openai_always_sends_are_in_ours(recorded: Path) -> None:
    """Of the recordings that number their events, the others are older than some fields."""
    always: dict[tuple[str, str], set[str]] = {}
    for event in recorded_events(recorded):
        whole = event.get("response", {"text": 1})
        if "sequence_number" in event and "text" in whole and (key := key_of(event)) is not None:
            fields = {path for path, _ in shape(event) if "<" not in path and path not in LEFT_OUT}
            always[key] = always.get(key, fields) & fields
    ours: dict[tuple[str, str], set[str]] = {}
    for event in everything():
        if (key := key_of(event)) is not None:
            ours.setdefault(key, set()).update(path for path, _ in shape(event))
    missing = {key: fields - ours[key] for key, fields in always.items() if key in ours and fields - ours[key]}
    assert missing == {}
    assert len(always.keys() & ours.keys()) >= 18


def key_of(event: Mapping[str, Any]) -> tuple[str, str] | None:
    inner = event.get("item") or event.get("part") or {}
    return event["type"], inner.get("type", "")


# --- the SDK's types -------------------------------------------------------------------------------------------------------


def unknown(value: object, at: str = "") -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{at}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from unknown(getattr(value, name), f"{at}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from unknown(one, f"{at}[{getattr(one, 'type', '')}]")


KNOWN_TO_THE_API = {
    ".item.status": "custom calls have one in the API's answers; the SDK's type of an output item does not say so",
    ".response.output[custom_tool_call].status": "the same",
    ".response.frequency_penalty": "recorded, and not in the SDK's type",
    ".response.presence_penalty": "recorded, and not in the SDK's type",
    ".response.store": "recorded, and not in the SDK's type",
    ".logprobs[].bytes": "recorded in a part; a delta's are the same",
    ".logprobs[].top_logprobs[].bytes": "the same",
}


def test_every_event_is_one_of_the_sdk_s_types_strictly() -> None:
    found = everything()
    for event in found:
        if event["type"] == "error":
            # What the API sends has `error` inside, which the SDK raises before it looks at any type.
            event = {**event, **event["error"], "type": "error"}
            del event["error"]
        if event["type"] == "response.custom_tool_call_input.done":
            assert event["input"] == "ls"
        typed = TYPES.validate_python(event, strict=True)
        assert not set(unknown(typed)) - KNOWN_TO_THE_API.keys(), (event, set(unknown(typed)))
    assert len({event["type"] for event in found}) == 23


# --- the SDK's accumulator -------------------------------------------------------------------------------------------------


def accumulated(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the SDK has added up before the last event, which must be what that says."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in found:
        value: Any = construct_type(type_=ResponseStreamEvent, value=event)
        state.handle_event(value)
    snapshot = state._ResponseStreamState__current_snapshot.to_dict(mode="json", warnings=False)
    last = found[-1]["response"]
    for seen, whole in zip(snapshot["output"], last["output"], strict=True):
        assert seen["type"] == whole["type"]
        if whole["type"] == "message":
            texts = [part.get("text") for part in whole["content"]]
            assert [part.get("text") for part in seen["content"]] == texts
        if whole["type"] == "function_call":
            assert seen["arguments"] == whole["arguments"]
    if last["status"] == "completed":
        assert state._completed_response.to_dict(mode="json", warnings=False)["output"] is not None
    result: dict[str, Any] = last
    return result


def content(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a response says, however it is divided."""
    items = response["output"]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    return {
        "text": "".join(part.get("text", "") for part in parts),
        "refusal": "".join(part.get("refusal", "") for part in parts),
        "thinking": "".join(part["text"] for item in items if item["type"] == "reasoning" for part in item["summary"]),
        "calls": [
            (item["call_id"], item["name"], json.loads(item["arguments"])) for item in items if item["type"] == "function_call"
        ],
        "sealed": [decode(item["encrypted_content"]) for item in items if "encrypted_content" in item],
    }


def sse(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".jsonl":
        return data
    lines = [line for line in data.splitlines() if line.strip()]
    return b"".join(b"event: %s\ndata: %s\n\n" % (json.loads(line).get("type", "message").encode(), line) for line in lines)


def said_in(path: Path) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in sse(path).decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line.startswith("{")]


def decoded(path: Path) -> list[Chunk]:
    decoder = (AnthropicDecoder if path.parent.name == "anthropic" else OpenAIDecoder)(1 << 24, 7)
    data = [*decoder.feed(sse(path)), *([] if decoder.error else decoder.finish())]
    return [] if decoder.error else [build(one) for one in data]


def openai_content(said: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a recorded stream of chat completions says in its first choice, and its usage: straight from the JSON."""
    text, refusal, thinking, usage = "", "", "", {}
    calls: dict[int, list[str]] = {}
    for event in said:
        usage = event.get("usage") or (event.get("x_groq") or {}).get("usage") or usage
        for choice in event.get("choices", []):
            delta = choice.get("delta") or {}
            if choice.get("index", 0) == 0:
                text += delta.get("content") or ""
                refusal += delta.get("refusal") or ""
                thinking += delta.get("reasoning_content") or delta.get("reasoning") or ""
                for one in delta.get("tool_calls") or []:
                    known = calls.setdefault(one["index"], ["", "", ""])
                    known[0] = known[0] or one.get("id") or ""
                    known[1] = known[1] or one["function"].get("name") or ""
                    known[2] += one["function"].get("arguments") or ""
    found = [(one[0], one[1], json.loads(one[2] or "{}")) for one in calls.values()]
    return {"text": text, "refusal": refusal, "thinking": thinking, "calls": found, "sealed": []}, usage


def anthropic_content(said: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the Anthropic SDK makes of a recorded stream."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in said:
        if event["type"] != "message_start" or snapshot is None:
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)  # type: ignore[arg-type]
    message = snapshot.model_dump(mode="json", exclude_none=True, warnings=False)
    blocks = message["content"]
    named = {kind: [block for block in blocks if block["type"] == kind] for kind in ("text", "thinking", "tool_use")}
    seals = [
        (block["type"], block.get("thinking", ""), block.get("signature") or block.get("data"))
        for block in blocks
        if block["type"] == "redacted_thinking" or block.get("signature")
    ]
    return {
        "text": "".join(block["text"] for block in named["text"]),
        "refusal": "",
        "thinking": "".join(block["thinking"] for block in named["thinking"]),
        "calls": [(block["id"], block["name"], block["input"]) for block in named["tool_use"]],
        "sealed": seals,
    }, message["usage"]


def streams(recorded: Path, folders: list[str]) -> list[Path]:
    return [path for folder in folders for path in sorted((recorded / folder).iterdir())]


def test_the_sdk_makes_of_our_stream_what_an_openai_provider_said(recorded: Path) -> None:
    compared = 0
    for path in streams(recorded, OPENAI):
        chunks = decoded(path)
        if not chunks:
            continue
        response = accumulated(streamed(chunks))
        expected, usage = openai_content(said_in(path))
        assert content(response) == expected, path.name
        if usage:
            tokens = [response["usage"][name] for name in ("input_tokens", "output_tokens", "total_tokens")]
            assert tokens == [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")], path.name
            reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
            assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": reasoning}
        assert {**response, "completed_at": 0} == collected(chunks), path.name
        compared += 1
    assert compared == 19


def test_the_sdk_makes_of_our_stream_what_anthropic_said(recorded: Path) -> None:
    compared = 0
    for path in streams(recorded, ["anthropic"]):
        chunks = decoded(path)
        response = accumulated(streamed(chunks))
        expected, usage = anthropic_content(said_in(path))
        found = content(response)
        found["sealed"] = [(one.kind, one.text, one.signature) for one in found["sealed"]]
        assert found == expected, path.name
        cached, fresh = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
        counts = response["usage"]
        assert counts["input_tokens"] == usage["input_tokens"] + cached + fresh, path.name
        assert counts["input_tokens_details"] == {"cached_tokens": cached, "cache_write_tokens": fresh}, path.name
        assert counts["output_tokens"] == usage["output_tokens"], path.name
        assert {**response, "completed_at": 0} == collected(chunks), path.name
        compared += 1
    assert compared == 27


def test_a_delta_event_for_every_content_chunk(recorded: Path) -> None:
    for path in streams(recorded, [*OPENAI, "anthropic"]):
        chunks = decoded(path)
        found = streamed(chunks) if chunks else []
        texts = [one.choices[0].delta.content for one in chunks if one.choices and one.choices[0].index == 0]
        deltas = [event["delta"] for event in found if event["type"] == "response.output_text.delta"]
        assert deltas == [text for text in texts if text], path.name


# --- any answer ------------------------------------------------------------------------------------------------------------

TEXT = st.text(min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(st.sampled_from("xyz"), TEXT, max_size=2).map(json.dumps)
PARTS = st.one_of(
    st.tuples(st.just("text"), TEXT),
    st.tuples(st.just("refusal"), TEXT),
    st.tuples(st.just("thinking"), TEXT),
    st.tuples(st.just("signed"), TEXT),
    st.tuples(st.just("redacted"), TEXT),
    st.tuples(st.just("get"), ARGUMENTS),
    st.tuples(st.just("sh"), ARGUMENTS),
)


def fragments(said: list[tuple[str, str]], cut: Any) -> list[list[Chunk]]:
    """Return the chunks of every part, its text cut anywhere."""
    found = []
    for place, (kind, text) in enumerate(said):
        pieces = []
        while text:
            size = cut(len(text))
            pieces.append(text[:size])
            text = text[size:]
        found.append(part(place, kind, pieces))
    return found


def part(place: int, kind: str, pieces: list[str]) -> list[Chunk]:
    match kind:
        case "text":
            return [chunk({"content": piece}) for piece in pieces]
        case "refusal":
            return [chunk({"refusal": piece}) for piece in pieces]
        case "thinking":
            return [chunk({"reasoning_content": piece}) for piece in pieces]
        case "signed":
            return [*(signed(piece) for piece in pieces), signed("", "c2ln")]
        case "redacted":
            return [chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": "".join(pieces)}]})]
        case _:
            return [call(place, "", f"call_{place}", kind), *(call(place, piece) for piece in pieces)]


def check_order(found: list[dict[str, Any]]) -> None:
    """Assert what the protocol says of any stream: numbers, items one at a time, texts that are what their deltas were."""
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    assert found[-1]["type"] in {"response.completed", "response.incomplete", "response.failed"}
    done: list[dict[str, Any]] = []
    added: dict[str, Any] | None = None
    text: str | None = None
    for event in found[2:-1]:
        kind = event["type"].removeprefix("response.")
        if kind == "error":
            assert found.index(event) == len(found) - 2
            continue
        assert event["output_index"] == len(done)
        assert event.get("item_id", (added or {}).get("id")) == (added or {}).get("id")
        if kind == "output_item.added":
            assert added is None
            added, text = event["item"], "" if "call" in event["item"]["type"] else None
        elif kind == "output_item.done":
            assert added is not None
            assert text is None
            assert (added["id"], added["type"]) == (event["item"]["id"], event["item"]["type"])
            done.append(event["item"])
            added = None
        elif kind.endswith("part.added"):
            assert text is None
            text = ""
        elif kind.endswith("part.done"):
            assert text is None
        elif kind.endswith(".delta"):
            assert text is not None
            text += event["delta"]
        elif kind.endswith(".done"):
            (said,) = (event[name] for name in ("text", "refusal", "arguments", "input") if name in event)
            assert said == text
            text = None
    if found[-1]["type"] != "response.failed":
        assert added is None
    assert found[-1]["response"]["output"] == done


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, max_size=6), st.sampled_from(["stop", "length", "tool_calls"]), st.data())
def test_any_cut_of_an_answer_is_the_same_answer(said: list[tuple[str, str]], reason: str, data: st.DataObject) -> None:
    whole = [one for chunks in fragments(said, lambda size: size) for one in chunks]
    cut = [one for chunks in fragments(said, lambda size: data.draw(st.integers(1, size))) for one in chunks]
    end = chunk({}, reason)
    found = streamed([*cut, end], tools=TOOLS)
    check_order(found)
    expected = collected([*whole, end], tools=TOOLS)
    usage = expected["usage"]
    assert {**accumulated(found), "completed_at": 0, "usage": usage} == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, max_size=6), st.data())
def test_parallel_calls_keep_their_own_arguments_however_they_interleave(
    said: list[tuple[str, str]], data: st.DataObject
) -> None:
    calls = [one for one in said if one[0] in {"get", "sh"}]
    begin = [one for one in said if one not in calls]
    lanes = fragments(calls, lambda size: data.draw(st.integers(1, size)))
    mixed = [one for chunks in fragments(begin, lambda size: size) for one in chunks]
    while lanes := [lane for lane in lanes if lane]:
        mixed.append(data.draw(st.sampled_from(lanes)).pop(0))
    found = streamed([*mixed, chunk({}, "tool_calls")])
    check_order(found)
    output = found[-1]["response"]["output"]
    named = {item["call_id"]: (item["name"], item["arguments"]) for item in output if item["type"] == "function_call"}
    assert named == {f"call_{place}": one for place, one in enumerate(calls)}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, max_size=6), st.data())
def test_a_failure_anywhere_ends_a_legal_stream(said: list[tuple[str, str]], data: st.DataObject) -> None:
    chunks = [one for part in fragments(said, lambda size: data.draw(st.integers(1, size))) for one in part]
    stop = data.draw(st.integers(0, len(chunks)))
    made = written(chunks, tools=TOOLS)
    frames = [frame for one in chunks[:stop] for frame in made.feed(one)]
    check_order(events([*frames, *made.fail(BackendError("gone"))]))
