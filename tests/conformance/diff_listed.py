"""Where LiteLLM's own iteration says something else than our decoders, by number and with the reason.

`ARCHITECTURE.md` has the same table. A deviation that is not listed fails, and so does one that no longer occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Final

__all__ = ["LISTED", "Deviation"]


@dataclass(frozen=True, slots=True)
class Deviation:
    """One way in which LiteLLM's reading differs. `recordings` are patterns, each of which has to match a deviation."""

    number: int
    field: str
    recordings: Sequence[str]
    reason: str

    def matching(self, recording: str, field: str) -> list[str]:
        """Return the patterns that cover a deviation."""
        return [pattern for pattern in self.recordings if field == self.field and fnmatch(recording, pattern)]

    def row(self) -> str:
        """Return the deviation as a row of the table in `ARCHITECTURE.md`."""
        return f"| {self.number} | {self.field} | {self.reason} |"


_SERVER_TOOLS: Final = (
    "anthropic/pai-pause-turn.sse",
    "anthropic/vercel-advisor.jsonl",
    "anthropic/vercel-code-execution.jsonl",
    "anthropic/vercel-programmatic-tools-turn1.jsonl",
    "anthropic/vercel-tool-search-turn1.jsonl",
    "anthropic/vercel-web-search.jsonl",
)

LISTED: Final[Sequence[Deviation]] = (
    Deviation(1, "model", ("*",), "it says the model that was asked for, we the one that answered"),
    Deviation(2, "id", ("anthropic/*",), "it makes up an id, we keep the message's"),
    Deviation(3, "calls", _SERVER_TOOLS, "it gives tools that ran at the provider as calls for the client"),
    Deviation(
        4,
        "calls",
        ("anthropic/llm-tool.sse", "anthropic/vercel-tool-no-args.jsonl"),
        'it adds the arguments `{}` to a call that has none; the encoders write `{"input": {}}`, or none',
    ),
    Deviation(
        5,
        "ran at the provider",
        (
            *_SERVER_TOOLS,
            "anthropic/pai-mcp.sse",
            "anthropic/sdk-fallback.sse",
            "anthropic/vercel-fallback.jsonl",
            "anthropic/vercel-mcp.jsonl",
        ),
        "it keeps some results beside the text; MCP calls, fallbacks and the order are lost",
    ),
    Deviation(
        6,
        "usage",
        ("anthropic/pai-compaction-cache.sse", "anthropic/vercel-fallback.jsonl"),
        "it adds up `iterations`, we give the provider's own total",
    ),
    Deviation(
        7,
        "usage",
        (
            "anthropic/pai-mcp.sse",
            "anthropic/pai-thinking.sse",
            "anthropic/vercel-clear-thinking.jsonl",
        ),
        "it estimates reasoning tokens from the text of the thinking",
    ),
    Deviation(8, "usage", ("anthropic/sdk-refusal.sse",), "it keeps the output tokens of the start, where the end says 0"),
    Deviation(
        9,
        "usage",
        ("openai/olm-parallel-no-usage.sse", "openai/otel-no-include-usage.sse", "openai-compat/vercel-tool-index-from-1.sse"),
        "it estimates the usage of a stream without one, unmarked; we give none",
    ),
    Deviation(10, "role", ("anthropic/sdk-refusal.sse",), "it says no role where the answer has no content"),
    Deviation(11, "role", ("openai/sdk-n3-json.sse",), "it says no role for choices after the first"),
    Deviation(12, "role", ("openrouter/pai-reasoning-details.sse",), "it says the role twice"),
    Deviation(13, "finish", ("openai/sdk-n3-json.sse",), "it loses the finish reason of choices after the first"),
    Deviation(14, "refusal", ("openai/sdk-refusal.sse",), "it drops refusals"),
)
