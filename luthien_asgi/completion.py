"""One recorded transaction: from the policy's look at the request to the end record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from luthien_asgi.backend.protocol import Target
from luthien_asgi.closing import Closing
from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.disconnect import ClientGoneError
from luthien_asgi.drain import Drain, ShutdownError
from luthien_asgi.escalating import DeskPerson
from luthien_asgi.executor import PolicyExecutor, as_failure
from luthien_asgi.formatter import ClientFormatter, FinalBlocks
from luthien_asgi.hooks import HookCaller
from luthien_asgi.opening import BackendOpening
from luthien_asgi.orchestrator import PolicyOrchestrator
from luthien_asgi.queues import End, Failed, Terminal
from luthien_asgi.recorder import Transaction, wants_blocks
from luthien_asgi.request import ChatRequest, api_of
from luthien_asgi.responses import send_json
from luthien_asgi.shadow import Shadows
from luthien_asgi.telemetry import backend_attributes
from luthien_asgi.wait_limit import limited

if TYPE_CHECKING:
    from luthien_asgi.exchange import Exchange

__all__ = ["Completion"]


@dataclass(slots=True)
class Completion:
    """One recorded transaction: from the policy's look at the request to the end record."""

    exchange: Exchange
    asked: ChatRequest
    """The request as received: what form the answer has is the client's matter, whatever a policy makes of the rest."""
    ctx: PolicyContext
    target: Target
    log: Transaction
    obs: ObservabilityContext
    shadows: Shadows = field(default_factory=Shadows)
    hooks: HookCaller = field(init=False)
    closing: Closing = field(init=False)

    def __post_init__(self) -> None:
        self.hooks = self.exchange.services.hooks.of(self.log, self.obs)
        self.closing = Closing(
            services=self.exchange.services,
            hooks=self.hooks,
            log=self.log,
            ctx=self.ctx,
            obs=self.obs,
            model=self.target.name,
            shadows=self.shadows,
        )

    async def to_the_end(self) -> None:
        """Run and record. Whatever happens, also cancellation, one end record is written."""
        with self.exchange.services.watchdog.telling(self.log, self.obs):
            await self._recorded()

    async def _recorded(self) -> None:
        try:
            async with self._drain.last():
                await self._watched()
            if self.closing.ending == "client_disconnected":
                await self.shadows.ended(0)
        except ShutdownError as error:
            await self._cut_off(error)
        except asyncio.CancelledError:
            await self._cut_off(ShutdownError())
            raise
        finally:
            await self.closing.written()

    @property
    def _drain(self) -> Drain:
        return self.exchange.services.drain

    async def _cut_off(self, error: ShutdownError) -> None:
        """Note that the answer was not let end; a client that got nothing is told, if it can be told at once."""
        await self.shadows.ended(0)
        self.closing.cut_off(error, gone=self.exchange.connection.gone.is_set())
        if not self.exchange.begun and self.closing.ending == "shutdown":
            self.log.status = error.status
            with suppress(OSError):
                async with asyncio.timeout(self.exchange.services.settings.close_timeout):
                    await self._conclude(Failed(error))
                    await self.exchange.send_error(error)

    async def _watched(self) -> None:
        bug: Exception | None = None
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self.exchange.connection.watch())
            try:
                await self._answered(tasks)
            except Exception as error:
                bug = error
            watcher.cancel()
        if bug is not None:
            raise bug

    async def _answered(self, tasks: asyncio.TaskGroup) -> None:
        try:
            await self._answer(tasks)
        except ClientGoneError:
            self.closing.leave("client_disconnected")
        except Exception as error:
            if self.exchange.begun:
                raise
            failure = as_failure(error)
            self.log.status = failure.status
            await self._conclude(Failed(failure))
            await self._hand_out(self.exchange.send_error(failure))

    async def _conclude(self, terminal: Terminal) -> None:
        """Settle how an answer that is no stream ends, before it leaves.

        Raises the `ApiError` that the client gets in place of a good one which could not be recorded.
        """
        if not self.closing.seals:
            self.closing.settle(terminal)
            return
        sealing = self.closing.seal(terminal)
        await asyncio.wait({sealing})
        told = sealing.result()
        if isinstance(told, Failed) and told is not terminal:
            raise told.error

    async def _answer(self, tasks: asyncio.TaskGroup) -> None:
        exchange, services = self.exchange, self.exchange.services
        judge = exchange.judge(self.ctx, self.log, self.shadows, self.hooks)
        if services.pipeline.sees_requests:
            with self.obs.span("luthien.policy.request"):
                async with self._drain.limit():
                    self.ctx.request = await exchange.connection.race(judge.before())
        model = self.ctx.request.model
        target = self.target if model == self.asked.model else services.backend.target(model)
        call = exchange.backend_call(self.ctx.request, target)
        opening = BackendOpening(
            services.backend,
            call,
            settings=services.settings,
            log=self.log,
            call_for=lambda request: exchange.backend_call(request, services.backend.target(request.model)),
            verdict=judge.beside if judge.has_concurrent else None,
        )
        request = self.ctx.request
        about = backend_attributes(provider=target.provider, model=target.name, stream=self.asked.stream, body=request.body)
        with self.obs.span(f"chat {target.name}", about):
            opening.start(tasks)
            try:
                await (self._stream(opening) if self.asked.stream else self._collect(opening))
            finally:
                await opening.aclose()

    async def _stream(self, opening: BackendOpening) -> None:
        exchange, settings = self.exchange, self.exchange.services.settings
        async with self._drain.limit():
            begun = await exchange.connection.race(opening.wait(settings.commit_after))
        if opening.error is not None:
            raise opening.error
        if not begun:
            self.log.note("the answer was begun before the provider's: its status and headers are lost")
        self.log.status = 200
        terminal = await self._orchestrator(late=not begun).stream(
            opening,
            exchange.connection,
            scope=exchange.scope,
            send=exchange.send,
            headers=self._headers(opening.headers),
            ctx=self.ctx,
            obs=self.obs,
            log=self.log,
        )
        self.closing.settle(terminal)

    async def _collect(self, opening: BackendOpening) -> None:
        work = self._orchestrator().collect(opening, ctx=self.ctx, obs=self.obs, log=self.log)
        body = await self.exchange.connection.race(work)
        self.log.status = 200
        self.log.mark("first_byte")
        await self._conclude(End())
        await self._hand_out(send_json(self.exchange.send, 200, body, self._headers(opening.headers)))

    async def _hand_out(self, sending: Awaitable[None]) -> None:
        """Send a whole response within `send_timeout`; a client that is gone or does not read is no error of ours."""
        try:
            with limited(self.exchange.services.settings.send_timeout):
                await sending
        except OSError:
            self.closing.leave("client_disconnected")

    def _orchestrator(self, *, late: bool = False) -> PolicyOrchestrator:
        exchange, services = self.exchange, self.exchange.services
        executor = PolicyExecutor(
            pipeline=services.pipeline,
            hooks=self.hooks,
            make_chunk=services.backend.make_chunk,
            settings=services.settings,
            wants_blocks=wants_blocks(services.recorder),
            person=DeskPerson(services.approvals, self.ctx) if services.approvals is not None else None,
            shadows=self.shadows,
            drain=services.drain,
        )
        encoder = exchange.wire.encoder(self.asked, settings=services.settings, id=exchange.id, created=exchange.created)
        final = FinalBlocks(self.log, wanted=wants_blocks(services.recorder))
        seal = self.closing.seal if self.asked.stream and self.closing.seals else None
        formatter = ClientFormatter(encoder=encoder, settings=services.settings, final=final, late=late, seal=seal)
        return PolicyOrchestrator(executor=executor, formatter=formatter, settings=services.settings, drain=services.drain)

    def _headers(self, backend: Mapping[str, str]) -> dict[str, str]:
        exchange = self.exchange
        same_wire = backend if self.target.wire == api_of(exchange.wire.name) else {}
        headers = exchange.wire.response_headers(same_wire, request_id=exchange.id)
        headers["x-luthien-transaction"] = exchange.id
        if self.log.ignored:
            headers["x-luthien-ignored"] = ", ".join(self.log.ignored)
        if self.log.unchecked:
            headers["x-luthien-unchecked"] = ", ".join(self.log.unchecked)
        return headers
