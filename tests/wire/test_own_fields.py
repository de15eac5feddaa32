"""Same wire: every field of a provider's stream comes out again, in the official SDK's eyes and value by value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from luthien_asgi.backend.chunks import build
from luthien_asgi.chunks import Chunk
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.openai_decoder import OpenAIDecoder
from luthien_asgi.wire.openai_encoder import OpenAIEncoder

Data = dict[str, Any]

CORPUS: Final = Path(__file__).parents[1] / "corpus" / "openai"
FOLDERS: Final = ("openai", "azure", "deepseek", "groq", "mistral", "openai-compat", "openrouter", "perplexity", "zai", "alibaba")
FAILS: Final = frozenset(
    {
        "done_without_finish", "error_after_finish", "error_event", "error_in_choice", "error_in_data", "error_nested",
        "error_text", "error_without_envelope", "finish_says_error", "not_json", "one_choice_unfinished", "truncated",
        "truncated_in_event", "pai-stream-error",
    }
)  # fmt: skip
"""Streams that end in an error, which is in the decoder's tests."""

STANDARD: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
IN_CHOICE: Final = frozenset({"index", "delta", "finish_reason", "logprobs"})
IN_DELTA: Final = frozenset({"role", "content", "refusal", "tool_calls", "function_call", "reasoning_content"})


REPAIRED: Final[dict[str, str]] = {
    r"\.role: '(assistant){2,}' -> 'assistant'": "the SDK adds a role up that is said with every event",
    r"\.message\.reasoning_content: None -> ": "thinking has one name for all, beside the provider's own",
    r"^prompt_filter_results: None -> ": "the SDK skips an Azure event without `object`; it leaves with the first chunk",
    r"^usage: None -> ": "Groq and Moonshot put the usage where the SDK does not look",
}
"""What the official SDK makes of any provider's stream, and of ours instead."""

OWN_WAYS: Final[dict[str, str]] = {
    "empty_id_and_name: choices[0].message.content: '' -> None": "no role was said: the opening delta is ours",
    "vercel-incremental-tool: choices[0].message.content: '' -> None": "no role was said: the opening delta is ours",
    "vercel-incremental-tool: choices[0].message.role: None -> 'assistant'": "each choice has a role",
    "tool_without_arguments: choices[0].message.tool_calls[0].function.arguments: None -> ''": "arguments are text",
    "usage_with_each_event: choices[0].finish_reason: None -> 'stop'": "the SDK skips Perplexity's last event",
    "usage_with_each_event: usage.completion_tokens: 2 -> 7": "the SDK skips Perplexity's last event",
    "usage_with_each_event: usage.total_tokens: 7 -> 12": "the SDK skips Perplexity's last event",
    "vercel-citations: choices[0].finish_reason: None -> 'stop'": "the SDK skips Perplexity's last event",
}
"""What is different in one stream."""

NOT_ACCUMULATED: Final = {
    "line_separators_and_surrogates": KeyError,  # its first event has no `object`
    "mistral_list": UserWarning,  # text that is a list
    "provider_openrouter_image": RuntimeError,  # images without an index, twice
    "provider_snowflake": TypeError,  # choices without an index
    "reused_index": None,  # two calls at one index come to one: "call_acall_b"
    "tool_index_from_one": IndexError,
    "vercel-tool-index-from-1": IndexError,
}
"""Streams that the official SDK cannot add up, or not to what was meant."""


def corpus() -> list[Path]:
    return [path for path in sorted(CORPUS.glob("*.sse")) if path.stem not in FAILS]


def recordings(recorded: Path) -> list[Path]:
    found = [path for folder in FOLDERS for path in sorted((recorded / folder).iterdir())]
    return [path for path in found if path.stem not in FAILS]


