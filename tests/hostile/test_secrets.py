"""Credentials are in no log, record, error, header, span or representation, whatever fails and whoever repeats them."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hostile_stage import FORMATS, Canary, Stage, gateway, nothing, question
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from luthien_asgi import (
    Block,
    BlockKind,
    ConfigError,
    Hold,
    JsonlRecorder,
    KeyAuth,
    LiteLLMBackend,
    LuthienMiddleware,
    Policy,
    StreamContext,
)
from luthien_asgi.cli import main
from luthien_asgi.telemetry import open_telemetry
from luthien_asgi.testing import Answer, Disconnect, ErrorEvent, Failure, RawStream, ScriptedProvider

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(300)]

KEYS: Mapping[str, str] = {
    "client": "sk-client-PLANTED0123456789abcdefghijkl",
    "provider": "sk-provider-PLANTED0123456789abcdefghij",
    "azure": "0123456789abcdefPLANTED789abcdef",
    "header": "PLANTEDheadersecret0123456789",
    "environment": "sk-environment-PLANTED0123456789abcdef",
}
"""Every one holds the word, so that a half of one shows too."""


class Raises(Policy):
    """Fails with the keys in its words, where the text says so."""

    handles = {BlockKind.TEXT: Hold()}  # noqa: RUF012

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        if "raise" in block.text:
            raise ValueError(f"the policy knows {KEYS['environment']} and password={KEYS['header']}")


def listed(url: str, canary: Canary) -> list[dict[str, Any]]:
    def entry(name: str, model: str, base: str, key: str, **more: Any) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": KEYS[key], **more}}

    extra = {"extra_headers": {"x-tenant-secret": KEYS["header"]}}
    refused = "http://127.0.0.1:1"
    return [
        entry("openai", "openai/gpt-4o", f"{url}/v1", "provider", **extra),
        entry("anthropic", "anthropic/claude-x", url, "provider", **extra),
        entry("azure", "azure/gpt-4o", url, "azure", api_version="2024-10-21"),
        entry("mapped", "mistral/mistral-small-latest", f"{url}/v1", "provider", **extra),
        entry("foreign", "ollama_chat/llama3", url, "provider"),
        entry("refused", "openai/gpt-4o", f"{refused}/v1", "provider"),
        entry("refused-a", "anthropic/claude-x", refused, "provider"),
        entry("no-tls", "openai/gpt-4o", f"https://127.0.0.1:{canary.port}/v1?api-key={KEYS['azure']}", "provider"),
        entry("unknown-host", "mistral/mistral-small-latest", "http://planted.invalid/v1", "provider"),
    ]


class Kept:
    """Everything that anybody could read later."""

    def __init__(self, records: Path, spans: InMemorySpanExporter) -> None:
        self.records, self.spans = records, spans
        self.answers: list[str] = []

    def all(self, logged: str) -> dict[str, str]:
        spans = [json.loads(span.to_json()) for span in self.spans.get_finished_spans()]
        return {
            "log": logged,
            "records": "".join(path.read_text(encoding="utf-8") for path in sorted(self.records.rglob("*")) if path.is_file()),
            "answers": "\n".join(self.answers),
            "spans": json.dumps(spans),
        }


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "records", InMemorySpanExporter())


@pytest.fixture
def app(kept: Kept, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LuthienMiddleware, ScriptedProvider]]:
    monkeypatch.setenv("MISTRAL_API_KEY", KEYS["environment"])
    kept.records.mkdir()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(kept.spans))
    with ScriptedProvider(Answer("fine")) as provider:
        app = LuthienMiddleware(
            nothing,
            backend=LiteLLMBackend(model_list=listed(provider.url, canary)),
            auth=KeyAuth({"someone": KEYS["client"]}),
            policy=Raises(),
            recorder=JsonlRecorder(str(kept.records / "transactions.jsonl")),
            telemetry=open_telemetry(tracer_provider=tracing, meter_provider=MeterProvider()),
        )
        yield app, provider


def failures() -> Iterator[Any]:
    """What providers say when they fail, with keys in it."""
    key, azure = KEYS["provider"], KEYS["azure"]
    messages = (
        f"Incorrect API key provided: {key}.",
        f"got Authorization: Bearer {key}",
        f"see https://user:{azure}@example.com/a?api-key={azure}&sig={azure}",
        json.dumps({"headers": {"x-api-key": key, "api-key": azure, "cookie": f"s={azure}"}}),
    )
    for status, message in zip((400, 401, 403, 404, 413, 429, 500, 529), messages * 2, strict=True):
        yield Failure(status, message=message, headers={"x-request-id": key, "retry-after": "1"})
    for message in messages:
        yield RawStream(message.encode(), content_type="text/plain", status=500)
        yield Answer("one", faults=[ErrorEvent(after=2, message=message)])
    yield RawStream(b"", status=307, headers={"location": f"http://127.0.0.1:1/?key={key}"})
    yield RawStream(b"", status=302, headers={"location": f"http://u:{azure}@127.0.0.1:1/"})
    yield RawStream(f"data: {{{key}\n\n".encode())
    yield Answer("one", faults=[Disconnect(after=1)])
    yield Answer("one", faults=[Disconnect()])
    yield Answer("please raise")
    yield Answer("fine")


def test_keys_are_nowhere(
    serve: Any, app: Any, kept: Kept, canary: Canary, caplog: pytest.LogCaptureFixture, leaving: Any
) -> None:
    """Each failure, at each provider, for each client format, streaming or not, with every logger at DEBUG."""
    middleware, provider = app
    stage = Stage(provider, canary, serve(middleware, lifespan="on"))
    bearer = {"authorization": f"Bearer {KEYS['client']}"}
    with caplog.at_level(logging.DEBUG):
        for reply in failures():
            provider.script = reply
            for wire in FORMATS:
                for model in ("openai", "anthropic", "azure", "mapped"):
                    note(kept, stage, wire, question(wire, model, stream=wire != "openai"), bearer)
        for model in ("foreign", "refused", "refused-a", "no-tls", "unknown-host"):
            note(kept, stage, "openai", question("openai", model), bearer)
        note(kept, stage, "openai", question("openai", "openai"), {"authorization": f"Bearer {KEYS['client']}x"})
        note(kept, stage, "anthropic", question("anthropic", "openai"), {"x-api-key": f"{KEYS['client']}x"})
        note(kept, stage, "openai", question("openai", f"none-{KEYS['client']}"[:4]), bearer)
    stage.close()
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records if record.name.startswith("luthien"))
    for where, text in kept.all(logged).items():
        assert len(text) > 100, where
        found = text.find("PLANTED")
        assert found < 0, (where, text[max(0, found - 300) : found + 100])
    assert "PLANTED" not in repr(middleware) + repr(middleware._services) + repr(vars(middleware))
    leaving.wait()
    leaving.taken("broken_off")


def note(kept: Kept, stage: Stage, wire: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    try:
        got = stage.ask(wire, body, headers=headers)
    except http.client.IncompleteRead:
        return
    kept.answers.append(f"{dict(got.headers)} {got.body.decode()}")
    stage.calls()


@pytest.mark.parametrize("name", ["api_base", "base_url"])
@pytest.mark.parametrize("base", ["https://user:{0}@example.com/v1", "//{0}@example.com", "https://{0}:@h:1/v1?x=1"])
def test_an_address_with_a_credential_is_refused_when_it_is_read(
    name: str, base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to do instead, and without the credential."""
    params = {"model": "openai/gpt-4o", "api_key": "x", name: base.format(KEYS["azure"])}
    models = [{"model_name": "m", "litellm_params": params}]
    with pytest.raises(ConfigError) as caught:
        LiteLLMBackend(model_list=models)
    assert f"{name} holds a user or a password: give the key as api_key" in str(caught.value)
    file = tmp_path / "luthien.yaml"
    file.write_text(json.dumps({"model_list": models}))
    assert main(["check", "--config", str(file)]) == 2
    shown = capsys.readouterr()
    assert "PLANTED" not in f"{caught.value}{shown.out}{shown.err}"


@pytest.mark.parametrize("base", ["https://example.com/v1/@user", "https://example.com?a=b@c", "http://[::1]:1/v1", "host/@x"])
def test_an_at_sign_elsewhere_is_none(base: str) -> None:
    """In a path or a query."""
    LiteLLMBackend(model_list=[{"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "x", "api_base": base}}])


@pytest.mark.parametrize(
    "base", ["https://example.com/v1\r\nx: y", "https://exa mple.com", "https://e\x00.com", "https://e\u202e.com"]
)
def test_an_address_is_printable(base: str) -> None:
    """What is not would be a header or a surprise."""
    with pytest.raises(ConfigError, match="spaces or control characters"):
        LiteLLMBackend(
            model_list=[{"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "x", "api_base": base}}]
        )


def test_gateways_have_no_keys_in_their_representation() -> None:
    """Of the public objects that are given some."""
    entry = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": KEYS["provider"]}}
    backend = LiteLLMBackend(model_list=[entry])
    shown = repr([backend, vars(backend), KeyAuth({"a": KEYS["client"]})])
    assert "PLANTED" not in shown
    assert gateway("http://127.0.0.1:1") is not None
