"""The tool calls of one answer on their way to a Responses client, which gets them one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from luthien_asgi.chunks import Part
from luthien_asgi.request_items import given_tools, qualified_name
from luthien_asgi.wire.responses_free_text import Balance, free_text_of
from luthien_asgi.wire.responses_items import ARGUMENTS, INPUT, CallItem, Item
from luthien_asgi.wire.tool_calls import SERVER_TOOL_PREFIX

__all__ = ["Call", "Calls", "OpenItem"]


class _Offered(NamedTuple):
    """A tool as the client offered it."""

    name: str
    namespace: str
    custom: bool


def _offers(body: Mapping[str, Any]) -> dict[str, _Offered]:
    """Return what the client offered, by the name that the model knows."""
    found: dict[str, _Offered] = {}
    for _, tool in given_tools(body):
        namespace = tool.get("name") if tool.get("type") == "namespace" else None
        for named in tool.get("tools") or () if namespace is not None else (tool,):
            name = named.get("name")
            if isinstance(name, str):
                offered = _Offered(name, namespace or "", custom=named.get("type") == "custom")
                found[qualified_name(name, namespace)] = offered
    return found


@dataclass(slots=True, eq=False)
class Call:
    """One tool call."""

    said_id: str
    call_id: str
    name: str
    custom: bool
    """Whether its provider calls it with free text."""
    ended: bool = False
    """Whether its provider said that it is over."""
    state: str = "waiting"
    """`waiting`, then `open`, then `closed`."""
    waiting: list[str] = field(default_factory=list)
    empty: bool = True
    balance: Balance = field(default_factory=Balance)
    arguments: list[str] | None = None
    """Those of a call with JSON where the client's tool takes free text, which is known when they are whole."""

    @property
    def over(self) -> bool:
        """Whether nothing can follow. Of free text that is known only when its provider says so."""
        return self.ended or (not self.custom and self.balance.whole)

    @property
    def whole(self) -> bool:
        """Whether its arguments are whole."""
        return not self.custom and self.balance.whole

    def keep(self, fragment: str) -> bool:
        """Keep a fragment until the call's turn comes. Tell whether it could: what follows the whole arguments cannot be kept."""
        if self.state == "closed":
            return not fragment.strip()
        if fragment:
            self.waiting.append(fragment)
        return True

    def text(self, fragment: str) -> str:
        """Return what a fragment adds to what the client is sent."""
        self.empty = self.empty and not fragment
        self.balance.add(fragment)
        if self.arguments is None:
            return fragment
        self.arguments.append(fragment)
        return ""

    def last(self, *, complete: bool) -> str:
        """Say that it is written; return the last of its text. A complete call without arguments has the empty object."""
        self.state = "closed"
        if self.arguments is not None:
            return free_text_of("".join(self.arguments))
        return "{}" if complete and self.empty and not self.custom else ""


@dataclass(slots=True)
class OpenItem:
    """The item that is open."""

    item: Item
    call: Call | None = None
    ended: bool = False
    """Whether what follows belongs to another item, whatever it is."""
    thoughts: list[str] = field(default_factory=list)
    signable: bool = False
    """Whether it is thinking of a provider that signs it, and is not signed yet."""


class Calls:
    """Knows which call a part belongs to, and which call's turn is next."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._offers = _offers(body)
        self._by_source: dict[int | None, Call] = {}
        self._last: Call | None = None
        self._ids: set[str] = set()
        self.stem = ""
        """What an id is made of that the provider does not give."""
        self.waiting: list[Call] = []
        """Calls whose item has not begun, in the order of their first appearance."""

    def take(self, part: Part) -> Call | None:
        """Return the call of a part, None for one that ran at the provider; a new one waits for its turn."""
        known = self._last if part.source is None else self._by_source.get(part.source)
        if known is None or part.phase == "open" or (part.id and part.id != known.said_id):
            known = self._begin(part)
        known.name = known.name or part.name
        return None if known.said_id.startswith(SERVER_TOOL_PREFIX) else known

    def known(self, part: Part) -> Call | None:
        """Return the call that a part without content belongs to."""
        return self._last if part.source is None else self._by_source.get(part.source)

    def next(self, *, named: bool) -> Call | None:
        """Take the next call from those that wait; with `named` only if its name is known."""
        if not self.waiting or (named and not self.waiting[0].name):
            return None
        return self.waiting.pop(0)

    def item(self, call: Call) -> CallItem:
        """Return the item of a call that begins now, with the names that the client gave its tool."""
        call.state = "open"
        offered = self._offers.get(call.name, _Offered(call.name, "", call.custom))
        if offered.custom and not call.custom:
            call.arguments = []
        kind = INPUT if offered.custom or call.custom else ARGUMENTS
        return CallItem(kind, call.call_id, offered.name, offered.namespace)

    def _begin(self, part: Part) -> Call:
        call = Call(part.id, self._id(part.id), part.name, part.custom)
        self._by_source[part.source] = self._last = call
        if not part.id.startswith(SERVER_TOOL_PREFIX):
            self.waiting.append(call)
        return call

    def _id(self, said: str) -> str:
        found, count = said, len(self._ids)
        while not found or found in self._ids:
            found = f"call_{self.stem}_{count}"
            count += 1
        self._ids.add(found)
        return found
