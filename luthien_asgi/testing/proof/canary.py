"""A word that must never get out: put into every field that a policy judges, of every choice, cut at every place.

Strategy: the client's bytes are searched as they came, and everything that a client can make of them: the texts put together,
arguments parsed, what is carried for the provider unpacked. Then the next turn is sent, and what the backend gets is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from luthien_asgi import jsontext
from luthien_asgi.blocks import BlockKind
from luthien_asgi.reasoning_items import decode
from luthien_asgi.request import WireName
from luthien_asgi.testing.kit import PolicyRun
from luthien_asgi.testing.parts import Answer, Refusal, Text, Thinking, ToolCall
from luthien_asgi.testing.proof.counterexample import Counterexample
from luthien_asgi.testing.proof.cuts import joined, once
from luthien_asgi.testing.proof.next_turn import next_turn
from luthien_asgi.testing.proof.outcomes import fragments_of, strings_in
from luthien_asgi.testing.proof.stage import PROVIDERS, Case, Stage, decoded, events_of

__all__ = ["FIELDS", "Canary"]

LEAKS: Final = "the canary got out"
LATER: Final = "the canary is in the next turn"
_FORMS: Final = (True, False)
"""Streamed, and not."""


FIELDS: Final[Mapping[str, BlockKind]] = {
    "text": BlockKind.TEXT,
    "logprobs": BlockKind.TEXT,
    "annotations": BlockKind.TEXT,
    "citations": BlockKind.TEXT,
    "thinking": BlockKind.THINKING,
    "refusal": BlockKind.REFUSAL,
    "tool_name": BlockKind.TOOL_CALL,
    "tool_arguments": BlockKind.TOOL_CALL,
}
"""The fields in which a canary can be, and the kind of block that each belongs to."""


class _Place(NamedTuple):
    """Where the canary is."""

    field: str
    name: str
    answer: Answer
    part: int = 0
    """The part of the answer that the canary is in."""


@dataclass(slots=True)
class Canary:
    """Holds one policy to a word that it denies."""

    stage: Stage
    word: str
    fields: Collection[str]
    """Of `FIELDS`."""
    clients: Sequence[WireName]
    halves: bool = True

    async def check(self) -> int:
        """Raise `Counterexample` for the first leak; return how many ways were tried."""
        before = self.stage.runs
        for place in _places(self.word):
            for provider in PROVIDERS:
                if _field_at(place.field, provider) in self.fields:
                    await self._everywhere(place, provider)
        for name, provider, change in _BESIDE:
            if name in self.fields:
                await self._beside(name, provider, change)
        return self.stage.runs - before

    async def _everywhere(self, place: _Place, provider: WireName) -> None:
        """Try the whole answer on every way, and every cut on one of them in turn: the policy sees the same chunks on each."""
        ways = [
            Case(place.answer, provider=provider, client=client, stream=stream) for client in self.clients for stream in _FORMS
        ]
        for way in ways:
            await self._later(await self._run(way, place.name), way)
        for number, cut in enumerate(once(place.answer, place.part, halves=self.halves)):
            await self._run(ways[number % len(ways)].but(cut=cut), place.name)
        if provider == "openai" and "openai" in self.clients:
            for stream in _FORMS:
                case = Case(place.answer, stream=stream)
                steps = decoded(_second_choice(events_of(place.answer, "openai")), "openai")
                self._search(await self.stage.play(case, steps), case, f"{place.name} of choice 1")

    async def _beside(self, name: str, provider: WireName, change: Callable[[list[bytes], str], list[bytes]]) -> None:
        answer = Answer(Text("One text", " and more."))
        for client in self.clients:
            for stream in _FORMS:
                case = Case(answer, provider=provider, client=client, stream=stream)
                steps = decoded(change(events_of(answer, provider), self.word), provider)
                self._search(await self.stage.play(case, steps), case, name)

    async def _run(self, case: Case, where: str) -> PolicyRun:
        run = await self.stage.run(case)
        self._search(run, case, where)
        return run

    def _search(self, run: PolicyRun, case: Case, where: str) -> None:
        for told in _heard(run, case):
            if self.word in joined(told):
                raise Counterexample(
                    LEAKS, case, f"it was in the {where}; the client can read {_around(joined(told), self.word)!r}"
                )

    async def _later(self, run: PolicyRun, case: Case) -> None:
        if run.error is not None or not run.body:
            return
        steps = decoded(events_of(Answer("Well."), case.provider), case.provider)
        after = await replace(self.stage, request=next_turn(case.client, run.body)).play(case, steps)
        self.stage.runs += 1
        for call in after.backend.calls:
            for told in _unpacked(call.request.body):
                if self.word in joined(told):
                    raise Counterexample(LATER, case, f"the backend is told {_around(joined(told), self.word)!r}")


def _places(word: str) -> Iterator[_Place]:
    escaped = "".join(f"\\u{unit:04x}" for unit in _units(word))
    call = ToolCall("call_1", "run", {"a": f"x {word} y"})
    yield _Place("text", "text", Answer(Text(f"x {word} y")))
    yield _Place("thinking", "thinking", Answer(Thinking(f"x {word} y", signature="c2ln"), Text("Well.")))
    yield _Place("refusal", "refusal", Answer(Refusal(f"x {word} y")))
    yield _Place("tool_name", "tool's name", Answer(ToolCall("call_1", word)))
    yield _Place("tool_arguments", "tool's arguments", Answer(Text("On it."), call), 1)
    yield _Place("tool_arguments", "name of an argument", Answer(ToolCall("call_1", "run", {word: [1]})))
    yield _Place("tool_arguments", "tool's arguments, in escapes", Answer(ToolCall("call_1", "run", f'{{"a": ["{escaped}"]}}')))
    yield _Place("tool_arguments", "arguments of the second call", Answer(ToolCall("call_0", "fine"), call), 1)


def _units(word: str) -> list[int]:
    data = word.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)]


def _field_at(name: str, provider: WireName) -> str:
    """Return what a field is at its provider: Anthropic's refusals are text."""
    return "text" if name == "refusal" and provider == "anthropic" else name


