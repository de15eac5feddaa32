"""Task 1: the backend's chunks through the policy into `policy_out`, ended by exactly one terminal item."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from luthien_asgi.answers import AnswerSteps
from luthien_asgi.backend.protocol import BackendStream, run_stream
from luthien_asgi.chunks import NO_PART, Chunk, ChunkFactory
from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.drain import Drain, ShutdownError
from luthien_asgi.errors import ApiError, BackendError, BackendTimeout, PolicyError
from luthien_asgi.extras_gate import ExtrasGate, gated_error
from luthien_asgi.hook_run import take_back
from luthien_asgi.hooks import HookCaller
from luthien_asgi.judging import Person
from luthien_asgi.logs import logger_of
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.queues import End, Failed, StreamQueue, Terminal
from luthien_asgi.recorder import Transaction
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.runs import Run
from luthien_asgi.samples import Samples, SampleSink, added
from luthien_asgi.settings import StreamSettings
from luthien_asgi.settling import Retake
from luthien_asgi.shadow import Shadows
from luthien_asgi.terms import Terms
from luthien_asgi.verdicts import Resample
from luthien_asgi.wait_limit import WaitLimit, WaitTimeout
from luthien_asgi.writer import ChunkMaker, QueueSink, Sink

__all__ = ["Opening", "PolicyExecutor", "as_failure"]

_log: Final = logger_of(__name__)
_TURN: Final = 128
"""Chunks that are taken in one turn of the event loop: a provider may put any number into one event."""


class Opening(Protocol):
    """An answer that is being opened, or is open already."""

    async def stream(self) -> BackendStream:
        """Wait for the backend's first event and return the stream, that event included. Raises `ApiError`."""
        ...

    def again(self, request: ChatRequest) -> Opening:
        """Begin another call in the place of this one. Raises `ApiError` for a request that cannot be sent."""
        ...

    async def aclose(self) -> None:
        """Close the backend's connection, also when it is not open yet. Bounded; may be called twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExecutor:
    """Runs policies over the answer of one transaction, and over those that it drops."""

    pipeline: Pipeline
    hooks: HookCaller
    make_chunk: ChunkFactory
    settings: StreamSettings
    wants_blocks: bool = True
    """Whether the record keeps the backend's blocks."""
    person: Person | None = None
    """Who is asked when a policy escalates."""
    shadows: Shadows = field(default_factory=Shadows)
    """What goes on beside the answer, and may outlive it."""
    drain: Drain = field(default_factory=Drain)
    """Who ends the answer when the server stops."""

    async def process(
        self,
        opening: Opening,
        policy_out: StreamQueue[Chunk | Run],
        *,
        client: WireName,
        ctx: PolicyContext,
        obs: ObservabilityContext,
        log: Transaction,
        owner: asyncio.Task[Any] | None = None,
    ) -> None:
        """Put what the policies let through into `policy_out`, then `End` or `Failed`. The backend is closed when this returns.

        Never raises but for cancellation: a failure is the terminal item. `owner` is the task that began this one and ends it:
        while nobody ends that one, who cancels this one is a policy.
        """
        run = _Run(self, opening, policy_out, client=client, ctx=ctx, log=log, owner=owner)
        terminal: Terminal = Failed(ShutdownError())
        try:
            with obs.span("luthien.policy.answer", {"luthien.policy": self.pipeline.name}):
                terminal = await run.to_the_end()
        except asyncio.CancelledError:
            if owner is None or owner.cancelling():
                raise
            terminal = Failed(PolicyError(f"The policy {self.pipeline.name} cancelled the work on the answer."))
        finally:
            run.close()
            # Whatever ended this task, who reads the queue is told: it would wait for ever.
            policy_out.end(Failed(gated_error(self.pipeline, terminal.error)) if isinstance(terminal, Failed) else terminal)
            if run.is_cancelled_by_policy:
                await take_back(run.task, 0)
            await run.opening.aclose()


