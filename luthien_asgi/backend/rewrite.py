"""Our own request body in the place of LiteLLM's: it supplies URL, credentials and headers, and what the body lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.backend.capture import Rewrite

__all__ = ["ATTEMPT", "anthropic_rewrite", "count_rewrite", "openai_rewrite"]

ATTEMPT: Final = frozenset({"model", "stream", "stream_options"})
"""Fields that each attempt sets anew: they are LiteLLM's, also where the client has them."""

_NOT_COUNTED: Final = frozenset(
    {"inference_geo", "max_tokens", "metadata", "service_tier", "stop_sequences", "stream", "temperature", "top_k", "top_p"}
)
"""Fields of a message request that `/v1/messages/count_tokens` refuses (docs: Count tokens in a Message)."""


def openai_rewrite(body: Mapping[str, Any]) -> Rewrite:
    """Return the rewriting that sends an OpenAI `body`, with LiteLLM's model and the attempt's streaming."""

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        return url, _overlaid(body, made), sent

    return rewrite


def anthropic_rewrite(body: Mapping[str, Any], headers: Mapping[str, str]) -> Rewrite:
    """Return the rewriting that sends `body`, with LiteLLM's model and stream flag and the client's version and betas."""

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        return url, _overlaid(body, made), _with_client_headers(sent, headers)

    return rewrite


def _overlaid(body: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` in its own order; what LiteLLM made of the operator's `litellm_params` follows where it says nothing."""
    merged = {
        name: made.get(name) if name in ATTEMPT or value is None else value
        for name, value in body.items()
        if name not in ATTEMPT or name in made
    }
    return {**merged, **{name: value for name, value in made.items() if name not in merged}}


def count_rewrite(body: Mapping[str, Any], headers: Mapping[str, str]) -> Rewrite:
    """Return the rewriting that asks for the number of input tokens of `body` instead of an answer."""

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        counted = {name: value for name, value in body.items() if name not in _NOT_COUNTED}
        path, question, query = url.partition("?")
        url = f"{path.rstrip('/')}/count_tokens{question}{query}"
        return url, {**counted, "model": made["model"]}, _with_client_headers(sent, headers)

    return rewrite


def _with_client_headers(sent: Mapping[str, str], client: Mapping[str, str]) -> dict[str, str]:
    merged = {name.lower(): value for name, value in sent.items()}
    if betas := _betas(client.get("anthropic-beta"), merged.get("anthropic-beta")):
        merged["anthropic-beta"] = betas
    if version := client.get("anthropic-version"):
        merged["anthropic-version"] = version
    return merged


def _betas(*values: str | None) -> str:
    names = [name.strip() for value in values for name in (value or "").split(",")]
    return ",".join(dict.fromkeys(name for name in names if name))
