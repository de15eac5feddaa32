"""One request from its first byte to its record: who asks, for what, what the policy says, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.auth import Auth, authenticate, credential_of
from luthien_asgi.backend.protocol import Backend, BackendCall, Target
from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.disconnect import ClientConnection, ClientGoneError
from luthien_asgi.errors import ApiError, RequestDenied, RequestError
from luthien_asgi.executor import PolicyExecutor, as_failure
from luthien_asgi.formatter import ClientFormatter, FinalBlocks
from luthien_asgi.hooks import HookCaller, PolicyPlan
from luthien_asgi.opening import BackendOpening
from luthien_asgi.orchestrator import Message, PolicyOrchestrator, Scope, Send
from luthien_asgi.policy import Deny
from luthien_asgi.queues import End, Failed, Terminal
from luthien_asgi.recorder import Begin, Ending, Transaction, TransactionRecorder, VerdictRecord
from luthien_asgi.request import ChatRequest
from luthien_asgi.responses import send_error, send_json
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.telemetry import Telemetry, backend_attributes, report_end
from luthien_asgi.wire.protocol import WireFormat

__all__ = ["Exchange", "Services"]

_log: Final = logging.getLogger(__name__)
_FORWARDED: Final = ("anthropic-beta", "anthropic-version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the middleware was given; the same for every request."""

    plan: PolicyPlan
    hooks: HookCaller
    backend: Backend
    recorder: TransactionRecorder
    telemetry: Telemetry
    auth: Auth | None
    settings: StreamSettings
    limits: Limits


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request to one of the answered routes. Made for it, used once."""

    services: Services
    wire: WireFormat
    path: str
    headers: Mapping[str, str]
    scope: Scope
    connection: ClientConnection
    send: Send
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    begun: bool = False
    """Whether a response has begun."""

    async def answer(self) -> None:
        """Answer a completion request. The client gets an answer or an error in its format; the record gets one end."""
        await self._guarded(self._complete())

    async def count(self) -> None:
        """Answer a request to count tokens: the request's policy applies, because its content goes to the provider."""
        await self._guarded(self._count())

    async def models(self) -> None:
        """Answer with the models that a client may ask for."""
        await self._guarded(self._models())

    async def _models(self) -> None:
        await authenticate(self.services.auth, self.headers)
        body = self.wire.models_body(self.services.backend.models(), created=self.created)
        await send_json(self.send, 200, body, self.wire.response_headers({}, request_id=self.id))

    async def _guarded(self, work: Any) -> None:  # noqa: ANN401 - a coroutine
        try:
            await work
        except ClientGoneError:
            return
        except Exception as error:
            if self.begun:
                raise  # a server closes the connection then, which is the honest signal
            await self._send_error(as_failure(error))

    def __post_init__(self) -> None:
        send = self.send

        async def noting(message: Message) -> None:
            self.begun = True
            await send(message)

        self.send = noting

    async def _send_error(self, error: ApiError) -> None:
        body = self.wire.error_body(error, request_id=self.id)
        headers = self.wire.response_headers(error.headers, request_id=self.id)
        if error.wire != self.wire.name:
            headers |= {name: value for name, value in error.headers.items() if name in {"retry-after", "www-authenticate"}}
        await send_error(self.send, error.status, body, {**headers, "x-luthien-transaction": self.id})

    # --- before the backend --------------------------------------------------------------------------------------------

    async def _admit(self) -> tuple[str, bytes]:
        """Return the client's name and the request's body, or raise `ApiError`."""
        client = await authenticate(self.services.auth, self.headers)
        return client, await self.connection.read_body(limit=self.services.limits.body_bytes)

    def _call(self, request: ChatRequest, target: Target) -> BackendCall:
        credential = credential_of(self.headers, auth=self.services.auth) if target.passthrough else None
        if target.passthrough and credential is None:
            msg = f"The model {request.model} needs a credential of your own."
            raise ApiError(msg, status=401)
        if target.passthrough and target.wire != self.wire.name:
            msg = f"The model {request.model} takes your own credential only on its provider's own API."
            raise RequestError(msg, param="model")
        forwarded = {name: self.headers[name] for name in _FORWARDED if name in self.headers}
        return BackendCall(request=request, credential=credential, headers=forwarded)

    async def _policed(self, ctx: PolicyContext, log: Transaction | None) -> ChatRequest:
        """Return the request as the policy wants it sent. Raises `RequestDenied`."""
        plan = self.services.plan
        if plan.on_request is None:
            return ctx.request
        began = time.monotonic()
        try:
            said = await self.connection.race(self.services.hooks.call(plan.name, plan.on_request, ctx.request, ctx))
        except ApiError as error:
            self._note_request(log, "error", "fail", error.message, began)
            raise
        if isinstance(said, Deny):
            self._note_request(log, "deny", "deny", said.reason, began)
            raise RequestDenied(said.message)
        if said is not None and not isinstance(said, ChatRequest):
            msg = f"The policy {plan.name} returned {type(said).__name__} from on_request, not a request."
            raise ApiError(msg, status=500)
        changed = said is not None and said is not ctx.request
        self._note_request(log, "replace" if changed else "allow", "replace" if changed else "allow", "", began)
        return said if isinstance(said, ChatRequest) else ctx.request

    def _note_request(self, log: Transaction | None, verdict: str, action: str, reason: str, began: float) -> None:
        if log is not None:
            seconds = round(time.monotonic() - began, 6)
            name = self.services.plan.name
            log.verdicts.append(
                VerdictRecord(policy=name, hook="on_request", verdict=verdict, action=action, reason=reason, seconds=seconds)
            )

    # --- counting tokens -----------------------------------------------------------------------------------------------

    async def _count(self) -> None:
        client, body = await self._admit()
        request = self.wire.parse_count(body, limits=self.services.limits)
        target = self.services.backend.target(request.model)
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self.connection.watch())
            outcome = await self._counted(request, target, client)
            watcher.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        await send_json(self.send, 200, {"input_tokens": outcome}, {"request-id": self.id})

    async def _counted(self, request: ChatRequest, target: Target, client: str) -> int | Exception:
        try:
            ctx = PolicyContext(transaction_id=self.id, request=request, client=client)
            ctx.request = await self._policed(ctx, None)
            call = self._call(ctx.request, target)
            async with asyncio.timeout(self.services.settings.first_chunk_timeout):
                return await self.connection.race(self.services.backend.count_tokens(call))
        except ClientGoneError as gone:
            return gone
        except Exception as error:
            return as_failure(error)

    # --- completions ---------------------------------------------------------------------------------------------------

    async def _complete(self) -> None:
        client, body = await self._admit()
        request = self.wire.parse_request(body, limits=self.services.limits)
        target = self.services.backend.target(request.model)
        self._call(request, target)  # refuses what can be refused before there is anything to record
        log = await self._begin(client, request)
        obs = self._observe(request, target)
        ctx = PolicyContext(transaction_id=self.id, request=request, client=client)
        await _Run(self, request, ctx, target, log, obs).to_the_end()

    async def _begin(self, client: str, request: ChatRequest) -> Transaction:
        begin = Begin(
            id=self.id,
            at=time.time(),
            wire=self.wire.name,
            path=self.path,
            model=request.model,
            stream=request.stream,
            client=client,
            request=request.body,
        )
        try:
            await self.services.recorder.begin(begin)
        except Exception as error:
            _log.exception("a transaction could not be recorded, so it is refused")
            msg = "The transaction cannot be recorded now, so it is not begun."
            raise ApiError(msg, status=503) from error
        return Transaction(begin)

    def _observe(self, request: ChatRequest, target: Target) -> ObservabilityContext:
        return self.services.telemetry.begin(
            transaction_id=self.id,
            name="luthien.transaction",
            attributes={
                "luthien.client.wire": self.wire.name,
                "luthien.stream": request.stream,
                "luthien.policy": self.services.plan.name,
                "gen_ai.provider.name": target.provider,
                "gen_ai.request.model": request.model,
            },
            headers=self.headers,
        )


