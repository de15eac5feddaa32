"""An OpenAI answer as SSE frames.

Strategy: both outputs of the encoder (the other is `luthien_asgi.wire.openai_collect`) take the same calls, so that a
`stream: false` answer cannot differ from a streamed one. What is the same in every frame is serialised once; a text delta costs
the serialising of its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from luthien_asgi import jsontext
from luthien_asgi.chunks import Chunk
from luthien_asgi.extras import is_terse
from luthien_asgi.runs import Run
from luthien_asgi.wire.framing import framed, padded

__all__ = ["NOTHING", "Identity", "OpenAIFrames", "OpenAIOutput"]

NOTHING: Final[Mapping[str, Any]] = {}
_DONE: Final = b"data: [DONE]\n\n"
_EXTRAS: Final = ("service_tier", "system_fingerprint")


class OpenAIOutput(Protocol):
    """Takes the answer piece by piece. `beside` are a choice's other fields, `top` a chunk's."""

    fields: dict[str, Any]

    def delta(
        self,
        choice: int,
        delta: Mapping[str, Any],
        *,
        logprobs: object = None,
        finish_reason: str | None = None,
        beside: Mapping[str, Any] = NOTHING,
        top: Mapping[str, Any] = NOTHING,
    ) -> list[bytes]:
        """Take one delta of a choice."""
        ...

    def text(self, choice: int, name: str, text: str, top: Mapping[str, Any] = NOTHING) -> list[bytes]:
        """Take a delta that is one fragment: of `content`, `reasoning_content` or `refusal`."""
        ...

    def run(self, choice: int, name: str, run: Run, call: int | None = None) -> list[bytes]:
        """Take deltas that are one fragment each, those of `arguments` of a tool call with its number."""
        ...

    def end(self, usage: Mapping[str, Any] | None, top: Mapping[str, Any] = NOTHING) -> list[bytes]:
        """Take the end of a good answer; `top` stands beside the usage."""
        ...


class Identity:
    """What is the same in every frame: the first chunks say it, what was sent stands."""

    def __init__(self, *, id: str, model: str, created: int) -> None:  # noqa: A002 - the field's name
        self._fallback = {"id": id, "created": created, "model": model}
        self._seen: dict[str, Any] = {}
        self._fixed = False

    def see(self, chunk: Chunk) -> dict[str, Any] | None:
        """Return the fields that changed, or None."""
        extra = getattr(chunk, "__pydantic_extra__", None) or {}
        said = {name: extra.get(name) or vars(chunk).get(name) for name in _EXTRAS}
        if not self._fixed:
            first = {"id": chunk.id, "created": chunk.created if chunk.id else None, "model": chunk.model}
            said |= {name: value for name, value in first.items() if name not in self._seen}
        news = {name: value for name, value in said.items() if value and self._seen.get(name) != value and is_terse(value)}
        self._seen |= news
        return self.fields() if news else None

    def fix(self) -> None:
        """Take id, created and model as final: a frame has left with them."""
        self._fixed = True

    def fields(self) -> dict[str, Any]:
        """Return id, created, model, and the service tier and fingerprint where they are known."""
        return {**self._fallback, **self._seen}


class OpenAIFrames:
    """Writes SSE frames."""

    def __init__(self, *, include_usage: bool) -> None:
        self.fields: dict[str, Any] = {}
        self._include_usage = include_usage
        self._null_usage = b',"usage":null' if include_usage else b""
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + self._null_usage
        self._last = self._tail + _end(NOTHING)
        self._heads: dict[tuple[int, str], bytes] = {}
        self._head = b""
        self._head_of: dict[str, Any] | None = None

    def delta(
        self,
        choice: int,
        delta: Mapping[str, Any],
        *,
        logprobs: object = None,
        finish_reason: str | None = None,
        beside: Mapping[str, Any] = NOTHING,
        top: Mapping[str, Any] = NOTHING,
    ) -> list[bytes]:
        """Return the frame of one delta."""
        said = {**beside, "index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return [b"".join((self._start(), b"[", jsontext.dumps(said), b"]", self._null_usage, _end(top)))]

    def text(self, choice: int, name: str, text: str, top: Mapping[str, Any] = NOTHING) -> list[bytes]:
        """Return the frame of one fragment."""
        if self._head_of is not self.fields:
            self._start()
        head = self._heads.get((choice, name))
        if head is None:
            head = self._heads[choice, name] = self._start() + b'[{"index":%d,"delta":{"%s":' % (choice, name.encode())
        return [head + jsontext.dumps(text) + (self._tail + _end(top) if top else self._last)]

    def run(self, choice: int, name: str, run: Run, call: int | None = None) -> list[bytes]:
        """Return the frames of several fragments, joined."""
        if call is None:
            head, tail = b'[{"index":%d,"delta":{"%s":' % (choice, name.encode()), self._tail
        else:
            head = b'[{"index":%d,"delta":{"tool_calls":[{"index":%d,"function":{"arguments":' % (choice, call)
            tail = b"}}]" + self._tail
        head = self._start() + head
        if run.paddings is not None:
            return [padded(head, run.texts, tail, run.paddings)]
        return [framed(head, run.texts, tail + _end(NOTHING))]

    def end(self, usage: Mapping[str, Any] | None, top: Mapping[str, Any] = NOTHING) -> list[bytes]:
        """Return the usage frame, if it was asked for and is known, and the terminator."""
        if usage is None or not self._include_usage:
            return [_DONE]
        return [b"".join((self._start(), b'[],"usage":', jsontext.dumps(usage), _end(top))), _DONE]

    def _start(self) -> bytes:
        if self._head_of is not self.fields:
            self._head_of = self.fields
            self._heads.clear()
            said = {"id": self.fields["id"], "object": "chat.completion.chunk", **self.fields}
            self._head = b"data: " + jsontext.dumps(said)[:-1] + b',"choices":'
        return self._head


def _end(top: Mapping[str, Any]) -> bytes:
    return b"," + jsontext.dumps(top)[1:] + b"\n\n" if top else b"}\n\n"
