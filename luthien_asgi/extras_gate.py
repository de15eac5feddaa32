"""What a policy in charge of content lets pass of the fields that are a provider's own.

Strategy: a policy judges blocks. What stands beside them passes when it cannot say what a block says (a table of harmless names),
or when it goes where the block goes: held with it, dropped with it, and part of its `raw`. The rest is left out and noted, since
nobody was asked about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunk_edits import copied, with_event, with_extras, with_usage, without_logprobs
from luthien_asgi.chunks import (
    Chunk,
    Part,
    delta_field,
    finish_reason_of,
    has_logprobs,
    openai_fields,
    provider_fields,
    read_part,
    usage_of,
)
from luthien_asgi.errors import ApiError
from luthien_asgi.extras import BOUND, THINKING_FIELDS, is_harmless, is_name, is_terse
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policy import Hold, Observe
from luthien_asgi.recorder import Transaction
from luthien_asgi.request import ChatRequest

__all__ = ["ExtrasGate", "gated_error"]

_ERROR_FIELDS: Final = frozenset({"message", "type", "code", "param"})
_NAMES: Final = 30
_NAME: Final = 100
"""So many fields are named in the record, and so much of each name: a provider can make up more."""
_FRAMES: Final = frozenset({"message_start", "message_delta"})
"""Anthropic events that are no part of a block."""
_LEVELS: Final = 8
"""Levels of such an event or of a usage, of which the deepest that is documented has four."""
_THINKING: Final = frozenset({BlockKind.THINKING, BlockKind.REDACTED_THINKING})


def gated_error(pipeline: Pipeline, error: ApiError) -> ApiError:
    """Take from a provider's error what could say what a policy in charge did not let be said: Groq quotes the refused call."""
    in_charge = pipeline.redraws or any(not isinstance(handling, Observe) for handling in pipeline.handles.values())
    if error.raw is not None and in_charge:
        error.raw = {name: value for name, value in error.raw.items() if name in _ERROR_FIELDS or is_harmless(name, value)}
    return error


class ExtrasGate:
    """Stands between the backend and one answer. It lets everything pass for a policy that only observes, and drops no answer."""

    def __init__(self, pipeline: Pipeline, log: Transaction, request: ChatRequest) -> None:
        self._log = log
        self._stops = request.stop_sequences
        self._noted: set[str] = set()
        in_charge = {kind for kind, handling in pipeline.handles.items() if not isinstance(handling, Observe)}
        # What may be dropped as a whole does not leave by the side either.
        self.open = not (in_charge or pipeline.redraws)
        """Whether everything passes: `passed` need not be called."""
        self._thinking = bool(in_charge & _THINKING)
        self._mute = BlockKind.TEXT in in_charge and not isinstance(pipeline.handles.get(BlockKind.OTHER), Hold)
        """Whether audio would say what the policy did not let be written."""

    def passed(self, chunk: Chunk) -> Chunk:
        """Return what of a chunk goes on to the policy and the client: the chunk itself, or a copy with less."""
        usage = usage_of(chunk)
        if usage is not None and (counted := self._terse(usage, _LEVELS)) != usage:
            chunk = with_usage(chunk, counted, provider_fields(chunk))
        extras = openai_fields(chunk)
        part = read_part(chunk)
        if part.kind is None and finish_reason_of(chunk) is not None and has_logprobs(chunk):
            chunk = self._without_logprobs(chunk)
        if part.kind is BlockKind.OTHER and self._mute and delta_field(chunk, "audio"):
            return self._without_audio(chunk)
        if part.event is not None and part.event.get("type") in _FRAMES:
            return self._without_sentences(chunk, part.event)
        if not extras:
            return chunk
        kept = {level: self._kept(level, fields, part) for level, fields in extras.items()}
        if kept == extras:
            return chunk
        return with_extras(chunk, {level: fields for level, fields in kept.items() if fields})

    def _kept(self, level: str, fields: Mapping[str, Any], part: Part) -> Mapping[str, Any]:
        if level == "form":
            return fields
        if level == "usage":
            return self._terse(fields, _LEVELS)
        kept = {name: value for name, value in fields.items() if self._may_pass(part, name, value)}
        for name in fields.keys() - kept.keys():
            self._note(name)
        return kept

    def _may_pass(self, part: Part, name: str, value: object) -> bool:
        if is_harmless(name, value):
            return True
        if name in THINKING_FIELDS:
            return not self._thinking or (part.kind is BlockKind.THINKING and value == part.text)
        # A number may be a token of the text.
        return part.kind is not None and (name in BOUND or isinstance(value, int | float))

    def _without_sentences(self, chunk: Chunk, event: Mapping[str, Any]) -> Chunk:
        kept = self._terse(event, _LEVELS)
        return chunk if kept == event else with_event(chunk, kept)

    def _terse(self, fields: Mapping[str, Any], levels: int) -> dict[str, Any]:
        kept = {}
        for name, value in fields.items():
            if name == "stop_sequence":
                kept[name] = self._stop_sequence(value)
            elif isinstance(value, Mapping) and levels and is_name(name):
                kept[name] = self._terse(value, levels - 1)
            elif is_name(name) and is_terse(value):
                kept[name] = value
            else:
                self._note(name)
        if kept.get("stop_reason") == "stop_sequence" and kept.get("stop_sequence") != fields.get("stop_sequence"):
            kept["stop_reason"] = "end_turn"  # to the client it ended by itself: a stop sequence has to be told
        return kept

    def _stop_sequence(self, said: object) -> object:
        """Return what ended the answer, where the request has it: a text of the client's own, whatever is in it."""
        if said is None or said in self._stops:
            return said
        self._note("stop_sequence")
        return None

    def _without_logprobs(self, chunk: Chunk) -> Chunk:
        self._note("logprobs")
        return without_logprobs(chunk)

    def _without_audio(self, chunk: Chunk) -> Chunk:
        self._note("audio")
        changed = copied(with_extras(chunk, {}))
        changed.choices[0].delta.audio = None
        return changed

    def _note(self, name: str) -> None:
        if name not in self._noted and len(self._noted) < _NAMES:
            self._noted.add(name)
            self._log.note(f"left out, because the policy could not judge it: {name[:_NAME]}")
