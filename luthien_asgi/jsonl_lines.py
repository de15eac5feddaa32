"""The lines of a JSONL record: how a record becomes one, and how lines are read again one by one. The keys are in `jsonl`.

Strategy: a `_View` says what one content setting makes of each part; the line's shape is the same for all three. `hash` works by
an allowlist: a text stays only under a key that holds identifiers, and only when it looks like one; what is not known to be
structure is hashed whole. A mask is used before, on the record itself, so that no view can forget it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, BinaryIO, Final, Literal, get_args

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block
from luthien_asgi.jsonl_mask import Mask, masked
from luthien_asgi.logs import logger_of
from luthien_asgi.recorder import Begin, End, SampleRecord, VerdictRecord
from luthien_asgi.scrub import all_of, scrub, scrub_name, scrub_value

__all__ = ["CHECKPOINT", "LONGEST_LINE", "Content", "Lines", "Mask", "checkpoint", "each_line"]

_log: Final = logger_of(__name__)

Content = Literal["full", "final", "hash"]

LONGEST_LINE: Final = 256 * 1024 * 1024
"""Bytes of a line, its newline included. What would be longer is written without its content; what is read and longer is no line
of ours, and is never in memory as a whole.
"""
CHECKPOINT: Final = b'{"type":"checkpoint",'
"""How a checkpoint's line begins. A line break within a record is escaped, so nothing else begins a line like that."""
_SKIPPED_AT_ONCE: Final = 1024 * 1024

