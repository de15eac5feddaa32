"""What LiteLLM needs of the OpenAI SDK's client for one streamed answer, and no more of the SDK.

Strategy: where the body is ours and the stream is read by us, the SDK's part of a call is its URL and its headers. A client of
the SDK is made once for each address and organization, and asked for both; the request is then made and sent here, through the
backend's one connection pool. The SDK's own `create()` is more than half of what a call costs.

What LiteLLM calls is `client.chat.completions.with_raw_response.create(...)`, so this object is all four.

Deliberate differences from the SDK's client:

1. Of an error response at most 16 KiB are kept; it is raised as `httpx.HTTPStatusError`. So is a redirect: it is not followed.
2. The header `x-stainless-read-timeout` is not sent: the time-out is the gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import quote

from luthien_asgi.backend.capture import AnswerTaken, Outgoing
from luthien_asgi.backend.sending import Made

__all__ = ["StreamingClient", "Template"]

_PATH: Final = b"chat/completions"
_FIRST_TRY: Final = {"x-stainless-retry-count": "0"}


class Template:
    """Where the SDK sends chat completions for one address and organization, and with which headers but the credential.

    `sdk` is a client of the SDK; `deployment` is Azure's, in whose address the model is.
    """

    def __init__(self, sdk: Any, *, deployment: str | None = None) -> None:  # noqa: ANN401
        path = _PATH if deployment is None else b"deployments/%s/%s" % (quote(deployment, safe="").encode(), _PATH)
        self.url = str(sdk.base_url.copy_with(raw_path=sdk.base_url.raw_path + path))
        self.query: Mapping[str, Any] = sdk.default_query
        headers = {name.lower(): value for name, value in sdk.default_headers.items() if isinstance(value, str)}
        self.headers: Mapping[str, str] = {**headers, **_FIRST_TRY}
        self._key_header, self._scheme = ("authorization", "Bearer ") if deployment is None else ("api-key", "")

    def headers_with(self, key: str) -> dict[str, str]:
        """Return the headers with a credential."""
        return {**self.headers, self._key_header: f"{self._scheme}{key}"}


class StreamingClient:
    """One call's client. It owns no connection."""

    def __init__(self, template: Template, outgoing: Outgoing, *, api_key: str, takes: bool) -> None:
        self._template, self._outgoing = template, outgoing
        self._api_key = api_key
        self._takes = takes
        self.organization: str | None = None
        self.max_retries = 0

    @property
    def chat(self) -> Self:
        """Itself. An attribute would tie it, and the response with it, into a circle for the garbage collector."""
        return self

    completions = with_raw_response = chat

    async def create(self, **data: Any) -> Self:  # noqa: ANN401 - LiteLLM's arguments
        """Send the request, rewritten, and keep the response, unread. Raises `httpx.HTTPStatusError` for an error status."""
        timeout = data.pop("timeout", None)
        extra_headers, query, extra_body = (data.pop(f"extra_{name}", None) or {} for name in ("headers", "query", "body"))
        headers = self._template.headers_with(self._api_key)
        headers |= {name.lower(): value for name, value in extra_headers.items() if isinstance(value, str)}
        made = Made(
            url=self._template.url,
            body={**data, **extra_body},
            headers=headers,
            query={**self._template.query, **query},
            timeout=timeout,
        )
        try:
            await self._outgoing.send(made)
        except Exception as error:
            if self.response is not None:
                # What LiteLLM tells one error from another by, and a Router cools a deployment down for.
                error.status_code = self.response.status_code  # type: ignore[attr-defined]
            raise
        if self._takes:
            raise AnswerTaken
        return self

    @property
    def response(self) -> Any:  # noqa: ANN401 - httpx.Response
        """The response, once it is there: what LiteLLM takes for the stream's."""
        return self._outgoing.response

    @property
    def headers(self) -> Any:  # noqa: ANN401 - httpx.Headers
        """The headers of the response."""
        return self.response.headers

    def parse(self) -> Self:
        """Return what LiteLLM takes for the stream; its `response` is what is read."""
        return self
