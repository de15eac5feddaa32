"""Chunks to an Anthropic client: its stream events, or one message.

Strategy: a chunk that carries its provider's boundaries (`phase` open and close, a number) is taken at its word; for the others
a block begins when something else begins. Standard kinds are built from the standard fields, laid over what else the provider's
event says, so that what a policy changed is changed and what we do not know comes through.

Deliberate differences from writing events as the chunks come:

1. Tool calls whose fragments interleave are written one after the other, in the order of their first appearance: blocks may not
   overlap.
2. What follows thinking that will be signed waits for the signature, or for the finish: the signature belongs inside its block.
3. `message_delta` is written by `finish()`: usage arrives after the finish reason.
4. Only choice 0 is written: a message has one content.
5. A text block that its provider opens empty begins with the next thing that comes for it, content or its end: where the
   provider dies before that, no empty block is left, which clients send back and the API refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, Part, finish_reason_of, plain_text, read_part, side_data, usage_of
from luthien_asgi.errors import ApiError, StreamStateError
from luthien_asgi.runs import Run
from luthien_asgi.wire.anthropic_blocks import AnthropicFrames, BlockWriter, says_nothing
from luthien_asgi.wire.anthropic_calls import Call, Calls
from luthien_asgi.wire.anthropic_ending import Ending
from luthien_asgi.wire.anthropic_message import is_unknown, message_start
from luthien_asgi.wire.anthropic_states import State
from luthien_asgi.wire.collect import AnthropicCollector
from luthien_asgi.wire.error_bodies import anthropic_error
from luthien_asgi.wire.framing import feed_each
from luthien_asgi.wire.omissions import Omissions

__all__ = ["AnthropicEncoder"]

_COMMENT: Final = b": ping\n\n"
_TEXTS: Final = frozenset({BlockKind.TEXT, BlockKind.REFUSAL})
"""What is written as a text block; a refusal is one of its own."""
_DELTAS: Final[Mapping[BlockKind, tuple[str, str]]] = {
    BlockKind.TEXT: ("text_delta", "text"),
    BlockKind.THINKING: ("thinking_delta", "thinking"),
    BlockKind.TOOL_CALL: ("input_json_delta", "partial_json"),
}
"""The delta that a fragment of each kind is, and the field that it stands in."""
_TELLING: Final = (None, BlockKind.OTHER)
"""What may have more beside it than a block's words."""
_BLANK: Final = 16
"""So many fragments that say nothing wait for one that does."""
_PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'


@dataclass(slots=True)
class _Open:
    """The block that is open."""

    kind: BlockKind
    source: int | None
    bounded: bool = False
    """Whether whoever wrote it says where it ends."""
    signable: bool = False
    """Whether thinking comes from a provider that signs it, and is not signed yet."""
    signature: str = ""
    call: Call | None = None


