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
_ROLE: Final = "the provider repeats the role, which the SDK adds up; it is sent once"

EXCEPTIONS: Final[Sequence[Exempt]] = (
    Exempt("anthropic/sdk-refusal.sse", "anthropic", "empty-text", "an empty block of the provider's own goes on as it came"),
    Exempt("azure/vercel-model-router.jsonl", "openai", "obfuscation", "random padding"),
    Exempt("azure/vercel-model-router.jsonl", "openai", "prompt_filter_results", _OWN),
    Exempt("openai/olm-parallel-no-usage.sse", "openai", "obfuscation", "random padding"),
    Exempt("deepseek/pai-reasoning-content.sse", "openai", r"usage\.prompt_cache_(hit|miss)_tokens", _OWN),
    Exempt("groq/vercel-tool-call.jsonl", "openai", r"usage\.\w+_time", _OWN),
    Exempt("groq/vercel-tool-call.jsonl", "openai", "x_groq", _OWN),
    Exempt("mistral/vercel-incremental-tool.jsonl", "openai", r"choices\[0\]\.message\.index", _OWN),
    Exempt("mistral/vercel-incremental-tool.jsonl", "openai", r"choices\[0\]\.message\.role", "the provider leaves the role out"),
    Exempt(
        "openrouter/pai-reasoning-details.sse",
        "openai",
        r"choices\[0\]\.message\.reasoning(_details)?:",
        "`reasoning` is sent as `reasoning_content`",
    ),
    Exempt("openrouter/pai-reasoning-details.sse", "openai", r"choices\[0\]\.message\.role", _ROLE),
    Exempt("openrouter/pai-reasoning-details.sse", "openai", "provider", _OWN),
    Exempt("openrouter/pai-reasoning-details.sse", "openai", r"usage\.(cost|cost_details|is_byok)", _OWN),
    Exempt("perplexity/vercel-citations.jsonl", "openai", r"choices\[0\]\.finish_reason", "the SDK forgets it"),
    Exempt("perplexity/vercel-citations.jsonl", "openai", r"choices\[0\]\.message\.role", _ROLE),
    Exempt("perplexity/vercel-citations.jsonl", "openai", "citations", _OWN),
    Exempt("perplexity/vercel-citations.jsonl", "openai", "created", "the time changes within the stream; the first one stands"),
    Exempt("zai/pai-thinking.sse", "openai", r"choices\[0\]\.message\.role", _ROLE),
)
