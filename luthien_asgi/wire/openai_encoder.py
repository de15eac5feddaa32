"""Chunks to an OpenAI client: `chat.completion.chunk` frames, or one `chat.completion`.

Strategy: a frame is built from what a chunk says, never dumped from it; one handler for each kind of block, chosen by dict. What
an OpenAI client has no field for (signatures, redacted thinking, server tools, citations) gives no frame.

The opening delta of a choice waits for what it opens, because it says so: `content` is "" before text and null before the rest.
Annotations are sent in one delta before the finish: the official SDK cannot add up a list without indices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, Part, delta_field, finish_reason_of, has_role, read_part, usage_of
from luthien_asgi.errors import ApiError, StreamStateError
from luthien_asgi.request import ChatRequest
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.error_bodies import openai_error
from luthien_asgi.wire.omissions import Omissions
from luthien_asgi.wire.openai_frames import Identity, OpenAICollector, OpenAIFrames, OpenAIOutput
from luthien_asgi.wire.tool_calls import CallNumbers
from luthien_asgi.wire.usage import finish_reason_for, openai_usage

__all__ = ["OpenAIEncoder"]

_COMMENT: Final = b": ping\n\n"
_NO_CONTENT: Final[Mapping[str, Any]] = {"role": "assistant", "content": None, "refusal": None}
_TEXT_FIRST: Final[Mapping[str, Any]] = {"role": "assistant", "content": "", "refusal": None}
_REFUSAL_FIRST: Final[Mapping[str, Any]] = {"role": "assistant", "content": None, "refusal": ""}


@dataclass(slots=True)
class _Choice:
    index: int
    began: bool = False
    unsaid: bool = False
    """Nobody has spoken of it: it began because a choice of a higher number did."""
    finished: bool = False
    calls: CallNumbers = field(default_factory=CallNumbers)
    annotations: list[Any] = field(default_factory=list)


class OpenAIEncoder:
    """Encodes one answer.

    `id` is used when the backend gives the answer none. With `collect` there are no frames, and `body()` gives the answer after
    `finish()`.
    """

    def __init__(
        self,
        request: ChatRequest,
        *,
        settings: StreamSettings,
        id: str,  # noqa: A002 - the field's name
        created: int,
        collect: bool = False,
    ) -> None:
        self._ping = settings.openai_ping
        self._identity = Identity(id=id if id.startswith("chatcmpl-") else f"chatcmpl-{id}", model=request.model, created=created)
        self._collector = OpenAICollector() if collect else None
        self._out: OpenAIOutput = self._collector or OpenAIFrames(include_usage=_wants_usage(request))
        self._out.fields = self._identity.fields()
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[str, Any] = {}
        self._omissions = Omissions()
        self._sent = False
        self._ended = False
        self._complete = False

    def feed(self, chunk: Chunk) -> list[bytes]:
        """Return the frames of a chunk. Raises `StreamStateError` for content after a finish."""
        self._require_open()
        part = read_part(chunk)
        if part.event is not None or part.signature:
            self._omissions.see_part(part)
        if part.kind is None or not self._sent:
            self._see(chunk)
        if part.kind is None or not chunk.choices:
            return self._feed_plain(chunk)
        frames = _HANDLERS[part.kind](self, chunk, part)
        reason = finish_reason_of(chunk)
        return frames if reason is None else frames + self._finish(self._choice(part.choice), reason)

    def finish(self) -> list[bytes]:
        """Return the usage frame, where it was asked for, and `[DONE]`. Raises `StreamStateError` when a choice has no finish."""
        self._require_open()
        unfinished = [index for index, choice in self._choices.items() if not (choice.finished or choice.unsaid)]
        if unfinished or not self._choices:
            msg = f"the answer ends without a finish reason for choice {unfinished or 0}"
            raise StreamStateError(msg)
        frames = [frame for choice in self._choices.values() for frame in self._finish(choice, "stop")]
        self._ended = self._complete = True
        return frames + self._out.end(openai_usage(self._usage) if self._usage else None)

    @property
    def omitted(self) -> Sequence[str]:
        """What the answer held that the format has no field for."""
        return self._omissions.names

    def fail(self, error: ApiError) -> list[bytes]:
        """Return the error frame. Nothing follows it."""
        self._require_open()
        self._ended = True
        return [] if self._collector else [b"data: " + jsontext.dumps({"error": openai_error(error)}) + b"\n\n"]

    def ping(self) -> list[bytes]:
        """Return a comment, an empty chunk once a choice has begun, or nothing, as the settings say."""
        if self._ended or self._collector or self._ping == "off":
            return []
        going = [choice.index for choice in self._choices.values() if choice.began and not choice.finished]
        return self._out.delta(going[0], {}) if self._ping == "chunk" and going else [_COMMENT]

    def body(self) -> dict[str, Any]:
        """Return the answer as a `chat.completion`. Only after `finish()`, and only of an encoder that collects."""
        if self._collector is None or not self._complete:
            msg = "an answer has a body when it was collected and is finished"
            raise StreamStateError(msg)
        return self._collector.body()

    # --- what a chunk means ---------------------------------------------------------------------------------------------

    def _feed_plain(self, chunk: Chunk) -> list[bytes]:
        if usage := usage_of(chunk):
            self._usage |= usage
        if not chunk.choices:
            return []
        reason, said = finish_reason_of(chunk), chunk.choices[0]
        if reason is not None:
            return self._finish(self._choice(said.index), reason, logprobs=_logprobs(chunk))
        if has_role(chunk):
            self._choice(said.index)
        logprobs = _logprobs(chunk)
        return [] if logprobs is None else self._delta(self._choice(said.index), _TEXT_FIRST, {"content": ""}, logprobs)

    def _text(self, chunk: Chunk, part: Part) -> list[bytes]:
        choice = self._choice(part.choice)
        if annotations := delta_field(chunk, "annotations"):
            choice.annotations += map(_plain, annotations)
        return self._fragment(choice, _TEXT_FIRST, "content", chunk, part.text)

    def _thinking(self, chunk: Chunk, part: Part) -> list[bytes]:
        return self._fragment(self._choice(part.choice), _NO_CONTENT, "reasoning_content", chunk, part.text)

    def _refusal(self, chunk: Chunk, part: Part) -> list[bytes]:
        return self._fragment(self._choice(part.choice), _REFUSAL_FIRST, "refusal", chunk, part.text)

    def _tool_call(self, chunk: Chunk, part: Part) -> list[bytes]:
        if part.phase == "close":
            return []
        choice = self._choice(part.choice)
        entry = choice.calls.entry(part)
        return [] if entry is None else self._delta(choice, _NO_CONTENT, {"tool_calls": [entry]}, _logprobs(chunk))

    def _audio(self, chunk: Chunk, part: Part) -> list[bytes]:
        audio = delta_field(chunk, "audio")
        return [] if not audio else self._delta(self._choice(part.choice), _NO_CONTENT, {"audio": _plain(audio)})

    def _nothing(self, chunk: Chunk, part: Part) -> list[bytes]:
        del chunk, part
        return []

    # --- frames -----------------------------------------------------------------------------------------------------------

    def _fragment(self, choice: _Choice, first: Mapping[str, Any], name: str, chunk: Chunk, text: str) -> list[bytes]:
        if not text:
            return []
        logprobs = _logprobs(chunk)
        if logprobs is not None:
            return self._delta(choice, first, {name: text}, logprobs)
        self._require_unfinished(choice)
        return self._begin(choice, first) + self._out.text(choice.index, name, text)

    def _delta(self, choice: _Choice, first: Mapping[str, Any], delta: Mapping[str, Any], logprobs: object = None) -> list[bytes]:
        self._require_unfinished(choice)
        return self._begin(choice, first) + self._out.delta(choice.index, delta, logprobs=logprobs)

    def _finish(self, choice: _Choice, reason: str, *, logprobs: object = None) -> list[bytes]:
        if choice.finished:
            return []
        frames = self._begin(choice, _TEXT_FIRST)
        if unnamed := choice.calls.unnamed():
            frames += self._out.delta(choice.index, {"tool_calls": unnamed})
        if choice.annotations:
            frames += self._out.delta(choice.index, {"annotations": choice.annotations})
        choice.finished = True
        reason = finish_reason_for(reason, calls_sent=choice.calls.sent > 0)
        return frames + self._out.delta(choice.index, {}, logprobs=logprobs, finish_reason=reason)

    def _begin(self, choice: _Choice, first: Mapping[str, Any]) -> list[bytes]:
        if choice.began:
            return []
        choice.began = self._sent = True
        self._identity.fix()
        # The official SDK adds choices to a list as they come: those of a lower number begin before.
        lower = [index for index in range(choice.index) if index not in self._choices]
        for index in lower:
            self._choices[index] = _Choice(index, unsaid=True)
        begin = [self._choices[index] for index in range(choice.index)]
        frames = [frame for before in begin for frame in self._begin(before, _TEXT_FIRST)]
        return frames + self._out.delta(choice.index, first)

    # --- state ------------------------------------------------------------------------------------------------------------

    def _see(self, chunk: Chunk) -> None:
        if fields := self._identity.see(chunk):
            self._out.fields = fields

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index)
        choice.unsaid = False
        return choice

    def _require_open(self) -> None:
        if self._ended:
            msg = "the answer has ended"
            raise StreamStateError(msg)

    def _require_unfinished(self, choice: _Choice) -> None:
        if choice.finished:
            msg = f"choice {choice.index} has its finish reason: nothing may follow"
            raise StreamStateError(msg)


_HANDLERS: Final[Mapping[BlockKind, Callable[[OpenAIEncoder, Chunk, Part], list[bytes]]]] = {
    BlockKind.TEXT: OpenAIEncoder._text,  # noqa: SLF001 - the class's own table
    BlockKind.THINKING: OpenAIEncoder._thinking,  # noqa: SLF001
    BlockKind.REFUSAL: OpenAIEncoder._refusal,  # noqa: SLF001
    BlockKind.TOOL_CALL: OpenAIEncoder._tool_call,  # noqa: SLF001
    BlockKind.REDACTED_THINKING: OpenAIEncoder._nothing,  # noqa: SLF001
    BlockKind.OTHER: OpenAIEncoder._audio,  # noqa: SLF001
}


def _wants_usage(request: ChatRequest) -> bool:
    options = request.body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _fields(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - LiteLLM's objects keep most of their fields in the extra ones
    fields: Mapping[str, Any] = getattr(value, "__pydantic_extra__", None) or vars(value)
    return fields


def _logprobs(chunk: Chunk) -> object:
    logprobs = _fields(chunk.choices[0]).get("logprobs")
    return None if logprobs is None else _plain(logprobs)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a mapping, or one of LiteLLM's classes
    return value.model_dump() if hasattr(value, "model_dump") else value
