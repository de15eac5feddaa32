"""Chunks: what flows from the backend through the policy to the formatter.

A chunk is LiteLLM's `ModelResponseStream`. This module never imports LiteLLM; it reads chunks by their attributes
(`luthien_asgi.chunk_edits` makes changed copies). New chunks are built by a `ChunkFactory`, which the backend supplies.

Strategy: one chunk, one part. Decoders and the LiteLLM adapter split what a provider put together (text and finish reason,
two tool calls in a delta), so that a chunk belongs to one choice and to one block at most. A chunk's data has this shape:

    {"id", "created", "model", "choices": [{"index", "delta": {...}, "finish_reason", "logprobs"}] or [],
     "usage"?, "system_fingerprint"?, "service_tier"?, "provider_specific_fields"?}

with one of these deltas:

    {"role": "assistant"}                                              the beginning of a choice
    {"content": "frag"}                                                text        (`annotations` may ride along)
    {"reasoning_content": "frag", "thinking_blocks"?: [{"type": "thinking", "thinking": "frag", "signature"?}]}
    {"thinking_blocks": [{"type": "redacted_thinking", "data"}]}
    {"tool_calls": [{"index", "id"?, "type"?, "function": {"name"?, "arguments"}}]}      or "custom": {"name"?, "input"}
    {"refusal": "frag"}
    {}                                                                 finish, usage, a boundary, or a block of kind other

`provider_specific_fields` tells what the common format has no field for:

    {"kind", "phase": "open" | "delta" | "close", "index": n,          the provider's own block boundary and number
     "anthropic": {...},                                               the Anthropic event itself (any event, also message_start)
     "openai": {level: {...}}}                                         fields of an OpenAI-style provider's own, by the level at
                                                                       which they stood (`luthien_asgi.extras` has the levels)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol

from luthien_asgi.blocks import BlockKind
from luthien_asgi.extras import harmless_extras

__all__ = [
    "Chunk",
    "ChunkFactory",
    "Part",
    "Phase",
    "content_size",
    "delta_field",
    "delta_fields",
    "finish_reason_of",
    "has_role",
    "openai_fields",
    "plain_text",
    "provider_fields",
    "read_part",
    "side_data",
    "standard_side_data",
    "text_size",
    "usage_of",
]

Phase = Literal["open", "delta", "close"]


class Chunk(Protocol):
    """The part of LiteLLM's `ModelResponseStream` that this package reads."""

    id: str
    created: int
    model: str | None
    # `list` would be invariant, and LiteLLM's own classes are not ours to name.
    choices: Any


class ChunkFactory(Protocol):
    """Builds a real `ModelResponseStream` from chunk data (the shape in the module's docstring), without validation."""

    def __call__(self, data: Mapping[str, Any], /) -> Chunk:
        """Return the chunk. The data is owned by the chunk from then on."""
        ...


class Part(NamedTuple):
    """What one chunk says about one block. `kind` is None when it belongs to no block (role, finish, usage, keepalive)."""

    choice: int = 0
    kind: BlockKind | None = None
    phase: Phase = "delta"
    source: int | None = None
    """The provider's own number of the block: Anthropic's `index`, OpenAI's tool `index`."""
    text: str = ""
    id: str = ""
    name: str = ""
    signature: str = ""
    custom: bool = False
    event: Mapping[str, Any] | None = None
    """The Anthropic event that rides along."""


NO_PART: Final = Part()
_NOTHING: Final[Mapping[str, Any]] = {}
_TEXT: Final = BlockKind.TEXT
_FRAME: Final = 64
"""Bytes counted for a chunk beside its content."""
_NO_PROVIDER_FIELDS: Final = {"provider_specific_fields": None}
_DELTA_FIELDS: Final = 5
"""What LiteLLM's `Delta` always has: content, role, function_call, tool_calls, audio."""
_KINDS: Final[Mapping[str, BlockKind]] = {str(kind): kind for kind in BlockKind}


