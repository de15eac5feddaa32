"""Task 1: the backend's chunks through the policy into `policy_out`, ended by exactly one terminal item."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from luthien_asgi.answer import Answer
from luthien_asgi.backend.protocol import BackendStream
from luthien_asgi.chunks import Chunk, ChunkFactory
from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.errors import ApiError, BackendError, BackendTimeout
from luthien_asgi.extras_gate import ExtrasGate, gated_error
from luthien_asgi.hooks import HookCaller, PolicyPlan
from luthien_asgi.queues import End, Failed, StreamQueue, Terminal
from luthien_asgi.recorder import Transaction
from luthien_asgi.request import WireName
from luthien_asgi.settings import StreamSettings
from luthien_asgi.writer import AnswerWriter

__all__ = ["Opening", "PolicyExecutor", "as_failure"]

_log: Final = logging.getLogger(__name__)


class Opening(Protocol):
    """An answer that is being opened, or is open already."""

    async def stream(self) -> BackendStream:
        """Wait for the backend's first event and return the stream, that event included. Raises `ApiError`."""
        ...

    async def aclose(self) -> None:
        """Close the backend's connection, also when it is not open yet. Bounded; may be called twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExecutor:
    """Runs one policy over answers. Holds configuration only."""

    plan: PolicyPlan
    hooks: HookCaller
    make_chunk: ChunkFactory
    settings: StreamSettings
    wants_blocks: bool = True
    """Whether the record keeps the backend's blocks."""

    async def process(
        self,
        opening: Opening,
        policy_out: StreamQueue[Chunk],
        *,
        client: WireName,
        ctx: PolicyContext,
        obs: ObservabilityContext,
        log: Transaction,
    ) -> None:
        """Put what the policy lets through into `policy_out`, then `End` or `Failed`. The backend is closed when this returns.

        Never raises but for cancellation: a failure is the terminal item.
        """
        terminal: Terminal = Failed(_internal())
        try:
            with obs.span("luthien.policy.answer", {"luthien.policy": self.plan.name}):
                terminal = await self._run(opening, policy_out, client, ctx, log)
        finally:
            # Whatever ended this task, who reads the queue is told: it would wait for ever.
            policy_out.end(Failed(gated_error(self.plan, terminal.error)) if isinstance(terminal, Failed) else terminal)
            await opening.aclose()

    async def _run(
        self, opening: Opening, out: StreamQueue[Chunk], client: WireName, ctx: PolicyContext, log: Transaction
    ) -> Terminal:
        try:
            stream = await opening.stream()
        except Exception as error:
            return Failed(as_failure(error))
        writer = AnswerWriter(
            out,
            make_chunk=self.make_chunk,
            fallback_id=ctx.transaction_id,
            model=ctx.request.model,
            created=int(time.time()),
            max_bytes=self.settings.answer_bytes,
        )
        async with asyncio.TaskGroup() as judges:
            answer = Answer(
                self.plan,
                hooks=self.hooks,
                writer=writer,
                ctx=ctx,
                log=log,
                settings=self.settings,
                tools_wait=self._tools_wait(client, stream.wire),
                wants_blocks=self.wants_blocks,
                judges=judges,
            )
            terminal = await self._pump(stream, answer, writer, ExtrasGate(self.plan, log))
            answer.cancel_judges()
        log.backend_blocks += answer.partial_blocks()
        log.backend_blocks.sort(key=lambda block: (block.choice, block.index))
        return terminal

    def _tools_wait(self, client: WireName, backend: WireName) -> bool:
        """Whether tool calls leave at the end of the answer, so that no text ever follows one that has left.

        Always where a policy may put a message before them, and where an Anthropic client's answer comes from the other wire:
        there text after a tool call is legal, and a history with it would be refused by Anthropic for ever after.
        """
        return self.plan.may_speak or (client == "anthropic" and backend != "anthropic")

    async def _pump(self, stream: BackendStream, answer: Answer, writer: AnswerWriter, gate: ExtrasGate) -> Terminal:
        total = asyncio.timeout(self.settings.total_timeout)
        try:
            async with total:
                await self._read(stream, answer, writer, gate)
                await answer.complete()
        except TimeoutError:
            if not total.expired():
                return Failed(_internal())
            msg = "The answer took longer than the time it is given in all."
            return Failed(BackendTimeout(msg))
        except Exception as error:
            return Failed(as_failure(error))
        return End()

    async def _read(self, stream: BackendStream, answer: Answer, writer: AnswerWriter, gate: ExtrasGate) -> None:
        first = True
        take_ready: Callable[[], Chunk | None] = getattr(stream, "take_ready", _nothing)
        while not answer.stopped:
            # What is there already needs no deadline: setting one costs more than all else that is done here for a chunk.
            chunk = take_ready()
            if chunk is None:
                chunk = await self._next(stream, answer)
            if chunk is None:
                return
            if first and (chunk.choices or chunk.id):
                writer.adopt(chunk)
                first = False
            if not answer.pass_plain(chunk):
                await answer.take(chunk if gate.open else gate.passed(chunk))

    async def _next(self, stream: BackendStream, answer: Answer) -> Chunk | None:
        """Return the backend's next chunk, or None at the end of its stream. After the finish only the usage is waited for."""
        finished = answer.finished
        limit = self.settings.usage_timeout if finished else self.settings.stall_timeout
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                return await anext(stream)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            if not deadline.expired():
                raise
            if finished:
                return None
            msg = "The provider was silent for too long."
            raise BackendTimeout(msg) from None


def _nothing() -> None:
    """Stand in for the `take_ready` of a stream that has none."""


def _internal() -> ApiError:
    return ApiError("Internal error while the answer was processed.", status=500)


def as_failure(error: Exception) -> ApiError:
    """Return what the client is told about an exception; the details of an unexpected one go to the log only."""
    if isinstance(error, ApiError):
        if error.__cause__ is not None and not isinstance(error, BackendError):
            _log.error("%s", error.message, exc_info=error.__cause__)
        return error
    _log.error("unexpected failure while an answer was processed", exc_info=error)
    return _internal()
