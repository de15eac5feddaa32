"""What a scripted answer is made of, in words that belong to no wire.

An `Answer` is rendered in the wire of the request that it answers. A fragment is what one event carries: `Text("Hel", "lo")` is
one block in two events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from luthien_asgi import jsontext
from luthien_asgi.testing.faults import Fault

__all__ = ["Answer", "Part", "Redacted", "Refusal", "Text", "Thinking", "ToolCall", "Usage"]


@dataclass(frozen=True, slots=True, init=False)
class Text:
    """A text block in fragments."""

    fragments: tuple[str, ...]

    def __init__(self, *fragments: str) -> None:
        object.__setattr__(self, "fragments", fragments)


@dataclass(frozen=True, slots=True, init=False)
class Thinking:
    """A thinking block in fragments. On the OpenAI wire it is `reasoning_content`, and the signature is not sent."""

    fragments: tuple[str, ...]
    signature: str

    def __init__(self, *fragments: str, signature: str = "") -> None:
        object.__setattr__(self, "fragments", fragments)
        object.__setattr__(self, "signature", signature)


@dataclass(frozen=True, slots=True)
class Redacted:
    """A redacted thinking block. The OpenAI wire has none: it is left out there."""

    data: str


@dataclass(frozen=True, slots=True, init=False)
class Refusal:
    """A refusal in fragments. On the Anthropic wire it is text, and the stop reason is `refusal`."""

    fragments: tuple[str, ...]

    def __init__(self, *fragments: str) -> None:
        object.__setattr__(self, "fragments", fragments)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call. `arguments` is JSON text, or a mapping that becomes it; `cuts` are the places where the text is cut."""

    id: str
    name: str
    arguments: str | Mapping[str, Any] = "{}"
    cuts: Sequence[int] = ()

    @property
    def text(self) -> str:
        """The arguments as JSON text."""
        return self.arguments if isinstance(self.arguments, str) else jsontext.dumps(self.arguments).decode()

    @property
    def fragments(self) -> tuple[str, ...]:
        """The arguments in the pieces that the cuts give; empty arguments have none."""
        text = self.text
        return tuple(text[start:end] for start, end in pairwise((0, *self.cuts, len(text))) if start < end)


Part = Text | Thinking | Redacted | Refusal | ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens. `input` excludes what the cache gave and took, as in Anthropic's `input_tokens`."""

    input: int = 11
    output: int = 7
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True, init=False)
class Answer:
    """A whole answer of the model.

    `finish` is a finish or stop reason in the words of either wire; "auto" gives what fits the parts, None ends the answer
    without one. `model` None is the model that was asked for. `faults` go wrong at their places (see
    `luthien_asgi.testing.faults`), `pace` is the time in seconds between two events.
    """

    parts: tuple[Part, ...]
    finish: str | None
    usage: Usage
    id: str
    model: str | None
    faults: tuple[Fault, ...]
    pace: float

    def __init__(
        self,
        *parts: Part | str,
        finish: str | None = "auto",
        usage: Usage = Usage(),
        id: str = "scripted-1",  # noqa: A002 - the field's name in both wire formats
        model: str | None = None,
        faults: Sequence[Fault] = (),
        pace: float = 0.0,
    ) -> None:
        given = tuple(Text(part) if isinstance(part, str) else part for part in parts)
        values = {
            "parts": given,
            "finish": finish,
            "usage": usage,
            "id": id,
            "model": model,
            "faults": tuple(faults),
            "pace": pace,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def finish_reason(self) -> str | None:
        """The finish reason, "auto" resolved in OpenAI's words."""
        if self.finish != "auto":
            return self.finish
        if any(isinstance(part, ToolCall) for part in self.parts):
            return "tool_calls"
        return "stop"