_STRUCTURE: Final = frozenset(
    {"messages", "content", "system", "tools", "function", "custom", "tool_calls", "tool_choice", "thinking", "reasoning"}
    | {"source", "cache_control", "stream_options", "image_url", "input_audio", "file"}
)
"""Keys of a request whose objects and lists are looked into; those of all others are hashed as a whole."""
_IDENTIFIERS: Final = frozenset(
    {"model", "role", "type", "id", "name", "tool_call_id", "tool_use_id", "tool_choice", "media_type", "format", "effort"}
    | {"service_tier", "reasoning_effort"}
)
"""Keys of a request whose texts stay when they look like an identifier."""
_IDENTIFIER: Final = re.compile(r"[\w.:/@*-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What one content setting makes of the parts of a record."""

    request: Callable[[Any], Any]
    backend: Callable[[Block], dict[str, Any] | None]
    final: Callable[[Block], dict[str, Any] | None]
    words: Callable[[str], str]
    """An error's message, a verdict's reason: written by us or a policy, and apt to quote."""
    name: Callable[[str], str]
    usage: Callable[[Any], Any]


class Lines:
    """Turns records into lines, as one content setting wants them."""

    def __init__(self, *, content: Content, mask: Mask | None = None) -> None:
        """Raises `ValueError` for a content setting that there is not."""
        if content not in get_args(Content):
            msg = f"content must be full, final or hash, not {content!r}"
            raise ValueError(msg)
        self._view: Final = _view(content)
        self._final: Final = content == "final"
        self._mask: Final = mask

    @property
    def masks(self) -> bool:
        """Whether a mask changes the records first, which may take its time."""
        return self._mask is not None

    def of(self, record: Begin | End) -> bytes:
        """Return a record as one line of JSON, its newline included.

        An `End` always gives a line: one that is not JSON is written without its content, and a note says so. Raises `TypeError`
        or `ValueError` for such a `Begin`.
        """
        if isinstance(record, Begin):
            return _line(_begin(self._begin(record), self._view))
        try:
            return _line(_end(self._end(record), self._view))
        except Exception as error:  # also a line that is too long
            # Not the error's text: it may quote content.
            _log.error("the end of %s could not be written in full: %s", record.id, type(error).__name__)
            return _line(_without_content(record, f"written without its content: {type(error).__name__}"))

    def _begin(self, begin: Begin) -> Begin:
        if self._mask is None:
            return begin
        return masked(replace(begin, request={}) if self._final else begin, self._mask)

    def _end(self, end: End) -> End:
        if self._mask is None:
            return end
        return masked(_final_alone(end) if self._final else end, self._mask)


def checkpoint(open_: Iterable[str], *, at: float) -> bytes:
    """Return the line that says which transactions, and no others, have begun and not ended at its place in the file."""
    return _line({"type": "checkpoint", "id": "", "at": at, "open": sorted(open_)})


def each_line(content: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines from here on; None for one that is too long to be a record."""
    while line := content.readline(LONGEST_LINE):
        if line.endswith(b"\n") or len(line) < LONGEST_LINE:
            yield line
            continue
        del line
        while (rest := content.readline(_SKIPPED_AT_ONCE)) and not rest.endswith(b"\n"):
            pass
        yield None


# --- the shape -------------------------------------------------------------------------------------------------------------


def _line(values: Mapping[str, Any]) -> bytes:
    line = jsontext.dumps(values) + b"\n"
    if len(line) > LONGEST_LINE:
        msg = f"the line of {len(line)} bytes is longer than {LONGEST_LINE}"
        raise ValueError(msg)
    return line


def _begin(begin: Begin, view: _View) -> dict[str, Any]:
    return {
        "type": "begin",
        "id": begin.id,
        "at": begin.at,
        "wire": begin.wire,
        "path": begin.path,
        "model": view.name(begin.model),
        "stream": begin.stream,
        "client": begin.client,
        "request": view.request(begin.request),
    }


def _end(end: End, view: _View) -> dict[str, Any]:
    return {
        "type": "end",
        "id": end.id,
        "at": end.at,
        "ending": end.ending,
        "status": end.status,
        "error": _error(end.error, view),
        "sent": view.request(end.sent),
        "decoder": end.decoder,
        "ignored": [view.name(name) for name in end.ignored],
        "backend_blocks": _blocks(end.backend_blocks, view.backend),
        "final_blocks": _blocks(end.final_blocks, view.final),
        "verdicts": [_verdict(verdict, view) for verdict in end.verdicts],
        "usage": view.usage(end.usage),
        "finish_reasons": _reasons(end.finish_reasons, view),
        "samples": [_sample(sample, view) for sample in end.samples],
        "calls": [asdict(call) | {"usage": view.usage(call.usage)} for call in end.calls],
        "unchecked": list(end.unchecked),
        "timings": dict(end.timings),
        "notes": [scrub(note) for note in end.notes],
    }


def _without_content(end: End, note: str) -> dict[str, Any]:
    kept = {"type": "end", "id": end.id, "at": end.at, "ending": end.ending, "status": end.status, "error": None, "sent": None}
    lists: dict[str, Any] = {"ignored": [], "backend_blocks": [], "final_blocks": [], "verdicts": [], "usage": None}
    lists |= {"finish_reasons": {}, "samples": [], "calls": [], "unchecked": list(end.unchecked)}
    return {**kept, "decoder": end.decoder, **lists, "timings": {}, "notes": [note]}


def _final_alone(end: End) -> End:
    """Return an end without what is not written of it: it need not be masked."""
    samples = [replace(sample, sent=None, blocks=()) for sample in end.samples]
    return replace(end, sent=None, backend_blocks=(), samples=samples)


def _reasons(reasons: Mapping[int, str], view: _View) -> dict[str, str]:
    return {str(choice): view.name(reason) for choice, reason in reasons.items()}


def _sample(sample: SampleRecord, view: _View) -> dict[str, Any]:
    return {
        "model": view.name(sample.model),
        "policy": sample.policy,
        "verdict": sample.verdict,
        "sent": view.request(sample.sent),
        "blocks": _blocks(sample.blocks, view.backend),
        "usage": view.usage(sample.usage),
        "finish_reasons": _reasons(sample.finish_reasons, view),
    }


def _error(error: Mapping[str, Any] | None, view: _View) -> dict[str, Any] | None:
    if error is None:
        return None
    return all_of(
        (scrub_name(name), view.words(value) if name == "message" and isinstance(value, str) else _named(value, view))
        for name, value in error.items()
    )


def _named(value: object, view: _View) -> object:
    return view.name(scrub(value)) if isinstance(value, str) else scrub_value(value)


def _verdict(verdict: VerdictRecord, view: _View) -> dict[str, Any]:
    changed = {"reason": view.words(verdict.reason), "tool": view.name(verdict.tool)}
    return {name: value for name, value in {**asdict(verdict), **changed}.items() if value != ""}


def _blocks(blocks: Sequence[Block], view: Callable[[Block], dict[str, Any] | None]) -> list[dict[str, Any]]:
    return [record for block in blocks if (record := view(block)) is not None]


# --- the views -------------------------------------------------------------------------------------------------------------


def _view(content: Content) -> _View:
    if content == "hash":
        return _View(
            request=_hashed, backend=_hashed_block, final=_hashed_block, words=_digest_text, name=_identifier, usage=_figures
        )
    if content == "full":
        return _View(request=_same, backend=_block, final=_block, words=scrub, name=_same, usage=_same)
    return _View(request=_nothing, backend=_nothing, final=_block, words=scrub, name=_same, usage=_same)


def _same(value: Any) -> Any:  # noqa: ANN401 - JSON is any shape
    return dict(value) if isinstance(value, Mapping) else value


def _nothing(_: object) -> None:
    return None


def _block(block: Block) -> dict[str, Any]:
    record = block.as_record() | {"index": block.index}
    return record | {"custom": True} if block.custom else record


# --- hashing ---------------------------------------------------------------------------------------------------------------


def _digest_text(text: str) -> str:
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}" if text else ""


def _digest(value: Any) -> str:  # noqa: ANN401
    """Return the hash of a text, or of another value's JSON with sorted keys, compact, ASCII."""
    return _digest_text(value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":")))


def _identifier(text: str) -> str:
    return text if _IDENTIFIER.fullmatch(text) or not text else _digest_text(text)


def _hashed(value: Any, key: str = "messages") -> Any:  # noqa: ANN401
    """Return a request's value with hashes instead of its texts; `key` is the one that it stands under."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _identifier(value) if key in _IDENTIFIERS else _digest_text(value)
    if key not in _STRUCTURE:
        return value if isinstance(value, int | float) else _digest(value)
    if isinstance(value, Mapping):
        return {_identifier(name): _hashed(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hashed(item, key) for item in value]
    return _digest(value)


def _hashed_block(block: Block) -> dict[str, Any]:
    record = _block(block)
    hashed = {name: _digest(record[name]) for name in ("text", "signature", "raw") if name in record}
    return record | hashed | {name: _identifier(record[name]) for name in ("id", "name") if name in record}


def _figures(value: Any) -> Any:  # noqa: ANN401
    """Return usage: its numbers, its keys, and no text that is not an identifier."""
    if isinstance(value, Mapping):
        return {_identifier(str(name)): _figures(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_figures(item) for item in value]
    return _identifier(value) if isinstance(value, str) else value
