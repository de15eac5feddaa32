"""Addresses of images and documents are the provider's to fetch: this process connects to nobody that a client names.

Decision: where a provider's own wire takes an address, it is passed on as it is. Where LiteLLM would fetch it here, to put the
bytes into the request, the request is a 400; data URLs go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hostile_stage import FORMATS, KEY, Canary, Stage, gateway, question
from hostile_watch import watching

from luthien_asgi.testing import Answer, ScriptedProvider

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

DATA = "data:image/png;base64,iVBORw0KGgo="
KINDS: Mapping[str, Mapping[str, Any]] = {
    "openai": {"model": "openai/gpt-4o"},
    "vllm": {"model": "hosted_vllm/any"},
    "mapped": {"model": "mistral/mistral-small-latest"},
    "whole": {"model": "groq/llama-3.3-70b-versatile", "stream": False},
    "openrouter": {"model": "openrouter/anthropic/claude-3.5-sonnet"},
    "azure_ai": {"model": "azure_ai/some-model"},
    "anthropic": {"model": "anthropic/claude-x"},
    "ollama": {"model": "ollama_chat/llava"},
    "gemini": {"model": "gemini/gemini-2.0-flash"},
    "vertex": {
        "model": "vertex_ai/gemini-2.0-flash",
        "vertex_project": "p",
        "vertex_location": "us-central1",
    },
    "bedrock": {
        "model": "bedrock/anthropic.claude-3-sonnet-20240229-v1:0",
        "aws_access_key_id": "AKIAPLANTED000000000",
        "aws_secret_access_key": "x" * 40,
        "aws_region_name": "us-east-1",
    },
}
"""Every wire that LiteLLM maps onto, and the ones that it does not."""
OF_LITELLM = frozenset({("127.0.0.1", 11434)})
"""Where LiteLLM asks what an Ollama model can do, whatever `api_base` is."""
FETCHED_HERE = frozenset({"ollama", "gemini", "vertex", "bedrock"})
"""Where LiteLLM would fetch."""


def addresses(canary: Canary) -> list[str]:
    port = canary.port
    return [
        f"http://127.0.0.1:{port}/a.png",
        f"HTTP://127.0.0.1:{port}/a.png",
        f" http://127.0.0.1:{port}/a.png",
        f"https://127.0.0.1:{port}/a.png",
        f"http://localhost:{port}/a.pdf",
        f"http://[::1]:{port}/a.png",
        f"http://2130706433:{port}/a.png",
        f"//127.0.0.1:{port}/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "file:///etc/hostname",
        "/etc/hostname",
        "gs://bucket/object",
        "s3://bucket/object",
        "ftp://127.0.0.1/a",
    ]


def bodies(wire: str, kind: str, url: str) -> Iterator[dict[str, Any]]:
    """Every place where an address may stand."""
    parts: list[dict[str, Any]]
    text: dict[str, Any] = {"type": "input_text" if wire == "responses" else "text", "text": "look"}
    if wire == "openai":
        parts = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "image_url", "image_url": url},
            {"type": "image_url", "image_url": {"url": url, "format": "image/png", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
            {"type": "file", "file": {"file_id": url}},
            {"type": "file", "file": {"file_id": url, "format": "application/pdf"}},
            {"type": "file", "file": {"file_data": url}},
            {"type": "file", "file": {"file_url": url, "filename": url}},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "document_url", "document_url": url},
            {"type": "audio_url", "audio_url": {"url": url}},
            {"type": "document", "source": {"type": "url", "url": url}},
            {"type": "image", "source": {"type": "url", "url": url}},
        ]
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for part in parts:
            yield question(wire, kind, messages=[{"role": "user", "content": [text, part]}])
        for part in parts[:4]:
            turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}]
            yield question(wire, kind, messages=[*turns, {"role": "tool", "tool_call_id": "c", "content": [part]}])
        image = {"type": "image_url", "image_url": {"url": url}}
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "look", "images": [image]}]
        yield question(wire, kind, messages=[*turns, {"role": "user", "content": "go on"}])
    elif wire == "anthropic":
        parts = [
            {"type": "image", "source": {"type": "url", "url": url}},
            {"type": "document", "source": {"type": "url", "url": url}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": url}},
            {"type": "document", "source": {"type": "file", "file_id": url}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": url}, "title": url},
        ]
        use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
        for part in parts:
            yield question(wire, kind, messages=[{"role": "user", "content": [text, part]}])
            result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [part]}
            turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [use]}]
            yield question(wire, kind, messages=[*turns, {"role": "user", "content": [result]}])
    else:
        parts = [
            {"type": "input_image", "image_url": url},
            {"type": "input_image", "file_id": url},
            {"type": "input_file", "file_url": url},
            {"type": "input_file", "file_data": url, "filename": url},
            {"type": "input_file", "file_id": url},
        ]
        for part in parts:
            yield question(wire, kind, input=[{"role": "user", "content": [text, part]}])
            call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
            yield question(wire, kind, input=[call, {"type": "function_call_output", "call_id": "c", "output": [part]}])


@pytest.fixture(scope="module")
def many(serve: Any, canary: Canary) -> Iterator[Stage]:
    """A gateway with a model of each kind of provider."""
    with ScriptedProvider(Answer("fine")) as provider:
        models = []
        for name, params in KINDS.items():
            base = f"{provider.url}/v1" if name in {"openai", "vllm", "mapped", "whole", "openrouter"} else provider.url
            models.append({"model_name": name, "litellm_params": {"api_key": KEY, "api_base": base, **params}})
        stage = Stage(provider, canary, serve(gateway(provider.url, models=models), lifespan="on"))
        yield stage
        stage.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wire", FORMATS)
def test_no_address_of_a_client_is_connected_to(many: Stage, wire: str, kind: str) -> None:
    """Neither the one that it names nor one behind it; no file of this machine is opened, no name of a client looked up."""
    for url in addresses(many.canary):
        for body in bodies(wire, kind, url):
            with watching() as seen:
                got = many.ask(wire, body)
            assert set(seen.connected) <= many.allowed | OF_LITELLM, (url, body)
            assert set(seen.looked_up) <= {"127.0.0.1", *(["localhost"] if kind == "ollama" else [])}, (url, body)
            assert many.canary.called == []
            assert "/etc/hostname" not in seen.opened
            assert set(seen.ran) <= {"subprocess.Popen: 'uname'"}  # of the SDK, for a header
            if kind in FETCHED_HERE:
                assert got.status != 200 or url not in json.dumps([call.body for call in many.calls()])
    many.calls()


@pytest.mark.parametrize("wire", FORMATS)
def test_the_providers_own_wire_gets_the_address_as_it_is(many: Stage, wire: str) -> None:
    """It is the provider's to fetch or to refuse."""
    url = "http://169.254.169.254/latest/meta-data/"
    kind = "anthropic" if wire == "anthropic" else "openai"
    body = next(bodies(wire, kind, url))
    got = many.ask(wire, body)
    (call,) = many.calls()
    assert (got.status, url in json.dumps(call.body)) == (200, True)


@pytest.mark.parametrize("kind", sorted(FETCHED_HERE))
@pytest.mark.parametrize("wire", FORMATS)
def test_where_litellm_would_fetch_an_address_is_a_400_that_says_so(many: Stage, wire: str, kind: str) -> None:
    """In the client's format, with the message it is in."""
    got = many.ask(wire, next(bodies(wire, kind, "https://example.com/a.png")))
    assert (got.status, "data URLs only" in got.error()) == (400, True)
    assert many.calls() == []
