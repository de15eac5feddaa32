"""One attempt at an answer: with what LiteLLM is called, and the call.

Strategy: LiteLLM is given a client of ours where it takes one, which sends through the backend's one pool and keeps the response.
Where the body is ours and the answer is streamed, the call ends as soon as that response is there; what LiteLLM made of such a
call is remembered, and the next call like it is sent without asking LiteLLM (`luthien_asgi.backend.remembered`). What fails then
is handed to LiteLLM in the plain call, in the place of sending: so an error is the one that LiteLLM makes, also there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthien_asgi.backend import known
from luthien_asgi.backend.capture import AnswerTaken, HandlerPool, Outgoing, Rewrite
from luthien_asgi.backend.model_table import Modes
from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.remembered import Memory, key_of
from luthien_asgi.backend.sdk_client import sdk_client
from luthien_asgi.settings import Limits, StreamSettings

__all__ = ["Call", "Engine", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What all calls of one backend share."""

    litellm: Any
    pool: HandlerPool
    settings: StreamSettings
    limits: Limits
    modes: Modes
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One attempt."""

    deployment: Deployment
    arguments: dict[str, Any] = field(repr=False)
    rewrite: Rewrite | None = None
    ignored: Sequence[str] = ()
    notes: Sequence[str] = ()
    secrets: Sequence[str] = field(default=(), repr=False)

    @property
    def streams(self) -> bool:
        """Whether the provider is asked to stream."""
        return bool(self.arguments["stream"])

    @property
    def takes(self) -> bool:
        """Whether the call ends where LiteLLM would begin to wrap the answer.

        Not under a Router: it hears of a call's success from LiteLLM, which has to come to its end for that.
        """
        return self.rewrite is not None and bool(self.arguments.get("no-log"))

    def without_streaming(self, why: str) -> Plan:
        """Return the same attempt with a whole answer asked for."""
        arguments = {name: value for name, value in self.arguments.items() if name != "stream_options"}
        return replace(self, arguments={**arguments, "stream": False}, notes=(*self.notes, f"stream=False: {why}"))

    def without_options(self) -> Plan:
        """Return the same attempt without `stream_options`."""
        arguments = {name: value for name, value in self.arguments.items() if name != "stream_options"}
        return replace(self, arguments=arguments, notes=(*self.notes, "without stream_options: the provider refused them"))


class Call:
    """The call of one attempt."""

    def __init__(self, engine: Engine, attempt: Plan) -> None:
        self._engine, self._attempt = engine, attempt
        self._client: Any = None
        self._outgoing: Outgoing | None = None

    @property
    def response(self) -> Any:  # noqa: ANN401 - httpx.Response
        """The response, once it is there and where it is kept; the one that LiteLLM's own client got is LiteLLM's."""
        return getattr(self._client if self._outgoing is None else self._outgoing, "response", None)

    @property
    def sent(self) -> dict[str, Any] | None:
        """The body of ours that was sent."""
        return self._outgoing.sent if self._outgoing is not None else None

    async def answer(self) -> Any:  # noqa: ANN401 - LiteLLM's object
        """Make the call; return what LiteLLM does, or None where it was left as soon as `response` was there."""
        attempt, memory = self._attempt, self._engine.memory
        if not (attempt.takes and attempt.streams):
            return await self._plain(None)
        credential = attempt.arguments.get("api_key") if attempt.deployment.passthrough else None
        key = key_of(self._engine.litellm, attempt.deployment, attempt.arguments)
        made = memory.get(key, credential) if key is not None else None
        if key is None or made is None:
            answer = await self._plain(None)
            if key is not None and self._outgoing is not None and self._outgoing.made is not None:
                memory.put(key, self._outgoing.made, credential)
            return answer
        came = None
        try:
            await self._ours(None).send(made)
        except Exception as error:
            memory.forget(key)
            came = error if self.response is None else self.response
        return None if came is None else await self._plain(came)

    async def discard(self) -> None:
        """Close the response, in `close_timeout` at most."""
        if self.response is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._engine.settings.close_timeout):
                    await asyncio.shield(self.response.aclose())

    async def _plain(self, came: Any) -> Any:  # noqa: ANN401
        arguments = self._attempt.arguments
        if (client := self._made_client(came)) is not None:
            arguments = {**arguments, "client": client}
        with contextlib.suppress(AnswerTaken):
            return await self._engine.litellm.acompletion(**arguments)
        return None

    def _made_client(self, came: Any) -> Any:  # noqa: ANN401
        """Return the `client` for LiteLLM; None where it makes its own."""
        attempt, pool = self._attempt, self._engine.pool
        provider, arguments = attempt.deployment.provider, attempt.arguments
        outgoing = self._ours(came) if attempt.rewrite is not None else None
        if provider in known.HANDLER_PROVIDERS:
            ssl_verify = attempt.deployment.params.get("ssl_verify")
            self._client = pool.handler(ssl_verify=ssl_verify, outgoing=outgoing, takes=attempt.takes)
        elif outgoing is not None:
            azure = provider == "azure"
            self._client = sdk_client(self._engine.litellm, pool, arguments, outgoing, azure=azure, takes=attempt.takes)
        return self._client

    def _ours(self, came: Any) -> Outgoing:  # noqa: ANN401
        assert self._attempt.rewrite is not None  # noqa: S101 - whoever takes the answer has one
        connections = self._engine.pool.connections(ssl_verify=self._attempt.deployment.params.get("ssl_verify"))
        self._outgoing = Outgoing(connections, self._attempt.rewrite, came=came)
        return self._outgoing
