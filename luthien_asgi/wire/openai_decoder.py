"""Reads an OpenAI-style chat-completions stream: OpenAI, Azure and the many providers that speak its format.

Deliberate differences from the bytes (those of `luthien_asgi.wire.split` come on top):

1. A stream has one id, one model and one creation time: the first that are given. Azure's first event has none, Perplexity's
   change.
2. A choice has one finish reason, the first; OpenRouter repeats it.
3. Usage that comes before every choice has finished, as Perplexity's does with each event, is kept back; the last one is given
   out with the end, unless usage came after the finish reasons.
4. A finish reason that names a failure (`error`, `network_error`, `abort`) is a failure, not an end.
5. A comment, an event without data and one with nothing in it is a chunk without choices: a sign of life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Part
from luthien_asgi.errors import BackendError
from luthien_asgi.extras import is_terse
from luthien_asgi.wire.decoding import ChunkData, EventDecoder, is_done, parse
from luthien_asgi.wire.faults import error_fields, malformed, provider_error
from luthien_asgi.wire.split import split_chunk
from luthien_asgi.wire.sse import SSEEvent

__all__ = ["OpenAIDecoder"]

_TEXTS: Final[Mapping[str, BlockKind]] = {
    "content": BlockKind.TEXT,
    "reasoning_content": BlockKind.THINKING,
    "refusal": BlockKind.REFUSAL,
}
"""The kinds of a delta's texts."""
_FRAGMENT: Final = frozenset({"index", "function"})
_FAILURES: Final = frozenset({"error", "network_error", "abort"})


class OpenAIDecoder(EventDecoder):
    """Bytes of one OpenAI-style stream in, chunk data out. `created` (seconds since 1970) is for one that gives none."""

    def __init__(self, frame_bytes: int, created: int) -> None:
        super().__init__(frame_bytes)
        self._seen: set[int] = set()
        self._ended: set[int] = set()
        self._early_usage: ChunkData | None = None
        self._id = ""
        self._model = ""
        self._created = 0
        self._fallback_created = created

    def _take(self, event: SSEEvent, chunks: list[ChunkData]) -> None:
        data = event.data
        if not data:
            chunks.append(self._sign_of_life())
        elif is_done(data):
            self._end(chunks)
        else:
            parsed = parse(data)
            _raise_error(event.event, parsed)
            self._identify(parsed)
            before = len(chunks)
            self._pass(split_chunk(parsed, self._seen), chunks)
            if len(chunks) == before + 1:
                self._expect_like(chunks[before])

    def _expect_like(self, chunk: ChunkData) -> None:
        """Expect more events like this one if its chunk is a fragment of a text and nothing else."""
        padded = _is_padded(chunk)
        if ("provider_specific_fields" in chunk and not padded) or "usage" in chunk or not chunk["choices"]:
            return
        (choice,) = chunk["choices"]
        if choice["finish_reason"] is not None or choice["logprobs"] is not None:
            return
        fragment = _fragment_of(choice["delta"])
        if fragment is None:
            return
        name, text, part, delta = fragment

        def data(other: str, padding: str) -> ChunkData:
            made = {**chunk, "choices": [{**choice, "delta": delta(other)}]}
            return {**made, "provider_specific_fields": _padding(padding)} if padded else made

        self._expect(name, text, part._replace(choice=choice["index"]), data, padded=padded)

    def _identify(self, data: ChunkData) -> None:
        if not self._id:
            self._id = _first_text(data.get("id"))
        if not self._model:
            self._model = _first_text(data.get("model"))
        if not self._created:
            created = data.get("created")
            self._created = created if type(created) is int and created > 0 else 0
        data["id"], data["model"] = self._id, self._model
        data["created"] = self._created or self._fallback_created

    def _pass(self, split: list[ChunkData], chunks: list[ChunkData]) -> None:
        before = len(chunks)
        for chunk in split:
            choices = chunk["choices"]
            if choices and choices[0]["finish_reason"] is not None:
                self._pass_finish(chunk, choices[0], chunks)
            elif "usage" in chunk and not self._all_ended():
                self._early_usage = chunk
                self._pass_own_fields(chunk, chunks)
            else:
                chunks.append(chunk)
                if "usage" in chunk:
                    self._early_usage = None
        if len(chunks) == before:
            chunks.append(self._sign_of_life())

    def _pass_finish(self, chunk: ChunkData, choice: dict[str, Any], chunks: list[ChunkData]) -> None:
        if choice["index"] in self._ended:
            if "provider_specific_fields" in chunk:
                chunks.append({**chunk, "choices": [{**choice, "finish_reason": None}]})
            return
        if choice["finish_reason"] in _FAILURES:
            msg = f"the provider ended the answer with the finish reason {choice['finish_reason']!r}"
            raise BackendError(msg)
        if not is_terse(choice["finish_reason"]):
            raise malformed()
        self._ended.add(choice["index"])
        chunks.append(chunk)

    def _pass_own_fields(self, chunk: ChunkData, chunks: list[ChunkData]) -> None:
        """Let the fields of the provider's own beside an early usage go on: a later usage takes its place."""
        fields = chunk.get("provider_specific_fields", {}).get("openai", {}).pop("chunk", None)
        if fields:
            chunks.append({**self._sign_of_life(), "provider_specific_fields": {"openai": {"chunk": fields}}})

    def _all_ended(self) -> bool:
        return bool(self._ended) and all(choice in self._ended for choice in self._seen if choice >= 0)

    def _end(self, chunks: list[ChunkData]) -> None:
        if not self._all_ended():
            open_choices = sorted(choice for choice in self._seen - self._ended if choice >= 0)
            where = f"without a finish reason for choice {open_choices[0]}" if open_choices else "before an answer began"
            raise BackendError(f"the provider's stream ended {where}")
        if self._early_usage is not None:
            chunks.append(self._early_usage)
        self._finished = True

    def _sign_of_life(self) -> ChunkData:
        created = self._created or self._fallback_created
        return {"id": self._id, "created": created, "model": self._model, "choices": []}


