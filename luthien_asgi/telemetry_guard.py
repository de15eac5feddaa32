"""Telemetry that fails harms nobody: what a telemetry of the user's own raises goes to the log, once for each kind of failure.

Strategy: the telemetry that the middleware is given, and what it gives, are called from here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from luthien_asgi.context import NullObservability, ObservabilityContext, SpanScope
from luthien_asgi.logs import logger_of
from luthien_asgi.telemetry import NullTelemetry, Telemetry

__all__ = ["GuardedTelemetry"]

_log: Final = logger_of(__name__)
_TOLD: Final = 100
"""Kinds of failure that are remembered as told."""


class GuardedTelemetry:
    """A telemetry whose failures are logged and go no further."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._told: set[tuple[str, str]] = set()

    def begin(
        self,
        *,
        transaction_id: str,
        name: str = "luthien.transaction",
        attributes: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ObservabilityContext:
        """Begin a transaction's observability; one that does nothing where the telemetry fails."""
        if isinstance(self._telemetry, NullTelemetry):
            return NullObservability()
        try:
            given = self._telemetry.begin(transaction_id=transaction_id, name=name, attributes=attributes, headers=headers)
        except Exception as error:
            self.tell("begin", error)
            return NullObservability()
        return given if isinstance(given, NullObservability) else _Guarded(given, self.tell)

    def tell(self, what: str, error: Exception) -> None:
        """Log a failure, unless one like it was logged."""
        kind = (what, type(error).__name__)
        if kind in self._told or len(self._told) >= _TOLD:
            return
        self._told.add(kind)
        # Not `exception`: what telemetry says of its values may have content in it.
        _log.error("the telemetry failed in %s: %s; this is said once", *kind)


class _Guarded:
    """One transaction's observability."""

    __slots__ = ("_obs", "_tell")

    def __init__(self, obs: ObservabilityContext, tell: Callable[[str, Exception], None]) -> None:
        self._obs, self._tell = obs, tell

    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> SpanScope:
        """Open a span."""
        return _Scope(lambda: self._obs.span(name, attributes), self._tell)

    def set(self, name: str, value: str | float | bool) -> None:
        """Set an attribute."""
        try:
            self._obs.set(name, value)
        except Exception as error:
            self._tell("set", error)

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event."""
        try:
            self._obs.event(name, attributes)
        except Exception as error:
            self._tell("event", error)

    def end(self, ending: str, *, error: str | None = None) -> None:
        """End the transaction's span."""
        try:
            self._obs.end(ending, error=error)
        except Exception as failure:
            self._tell("end", failure)


class _Scope:
    """A span for a `with` statement; it swallows nothing of what happens in it, whatever the telemetry's own would do."""

    __slots__ = ("_open", "_scope", "_tell")

    def __init__(self, open_: Callable[[], SpanScope], tell: Callable[[str, Exception], None]) -> None:
        self._open, self._tell = open_, tell
        self._scope: SpanScope | None = None

    def __enter__(self) -> object:
        try:
            scope = self._open()
            entered = scope.__enter__()
        except Exception as error:
            self._tell("span", error)
            return None
        self._scope = scope
        return entered

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        if self._scope is None:
            return
        try:
            self._scope.__exit__(exc_type, exc, traceback)
        except Exception as error:
            self._tell("span", error)
