"""The public names: adding one is a decision."""

from __future__ import annotations

import inspect

import pytest

import luthien_asgi

EXPECTED = [
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


def test_the_public_names_are_these() -> None:
    """Exactly these, sorted, and `dir()` shows them."""
    assert luthien_asgi.__all__ == EXPECTED == sorted(EXPECTED)
    assert dir(luthien_asgi) == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_each_public_name_is_there_and_says_what_it_is(name: str) -> None:
    """It can be imported, and has a docstring."""
    assert inspect.getdoc(getattr(luthien_asgi, name))


def test_another_name_is_an_attribute_error() -> None:
    """A typo is told as Python tells it."""
    with pytest.raises(AttributeError, match="Middelware"):
        _ = luthien_asgi.Middelware
