"""Where an OpenAI answer goes: into SSE frames, or into one body.

Strategy: both outputs take the same calls (`delta`, `text`, `end`), so that a `stream: false` answer cannot differ from a
streamed one. What is the same in every frame is serialised once; a text delta costs the serialising of its text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from luthien_asgi import jsontext
from luthien_asgi.chunks import Chunk

__all__ = ["Identity", "OpenAICollector", "OpenAIFrames", "OpenAIOutput"]

_DONE: Final = b"data: [DONE]\n\n"
_EXTRAS: Final = ("service_tier", "system_fingerprint")


class OpenAIOutput(Protocol):
    """Takes the answer piece by piece."""

    fields: dict[str, Any]

    def delta(
        self, choice: int, delta: Mapping[str, Any], *, logprobs: object = None, finish_reason: str | None = None
    ) -> list[bytes]:
        """Take one delta of a choice."""
        ...

    def text(self, choice: int, name: str, text: str) -> list[bytes]:
        """Take a delta that is one fragment: of `content`, `reasoning_content` or `refusal`."""
        ...

    def end(self, usage: Mapping[str, Any] | None) -> list[bytes]:
        """Take the end of a good answer."""
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
        news = {name: value for name, value in said.items() if value and self._seen.get(name) != value}
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
        self._null_usage = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + self._null_usage
        self._heads: dict[tuple[int, str], bytes] = {}
        self._head = b""
        self._head_of: dict[str, Any] | None = None

    def delta(
        self, choice: int, delta: Mapping[str, Any], *, logprobs: object = None, finish_reason: str | None = None
    ) -> list[bytes]:
        """Return the frame of one delta."""
        said = jsontext.dumps({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason})
        return [b"".join((self._start(), b"[", said, b"]", self._null_usage))]

    def text(self, choice: int, name: str, text: str) -> list[bytes]:
        """Return the frame of one fragment."""
        if self._head_of is not self.fields:
            self._start()
        head = self._heads.get((choice, name))
        if head is None:
            head = self._heads[choice, name] = self._start() + b'[{"index":%d,"delta":{"%s":' % (choice, name.encode())
        return [head + jsontext.dumps(text) + self._tail]

    def end(self, usage: Mapping[str, Any] | None) -> list[bytes]:
        """Return the usage frame, if it was asked for and is known, and the terminator."""
        if usage is None or not self._include_usage:
            return [_DONE]
        return [b"".join((self._start(), b'[],"usage":', jsontext.dumps(usage), b"}\n\n")), _DONE]

    def _start(self) -> bytes:
        if self._head_of is not self.fields:
            self._head_of = self.fields
            self._heads.clear()
            said = {"id": self.fields["id"], "object": "chat.completion.chunk", **self.fields}
            self._head = b"data: " + jsontext.dumps(said)[:-1] + b',"choices":'
        return self._head


class OpenAICollector:
    """Collects the deltas into the body of a `stream: false` answer."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Mapping[str, Any] | None = None

    def delta(
        self, choice: int, delta: Mapping[str, Any], *, logprobs: object = None, finish_reason: str | None = None
    ) -> list[bytes]:
        """Add one delta; there is no frame."""
        found = self._choice(choice)
        for name, value in delta.items():
            add: Callable[..., None] = _ADD.get(name, _set)
            add(found["message"], name, value)
        if isinstance(logprobs, Mapping):
            found["logprobs"] = _joined_logprobs(found["logprobs"], logprobs)
        found["finish_reason"] = finish_reason or found["finish_reason"]
        return []

    def text(self, choice: int, name: str, text: str) -> list[bytes]:
        """Add one fragment; there is no frame."""
        return self.delta(choice, {name: text})

    def end(self, usage: Mapping[str, Any] | None) -> list[bytes]:
        """Keep the usage; there is no frame."""
        self._usage = usage
        return []

    def body(self) -> dict[str, Any]:
        """Return what was collected as a `chat.completion`."""
        choices = [_written_choice(self._choices[index]) for index in sorted(self._choices)]
        body = {"id": self.fields["id"], "object": "chat.completion", **self.fields, "choices": choices}
        return body if self._usage is None else {**body, "usage": dict(self._usage)}

    def _choice(self, index: int) -> dict[str, Any]:
        if index not in self._choices:
            message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
            self._choices[index] = {"index": index, "message": message, "logprobs": None, "finish_reason": None}
        return self._choices[index]


_TEXTS: Final = ("content", "refusal", "reasoning_content")


def _written_choice(choice: dict[str, Any]) -> dict[str, Any]:
    message = {**choice["message"]}
    for name in _TEXTS:
        if isinstance(message.get(name), list):
            message[name] = "".join(message[name])
    # An opening delta says `"refusal": ""`; only one that has words is a refusal.
    message["refusal"] = message["refusal"] or None
    return {**choice, "message": message}


def _set(message: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        message[name] = value


def _add_text(message: dict[str, Any], name: str, value: str | None) -> None:
    if value is None:
        return
    if message.get(name) is None:
        message[name] = []
    message[name].append(value)


def _add_calls(message: dict[str, Any], name: str, entries: list[dict[str, Any]]) -> None:
    calls = message.setdefault(name, [])
    for entry in entries:
        if "id" in entry:
            calls.append(
                {key: dict(value) if isinstance(value, dict) else value for key, value in entry.items() if key != "index"}
            )
            continue
        body, field = ("custom", "input") if "custom" in entry else ("function", "arguments")
        calls[entry["index"]][body][field] += entry[body][field]


def _add_audio(message: dict[str, Any], name: str, value: Mapping[str, Any]) -> None:
    audio = message.setdefault(name, {})
    for key, said in value.items():
        if key == "data" and audio.get(key):
            audio[key] = _joined_base64(audio[key], said)
        elif key == "transcript":
            audio[key] = audio.get(key, "") + (said or "")
        elif said is not None:
            audio[key] = said


def _joined_base64(first: str, second: str) -> str:
    try:
        return base64.b64encode(base64.b64decode(first) + base64.b64decode(second)).decode("ascii")
    except binascii.Error:
        return first + second


def _joined_logprobs(first: Mapping[str, Any] | None, second: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(first or {"content": None, "refusal": None})
    for name, tokens in second.items():
        found[name] = [*(found.get(name) or []), *tokens] if isinstance(tokens, list) else found.get(name)
    return found


_ADD: Final[Mapping[str, Callable[..., None]]] = {
    "content": _add_text,
    "refusal": _add_text,
    "reasoning_content": _add_text,
    "tool_calls": _add_calls,
    "audio": _add_audio,
}
