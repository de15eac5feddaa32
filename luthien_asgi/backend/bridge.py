"""Models that are reached through their provider's Responses API only, by LiteLLM's bridge from chat completions.

LiteLLM takes it for models that its table lists so (gpt-5-codex, o3-pro), for names with `responses/` in them, and for newer
models of OpenAI's that refuse function tools in chat completions. What comes back goes through its own iteration. Two things
stand in the way of it here:

1. The bridge imports LiteLLM's MCP gateway before it looks whether it is wanted, and a plain install has not the package that
   this needs (`mcp`). Where that is so, a module takes its place that wants nothing; what could never be imported is missed by
   nobody. Tools of MCP servers are refused long before.
2. The Responses API keeps answers unless it is told not to, chat completions do not: `store: false` goes with the call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Mapping
from typing import Any, Final

from luthien_asgi.backend.model_table import Modes
from luthien_asgi.backend.models import Deployment

__all__ = ["NOTE", "takes_bridge", "with_bridge"]

NOTE: Final = "fallback: LiteLLM's bridge to the provider's Responses API"
_GATEWAY: Final = "litellm.responses.mcp.litellm_proxy_mcp_handler"


class _NoGateway:
    """Stands for LiteLLM's MCP gateway where it cannot be imported."""

    @staticmethod
    def should_use_litellm_mcp_gateway(tools: object = None) -> bool:
        """Tell that no tool is the gateway's."""
        del tools
        return False


def takes_bridge(modes: Modes, deployment: Deployment, arguments: Mapping[str, Any]) -> bool:
    """Tell whether LiteLLM would call the Responses API: by its own word where it can be asked, else by the model's name."""
    model = deployment.model.removeprefix(f"{deployment.provider}/")
    if model.startswith("responses/"):
        return "*" not in deployment.name  # under a wildcard the name is the client's, and the API is not for it to choose
    with contextlib.suppress(Exception):
        return modes.mode(model, deployment.provider, arguments) == "responses"
    return False


def with_bridge(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for a call that takes the bridge, after making sure that the bridge can be imported."""
    if _GATEWAY not in sys.modules and importlib.util.find_spec("mcp") is None:
        gateway: Any = types.ModuleType(_GATEWAY, "In the place of a module that needs a package which is not installed.")
        gateway.LiteLLM_Proxy_MCP_Handler = _NoGateway
        sys.modules[_GATEWAY] = gateway
    return {"store": False, **arguments}
