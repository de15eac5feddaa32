"""The OpenAI SDK's client of one call, for the providers that LiteLLM calls through that SDK.

A streamed call gets a `luthien_asgi.backend.streaming_client`, one without streaming the SDK's own client, whose parsing LiteLLM
needs then.

Strategy: as `luthien_asgi.backend.capture` does for LiteLLM's handler. LiteLLM resolves base URL and credentials as for a client
of its own; what the SDK sends goes through the backend's one connection pool, with our body in it, and what came back is kept.
Nothing is kept in LiteLLM, which remembers only the clients that it makes itself (and those of Azure, which get none).

Deliberate differences from the client that LiteLLM makes:

1. Of an error response at most 64 KiB are read.
2. `ssl_verify` of a model is honoured.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from luthien_asgi import jsontext
from luthien_asgi.backend.capture import HandlerPool, Rewrite, bounded
from luthien_asgi.backend.streaming_client import StreamingClient, Template
from luthien_asgi.errors import BackendError

__all__ = ["sdk_client"]


def sdk_client(litellm: Any, pool: HandlerPool, arguments: Mapping[str, Any], rewrite: Rewrite) -> tuple[Any, Any]:  # noqa: ANN401
    """Return a client for one call of `acompletion`, and the keeper of its response: of the SDK only what the call needs.

    Raises `BackendError` where no credential is configured.
    """
    base, key, organization = _credentials(litellm, arguments)
    if key is None:
        raise BackendError("no credential is configured for this model", status=401)
    connections = pool.client(ssl_verify=arguments.get("ssl_verify"))
    if arguments["stream"]:
        template = pool.kept(
            (base, organization), lambda: Template(base_url=base, organization=organization, http_client=connections)
        )
        client = StreamingClient(template, api_key=key, pool=connections, rewrite=rewrite)
        return client, client
    keeper = _call_client()(connections, rewrite)
    openai = importlib.import_module("openai")
    sdk = openai.AsyncOpenAI(
        api_key=key, base_url=base, organization=organization, http_client=keeper, max_retries=0, timeout=arguments["timeout"]
    )
    return sdk, keeper


def _credentials(litellm: Any, arguments: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:  # noqa: ANN401
    """Return base URL, key and organization, as LiteLLM finds them."""
    _, provider, key, base = litellm.get_llm_provider(
        model=arguments["model"],
        custom_llm_provider=arguments.get("custom_llm_provider"),
        api_base=arguments.get("api_base") or arguments.get("base_url"),
        api_key=arguments.get("api_key"),
    )
    if provider != "openai":
        return base, key, arguments.get("organization")
    common = importlib.import_module("litellm.llms.openai.common_utils")
    found: tuple[str | None, str | None, str | None]
    found = common.get_openai_credentials(api_base=base, api_key=key, organization=arguments.get("organization"))
    return found


@cache
def _call_client() -> Any:  # noqa: ANN401 - the class can only be made once LiteLLM is there
    httpx = importlib.import_module("httpx")
    base: Any = httpx.AsyncClient

    class CallClient(base):  # type: ignore[misc]  # made of a class that is imported late
        """httpx's client for one call. It owns no connection: `pool` does."""

        def __init__(self, pool: Any, rewrite: Rewrite) -> None:  # noqa: ANN401
            super().__init__(transport=httpx.AsyncBaseTransport(), trust_env=False)
            self._pool, self._rewrite = pool, rewrite
            self.response: Any = None
            self.rewrote = False

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:  # noqa: ANN401
            """Send the request, rewritten; keep and return the response."""
            response = await self._pool.send(self._rewritten(request), stream=stream, **options)
            self.response = response if response.status_code < 400 else await bounded(response)
            return self.response

        def _rewritten(self, request: Any) -> Any:  # noqa: ANN401
            headers = {name: value for name, value in request.headers.items() if name != "content-length"}
            url, body, headers = self._rewrite(str(request.url), jsontext.loads(request.content), headers)
            self.rewrote = True
            return httpx.Request(
                request.method, url, headers=headers, content=jsontext.dumps(body), extensions=request.extensions
            )

    return CallClient
