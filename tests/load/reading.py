"""What a client has of an answer: its text and its tool calls, put together from the bytes, also of an answer that broke off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from luthien_asgi.testing import SSEEvent, StreamValidator, sse_events, validate_body

__all__ = ["Seen", "read"]


@dataclass(slots=True)
class Seen:
    """What came."""

    text: str = ""
    calls: dict[int, str] = field(default_factory=dict)
    """Arguments of tool calls, by index."""
    error: str = ""
    """The message of the error that ended it."""
    ended: str = ""
    """`[DONE]`, `message_stop`, `an error`, `whole` for a body; `cut off`."""
    illegal: list[str] = field(default_factory=list)


def read(client: str, body: bytes, *, stream: bool, whole: bool) -> Seen:
    """Return what was seen. `whole`: it ran to the end of the HTTP response, so it has to be complete too."""
    return _read_stream(client, body, whole=whole) if stream else _read_body(client, body)


def _read_stream(client: Any, body: bytes, *, whole: bool) -> Seen:
    validator = StreamValidator(client, include_usage=False if client == "openai" else None)
    found = [*validator.feed(body), *(validator.end() if whole else ())]
    seen = Seen(illegal=[str(violation) for violation in found if violation.severity == "error"])
    seen.ended = validator.summary()["ended"]
    end = body.rfind(b"\n\n")
    for event in sse_events(body[: end + 2] if end >= 0 else b""):
        with _readable(seen):
            _take(seen, event)
    return seen


@contextmanager
def _readable(seen: Seen) -> Iterator[None]:
    """Take what cannot be read for a complaint: it must not end the load."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        seen.illegal.append(f"unreadable: {error!r}")


def _take(seen: Seen, event: SSEEvent) -> None:
    if event.data in {"", "[DONE]"}:
        return
    said = json.loads(event.data)
    if said.get("error"):
        seen.error = said["error"]["message"]
    for delta in _deltas(said):
        seen.text += delta.get("content") or delta.get("text") or ""
        for call in delta.get("tool_calls") or []:
            arguments = call["function"].get("arguments") or ""
            seen.calls[call["index"]] = seen.calls.get(call["index"], "") + arguments
        if "partial_json" in delta:
            seen.calls[said["index"]] = seen.calls.get(said["index"], "") + delta["partial_json"]


def _deltas(said: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (choice["delta"] for choice in said.get("choices") or [])
    if said.get("type") == "content_block_delta":
        yield said["delta"]


def _read_body(client: Any, body: bytes) -> Seen:
    found = validate_body(client, body)
    seen = Seen(ended="whole", illegal=[str(violation) for violation in found if violation.severity == "error"])
    with _readable(seen):
        _take_body(seen, json.loads(body))
    return seen


def _take_body(seen: Seen, said: Mapping[str, Any]) -> None:
    if said.get("error"):
        seen.error, seen.ended = said["error"]["message"], "an error"
    for choice in said.get("choices") or []:
        message = choice["message"]
        seen.text += message.get("content") or ""
        seen.calls |= {at: call["function"]["arguments"] for at, call in enumerate(message.get("tool_calls") or [])}
    for at, block in enumerate(said.get("content") or []):
        seen.text += block.get("text", "")
        if block["type"] == "tool_use":
            seen.calls[at] = json.dumps(block["input"])
