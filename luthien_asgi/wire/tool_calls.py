"""The tool calls of one choice, numbered 0, 1, 2 … as an OpenAI client counts them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from luthien_asgi.chunks import Part

__all__ = ["SERVER_TOOL_PREFIX", "CallNumbers"]

SERVER_TOOL_PREFIX = "srvtoolu_"
"""Ids of tools that ran at the provider: a client that is shown one as a call would run it again."""


@dataclass(slots=True)
class _Call:
    id: str
    custom: bool
    index: int | None = None
    """None until the opening has been sent: that waits for the call's name."""
    held: list[str] = field(default_factory=list)

    @property
    def ran_at_provider(self) -> bool:
        return self.id.startswith(SERVER_TOOL_PREFIX)


class CallNumbers:
    """Turns the parts of a choice's tool calls into entries of `delta.tool_calls`.

    A new id is a new call, also when the provider uses an index again; a part without an id belongs to the last call with its
    index. Id, type and name are in the first entry of a call and in no other.
    """

    def __init__(self) -> None:
        self._by_source: dict[int | None, _Call] = {}
        self._last: _Call | None = None
        self._unnamed: list[_Call] = []
        self.sent = 0
        """How many calls the client knows of."""

    def entry(self, part: Part) -> dict[str, Any] | None:
        """Return the entry that a part gives, or None when there is nothing to tell yet."""
        call = self._known(part) or self._begin(part)
        if call.ran_at_provider:
            return None
        if call.index is not None:
            return _continuation(call, part.text) if part.text else None
        call.held.append(part.text)
        return self._opening(call, part.name) if part.name else None

    def unnamed(self) -> list[dict[str, Any]]:
        """Return the entries of calls that never got a name: what their provider said is not lost."""
        calls, self._unnamed = list(self._unnamed), []
        return [self._opening(call, "") for call in calls]

    def _known(self, part: Part) -> _Call | None:
        if part.phase == "open":
            return None
        known = self._last if part.source is None else self._by_source.get(part.source)
        return None if known is not None and part.id and part.id != known.id else known

    def _begin(self, part: Part) -> _Call:
        call = _Call(part.id or f"call_{secrets.token_hex(12)}", part.custom)
        self._by_source[part.source] = self._last = call
        if not part.name and not call.ran_at_provider:
            self._unnamed.append(call)
        return call

    def _opening(self, call: _Call, name: str) -> dict[str, Any]:
        call.index = self.sent
        self.sent += 1
        if call in self._unnamed:
            self._unnamed.remove(call)
        text = "".join(call.held)
        body = {"custom": {"name": name, "input": text}} if call.custom else {"function": {"name": name, "arguments": text}}
        return {"index": call.index, "id": call.id, "type": "custom" if call.custom else "function", **body}


def _continuation(call: _Call, text: str) -> dict[str, Any]:
    body = {"custom": {"input": text}} if call.custom else {"function": {"arguments": text}}
    return {"index": call.index, **body}
