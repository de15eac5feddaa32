"""The end of one transaction's record: exactly one, whatever happened.

Strategy: a recorder that is not durable gets it when all is over. A durable one gets it before the client gets its answer's last
frame (`seal`), in a task that nobody's leaving cancels: an end that is on its way says what the client was about to get. Where
it could not be recorded the client is told so instead, and that is what the record says then.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.drain import ShutdownError
from luthien_asgi.errors import ApiError, RequestDenied
from luthien_asgi.hook_run import LateCall, bounded
from luthien_asgi.hooks import HookCaller
from luthien_asgi.logs import logger_of
from luthien_asgi.queues import End, Failed, Terminal
from luthien_asgi.recorder import End as EndRecord
from luthien_asgi.recorder import Ending, Transaction, is_durable
from luthien_asgi.shadow import Shadows
from luthien_asgi.telemetry import report_end

if TYPE_CHECKING:
    from luthien_asgi.exchange import Services

__all__ = ["Closing"]

_log: Final = logger_of(__name__)


@dataclass(slots=True, kw_only=True)
class Closing:
    """How one transaction ends, and the record of that."""

    services: Services
    hooks: HookCaller
    log: Transaction
    ctx: PolicyContext
    obs: ObservabilityContext
    model: str
    """As the configuration names it, for the log."""
    shadows: Shadows
    ending: Ending = "client_disconnected"
    error: ApiError | None = None
    _sealing: asyncio.Task[Terminal] | None = field(default=None, init=False)

    @property
    def seals(self) -> bool:
        """Whether the end is to be recorded before the client gets its last frame."""
        return is_durable(self.services.recorder)

    def settle(self, terminal: Terminal | None) -> None:
        """Take how the answer ended; None when the client left. What was sealed stays as it is."""
        if self._sealing is None:
            self._settle(terminal)

    def leave(self, ending: Ending) -> None:
        """Note that the client got no end of an answer, and why. What was sealed stays as it is."""
        if self._sealing is None:
            self.ending = ending

    def cut_off(self, error: ShutdownError, *, gone: bool) -> None:
        """Note that the server did not let the answer end. What has ended stays as it is."""
        if gone:
            self.leave("client_disconnected")
        elif self.error is None and self.ending not in {"completed", "stopped"}:
            self.settle(Failed(error))

    def seal(self, terminal: Terminal) -> asyncio.Task[Terminal]:
        """Begin to record how the answer is about to end; the task returns how it is to end for the client.

        That is as given, or `Failed` where it could not be recorded. It goes on when nobody waits for it any more.
        """
        if self._sealing is None:
            self._sealing = self.services.after.start(self._sealed(terminal))
        return self._sealing

    async def written(self) -> None:
        """See to it that the record has its end, and tell policies and telemetry. Call it once, when all is over."""
        self.log.mark("end")
        if self._sealing is not None:
            if self._sealing.done():
                await self._tell(self._end())
            else:  # the client left meanwhile
                self.services.after.start(self._told_late(self._sealing))
        elif self.shadows.at_work:
            # The client has its answer and waits for nothing; neither does the next request on its connection.
            self.services.after.start(self._late())
        else:
            await self._record()

    async def _late(self) -> None:
        try:
            await self.shadows.ended(self.services.settings.total_timeout)
        finally:
            await self._record()

    async def _told_late(self, sealing: asyncio.Task[Terminal]) -> None:
        try:
            await asyncio.wait({sealing})
        finally:
            await self._tell(self._end())

    async def _record(self) -> None:
        end = self._end()
        await self._tell(end)
        if not await self._kept(end) and self.seals:
            await self._kept(end)

    async def _sealed(self, terminal: Terminal) -> Terminal:
        try:
            # What policies in shadow say is in the record, so the last frame waits for them.
            await self.shadows.ended(self.services.settings.policy_timeout)
        except asyncio.CancelledError:
            self._settle(terminal)
            await self._kept(self._end())
            raise
        self._settle(terminal)
        if await self._kept(self._end()):
            return terminal
        if isinstance(terminal, End):
            terminal = Failed(ApiError("The answer could not be recorded, so it is not given as complete.", status=503))
            self.log.status = self.log.status if self.log.begin.stream else terminal.error.status
            self._settle(terminal)
        await self._kept(self._end())
        return terminal

    async def _kept(self, end: EndRecord) -> bool:
        """Hand an end to the recorder; tell whether it took it."""
        settings = self.services.settings
        try:
            work = self.services.recorder.end(end)
            await bounded(work, settings.record_timeout, grace=settings.close_timeout, what="the recorder")
        except Exception as error:
            # A recorder's own error is a known state, and it may be that of every answer for a while.
            known = isinstance(error, (ApiError, LateCall))
            _log.error("the end of transaction %s could not be recorded: %r", end.id, error, exc_info=not known)
            return False
        return True

    def _settle(self, terminal: Terminal | None) -> None:
        if isinstance(terminal, Failed):
            self._fail(terminal.error)
        elif isinstance(terminal, End):
            stopped = any(verdict.action == "stop" for verdict in self.log.verdicts)
            self.ending = "stopped" if stopped else "completed"

    def _fail(self, error: ApiError) -> None:
        self.ending = _ending_of(error)
        # A value needs no traceback: its frames hold this object, in a circle, and what LiteLLM had in its hands.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        self.error = error
        if self.ending == "failed":
            # %r: a provider's message may hold line breaks, and none of them may begin a line of this log.
            detail = f" ({error.detail})" if error.detail else ""
            said = (self.log.begin.id, self.model, error.status, error.type, error.message, detail)
            _log.warning("transaction %s, model %r: %s %s: %r%s", *said)

    def _end(self) -> EndRecord:
        error = self.error
        told = None if error is None else {"type": error.type, "message": error.message, "code": error.code}
        self.services.watchdog.note(self.log)
        return self.log.end(self.ending, told)

    async def _tell(self, end: EndRecord) -> None:
        if self.ending not in {"completed", "stopped"}:
            with suppress(ShutdownError):
                async with self.services.drain.last():
                    await self._tell_policies()
        report_end(self.obs, end)

    async def _tell_policies(self) -> None:
        error = self.error or ApiError("The client left before the answer ended.", status=499, type="client_disconnected")
        for plan in self.services.pipeline.everybody:
            if plan.on_error is not None:
                try:
                    await self.hooks.call(plan, plan.on_error, error, self.ctx.of_policy(plan.owner))
                except ApiError:
                    _log.exception("on_error of the policy %s failed", plan.name)


def _ending_of(error: ApiError) -> Ending:
    if isinstance(error, RequestDenied):
        return "denied"
    return "shutdown" if isinstance(error, ShutdownError) else "failed"
