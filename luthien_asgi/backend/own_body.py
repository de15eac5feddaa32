"""OpenAI-style requests whose body LiteLLM does not map: the providers of `known.OWN_BODY`.

Strategy: LiteLLM is called with a minimal message and the operator's `litellm_params`; for URL, credentials, headers, the
model's name and the mapping of those defaults. The client's fields take LiteLLM's place in the body that leaves. So what a client
sends is what the provider gets and judges, a field that LiteLLM's table does not know for a model included.

A model whose `litellm_params` say `drop_params` or the like asks for LiteLLM's mapping, and gets it. Of a body that we converted
from the other format LiteLLM keeps the name of `max_tokens`, which is `max_completion_tokens` for reasoning models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi.backend import known
from luthien_asgi.backend.arguments import minimal_arguments, stream_options
from luthien_asgi.backend.azure import plain_azure
from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.rewrite import ATTEMPT

__all__ = ["Way", "own_arguments", "own_fields", "way_of"]

_MAPPING_ASKED_FOR: Final = frozenset({"additional_drop_params", "cache_control_injection_points", "drop_params"})
_NAMED_BY_LITELLM: Final = frozenset({"max_tokens"})
_LENGTHS: Final = frozenset({"max_completion_tokens", "max_tokens"})
_LITELLMS_OWN: Final = frozenset({"messages", "metadata"})
"""Names that mean something else as arguments of LiteLLM."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a body of ours reaches the provider."""

    name: known.WayName
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What LiteLLM is called with for it."""


def way_of(litellm: Any, deployment: Deployment, credential: str | None) -> Way | None:  # noqa: ANN401
    """Return how a body of ours reaches the provider, or None where LiteLLM's mapping is wanted."""
    row = known.OWN_BODY.get(deployment.provider)
    if row is None or litellm.drop_params or any(deployment.params.get(name) for name in _MAPPING_ASKED_FOR):
        return None
    azure = plain_azure(litellm, deployment, credential) if deployment.provider == "azure" else None
    return Way(row.way) if azure is None else Way("client", azure.arguments())


def own_fields(params: Mapping[str, Any], *, converted: bool) -> dict[str, Any]:
    """Return the fields of the body that LiteLLM has no part in."""
    return {name: value for name, value in params.items() if not (converted and name in _NAMED_BY_LITELLM)}


def own_arguments(
    deployment: Deployment,
    params: Mapping[str, Any],
    *,
    way: Way,
    converted: bool,
    credential: str | None,
    timeout: float,
) -> dict[str, Any]:
    """Return the arguments of `litellm.acompletion` for a body of ours."""
    said = {name for name, value in params.items() if value is not None}
    said |= _LENGTHS if said & _LENGTHS else set()
    arguments = minimal_arguments(deployment, credential=credential, stream=True, timeout=timeout)
    arguments = {name: value for name, value in arguments.items() if name not in said - ATTEMPT - _LITELLMS_OWN}
    if "/" not in deployment.model and "custom_llm_provider" not in arguments:
        # LiteLLM would look for the provider in the address instead.
        arguments["model"] = f"{deployment.provider}/{deployment.model}"
    if converted:
        arguments |= {name: params[name] for name in _NAMED_BY_LITELLM if name in params}
    if options := stream_options(deployment, params.get("stream_options")):
        arguments["stream_options"] = options
    arguments |= way.arguments
    if way.name == "extra_body":
        arguments["extra_body"] = _extra_body(deployment, own_fields(params, converted=converted))
    return arguments


def _extra_body(deployment: Deployment, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the SDK puts over the body that LiteLLM made; null is as good as absent where the operator has a default."""
    defaults = deployment.params.get("extra_body") or {}
    fields = {
        name: value
        for name, value in body.items()
        if name not in ATTEMPT and not (value is None and (name in deployment.params or name in defaults))
    }
    return {**defaults, **fields}
