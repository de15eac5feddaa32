"""What a transaction leaves behind: the record's shape, and the protocol of whoever keeps it.

A transaction gives two records with one id: `Begin` before the backend is called, `End` exactly once, whatever happened. In
between a `Transaction` collects what passes the two boundaries: what the backend said and what the client received. Blocks are
frozen values, so that a policy that edits in place cannot falsify what was said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from luthien_asgi.blocks import Block

__all__ = [
    "Begin",
    "DurableRecorder",
    "End",
    "Ending",
    "MemoryRecorder",
    "ModelCall",
    "NullRecorder",
    "SampleRecord",
    "Transaction",
    "TransactionRecorder",
    "VerdictRecord",
    "is_durable",
    "is_healthy",
    "wants_blocks",
]

Ending = Literal["completed", "stopped", "denied", "failed", "client_disconnected", "shutdown", "interrupted"]
"""How a transaction ended: `stopped` by a policy's verdict, `denied` before the backend was called, `interrupted` by the end of
its process, which is found and recorded by a later one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A transaction begins. Nothing has been sent to the backend yet."""

    id: str
    at: float
    """Seconds since 1970."""
    wire: str
    """The client's format: `openai` or `anthropic`."""
    path: str
    model: str
    stream: bool
    client: str
    """The name of the client's key in the configuration; never the key."""
    request: Mapping[str, Any]
    """The body as received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRecord:
    """What a policy said about one block (or the request), and what was done about it."""

    policy: str
    hook: str
    """The hook's name, or `approval` for what a person decided."""
    verdict: str
    """`allow`, `replace`, `resample`, `defer`, `escalate`, `deny`, `stop`, `error`, `timeout`, or `cancelled`: another policy's
    verdict made this one's needless."""
    action: str
    """What was done about the block, whoever wanted it: `allow`, `replace`, `resample`, `defer`, `deny`, `stop` or `fail`."""
    mode: str = "enforce"
    """`enforce`, or `shadow`: nothing was done because of this policy."""
    reason: str = ""
    kind: str = ""
    choice: int = 0
    index: int = 0
    tool: str = ""
    seconds: float = 0.0
    """How long the hook, or the person, took."""
    sample: int = 0
    """Which of the transaction's answers it was about, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """An answer that a policy had dropped: the client got nothing of it, or nothing but its text (`Policy.rest`)."""

    model: str
    """Who wrote it, as the configuration names it."""
    policy: str
    verdict: str
    """`resample` or `defer`."""
    sent: Mapping[str, Any] | None
    blocks: Sequence[Block]
    usage: Mapping[str, Any] | None
    finish_reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A call of a model by a policy."""

    policy: str
    model: str
    usage: Mapping[str, Any] | None
    seconds: float
    error: str = ""
    """The type of what went wrong, never its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A transaction ended."""

    id: str
    at: float
    ending: Ending
    status: int
    """The HTTP status that the client got; 0 when it left before one was sent."""
    error: Mapping[str, Any] | None
    """`{"type", "message", "code"}` of what the client was told."""
    sent: Mapping[str, Any] | None
    """The request as sent to the backend, without credentials; None when it was not called."""
    decoder: str
    """Who read the provider's stream: `openai`, `anthropic`, `litellm` or `body`; empty when none began."""
    ignored: Sequence[str]
    """Request fields that the backend has no counterpart for."""
    backend_blocks: Sequence[Block]
    final_blocks: Sequence[Block]
    verdicts: Sequence[VerdictRecord]
    usage: Mapping[str, Any] | None
    """What the client was told: of all samples together."""
    finish_reasons: Mapping[int, str]
    """By choice, in OpenAI's words, as the backend said them."""
    samples: Sequence[SampleRecord] = ()
    """Answers that were dropped before the one of `backend_blocks`, in their order."""
    calls: Sequence[ModelCall] = ()
    """What policies asked models; their usage is not in `usage`."""
    unchecked: Sequence[str] = ()
    """Policies that failed, and whose setting `on_error: pass` let through what they had not checked."""
    timings: Mapping[str, float]
    """Seconds since the transaction's begin: `backend_called`, `first_chunk`, `first_byte`, `backend_finished`, `end`."""
    notes: Sequence[str]
    """What else an operator should know: a fallback, lost headers, a notice text."""


