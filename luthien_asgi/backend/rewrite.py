"""Our own request body in the place of LiteLLM's: it supplies URL, credentials and headers, and what the body lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.backend.capture import Rewrite
from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.protocol import BackendCall

__all__ = ["ATTEMPT", "anthropic_rewrite", "count_rewrite", "openai_rewrite", "sent_headers"]

ATTEMPT: Final = frozenset({"model", "stream", "stream_options"})
"""Fields that each attempt sets anew: they are LiteLLM's, also where the client has them."""

_BETAS: Final = "anthropic-beta"
_NOT_COUNTED: Final = frozenset(
    {"inference_geo", "max_tokens", "metadata", "service_tier", "stop_sequences", "stream", "temperature", "top_k", "top_p"}
)
"""Fields of a message request that `/v1/messages/count_tokens` refuses (docs: Count tokens in a Message)."""


def openai_rewrite(body: Mapping[str, Any]) -> Rewrite:
    """Return the rewriting that sends an OpenAI `body`, with LiteLLM's model and the attempt's streaming."""

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        return url, _overlaid(body, made), sent

    return rewrite


def anthropic_rewrite(body: Mapping[str, Any], headers: Mapping[str, str], query: str = "") -> Rewrite:
    """Return the rewriting that sends `body`, with LiteLLM's model and stream flag and the client's version, betas and query."""

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        return _with_query(url, query), _overlaid(body, made), _with_client_headers(sent, headers)

    return rewrite


def _overlaid(body: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` in its own order; what LiteLLM made of the operator's `litellm_params` follows where it says nothing."""
    merged = {
        name: made.get(name) if name in ATTEMPT or value is None else value
        for name, value in body.items()
        if name not in ATTEMPT or name in made
    }
    return {**merged, **{name: value for name, value in made.items() if name not in merged}}


def count_rewrite(body: Mapping[str, Any], headers: Mapping[str, str], query: str = "") -> Rewrite:
    """Return the rewriting that asks for the number of input tokens of `body` instead of an answer."""

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        counted = {name: value for name, value in body.items() if name not in _NOT_COUNTED}
        path, question, fixed = url.partition("?")
        url = _with_query(f"{path.rstrip('/')}/count_tokens{question}{fixed}", query)
        return url, {**counted, "model": made["model"]}, _with_client_headers(sent, headers)

    return rewrite


def sent_headers(deployment: Deployment, call: BackendCall) -> dict[str, str]:
    """Return the headers that LiteLLM is not to decide: it forgets betas that it does not know, the operator's too."""
    client = call.headers if call.request.wire == "anthropic" else {}
    sources = [deployment.params.get(name) or {} for name in ("extra_headers", "headers")]
    configured = [value for source in sources for name, value in source.items() if name.lower() == _BETAS]
    betas = _betas(client.get(_BETAS), *configured)
    return {**client, _BETAS: betas} if betas else dict(client)


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def _with_client_headers(sent: Mapping[str, str], client: Mapping[str, str]) -> dict[str, str]:
    merged = {name.lower(): value for name, value in sent.items()}
    if betas := _betas(client.get(_BETAS), merged.get(_BETAS)):
        merged[_BETAS] = betas
    return {**merged, **{name: value for name, value in client.items() if name != _BETAS}}


def _betas(*values: str | None) -> str:
    names = [name.strip() for value in values for name in (value or "").split(",")]
    return ",".join(dict.fromkeys(name for name in names if name))
