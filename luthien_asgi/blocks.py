"""The parts an answer is made of, as policies and records see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from luthien_asgi import jsontext

__all__ = ["Block", "BlockKind"]


class BlockKind(StrEnum):
    """What a block is. `other` is whatever the common format has no field for: server tools, MCP, compaction, the future."""

    TEXT = "text"
    THINKING = "thinking"
    REDACTED_THINKING = "redacted_thinking"
    TOOL_CALL = "tool_call"
    REFUSAL = "refusal"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One whole block of an answer.

    `text` is the text, the thinking, the refusal, or for a tool call its arguments as the provider wrote them (JSON, perhaps
    malformed). `raw` is the provider's own form of the block where the common format does not hold all of it; for kind
    `other` it is all there is.
    """

    kind: BlockKind
    text: str = ""
    id: str = ""
    """A tool call's id; empty for other kinds."""
    name: str = ""
    """A tool call's name; empty for other kinds."""
    signature: str = ""
    """The signature of a thinking block, or the data of a redacted one: never to be edited."""
    choice: int = 0
    """The choice (OpenAI's `n`) this block belongs to."""
    index: int = 0
    """The block's position among the blocks of its choice."""
    custom: bool = False
    """True for an OpenAI custom tool call, whose input is free text and not JSON."""
    raw: Mapping[str, Any] | None = None

    @property
    def arguments(self) -> Any:  # noqa: ANN401 - whatever the model wrote
        """A tool call's parsed arguments: `{}` when it wrote none.

        Raises `ValueError` when they are not JSON; judge `text` then.
        """
        return jsontext.loads(self.text) if self.text.strip() else {}

    def with_text(self, text: str) -> Block:
        """Return this block with other text (for a tool call: other arguments). Raises `ValueError` for thinking."""
        if self.kind in {BlockKind.THINKING, BlockKind.REDACTED_THINKING, BlockKind.OTHER}:
            msg = f"a {self.kind} block cannot be edited, only denied or replaced as a whole"
            raise ValueError(msg)
        return replace(self, text=text, raw=None)

    def as_record(self) -> dict[str, Any]:
        """Return the block as JSON values for a record: no empty fields."""
        record: dict[str, Any] = {"kind": str(self.kind)}
        for name in ("text", "id", "name", "signature"):
            if value := getattr(self, name):
                record[name] = value
        if self.choice:
            record["choice"] = self.choice
        if self.raw is not None:
            record["raw"] = dict(self.raw)
        return record
