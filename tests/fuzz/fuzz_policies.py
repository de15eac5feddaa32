"""Policies of every kind of handling, for streams that their provider broke."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from fuzz_mutations import CANARY

from luthien_asgi import (
    Allow,
    Block,
    BlockKind,
    Chain,
    Deny,
    Governed,
    Hold,
    Observe,
    Policy,
    PolicyError,
    Replace,
    Run,
    Stop,
    StreamContext,
    Together,
    Transform,
    jsontext,
    read_part,
    with_text,
)
from luthien_asgi.chunks import Chunk
from luthien_asgi.compose import Composable
from luthien_asgi.policies import Redact, ReplaceText, UpperCase
from luthien_asgi.policy import Handling, Verdict

__all__ = ["JUDGES", "POLICIES", "REWRITERS"]

_ALL: Final[Mapping[BlockKind, Handling]] = dict.fromkeys(BlockKind, Hold())
_WRITABLE: Final = (BlockKind.TEXT, BlockKind.REFUSAL, BlockKind.TOOL_CALL)


def _suspect(block: Block) -> bool:
    said = (block.text, block.name, block.id, block.signature)
    return any(CANARY in text for text in said) or CANARY in jsontext.dumps(block.raw).decode()


class AllowAll(Policy):
    """Holds every block and lets it through."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Allow()


class ObserveAll(Policy):
    """Looks at everything."""

    handles: ClassVar = dict.fromkeys(BlockKind, Observe())

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        read_part(chunk)


class TransformAll(Policy):
    """Writes every fragment in upper case, and a word at each block's end."""

    handles: ClassVar = dict.fromkeys(_WRITABLE, Transform())

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        text = read_part(chunk).text
        return [with_text(chunk, text.upper())] if text else None

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        return None if block.kind is BlockKind.TOOL_CALL else [ctx.text("!")]


class DenyCanary(Policy):
    """Denies every block with the canary in it."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("denied") if _suspect(block) else None


class ReplaceCanary(Policy):
    """Writes another block in the place of one with the canary in it."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        if not _suspect(block):
            return None
        if block.kind is BlockKind.TOOL_CALL:
            return Replace([Block(kind=BlockKind.TEXT, text="another"), Block(kind=block.kind, id="call_1", name="f", text="{}")])
        return Replace([Block(kind=BlockKind.TEXT, text="another")])


class StopAtCanary(Policy):
    """Ends the answer at the first block with the canary in it."""

    handles: ClassVar = _ALL

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Stop("stopped") if _suspect(block) else None


class DenySome(Policy):
    """Denies some tool calls and thinking, by what is in them; says something at the end."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.THINKING: Hold()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Deny("not this one") if zlib.crc32(repr(block.text).encode()) % 3 == 0 else None

    def on_stream_complete(self, ctx: StreamContext) -> Iterable[Chunk] | None:
        return [ctx.text("the end")]


class Half(Policy):
    """Looks at runs as it does at chunks: leaves vowels out, and keeps every other fragment back."""

    handles: ClassVar = dict.fromkeys(_WRITABLE, Transform())

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        text = read_part(chunk).text
        said = self._next(text, ctx) if text else None
        return None if said is None else [with_text(chunk, said)] if said else ()

    def on_run_added(self, run: Run, ctx: StreamContext) -> list[str]:
        return [text if (said := self._next(text, ctx)) is None else said for text in run.texts]

    def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        kept = ctx.state(list[str])
        rest, kept[:] = "".join(kept), []
        return [ctx.text(rest)] if rest else None  # a fragment of whatever block it is

    @staticmethod
    def _next(text: str, ctx: StreamContext) -> str | None:
        text = text.encode("utf-8", "replace").decode()  # whole characters stay as they are, halves do not
        kept = ctx.state(list[str])
        if not kept:
            kept.append(text)
            return ""
        new, kept[:] = (kept[0] + text).translate({ord(vowel): None for vowel in "aeiou"}), []
        return new


class Failing(UpperCase):
    """Fails at some texts."""

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        _fail_at(read_part(chunk).text)
        return super().on_chunk_added(chunk, ctx)


def _fail_at(text: str) -> None:
    if zlib.crc32(text.encode("utf-8", "surrogatepass")) % 5 == 0:
        raise PolicyError("It failed.")


class Older(UpperCase):
    """Knows nothing of runs."""

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        return super().on_chunk_added(chunk, ctx)


class Ended(Policy):
    """Sees blocks when they have ended, and lets them flow."""

    handles: ClassVar = {BlockKind.TEXT: Observe(), BlockKind.THINKING: Observe(), BlockKind.TOOL_CALL: Observe()}

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Stop("stopped") if zlib.crc32(repr(block.text).encode()) % 7 == 0 else None


JUDGES: Final[Mapping[str, Policy]] = {"deny": DenyCanary(), "replace": ReplaceCanary(), "stop": StopAtCanary()}
"""Policies that let no canary through."""

REWRITERS: Final[Mapping[str, Composable]] = {
    "transform": TransformAll(),
    "half": Half(),
    "upper case": UpperCase(),
    "replace text": ReplaceText(replacements=[["the", "a"], ["A", "bb"]]),
    "redact": Redact(where="both", key="k" * 16),
    "chain": Chain([ReplaceText(replacements=[["e", ""]]), UpperCase(), Half()]),
}
"""Policies that change what flows, so that a padding may leave with another fragment."""

POLICIES: Final[Mapping[str, Composable | None]] = {
    "none": None,
    "hold": AllowAll(),
    "observe": ObserveAll(),
    "some": DenySome(),
    **REWRITERS,
    "ended": Ended(),
    "older": Older(),
    "together": Together([Ended(), DenySome()]),
    "shadow": Chain([Governed(DenySome(), mode="shadow"), UpperCase()]),
    "held, then rewritten": Chain([AllowAll(), Half()]),
    "rewritten, then held": Chain([Half(), DenySome()]),
    "pass": Governed(Failing(), on_error="pass"),
    **JUDGES,
}
