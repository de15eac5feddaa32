"""Whether thinking comes back as it was signed: what the history alone cannot tell, and the provider that signed it can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from luthien_asgi.testing.exchange import Reply
from luthien_asgi.testing.parts import Answer, Redacted, Thinking

__all__ = ["Signatures"]


class Signatures:
    """Remembers what a scripted provider signed, and refuses what it did not sign or what was edited since."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._knows_all = True
        """Whether everything that was said is known: a reply of raw events may hold thinking that nobody read here."""

    def note(self, reply: Reply) -> None:
        """Remember the thinking of a reply that goes out."""
        if not isinstance(reply, Answer):
            self._knows_all = False
            return
        for part in reply.parts:
            if isinstance(part, Thinking) and part.signature:
                self._texts[part.signature] = "".join(part.fragments)
            elif isinstance(part, Redacted):
                self._texts[part.data] = ""

    def complaint(self, body: Mapping[str, Any]) -> str | None:
        """Return why a request of the Messages API is refused, or None. Nothing is, before anything was signed."""
        for kind, signature, text in _thinking(body):
            known = self._texts.get(signature)
            if known != text and (known is not None or (self._texts and self._knows_all)):
                name = "signature" if kind == "thinking" else "data"
                return f"messages: Invalid `{name}` in `{kind}` block"
        return None


def _thinking(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield type, signature and text of each block of thinking in a history that `check_history` accepted."""
    for message in body["messages"]:
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            if block["type"] == "thinking":
                yield "thinking", block["signature"], block["thinking"]
            elif block["type"] == "redacted_thinking":
                yield "redacted_thinking", block["data"], ""