def _value(holder: Any, name: str) -> Any:  # noqa: ANN401 - any field of any of LiteLLM's objects
    """Return a field's value, or None.

    LiteLLM's objects keep most of their fields in `__pydantic_extra__`, and pydantic's way there (`__getattr__`) costs ten times
    what the dict does.
    """
    try:
        value = holder.__pydantic_extra__.get(name)
    except AttributeError:  # another class's object, or one without further fields
        return getattr(holder, name, None)
    return value if value is not None else holder.__dict__.get(name)


def delta_field(chunk: Chunk, name: str) -> Any:  # noqa: ANN401 - any field
    """Return one field of the first choice's delta, or None."""
    return _value(_value(chunk.choices[0], "delta"), name)


def delta_fields(chunk: Chunk) -> Mapping[str, Any]:
    """Return the fields of the first choice's delta that have a value, or an empty mapping."""
    choices = chunk.choices
    if not choices:
        return _NOTHING
    delta = choices[0].delta
    extra = getattr(delta, "__pydantic_extra__", None)
    return {k: v for k, v in (*delta.__dict__.items(), *(extra.items() if extra else ())) if v is not None}


def provider_fields(chunk: Chunk) -> Mapping[str, Any]:
    """Return the chunk's `provider_specific_fields`, or an empty mapping."""
    return getattr(chunk, "provider_specific_fields", None) or _NOTHING


def openai_fields(chunk: Chunk) -> Mapping[str, Any]:
    """Return the fields of an OpenAI-style provider's own that ride along, by level, or an empty mapping."""
    fields = getattr(chunk, "provider_specific_fields", None)
    return fields.get("openai") or _NOTHING if fields else _NOTHING


def usage_of(chunk: Chunk) -> Mapping[str, Any] | None:
    """Return the chunk's usage as a mapping with OpenAI's field names, or None."""
    usage = _value(chunk, "usage")
    if usage is None or isinstance(usage, Mapping):
        return usage
    dumped: Mapping[str, Any] = usage.model_dump(exclude_none=True)
    return dumped


def finish_reason_of(chunk: Chunk) -> str | None:
    """Return the finish reason in OpenAI's words, or None."""
    choices = chunk.choices
    reason: str | None = _value(choices[0], "finish_reason") if choices else None
    return reason


def has_role(chunk: Chunk) -> bool:
    """Tell whether the chunk begins a choice."""
    return bool(chunk.choices) and "role" in delta_fields(chunk)


def has_logprobs(chunk: Chunk) -> bool:
    """Tell whether the chunk has log probabilities: of its text, or of what else might have been said."""
    choices = chunk.choices
    return bool(choices) and bool(_value(choices[0], "logprobs"))


def read_part(chunk: Chunk) -> Part:
    """Return what the chunk says about a block."""
    choices = chunk.choices
    rider = provider_fields(chunk)
    if rider and len(rider) == 1 and "openai" in rider:  # it says nothing about the block
        rider = _NOTHING
    if not choices:
        return _from_rider(0, rider, Part(event=rider.get("anthropic"))) if rider else NO_PART
    index, delta = _value(choices[0], "index"), _value(choices[0], "delta")
    if not rider and (text := (getattr(delta, "__pydantic_extra__", None) or _NOTHING).get("content")):
        return Part(index, _TEXT, "delta", None, text)  # as most chunks are
    part = _from_delta(index, getattr(delta, "__pydantic_extra__", None) or delta.__dict__, delta)
    return _from_rider(index, rider, part) if rider else part


def plain_text(chunk: Chunk) -> tuple[int, str] | None:
    """Return choice and text of a chunk that is one fragment of text and nothing else, as most are; None for any other.

    For what costs as much as all the rest that is done for such a chunk; `read_part` says what any chunk means.
    """
    try:
        (choice,) = chunk.choices
        fields = choice.__pydantic_extra__
        delta = fields["delta"]
        said = delta.__pydantic_extra__
        text = said["content"]
        if (
            type(text) is str
            and text
            and len(said) == _DELTA_FIELDS
            and said["role"] is said["tool_calls"] is said["audio"] is said["function_call"] is None
            and fields["finish_reason"] is fields["logprobs"] is None
            and delta.__dict__ == _NO_PROVIDER_FIELDS
            and chunk.provider_specific_fields is None  # type: ignore[attr-defined]  # a field of LiteLLM's class
            and "usage" not in chunk.__pydantic_extra__  # type: ignore[attr-defined]
        ):
            return fields["index"], text
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # not a chunk of the usual form
    return None


