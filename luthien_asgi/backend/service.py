"""The backend that reaches every provider through LiteLLM.

What a `litellm.Router` as the engine keeps: its choice of a deployment (strategy, weights, cooldowns, limits, what it shares
through Redis), and that it learns of failures before the first byte, through LiteLLM's callbacks. What is lost, because the call
is made here and not by it: its retries and fallbacks, and what it would learn of successes, token counts and later failures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from luthien_asgi.backend import hygiene, known
from luthien_asgi.backend.chunks import build
from luthien_asgi.backend.models import Deployment, ModelTable, from_router, not_configured
from luthien_asgi.backend.protocol import BackendCall, BackendStream, Target
from luthien_asgi.chunks import ChunkFactory
from luthien_asgi.errors import ApiError, ConfigError, RequestError
from luthien_asgi.request import api_of
from luthien_asgi.settings import Limits, StreamSettings

__all__ = ["LiteLLMBackend"]

_REFUSAL_STATUS: Final = frozenset({400, 404, 405, 415, 422, 501})
_OPTIONS: Final = re.compile(r"stream_options|include_usage")
_STREAMING: Final = re.compile(r"\bstream(?:ing|ed)?\b", re.IGNORECASE)


class LiteLLMBackend:
    """Calls models through LiteLLM and reads the provider's own words (a `Backend`).

    Args:
        model_list: LiteLLM's `model_list`; see `luthien_asgi.backend.models` for our own keys. Empty with a `router`.
        router: A `litellm.Router` that picks the deployment.
        settings: Timeouts; a call's own timeout is the longer of `first_chunk_timeout` and `stall_timeout`.
        limits: `frame_bytes` bounds one event of a provider, and a whole answer of one that does not stream.
        freeze: Keep all that is alive once LiteLLM is imported out of the garbage collector's sight (`gc.freeze`): a full
            collection goes through its 400 000 objects, 0.2 s in which nothing is answered. For a process that is the gateway's
            own; a host decides for itself.

    Raises `ConfigError` that names the entry and the key, or the environment variable that is not set.
    """

    make_chunk: ChunkFactory = staticmethod(build)

    def __init__(
        self,
        model_list: Sequence[Mapping[str, Any]] = (),
        *,
        router: Any = None,  # noqa: ANN401 - litellm.Router, which is not imported here
        settings: StreamSettings = StreamSettings(),  # noqa: B008 - frozen
        limits: Limits = Limits(),  # noqa: B008 - frozen
        freeze: bool = False,
    ) -> None:
        if bool(model_list) == (router is not None):
            msg = "a backend needs a model_list or a router, and not both"
            raise ConfigError(msg)
        self._table = ModelTable(model_list)
        self._router = router
        self._freeze = freeze
        self._settings, self._limits = settings, limits
        self._engine: Any = None
        self._pool: Any = None

    def go_on_from(self, other: LiteLLMBackend) -> None:
        """Use the connections of another backend, in whose place this one is, from the start on; each closes its share."""
        if other._engine is not None and self._pool is None and self._engine is None:
            self._pool = other._engine.pool.shared()

    async def start(self) -> None:
        """Import LiteLLM in a thread. Called twice it does nothing more."""
        if self._engine is None:
            litellm = await hygiene.load(tokenizer=self._needs_tokenizer(), freeze=self._freeze)
            if self._engine is None:
                self._engine = _engine(litellm, self._settings, self._limits, self._pool)
                self._pool = None

    def _needs_tokenizer(self) -> bool:
        return self._router is not None or not self._table.providers() <= known.WITHOUT_TOKENIZER

    def models(self) -> Sequence[str]:
        """Return the model names that a client may ask for; wildcards as they are written."""
        return self._table.names() if self._router is None else tuple(self._router.get_model_names())

    def target(self, model: str) -> Target:
        """Return what a model name stands for. Raises `RequestError` with status 404 for one that is not configured."""
        return self._first(model).target(model)

    def _first(self, model: str) -> Deployment:
        if self._router is None:
            return self._table.find(model)
        entries = self._router.get_model_list(model_name=model)
        if not entries:
            raise not_configured(model)
        return from_router(entries[0])

    async def open(self, call: BackendCall) -> BackendStream:
        """Call the provider; return when its response headers are there.

        A provider that refuses `stream_options` or streaming is called once more without it, which `notes` says. Raises
        `RequestError` and `BackendError`; when cancelled it leaves no connection open.
        """
        from luthien_asgi.backend.calling import place, plan

        await self.start()
        deployment, extra = await self._picked(call)
        _check_credential(deployment, call)
        attempt = plan(self._engine, deployment, call, extra=extra)
        try:
            return await place(self._engine, attempt)
        except ApiError as error:
            again = _second(attempt, error)
            if again is None:
                raise
        return await place(self._engine, again)

    async def _picked(self, call: BackendCall) -> tuple[Deployment, Mapping[str, Any]]:
        asked = call.request.model
        if self._router is None:
            return self._table.next(asked), {}
        self._first(asked)
        entry = await self._router.async_get_available_deployment(model=asked, request_kwargs={})
        metadata = {"model_group": asked, "deployment": entry["litellm_params"]["model"], "model_info": entry.get("model_info")}
        return from_router(entry), {"metadata": metadata, "model_info": entry.get("model_info")}

    async def count_tokens(self, call: BackendCall) -> int:
        """Return the number of input tokens: Anthropic's own count, an estimate for other providers."""
        from luthien_asgi.backend.counting import count

        deployment = self._first(call.request.model)
        _check_credential(deployment, call)
        if deployment.wire == "anthropic":
            await self.start()
        return await count(self._engine, deployment, call)

    async def aclose(self) -> None:
        """Close the connections of this backend. LiteLLM's own clients are LiteLLM's: other users of it share them."""
        engine, self._engine = self._engine, None
        pool, self._pool = engine.pool if engine is not None else self._pool, None
        if pool is not None:
            await pool.aclose()


def _engine(litellm: Any, settings: StreamSettings, limits: Limits, pool: Any) -> Any:  # noqa: ANN401 - see `open`
    from luthien_asgi.backend.attempt import Engine
    from luthien_asgi.backend.capture import HandlerPool
    from luthien_asgi.backend.model_table import Modes

    return Engine(
        litellm=litellm, pool=pool if pool is not None else HandlerPool(), settings=settings, limits=limits, modes=Modes(litellm)
    )


def _check_credential(deployment: Deployment, call: BackendCall) -> None:
    if not deployment.passthrough:
        return
    if api_of(call.request.wire) != deployment.wire:
        raise RequestError("a credential of yours goes only to a provider of the format that you speak", status=403)
    if not call.credential:
        raise RequestError("this model needs a credential of yours, and the request has none", status=401)


def _second(attempt: Any, error: ApiError) -> Any:  # noqa: ANN401 - a Plan, or None
    if not attempt.streams or error.status not in _REFUSAL_STATUS:
        return None
    said = f"{error.param or ''} {error.message}"
    if _OPTIONS.search(said) and "stream_options" in attempt.arguments:
        return attempt.without_options()
    return attempt.without_streaming("the provider refused to stream") if _STREAMING.search(said) else None
