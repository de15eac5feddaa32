"""What an Anthropic answer's `message_delta` says: why it stopped, and what it used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.errors import StreamStateError
from luthien_asgi.wire.usage import anthropic_usage, stop_reason_for, stop_reason_kept

__all__ = ["Ending"]

_CHARACTERS_PER_TOKEN: Final = 4


class Ending:
    """Collects it while the answer streams."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}
        """With OpenAI's names, as far as the backend told it."""
        self.started: Mapping[str, Any] = {}
        """The usage that `message_start` told the client."""
        self.refused = False
        """Whether the text of a refusal was sent."""
        self.characters = 0
        """How much was written, for an estimate when the backend does not tell."""
        self._reason: str | None = None
        self._said: dict[str, Any] | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Take the provider's own `message_delta`; of several, what the later ones say counts."""
        before = self._said or {}
        merged = {name: {**(before.get(name) or {}), **(event.get(name) or {})} for name in ("delta", "usage")}
        self._said = {**before, **event, **merged}

    def finish(self, reason: str, *, event: Mapping[str, Any] | None) -> None:
        """Take the finish reason. One without its provider's event is not the provider's: a policy ended the answer."""
        self._reason = reason
        if event is None:
            self._said = None

    def require(self) -> None:
        """Raise `StreamStateError` when nobody said why the answer ends."""
        if self._reason is None and self._said_reason is None:
            msg = "the answer ends without a stop reason"
            raise StreamStateError(msg)

    def event(self, *, tools_sent: bool) -> dict[str, Any]:
        """Return the `message_delta` event."""
        said = self._said or {}
        reason = self._said_reason
        if reason is not None:
            reason = stop_reason_kept(reason, tools_sent=tools_sent)
        elif self._reason is not None:
            reason = stop_reason_for(self._reason, tools_sent=tools_sent, refused=self.refused)
        delta = {"stop_sequence": None, **(said.get("delta") or {}), "stop_reason": reason}
        return {**said, "type": "message_delta", "delta": delta, "usage": self._usage(said.get("usage") or {})}

    @property
    def _said_reason(self) -> str | None:
        delta: Mapping[str, Any] = (self._said or {}).get("delta") or {}
        return delta.get("stop_reason")

    def _usage(self, said: Mapping[str, Any]) -> dict[str, Any]:
        if said.get("output_tokens") is not None:
            return dict(said)
        return {**said, **self._counted()}

    def _counted(self) -> dict[str, Any]:
        if self.usage:
            return anthropic_usage(self.usage)
        # The SDKs read `usage.output_tokens` of every message_delta: an estimate where the backend was not heard to the end.
        written = max(1, self.characters // _CHARACTERS_PER_TOKEN)
        return {"output_tokens": max(written, self.started.get("output_tokens") or 0)}