def _padding(padding: str) -> ChunkData:
    return {"openai": {"chunk": {"obfuscation": padding}}}


def _is_padded(chunk: ChunkData) -> bool:
    """Tell whether all that a chunk has of its provider's own is a padding."""
    fields = chunk.get("provider_specific_fields")
    padding = fields["openai"].get("chunk", {}).get("obfuscation") if fields and "openai" in fields else None
    return type(padding) is str and fields == _padding(padding)


def _fragment_of(delta: ChunkData) -> tuple[str, str, Part, Callable[[str], ChunkData]] | None:
    """Return of a delta that is one fragment: the field that holds it, its text, what it is a part of, and how it is made."""
    if len(delta) != 1:
        return None
    ((name, said),) = delta.items()
    if name in _TEXTS:
        return (name, said, Part(kind=_TEXTS[name]), lambda text: {name: text}) if said else None
    if name != "tool_calls" or len(said) != 1:
        return None
    (call,) = said
    body, index = call.get("function"), call.get("index")
    if call.keys() != _FRAGMENT or body.keys() != {"arguments"} or not body["arguments"]:
        return None
    part = Part(kind=BlockKind.TOOL_CALL, source=index)
    return "arguments", body["arguments"], part, lambda text: {"tool_calls": [{**call, "function": {"arguments": text}}]}


def _raise_error(event: str, data: ChunkData) -> None:
    """Raise the error that an event is: it has a truthy `error`, is named so, or Groq says why it stopped."""
    error = data.get("error")
    is_error = event == "error" or data.get("object") == "error"  # vLLM's has no envelope
    if not error and is_error:
        error = error_fields(data)
    groq = data.get("x_groq")
    if not error and isinstance(groq, dict):
        error = groq.get("error")
    if error or is_error:
        inner = error.get("error") if isinstance(error, dict) else None
        raise provider_error(inner or error or {}, wire="openai")


def _first_text(value: object) -> str:
    """Return an id or a name; a sentence is none."""
    return value if isinstance(value, str) and is_terse(value) else ""
