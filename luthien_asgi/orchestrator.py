"""One answer from the backend to the client: two queues, two tasks, one response."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from luthien_asgi.chunks import Chunk
from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.disconnect import ClientConnection
from luthien_asgi.drain import Drain, ShutdownError
from luthien_asgi.executor import Opening, PolicyExecutor
from luthien_asgi.formatter import ClientFormatter
from luthien_asgi.queues import End, Failed, QueueBounds, StreamQueue, Terminal
from luthien_asgi.recorder import Transaction
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.stop_signals import server_stops
from luthien_asgi.wait_limit import WaitLimit

__all__ = ["PolicyOrchestrator"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


@dataclass(slots=True)
class _Outcome:
    terminal: Terminal | None = None
    begun: bool = False
    """Whether the response has begun."""
    sends: bool = False
    """Whether something is being sent: nobody knows how much of that leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOrchestrator:
    """Connects the executor and the formatter that it is given."""

    executor: PolicyExecutor
    formatter: ClientFormatter
    settings: StreamSettings
    drain: Drain = field(default_factory=Drain)

    async def stream(
        self,
        opening: Opening,
        connection: ClientConnection,
        *,
        scope: Scope,
        send: Send,
        headers: Mapping[str, str],
        ctx: PolicyContext,
        obs: ObservabilityContext,
        log: Transaction,
    ) -> Terminal | None:
        """Answer with a stream of server-sent events.

        Returns how the answer ended, or None when the client left or did not take it. Nothing is left behind: both tasks have
        ended and the backend is closed when this returns.
        """
        policy_out = StreamQueue[Chunk | Run](**self._bounds())
        sse_queue = StreamQueue[bytes](**self._bounds())
        outcome = _Outcome()
        process = self._process(opening, policy_out, ctx=ctx, obs=obs, log=log)
        try:
            async with asyncio.TaskGroup() as tasks:
                pipeline = (
                    tasks.create_task(process),
                    tasks.create_task(self.formatter.process(policy_out, sse_queue, obs=obs)),
                )
                with suppress(OSError):  # the client is gone, or did not read within `send_timeout`
                    await self._respond(sse_queue, outcome, log, headers=headers, connection=connection, scope=scope, send=send)
                if not isinstance(outcome.terminal, End):
                    for task in pipeline:
                        task.cancel()
        except asyncio.CancelledError:
            if outcome.begun and not outcome.sends and not connection.gone.is_set():
                await self._last_words(sse_queue, outcome, send)
            raise
        return outcome.terminal

    async def _last_words(self, frames: StreamQueue[bytes], outcome: _Outcome, send: Send) -> None:
        """Tell the client of a server that cancels its requests that the answer ends here, if that can be said at once."""
        last = [frame for frame in frames.take_ready() if isinstance(frame, bytes)]
        if outcome.terminal is None:
            last += self.formatter.last_frames(ShutdownError())
        with suppress(OSError, RuntimeError):
            async with asyncio.timeout(self.settings.close_timeout):
                await send({"type": "http.response.body", "body": b"".join(last), "more_body": False})

    async def collect(
        self, opening: Opening, *, ctx: PolicyContext, obs: ObservabilityContext, log: Transaction
    ) -> dict[str, Any]:
        """Return the whole answer as one body: the same stream, collected. Raises the `ApiError` that it failed with."""
        policy_out = StreamQueue[Chunk | Run](**self._bounds())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._process(opening, policy_out, ctx=ctx, obs=obs, log=log))
            try:
                collected: dict[str, Any] | Exception = await self.formatter.collect(policy_out, obs=obs)
            except Exception as error:
                collected = error
                task.cancel()
        if isinstance(collected, Exception):
            raise collected
        return collected

    def _process(
        self,
        opening: Opening,
        policy_out: StreamQueue[Chunk | Run],
        *,
        ctx: PolicyContext,
        obs: ObservabilityContext,
        log: Transaction,
    ) -> Coroutine[Any, Any, None]:
        """Return task 1, which the current task owns."""
        owner = asyncio.current_task()
        return self.executor.process(opening, policy_out, client=ctx.request.wire, ctx=ctx, obs=obs, log=log, owner=owner)

    async def _respond(
        self,
        frames: StreamQueue[bytes],
        outcome: _Outcome,
        log: Transaction,
        *,
        headers: Mapping[str, str],
        connection: ClientConnection,
        scope: Scope,
        send: Send,
    ) -> None:
        limit = WaitLimit()

        async def limited(message: Message) -> None:
            outcome.begun = outcome.sends = True
            with limit.of(self.settings.send_timeout):
                await send(message)
            outcome.sends = False

        try:
            await self._response(drain(frames, outcome, log, limited), headers)(scope, connection.receive, limited)
        except RuntimeError:
            # uvloop's word for a connection that the client has closed.
            if not connection.gone.is_set():
                raise
        finally:
            limit.close()

    def _bounds(self) -> QueueBounds:
        settings = self.settings
        return {"max_items": settings.queue_size, "max_bytes": settings.queue_bytes, "timeout": settings.queue_timeout}

    def _response(self, frames: AsyncIterator[bytes], headers: Mapping[str, str]) -> Callable[..., Awaitable[None]]:
        """Return the response. Its own pings are off: the formatter knows which shape is right when. So is its limit for what
        it sends: it sends nothing but the beginning and the end, and `send` has one. So is its end when the server stops, which
        is the executor's matter: all that is wanted of it is that it tells.
        """
        from sse_starlette import EventSourceResponse

        quieten_sse_log()
        told: Any = _Told(self.drain)  # an `anyio.Event`, as far as it is used
        response: Callable[..., Awaitable[None]] = EventSourceResponse(
            frames,
            headers=headers,
            sep="\n",
            ping=0,
            send_timeout=None,
            shutdown_event=told,
            shutdown_grace_period=math.inf,
        )
        return response


class _Told:
    """What sse-starlette sets when it finds that uvicorn stops, which a host that embeds the middleware may not tell us."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def set(self) -> None:
        """Begin to stop. What sse-starlette knows may be of a server that has ended, so the one that runs is looked at."""
        if server_stops():
            self._drain.begin()


async def drain(queue: StreamQueue[bytes], outcome: _Outcome, log: Transaction, send: Send) -> AsyncIterator[bytes]:
    """Send what is in the queue until its terminal item, which goes into `outcome`.

    It is the content of an `EventSourceResponse`, which begins and ends the response around it and sends what it yields. It
    yields nothing: frames are ready as they are, and the response's own way for an event costs more than sending it.
    """
    while not isinstance(item := await queue.get(), End | Failed):
        log.mark("first_byte")
        await send({"type": "http.response.body", "body": item, "more_body": True})
    outcome.terminal = item
    none: tuple[bytes, ...] = ()
    for frame in none:  # what makes this an async iterator
        yield frame


def quieten_sse_log() -> None:
    """Keep content out of the log: sse-starlette writes every frame to its own at DEBUG. A level that the host set stays."""
    logger = logging.getLogger("sse_starlette.sse")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