def _from_delta(choice: int, fields: Mapping[str, Any], delta: Any) -> Part:  # noqa: ANN401 - LiteLLM's Delta
    if text := fields.get("content"):
        return Part(choice, _TEXT, "delta", None, text)
    if calls := fields.get("tool_calls"):
        return _tool_part(choice, calls[0])
    if thinking := _value(delta, "thinking_blocks"):
        return _thinking_part(choice, thinking[0])
    if reasoning := _value(delta, "reasoning_content"):
        return Part(choice, BlockKind.THINKING, text=reasoning)
    if refusal := fields.get("refusal"):
        return Part(choice, BlockKind.REFUSAL, text=refusal)
    if fields.get("audio"):
        return Part(choice, BlockKind.OTHER)
    if fields.get("annotations"):
        return Part(choice, BlockKind.TEXT)
    return Part(choice)


def _tool_part(choice: int, call: Any) -> Part:  # noqa: ANN401 - a dict or LiteLLM's class
    custom = _get(call, "custom")
    body = custom if custom is not None else _get(call, "function")
    text = _get(body, "input" if custom is not None else "arguments") or ""
    return Part(
        choice,
        BlockKind.TOOL_CALL,
        source=_get(call, "index"),
        text=text,
        id=_get(call, "id") or "",
        name=_get(body, "name") or "",
        custom=custom is not None,
    )


def _get(holder: Any, name: str) -> Any:  # noqa: ANN401 - a dict or LiteLLM's class
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _thinking_part(choice: int, block: Mapping[str, Any]) -> Part:
    if block.get("type") == "redacted_thinking":
        return Part(choice, BlockKind.REDACTED_THINKING, signature=block.get("data") or "")
    return Part(choice, BlockKind.THINKING, text=block.get("thinking") or "", signature=block.get("signature") or "")


def _from_rider(choice: int, rider: Mapping[str, Any], part: Part) -> Part:
    kind = _KINDS.get(rider.get("kind", ""), part.kind)
    source = rider.get("index", part.source)
    return part._replace(choice=choice, kind=kind, phase=rider.get("phase", "delta"), source=source, event=rider.get("anthropic"))


def text_size(text: str) -> int:
    """Return how many bytes a chunk that holds nothing but text takes at least."""
    return len(text) + _FRAME


def content_size(part: Part, chunk: Chunk | None = None) -> int:
    """Return how many bytes a chunk's content takes at least, side data included: what queues and held blocks are bounded by."""
    size = len(part.text) + len(part.signature) + len(part.name) + _FRAME
    if part.event is not None:
        size += len(repr(part.event))
    if chunk is None:
        return size
    if extras := openai_fields(chunk):
        size += len(repr(extras))
    side = standard_side_data(chunk)
    return size + len(repr(side)) if side else size


def side_data(chunk: Chunk) -> dict[str, Any]:
    """Return what belongs to a chunk's block beside its text: logprobs, annotations, audio, images, and the fields of a
    provider's own that are about it; empty for most chunks.
    """
    side = standard_side_data(chunk)
    extras = openai_fields(chunk)
    if not extras:
        return side
    harmless = harmless_extras(extras)
    kept = {level: {n: v for n, v in fields.items() if n not in harmless.get(level, ())} for level, fields in extras.items()}
    return side | {level: fields for level, fields in kept.items() if fields}


def standard_side_data(chunk: Chunk) -> dict[str, Any]:
    """Return the logprobs, annotations, audio and images of a chunk; empty for most chunks."""
    choices = chunk.choices
    if not choices:
        return {}
    delta, logprobs = _value(choices[0], "delta"), _value(choices[0], "logprobs")
    extra = getattr(delta, "__pydantic_extra__", None) or delta.__dict__
    annotations, audio, images = extra.get("annotations"), extra.get("audio"), extra.get("images")
    if logprobs is None and annotations is None and audio is None and images is None:  # as most chunks
        return {}
    named = {"logprobs": logprobs, "annotations": annotations, "audio": audio, "images": images}
    found = {name: value for name, value in named.items() if value is not None}
    return {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in found.items()}
