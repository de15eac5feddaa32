"""What both conversions of requests share: the draft that is written, and the walk over the table of parameters.

Strategy: the table in `wire.parameters` decides what becomes of a parameter. Only for rows that say *mapped* is there a
function, and it is found by the parameter's name; the walk knows no parameter itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, assert_never

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.parameters import PARAMETERS, Fate

__all__ = ["Converted", "Draft", "Handler", "inexpressible", "unconverted", "walk"]

_WORDS: Final = {"openai": "an OpenAI", "anthropic": "an Anthropic"}


@dataclass(frozen=True, slots=True)
class Converted:
    """A request in the backend's format."""

    params: dict[str, Any]
    """The fields of its body."""
    ignored: tuple[str, ...] = ()
    """What was left out with notice: names of ours, never the client's words."""
    droppable: Mapping[str, str] = field(default_factory=dict)
    """Fields of `params` that may be left out for a model that does not know them, and what the notice names then."""


@dataclass(slots=True)
class Draft:
    """One conversion while it is under way."""

    request: ChatRequest
    params: dict[str, Any] = field(default_factory=dict)
    notices: dict[str, None] = field(default_factory=dict)
    droppable: dict[str, str] = field(default_factory=dict)

    def ignore(self, name: str) -> None:
        """Note that something was left out; naming it twice is naming it once."""
        self.notices[name] = None

    def done(self) -> Converted:
        """Return the finished conversion."""
        droppable = {name: notice for name, notice in self.droppable.items() if name in self.params}
        return Converted(self.params, tuple(self.notices), droppable)


Handler = Callable[[Draft, Any], None]


def inexpressible(param: str, why: str) -> NoReturn:
    """Raise the 400 for what the backend's format has no words for."""
    raise RequestError(
        f"{param} cannot be expressed for this model's provider: {why}.", param=param, code="unsupported_parameter"
    )


def unconverted(request: ChatRequest) -> Converted:
    """Return a request of the backend's own format as it is."""
    return Converted(dict(request.body))


def walk(draft: Draft, handlers: Mapping[str, Handler], *, carry: frozenset[str] = frozenset()) -> None:
    """Do with every parameter of the request what its row says; those in `carry` are carried though the row refuses them."""
    rows = PARAMETERS[draft.request.wire]
    for name, value in draft.request.body.items():
        row = rows.get(name)
        if row is None:
            inexpressible(name, "it is not a known parameter")
        if not row.is_neutral(value):
            fate = Fate.CARRIED if name in carry else row.fate
            if fate is Fate.REFUSED and row.harmless(value):
                fate = Fate.IGNORED
            _settle(draft, name, value, fate, handlers, row.note)


def _settle(draft: Draft, name: str, value: Any, fate: Fate, handlers: Mapping[str, Handler], note: str) -> None:  # noqa: ANN401
    match fate:
        case Fate.CARRIED:
            draft.params[name] = value
        case Fate.MAPPED:
            handlers[name](draft, value)
        case Fate.IGNORED:
            draft.ignore(name)
        case Fate.REFUSED:
            inexpressible(name, note)
        case Fate.HANDLED:
            pass
        case _:
            assert_never(fate)
