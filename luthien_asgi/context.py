"""What belongs to one transaction, created by the middleware and handed through to the very end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from luthien_asgi.errors import PolicyError

if TYPE_CHECKING:
    from luthien_asgi.chunks import Chunk
    from luthien_asgi.request import ChatRequest

__all__ = ["ModelAnswer", "ModelCaller", "NullObservability", "ObservabilityContext", "PolicyContext", "StreamContext"]

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
    """Free space that the policies of this transaction share."""
    sample: int = 0
    """How many answers of this transaction were dropped before the one that streams."""
    model: str = ""
    """Who writes this answer, as the configuration names it; empty before the backend is called."""
    _owner: object = None
    _states: dict[Any, Any] = field(default_factory=dict)
    _models: ModelCaller | None = None

    def state(self, of: Callable[[], _State] | type[_State]) -> _State:
        """Return this policy's object of a class for this transaction, made without arguments the first time it is asked for.

        What is made while an answer streams is gone when another answer is asked for; what `on_request` made stays.
        """
        key = (self._owner, of)
        if key not in self._states:
            self._states[key] = of()
        found: _State = self._states[key]
        return found

    async def ask(
        self, model: str, prompt: str, *, system: str = "", max_tokens: int = 1024, temperature: float | None = None
    ) -> ModelAnswer:
        """Ask a model of the configuration, without any policy; what it writes keeps the hook alive.

        Name the model in `Policy.asks` too, so that a missing one is found at the start. Raises `PolicyError` when it does not
        answer, and for a model that needs the client's own credential.
        """
        if self._models is None:
            msg = "There is no backend that a policy could ask."
            raise PolicyError(msg)
        return await self._models.ask(
            model, prompt, owner=self._owner, system=system, max_tokens=max_tokens, temperature=temperature
        )

    def of_sample(self, sample: int, model: str) -> PolicyContext:
        """Return the view of one answer: what is made in it is gone with it."""
        return replace(self, sample=sample, model=model, _states=dict(self._states))

    def of_policy(self, owner: object) -> PolicyContext:
        """Return the view of one policy, which has states of its own."""
        return replace(self, _owner=owner)


@dataclass(slots=True, kw_only=True)
class StreamContext(PolicyContext):
    """A transaction while its answer streams."""

    keepalive: Callable[[], None]
    """Say that the hook is at work: its `policy_timeout` starts anew. Nothing goes over the wire because of it."""
    text: Callable[[str], Chunk]
    """Make a text chunk with the identity of this stream, for the block that the hook is about."""

    @classmethod
    def of(cls, ctx: PolicyContext, *, keepalive: Callable[[], None], text: Callable[[str], Chunk], owner: object = None) -> Self:
        """Return the streaming view of a transaction for one policy: the same scratchpad and states, not copies."""
        return cls(
            transaction_id=ctx.transaction_id,
            request=ctx.request,
            client=ctx.client,
            scratchpad=ctx.scratchpad,
            sample=ctx.sample,
            model=ctx.model,
            _owner=owner,
            _states=ctx._states,  # noqa: SLF001 - the same class hierarchy
            _models=ctx._models,  # noqa: SLF001 - the same class hierarchy
            keepalive=keepalive,
            text=text,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """What a model said to a policy."""

    text: str
    model: str
    """The name it was asked by."""
    usage: Mapping[str, Any]
    """With OpenAI's names; empty where the provider told none."""


class ModelCaller(Protocol):
    """Asks a model for a policy."""

    async def ask(
        self, model: str, prompt: str, *, owner: object, system: str, max_tokens: int, temperature: float | None
    ) -> ModelAnswer:
        """Return what the model says. Raises `PolicyError` when it does not answer."""
        ...


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
