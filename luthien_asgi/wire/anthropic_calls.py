"""The tool calls of one answer on their way to an Anthropic client, which takes them one after the other."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.chunks import Part
from luthien_asgi.errors import StreamStateError
from luthien_asgi.wire.thought_signatures import for_anthropic_client
from luthien_asgi.wire.tool_calls import SERVER_TOOL_PREFIX

__all__ = ["Call", "Calls"]

_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
"""What the Anthropic API accepts as a tool_use id."""


@dataclass(slots=True, eq=False)
class Call:
    """One tool call."""

    source: int | None
    said_id: str
    id: str
    name: str
    custom: bool
    bounded: bool = False
    """Whether its provider says where it begins and ends."""
    event: Mapping[str, Any] | None = None
    """The provider's `content_block_start`."""
    parts: list[Part] = field(default_factory=list)
    state: str = "waiting"
    """`waiting`, then `open`, then `closed`."""
    _wrote: bool = False

    def add(self, part: Part) -> None:
        """Keep a part until the call's turn comes. Raises `StreamStateError` when that is over: it would be lost."""
        if self.state != "waiting":
            msg = f"a fragment of the tool call {self.id} came after its block had ended"
            raise StreamStateError(msg)
        if part.text:
            self.parts.append(part)

    def block(self) -> dict[str, Any]:
        """Return the `content_block` of its start; the input follows in deltas."""
        said = (self.event or {}).get("content_block") or {}
        return {**said, "type": "tool_use", "id": self.id, "name": self.name, "input": {}}

    def begin(self) -> list[Part]:
        """Say that its block is open; return the parts that waited."""
        self.state = "open"
        parts, self.parts = self.parts, []
        return parts

    def json(self, text: str) -> str:
        """Return a fragment of its arguments as a fragment of JSON: the text of a custom call becomes `{"input": text}`."""
        if not self.custom or not text:
            return text
        head = "" if self._wrote else '{"input":"'
        self._wrote = True
        return head + jsontext.dumps(text)[1:-1].decode()

    def end(self) -> str:
        """Say that its block ends; return the last fragment of JSON, or nothing."""
        self.state = "closed"
        if not self.custom:
            return ""
        return '"}' if self._wrote else '{"input":""}'


class Calls:
    """Knows which call a part belongs to, and which call's turn is next."""

    def __init__(self) -> None:
        self._by_source: dict[int | None, Call] = {}
        self._last: Call | None = None
        self._ids: set[str] = set()
        self.waiting: list[Call] = []
        """Calls whose block has not begun, in the order of their first appearance."""

    def opened(self, part: Part) -> Call:
        """Return a new call that its provider says begins now."""
        call = self._begin(part)
        call.bounded, call.event = True, part.event
        call.parts = [part._replace(event=None)] if part.text else []
        return call

    def take(self, part: Part) -> Call:
        """Return the call of a part; a new one waits for its turn."""
        known = self._last if part.source is None else self._by_source.get(part.source)
        if known is None or (part.id and part.id != known.said_id):
            known = self._begin(part)
            if not part.id.startswith(SERVER_TOOL_PREFIX):
                self.waiting.append(known)
        known.name = known.name or part.name
        return known

    def is_going(self, call: Call | None, part: Part) -> bool:
        """Tell whether a part that is a fragment of arguments goes on with this call as it is."""
        return call is not None and not call.custom and part.source is not None and self._by_source.get(part.source) is call

    def next(self, *, named: bool) -> Call | None:
        """Take the next call from those that wait; with `named` only if its name is known."""
        if not self.waiting or (named and not self.waiting[0].name):
            return None
        return self.waiting.pop(0)

    def _begin(self, part: Part) -> Call:
        call = Call(part.source, part.id, self._id(part.id), part.name, part.custom)
        self._by_source[part.source] = self._last = call
        return call

    def _id(self, said: str) -> str:
        said = for_anthropic_client(said)
        fits = _ID.fullmatch(said) and said not in self._ids
        found = said if fits else f"toolu_{secrets.token_hex(12)}"
        self._ids.add(found)
        return found
