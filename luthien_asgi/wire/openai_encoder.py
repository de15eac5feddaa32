"""Chunks to an OpenAI client: `chat.completion.chunk` frames, or one `chat.completion`.

Strategy: a frame is built from what a chunk says, never dumped from it; one handler for each kind of block, chosen by dict. What
an OpenAI client has no field for (signatures, redacted thinking, server tools, citations) gives no frame: `omitted` names it.
Fields of the provider's own go out beside the first frame of the chunk that they rode along with, or in one of their own.

The opening delta of a choice waits for what it opens, because it says so: `content` is "" before text and null before the rest.
Annotations, and other lists without indices, are sent in one delta before the finish: the official SDK cannot add them up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import (
    Chunk,
    Part,
    delta_field,
    finish_reason_of,
    has_role,
    openai_fields,
    plain_text,
    read_part,
    usage_of,
)
from luthien_asgi.errors import ApiError, StreamStateError
from luthien_asgi.request import ChatRequest
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.beside import Beside
from luthien_asgi.wire.error_bodies import openai_error
from luthien_asgi.wire.framing import feed_each
from luthien_asgi.wire.omissions import OWN, Omissions
from luthien_asgi.wire.openai_collect import OpenAICollector
from luthien_asgi.wire.openai_frames import NOTHING, Identity, OpenAIFrames, OpenAIOutput
from luthien_asgi.wire.tool_calls import CallNumbers
from luthien_asgi.wire.usage import finish_reason_for, openai_usage

__all__ = ["OpenAIEncoder"]

_MEDIA: Final = ("audio", "images")
_FRAGMENTS: Final[Mapping[BlockKind | None, str]] = {
    BlockKind.TEXT: "content",
    BlockKind.THINKING: "reasoning_content",
    BlockKind.REFUSAL: "refusal",
    BlockKind.TOOL_CALL: "arguments",
}
"""The field that a fragment of each kind stands in."""
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
    first: Mapping[str, Any] | None = None
    """The opening delta as the provider wrote it."""
    legacy: bool = False
    """Whether the provider writes its call as `function_call`, as OpenAI did before there were tools."""
    legacy_named: bool = False
    """Whether the name of that call has been sent."""
    beside: Beside = field(default_factory=Beside)


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
        self._include_usage = collect or _wants_usage(request)
        self._out: OpenAIOutput = self._collector or OpenAIFrames(include_usage=self._include_usage)
        self._out.fields = self._identity.fields()
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[str, Any] = {}
        self._own_usage: Mapping[str, Any] = NOTHING
        self._usage_top: Mapping[str, Any] = NOTHING
        self._top: dict[str, Any] = {}
        self._omissions = Omissions()
        self._sent = False
        self._ended = False
        self._complete = False

    def feed(self, chunk: Chunk) -> list[bytes]:
        """Return the frames of a chunk. Raises `StreamStateError` for content after a finish."""
        self._require_open()
        if (plain := plain_text(chunk)) is not None and self._flows(plain[0]):
            return self._out.text(plain[0], "content", plain[1])
        part = read_part(chunk)
        if part.event is not None or part.signature:
            self._omissions.see_part(part)
        if part.kind is None or not self._sent:
            self._see(chunk)
        extras = openai_fields(chunk)
        frames = self._ride(chunk, part, extras) if extras else []
        if part.kind is None or not chunk.choices:
            return frames + self._feed_plain(chunk, extras)
        frames += _HANDLERS[part.kind](self, chunk, part)
        reason = finish_reason_of(chunk)
        if reason is not None:
            return frames + self._finish(self._choice(part.choice), reason)
        return frames + self._rest(self._choice(part.choice)) if extras else frames

    def feed_run(self, run: Run) -> list[bytes]:
        """Return the frames of a run's chunks. Raises `StreamStateError` for content after a finish."""
        self._require_open()
        part = run.part
        if part.kind in _FRAGMENTS and self._flows(part.choice):
            name = _FRAGMENTS[part.kind]
            if part.kind is not BlockKind.TOOL_CALL:
                return self._out.run(part.choice, name, run)
            choice = self._choices[part.choice]
            number = choice.calls.going(part.source) if not choice.legacy else None
            if number is not None:
                return self._out.run(part.choice, name, run, number)
        return feed_each(self, run)

    def finish(self) -> list[bytes]:
        """Return the usage frame, where it was asked for, and `[DONE]`. Raises `StreamStateError` when a choice has no finish."""
        self._require_open()
        unfinished = [index for index, choice in self._choices.items() if not (choice.finished or choice.unsaid)]
        if unfinished or not self._choices:
            msg = f"the answer ends without a finish reason for choice {unfinished or 0}"
            raise StreamStateError(msg)
        frames = [frame for choice in self._choices.values() for frame in self._finish(choice, "stop")]
        self._ended = self._complete = True
        usage = {**openai_usage(self._usage), **self._own_usage} if self._usage else None
        return frames + self._out.end(usage, {**self._top, **self._usage_top})

    @property
    def omitted(self) -> Sequence[str]:
        """What the answer held that the format has no field for."""
        if any(choice.beside.additions.lost for choice in self._choices.values()):
            self._omissions.add(OWN)
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
        going = self._going()
        return self._out.delta(going.index, {}) if self._ping == "chunk" and going is not None else [_COMMENT]

    def body(self) -> dict[str, Any]:
        """Return the answer as a `chat.completion`. Only after `finish()`, and only of an encoder that collects."""
        if self._collector is None or not self._complete:
            msg = "an answer has a body when it was collected and is finished"
            raise StreamStateError(msg)
        return self._collector.body()

    # --- what a chunk means ---------------------------------------------------------------------------------------------

    def _ride(self, chunk: Chunk, part: Part, extras: Mapping[str, Any]) -> list[bytes]:
        """Keep the fields of the provider's own that a chunk carries for the next frame.

        What an earlier chunk left leaves before, where it would be overwritten.
        """
        top, beside = extras.get("chunk", NOTHING), extras.get("choice", NOTHING)
        if "usage" in extras:
            self._own_usage = extras["usage"]
            if self._include_usage:
                self._usage_top = top
                return []
            top = {name: value for name, value in top.items() if name != "obfuscation"}
        choice = self._choice(part.choice) if chunk.choices else self._going()
        frames: list[bytes] = []
        if choice is not None and (top.keys() & self._top.keys() or beside.keys() & choice.beside.choice.keys()):
            frames = self._rest(choice, _FIRST.get(part.kind, _TEXT_FIRST))
        self._top |= top
        if choice is not None and chunk.choices and not choice.finished:
            choice.beside.take(extras)
        return frames

    def _flows(self, index: int) -> bool:
        """Tell whether the text of a choice can leave as it is: the choice goes on, and nothing waits to leave with it."""
        choice = self._choices.get(index)
        return choice is not None and choice.began and not (choice.finished or choice.beside.waits or self._top)

    def _going(self) -> _Choice | None:
        """Return a choice that has begun and not ended."""
        return next((choice for choice in self._choices.values() if choice.began and not choice.finished), None)

    def _feed_plain(self, chunk: Chunk, extras: Mapping[str, Any]) -> list[bytes]:
        if usage := usage_of(chunk):
            self._usage |= usage
        if not chunk.choices:
            return []
        reason, said = finish_reason_of(chunk), chunk.choices[0]
        if reason is not None:
            return self._finish(self._choice(said.index), reason, logprobs=_logprobs(chunk))
        if has_role(chunk):
            choice, form = self._choice(said.index), extras.get("form", NOTHING)
            if "opening" in form:
                choice.first = {**_NO_CONTENT, "content": form["opening"]}
            # An opening delta that was an event of its own need not wait for what it opens.
            return self._begin(choice, _NO_CONTENT) if form.get("alone") else []
        logprobs = _logprobs(chunk)
        if logprobs is None:
            return self._rest(self._choice(said.index)) if extras else []
        return self._delta(self._choice(said.index), _TEXT_FIRST, {"content": ""}, logprobs)

    def _rest(self, choice: _Choice, first: Mapping[str, Any] = _TEXT_FIRST) -> list[bytes]:
        """Return a frame for the fields of the provider's own that no other frame of their chunk took along."""
        if choice.finished or not (choice.beside.waits or self._top):
            return []
        frames = self._begin(choice, first)
        return frames + (self._write(choice, {}) if choice.beside.waits or self._top else [])

    def _text(self, chunk: Chunk, part: Part) -> list[bytes]:
        choice = self._choice(part.choice)
        if annotations := delta_field(chunk, "annotations"):
            choice.beside.additions.keep("annotations", [_plain(annotation) for annotation in annotations])
        return self._fragment(choice, _TEXT_FIRST, "content", chunk, part.text)

    def _thinking(self, chunk: Chunk, part: Part) -> list[bytes]:
        return self._fragment(self._choice(part.choice), _NO_CONTENT, "reasoning_content", chunk, part.text)

    def _refusal(self, chunk: Chunk, part: Part) -> list[bytes]:
        return self._fragment(self._choice(part.choice), _REFUSAL_FIRST, "refusal", chunk, part.text)

    def _tool_call(self, chunk: Chunk, part: Part) -> list[bytes]:
        if part.phase == "close":
            return []
        choice = self._choice(part.choice)
        own = openai_fields(chunk)
        if own.get("form", NOTHING).get("function_call"):
            is_named, choice.legacy = choice.legacy_named, True
            choice.legacy_named = is_named or part.name != ""
            # Once: a client adds the pieces of a name up, and what was judged is the first.
            call = {"name": part.name, "arguments": part.text} if part.name and not is_named else {"arguments": part.text}
            return self._delta(choice, _NO_CONTENT, {"function_call": call}, _logprobs(chunk))
        entry = choice.calls.entry(part, own=own) if "call" in own or "body" in own else choice.calls.entry(part)
        return [] if entry is None else self._delta(choice, _NO_CONTENT, {"tool_calls": [entry]}, _logprobs(chunk))

    def _other(self, chunk: Chunk, part: Part) -> list[bytes]:
        choice = self._choice(part.choice)
        media = {name: _plain(said) for name in _MEDIA if (said := delta_field(chunk, name))}
        if not media:
            return []
        now = choice.beside.additions.now(media)
        return self._delta(choice, _NO_CONTENT, now) if now else []

    def _nothing(self, chunk: Chunk, part: Part) -> list[bytes]:
        del chunk, part
        return []

    # --- frames -----------------------------------------------------------------------------------------------------------

    def _fragment(self, choice: _Choice, first: Mapping[str, Any], name: str, chunk: Chunk, text: str) -> list[bytes]:
        if not text:
            logprobs = _logprobs(chunk)
            return [] if logprobs is None else self._delta(choice, first, {name: ""}, logprobs)
        logprobs = _logprobs(chunk)
        if logprobs is not None or choice.beside.waits:
            return self._delta(choice, first, {name: text}, logprobs)
        self._require_unfinished(choice)
        frames = self._begin(choice, first)
        if not self._top:
            return frames + self._out.text(choice.index, name, text)
        top, self._top = self._top, {}
        return frames + self._out.text(choice.index, name, text, top)

    def _delta(self, choice: _Choice, first: Mapping[str, Any], delta: Mapping[str, Any], logprobs: object = None) -> list[bytes]:
        self._require_unfinished(choice)
        return self._begin(choice, first) + self._write(choice, delta, logprobs=logprobs)

    def _write(
        self, choice: _Choice, delta: Mapping[str, Any], *, logprobs: object = None, finish_reason: str | None = None
    ) -> list[bytes]:
        """Write a frame, with all that waits to go out beside it."""
        beside, top = choice.beside, self._top
        if beside.waits:
            delta = {**beside.of_delta(), **delta}
        self._top = {}
        return self._out.delta(
            choice.index, delta, logprobs=logprobs, finish_reason=finish_reason, beside=beside.of_choice(), top=top
        )

    def _finish(self, choice: _Choice, reason: str, *, logprobs: object = None) -> list[bytes]:
        if choice.finished:
            return []
        frames = [] if choice.began else self._begin(choice, _TEXT_FIRST)
        if unnamed := choice.calls.unnamed():
            frames += self._out.delta(choice.index, {"tool_calls": unnamed})
        if late := choice.beside.additions.late():
            frames += self._out.delta(choice.index, late)
        choice.finished = True
        if choice.legacy and reason == "tool_calls":
            reason = "function_call"
        elif not choice.legacy:
            reason = finish_reason_for(reason, calls_sent=choice.calls.sent > 0)
        return frames + self._write(choice, {}, logprobs=logprobs, finish_reason=reason)

    def _begin(self, choice: _Choice, first: Mapping[str, Any]) -> list[bytes]:
        if choice.began:
            return []
        self._sent = True
        self._identity.fix()
        # The official SDK adds choices to a list as they come: those of a lower number begin before.
        for index in range(choice.index):
            self._choices.setdefault(index, _Choice(index, unsaid=True))
        frames = [frame for index in range(choice.index) for frame in self._open(self._choices[index], _TEXT_FIRST)]
        return frames + self._open(choice, first)

    def _open(self, choice: _Choice, first: Mapping[str, Any]) -> list[bytes]:
        if choice.began:
            return []
        choice.began = True
        top, self._top = self._top, {}
        return self._out.delta(choice.index, choice.first or first, beside=choice.beside.of_choice(), top=top)

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
    BlockKind.OTHER: OpenAIEncoder._other,  # noqa: SLF001
}

_FIRST: Final[Mapping[BlockKind | None, Mapping[str, Any]]] = {
    BlockKind.REFUSAL: _REFUSAL_FIRST,
    **dict.fromkeys((BlockKind.THINKING, BlockKind.REDACTED_THINKING, BlockKind.TOOL_CALL, BlockKind.OTHER), _NO_CONTENT),
}
"""How a choice's opening delta reads before a block of each kind; before the rest it is that of a text."""


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