@dataclass(slots=True)
class Transaction:
    """Collects one transaction between its two records. Made by the middleware, handed through, ended exactly once."""

    begin: Begin
    started: float = field(default_factory=time.monotonic)
    sent: Mapping[str, Any] | None = None
    decoder: str = ""
    ignored: list[str] = field(default_factory=list)
    backend_blocks: list[Block] = field(default_factory=list)
    final_blocks: list[Block] = field(default_factory=list)
    verdicts: list[VerdictRecord] = field(default_factory=list)
    usage: Mapping[str, Any] | None = None
    finish_reasons: dict[int, str] = field(default_factory=dict)
    samples: list[SampleRecord] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    status: int = 0

    def mark(self, name: str) -> None:
        """Note when something happened for the first time."""
        self.timings.setdefault(name, round(time.monotonic() - self.started, 6))

    def note(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self.notes:
            self.notes.append(text)

    def let_through(self, policy: str) -> None:
        """Note that something was let through which a policy failed to check."""
        if policy not in self.unchecked:
            self.unchecked.append(policy)

    def drop_sample(self, *, model: str, policy: str, verdict: str) -> None:
        """Put what is known of this answer aside: another one is asked for."""
        self.samples.append(
            SampleRecord(
                model=model,
                policy=policy,
                verdict=verdict,
                sent=self.sent,
                blocks=tuple(self.backend_blocks),
                usage=self.usage,
                finish_reasons=dict(self.finish_reasons),
            )
        )
        self.backend_blocks.clear()
        self.finish_reasons.clear()
        self.usage = None

    def end(self, ending: Ending, error: Mapping[str, Any] | None = None) -> End:
        """Return the record of the transaction's end."""
        self.mark("end")
        return End(
            id=self.begin.id,
            at=time.time(),
            ending=ending,
            status=self.status,
            error=error,
            sent=self.sent,
            decoder=self.decoder,
            ignored=tuple(self.ignored),
            backend_blocks=tuple(self.backend_blocks),
            final_blocks=tuple(self.final_blocks),
            verdicts=tuple(self.verdicts),
            usage=self.usage,
            finish_reasons=dict(self.finish_reasons),
            samples=tuple(self.samples),
            calls=tuple(self.calls),
            unchecked=tuple(self.unchecked),
            timings=dict(self.timings),
            notes=tuple(self.notes),
        )


class TransactionRecorder(Protocol):
    """Keeps records. Every transaction that `begin` accepted gets exactly one `end`.

    A recorder whose `begin` raises stops the transaction with a 503 before the backend is called: what cannot be recorded does
    not happen. What `end` raises is logged and changes nothing for the client. Both are cancelled after `record_timeout`.

    These four methods are enough. A recorder may have more to say: see `DurableRecorder`.
    """

    async def start(self) -> None:
        """Open what the recorder needs. Called once, before the first transaction."""
        ...

    async def begin(self, begin: Begin) -> None:
        """Keep the begin of a transaction; it is safe when this returns."""
        ...

    async def end(self, end: End) -> None:
        """Keep the end of a transaction; waits while there is no room, never drops."""
        ...

    async def aclose(self) -> None:
        """Write what is still in memory and close. May be called twice."""
        ...


class DurableRecorder(TransactionRecorder, Protocol):
    """A recorder that says more about itself. Each attribute may be left out, and is then as `is_durable` and so on say."""

    @property
    def wants_blocks(self) -> bool:
        """False when the blocks would be thrown away: then they are not even collected."""
        ...

    @property
    def durable(self) -> bool:
        """Whether an `end` is awaited before the client gets its answer's last frame (or its body).

        If such an `end` raises, or takes longer than `record_timeout` and is cancelled, the client gets an error instead, and
        `end` is called once more with that. Of the two the one that was kept first is the record; the other must not be.
        """
        ...

    @property
    def healthy(self) -> bool:
        """Whether the last write was one, or none was tried: while it is false the process is not ready."""
        ...


def is_durable(recorder: TransactionRecorder) -> bool:
    """Tell whether ends are to be recorded before answers end; not, unless the recorder says so."""
    return getattr(recorder, "durable", False) is True


def wants_blocks(recorder: TransactionRecorder) -> bool:
    """Tell whether the blocks are to be collected; yes, unless the recorder says that it throws them away."""
    return bool(getattr(recorder, "wants_blocks", True))


def is_healthy(recorder: TransactionRecorder) -> bool:
    """Tell whether a recorder can write; yes, unless it says that it cannot."""
    return bool(getattr(recorder, "healthy", True))


class NullRecorder:
    """Keeps nothing."""

    wants_blocks = False

    async def start(self) -> None:
        """Do nothing."""

    async def begin(self, begin: Begin) -> None:
        """Do nothing."""

    async def end(self, end: End) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""


class MemoryRecorder:
    """Keeps the records in two lists, for tests."""

    wants_blocks = True

    def __init__(self) -> None:
        self.begun: list[Begin] = []
        self.ended: list[End] = []

    async def start(self) -> None:
        """Do nothing."""

    async def begin(self, begin: Begin) -> None:
        """Append to `begun`."""
        self.begun.append(begin)

    async def end(self, end: End) -> None:
        """Append to `ended`."""
        self.ended.append(end)

    async def aclose(self) -> None:
        """Do nothing."""
