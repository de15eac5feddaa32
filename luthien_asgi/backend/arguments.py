"""What LiteLLM is called with.

Strategy: the operator's `litellm_params` first, the client's fields over them, what we need last. A client's field becomes a
keyword argument only when it is a documented parameter of the OpenAI API that LiteLLM maps (`STANDARD`); every other field is in
`extra_body`, where LiteLLM does not look: `metadata` reaches the provider as the client's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from luthien_asgi.backend import known
from luthien_asgi.backend.models import Deployment
from luthien_asgi.wire.parameters import OPENAI_OWN

__all__ = ["allow_unlisted", "minimal_arguments", "openai_arguments", "secrets_of", "stream_options", "visible"]

STANDARD: Final = OPENAI_OWN - {
    "metadata",
    "model",
    "moderation",
    "prompt_cache_options",
    "prompt_cache_retention",
    "stream",
    "stream_options",
}
"""The API's fields that LiteLLM maps. Of the others it has no word, or one with another meaning."""
_MAPPED_FOR_OTHERS: Final = frozenset({"thinking", "top_k"})
"""Parameters beside OpenAI's that LiteLLM maps for providers of other wires."""
_SET_BY_US: Final = frozenset({"model", "stream", "stream_options"})
_SECRET_NAMES: Final = ("auth", "credential", "key", "password", "secret", "token")
_NOT_SECRET: Final = frozenset({"max_completion_tokens", "max_tokens", "prompt_cache_key"})
MINIMAL_MESSAGES: Final = ({"role": "user", "content": "."},)
"""What LiteLLM converts where the body that leaves is ours."""


def openai_arguments(
    deployment: Deployment, params: Mapping[str, Any], *, credential: str | None, stream: bool, timeout: float
) -> dict[str, Any]:
    """Return the arguments of `litellm.acompletion` for OpenAI-style parameters."""
    given = {name: value for name, value in params.items() if name not in _SET_BY_US and value is not None}
    keywords = STANDARD | _MAPPED_FOR_OTHERS if deployment.provider in known.OTHER_WIRES else STANDARD
    arguments = _common(deployment, credential=credential, stream=stream, timeout=timeout)
    arguments |= {name: value for name, value in given.items() if name in keywords}
    extra = {name: value for name, value in given.items() if name not in keywords}
    if extra:
        arguments["extra_body"] = {**(arguments.get("extra_body") or {}), **extra}
    if stream and (options := stream_options(deployment, params.get("stream_options"))):
        arguments["stream_options"] = options
    return arguments


def minimal_arguments(deployment: Deployment, *, credential: str | None, stream: bool, timeout: float) -> dict[str, Any]:
    """Return the arguments for a call whose body is ours: LiteLLM sees no history that it could stumble over."""
    arguments = _common(deployment, credential=credential, stream=stream, timeout=timeout)
    return {**arguments, "messages": [dict(message) for message in MINIMAL_MESSAGES]}


def _common(deployment: Deployment, *, credential: str | None, stream: bool, timeout: float) -> dict[str, Any]:
    arguments: dict[str, Any] = {"num_retries": 0, "max_retries": 0, "timeout": timeout, "no-log": True, "caching": False}
    # With tools LiteLLM asks its MCP gateway first, which needs a package that a plain install has not, and which would run tools
    # here that the client declared; this keeps a declared tool a declared tool.
    arguments["_skip_mcp_handler"] = True
    arguments |= {name: value for name, value in deployment.params.items() if value is not None and name not in known.ROUTER_ONLY}
    if deployment.passthrough:
        arguments["api_key"] = credential
    return {**arguments, "model": deployment.model, "stream": stream}


def stream_options(deployment: Deployment, asked: Any) -> dict[str, Any] | None:  # noqa: ANN401 - the client's JSON
    """Return the `stream_options` to send: the client's, with usage always asked for where the provider knows it."""
    options = dict(asked) if isinstance(asked, Mapping) else {}
    if deployment.include_usage:
        return {**options, "include_usage": True}
    options.pop("include_usage", None)
    return options or None


def allow_unlisted(arguments: dict[str, Any], supported: Iterable[str] | None) -> None:
    """Let through the valid fields that LiteLLM's model table does not know yet; listed ones it goes on mapping."""
    listed = set(supported or ()) | {"messages"}
    unlisted = sorted(name for name in arguments.keys() & STANDARD if name not in listed)
    if unlisted:
        arguments["allowed_openai_params"] = [*(arguments.get("allowed_openai_params") or ()), *unlisted]


def secrets_of(deployment: Deployment, credential: str | None) -> tuple[str, ...]:
    """Return the credentials that a call uses, so that they can be taken out of what the provider says."""
    headers = {**(deployment.params.get("extra_headers") or {}), **(deployment.params.get("headers") or {})}
    named = {**headers, **deployment.params}
    ambient = os.environ.get(f"{deployment.provider.upper()}_API_KEY")
    found = [value for name, value in named.items() if isinstance(value, str) and _is_secret(name)]
    return tuple(secret for secret in (*found, ambient, credential) if secret)


def _is_secret(name: str) -> bool:
    return any(part in name.lower() for part in _SECRET_NAMES) and name not in _NOT_SECRET


def visible(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a record may show: no credentials, no headers, nothing of LiteLLM's own workings."""
    hidden = {
        "client",
        "extra_headers",
        "headers",
        "no-log",
        "_skip_mcp_handler",
        "caching",
        "num_retries",
        "max_retries",
        "timeout",
        "litellm_logging_obj",
    }
    return {name: value for name, value in arguments.items() if name not in hidden and not _is_secret(name)}