def sse(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix != ".jsonl":
        return data
    return b"".join(b"data: " + line + b"\n\n" for line in data.splitlines() if line.strip())


def events(data: bytes) -> list[Data]:
    """Read the events as a client does; the decoder's tests try odd framing."""
    found = []
    for block in data.decode("utf-8", "surrogatepass").replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if lines and (text := "\n".join(lines)).strip() != "[DONE]":
            found.append(json.loads(text))
    return found


def decoded(data: bytes) -> list[Chunk]:
    decoder = OpenAIDecoder(1 << 24, 7)
    chunks = decoder.feed(data)
    assert decoder.error is None
    return [build(one) for one in [*chunks, *decoder.finish()]]


def encoder(*, collect: bool = False) -> OpenAIEncoder:
    body = {"model": "m", "n": 3, "stream": not collect, "stream_options": {"include_usage": True}}
    return OpenAIEncoder(ChatRequest(wire="openai", body=body), settings=StreamSettings(), id="x", created=1, collect=collect)


def passed_on(data: bytes) -> list[Data]:
    made = encoder()
    return events(b"".join([*(frame for one in decoded(data) for frame in made.feed(one)), *made.finish()]))


def completion(said: list[Data]) -> Data:
    """Return what the official SDK adds a stream up to, fields that it does not know included."""
    state = ChatCompletionStreamState()
    for event in said:
        if event["object"] == "chat.completion.chunk":  # as its stream helper does
            state.handle_chunk(ChatCompletionChunk.construct(None, **event))
    return state.current_completion_snapshot.model_dump(exclude_none=True, warnings=False)


def own_values(said: list[Data]) -> Data:
    """Return, for each field that is not a standard one, its values in their order, by level."""
    found: Data = {}

    def add(level: str, fields: Data, standard: frozenset[str]) -> None:
        for name, value in fields.items():
            if name not in standard and value is not None and value != []:
                found.setdefault(f"{level}.{name}", []).append(value)

    for event in said:
        add("chunk", event, STANDARD)
        for choice in event["choices"]:
            at = f"choice {choice.get('index', 0)}"
            add(at, choice, IN_CHOICE)
            add(f"{at} delta", choice.get("delta") or {}, IN_DELTA)
            for place, call in enumerate((choice.get("delta") or {}).get("tool_calls") or []):
                add(f"{at} call {call.get('index', place)}", call, frozenset({"index", "id", "type", "function", "custom"}))
    return {name: _put_together(name, values) for name, values in found.items()}


def _put_together(name: str, values: list[Any]) -> list[Any]:
    """Lists without an index may come at once: the SDK could not add them up."""
    if all(isinstance(value, list) and not all(isinstance(e, dict) and "index" in e for e in value) for value in values):
        return [entry for value in values for entry in value]
    return values


def differing(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from differing(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differing(one, other, f"{path}[{at}]")
    elif before != after:
        yield f"{path}: {before!r} -> {after!r}"


def assert_equal_in_the_sdk(path: Path) -> None:
    """Hold what the SDK makes of our stream to what it makes of the provider's, and the body to both."""
    before, after = events(sse(path)), passed_on(sse(path))
    got = completion(after)
    assert list(differing(own_values(before), own_values(after))) == []
    if path.stem not in NOT_ACCUMULATED:
        found = list(differing(completion(before), got))
        assert [one for one in found if not re.search("|".join(REPAIRED), one) and f"{path.stem}: {one}" not in OWN_WAYS] == []
    assert list(differing(without_names(got), without_names(collected(path)))) == []


def collected(path: Path) -> Data:
    made = encoder(collect=True)
    for chunk in decoded(sse(path)):
        assert made.feed(chunk) == []
    made.finish()
    whole = ChatCompletion.construct(None, **made.body())
    return whole.model_dump(exclude_none=True, warnings=False)


def without_names(completion: Data) -> Data:
    """Leave out what the SDK adds up though it is said again and again, and what it keeps of the first chunk only."""
    kept = {"id", "created", "model", "usage", "choices"}
    choices = [
        {"message": cleaned(choice["message"]), "finish_reason": choice["finish_reason"], "logprobs": choice.get("logprobs")}
        for choice in completion["choices"]
    ]
    return {name: value for name, value in completion.items() if name in kept} | {"choices": choices}


def cleaned(value: Any) -> Any:
    """Leave out what is empty or none, a list's index and what the SDK parses."""
    names = {"format", "channel", "index", "type", "parsed_arguments", "token_id"}
    if isinstance(value, dict):
        found = {name: cleaned(one) for name, one in value.items() if name not in names}
        return {name: one for name, one in found.items() if one not in (None, "", [], {})}
    return [cleaned(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.stem)
def test_a_stream_of_the_corpus_is_equal_in_the_sdk(path: Path) -> None:
    """Every field, those that only this provider has included; streamed and as a body."""
    assert_equal_in_the_sdk(path)


def test_a_recorded_stream_is_equal_in_the_sdk(recorded: Path) -> None:
    """The same for what providers really sent."""
    for path in recordings(recorded):
        assert_equal_in_the_sdk(path)


def test_the_streams_that_the_sdk_cannot_add_up_are_repaired() -> None:
    """The list above is true, and ours can be added up."""
    for path in corpus():
        if (raised := NOT_ACCUMULATED.get(path.stem)) is not None:
            with pytest.raises(raised):
                completion(events(sse(path)))
        completion(passed_on(sse(path)))


def test_what_a_body_says_beside_the_answer() -> None:
    """The last word of a chunk's or a choice's field counts, objects are joined, tokens are put together."""
    vllm = collected(CORPUS / "provider_vllm.sse")
    assert vllm["choices"][0]["token_ids"] == [11, 12, 13, 14, 15, 16]
    assert vllm["choices"][0]["stop_reason"] == 128009
    assert vllm["prompt_token_ids"] == [1, 2, 3]
    groq = collected(CORPUS / "provider_groq.sse")
    assert groq["x_groq"]["seed"] == 1
    assert groq["x_groq"]["usage"]["queue_time"] == 0.1
    images = collected(CORPUS / "provider_openrouter_image.sse")
    assert [image["image_url"]["url"][-4:] for image in images["choices"][0]["message"]["images"]] == ["AAAA", "BBBB"]


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({"thinking_blocks": "x"}, "thinking_blocks"),
        ({"provider_specific_fields": {"a": 1}}, "provider_specific_fields"),
        ({"obfuscation": ["x"]}, "obfuscation"),
    ],
)
def test_fields_that_would_break_a_client_are_not_a_providers_own(event: Data, name: str) -> None:
    """LiteLLM's own names belong elsewhere, and what clients know has its type."""
    said = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    data = b"data: " + json.dumps({**said, **event}).encode() + b"\n\ndata: [DONE]\n\n"
    assert not any(name in chunk for chunk in passed_on(data))


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": 3, "own": 1},
        {"prompt_tokens": 2, "completion_tokens": 3, "reasoning_tokens": "many", "own": 1},
    ],
)
def test_a_usage_with_odd_counts_is_a_usage(usage: Data) -> None:
    """A count that is null is counted as none, and one of another type does not end the answer."""
    said = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    last = {**said, "choices": [], "usage": usage}
    data = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (said, last)) + b"data: [DONE]\n\n"
    (found,) = [chunk["usage"] for chunk in passed_on(data) if chunk.get("usage")]
    assert (found["completion_tokens"], found["own"]) == (3, 1)
    assert found["prompt_tokens"] == (usage["prompt_tokens"] or 0)