class AnthropicEncoder:
    """Encodes one answer. With `collect` there are no frames, and `body()` gives the message after `finish()`.

    `id` is used when the backend gives the message none; `input_tokens` is the estimate for a `message_start` of our own.
    """

    def __init__(self, *, model: str, id: str, input_tokens: int, collect: bool = False) -> None:  # noqa: A002 - the field's name
        self._model = model
        self._id = id if id.startswith("msg_") else f"msg_{id}"
        self._input_tokens = input_tokens
        self._omissions = Omissions()
        self._collector = AnthropicCollector(self._omissions) if collect else None
        self._writer = BlockWriter(self._collector or AnthropicFrames())
        self._open: _Open | None = None
        self._calls = Calls()
        self._waiting: list[tuple[Part, bool]] = []
        self._blank: list[Part] = []
        """A text block's opening, and its fragments so far, while all of them say nothing."""
        self._early: list[Mapping[str, Any]] = []
        self._ending = Ending()

    def feed(self, chunk: Chunk) -> list[bytes]:
        """Return the frames of a chunk. Raises `StreamStateError` for what the order of events does not allow."""
        if (
            (plain := plain_text(chunk)) is not None
            and plain[0] == 0
            and self._open is not None
            and self._open.kind is BlockKind.TEXT
        ):
            self._ending.characters += len(plain[1])
            return self._writer.text(plain[1])
        part = read_part(chunk)
        if part.event is None and (self._open is None or part.kind in _TELLING or side_data(chunk)):
            self._omissions.see_chunk(chunk)
        if part.kind is None:
            return self._feed_plain(chunk, part)
        if part.choice:
            self._omissions.add("choices after the first")
            return []
        self._ending.characters += len(part.text)
        if part.kind is BlockKind.TEXT and self._goes_on(part):
            frames = self._writer.text(part.text)
        else:
            frames = self._begin(chunk.model, None) + self._take(part, signable=_is_signable(chunk, part))
        reason = finish_reason_of(chunk)
        return frames if reason is None else frames + self._finished(chunk, part, reason)

    def feed_run(self, run: Run) -> list[bytes]:
        """Return the frames of a run's chunks. Raises `StreamStateError` for what the order of events does not allow."""
        part, at = run.part, self._open
        if part.choice != 0 or at is None or not self._flows(at, part):
            return feed_each(self, run)
        self._ending.characters += run.characters
        return self._writer.texts(_DELTAS[at.kind], run.texts)

    def _flows(self, at: _Open, part: Part) -> bool:
        """Tell whether a part that is a fragment goes on with the open block as it is."""
        if at.kind is not part.kind or at.kind not in _DELTAS:
            return False
        if at.kind is BlockKind.TOOL_CALL:
            return self._calls.is_going(at.call, part)
        if at.kind is BlockKind.THINKING and (at.signature or (part.source is not None and not at.bounded)):
            return False
        return part.source is None or at.source is None or part.source == at.source

    def finish(self) -> list[bytes]:
        """Return the frames that end the message. Raises `StreamStateError` when no finish reason was seen."""
        self._ending.require()
        frames = self._begin(None, None) + self._drain()
        return frames + self._writer.end(self._ending.event(tools_sent=self._writer.tools_sent))

    @property
    def omitted(self) -> Sequence[str]:
        """What the answer held that the format has no field for."""
        return self._omissions.names

    def fail(self, error: ApiError) -> list[bytes]:
        """Return the frames that end a broken answer: what waited for a signature, the open block's end, the error."""
        frames: list[bytes] = []
        # Nothing that goes wrong here may keep the error from the client.
        with suppress(StreamStateError):
            frames += self._release()
        if self._open is not None:
            frames += self._close()
        frames += self._writer.error(anthropic_error(error))
        return frames

    def ping(self) -> list[bytes]:
        """Return a comment before `message_start` and a ping event after it."""
        if self._collector or self._writer.state in {State.DONE, State.FAILED}:
            return []
        return [_COMMENT if self._writer.state is State.IDLE else _PING]

    def body(self) -> dict[str, Any]:
        """Return the message. Only after `finish()`, and only of an encoder that collects."""
        if self._collector is None or self._writer.state is not State.DONE:
            msg = "an answer has a body when it was collected and is finished"
            raise StreamStateError(msg)
        return self._collector.body()

    # --- message --------------------------------------------------------------------------------------------------------

    def _feed_plain(self, chunk: Chunk, part: Part) -> list[bytes]:
        event = part.event or {}
        if not chunk.choices and is_unknown(event):
            return self._unknown(event)
        frames = self._begin(chunk.model, part.event) if chunk.choices else []
        if usage := usage_of(chunk):
            self._ending.usage |= usage
        if event.get("type") == "message_delta":
            self._ending.take(event)
        reason = finish_reason_of(chunk)
        return frames if reason is None else frames + self._finished(chunk, part, reason)

    def _begin(self, model: str | None, said: Mapping[str, Any] | None) -> list[bytes]:
        if self._writer.state is not State.IDLE:
            return []
        event = message_start(said, id=self._id, model=model or self._model, input_tokens=self._input_tokens)
        self._ending.started = event["message"]["usage"]
        frames = self._writer.start(event)
        return frames + [frame for early in self._early for frame in self._writer.pass_through(early)]

    def _unknown(self, event: Mapping[str, Any]) -> list[bytes]:
        frames = self._begin_blank()
        if self._writer.state is State.IDLE:
            self._early.append(event)
            return []
        return frames + self._writer.pass_through(event)

    def _finished(self, chunk: Chunk, part: Part, reason: str) -> list[bytes]:
        if chunk.choices[0].index != 0:
            return []
        self._ending.finish(reason, event=part.event)
        return self._drain()

    # --- parts ----------------------------------------------------------------------------------------------------------

    def _goes_on(self, part: Part) -> bool:
        """Tell whether a text part is one more fragment of the open text block, and nothing else."""
        at = self._open
        return at is not None and part.text != "" and part.phase == "delta" and part.event is None and self._flows(at, part)

    def _take(self, part: Part, *, signable: bool = False) -> list[bytes]:
        if self._blank:
            if part.phase == "delta" and says_nothing(part) and len(self._blank) < _BLANK:
                self._blank.append(part)
                return []
            goes_on = part.phase != "open" and part.kind is BlockKind.TEXT and part.source in (None, self._blank[0].source)
            frames = self._begin_blank() if goes_on else []
            self._blank.clear()  # its provider did not end it
            return frames + self._take(part, signable=signable)
        if self._open is not None and self._open.signable and part.kind is not BlockKind.THINKING:
            self._waiting.append((part, signable))
            return []
        if part.kind is BlockKind.REFUSAL:
            self._ending.refused = self._ending.refused or part.text != ""
        if part.phase == "open":
            return self._provider_opens(part)
        if part.phase == "close":
            return self._close_all() if self._is_of_open(part) else []
        return _HANDLERS[part.kind or BlockKind.OTHER](self, part, signable)

    def _is_of_open(self, part: Part) -> bool:
        at = self._open
        if at is None or at.kind is not part.kind:
            return False
        return part.source is None or at.source is None or part.source == at.source

    def _provider_opens(self, part: Part) -> list[bytes]:
        if part.kind is BlockKind.OTHER and part.event is None:
            return []
        own = part.source is not None and part.source >= 0
        if part.kind in _TEXTS and not own and not part.text:
            # A policy's block: it ends what is open, and begins with its first words.
            return self._close_all()
        frames = self._close_all()
        if part.kind is BlockKind.TOOL_CALL:
            return frames + self._open_call(self._calls.opened(part), provider_order=own)
        if own and says_nothing(part):
            self._blank.append(part)
            return frames
        frames += self._start_block(part, provider_order=own, bounded=True)
        if not part.text or part.kind is BlockKind.REDACTED_THINKING:
            return frames
        if part.kind is BlockKind.THINKING:
            return frames + self._writer.delta({"type": "thinking_delta", "thinking": part.text})
        return frames + self._writer.text(part.text)

    def _begin_blank(self) -> list[bytes]:
        """Begin a text block whose opening said nothing: something else is said now."""
        if not self._blank:
            return []
        (opening, *rest), self._blank = self._blank, []
        frames = self._start_block(opening, provider_order=True, bounded=True)
        return frames + [frame for part in rest for frame in self._take(part)]

    def _start_block(self, part: Part, *, provider_order: bool = False, bounded: bool = False) -> list[bytes]:
        event = part.event if part.event is not None and part.event.get("type") == "content_block_start" else {}
        block = {**event.get("content_block", {}), **_standard_block(part)}
        frames = self._writer.open(block, provider_order=provider_order, extras=event)
        self._open = _Open(part.kind or BlockKind.OTHER, part.source, bounded)
        return frames

    def _text(self, part: Part, signable: bool) -> list[bytes]:
        del signable
        if not self._is_of_open(part):
            if not part.text:
                return []
            frames = self._close_all() + self._start_block(part._replace(text="", event=None))
        else:
            frames = []
        if part.event is not None:
            return frames + self._event_delta(part, "text_delta", {"text": part.text})
        return frames + self._writer.text(part.text) if part.text else frames

    def _thinking(self, part: Part, signable: bool) -> list[bytes]:
        at = self._open
        frames: list[bytes] = []
        if at is None or not self._is_of_open(part) or _signed_before(at, part):
            if not (part.text or part.signature):
                return []
            frames = self._close_all() + self._start_block(part._replace(text="", signature="", event=None))
            at = self._open
        if part.text or (not part.signature and (part.event is not None or (at is not None and at.bounded))):
            frames += self._event_delta(part, "thinking_delta", {"thinking": part.text})
        return frames + self._sign(at, part, signable=signable)

    def _sign(self, at: _Open | None, part: Part, *, signable: bool) -> list[bytes]:
        if at is None or at.signature:
            return []
        at.signable = (signable or at.signable) and not at.bounded and not part.signature
        at.signature = part.signature
        if not part.signature:
            return []
        frames = self._event_delta(part, "signature_delta", {"signature": part.signature})
        return frames + self._release() if self._waiting else frames

    def _redacted(self, part: Part, signable: bool) -> list[bytes]:
        if part.event is not None:
            return self._other(part, signable)
        return self._close_all() + self._start_block(part) + self._close()

    def _other(self, part: Part, signable: bool) -> list[bytes]:
        del signable
        if part.event is None or not self._is_of_open(part):
            return []
        return self._writer.delta(part.event.get("delta") or {"type": "unknown"}, extras=part.event)

    def _event_delta(self, part: Part, name: str, standard: dict[str, Any]) -> list[bytes]:
        """Write a delta that may have come with its provider's event; what is not of the block's own kind goes as it came."""
        event = part.event or {}
        said = event.get("delta") or {}
        if said.get("type", name) != name:
            return self._writer.delta(said, extras=event)
        return self._writer.delta({**said, "type": name, **standard}, extras=event)

    # --- tool calls -----------------------------------------------------------------------------------------------------

    def _tool_call(self, part: Part, signable: bool) -> list[bytes]:
        del signable
        call = self._calls.take(part)
        at = self._open
        if at is not None and at.call is call:
            return self._call_delta(call, part)
        call.add(part)
        return self._next_call(named=True)

    def _call_delta(self, call: Call, part: Part) -> list[bytes]:
        if part.event is not None:
            return self._event_delta(part, "input_json_delta", {"partial_json": part.text})
        json = call.json(part.text)
        return self._writer.delta({"type": "input_json_delta", "partial_json": json}) if json or call.bounded else []

    def _next_call(self, *, named: bool) -> list[bytes]:
        """Open the next call that waits, if no call is open. With `named` one that has no name yet waits on."""
        if self._open is not None and self._open.call is not None:
            return []
        call = self._calls.next(named=named)
        return [] if call is None else self._close_all() + self._open_call(call, provider_order=False)

    def _open_call(self, call: Call, *, provider_order: bool) -> list[bytes]:
        frames = self._writer.open(call.block(), provider_order=provider_order, extras=call.event)
        self._open = _Open(BlockKind.TOOL_CALL, call.source, call.bounded, call=call)
        parts = call.begin()
        return frames + [frame for part in parts for frame in self._call_delta(call, part)]

    # --- closing --------------------------------------------------------------------------------------------------------

    def _close(self) -> list[bytes]:
        at, self._open = self._open, None
        last = at.call.end() if at is not None and at.call is not None else ""
        frames = self._writer.delta({"type": "input_json_delta", "partial_json": last}) if last else []
        return frames + self._writer.close()

    def _close_all(self) -> list[bytes]:
        """Close the open block, and write the calls that waited for it."""
        frames: list[bytes] = []
        while self._open is not None:
            was_call = self._open.call is not None
            frames += self._close()
            if was_call:
                frames += self._next_call(named=False)
        return frames

    def _release(self) -> list[bytes]:
        """Write what waited for a signature."""
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, []
        frames = self._close_all()
        for part, signable in waiting:
            frames += self._take(part, signable=signable)
        return frames

    def _drain(self) -> list[bytes]:
        """Write everything that waits; no block is open afterwards."""
        self._blank.clear()  # its provider did not end it
        frames: list[bytes] = []
        while self._waiting or self._open is not None or self._calls.waiting:
            frames += self._release() or self._close_all() or self._next_call(named=False)
        return frames


