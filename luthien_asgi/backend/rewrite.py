"""Our own Anthropic request body in the place of LiteLLM's: it supplies URL, credentials and headers, and what the body lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.backend.capture import Rewrite

__all__ = ["anthropic_rewrite", "count_rewrite"]

_NOT_COUNTED: Final = frozenset(
    {"inference_geo", "max_tokens", "metadata", "service_tier", "stop_sequences", "stream", "temperature", "top_k", "top_p"}
)
"""Fields of a message request that `/v1/messages/count_tokens` refuses (docs: Count tokens in a Message)."""


def anthropic_rewrite(body: Mapping[str, Any], headers: Mapping[str, str]) -> Rewrite:
    """Return the rewriting that sends `body`, with LiteLLM's model and stream flag and the client's version and betas.

    What LiteLLM made of the operator's `litellm_params` fills in fields that the body lacks.
    """

    def rewrite(url: str, made: dict[str, Any], sent: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, str]]:
        defaults = {name: value for name, value in made.items() if name != "messages"}
        own: dict[str, Any] = {name: made[name] for name in ("model", "stream") if name in made}
        return url, {**defaults, **body, **own}, _with_client_headers(sent, headers)

    return rewrite


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
