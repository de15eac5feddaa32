"""The tool calls of one choice, numbered 0, 1, 2 … as an OpenAI client counts them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.chunks import Part
from luthien_asgi.wire.joining import Addable

__all__ = ["SERVER_TOOL_PREFIX", "CallNumbers"]

SERVER_TOOL_PREFIX = "srvtoolu_"
"""Ids of tools that ran at the provider: a client that is shown one as a call would run it again."""
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class _Call:
    id: str
    custom: bool
    index: int | None = None
    """None until the opening has been sent: that waits for the call's name."""
    held: list[str] = field(default_factory=list)

    own: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    """Own fields that are sent once: the official SDK could not add them up."""
    sent: set[str] = field(default_factory=set)
    of_call: Addable = field(default_factory=Addable)
    of_body: Addable = field(default_factory=Addable)

    @property
    def ran_at_provider(self) -> bool:
        return self.id.startswith(SERVER_TOOL_PREFIX)

    def add(self, own: Mapping[str, Any]) -> None:
        """Keep the provider's own fields for the next entry."""
        for name, value in own.get("call", _NOTHING).items():
            if name in self.whole:
                continue
            if not self.of_call.take(name, value):
                if name in self.sent:
                    continue
                self.whole.add(name)
            self.sent.add(name)
            self.own[name] = value
        self.body |= {name: value for name, value in own.get("body", _NOTHING).items() if self.of_body.take(name, value)}

    def beside(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return an entry with what was kept for it."""
        if not (self.own or self.body):
            return entry
        kind = "custom" if self.custom else "function"
        made = {**self.own, **entry, kind: {**self.body, **entry[kind]}}
        self.own, self.body = {}, {}
        return made


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

    def entry(self, part: Part, own: Mapping[str, Any] = _NOTHING) -> dict[str, Any] | None:
        """Return the entry that a part gives, or None when there is nothing to tell yet.

        `own` are the provider's own fields: of the call (`call`), and of its function or custom tool (`body`).
        """
        call = self._known(part) or self._begin(part)
        if call.ran_at_provider:
            return None
        if own:
            call.add(own)
        if call.index is not None:
            return call.beside(_continuation(call, part.text)) if part.text or call.own or call.body else None
        call.held.append(part.text)
        return self._opening(call, part.name) if part.name else None

    def going(self, source: int | None) -> int | None:
        """Return the number of the call to which more arguments can be added as they are, or None where there is more to it."""
        call = self._by_source.get(source) if source is not None else None
        return None if call is None or call.custom or call.own or call.body or call.ran_at_provider else call.index

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
        return call.beside({"index": call.index, "id": call.id, "type": "custom" if call.custom else "function", **body})


def _continuation(call: _Call, text: str) -> dict[str, Any]:
    body = {"custom": {"input": text}} if call.custom else {"function": {"arguments": text}}
    return {"index": call.index, **body}