_HANDLERS: Final[Mapping[BlockKind, Callable[[AnthropicEncoder, Part, bool], list[bytes]]]] = {
    BlockKind.TEXT: AnthropicEncoder._text,  # noqa: SLF001 - the class's own table
    BlockKind.REFUSAL: AnthropicEncoder._text,  # noqa: SLF001
    BlockKind.THINKING: AnthropicEncoder._thinking,  # noqa: SLF001
    BlockKind.REDACTED_THINKING: AnthropicEncoder._redacted,  # noqa: SLF001
    BlockKind.TOOL_CALL: AnthropicEncoder._tool_call,  # noqa: SLF001
    BlockKind.OTHER: AnthropicEncoder._other,  # noqa: SLF001
}


def _standard_block(part: Part) -> dict[str, Any]:
    """Return a block as it starts: empty, as the API starts them; what it starts with comes as its first fragment."""
    if part.kind in _TEXTS:
        return {"type": "text", "text": ""}
    if part.kind is BlockKind.THINKING:
        return {"type": "thinking", "thinking": "", "signature": part.signature}
    if part.kind is BlockKind.REDACTED_THINKING:
        return {"type": "redacted_thinking", "data": part.signature}
    return {}


def _signed_before(at: _Open, part: Part) -> bool:
    """Tell whether thinking begins anew after a signature."""
    return bool(at.signature) and not at.bounded and part.signature != at.signature


def _is_signable(chunk: Chunk, part: Part) -> bool:
    """Tell whether thinking comes from a provider that signs it: LiteLLM gives `thinking_blocks` for those alone."""
    return part.kind is BlockKind.THINKING and bool(getattr(chunk.choices[0].delta, "thinking_blocks", None))
