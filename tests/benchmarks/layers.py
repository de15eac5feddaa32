"""The middleware as it is measured: the layers, and one app that has them all, each under a path of its own.

    none      no policy, no recorder
    jsonl     a JsonlRecorder
    replace   `ReplaceText` with two strings
    rewrite   both: what the figures of a text policy mean
    held      tool calls wait for a judge that takes `JUDGE_SECONDS`, and a JsonlRecorder

The package is imported when an app is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import shapes
from policies import POLICIES
from shapes import Shape
from starlette.applications import Starlette

__all__ = ["LAYERS", "app", "model_name", "path"]

_PROVIDERS: Final = {"openai": "/v1", "anthropic": ""}
_PATHS: Final = {"openai": "v1/chat/completions", "anthropic": "v1/messages"}
LAYERS: Final[dict[str, tuple[str | None, bool]]] = {
    "none": (None, False),
    "jsonl": (None, True),
    "replace": ("replace", False),
    "rewrite": ("replace", True),
    "held": ("judge", True),
}
"""Policy of `policies.py`, and whether there is a recorder."""


def path(layer: str, client: str) -> str:
    """Return where a client of a format asks."""
    return f"/{layer}/{_PATHS[client]}"


def model_name(provider: str, shape: Shape) -> str:
    """Return the model that a client asks for."""
    return f"{provider}-{shape.name}"


def app(upstream: str, records: Path) -> Any:
    """Return the middleware, each layer with a path and a backend of its own."""
    from luthien_asgi import JsonlRecorder, LiteLLMBackend, LuthienMiddleware, Paths

    models = [_model(upstream, provider, shape) for provider in _PROVIDERS for shape in shapes.ALL]
    made: Any = Starlette()
    for name, (policy, recorded) in LAYERS.items():
        options = {"policy": POLICIES[policy]()} if policy else {}
        if recorded:
            options["recorder"] = JsonlRecorder(records / f"{name}.jsonl")
        paths = Paths(chat=path(name, "openai"), messages=path(name, "anthropic"), count_tokens=None)
        made = LuthienMiddleware(made, backend=LiteLLMBackend(model_list=models, freeze=True), auth=None, paths=paths, **options)
    return made


def _model(upstream: str, provider: str, shape: Shape) -> dict[str, Any]:
    base = f"{upstream}/{shape.path}{_PROVIDERS[provider]}"
    return {
        "model_name": model_name(provider, shape),
        "litellm_params": {"model": f"{provider}/x", "api_base": base, "api_key": "k"},
    }
