"""What a client sends is what a provider of its wire gets, byte for byte but for a short list of reasons.

The bodies are in `tests/corpus/requests`: every feature of both APIs, and values whose form is easily lost. Each goes through the
real middleware and the real LiteLLM to a provider on loopback.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi import Limits, LiteLLMBackend, LuthienMiddleware
from luthien_asgi.testing import Answer, ASGIDriver, ProviderRequest, ScriptedProvider

pytestmark = pytest.mark.litellm

CORPUS = Path(__file__).parent / "corpus" / "requests"
OPENAI_KINDS = {
    "openai": {"m": "openai/gpt-4o", "reasoning": "openai/gpt-5"},
    "azure": {"m": "azure/gpt-4o", "reasoning": "azure/o4-mini"},
    "azure_undated": {"m": "azure/gpt-4o", "reasoning": "azure/o3"},
    "hosted_vllm": {"m": "hosted_vllm/any", "reasoning": "hosted_vllm/any-r1"},
}
EXCEPTIONS: Mapping[str, str] = {
    "model": "the client's name for a model is the operator's; the provider gets its own",
    "stream": "every answer is streamed to us, and collected for a client that wants it whole",
    "stream_options": "usage is always asked for: policies and records want it; the client's other options stay",
}
"""What may differ, and why."""
NOT_SENT: Mapping[tuple[str, str], str] = {
    ("azure_undated", "unicode"): "LiteLLM's own client has no bytes for half a surrogate pair: a 400 says so",
}
ORDER_OF_FIELDS = {
    "azure_undated": "the SDK writes its own fields first, then `extra_body`; inside of a field the order is the client's"
}


@dataclass
class Body:
    name: str
    body: dict[str, Any]
    headers: dict[str, str]
    query: str

    @property
    def content(self) -> bytes:
        return json.dumps(self.body).encode("ascii")


def corpus(wire: str) -> list[Any]:
    found = sorted((CORPUS / wire).glob("*.json"))
    read = {path.stem: json.loads(path.read_bytes()) for path in found}
    bodies = [Body(name, doc["body"], doc.get("headers", {}), doc.get("query", "")) for name, doc in read.items()]
    return [pytest.param(body, id=body.name) for body in bodies]


class Way:
    """From a client's bytes to the provider's."""

    def __init__(self, provider: ScriptedProvider, driver: ASGIDriver) -> None:
        self.provider, self.driver = provider, driver

    async def post(self, path: str, body: Body) -> ProviderRequest:
        question = f"?{body.query}" if body.query else ""
        headers = {"content-type": "application/json", **body.headers}
        answer = await self.driver.fetch("POST", path + question, content=body.content, headers=headers)
        assert answer.status == 200, answer.body
        return (self.provider.requests or self.provider.other_requests)[-1]


@pytest.fixture
async def way(request: Any) -> AsyncIterator[Way]:
    """A way to a provider of the kind that the test asks for."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(ScriptedProvider(Answer("fine")))
        kind = getattr(request, "param", "anthropic")
        models = OPENAI_KINDS.get(kind, {"m": "anthropic/claude-x"})
        version = "preview" if kind == "azure_undated" else "2024-10-21"
        entries = [entry(name, model, provider.url, version) for name, model in models.items()]
        backend = LiteLLMBackend(model_list=entries)
        app = LuthienMiddleware(nothing, backend=backend, auth=None, limits=Limits(json_depth=64))
        stack.push_async_callback(app.aclose)
        yield Way(provider, ASGIDriver(app, within=60))


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Nobody asks the app behind."""
    raise AssertionError(scope["path"])


def entry(name: str, model: str, url: str, version: str = "") -> dict[str, Any]:
    kind = model.partition("/")[0]
    base = url if kind == "anthropic" else f"{url}/v1"
    azure = {"api_version": version, "api_base": url} if kind == "azure" else {}
    return {"model_name": name, "litellm_params": {"model": model, "api_base": base, "api_key": "sk-server-0123", **azure}}


def expected(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The body with the exceptions in it, and nothing else."""
    added: dict[str, Any] = {"model": model.partition("/")[2], "stream": True}
    if not model.startswith("anthropic/"):
        added["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    assert added.keys() <= EXCEPTIONS.keys()
    return {**body, **added}


def form(value: Any) -> str:
    """A value as text: 1 is not 1.0, and the order of keys counts."""
    return json.dumps(value)


def fields(body: Mapping[str, Any]) -> dict[str, str]:
    return {name: form(value) for name, value in body.items()}


@pytest.mark.parametrize(("kind", "way"), [(kind, kind) for kind in OPENAI_KINDS], indirect=["way"], ids=OPENAI_KINDS)
@pytest.mark.parametrize("body", corpus("openai"))
async def test_openai_bodies_arrive_as_they_were_sent(way: Way, kind: str, body: Body) -> None:
    """Field by field, and in the client's own order."""
    if (kind, body.name) in NOT_SENT:
        answer = await way.driver.fetch("POST", "/v1/chat/completions", content=body.content)
        assert (answer.status, "surrogate" in answer.json()["error"]["message"]) == (400, True)
        assert way.provider.requests == []
        return
    got = await way.post("/v1/chat/completions", body)
    wanted = expected(body.body, OPENAI_KINDS[kind][body.body["model"]])
    assert fields(json.loads(got.content)) == fields(wanted)
    if kind not in ORDER_OF_FIELDS:
        assert form(json.loads(got.content)) == form(wanted)


@pytest.mark.parametrize("body", corpus("anthropic"))
async def test_anthropic_bodies_arrive_as_they_were_sent(way: Way, body: Body) -> None:
    """Field by field, in the client's own order, with its version, its betas and its query."""
    got = await way.post("/v1/messages", body)
    assert form(json.loads(got.content)) == form(expected(body.body, "anthropic/claude-x"))
    assert got.headers["anthropic-version"] == body.headers["anthropic-version"]
    assert betas(got.headers) == betas(body.headers)
    assert got.query == body.query


def betas(headers: Mapping[str, str]) -> list[str]:
    return [name.strip() for name in headers.get("anthropic-beta", "").split(",") if name.strip()]


NOT_COUNTED = {
    "inference_geo",
    "max_tokens",
    "metadata",
    "service_tier",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
}
"""Fields that the endpoint which counts refuses: a client that sends its whole request gets its count all the same."""


@pytest.mark.parametrize("body", corpus("anthropic"))
async def test_bodies_that_are_counted_arrive_as_they_were_sent(way: Way, body: Body) -> None:
    """What the endpoint takes of it."""
    got = await way.post("/v1/messages/count_tokens", body)
    wanted = {name: value for name, value in body.body.items() if name not in NOT_COUNTED} | {"model": "claude-x"}
    assert form(json.loads(got.content)) == form(wanted)
    assert (got.path, got.query) == ("/v1/messages/count_tokens", body.query)
    assert betas(got.headers)[: len(betas(body.headers))] == betas(body.headers)


HI = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


async def asked_with(headers: Mapping[str, str], path: str = "/v1/messages", **settings: Any) -> ProviderRequest:
    async with ScriptedProvider(Answer("fine")) as provider:
        made = entry("m", "anthropic/claude-x", provider.url)
        params = {**made["litellm_params"], **settings.pop("params", {})}
        if settings.get("passthrough"):
            del params["api_key"]
        backend = LiteLLMBackend(model_list=[{**made, "litellm_params": params, **settings}])
        app = LuthienMiddleware(nothing, backend=backend, auth=None)
        try:
            answer = await ASGIDriver(app, within=60).fetch("POST", path, json=HI, headers=headers)
        finally:
            await app.aclose()
        assert answer.status == 200, answer.body
        return (provider.requests or provider.other_requests)[-1]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_betas_of_the_client_and_of_the_operator_are_joined(path: str) -> None:
    """The client's come first, as they were written; none is sent twice."""
    operators = {"extra_headers": {"anthropic-beta": "house-2026-01-01,one"}}
    got = await asked_with({"anthropic-beta": "one, unheard-of ,two"}, path, params=operators)
    assert betas(got.headers)[:3] == ["one", "unheard-of", "two"]
    assert sorted(betas(got.headers)) == sorted(set(betas(got.headers)) | {"house-2026-01-01"})


async def test_who_brings_a_credential_chooses_the_workspace() -> None:
    """With a key of the server that is the operator's business; and no other header of the client goes on."""
    chosen = {"anthropic-workspace-id": "wrk_1", "anthropic-user-profile-id": "prf_1", "x-api-key": "sk-ant-client", "x-app": "a"}
    own = await asked_with(chosen, passthrough=True)
    assert (own.headers["anthropic-workspace-id"], own.headers["anthropic-user-profile-id"]) == ("wrk_1", "prf_1")
    assert (own.headers["x-api-key"], "x-app" in own.headers) == ("sk-ant-client", False)
    ours = await asked_with(chosen)
    assert not {"anthropic-workspace-id", "anthropic-user-profile-id"} & ours.headers.keys()
    assert ours.headers["x-api-key"] == "sk-server-0123"


@pytest.mark.parametrize(("asked", "sent"), [("", ""), ("beta=true", "beta=true"), ("x=1&beta=true&api_key=k", "beta=true")])
async def test_of_the_query_the_beta_mark_goes_on(asked: str, sent: str) -> None:
    """And nothing else that a client could put there."""
    assert (await asked_with({}, f"/v1/messages?{asked}")).query == sent


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    """Twenty of each format at least, each with a sentence that says what it is about."""
    for wire in ("openai", "anthropic"):
        paths = list((CORPUS / wire).glob("*.json"))
        assert len(paths) >= 20
        assert all(json.loads(path.read_bytes())["what"].endswith(".") for path in paths)
