"""One request to an answered route: who asks, for what, and what the policy says to it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from luthien_asgi.approvals import Approvals
from luthien_asgi.asking import ModelAsker
from luthien_asgi.auth import Auth, authenticate, credential_of
from luthien_asgi.backend.protocol import Backend, BackendCall, Target
from luthien_asgi.clients import Client
from luthien_asgi.completion import Completion
from luthien_asgi.context import ObservabilityContext, PolicyContext
from luthien_asgi.disconnect import ClientConnection, ClientGoneError
from luthien_asgi.drain import Drain, ShutdownError, closing
from luthien_asgi.errors import ApiError, RequestError, busy
from luthien_asgi.executor import as_failure
from luthien_asgi.extras_gate import gated_error
from luthien_asgi.hook_run import LateCall, bounded
from luthien_asgi.hooks import HookCaller
from luthien_asgi.logs import logger_of
from luthien_asgi.orchestrator import Message, Scope, Send
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.recorder import Begin, Transaction, TransactionRecorder
from luthien_asgi.request import ChatRequest, api_of
from luthien_asgi.request_judging import RequestJudge
from luthien_asgi.responses import send_error, send_json
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.shadow import Shadows
from luthien_asgi.slots import Room, Slots
from luthien_asgi.telemetry import Telemetry
from luthien_asgi.wait_limit import WaitTimeout, limited
from luthien_asgi.watchdog import Watchdog
from luthien_asgi.wire.checks import LONGEST_MODEL
from luthien_asgi.wire.protocol import WireFormat
from luthien_asgi.wire.response_headers import pass_headers

__all__ = ["Exchange", "Services"]

_log: Final = logger_of(__name__)
_FORWARDED: Final = ("anthropic-beta", "anthropic-version")
_OF_ONES_OWN: Final = ("anthropic-workspace-id", "anthropic-user-profile-id")
"""Headers that choose within an account: with a key of ours that is the operator's business (`extra_headers`)."""
_BETA: Final = "beta=true"
_OF_HTTP: Final = frozenset({"retry-after", "www-authenticate"})
"""Headers of an error that mean the same in every format."""


