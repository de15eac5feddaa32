"""An OpenAI answer as one body, for a client that does not stream.

Strategy: what the deltas say is kept in pieces and put together once, by the rules of `luthien_asgi.wire.joining`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.runs import Run
from luthien_asgi.wire.joining import joined, joined_audio, joined_logprobs, updated
from luthien_asgi.wire.openai_frames import NOTHING

__all__ = ["OpenAICollector"]

_FRAGMENTS: Final = frozenset({"token_ids", "tokens"})
"""Lists beside a delta that hold one fragment's share each."""
_OURS: Final = frozenset({"index", "message", "logprobs", "finish_reason", "delta"})
_OBJECT: Final = "chat.completion"
_PADDING: Final = frozenset({"obfuscation"})


@dataclass(slots=True)
class _Choice:
    index: int
    finish_reason: str | None = None
    pieces: dict[str, list[Any]] = field(default_factory=dict)
    calls: list[list[Mapping[str, Any]]] = field(default_factory=list)
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)
    fragments: dict[str, list[Any]] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)

    def add(self, delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                self._add_calls(value)
            elif name != "role" and value is not None:
                self.pieces.setdefault(name, []).append(value)

    def _add_calls(self, entries: list[Mapping[str, Any]]) -> None:
        for entry in entries:
            while entry["index"] >= len(self.calls):
                self.calls.append([])
            self.calls[entry["index"]].append({name: value for name, value in entry.items() if name != "index"})

    def add_beside(self, beside: Mapping[str, Any]) -> None:
        for name, value in beside.items():
            if name in _FRAGMENTS and isinstance(value, list):
                self.fragments.setdefault(name, []).extend(value)
            elif name not in _OURS:
                self.beside[name] = updated(self.beside.get(name), value)

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        for name, pieces in self.pieces.items():
            message[name] = joined_audio(pieces) if name == "audio" else joined(pieces, name=name)
        # An opening delta says `"refusal": ""`; only one that has words is a refusal.
        message["refusal"] = message["refusal"] or None
        if self.calls:
            message["tool_calls"] = [joined(pieces) for pieces in self.calls]
        return message

    def body(self) -> dict[str, Any]:
        return {
            **self.beside,
            **self.fragments,
            "index": self.index,
            "message": self.message(),
            "logprobs": joined_logprobs(self.logprobs),
            "finish_reason": self.finish_reason,
        }


class OpenAICollector:
    """Collects the deltas into the body of a `stream: false` answer."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Mapping[str, Any] | None = None
        self._top: dict[str, Any] = {}

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
        """Add one delta; there is no frame."""
        found = self._choices.get(choice)
        if found is None:
            found = self._choices[choice] = _Choice(choice)
        found.add(delta)
        if isinstance(logprobs, Mapping):
            found.logprobs.append(logprobs)
        found.finish_reason = finish_reason or found.finish_reason
        found.add_beside(beside)
        return self._add_top(top)

    def text(self, choice: int, name: str, text: str, top: Mapping[str, Any] = NOTHING) -> list[bytes]:
        """Add one fragment; there is no frame."""
        return self.delta(choice, {name: text}, top=top)

    def run(self, choice: int, name: str, run: Run, call: int | None = None) -> list[bytes]:
        """Add several fragments; there is no frame."""
        text = "".join(run.texts)
        return self.delta(choice, {name: text} if call is None else {"tool_calls": [{"index": call, "function": {name: text}}]})

    def _add_top(self, top: Mapping[str, Any]) -> list[bytes]:
        for name, value in top.items():
            if name not in _PADDING:
                self._top[name] = updated(self._top.get(name), value)
        return []

    def end(self, usage: Mapping[str, Any] | None, top: Mapping[str, Any] = NOTHING) -> list[bytes]:
        """Keep the usage; there is no frame."""
        self._usage = usage
        return self._add_top(top)

    def body(self) -> dict[str, Any]:
        """Return what was collected as a `chat.completion`."""
        choices = [self._choices[index].body() for index in sorted(self._choices)]
        body = {**self._top, "id": self.fields["id"], "object": _OBJECT, **self.fields, "choices": choices}
        return body if self._usage is None else {**body, "usage": dict(self._usage)}
