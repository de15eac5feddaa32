"""Effort in words and thinking budgets in tokens: how the two formats' settings for reasoning map to each other.

The budgets are those LiteLLM uses (its `DEFAULT_REASONING_EFFORT_*_THINKING_BUDGET`), so that a request means the same here and
there; 1024 is the smallest that the Anthropic API accepts. Towards OpenAI nothing above `high` is asked for by a budget, since
few models know more; an effort that the client named itself goes on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["BUDGETS", "EFFORT_IN_ADAPTIVE", "MIN_BUDGET", "effort_of_budget"]

MIN_BUDGET: Final = 1024
"""Tokens (Anthropic API documentation, extended thinking)."""
BUDGETS: Final[Mapping[str, int]] = {
    "minimal": MIN_BUDGET,
    "low": MIN_BUDGET,
    "medium": 2048,
    "high": 4096,
    "xhigh": 8192,
    "max": 16384,
}
"""Tokens of thinking for each `reasoning_effort`; `none` asks for no thinking."""
EFFORT_IN_ADAPTIVE: Final[Mapping[str, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""Anthropic's `output_config.effort` for each `reasoning_effort`, for models with adaptive thinking."""


def effort_of_budget(tokens: int) -> str:
    """Return the `reasoning_effort` for a thinking budget."""
    if tokens >= BUDGETS["high"]:
        return "high"
    return "medium" if tokens >= BUDGETS["medium"] else "low"
