"""Connections to a provider: used again, with TLS too, by plain calls and by remembered ones."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi.errors import BackendError

pytestmark = pytest.mark.litellm

MODELS = ["openai/gpt-4o", "hosted_vllm/x", "anthropic/claude-x"]


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's context with a certificate that it signed itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([openssl, *made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=60)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("model", MODELS)
async def test_one_connection_is_enough_for_one_call_after_the_other(
    lab: Any, kit: Any, asked_litellm: list[str], tls: ssl.SSLContext, model: str
) -> None:
    """The handshake is made once: by the call that LiteLLM makes, and the ones after it go over the same connection."""
    provider = await lab.provider(lambda _: kit.answer(model), tls=tls)
    backend = lab.calling(model, provider.url, ssl_verify=False)
    for _ in range(5):
        await kit.collect(await backend.open(kit.ask(kit.own_wire(model))))
    assert (len(provider.asked), provider.connections, len(asked_litellm)) == (5, 1, 1)


@pytest.mark.parametrize("model", MODELS)
async def test_a_certificate_is_verified_for_remembered_calls_too(
    lab: Any, kit: Any, asked_litellm: list[str], tls: ssl.SSLContext, model: str
) -> None:
    """Nothing is sent to whom it cannot be verified, and the error is the same each time."""
    provider = await lab.provider(lambda _: kit.answer(model), tls=tls)
    backend = lab.calling(model, provider.url)
    errors = []
    for _ in range(2):
        with pytest.raises(BackendError) as caught:
            await backend.open(kit.ask(kit.own_wire(model)))
        errors.append((caught.value.status, caught.value.message))
    assert provider.asked == []
    assert errors[0] == errors[1]
    assert errors[0][0] == 502


async def test_a_proxy_of_the_environment_is_used(
    lab: Any, kit: Any, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each call: the proxy is asked for the provider's whole address."""
    proxy = await lab.provider(lambda _: kit.answer("openai/x"))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    backend = lab.calling("openai/gpt-4o", "http://provider.invalid")
    for _ in range(3):
        await kit.collect(await backend.open(kit.ask()))
    assert [asked.path for asked in proxy.asked] == ["http://provider.invalid/v1/chat/completions"] * 3
    assert len(asked_litellm) == 1


async def test_httpxs_own_transport_sends_remembered_calls_too(
    lab: Any, kit: Any, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where LiteLLM is told not to use aiohttp."""
    monkeypatch.setenv("DISABLE_AIOHTTP_TRANSPORT", "True")
    provider = await lab.provider(lambda _: kit.answer("openai/x"))
    backend = lab.calling("openai/gpt-4o", provider.url)
    for _ in range(3):
        await kit.collect(await backend.open(kit.ask()))
    assert len(asked_litellm) == 1
    assert len({asked.raw for asked in provider.asked}) == 1
