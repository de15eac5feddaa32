"""Spans and metrics of a transaction, over the OpenTelemetry API where it is installed.

One transaction is one span, `luthien.transaction`: INTERNAL, because the HTTP server span is the host's. Its parent is the host's
active span, or what the request's W3C `traceparent` names. Its children are opened with `ObservabilityContext.span`: a span whose
attributes name a `gen_ai.operation.name` is the backend call (CLIENT, called `chat <model>`), all others are INTERNAL.

Strategy: parents are passed explicitly and nothing is attached to a task's context, because a transaction's work happens in
several tasks. No span and no event a chunk. Neither content nor credentials: attributes that carry content by their name are
dropped, texts and names are scrubbed and cut, of an exception only its type is kept. The names stand in `telemetry_names`.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from luthien_asgi.context import NullObservability, ObservabilityContext
from luthien_asgi.errors import ApiError
from luthien_asgi.scrub import scrub
from luthien_asgi.telemetry_names import (
    ACTION_DIMENSIONS,
    CALL_DIMENSIONS,
    CONTENT,
    ENDING,
    ERROR_TYPE,
    HOOK_DIMENSIONS,
    INPUT_TOKENS,
    LOOP_BLOCK,
    OPERATION,
    OUTPUT_TOKENS,
    POLICY_ABANDONED,
    POLICY_ACTION,
    SECONDS,
    TOKENS,
    TRANSACTION,
    TRANSACTION_ID,
    backend_attributes,
    report_end,
    usage_attributes,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = [
    "NullTelemetry",
    "OpenTelemetry",
    "Telemetry",
    "backend_attributes",
    "default_telemetry",
    "open_telemetry",
    "report_end",
    "usage_attributes",
]

_LONGEST_TEXT: Final = 256
_API: Final = ("opentelemetry.metrics", "opentelemetry.trace")

# --- the object the middleware is given ------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Begins the observability of each transaction. One object serves all requests."""

    def begin(
        self,
        *,
        transaction_id: str,
        name: str = TRANSACTION,
        attributes: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ObservabilityContext:
        """Begin a transaction's span. `headers` are the request's, read for W3C trace context and nothing else."""
        ...


class NullTelemetry:
    """Telemetry that does nothing."""

    def begin(
        self,
        *,
        transaction_id: str,
        name: str = TRANSACTION,
        attributes: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ObservabilityContext:
        """Return a context that does nothing."""
        del transaction_id, name, attributes, headers
        return NullObservability()


def default_telemetry() -> Telemetry:
    """Return telemetry over OpenTelemetry where its API is installed, else one that does nothing."""
    try:
        return open_telemetry()
    except ImportError:
        return NullTelemetry()


def open_telemetry(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> OpenTelemetry:
    """Return telemetry over the OpenTelemetry API, with the given providers or the process's own.

    Raises `ImportError`, saying what to install, where the API is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        msg = "OpenTelemetry is not installed: pip install 'luthien-asgi[otel]', or pass telemetry=NullTelemetry()"
        raise ImportError(msg) from error
    tracer = trace.get_tracer("luthien_asgi", tracer_provider=tracer_provider)
    meter = metrics.get_meter("luthien_asgi", meter_provider=meter_provider)
    is_process_wide = tracer_provider is None and meter_provider is None
    return OpenTelemetry(tracer, meter=meter, is_idle=_nobody_listens if is_process_wide else None)


def _nobody_listens() -> bool:
    """Tell whether the process has no providers (yet) but the API's own, which do nothing."""
    from opentelemetry import metrics, trace

    providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
    return all(type(provider).__module__.startswith(_API) for provider in providers)


class OpenTelemetry:
    """Telemetry over the OpenTelemetry API; made by `open_telemetry`. While `is_idle`, transactions are not told."""

    def __init__(self, tracer: Tracer, *, meter: Meter, is_idle: Callable[[], bool] | None = None) -> None:
        self._tracer = tracer
        self._metrics = _Instruments(meter)
        self._is_idle = is_idle

    def begin(
        self,
        *,
        transaction_id: str,
        name: str = TRANSACTION,
        attributes: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ObservabilityContext:
        """Begin a transaction's span, child of the active span or of what the request's `traceparent` names."""
        if self._is_idle is not None and self._is_idle():
            return NullObservability()
        given = _clean({**(attributes or {}), TRANSACTION_ID: transaction_id})
        span = self._tracer.start_span(_name(name), context=_parent(headers or {}), attributes=given)
        return _Observability(self._tracer, self._metrics, span, given)


def _parent(headers: Mapping[str, str]) -> Context | None:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if trace.get_current_span().get_span_context().is_valid:
        return None
    carrier = {name.lower(): value for name, value in headers.items() if name.lower() in {"traceparent", "tracestate"}}
    return TraceContextTextMapPropagator().extract(carrier)


class _Instruments:
    def __init__(self, meter: Meter) -> None:
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Duration of the backend call, to its last chunk.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of the backend call.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self.request = meter.create_histogram(
            "gen_ai.server.request.duration",
            unit="s",
            description="Duration of the transaction as the client sees it; less the backend call, it is what policies cost.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.actions = meter.create_counter(
            "luthien.policy.actions", unit="{action}", description="Verdicts, and what was enforced."
        )
        self.abandoned = meter.create_counter(
            POLICY_ABANDONED, unit="{hook}", description="Hooks that did not end when they were cancelled, and were given up."
        )
        self.blocks = meter.create_counter(
            "luthien.loop.blocks", unit="{block}", description="Standstills of the event loop, by the hook that blocked it."
        )
        self.terminations = meter.create_counter(
            "luthien.stream.terminations", unit="{transaction}", description="Transactions, by how they ended."
        )


class _Observability:
    """One transaction's spans and metrics. What is set under `gen_ai.` goes to the open backend call too."""

    def __init__(self, tracer: Tracer, metrics: _Instruments, span: Span, attributes: dict[str, Any]) -> None:
        self._tracer, self._metrics, self._span = tracer, metrics, span
        self._known = {OPERATION: "chat", **attributes}
        self._calls: list[Span] = []
        self._began = time.monotonic()
        self._ended = False

    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> _Scope:
        return _Scope(self, name, _clean(attributes or {}))

    def set(self, name: str, value: str | float | bool) -> None:
        for key, cleaned in _clean({name: value}).items():
            self._known[key] = cleaned
            for span in (self._span, *(self._calls if key.startswith("gen_ai.") else ())):
                span.set_attribute(key, cleaned)

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        cleaned = _clean(attributes or {})
        self._span.add_event(_name(name), cleaned)
        if name == POLICY_ACTION:
            self._metrics.actions.add(1, _picked(cleaned, ACTION_DIMENSIONS))
        elif name == POLICY_ABANDONED:
            self._metrics.abandoned.add(1, _picked(cleaned, HOOK_DIMENSIONS))
        elif name == LOOP_BLOCK:
            self._metrics.blocks.add(1, _picked(cleaned, HOOK_DIMENSIONS))

    def end(self, ending: str, *, error: str | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        outcome = _clean({ENDING: ending} | ({ERROR_TYPE: error} if error else {}))
        self._span.set_attributes(outcome)
        if ending == "failed":
            _mark_failed(self._span)
        self._span.end()
        self._count(outcome)

    def begin_call(self, span: Span, attributes: dict[str, Any]) -> None:
        self._known |= attributes
        self._calls.append(span)

    def end_call(self, span: Span, seconds: float, error: str | None) -> None:
        self._calls.remove(span)
        outcome = {ERROR_TYPE: error} if error else {}
        self._metrics.duration.record(seconds, _picked(self._known, CALL_DIMENSIONS) | outcome)

    def start_child(self, name: str, attributes: dict[str, Any]) -> Span:
        from opentelemetry.trace import SpanKind, set_span_in_context

        kind = SpanKind.CLIENT if OPERATION in attributes else SpanKind.INTERNAL
        return self._tracer.start_span(_name(name), context=set_span_in_context(self._span), kind=kind, attributes=attributes)

    def _count(self, outcome: dict[str, Any]) -> None:
        call = _picked(self._known, CALL_DIMENSIONS)
        self._metrics.terminations.add(1, {"reason": outcome[ENDING]} | _picked(outcome, (ERROR_TYPE,)))
        self._metrics.request.record(time.monotonic() - self._began, call | _picked(outcome, (ERROR_TYPE,)))
        for name, kind in ((INPUT_TOKENS, "input"), (OUTPUT_TOKENS, "output")):
            if name in self._known:
                self._metrics.tokens.record(self._known[name], call | {"gen_ai.token.type": kind})


class _Scope:
    """A child span for a `with` statement; `set` adds an attribute while it is open."""

    def __init__(self, obs: _Observability, name: str, attributes: dict[str, Any]) -> None:
        self._obs, self._name, self._attributes = obs, name, attributes
        self._is_call = OPERATION in attributes

    def __enter__(self) -> _Scope:
        self._began = time.monotonic()
        self._span = self._obs.start_child(self._name, self._attributes)
        if self._is_call:
            self._obs.begin_call(self._span, self._attributes)
        return self

    def set(self, name: str, value: str | float | bool) -> None:
        self._span.set_attributes(_clean({name: value}))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        problem = _error_type(error)
        if problem is not None:
            self._span.set_attribute(ERROR_TYPE, problem)
            _mark_failed(self._span)
        elif error is not None:
            self._span.set_attribute("luthien.cancelled", True)
        self._span.end()
        if self._is_call:
            self._obs.end_call(self._span, time.monotonic() - self._began, problem)


def _error_type(error: BaseException | None) -> str | None:
    """Return what to call an exception: an API error's type, else its class; None for a cancellation, which is no error."""
    if error is None or isinstance(error, CancelledError | GeneratorExit):
        return None
    return scrub(error.type) if isinstance(error, ApiError) else type(error).__qualname__


def _mark_failed(span: Span) -> None:
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)


def _picked(attributes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: attributes[name] for name in names if name in attributes}


def _clean(attributes: Mapping[str, Any]) -> dict[str, Any]:
    cleaned = {_name(name): _value(value) for name, value in attributes.items() if name.rpartition(".")[2] not in CONTENT}
    return {name: value for name, value in cleaned.items() if value is not None}


@lru_cache(maxsize=512)
def _name(name: str) -> str:
    """Return the name of a span, an event or an attribute: as a rule one of ours, and always the same few."""
    return scrub(name[:_LONGEST_TEXT])


def _value(value: object) -> str | float | bool | list[str] | None:
    """Return a value that a span can hold, or None: a mapping or bytes would be content."""
    if isinstance(value, str):
        return scrub(value[:_LONGEST_TEXT])
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [scrub(str(item)[:_LONGEST_TEXT]) for item in value if isinstance(item, str | int)]
    return None
