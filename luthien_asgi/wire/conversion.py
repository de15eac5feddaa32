"""What both conversions of requests share: the draft that is written, and the walk over the table of parameters.

Strategy: the tables decide, `wire.parameters` about a parameter and `wire.parts_openai` or `wire.parts_anthropic` about what is
below it. Only for parameters that are *mapped* is there a function, found by the parameter's name, and it maps: what is refused,
ignored or not known was settled before it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, assert_never

from luthien_asgi.errors import RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.fates import Fate, Table
from luthien_asgi.wire.parameters import PARAMETERS
from luthien_asgi.wire.parts_anthropic import ANTHROPIC_PARTS
from luthien_asgi.wire.parts_openai import OPENAI_PARTS

__all__ = ["PARTS", "Converted", "Draft", "Handler", "inexpressible", "refuse_unknown", "unconverted", "walk"]

PARTS: Final[Mapping[str, Table]] = {"openai": OPENAI_PARTS, "anthropic": ANTHROPIC_PARTS}
"""What is below the parameters, by the client's format; the conversion of Responses requests looks for itself."""


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


def refuse_unknown(holder: Mapping[str, Any], known: frozenset[str], at: str) -> None:
    """Raise the 400 for a field that is not known, unless it is null."""
    for name, value in holder.items():
        if name not in known and value is not None:
            inexpressible(f"{at}.{name[:50]}", "it is not known here what it means")


def unconverted(request: ChatRequest) -> Converted:
    """Return a request of the backend's own format as it is."""
    return Converted(dict(request.body))


def walk(
    draft: Draft,
    handlers: Mapping[str, Handler],
    *,
    carry: frozenset[str] = frozenset(),
    keep: frozenset[str] = frozenset(),
) -> None:
    """Do with every parameter of the request what its row says, and with what is below it.

    Those in `carry` are carried though the row refuses them; of what is ignored, the names in `keep` are left to the handlers.
    Raises `RequestError` that names what is refused or not known.
    """
    rows = PARAMETERS[draft.request.wire]
    for name, value in draft.request.body.items():
        row = rows.get(name)
        if row is None:
            inexpressible(name, "it is not a known parameter")
        if not row.is_neutral(value):
            fate = Fate.CARRIED if name in carry else row.fate
            if fate is Fate.REFUSED and row.harmless(value):
                fate = Fate.IGNORED
            if fate is Fate.MAPPED:
                _settle_parts(draft, name, value, keep)
            _settle(draft, name, value, fate, handlers, row.note)


def _settle_parts(draft: Draft, name: str, value: Any, keep: frozenset[str]) -> None:  # noqa: ANN401
    table = PARTS.get(draft.request.wire)
    for found in table.survey(value, name, name) if table is not None else ():
        if found.row is None or found.row.fate is Fate.REFUSED:
            inexpressible(found.at, found.reason)
        if found.row.name not in keep:
            draft.ignore(found.row.name)


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
