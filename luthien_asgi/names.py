"""Names that a model or a client made up, as they may stand in a message."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["shown_name"]

_LONGEST: Final = 64
"""Characters of a tool's name (OpenAI and Anthropic API reference); what is longer is cut."""
_UNFIT: Final = re.compile(r"[^\w.:/{}*-]+")


def shown_name(name: str) -> str:
    """Return a name as it may stand in a message: on one line, without spaces and markup, and no longer than a name is.

    Messages become part of the conversation, so a name that was made up must not be able to say anything there.
    """
    return _UNFIT.sub("_", name[: _LONGEST + 1])[:_LONGEST] or "(no name)"
