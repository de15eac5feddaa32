"""What a client has of an answer in the end, in a form that can be compared: across cuts, across forms, across formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.reasoning_items import decode
from luthien_asgi.request import WireName
from luthien_asgi.testing.events import sse_events
from luthien_asgi.testing.kit import PolicyRun
from luthien_asgi.testing.proof.cuts import joined

__all__ = ["Fragments", "Outcome", "fragments_of", "strings_in", "verdicts_of"]

Fragments = dict[tuple[BlockKind, str], list[str]]

_SHOWN: Final = 300
"""Characters of a value that a counterexample shows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client has. `blocks` are (kind, text, name, signature); `usage` is what a provider told, if one did."""

    status: int
    error: str
    """The error's type; what was delivered before it is not compared, since an error may come at any chunk."""
    ending: str
    blocks: tuple[tuple[str, str, str, str], ...]
    usage: tuple[tuple[str, Any], ...]
    verdicts: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, run: PolicyRun) -> Outcome:
        """Return what a run came to."""
        verdicts = verdicts_of(run)
        if run.error is not None:
            return cls(run.status if run.record is None else 0, str(run.error.get("type")), "", (), (), verdicts)
        ending = str(run.finish_reason or run.stop_reason or run.body.get("status"))
        blocks = tuple((str(block.kind), _said(block), block.name, _signed(block.signature)) for block in run.blocks)
        return cls(
            run.status,
            "",
            ending,
            blocks,
            tuple(sorted(_flat(run.usage))) if run.record is not None and run.record.usage else (),
            verdicts,
        )

    def across_formats(self) -> tuple[Any, ...]:
        """Return what every client format can say: the texts of each kind, the calls, and the verdicts."""
        thinking = "".join(text for kind, text, _, _ in self.blocks if kind == BlockKind.THINKING)
        texts = "".join(text for kind, text, _, _ in self.blocks if kind in {BlockKind.TEXT, BlockKind.REFUSAL})
        calls = [(name, text) for kind, text, name, _ in self.blocks if kind == BlockKind.TOOL_CALL]
        return bool(self.error), thinking, texts, calls, self.verdicts

    def against(self, other: Outcome) -> str:
        """Say in which field another outcome differs, and how: what was expected is this one."""
        for field in fields(self):
            expected, got = getattr(self, field.name), getattr(other, field.name)
            if expected != got:
                return f"expected {field.name}: {_shown(expected)}\n  got      {field.name}: {_shown(got)}"
        return ""


def verdicts_of(run: PolicyRun) -> tuple[tuple[str, ...], ...]:
    """Return what was said and done about each block, in an order that does not depend on how fast a judge was."""
    return tuple(sorted((v.policy, v.hook, v.kind, v.tool, v.verdict, v.action, str(v.choice)) for v in run.verdicts))


def strings_in(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    """Yield every string in a JSON value, names of fields too."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                yield text
            case Mapping() as mapping:
                pending += [*mapping, *mapping.values()]
            case list() | tuple() as items:
                pending += items


def fragments_of(run: PolicyRun, client: WireName) -> Fragments:
    """Return the fragments in which each block of a streamed answer left, by its kind and a name of it."""
    found: Fragments = {}
    for event in sse_events(b"".join(run.frames)):
        if event.data == "[DONE]":
            continue
        for kind, name, text in _FRAGMENTS[client](jsontext.loads(event.data)):
            if text:
                found.setdefault((kind, name), []).append(text)
    return found


def _openai(event: Mapping[str, Any]) -> Iterator[tuple[BlockKind, str, str]]:
    for choice in event.get("choices") or ():
        delta = choice["delta"]
        for name, kind in _OPENAI_KINDS.items():
            yield kind, str(choice["index"]), delta.get(name) or ""
        for call in delta.get("tool_calls") or ():
            inner = call.get("custom") or call.get("function") or {}
            text = inner.get("input") or inner.get("arguments") or ""
            yield BlockKind.TOOL_CALL, f"{choice['index']}.{call['index']}", text


def _anthropic(event: Mapping[str, Any]) -> Iterator[tuple[BlockKind, str, str]]:
    if event["type"] == "content_block_delta":
        for name, kind in _ANTHROPIC_KINDS.items():
            yield kind, str(event["index"]), event["delta"].get(name) or ""


def _responses(event: Mapping[str, Any]) -> Iterator[tuple[BlockKind, str, str]]:
    for name, kind in _RESPONSES_KINDS.items():
        if event["type"].startswith(f"response.{name}") and event["type"].endswith(".delta"):
            yield kind, str(event["output_index"]), event["delta"]


_FRAGMENTS: Final = {"openai": _openai, "anthropic": _anthropic, "responses": _responses}
_OPENAI_KINDS: Final = {"content": BlockKind.TEXT, "refusal": BlockKind.REFUSAL, "reasoning_content": BlockKind.THINKING}
_ANTHROPIC_KINDS: Final = {"text": BlockKind.TEXT, "thinking": BlockKind.THINKING, "partial_json": BlockKind.TOOL_CALL}
_RESPONSES_KINDS: Final = {
    "output_text": BlockKind.TEXT,
    "refusal": BlockKind.REFUSAL,
    "reasoning": BlockKind.THINKING,
    "function_call_arguments": BlockKind.TOOL_CALL,
    "custom_tool_call_input": BlockKind.TOOL_CALL,
}


def _said(block: Block) -> str:
    """Return a block's text; of arguments their value, since not every format keeps their writing."""
    if block.kind is BlockKind.TOOL_CALL and not block.custom:
        try:
            return jsontext.dumps(jsontext.loads(joined(block.text) or "{}")).decode()
        except ValueError:
            return block.text
    return joined(block.text)


def _signed(signature: str) -> str:
    """Return a signature; of thinking that is carried for its provider what it says, since one text has several writings."""
    carried = decode(signature)
    return signature if carried is None else f"{carried.kind} {joined(carried.text)} {carried.signature}"


def _flat(usage: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in usage.items():
        if isinstance(value, int):
            yield name, value


def _shown(value: object) -> str:
    text = ascii(value) if "\\ud" in ascii(value) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
