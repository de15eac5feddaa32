"""What comes out differently on purpose: by recording, client format and field, with the reason.

An exception that nothing needs any more fails the score card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["EXCEPTIONS", "Exempt"]


@dataclass(frozen=True, slots=True)
class Exempt:
    """Differences of one recording, for the clients of one format. `path` is a pattern that the difference begins with."""

    recording: str
    client: str
    path: str
    reason: str


_OWN: Final = "a field of the provider's own, which the decoder leaves out"
_FORGOTTEN: Final = "the SDK forgets it when an event without it follows; it is kept"
_ROLE: Final = "the provider repeats the role, which the SDK adds up; it is sent once"

EXCEPTIONS: Final[Sequence[Exempt]] = (
    Exempt("anthropic/sdk-refusal.sse", "anthropic", "empty-text", "an empty block of the provider's own goes on as it came"),
    Exempt("azure/vercel-model-router.jsonl", "openai", "obfuscation", "random padding"),
    Exempt("azure/vercel-model-router.jsonl", "openai", "prompt_filter_results", _OWN),
    Exempt("openai/olm-parallel-no-usage.sse", "openai", "obfuscation", "random padding"),
    Exempt("groq/vercel-tool-call.jsonl", "openai", "x_groq", _OWN),
    Exempt("mistral/vercel-incremental-tool.jsonl", "openai", r"choices\[0\]\.message\.role", "the provider leaves the role out"),
    Exempt(
        "openrouter/pai-reasoning-details.sse",
        "openai",
        r"choices\[0\]\.message\.reasoning(_details)?:",
        "`reasoning` is sent as `reasoning_content`",
    ),
    Exempt("openrouter/pai-reasoning-details.sse", "openai", r"choices\[0\]\.message\.role", _ROLE),
    Exempt(
        "openrouter/pai-reasoning-details.sse",
        "openai",
        r"choices\[0\]\.message\.reasoning_details\[0\]\.format",
        "the SDK adds up a label that each fragment repeats; a body has it once",
    ),
    Exempt("openrouter/pai-reasoning-details.sse", "openai", r"choices\[0\]\.native_finish_reason", _FORGOTTEN),
    Exempt("azure/vercel-model-router.jsonl", "openai", r"choices\[0\]\.content_filter_results", _FORGOTTEN),
    Exempt("perplexity/vercel-citations.jsonl", "openai", r"choices\[0\]\.finish_reason", _FORGOTTEN),
    Exempt("perplexity/vercel-citations.jsonl", "openai", r"choices\[0\]\.message\.role", _ROLE),
    Exempt("perplexity/vercel-citations.jsonl", "openai", "created", "the time changes within the stream; the first one stands"),
    Exempt("zai/pai-thinking.sse", "openai", r"choices\[0\]\.message\.role", _ROLE),
)