# --- what rides beside a text ------------------------------------------------------------------------------------------


def _edited(events: Sequence[bytes], change: Callable[[dict[str, Any]], object]) -> list[bytes]:
    """Return OpenAI events with their data changed in place."""
    return [_with_data(event, change) for event in events]


def _with_data(event: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    head, _, data = event.rstrip(b"\n").rpartition(b"data: ")
    if data == b"[DONE]":
        return event
    value = jsontext.loads(data)
    change(value)
    return head + b"data: " + jsontext.dumps(value) + b"\n\n"


def _logprobs(events: list[bytes], word: str) -> list[bytes]:
    token = {"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []}

    def add(data: dict[str, Any]) -> None:
        for choice in data["choices"]:
            if choice["delta"].get("content"):
                choice["logprobs"] = {"content": [token], "refusal": None}

    return _edited(events, add)


def _annotations(events: list[bytes], word: str) -> list[bytes]:
    cited = {"url": "https://example.org/", "title": word, "start_index": 0, "end_index": 3}

    def add(data: dict[str, Any]) -> None:
        for choice in data["choices"]:
            if choice["delta"].get("content"):
                choice["delta"]["annotations"] = [{"type": "url_citation", "url_citation": cited}]

    return _edited(events, add)


def _citations(events: list[bytes], word: str) -> list[bytes]:
    cited = {
        "type": "char_location",
        "cited_text": word,
        "document_index": 0,
        "document_title": None,
        "start_char_index": 0,
        "end_char_index": 3,
        "file_id": None,
    }
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": cited}}
    event = b"event: content_block_delta\ndata: " + jsontext.dumps(delta) + b"\n\n"
    stop = next(place for place, each in enumerate(events) if b"content_block_stop" in each)
    return [*events[:stop], event, *events[stop:]]


_BESIDE: Final[tuple[tuple[str, WireName, Callable[[list[bytes], str], list[bytes]]], ...]] = (
    ("logprobs", "openai", _logprobs),
    ("annotations", "openai", _annotations),
    ("citations", "anthropic", _citations),
)


def _second_choice(events: Sequence[bytes]) -> list[bytes]:
    """Return the events as those of choice 1, beside a harmless choice 0."""
    harmless = events_of(Answer(Text("Fine.", " Really.")), "openai")
    first = [event for event in harmless if b'"usage":{' not in event and b"[DONE]" not in event]
    return [*first, *_edited(events, _as_second)]


def _as_second(data: dict[str, Any]) -> None:
    for choice in data["choices"]:
        choice["index"] = 1


# --- what a client can read --------------------------------------------------------------------------------------------


def _heard(run: PolicyRun, case: Case) -> Iterator[str]:
    yield b"".join(run.frames).decode()
    yield from run.headers.values()
    yield from _unpacked(run.body)
    if case.stream and run.error is None and run.status == 200:
        yield from ("".join(texts) for texts in fragments_of(run, case.client).values())


def _unpacked(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield all strings of a body, and what is packed into them: JSON, and thinking that is carried for its provider."""
    for text in strings_in(value):
        yield text
        if (carried := decode(text)) is not None:
            yield carried.text
        elif text.lstrip()[:1] in {"{", "["}:
            try:
                yield from strings_in(jsontext.loads(text))
            except ValueError:
                continue


def _around(text: str, word: str) -> str:
    at = text.index(word)
    return text[max(0, at - 20) : at + len(word) + 20]
