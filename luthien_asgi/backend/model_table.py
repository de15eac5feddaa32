"""What LiteLLM's table of models says about a deployment. A model that it does not list is taken to know everything."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.recent import Recent
from luthien_asgi.errors import BackendError, RequestError
from luthien_asgi.wire.conversion import Converted

__all__ = ["Modes", "check_chat", "check_provider", "is_adaptive", "supported_params", "without_unknown"]

_CLAUDE: Final = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_ADAPTIVE_SINCE: Final = (4, 6)
"""The first version of Claude that takes `thinking: adaptive`, for models that LiteLLM does not list."""
_NO_ARGUMENTS: Final[Mapping[str, Any]] = MappingProxyType({})
_RESPONSES: Final = "responses/"
"""With this in front of any model's name LiteLLM calls the Responses API, as for those that its table has there."""


def _listed(litellm: Any, deployment: Deployment) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the table's row: of the base model where the operator names one, else of the model at its provider."""
    base = deployment.info.get("base_model") or deployment.params.get("base_model")
    name = str(base or _bare(deployment))
    if row := litellm.model_cost.get(f"{deployment.provider}/{name}"):
        return dict(row)
    row = litellm.model_cost.get(name) or {}
    return dict(row) if row.get("litellm_provider") == deployment.provider else {}


def _bare(deployment: Deployment) -> str:
    return deployment.model.removeprefix(f"{deployment.provider}/")


class Modes:
    """How LiteLLM would call models: `chat`, `responses`, …; what it said is used for a minute.

    Of a request's tools it looks at what they are, not at what they say (LiteLLM 1.106, `main.responses_api_bridge_check`).
    """

    def __init__(self, litellm: Any) -> None:  # noqa: ANN401
        self._litellm = litellm
        self._recent = Recent[str]()

    def mode(self, model: str, provider: str, arguments: Mapping[str, Any] = _NO_ARGUMENTS) -> str:
        """Return the mode for a model, and for arguments where they decide too; "" for what LiteLLM does not know."""
        shapes = frozenset(_shape(tool) for tool in arguments.get("tools") or ())
        base, effort = arguments.get("api_base") or arguments.get("base_url"), arguments.get("reasoning_effort")
        settings = (self._litellm.route_all_chat_openai_to_responses, self._litellm.api_base)
        ambient = (os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_BASE"))
        key = (model, provider, shapes, repr(effort), base, settings, ambient)
        mode = self._recent.get(key)
        if mode is None:
            mode = self._asked(model, provider, arguments.get("tools"), effort, base)
            self._recent.put(key, mode)
        return mode

    def _asked(self, model: str, provider: str, tools: Any, effort: Any, base: str | None) -> str:  # noqa: ANN401
        found, _ = self._litellm.main.responses_api_bridge_check(
            model=model, custom_llm_provider=provider, tools=tools, reasoning_effort=effort, api_base=base
        )
        return str(found.get("mode") or "")


def _shape(tool: Any) -> tuple[Any, ...]:  # noqa: ANN401 - the client's JSON
    if not isinstance(tool, Mapping):
        return (type(tool),)
    return (str(tool.get("type")), isinstance(tool.get("function"), dict), "name" in tool)


def check_chat(modes: Modes, deployment: Deployment) -> None:
    """Raise `RequestError` for a model that LiteLLM would call through the Responses API: it needs packages for that."""
    name = _bare(deployment)
    if modes.mode(name, deployment.provider) == "responses":
        shown = name.removeprefix(_RESPONSES)[:200]
        msg = f"the model {shown!r} is served through OpenAI's Responses API, which is not called from here"
        raise RequestError(msg, status=404, code="unsupported_model", param="model")


def is_adaptive(litellm: Any, model: str) -> bool:  # noqa: ANN401
    """Tell whether a Claude model takes `thinking: adaptive`."""
    listed = litellm.model_cost.get(model.partition("/")[2])
    if listed:
        return bool(listed.get("supports_adaptive_thinking"))
    version = _CLAUDE.search(model)
    return version is not None and tuple(int(part or 0) for part in version.groups()) >= _ADAPTIVE_SINCE


def check_provider(litellm: Any, deployment: Deployment) -> None:  # noqa: ANN401
    """Raise `BackendError` for a provider that LiteLLM does not know: the model's entry is wrong, not the request."""
    name = deployment.provider
    custom = {entry.get("provider") for entry in litellm.custom_provider_map}
    if name and name not in custom and not _is_known(name, litellm.get_llm_provider):
        raise BackendError(f"the entry of this model names a provider that LiteLLM does not know: {name[:100]!r}", status=500)


@lru_cache(maxsize=256)
def _is_known(provider: str, look_up: Callable[..., Any]) -> bool:
    try:
        look_up(model=f"{provider}/x")
    except Exception:
        return False
    return True


def supported_params(litellm: Any, deployment: Deployment) -> Sequence[str]:  # noqa: ANN401
    """Return the OpenAI parameters that LiteLLM maps for a model."""
    with contextlib.suppress(Exception):
        return litellm.get_supported_openai_params(model=_bare(deployment), custom_llm_provider=deployment.provider or None) or ()
    return ()


def without_unknown(litellm: Any, deployment: Deployment, converted: Converted) -> tuple[dict[str, Any], tuple[str, ...]]:  # noqa: ANN401
    """Return the parameters and what is ignored with notice: an effort of ours says nothing to a model that does not reason."""
    listed = _listed(litellm, deployment) if converted.droppable else {}
    if not listed or listed.get("supports_reasoning"):
        return converted.params, converted.ignored
    params = {name: value for name, value in converted.params.items() if name not in converted.droppable}
    return params, tuple(dict.fromkeys((*converted.ignored, *converted.droppable.values())))