def _plain(name: str, value: str) -> str:
    """Return a header's value that can go on to a provider, or raise `RequestError`."""
    if not (value.isascii() and value.isprintable()):
        msg = f"The header {name} holds characters that are not printable ASCII."
        raise RequestError(msg, param=name)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the middleware was given; the same for every request."""

    pipeline: Pipeline
    hooks: HookCaller
    backend: Backend
    recorder: TransactionRecorder
    telemetry: Telemetry
    auth: Auth | None
    settings: StreamSettings
    limits: Limits
    watchdog: Watchdog
    approvals: Approvals | None = None
    operators: Auth | None = None
    slots: Slots = field(default_factory=Slots)
    drain: Drain = field(default_factory=Drain)
    """Who ends what runs when the server stops."""
    after: Shadows = field(default_factory=Shadows)
    """What goes on when an answer is over: the end of policies in shadow, and the records that wait for it."""


class _Noting:
    """A `send` that notes that it was used. It knows no exchange: the two would be a circle for the garbage collector."""

    __slots__ = ("_send", "begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        self.begun = True
        await self._send(message)


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
    _noting: _Noting = field(init=False)

    async def answer(self) -> None:
        """Answer a completion request. The client gets an answer or an error in its format; the record gets one end."""
        with self.services.watchdog.under_way():
            await self._guarded(self._admitted(self._complete))

    async def count(self) -> None:
        """Answer a request to count tokens: the request's policy applies, because its content goes to the provider."""
        with self.services.watchdog.under_way():
            await self._guarded(self._admitted(self._count))

    async def models(self) -> None:
        """Answer with the models that the client may ask for."""
        await self._guarded(self._models())

    async def _models(self) -> None:
        client = await self._authenticate()
        body = self.wire.models_body(client.listed(self.services.backend.models()), created=self.created)
        await send_json(self.send, 200, body, self.wire.response_headers({}, request_id=self.id))

    async def model(self, name: str) -> None:
        """Answer with one model, if the client may ask for it; else with a 404."""
        await self._guarded(self._model(name))

    async def _model(self, name: str) -> None:
        self._target(await self._authenticate(), name)
        (body,) = self.wire.models_body([name], created=self.created)["data"]  # in both formats a model is an item of the list
        await send_json(self.send, 200, body, self.wire.response_headers({}, request_id=self.id))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except ClientGoneError:
            return
        except Exception as error:
            if self.begun:
                raise  # a server closes the connection then, which is the honest signal
            await self._refuse(as_failure(error))

    async def _refuse(self, error: ApiError) -> None:
        """Send an error to whoever it is, who may not be known and need not read: no longer than `send_timeout`."""
        try:
            with limited(self.services.settings.send_timeout):
                await self.send_error(error)
        except WaitTimeout:
            _log.warning("transaction %s: its client did not read that it was refused", self.id)

    def __post_init__(self) -> None:
        self.send = self._noting = _Noting(self.send)

    @property
    def begun(self) -> bool:
        """Whether a response has begun."""
        return self._noting.begun

    async def send_error(self, error: ApiError) -> None:
        """Send an error response in the client's format."""
        error = gated_error(self.services.pipeline, error)
        headers = self.wire.response_headers(error.headers, request_id=self.id)
        body = self.wire.error_body(error, request_id=headers.get("request-id", self.id))
        if error.wire != api_of(self.wire.name):
            headers |= pass_headers(error.headers, names=_OF_HTTP, prefixes=())
        if isinstance(error, ShutdownError):
            headers |= closing(self.scope)
        await send_error(self.send, error.status, body, {**headers, "x-luthien-transaction": self.id})

    # --- before the backend --------------------------------------------------------------------------------------------

    async def _authenticate(self) -> Client:
        """Return the client. Raises `ApiError`."""
        services = self.services
        room = Room(services.slots.unknown, services.limits.unauthenticated)
        return await authenticate(services.auth, self.headers, services.settings, room)

    async def _admitted(self, work: Callable[[Client], Awaitable[None]]) -> None:
        """Let the client do what it asked for, in a place of its own. Raises `ApiError` where there is none left.

        Places are those of clients: who is not known takes none, however slowly it sends.
        """
        async with self.services.drain.limit():
            client = await self._authenticate()
        limit = self.services.limits.streams
        with self.services.slots.one(limit) as has_place:
            if not has_place:
                raise busy(f"{limit} answers are under way already (streams); try again.")
            await (self._in_own_place(client, work) if client.name else work(client))

    async def _in_own_place(self, client: Client, work: Callable[[Client], Awaitable[None]]) -> None:
        limit = client.streams or self.services.limits.client_streams
        with self.services.slots.one_of(client.name, limit) as has_place:
            if not has_place:
                name = "client_streams" if client.streams is None else "streams of the key"
                raise busy(f"{limit} answers are under way already for this key ({name}); try again.")
            await work(client)

    async def _body(self) -> bytes:
        """Return the request's body, or raise `ApiError`; one that is announced to be too long is not read."""
        if (coding := self.headers.get("content-encoding", "identity").strip().lower()) not in {"", "identity"}:
            msg = f"The request body is compressed ({coding[:50]!r}), which is not read here: send it as it is."
            raise RequestError(msg, status=415, headers={"accept-encoding": "identity"})
        try:
            async with self.services.drain.limit():
                with limited(self.services.settings.body_timeout):
                    return await self.connection.read_body(
                        limit=self.services.limits.body_bytes, announced=self.headers.get("content-length", "")
                    )
        except TimeoutError:
            msg = "The request body did not arrive in time."
            raise RequestError(msg, status=408) from None

    def _target(self, client: Client, model: str) -> Target:
        """Return what a model that a client asks for stands for.

        Raises `RequestError` (404): whether a model is configured that a key may not ask for is not told. What a policy makes of
        the request is the operator's business, and so is what it asks and whom it defers to.
        """
        if len(model) > LONGEST_MODEL or not client.may_ask(model):
            msg = f"the model {model[:200]!r} is not one that this key may ask for"
            raise RequestError(msg, status=404, code="model_not_found", param="model")
        return self.services.backend.target(model)

    def backend_call(self, request: ChatRequest, target: Target) -> BackendCall:
        """Return the call that a request becomes. Raises `ApiError` when a passthrough model's own credential is missing."""
        credential = self._own_credential() if target.passthrough else None
        if target.passthrough and credential is None:
            msg = f"The model {request.model} needs a credential of your own."
            raise ApiError(msg, status=401)
        if target.passthrough and target.wire != api_of(self.wire.name):
            msg = f"The model {request.model} takes your own credential only on its provider's own API."
            raise RequestError(msg, param="model")
        names = _FORWARDED + _OF_ONES_OWN * target.passthrough
        forwarded = {name: _plain(name, self.headers[name]) for name in names if name in self.headers}
        marked = self.wire.name == "anthropic" and _BETA in self.scope.get("query_string", b"").decode("latin-1").split("&")
        return BackendCall(request=request, credential=credential, headers=forwarded, query=_BETA if marked else "")

    def _own_credential(self) -> str | None:
        desk = self.services.approvals
        operators = (self.services.operators, desk.auth if desk is not None else None)
        return credential_of(self.headers, auth=self.services.auth, others=operators)

    def judge(
        self, ctx: PolicyContext, log: Transaction | None, shadows: Shadows | None = None, hooks: HookCaller | None = None
    ) -> RequestJudge:
        """Return who asks the policies about a request."""
        services = self.services
        return RequestJudge(pipeline=services.pipeline, hooks=hooks or services.hooks, ctx=ctx, log=log, shadows=shadows)

    # --- counting tokens -----------------------------------------------------------------------------------------------

    async def _count(self, client: Client) -> None:
        request = self.wire.parse_count(await self._body(), limits=self.services.limits)
        target = self._target(client, request.model)
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self.connection.watch())
            outcome = await self._counted(request, target, client.name)
            watcher.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        await send_json(self.send, 200, {"input_tokens": outcome}, {"request-id": self.id})

    async def _counted(self, request: ChatRequest, target: Target, client: str) -> int | Exception:
        try:
            async with self.services.drain.limit():
                ctx = self._context(request, client, None)
                ctx.request = await self.connection.race(self.judge(ctx, None).before(everybody=True))
                call = self.backend_call(ctx.request, target)
                await self.connection.race(self.services.backend.start())
                with limited(self.services.settings.first_chunk_timeout):
                    return await self.connection.race(self.services.backend.count_tokens(call))
        except ClientGoneError as gone:
            return gone
        except Exception as error:
            return as_failure(error)

    # --- completions ---------------------------------------------------------------------------------------------------

    async def _complete(self, client: Client) -> None:
        request = self.wire.parse_request(await self._body(), limits=self.services.limits)
        target = self._target(client, request.model)
        self.backend_call(request, target)  # refuses what can be refused before there is anything to record
        self._refuse_audio(request)
        self._refuse_other_models(client, request, target)
        log = await self._begin(client.name, request)
        obs = self._observe(request, target)
        ctx = self._context(request, client.name, log)
        await Completion(self, request, ctx, target, log, obs).to_the_end()

    def _context(self, request: ChatRequest, client: str, log: Transaction | None) -> PolicyContext:
        models = ModelAsker(self.services.backend, log)
        return PolicyContext(transaction_id=self.id, request=request, client=client, _models=models)

    def _refuse_audio(self, request: ChatRequest) -> None:
        """Raise `RequestError` for spoken answers under a policy that may alter text: sound cannot be altered with it."""
        if self.services.pipeline.alters_text and "audio" in (request.body.get("modalities") or ()):
            msg = f"The policy {self.services.pipeline.name} may alter what is written, so the answer cannot be spoken as well."
            raise RequestError(msg, param="modalities")

    def _refuse_other_models(self, client: Client, request: ChatRequest, target: Target) -> None:
        """Raise `RequestError` (404) for a tool that would have the provider ask a model which the client may not ask for.

        Anthropic's advisor is one. The name goes on as it is: only a model of the configuration with that very name may be meant.
        """
        if target.passthrough:
            return
        for place, tool in enumerate(request.body.get("tools") or ()):
            asked = tool.get("model") if isinstance(tool, Mapping) else None
            if isinstance(asked, str) and asked != request.model and self._target(client, asked).wire != target.wire:
                msg = f"The model {asked[:200]!r} of a tool is not one of this provider's API."
                raise RequestError(msg, param=f"tools[{place}].model")

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
        settings = self.services.settings
        try:
            work = self.services.recorder.begin(begin)
            await bounded(work, settings.record_timeout, grace=settings.close_timeout, what="the recorder")
        except Exception as error:
            # A recorder's own error is a known state, and it may be that of every request for a while.
            _log.error(
                "transaction %s could not be recorded, so it is refused: %r",
                self.id,
                error,
                exc_info=not isinstance(error, (ApiError, LateCall)),
            )
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
                "luthien.policy": self.services.pipeline.name,
                "gen_ai.provider.name": target.provider,
                "gen_ai.request.model": request.model,
            },
            headers=self.headers,
        )
