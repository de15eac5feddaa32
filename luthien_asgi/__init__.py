"""Put a policy between your programs and any language model, while the answer streams.

Wrap an ASGI app with `LuthienMiddleware`, or run `luthien-asgi serve`. The names here are the public ones; they are loaded when
they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from luthien_asgi.approval_values import Approval, Decision
    from luthien_asgi.approvals import Approvals
    from luthien_asgi.auth import KeyAuth
    from luthien_asgi.backend import Backend, BackendCall, BackendStream, LiteLLMBackend, Target
    from luthien_asgi.blocks import Block, BlockKind
    from luthien_asgi.chunk_edits import with_text
    from luthien_asgi.chunks import Chunk, read_part
    from luthien_asgi.clients import Client, ClientKey
    from luthien_asgi.compose import Chain, Governed, Together
    from luthien_asgi.context import ModelAnswer, ObservabilityContext, PolicyContext, StreamContext
    from luthien_asgi.errors import (
        ApiError,
        BackendError,
        BackendTimeout,
        ConfigError,
        PolicyError,
        PolicyTimeout,
        QueueFullError,
        RequestDenied,
        RequestError,
    )
    from luthien_asgi.jsonl import JsonlRecorder
    from luthien_asgi.jsonl_reading import read_transactions
    from luthien_asgi.middleware import LuthienMiddleware
    from luthien_asgi.policy import Handling, Hold, Observe, Policy, Transform, blocking
    from luthien_asgi.recorder import (
        Begin,
        End,
        MemoryRecorder,
        ModelCall,
        NullRecorder,
        SampleRecord,
        TransactionRecorder,
        VerdictRecord,
    )
    from luthien_asgi.request import ChatRequest, RequestBlock, RequestTool
    from luthien_asgi.routes import Paths
    from luthien_asgi.runs import Run
    from luthien_asgi.settings import Limits, StreamSettings
    from luthien_asgi.telemetry import open_telemetry
    from luthien_asgi.verdicts import Allow, Defer, Deny, Escalate, Replace, Resample, Stop, Verdict

__version__: Final = "0.1.0"

_MODULES: Final = {
    "approval_values": ("Approval", "Decision"),
    "approvals": ("Approvals",),
    "auth": ("KeyAuth",),
    "backend": ("Backend", "BackendCall", "BackendStream", "LiteLLMBackend", "Target"),
    "blocks": ("Block", "BlockKind"),
    "chunk_edits": ("with_text",),
    "chunks": ("Chunk", "read_part"),
    "clients": ("Client", "ClientKey"),
    "compose": ("Chain", "Governed", "Together"),
    "context": ("ModelAnswer", "ObservabilityContext", "PolicyContext", "StreamContext"),
    "errors": (
        "ApiError",
        "BackendError",
        "BackendTimeout",
        "ConfigError",
        "PolicyError",
        "PolicyTimeout",
        "QueueFullError",
        "RequestDenied",
        "RequestError",
    ),
    "jsonl": ("JsonlRecorder",),
    "jsonl_reading": ("read_transactions",),
    "middleware": ("LuthienMiddleware",),
    "policy": ("Handling", "Hold", "Observe", "Policy", "Transform", "blocking"),
    "recorder": (
        "Begin",
        "End",
        "MemoryRecorder",
        "ModelCall",
        "NullRecorder",
        "SampleRecord",
        "TransactionRecorder",
        "VerdictRecord",
    ),
    "request": ("ChatRequest", "RequestBlock", "RequestTool"),
    "routes": ("Paths",),
    "runs": ("Run",),
    "settings": ("Limits", "StreamSettings"),
    "telemetry": ("open_telemetry",),
    "verdicts": ("Allow", "Defer", "Deny", "Escalate", "Replace", "Resample", "Stop", "Verdict"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Allow",
    "ApiError",
    "Approval",
    "Approvals",
    "Backend",
    "BackendCall",
    "BackendError",
    "BackendStream",
    "BackendTimeout",
    "Begin",
    "Block",
    "BlockKind",
    "Chain",
    "ChatRequest",
    "Chunk",
    "Client",
    "ClientKey",
    "ConfigError",
    "Decision",
    "Defer",
    "Deny",
    "End",
    "Escalate",
    "Governed",
    "Handling",
    "Hold",
    "JsonlRecorder",
    "KeyAuth",
    "Limits",
    "LiteLLMBackend",
    "LuthienMiddleware",
    "MemoryRecorder",
    "ModelAnswer",
    "ModelCall",
    "NullRecorder",
    "ObservabilityContext",
    "Observe",
    "Paths",
    "Policy",
    "PolicyContext",
    "PolicyError",
    "PolicyTimeout",
    "QueueFullError",
    "Replace",
    "RequestBlock",
    "RequestDenied",
    "RequestError",
    "RequestTool",
    "Resample",
    "Run",
    "SampleRecord",
    "Stop",
    "StreamContext",
    "StreamSettings",
    "Target",
    "Together",
    "TransactionRecorder",
    "Transform",
    "Verdict",
    "VerdictRecord",
    "blocking",
    "open_telemetry",
    "read_part",
    "read_transactions",
    "with_text",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Load a public name from its module."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
