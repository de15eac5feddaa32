"""How a request of ours leaves: through the backend's one connection pool, without what an HTTP client does for others.

Strategy: a third of what a request costs is the client above the pool (`httpx.AsyncClient.send`): cookies, redirects and
authentication flows, which a call of a model has none of. What is below is public: LiteLLM's transport
(`AsyncHTTPHandler.create_async_transport`) is an `httpx.AsyncBaseTransport`, and `handle_async_request` is that class's
interface. Connections, TLS sessions, proxies of the environment, `ssl_verify` and time-outs are the transport's, so they are the
same on both ways. The client sends where LiteLLM was told to use httpx's own transport, whose proxies are the client's, and where
the address has a user's name in it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from luthien_asgi import jsontext

__all__ = ["Connections", "Made"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A request as LiteLLM made it: what our client was handed, before our body takes the place of its own."""

    url: str
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Lower-case names."""
    query: Mapping[str, Any] = field(default_factory=dict)
    timeout: Any = None
    """Seconds or an `httpx.Timeout`; None for the client's own."""


class Connections:
    """One connection pool: the client that owns it, and the transport under that where requests may go to it directly."""

    def __init__(self, client: Any, transport: Any = None) -> None:  # noqa: ANN401 - httpx's, which is LiteLLM's to import
        self.client = client
        self._transport = transport
        self._headers: Mapping[str, str] = dict(client.headers.items())

    async def send(self, made: Made, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Send a request and return the response (`httpx.Response`), unread. Raises what httpx raises."""
        address = _http().URL(url, params=made.query) if made.query else _address(url)
        content = jsontext.dumps(body)
        if self._transport is None or self.client.is_closed or address.userinfo:
            waiting = {} if made.timeout is None else {"timeout": made.timeout}
            request = self.client.build_request("POST", address, headers=headers, content=content, **waiting)
            return await self.client.send(request, stream=True, follow_redirects=False)
        timeout = self.client.timeout if made.timeout is None else _http().Timeout(made.timeout)
        headers = {**{name: value for name, value in self._headers.items() if name not in headers}, **headers}
        request = _http().Request("POST", address, headers=headers, content=content, extensions={"timeout": timeout.as_dict()})
        return await self._directly(request)

    async def _directly(self, request: Any) -> Any:  # noqa: ANN401
        try:
            return await self._transport.handle_async_request(request)
        except _http().RequestError as error:
            error.request = request  # as the client does; LiteLLM looks for it
            raise


@lru_cache(maxsize=256)
def _address(url: str) -> Any:  # noqa: ANN401 - httpx.URL
    """Return an address, parsed: that takes longer than all else about a request."""
    return _http().URL(url)


@cache
def _http() -> Any:  # noqa: ANN401 - httpx is LiteLLM's to import
    return importlib.import_module("httpx")