class _Run:
    """One transaction's answer, or answers where policies have some dropped."""

    def __init__(
        self,
        executor: PolicyExecutor,
        opening: Opening,
        out: StreamQueue[Chunk | Run],
        *,
        client: WireName,
        ctx: PolicyContext,
        log: Transaction,
        owner: asyncio.Task[Any] | None,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self.task = task
        self._owner = owner
        self._executor = executor
        self._pipeline = executor.pipeline
        self._settings = executor.settings
        self.opening = opening
        self._client = client
        self._ctx = ctx
        self._log = log
        self._total = WaitLimit()
        self._patience = WaitLimit()
        self._make = ChunkMaker(
            executor.make_chunk, fallback_id=ctx.transaction_id, model=ctx.request.model, created=int(time.time())
        )
        self._adopted = False
        self._samples = Samples(ctx.request.model, limit=self._settings.resamples)
        queue = QueueSink(out, max_bytes=self._settings.answer_bytes)
        self._redrawn = SampleSink(queue, self._samples, holds=self._pipeline.holds_answer, settings=self._settings)
        self._sink: Sink = self._redrawn if self._pipeline.redraws else queue

    @property
    def is_cancelled_by_policy(self) -> bool:
        """Whether this task is cancelled, and its owner is not."""
        return self._owner is not None and not self._owner.cancelling() and self.task.cancelling() > 0

    def _require_uncancelled(self) -> None:
        """Raise what a policy has under way for this task: it would come when the finish reason has left."""
        if self.is_cancelled_by_policy:
            raise asyncio.CancelledError

    async def to_the_end(self) -> Terminal:
        while True:
            try:
                async with self._executor.drain.limit():
                    stream = await self.opening.stream()
            except Exception as error:
                return Failed(as_failure(error))
            outcome = await self._sample(stream)
            if not isinstance(outcome, Retake):
                return outcome
            try:
                async with self._executor.drain.limit():
                    await self._draw_again(outcome)
            except Exception as error:
                return Failed(as_failure(error))

    async def _sample(self, stream: BackendStream) -> Terminal | Retake:
        """Let one answer through all steps."""
        async with asyncio.TaskGroup() as judges:
            steps = AnswerSteps(
                self._pipeline,
                self._terms(judges),
                self._sink,
                tools_wait=self._client == "anthropic" and stream.wire != "anthropic",
                start=self._executor.shadows.start,
            )
            try:
                outcome = await self._pump(stream, steps, ExtrasGate(self._pipeline, self._log, self._ctx.request))
            finally:
                steps.abandon()
        self._log.backend_blocks += steps.partial_blocks()
        self._log.backend_blocks.sort(key=lambda block: (block.choice, block.index))
        return outcome

    def _terms(self, judges: asyncio.TaskGroup) -> Terms:
        return Terms(
            hooks=self._executor.hooks,
            make=self._make,
            ctx=self._ctx.of_sample(self._samples.dropped, self._samples.model),
            log=self._log,
            settings=self._settings,
            judges=judges,
            wants_blocks=self._executor.wants_blocks,
            person=self._executor.person,
            redraws=self._samples,
        )

    async def _draw_again(self, retake: Retake) -> None:
        """Drop this answer and ask for another one. Raises `ApiError`."""
        if self._samples.thinking_left:
            msg = "The answer was withheld by a policy after its thinking had left."
            raise PolicyError(msg)
        verdict, plan = retake.verdict, retake.plan
        if self._log.usage is None:
            self._log.note("a dropped answer ended before its provider told what it used: the usage is too low by that")
        writer = self._samples.model
        self._samples.drop(plan, verdict, self._log.usage)
        self._redrawn.drop()
        policy = plan.name if plan is not None else ""
        self._log.drop_sample(model=writer, policy=policy, verdict=type(verdict).__name__.lower())
        request = self._ctx.request
        if self._samples.model != request.model:
            request = request.with_model(self._samples.model)
        if isinstance(verdict, Resample) and verdict.instructions:
            request = request.with_instructions(verdict.instructions)
        previous = self.opening
        await previous.aclose()
        try:
            self.opening = previous.again(request)
        except ApiError as error:
            msg = f"The policy {policy} asked for another answer, and the request for it cannot be sent."
            raise PolicyError(msg) from error

    async def _pump(self, stream: BackendStream, steps: AnswerSteps, gate: ExtrasGate) -> Terminal | Retake:
        try:
            async with self._executor.drain.limit():
                with self._total.of_all(self._settings.total_timeout):
                    await self._read(stream, steps, gate)
                    self._require_uncancelled()
                    await steps.complete()
                    await self._redrawn.release()
        except Retake as retake:
            return retake
        except TimeoutError as error:
            if not (isinstance(error, WaitTimeout) and error.args == (self._total,)):
                return Failed(_internal())
            msg = "The answer took longer than the time it is given in all."
            return Failed(BackendTimeout(msg))
        except Exception as error:
            return Failed(as_failure(error))
        return End()

    def close(self) -> None:
        """Take the timer down, and note what all answers used, those that were dropped too, whether the client gets one."""
        self._patience.close()
        self._total.close()
        if self._samples.dropped:
            self._log.usage = added(self._samples.spent, self._log.usage or {})

    async def _read(self, stream: BackendStream, answer: AnswerSteps, gate: ExtrasGate) -> None:
        pass_plain = answer.pass_plain
        runs = run_stream(stream)
        read = runs.next_run if runs is not None else partial(anext, stream)
        taken = 0
        while not answer.stopped:
            item = runs.take_ready() if runs is not None else None
            if item is None:
                item = await self._next(read, answer)
            if item is None:
                return
            if isinstance(item, Run):
                await self._take_run(item, answer)
            else:
                self._adopt(item)
                if (taken := taken + 1) % _TURN == 0:
                    await asyncio.sleep(0)  # what came together may be much: the others have a turn
                if not pass_plain(item):
                    await answer.take(item if gate.open else gate.passed(item), NO_PART)

    async def _take_run(self, run: Run, answer: AnswerSteps) -> None:
        """Take a run as a whole where that can be done at once, else chunk by chunk. No gate has a say: it is its text alone."""
        if self._adopted and answer.takes_run(run):
            answer.put_run(run)
            return
        for place, chunk in enumerate(run.chunks()):
            if answer.stopped:
                return
            if place.bit_count() == 1 and answer.takes_run(rest := run.after(place)):
                answer.put_run(rest)  # a block's first chunks may have to go alone
                return
            self._adopt(chunk)
            if not answer.pass_plain(chunk):
                await answer.take(chunk, NO_PART)

    def _adopt(self, chunk: Chunk) -> None:
        if not self._adopted and (chunk.choices or chunk.id):
            self._make.adopt(chunk)
            self._adopted = True

    async def _next(self, read: Callable[[], Awaitable[Chunk | Run]], answer: AnswerSteps) -> Chunk | Run | None:
        """Return the backend's next chunk or run, or None at the end of its stream. After the finish only usage is waited for."""
        finished = answer.finished
        limit = self._settings.usage_timeout if finished else self._settings.stall_timeout
        try:
            with self._patience.of(limit):
                return await read()
        except StopAsyncIteration:
            return None
        except WaitTimeout:
            if finished:
                return None
            msg = "The provider was silent for too long."
            raise BackendTimeout(msg) from None


def _internal() -> ApiError:
    return ApiError("Internal error while the answer was processed.", status=500)


def as_failure(error: Exception) -> ApiError:
    """Return what the client is told about an exception; the details of an unexpected one go to the log only."""
    if isinstance(error, ApiError):
        if error.__cause__ is not None and not (error.is_logged or isinstance(error, BackendError)):
            _log.error("%s", error.message, exc_info=error.__cause__)
        return error
    _log.error("unexpected failure while an answer was processed", exc_info=error)
    return _internal()
