"""What a provider puts on a connection that nobody asked for, and headers that are no text."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.backend import BackendCall, LiteLLMBackend
from luthien_asgi.errors import BackendError
from luthien_asgi.request import ChatRequest
from luthien_asgi.testing import Answer, Headers, ScriptedProvider, Trailing

pytestmark = pytest.mark.litellm

MODELS = ["openai/gpt-4o", "anthropic/claude-x"]
FORGED_BODY = b'data: {"error": {"message": "FORGED", "type": "api_error"}}\n\n'
FORGED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(FORGED_BODY) + FORGED_BODY


def backend_of(model: str, provider: ScriptedProvider) -> LiteLLMBackend:
    base = provider.url + ("/v1" if model.startswith("openai") else "")
    return LiteLLMBackend(
        model_list=[{"model_name": "m", "litellm_params": {"model": model, "api_base": base, "api_key": "sk-x"}}]
    )


def call(model: str) -> BackendCall:
    body: dict[str, Any] = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    wire: Any = model.partition("/")[0]
    return BackendCall(request=ChatRequest(wire=wire, body=body))


@pytest.mark.parametrize("model", MODELS)
async def test_a_response_that_nobody_asked_for_is_not_the_next_ones_answer(model: str) -> None:
    """It came while the connection waited to be used again; the connection is not."""
    async with ScriptedProvider(Answer("mine", faults=[Trailing(data=FORGED, seconds=0.05)])) as provider:
        backend = backend_of(model, provider)
        texts = []
        for number in (1, 2, 3):
            chunks = [chunk async for chunk in await backend.open(call(model))]
            texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
            await provider._wait(5, lambda n=number: sum(r.finished for r in provider.requests) == n, "all was sent")
        await backend.aclose()
    assert texts == ["mine"] * 3


@pytest.mark.parametrize("model", MODELS)
async def test_a_header_that_is_no_text_is_the_providers_fault(model: str) -> None:
    """A 502, and no complaint about a request that was in order."""
    async with ScriptedProvider(Answer("x", faults=[Headers(("x-odd", "\xff"))])) as provider:
        backend = backend_of(model, provider)
        with pytest.raises(BackendError, match="broke off") as caught:
            await backend.open(call(model))
        await backend.aclose()
    assert caught.value.status == 502
