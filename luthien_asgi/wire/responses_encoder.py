"""Chunks to a client of the Responses API: its stream events, or one `response`.

Strategy: an item is open until something else begins or the answer ends, also where its provider said that it is over: only then
is known whether it is complete or was cut off. Every content chunk gives one delta event.

What becomes of a provider's blocks:

1. Consecutive text is one part of one message, whatever blocks its provider made of it (Anthropic's cut it at each citation); a
   call, thinking, or a tool that ran at the provider between them begins a new message. A refusal is a part of its own.
2. A block of thinking is a reasoning item with one `summary` part. The API's other place for it, `content`, is for the raw
   thoughts of open models; Codex hides what is there, and the Vercel SDK does not know it.
3. A signature or redacted thinking is `encrypted_content`, whatever `include` says: nothing is stored here, so what is not in the
   client's next request is lost, and a provider that signs refuses a tool turn without it.
4. Calls are written one after the other. What follows a call that is not over waits for it; a function call is over when its
   arguments are a whole object, and fragments that come for it after the next one began are dropped with notice.
5. A tool's name and namespace, and free text instead of JSON, are as the client offered the tool. Such text is one delta, when
   the call ends: what it is depends on the whole arguments (a key may come twice).
6. A function call without arguments has `{}`, as OpenAI's have; Anthropic's may have none.
7. Audio, images and the tools that ran at the provider have no place. Only choice 0 is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, Part, delta_field, finish_reason_of, plain_text, read_part, side_data
from luthien_asgi.errors import ApiError, StreamStateError
from luthien_asgi.reasoning_items import CarriedThinking, encode
from luthien_asgi.request import ChatRequest
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.framing import feed_each
from luthien_asgi.wire.omissions import Omissions
from luthien_asgi.wire.responses_calls import Call, Calls, OpenItem
from luthien_asgi.wire.responses_citations import Citations, annotation_of, citation_in, logprobs_of
from luthien_asgi.wire.responses_items import REFUSAL, SUMMARY, TEXT, Item, Message, PartKind, Reasoning, Status
from luthien_asgi.wire.responses_object import INCOMPLETE_REASONS, ResponseObject, error_of
from luthien_asgi.wire.responses_states import Event, State
from luthien_asgi.wire.responses_writer import ItemWriter, ResponsesCollector, ResponsesFrames

__all__ = ["ResponsesEncoder"]

_COMMENT: Final = b": ping\n\n"


class ResponsesEncoder:
    """Encodes one answer.

    `id` is used when the backend gives the answer none. With `collect` there are no frames, and `body()` gives the response after
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
        self._silent = collect or settings.openai_ping == "off"
        self._response = ResponseObject(request, id=id, created=created)
        self._collector = ResponsesCollector() if collect else None
        self._writer = ItemWriter(self._collector or ResponsesFrames())
        self._calls = Calls(request.body)
        self._open: OpenItem | None = None
        self._flows = False
        """Whether the part that is open is text, to which more can be added at once."""
        self._waiting: list[Chunk] = []
        """What waits for a signature, or for a call that is not over."""
        self._citations = Citations()
        self._reason: str | None = None
        self._omissions = Omissions()

    def feed(self, chunk: Chunk) -> list[bytes]:
        """Return the frames of a chunk. Raises `StreamStateError` for content after a finish."""
        if self._flows and (plain := plain_text(chunk)) is not None and plain[0] == 0:
            self._response.characters += len(plain[1])
            return self._writer.fragment(plain[1])
        part = read_part(chunk)
        if part.kind is None or not chunk.choices:
            self._note(chunk, part)
            return self._feed_plain(chunk)
        if part.choice:
            self._omissions.add("choices after the first")
            return []
        if self._flows and _is_fragment(part) and not side_data(chunk):
            self._response.characters += len(part.text)
            frames = self._writer.fragment(part.text)
        else:
            self._require_unfinished()
            frames = self._begin(chunk) + self._take(chunk, part)
        reason = finish_reason_of(chunk)
        return frames if reason is None else frames + self._finished(reason)

    def feed_run(self, run: Run) -> list[bytes]:
        """Return the frames of a run's chunks. Raises `StreamStateError` for content after a finish."""
        if not (self._flows and run.part.kind is BlockKind.TEXT and run.part.choice == 0):
            return feed_each(self, run)
        self._response.characters += run.characters
        return [frame for text in run.texts for frame in self._writer.fragment(text)]

    def finish(self) -> list[bytes]:
        """Return the frame that ends a good answer. Raises `StreamStateError` when no finish reason was seen."""
        if self._reason is None:
            msg = "the answer ends without a finish reason"
            raise StreamStateError(msg)
        event = Event.INCOMPLETE if self._reason in INCOMPLETE_REASONS else Event.COMPLETED
        return self._writer.response(event, self._response.ended(self._writer.output, self._reason))

    @property
    def omitted(self) -> Sequence[str]:
        """What the answer held that the format has no field for."""
        return [name for name in self._omissions.names if name != "service_tier"]

    def fail(self, error: ApiError) -> list[bytes]:
        """Return the frames that end a broken answer: what waited for a signature, the error, the failed response.

        An item that is open stays so: a client runs a call when its item is done.
        """
        frames = self._begin(None)
        # Nothing that goes wrong here may keep the error from the client.
        with suppress(StreamStateError):
            if self._open is not None:
                self._open.signable = False
            frames += self._release()
        event, said = error_of(error)
        frames += self._writer.error(event)
        self._flows = False
        return frames + self._writer.response(Event.FAILED, self._response.failed(self._writer.output, said))

    def ping(self) -> list[bytes]:
        """Return a comment, or nothing as the settings say. No event of this format says nothing."""
        return [] if self._silent or self._writer.state is State.DONE else [_COMMENT]

    def body(self) -> dict[str, Any]:
        """Return the response. Only after `finish()`, and only of an encoder that collects."""
        response = self._collector.response if self._collector is not None else None
        if response is None or response["status"] not in {"completed", "incomplete"}:
            msg = "an answer has a body when it was collected and is finished"
            raise StreamStateError(msg)
        return response

    # --- the response -----------------------------------------------------------------------------------------------------

    def _feed_plain(self, chunk: Chunk) -> list[bytes]:
        self._response.see(chunk)
        if not chunk.choices or chunk.choices[0].index != 0:
            return []
        frames = self._begin(chunk)
        reason = finish_reason_of(chunk)
        return frames if reason is None else frames + self._finished(reason)

    def _begin(self, chunk: Chunk | None) -> list[bytes]:
        if self._writer.state is not State.IDLE:
            return []
        self._response.begin(chunk)
        self._writer.stem = self._calls.stem = self._response.stem
        begun = self._response.begun()
        return self._writer.response(Event.CREATED, begun) + self._writer.response(Event.IN_PROGRESS, begun)

    def _finished(self, reason: str) -> list[bytes]:
        if self._reason is not None:
            return []
        self._reason = reason
        frames = self._drain("incomplete" if reason in INCOMPLETE_REASONS else "completed")
        self._flows = False
        return frames

    def _require_unfinished(self) -> None:
        if self._reason is not None or self._writer.state is State.DONE:
            msg = "the answer has its finish reason, or failed: nothing may follow"
            raise StreamStateError(msg)

    # --- parts ------------------------------------------------------------------------------------------------------------

    def _take(self, chunk: Chunk, part: Part) -> list[bytes]:
        if self._must_wait(part):
            self._waiting.append(chunk)
            return []
        self._response.characters += len(part.text)
        frames = _HANDLERS[part.kind or BlockKind.OTHER](self, chunk, part)
        at = self._open
        self._flows = at is not None and not at.ended and not self._waiting and self._writer.state is State.TEXT
        return frames

    def _must_wait(self, part: Part) -> bool:
        at = self._open
        if at is None or (at.call is None and not at.signable):
            return False
        if at.call is None:
            return part.kind is not BlockKind.THINKING
        return part.kind is not BlockKind.TOOL_CALL and (bool(self._calls.waiting) or not at.call.over)

    def _note(self, chunk: Chunk, part: Part) -> None:
        """Note what is beside the blocks that have a place: what is not known of a block is in the event that begins it."""
        if part.event is not None:
            self._omissions.see_part(part)
        else:
            self._omissions.see_chunk(chunk)

    def _text(self, chunk: Chunk, part: Part) -> list[bytes]:
        if part.phase != "delta":
            frames = self._cite()
            self._citations.start = self._writer.length if self._flows else 0
        else:
            frames = []
        if (citation := citation_in(part.event)) is not None:
            self._citations.waiting.append(citation)
        logprobs = logprobs_of(getattr(chunk.choices[0], "logprobs", None))
        if part.text or logprobs:
            frames += self._say(TEXT) + self._writer.fragment(part.text, logprobs)
        return frames + self._annotations(delta_field(chunk, "annotations"))

    def _refusal(self, chunk: Chunk, part: Part) -> list[bytes]:
        if side_data(chunk):
            self._omissions.add("choices.logprobs")
        return self._say(REFUSAL) + self._writer.fragment(part.text) if part.text else []

    def _say(self, kind: PartKind) -> list[bytes]:
        """Make sure that a part of that kind is open in a message."""
        at = self._open
        frames: list[bytes] = []
        if at is None or at.ended or not isinstance(at.item, Message):
            frames = self._close_all() + self._add(OpenItem(Message()))
        elif kind is not TEXT:
            frames = self._cite()
        opened = self._writer.open_part(kind)
        if opened:
            self._citations.start = 0
        return frames + opened

    def _thinking(self, chunk: Chunk, part: Part) -> list[bytes]:
        at = self._open
        if part.phase != "delta" and at is not None and isinstance(at.item, Reasoning):
            at.ended = True
        if not (part.text or part.signature):
            return []
        frames: list[bytes] = []
        if at is None or at.ended or not isinstance(at.item, Reasoning) or (part.text and at.item.sealed):
            at = OpenItem(Reasoning())
            frames = self._close_all() + self._add(at)
        if part.text:
            frames += self._writer.open_part(SUMMARY) + self._writer.fragment(part.text)
            at.thoughts.append(part.text)
        at.signable = part.source is None and not part.signature and bool(delta_field(chunk, "thinking_blocks"))
        return frames + self._sign(at.item, at.thoughts, part.signature) if part.signature else frames

    def _sign(self, item: Item, thoughts: list[str], signature: str) -> list[bytes]:
        if isinstance(item, Reasoning):
            item.sealed = encode(CarriedThinking(kind="thinking", text="".join(thoughts), signature=signature))
        return self._release()

    def _redacted(self, chunk: Chunk, part: Part) -> list[bytes]:
        del chunk
        if not part.signature:
            return []
        sealed = encode(CarriedThinking(kind="redacted_thinking", signature=part.signature))
        return self._close_all() + self._add(OpenItem(Reasoning(sealed=sealed), ended=True))

    def _other(self, chunk: Chunk, part: Part) -> list[bytes]:
        self._note(chunk, part)
        if part.phase == "open" and self._open is not None and self._open.call is None:
            self._open.ended = True
        return []

    # --- tool calls -------------------------------------------------------------------------------------------------------

    def _tool_call(self, chunk: Chunk, part: Part) -> list[bytes]:
        if part.event is not None:
            self._note(chunk, part)
        frames: list[bytes] = []
        call = self._calls.known(part) if part.phase == "close" else self._calls.take(part)
        if call is None:
            return []
        if part.phase == "close":
            call.ended = True
        elif call.state == "open":
            frames = self._argue(call, part.text)
        elif not call.keep(part.text):
            self._omissions.add("what follows the whole arguments of a call")
        frames += self._next_calls(named=True)
        if self._waiting and not self._must_wait(read_part(self._waiting[0])):
            frames += self._release()
        return frames

    def _argue(self, call: Call, text: str) -> list[bytes]:
        said = call.text(text)
        return self._writer.fragment(said) if said else []

    def _next_calls(self, *, named: bool) -> list[bytes]:
        """Begin the calls whose turn it is. With `named` one that has no name yet waits on."""
        frames: list[bytes] = []
        while self._open is None or self._open.call is None or self._open.call.over:
            call = self._calls.next(named=named)
            if call is None:
                break
            frames += self._close() + self._begin_call(call)
        return frames

    def _begin_call(self, call: Call) -> list[bytes]:
        frames = self._add(OpenItem(self._calls.item(call), call))
        waited, call.waiting = call.waiting, []
        return frames + [frame for text in waited for frame in self._argue(call, text)]

    # --- opening and closing ----------------------------------------------------------------------------------------------

    def _add(self, opened: OpenItem) -> list[bytes]:
        self._open = opened
        return self._writer.add(opened.item)

    def _close(self, status: Status = "completed") -> list[bytes]:
        at, self._open = self._open, None
        if at is None:
            return []
        frames = self._cite()
        if at.call is not None:
            status = "completed" if at.call.whole else status
            last = at.call.last(complete=status == "completed")
            frames += self._writer.fragment(last) if last else []
        return frames + self._writer.done(status)

    def _close_all(self, status: Status = "completed") -> list[bytes]:
        """Close the open item, and write the calls that waited for it."""
        frames = self._close(status)
        while call := self._calls.next(named=False):
            frames += self._begin_call(call) + self._close(status)
        return frames

    def _release(self) -> list[bytes]:
        """Write what waited, as far as it need not wait any more."""
        waiting, self._waiting = self._waiting, []
        return [frame for chunk in waiting for frame in self._take(chunk, read_part(chunk))]

    def _drain(self, status: Status) -> list[bytes]:
        """Write everything that waits; no item is open afterwards."""
        frames: list[bytes] = []
        while self._waiting:
            frames += self._unblock(status) + self._release()
        return frames + self._close_all(status)

    def _unblock(self, status: Status) -> list[bytes]:
        """End what others wait for."""
        if self._open is not None and self._open.call is not None:
            return self._close_all(status)
        if self._open is not None:
            self._open.signable = False
        return []

    # --- annotations ------------------------------------------------------------------------------------------------------

    def _annotations(self, said: object) -> list[bytes]:
        found = [annotation_of(annotation) for annotation in said] if isinstance(said, list) else []
        if None in found:
            self._omissions.add("message.annotations")
        return [frame for annotation in found if annotation is not None for frame in self._annotate(annotation)]

    def _annotate(self, annotation: Mapping[str, Any]) -> list[bytes]:
        return self._writer.annotate(annotation) if self._writer.state is State.TEXT else []

    def _cite(self) -> list[bytes]:
        """Write the citations of the block of text that ends."""
        found = self._citations.end(self._writer.length)
        if None in found:
            self._omissions.add("content[text].citations")
        return [frame for annotation in found if annotation is not None for frame in self._annotate(annotation)]


_HANDLERS: Final[Mapping[BlockKind, Callable[[ResponsesEncoder, Chunk, Part], list[bytes]]]] = {
    BlockKind.TEXT: ResponsesEncoder._text,  # noqa: SLF001 - the class's own table
    BlockKind.REFUSAL: ResponsesEncoder._refusal,  # noqa: SLF001
    BlockKind.THINKING: ResponsesEncoder._thinking,  # noqa: SLF001
    BlockKind.REDACTED_THINKING: ResponsesEncoder._redacted,  # noqa: SLF001
    BlockKind.TOOL_CALL: ResponsesEncoder._tool_call,  # noqa: SLF001
    BlockKind.OTHER: ResponsesEncoder._other,  # noqa: SLF001
}


def _is_fragment(part: Part) -> bool:
    """Tell whether a part is a fragment of text and nothing else."""
    return part.kind is BlockKind.TEXT and part.phase == "delta" and part.event is None and part.text != ""
