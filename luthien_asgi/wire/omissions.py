"""What an answer holds that the client's format has no field for: the names that the record notes.

Strategy: the tables of answers say what is ignored; an encoder shows what it reads, and asks for the names at its end.
"""

from __future__ import annotations

from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, Part, delta_fields, openai_fields, side_data, usage_of
from luthien_asgi.extras import BOUND, HARMLESS, THINKING_FIELDS
from luthien_asgi.wire.answers_anthropic import ANTHROPIC_ANSWERS
from luthien_asgi.wire.answers_openai import OPENAI_ANSWERS
from luthien_asgi.wire.fates import Table

__all__ = ["OWN", "UNKNOWN", "Omissions"]

OWN: Final = "a field of the provider's own"
UNKNOWN: Final = "what is not known of an Anthropic answer"
_EXTRAS: Final = ("service_tier", "system_fingerprint", "moderation")

_NAMED: Final = HARMLESS | BOUND | THINKING_FIELDS
_SAID: Final = frozenset({"obfuscation", "reasoning", "usage"})
"""Padding, and what a message says in words of its own."""


class Omissions:
    """Collects the names of one answer."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What was left out, each name once: of ours, not of the provider's words."""
        return tuple(self._names)

    def see_part(self, part: Part) -> None:
        """Take a part of an answer on its way to an OpenAI client: what the Anthropic event beside it says, or its signature."""
        if part.event is not None:
            self._see(ANTHROPIC_ANSWERS, dict(part.event), "event")
        elif part.signature:
            self.add("content[redacted_thinking]" if part.kind is BlockKind.REDACTED_THINKING else "content[thinking].signature")

    def see_chunk(self, chunk: Chunk) -> None:
        """Take one chunk of an OpenAI-style answer, on its way to an Anthropic client."""
        extra = getattr(chunk, "__pydantic_extra__", None) or {}
        said: dict[str, Any] = {name: extra.get(name) or getattr(chunk, name, None) for name in _EXTRAS}
        if usage := usage_of(chunk):
            said["usage"] = dict(usage)
        if chunk.choices:
            said["choices"] = [{"delta": dict(delta_fields(chunk)), "logprobs": side_data(chunk).get("logprobs")}]
        self._see(OPENAI_ANSWERS, said, "")
        for level, fields in openai_fields(chunk).items():
            if level not in {"usage", "form"}:
                self._names |= dict.fromkeys(name if name in _NAMED else OWN for name in fields if name not in _SAID)

    def add(self, name: str) -> None:
        """Note one thing by its name."""
        self._names[name] = None

    def _see(self, table: Table, value: Any, path: str) -> None:  # noqa: ANN401 - JSON
        for found in table.survey(value, path, path):
            if found.row is not None:
                self.add(found.row.name)
            elif table is ANTHROPIC_ANSWERS:
                # An OpenAI-style provider adds fields of its own as it likes; an Anthropic event has none that says nothing.
                self.add(UNKNOWN)
