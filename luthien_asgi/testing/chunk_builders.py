"""Real chunks for tests of policies: what a backend would have made of a provider's stream.

The first chunk imports LiteLLM, which takes seconds, once a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, assert_never

from luthien_asgi.chunks import Chunk
from luthien_asgi.testing import render_openai
from luthien_asgi.testing.parts import Part, Redacted, Refusal, Text, Thinking, ToolCall, Usage

__all__ = ["build_chunk", "chunks", "finish", "part_chunks", "role", "text_chunk", "thinking_chunks", "tool_chunks", "usage"]

CREATED: Final = 1_700_000_000
IDENTITY: Final[Mapping[str, Any]] = {"id": "chatcmpl-scripted-1", "created": CREATED, "model": "scripted"}


def build_chunk(data: Mapping[str, Any], /) -> Chunk:
    """Return a real `ModelResponseStream` for chunk data (see `luthien_asgi.chunks`)."""
    from luthien_asgi.backend.chunks import build  # `luthien_asgi.testing` is imported where no chunk is ever built

    return build(data)


def chunks(*parts: str | Part, finish_reason: str | None = "auto", tokens: Usage = Usage()) -> list[Chunk]:  # noqa: B008 - frozen
    """Return the chunks of a whole answer: role, parts, finish, usage.

    A text given as several strings is one block in several chunks: `chunks("Hel", "lo")`. `finish_reason` "auto" gives what fits
    the parts, None ends the answer without one.
    """
    if finish_reason == "auto":
        finish_reason = "tool_calls" if any(isinstance(part, ToolCall) for part in parts) else "stop"
    ending = [] if finish_reason is None else [finish(finish_reason), usage(tokens)]
    return [role(), *_parts(parts), *ending]


def _parts(parts: tuple[str | Part, ...]) -> Iterator[Chunk]:
    calls = 0
    for part in parts:
        if isinstance(part, str):
            yield text_chunk(part)
            continue
        yield from part_chunks(part, index=calls)
        calls += isinstance(part, ToolCall)


def part_chunks(part: Part, *, index: int = 0, choice: int = 0) -> list[Chunk]:
    """Return the chunks of one part; `index` is a tool call's number among the calls of its choice."""
    match part:
        case Text():
            return [text_chunk(fragment, choice=choice) for fragment in part.fragments]
        case Thinking():
            return thinking_chunks(*part.fragments, signature=part.signature, choice=choice)
        case Redacted():
            return [_delta({"thinking_blocks": [{"type": "redacted_thinking", "data": part.data}]}, choice)]
        case Refusal():
            return [_delta({"refusal": fragment}, choice) for fragment in part.fragments]
        case ToolCall():
            return tool_chunks(part.id, part.name, *part.fragments, index=index, choice=choice)
        case _:
            assert_never(part)


def role(*, choice: int = 0) -> Chunk:
    """Return the chunk that begins a choice."""
    return _delta({"role": "assistant"}, choice)


def text_chunk(text: str, *, choice: int = 0) -> Chunk:
    """Return a chunk of text."""
    return _delta({"content": text}, choice)


def thinking_chunks(*fragments: str, signature: str = "", choice: int = 0) -> list[Chunk]:
    """Return the chunks of a thinking block, the signature last."""
    made = [
        _delta({"reasoning_content": text, "thinking_blocks": [{"type": "thinking", "thinking": text}]}, choice)
        for text in fragments
    ]
    if signature:
        made.append(_delta({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": signature}]}, choice))
    return made


def tool_chunks(id: str, name: str, *fragments: str, index: int = 0, choice: int = 0) -> list[Chunk]:  # noqa: A002 - the field's name
    """Return the chunks of a tool call: its name first, then its arguments in fragments."""
    opened = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    calls = [opened, *({"index": index, "function": {"arguments": fragment}} for fragment in fragments)]
    return [_delta({"tool_calls": [call]}, choice) for call in calls]


def finish(reason: str = "stop", *, choice: int = 0) -> Chunk:
    """Return the chunk that ends a choice, with a finish reason in OpenAI's words."""
    return _delta({}, choice, reason)


def usage(tokens: Usage = Usage()) -> Chunk:  # noqa: B008 - frozen
    """Return the chunk with the usage, which belongs to no choice."""
    return build_chunk({**IDENTITY, "choices": [], "usage": render_openai.usage_fields(tokens)})


def _delta(delta: dict[str, Any], choice: int, finish_reason: str | None = None) -> Chunk:
    choices = [{"index": choice, "delta": delta, "finish_reason": finish_reason, "logprobs": None}]
    return build_chunk({**IDENTITY, "choices": choices})
