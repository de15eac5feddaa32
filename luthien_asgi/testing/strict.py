"""What the real APIs refuse: a conversation that a client built from what it was sent has to pass here.

`check_history` answers as a provider's own validation does, in its words where they are known; the first complaint wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.request import WireName
from luthien_asgi.testing import strict_anthropic, strict_openai, strict_responses
from luthien_asgi.testing.history import HistoryError

__all__ = ["check_history"]

_CHECKS: Final = {"openai": strict_openai.check, "anthropic": strict_anthropic.check, "responses": strict_responses.check}


def check_history(wire: WireName, body: Mapping[str, Any]) -> str | None:
    """Return why the real API would answer 400 to this request body, or None when it would accept it."""
    try:
        _CHECKS[wire](body)
    except HistoryError as error:
        return str(error)
    except (AttributeError, KeyError, TypeError) as error:
        return f"malformed request: {error!r}"
    return None
