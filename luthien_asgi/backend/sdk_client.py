"""The OpenAI SDK's client of one call, for the providers that LiteLLM calls through that SDK.

A streamed call gets a `luthien_asgi.backend.streaming_client`, one without streaming the SDK's own client, whose parsing LiteLLM
needs then.

Strategy: as `luthien_asgi.backend.capture` does for LiteLLM's handler. LiteLLM resolves base URL and credentials as for a client
of its own; what the SDK sends goes through the backend's one connection pool, with our body in it, and what came back is kept.
Nothing is kept in LiteLLM, which remembers only the clients that it makes itself (and those of Azure, which get none).

Deliberate differences from the client that LiteLLM makes:

1. Of an error response at most 16 KiB are kept, and a redirect is not followed.
2. `ssl_verify` of a model is honoured.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Hashable, Mapping
from functools import cache, partial
from typing import Any, Final

from luthien_asgi import jsontext
from luthien_asgi.backend.capture import HandlerPool, Outgoing
from luthien_asgi.backend.sending import Made
from luthien_asgi.backend.streaming_client import StreamingClient, Template
from luthien_asgi.errors import BackendError

__all__ = ["sdk_client"]

_NO_KEY: Final = "-"
"""A template has no credential: it may be used with several."""


def sdk_client(
    litellm: Any,  # noqa: ANN401
    pool: HandlerPool,
    arguments: Mapping[str, Any],
    outgoing: Outgoing,
    *,
    azure: bool,
    takes: bool,
) -> Any:  # noqa: ANN401
    """Return a client for one call of `acompletion` that sends by `outgoing`: of the SDK only what the call needs.

    Raises `BackendError` where no credential is configured.
    """
    key, identity, make = (_azure if azure else _openai)(litellm, arguments)
    if key is None:
        raise BackendError("no credential is configured for this model", status=401)
    if arguments["stream"]:
        connections = pool.connections(ssl_verify=arguments.get("ssl_verify")).client
        deployment = arguments["model"] if azure else None
        template = pool.kept(identity, lambda: Template(make(api_key=_NO_KEY, http_client=connections), deployment=deployment))
        return StreamingClient(template, outgoing, api_key=key, takes=takes)
    return make(api_key=key, http_client=_call_client()(outgoing), timeout=arguments["timeout"])


def _openai(litellm: Any, arguments: Mapping[str, Any]) -> tuple[str | None, Hashable, Callable[..., Any]]:  # noqa: ANN401
    """Return the key, what tells one client from another, and what makes one."""
    base, key, organization = _credentials(litellm, arguments)
    sdk = importlib.import_module("openai").AsyncOpenAI
    return key, (base, organization), partial(sdk, base_url=base, organization=organization, max_retries=0)


def _azure(_: Any, arguments: Mapping[str, Any]) -> tuple[str | None, Hashable, Callable[..., Any]]:  # noqa: ANN401
    """Return the same for Azure; the arguments have all of it (see `luthien_asgi.backend.azure`)."""
    endpoint, version = arguments["api_base"], arguments["api_version"]
    sdk = importlib.import_module("openai").AsyncAzureOpenAI
    make = partial(sdk, azure_endpoint=endpoint, api_version=version, max_retries=0)
    return arguments["api_key"], (endpoint, version, arguments["model"]), make


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
        """httpx's client for one call. It owns no connection."""

        def __init__(self, outgoing: Outgoing) -> None:
            super().__init__(transport=httpx.AsyncBaseTransport(), trust_env=False)
            self._outgoing = outgoing

        async def send(self, request: Any, *, stream: bool = False, **_: Any) -> Any:  # noqa: ANN401
            """Send the request, rewritten, and return the response, whatever its status."""
            headers = {name: value for name, value in request.headers.items() if name != "content-length"}
            timeout = httpx.Timeout(**request.extensions["timeout"])
            made = Made(url=str(request.url), body=jsontext.loads(request.content), headers=headers, timeout=timeout)
            with contextlib.suppress(httpx.HTTPStatusError):
                await self._outgoing.send(made)
            if not stream:
                await self._outgoing.response.aread()
            return self._outgoing.response

    return CallClient
