"""Where Azure's OpenAI is called, and with which key: the plain case, in which LiteLLM's own client is not needed.

Strategy: LiteLLM makes Azure's client itself and would keep one that it is given, for the host's calls too; so it is given
none. With an endpoint, an API key and a dated API version there is nothing that only LiteLLM knows: the call is made as one of
OpenAI's, with Azure's address and key in a client of ours. Everything else (tokens of Entra ID, the undated API, gateways) stays
with LiteLLM's client, and our body goes through `extra_body`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from luthien_asgi.backend.models import Deployment

__all__ = ["Azure", "plain_azure"]

_OTHER_CREDENTIALS: Final = ("azure_", "client_", "tenant_")
_OTHER_VARIABLES: Final = ("AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN", "AZURE_PASSWORD", "AZURE_USERNAME")
_UNDATED: Final = frozenset({"latest", "preview", "v1"})
_MORE_THAN_A_HOST: Final = ("/openai", "gateway.ai.cloudflare.com")
"""Parts of endpoints that LiteLLM reads more from."""


class Azure(NamedTuple):
    """One deployment of Azure's."""

    endpoint: str
    key: str
    version: str
    model: str

    def arguments(self) -> Mapping[str, Any]:
        """Return what makes LiteLLM's call one of OpenAI's."""
        return {
            "custom_llm_provider": "openai",
            "model": self.model,
            "api_base": self.endpoint,
            "api_key": self.key,
            "api_version": self.version,
        }


def plain_azure(litellm: Any, deployment: Deployment, credential: str | None) -> Azure | None:  # noqa: ANN401
    """Return endpoint, key and version as LiteLLM finds them, or None where the call is better left to its client."""
    params, model = deployment.params, deployment.model.removeprefix("azure/")
    common = importlib.import_module("litellm.llms.azure.common_utils")
    base, key, version = common.get_azure_credentials(
        api_base=params.get("api_base") or params.get("base_url"),
        api_key=credential or params.get("api_key"),
        api_version=params.get("api_version"),
    )
    version = version or litellm.AZURE_DEFAULT_API_VERSION
    if not base or not key or version in _UNDATED or "/" in model or any(part in base for part in _MORE_THAN_A_HOST):
        return None
    others = any(name.startswith(_OTHER_CREDENTIALS) for name in params) or any(name in os.environ for name in _OTHER_VARIABLES)
    return None if others else Azure(base, key, version, model)
