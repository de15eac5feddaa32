"""What belongs to one transaction, created by the middleware and handed through to the very end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from luthien_asgi.chunks import Chunk
    from luthien_asgi.request import ChatRequest

__all__ = ["NullObservability", "ObservabilityContext", "PolicyContext", "StreamContext"]

_State = TypeVar("_State")


@dataclass(slots=True, kw_only=True)
class PolicyContext:
    """One transaction as a policy sees it."""

    transaction_id: str
    request: ChatRequest
    """The request as it stands: as received in `on_request`, as sent to the backend afterwards."""
    client: str = ""
    """The name of the client's key in the configuration; never the key."""
    scratchpad: dict[str, Any] = field(default_factory=dict)
    """Free space for the policies of this transaction."""
    _states: dict[type[Any], Any] = field(default_factory=dict)

    def state(self, of: Callable[[], _State] | type[_State]) -> _State:
        """Return this transaction's object of a class, made without arguments the first time it is asked for."""
        key: Any = of
        if key not in self._states:
            self._states[key] = of()
        found: _State = self._states[key]
        return found


@dataclass(slots=True, kw_only=True)
class StreamContext(PolicyContext):
    """A transaction while its answer streams."""

    keepalive: Callable[[], None]
    """Say that the hook is at work: its `policy_timeout` starts anew. Nothing goes over the wire because of it."""
    text: Callable[[str], Chunk]
    """Make a text chunk with the identity of this stream, for the block that the hook is about."""

    @classmethod
    def of(cls, ctx: PolicyContext, *, keepalive: Callable[[], None], text: Callable[[str], Chunk]) -> Self:
        """Return the streaming view of a transaction: the same scratchpad and states, not copies."""
        return cls(
            transaction_id=ctx.transaction_id,
            request=ctx.request,
            client=ctx.client,
            scratchpad=ctx.scratchpad,
            _states=ctx._states,  # noqa: SLF001 - the same class hierarchy
            keepalive=keepalive,
            text=text,
        )


class ObservabilityContext(Protocol):
    """Spans and metrics of one transaction. Nothing is called once a chunk."""

    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> SpanScope:
        """Open a span for a `with` statement, child of the transaction's."""
        ...

    def set(self, name: str, value: str | float | bool) -> None:
        """Set an attribute of the transaction's span."""
        ...

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event to the transaction's span."""
        ...

    def end(self, ending: str, *, error: str | None = None) -> None:
        """End the transaction's span. Called exactly once; `error` is an error type, never a message."""
        ...


class SpanScope(Protocol):
    """A span that lasts as long as its `with` block."""

    def __enter__(self) -> object: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...


class _NullSpan:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class NullObservability:
    """Observability that does nothing: the default where OpenTelemetry is not installed."""

    _span = _NullSpan()

    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> SpanScope:
        """Return a scope that does nothing."""
        del name, attributes
        return self._span

    def set(self, name: str, value: str | float | bool) -> None:
        """Do nothing."""

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Do nothing."""

    def end(self, ending: str, *, error: str | None = None) -> None:
        """Do nothing."""


def now() -> float:
    """Return the wall-clock time in seconds since 1970, for records."""
    return time.time()
