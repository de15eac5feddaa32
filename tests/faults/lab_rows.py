"""What a row of the matrix is: one fault, and what each form of request has to come to under it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from luthien_asgi.testing import Answer, Text, ToolCall

if TYPE_CHECKING:
    from lab_cell import Cell, Seen

Wire = Literal["openai", "anthropic", "responses"]
WIRES: Final[tuple[Wire, ...]] = ("openai", "anthropic", "responses")
WORDS: Final = ("Oné ", "twó ", "thrée ", "fóur ", "fíve ", "síx ", "sevén.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one request has to come to."""

    status: frozenset[int] = frozenset({200})
    """0 is a connection that ended without a response."""
    ends: frozenset[str] = frozenset({"whole"})
    """`whole`, `error` (an error event after the first byte, or an error's body), `left` (the client did not wait for it),
    `server` (the server's own answer to what is no HTTP)."""
    ending: frozenset[str] = frozenset({"completed"})
    """Of the record; empty: there is none, for the request was refused before it was one. With "" in it there may be none."""
    calls: int | None = 1
    """How often the provider is asked; None where that is a race."""
    headers: tuple[tuple[str, str | None], ...] = ()
    """Headers of the response; None: it has no such header."""


WHOLE: Final = Want()
BROKEN: Final = Want(ends=frozenset({"error"}), ending=frozenset({"failed"}))
"""After the first byte: what was delivered stays, and then there is the error event."""
LEFT: Final = Want(status=frozenset({0, 200}), ends=frozenset({"left"}), ending=frozenset({"client_disconnected"}))


def refused(*status: int, calls: int | None = 1, headers: tuple[tuple[str, str | None], ...] = ()) -> Want:
    """Before the first byte: an error of this status."""
    return Want(status=frozenset(status), ends=frozenset({"error"}), ending=frozenset({"failed"}), calls=calls, headers=headers)


def unrecorded(*status: int) -> Want:
    """Refused before it is a transaction, so nothing is recorded and nobody is asked."""
    ends = frozenset({"left"}) if 0 in status else frozenset({"error"})
    return Want(status=frozenset(status), ends=ends, ending=frozenset(), calls=0)


def either(*wants: Want) -> Want:
    """What may come to one thing or another."""
    calls = {want.calls for want in wants}
    return Want(
        status=frozenset().union(*(want.status for want in wants)),
        ends=frozenset().union(*(want.ends for want in wants)),
        ending=frozenset().union(*(want.ending for want in wants)),
        calls=calls.pop() if len(calls) == 1 else None,
    )


def answer(*faults: Any, tool: bool = False, pace: float = 0.0) -> Answer:
    """Return the answer that most faults happen to: seven words, each with a character of two bytes."""
    calls = (ToolCall("call_1", "look", {"at": "it"}, cuts=(3, 6)),) if tool else ()
    return Answer(Text(*WORDS), *calls, faults=faults, pace=pace)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One fault."""

    name: str
    group: Literal["provider", "client", "policy", "recorder"]
    stream: Want | None = WHOLE
    """None: the fault makes no sense for this form."""
    whole: Want | None = None
    reply: Any = field(default_factory=answer)
    """What the provider says when it is asked for a stream."""
    reply_whole: Any = None
    """What it says when it is not; None is the same."""
    act: Callable[[Cell], Awaitable[Seen]] | None = None
    """What the client does; None is to ask and to read."""
    text: str = ""
    """What is in the request's text."""
    says: str | None = "".join(WORDS)
    """What a whole answer's text is, and every other one begins as; None where the fault is in the text."""
    route: str = "main"
    policied: bool = False
    alone: bool = False
    """It disturbs others in its process: it has that to itself."""
    only: frozenset[str] = frozenset(WIRES)
    at_server: tuple[tuple[str, Want], ...] = ()
    """What a server of this name makes of it, where that is another legal thing."""

    def want(self, server: str, *, stream: bool) -> Want | None:
        wanted = self.stream if stream else self.whole
        return None if wanted is None else dict(self.at_server).get(server, wanted)