@dataclass(slots=True)
class _Run:
    """One recorded transaction: from the policy's look at the request to the end record."""

    exchange: Exchange
    asked: ChatRequest
    """The request as received: what form the answer has is the client's matter, whatever a policy makes of the rest."""
    ctx: PolicyContext
    target: Target
    log: Transaction
    obs: ObservabilityContext
    ending: Ending = "client_disconnected"
    error: ApiError | None = None

    async def to_the_end(self) -> None:
        """Run and record. Whatever happens, also cancellation, one end record is written."""
        try:
            await self._watched()
        except asyncio.CancelledError:
            self.ending = "client_disconnected" if self.exchange.connection.gone.is_set() else "shutdown"
            raise
        finally:
            await self._record_end()

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
            self.ending = "client_disconnected"
        except Exception as error:
            if self.exchange.begun:
                raise
            failure = as_failure(error)
            self._fail(failure)
            self.log.status = failure.status
            await self._hand_out(self.exchange._send_error(failure))  # noqa: SLF001 - the other half of one module

    async def _answer(self, tasks: asyncio.TaskGroup) -> None:
        exchange, services = self.exchange, self.exchange.services
        with self.obs.span("luthien.policy.request"):
            self.ctx.request = await exchange._policed(self.ctx, self.log)  # noqa: SLF001 - the other half of one module
        target = services.backend.target(self.ctx.request.model)
        call = exchange._call(self.ctx.request, target)  # noqa: SLF001 - the other half of one module
        opening = BackendOpening(services.backend, call, settings=services.settings, log=self.log)
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
        self._settle(terminal)

    async def _collect(self, opening: BackendOpening) -> None:
        work = self._orchestrator().collect(opening, ctx=self.ctx, obs=self.obs, log=self.log)
        body = await self.exchange.connection.race(work)
        self._settle(End())
        self.log.status = 200
        self.log.mark("first_byte")
        await self._hand_out(send_json(self.exchange.send, 200, body, self._headers(opening.headers)))

    async def _hand_out(self, sending: Any) -> None:  # noqa: ANN401 - a coroutine
        """Send a whole response within `send_timeout`; a client that is gone or does not read is no error of ours."""
        try:
            async with asyncio.timeout(self.exchange.services.settings.send_timeout):
                await sending
        except OSError:
            self.ending = "client_disconnected"

    def _orchestrator(self, *, late: bool = False) -> PolicyOrchestrator:
        exchange, services = self.exchange, self.exchange.services
        executor = PolicyExecutor(
            plan=services.plan, hooks=services.hooks, make_chunk=services.backend.make_chunk, settings=services.settings
        )
        encoder = exchange.wire.encoder(self.asked, settings=services.settings, id=exchange.id, created=exchange.created)
        final = FinalBlocks(self.log, wanted=services.recorder.wants_blocks)
        formatter = ClientFormatter(encoder=encoder, settings=services.settings, final=final, late=late)
        return PolicyOrchestrator(executor=executor, formatter=formatter, settings=services.settings)

    def _headers(self, backend: Mapping[str, str]) -> dict[str, str]:
        exchange = self.exchange
        same_wire = backend if self.target.wire == exchange.wire.name else {}
        headers = exchange.wire.response_headers(same_wire, request_id=exchange.id)
        headers["x-luthien-transaction"] = exchange.id
        if self.log.ignored:
            headers["x-luthien-ignored"] = ", ".join(self.log.ignored)
        return headers

    def _settle(self, terminal: Terminal | None) -> None:
        if isinstance(terminal, Failed):
            self._fail(terminal.error)
        elif isinstance(terminal, End):
            stopped = any(verdict.action == "stop" for verdict in self.log.verdicts)
            self.ending = "stopped" if stopped else "completed"

    def _fail(self, error: ApiError) -> None:
        self.ending = "denied" if isinstance(error, RequestDenied) else "failed"
        self.error = error

    async def _record_end(self) -> None:
        error = self.error
        told = None if error is None else {"type": error.type, "message": error.message, "code": error.code}
        end = self.log.end(self.ending, told)
        await self._tell_policy()
        report_end(self.obs, end)
        try:
            await self.exchange.services.recorder.end(end)
        except Exception:
            _log.exception("the end of transaction %s could not be recorded", end.id)

    async def _tell_policy(self) -> None:
        plan, hooks = self.exchange.services.plan, self.exchange.services.hooks
        if plan.on_error is None or self.ending in {"completed", "stopped"}:
            return
        error = self.error or ApiError("The client left before the answer ended.", status=499, type="client_disconnected")
        try:
            await hooks.call(plan.name, plan.on_error, error, self.ctx)
        except ApiError:
            _log.exception("on_error of the policy %s failed", plan.name)
