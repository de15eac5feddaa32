"""The chunks of our decoders beside those of LiteLLM's own iteration, for the same call of the same recording.

Strategy: both sequences are reduced to the same fields (`facts`), each in the order in which it was said; a deviation is a field
whose value is not the same. The reduction is all that is normalised:

- a fragment that is empty says nothing; boundaries between fragments count;
- a call is its id, its name and its fragments, by the choice and the index that they were said with;
- usage is its counts; what LiteLLM computes (`cost`) or fills in with 0 is left out;
- thinking is read from `reasoning_content`, its signatures and redacted data from `thinking_blocks`;
- what ran at the provider is counted, from either one's side channel.

Run as a program it prints the deviations of all recordings as JSON: LiteLLM leaves connections open behind it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from conf_content import choices_of, events_of
from conf_stage import Recording, recordings

from luthien_asgi import LiteLLMBackend
from luthien_asgi.backend import BackendCall, hygiene
from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import ScriptedProvider, recording

__all__ = ["facts"]

Facts = dict[str, Any]
_SECONDS: Final = 30.0
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


async def _main() -> None:
    await hygiene.load()
    async with ScriptedProvider([]) as provider:
        found = {recorded.name: await _deviations(provider, recorded) for recorded in recordings()}
    sys.stdout.write(json.dumps(found))


async def _deviations(provider: ScriptedProvider, recorded: Recording) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which the two readings of a recording differ: ours, then LiteLLM's."""
    raw = provider.script = recording(recorded.path)
    choices = choices_of(events_of(raw.events))
    request = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 64, **({"n": choices} if choices > 1 else {})}
    async with asyncio.timeout(_SECONDS):
        ours = await _read(_ours(provider, recorded, request))
        theirs = await _read(_theirs(provider, recorded, request))
    return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


async def _read(chunks: AsyncIterator[Any]) -> Facts:
    said: list[dict[str, Any]] = []
    failed = False
    try:
        async for chunk in chunks:
            said.append(chunk.model_dump(exclude_none=True, warnings=False))
    except Exception:  # LiteLLM's are of many kinds
        failed = True
    return {**facts(said), "error": failed}


async def _ours(provider: ScriptedProvider, recorded: Recording, request: Mapping[str, Any]) -> AsyncIterator[Any]:
    params = {"model": f"{recorded.wire}/m", "api_base": _base(provider, recorded), "api_key": "k"}
    backend = LiteLLMBackend([{"model_name": "m", "litellm_params": params}])
    body = {"model": "m", "stream": True, **request}
    stream = await backend.open(BackendCall(request=ChatRequest(wire="openai", body=body)))
    try:
        async for chunk in stream:
            yield chunk
    finally:
        await stream.aclose()
        await backend.aclose()


async def _theirs(provider: ScriptedProvider, recorded: Recording, request: Mapping[str, Any]) -> AsyncIterator[Any]:
    litellm = importlib.import_module("litellm")
    where = {"model": f"{recorded.wire}/m", "api_base": _base(provider, recorded), "api_key": "k", "max_retries": 0}
    answer = await litellm.acompletion(**where, **request, stream=True, stream_options={"include_usage": True}, num_retries=0)
    async for chunk in answer:
        yield chunk


def _base(provider: ScriptedProvider, recorded: Recording) -> str:
    return provider.url if recorded.wire == "anthropic" else f"{provider.url}/v1"


def facts(chunks: list[dict[str, Any]]) -> Facts:
    """Reduce chunks, as `model_dump` gives them, to what they say."""
    return {
        "id": _first(chunk.get("id") for chunk in chunks),
        "model": _first(chunk.get("model") for chunk in chunks),
        "created": len({chunk.get("created") for chunk in chunks if chunk.get("id")}),
        "role": [choice["index"] for choice, delta in _deltas(chunks) if delta.get("role")],
        "text": [(choice["index"], delta["content"]) for choice, delta in _deltas(chunks) if delta.get("content")],
        "thinking": [delta["reasoning_content"] for _, delta in _deltas(chunks) if delta.get("reasoning_content")],
        "signatures": list(_signatures(chunks)),
        "refusal": [delta["refusal"] for _, delta in _deltas(chunks) if delta.get("refusal")],
        "calls": _calls(chunks),
        "logprobs": sum(_tokens(choice.get("logprobs")) for choice, _ in _deltas(chunks)),
        "annotations": sum(_annotations(delta) for _, delta in _deltas(chunks)),
        "citations": sum(_is_citation(chunk) for chunk in chunks),
        "finish": {choice["index"]: choice["finish_reason"] for choice, _ in _deltas(chunks) if choice.get("finish_reason")},
        "usage": _usage(chunks),
        "ran at the provider": sum(_ran(chunk) for chunk in chunks),
    }


def _deltas(chunks: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            yield choice, choice.get("delta") or {}


def _first(values: Iterator[Any]) -> Any:
    return next((value for value in values if value), "")


def _signatures(chunks: list[dict[str, Any]]) -> Iterator[str]:
    for _, delta in _deltas(chunks):
        for block in delta.get("thinking_blocks") or ():
            if said := block.get("signature") or block.get("data"):
                yield said


def _calls(chunks: list[dict[str, Any]]) -> list[Any]:
    found: dict[tuple[int, int, str], list[Any]] = {}
    last: dict[tuple[int, int], list[Any]] = {}
    for choice, delta in _deltas(chunks):
        for call in delta.get("tool_calls") or ():
            place = (choice["index"], call["index"])
            if call.get("id") and (*place, call["id"]) not in found:
                last[place] = found[*place, call["id"]] = [*place, call["id"], "", []]
            known = last.setdefault(place, [*place, "", "", []])
            known[3] = known[3] or call["function"].get("name") or ""
            if fragment := call["function"].get("arguments"):
                known[4].append(fragment)
    return list(found.values())


def _tokens(logprobs: Any) -> int:
    return len([*(logprobs.get("content") or ()), *(logprobs.get("refusal") or ())]) if logprobs else 0


def _annotations(delta: Mapping[str, Any]) -> int:
    return len(delta.get("annotations") or ())


def _side(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """Return LiteLLM's side channel, which is in its deltas."""
    choices = chunk.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("provider_specific_fields") or {}


def _event(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Anthropic event that rides along in ours."""
    return (chunk.get("provider_specific_fields") or {}).get("anthropic") or {}


def _is_citation(chunk: Mapping[str, Any]) -> bool:
    delta = _event(chunk).get("delta") or {}
    return "citation" in delta or "citation" in _side(chunk)


def _ran(chunk: Mapping[str, Any]) -> int:
    """Count blocks of tools that ran at the provider, and of other kinds that are no text, thinking or call."""
    rider = chunk.get("provider_specific_fields") or {}
    side = _side(chunk)
    return (rider.get("kind") == "other" and rider.get("phase") == "open") + sum(
        len(side.get(name) or ()) for name in ("tool_results", "web_search_results", "compaction_blocks")
    )


def _usage(chunks: list[dict[str, Any]]) -> dict[str, int]:
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), {})
    counts = {name: usage[name] for name in _COUNTS if name in usage}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    further = {"cached": cached, "reasoning": reasoning}
    return counts | {name: count for name, count in further.items() if count}


if __name__ == "__main__":
    asyncio.run(_main())
