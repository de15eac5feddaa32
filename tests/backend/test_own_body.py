"""Bodies that LiteLLM does not map: what the operator says still counts, and what the provider cannot do is said clearly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthien_asgi.backend import known
from luthien_asgi.backend.azure import plain_azure
from luthien_asgi.backend.model_table import without_unknown
from luthien_asgi.backend.models import read_deployment
from luthien_asgi.backend.recover import recover
from luthien_asgi.errors import BackendError, RequestError
from luthien_asgi.request import ChatRequest
from luthien_asgi.wire.to_openai import to_openai

pytestmark = pytest.mark.litellm

OWN = ["openai/gpt-4o", "azure/gpt-4o", "hosted_vllm/x", "lm_studio/x", "llamafile/x", "litellm_proxy/x"]
DEEP = {"messages": [{"role": "user", "content": [{"type": "text", "text": "q", "of_the_future": {"b": 1, "a": None}}]}]}


async def sent(lab: Any, kit: Any, model: str, call: Any, **params: Any) -> Any:
    """What the provider was asked, and the answer that came back."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    stream = await lab.calling(model, provider.url, **params).open(call)
    await kit.collect(stream)
    assert stream.decoder == "openai"
    return provider.asked[0], stream


def test_every_provider_of_the_table_is_tried() -> None:
    """A row that is added is tried here."""
    assert {model.partition("/")[0] for model in OWN} == set(known.OWN_BODY)
    assert {name for name, own in known.OWN_BODY.items() if own.way == "handler"} <= known.HANDLER_PROVIDERS


@pytest.mark.parametrize("model", OWN)
async def test_a_body_of_the_same_wire_is_sent_as_it_is(lab: Any, kit: Any, model: Any) -> None:
    """Nulls, fields that LiteLLM would rename or refuse, parts of the future; URL and credential are LiteLLM's."""
    fields = {"max_tokens": 5, "temperature": None, "verbosity": "low", "reasoning_effort": "minimal", "metadata": {"a": "b"}}
    call = kit.ask(**DEEP, **fields, stop=[], logit_bias={"5": 1.0})
    asked, stream = await sent(lab, kit, model, call)
    added = {"model": model.partition("/")[2], "stream": True, "stream_options": {"include_usage": True}}
    assert asked.body == {**call.request.body, **added}
    assert asked.path == (
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
        if model.startswith("azure")
        else "/v1/chat/completions"
    )
    credential = asked.headers["api-key" if model.startswith("azure") else "authorization"]
    assert credential.removeprefix("Bearer ") == kit.key
    assert stream.sent == asked.body


@pytest.mark.parametrize("model", OWN)
async def test_what_the_operator_says_fills_in(lab: Any, kit: Any, model: Any) -> None:
    """`litellm_params` where the client says nothing, or null; `extra_body` below the client's fields; headers beside them."""
    defaults = {"temperature": 0.25, "max_tokens": 99, "extra_body": {"seed": 1, "mine": {"x": 2}}, "extra_headers": {"x-a": "b"}}
    asked, _ = await sent(lab, kit, model, kit.ask(top_p=0.5, seed=7, temperature=None), **defaults)
    assert {name: asked.body[name] for name in ("temperature", "max_tokens", "top_p", "seed", "mine")} == {
        "temperature": 0.25,
        "max_tokens": 99,
        "top_p": 0.5,
        "seed": 7,
        "mine": {"x": 2},
    }
    assert asked.headers["x-a"] == "b"


@pytest.mark.parametrize("model", OWN)
async def test_a_limit_of_the_clients_is_the_only_one(lab: Any, kit: Any, model: Any) -> None:
    """A default under the limit's other name would contradict it."""
    asked, _ = await sent(lab, kit, model, kit.ask(max_completion_tokens=5), max_tokens=99)
    assert (asked.body["max_completion_tokens"], "max_tokens" in asked.body) == (5, False)


@pytest.mark.parametrize(
    ("model", "name"),
    [("openai/o3", "max_completion_tokens"), ("openai/gpt-4o", "max_tokens"), ("azure/o3", "max_completion_tokens")],
)
async def test_a_limit_from_the_other_format_gets_the_models_name_for_it(lab: Any, kit: Any, model: Any, name: Any) -> None:
    """An Anthropic client knows one name; LiteLLM knows which one the model takes. The messages are ours all the same."""
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    asked, _ = await sent(lab, kit, model, kit.ask("anthropic", system="s", tools=tools))
    assert {key: asked.body[key] for key in asked.body if key.startswith("max")} == {name: 16}
    assert asked.body["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]
    assert asked.body["tools"][0]["function"]["name"] == "f"


@pytest.mark.parametrize("asked_for", [{"drop_params": True}, {"additional_drop_params": ["temperature"]}])
async def test_litellms_mapping_is_kept_for_who_asks_for_it(lab: Any, kit: Any, asked_for: Any) -> None:
    """`drop_params`: what LiteLLM does not know for the model is left out, and the limit renamed."""
    asked, _ = await sent(lab, kit, "openai/o3", kit.ask(temperature=0.5, max_tokens=5), **asked_for)
    assert ("temperature" in asked.body, asked.body["max_completion_tokens"]) == (False, 5)


@pytest.mark.parametrize(
    ("model", "info", "kept"),
    [
        ("openai/gpt-4o", {}, False),
        ("openai/o3", {}, True),
        ("openai/nobody-knows-me", {}, True),
        ("azure/my-deployment", {"base_model": "azure/gpt-4o"}, False),
        ("azure/my-deployment", {}, True),
        ("mistral/codestral-latest", {}, False),
    ],
)
@pytest.mark.parametrize(
    ("fields", "notice"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "thinking"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
    ],
)
async def test_an_effort_is_left_out_for_a_model_that_does_not_reason(
    lab: Any, kit: Any, model: Any, info: Any, kept: Any, fields: Any, notice: Any
) -> None:
    """Where LiteLLM lists the model without reasoning, with notice; a model that it does not list keeps it."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    backend = lab.backend({**kit.entry(model, provider.url), "model_info": info})
    stream = await backend.open(kit.ask("anthropic", **fields))
    await kit.collect(stream)
    assert ("reasoning_effort" in provider.asked[0].body) is kept
    assert (notice in stream.ignored) is not kept


async def test_an_effort_of_an_openai_client_is_never_left_out(lab: Any, kit: Any) -> None:
    """It is the client's own word, and the provider's to judge."""
    asked, stream = await sent(lab, kit, "openai/gpt-4o", kit.ask(reasoning_effort="minimal"))
    assert (asked.body["reasoning_effort"], list(stream.ignored)) == ("minimal", [])


@pytest.mark.parametrize("model", ["groq/responses/x", "databricks/databricks-gpt-5-5-pro", "litellm_proxy/o3-pro"])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_model_of_the_responses_api_is_said_to_be_one(lab: Any, kit: Any, model: Any, wire: Any) -> None:
    """LiteLLM would call another API, with packages that are not there: 404 that names the cause, and no call."""
    provider = await lab.provider(lambda _: kit.reply())
    with pytest.raises(RequestError) as caught:
        await lab.calling(model, provider.url).open(kit.ask(wire))
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "unsupported_model")
    assert "Responses API" in caught.value.message
    assert provider.asked == []


async def test_a_wildcard_does_not_lead_to_the_responses_api(lab: Any, kit: Any) -> None:
    """`w/responses/…` under `w/*` is the client's choice of name, and the same 404."""
    provider = await lab.provider(lambda _: kit.reply())
    params = {"model": "openai/*", "api_base": f"{provider.url}/v1", "api_key": kit.key}
    backend = lab.backend({"model_name": "w/*", "litellm_params": params})
    with pytest.raises(RequestError, match="Responses API") as caught:
        await backend.open(kit.ask(model="w/responses/gpt-4o"))
    assert caught.value.status == 404


async def test_the_name_of_anothers_model_means_nothing(lab: Any, kit: Any) -> None:
    """What OpenAI serves through one API a server of one's own may serve through the other."""
    asked, _ = await sent(lab, kit, "hosted_vllm/o3-pro", kit.ask())
    assert asked.body["model"] == "o3-pro"


@pytest.mark.parametrize("model", ["lm_studio/x", "llamafile/x", "hosted_vllm/x"])
async def test_a_server_of_ones_own_needs_no_credential(lab: Any, kit: Any, model: Any) -> None:
    """LiteLLM sends a placeholder, or nothing."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    params = {"model": model, "api_base": f"{provider.url}/v1"}
    await kit.collect(await lab.backend({"model_name": "m", "litellm_params": params}).open(kit.ask()))
    assert len(provider.asked) == 1


async def test_an_anthropic_model_that_is_not_to_stream(lab: Any, kit: Any) -> None:
    """The attempt says whether it streams, and not the client's body."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "served", "stop_reason": "end_turn"}
    whole = {**message, "content": [{"type": "text", "text": "a"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
    provider = await lab.provider(lambda _: kit.reply(json.dumps(whole).encode(), content_type="application/json"))
    backend = lab.backend({**kit.entry("anthropic/claude-x", provider.url), "stream": False})
    stream = await backend.open(kit.ask("anthropic", stream=True))
    assert {chunk.id for chunk in await kit.collect(stream)} == {"msg_1"}
    assert not provider.asked[0].body.get("stream")


async def test_without_a_credential_nothing_is_sent(lab: Any, kit: Any, monkeypatch: Any) -> None:
    """A clear refusal, where the SDK would complain about an environment variable."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    provider = await lab.provider(lambda _: kit.reply())
    params = {"model": "openai/gpt-4o", "api_base": f"{provider.url}/v1"}
    with pytest.raises(BackendError) as caught:
        await lab.backend({"model_name": "m", "litellm_params": params}).open(kit.ask())
    assert (caught.value.status, caught.value.message) == (401, "no credential is configured for this model")
    assert provider.asked == []


async def test_a_credential_and_an_address_in_the_environment_are_found(lab: Any, kit: Any, monkeypatch: Any) -> None:
    """As LiteLLM finds them."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/elsewhere")
    backend = lab.backend({"model_name": "m", "litellm_params": {"model": "gpt-4o", "organization": "org-1"}})
    await kit.collect(await backend.open(kit.ask()))
    asked = provider.asked[0]
    assert (asked.path, asked.headers["authorization"]) == ("/elsewhere/chat/completions", "Bearer sk-of-the-environment")
    assert asked.headers["openai-organization"] == "org-1"


LIMIT = (
    "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens."
)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "azure/gpt-4o", "hosted_vllm/x"])
async def test_an_error_that_litellm_makes_an_answer_of_stays_one(lab: Any, kit: Any, model: Any) -> None:
    """A limit too small for a single token: LiteLLM invents an empty answer, we say what the provider said."""
    body = json.dumps({"error": {"message": LIMIT, "type": "invalid_request_error", "param": None, "code": None}}).encode()
    provider = await lab.provider(lambda _: kit.reply(body, status=400, content_type="application/json"))
    with pytest.raises(BackendError) as caught:
        await lab.calling(model, provider.url).open(kit.ask(max_tokens=1))
    assert (caught.value.status, caught.value.message, caught.value.type) == (400, LIMIT, "invalid_request_error")


@pytest.mark.parametrize("model", ["openai/gpt-4o", "azure/o1", "hosted_vllm/x"])
async def test_a_whole_answer_is_read_from_the_providers_own_bytes(lab: Any, kit: Any, model: Any) -> None:
    """`stream: false` in the model's settings, whatever the client says: a field that LiteLLM has no name for comes through."""
    message = {"role": "assistant", "content": None, "refusal": "no"}
    whole = {
        "id": "chatcmpl-9",
        "object": "chat.completion",
        "created": 7,
        "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    provider = await lab.provider(lambda _: kit.reply(json.dumps(whole).encode(), content_type="application/json"))
    backend = lab.backend({**kit.entry(model, provider.url), "stream": False})
    stream = await backend.open(kit.ask(stream=True, stream_options={"include_usage": True}))
    chunks = await kit.collect(stream)
    assert not provider.asked[0].body.get("stream")
    assert "stream_options" not in provider.asked[0].body
    assert (stream.decoder, {chunk.id for chunk in chunks}) == ("body", {"chatcmpl-9"})
    assert any("no" in str(chunk) and "refusal" in str(chunk) for chunk in chunks)


async def test_an_endless_error_body_is_cut_for_the_sdk_too(lab: Any, kit: Any) -> None:
    """Of an error response 64 KiB are read and no more, and the connection is closed."""
    provider = await lab.provider(lambda _: kit.reply(b"x" * 3_000_000, status=500, hang=True))
    with pytest.raises(BackendError) as caught:
        await kit.soon(lab.calling("openai/gpt-4o", provider.url).open(kit.ask()))
    assert caught.value.status == 500
    await kit.soon(provider.hung_up.wait())


@pytest.mark.parametrize(("model", "params"), [("azure/gpt-4o", {"api_version": "preview"}), ("perplexity/sonar", {})])
async def test_half_a_surrogate_pair_is_refused_where_it_cannot_be_sent(lab: Any, kit: Any, model: Any, params: Any) -> None:
    """LiteLLM's own client writes UTF-8, which has no bytes for it: a 400 that says so, and no call."""
    provider = await lab.provider(lambda _: kit.reply())
    with pytest.raises(RequestError, match="surrogate") as caught:
        await lab.calling(model, provider.url, **params).open(kit.ask(messages=[{"role": "user", "content": "\ud83d"}]))
    assert caught.value.status == 400
    assert provider.asked == []


@pytest.mark.parametrize("model", ["azure/o1", "azure/o4-mini"])
async def test_a_model_that_litellm_would_not_stream_is_streamed(lab: Any, kit: Any, model: Any) -> None:
    """LiteLLM's table has Azure's reasoning models without streaming, and would make a stream of a whole answer."""
    asked, _ = await sent(lab, kit, model, kit.ask(stream=True))
    assert asked.body["stream"] is True


PLAIN = {"api_base": "https://x.openai.azure.com", "api_key": "k", "api_version": "2024-10-21"}


@pytest.mark.parametrize(
    ("model", "params", "environment", "plain"),
    [
        ("azure/d", PLAIN, {}, True),
        ("azure/d", {"api_base": PLAIN["api_base"]}, {"AZURE_API_KEY": "k"}, True),
        ("azure/d", {}, {"AZURE_API_KEY": "k", "AZURE_API_BASE": "https://x"}, True),
        ("azure/d", {}, {}, False),
        ("azure/d", {**PLAIN, "api_key": None}, {}, False),
        ("azure/d", {**PLAIN, "api_version": "preview"}, {}, False),
        ("azure/d", {**PLAIN, "api_base": "https://x/openai/deployments/d"}, {}, False),
        ("azure/d", {**PLAIN, "api_base": "https://gateway.ai.cloudflare.com/v1/a/b"}, {}, False),
        ("azure/o_series/d", PLAIN, {}, False),
        ("azure/d", {**PLAIN, "azure_ad_token": "t"}, {}, False),
        ("azure/d", {**PLAIN, "tenant_id": "t", "client_id": "c", "client_secret": "s"}, {}, False),
        ("azure/d", PLAIN, {"AZURE_OPENAI_AD_TOKEN": "t"}, False),
    ],
)
async def test_when_azure_is_called_without_litellms_client(
    monkeypatch: Any, model: Any, params: Any, environment: Any, plain: Any
) -> None:
    """An endpoint, a key and a dated version, and nothing else that LiteLLM would act on."""
    from luthien_asgi.backend import hygiene

    for name in ("AZURE_API_KEY", "AZURE_API_BASE", "AZURE_OPENAI_API_KEY", "AZURE_AD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    deployment = read_deployment({"model_name": "m", "litellm_params": {"model": model, **params}}, where="x")
    found = plain_azure(await hygiene.load(), deployment, None)
    assert (found is not None) is plain
    assert found is None or (found.key, found.model) == ("k", "d")


async def test_a_key_of_azures_in_the_environment_is_not_shown(lab: Any, kit: Any, monkeypatch: Any) -> None:
    """Whatever name LiteLLM found it under."""
    monkeypatch.delenv("AZURE_API_KEY", raising=False)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "0123456789abcdef0123")
    body = json.dumps({"error": {"message": "bad key 0123456789abcdef0123", "code": "401"}}).encode()
    provider = await lab.provider(lambda _: kit.reply(body, status=401, content_type="application/json"))
    backend = lab.backend({"model_name": "m", "litellm_params": {"model": "azure/d", "api_base": provider.url}})
    with pytest.raises(BackendError, match="bad key") as caught:
        await backend.open(kit.ask())
    assert provider.asked[0].headers["api-key"] == "0123456789abcdef0123"
    assert "0123456789abcdef" not in caught.value.message + json.dumps(caught.value.raw)


def test_a_missing_package_is_named() -> None:
    """What LiteLLM would import for a call is not a fault of the provider."""
    error = RuntimeError("wrapped")
    error.__cause__ = ModuleNotFoundError("No module named 'mcp'", name="mcp")
    found = recover(error)
    assert (found.status, found.message) == (501, "the call needs a Python package that is not installed here: mcp")


async def test_no_tokenizer_is_fetched(lab: Any, kit: Any) -> None:
    """LiteLLM prices each call, and would ask the network for the tokenizer of a model with this name."""
    from luthien_asgi.backend import hygiene

    asked, _ = await sent(lab, kit, "groq/llama-3.3-70b-versatile", kit.ask())
    assert asked.body["model"] == "llama-3.3-70b-versatile"
    assert (await hygiene.load()).disable_hf_tokenizer_download is True


def test_nothing_is_dropped_that_was_not_converted() -> None:
    """A body of the backend's own format has nothing that may be left out."""
    deployment = read_deployment({"model_name": "m", "litellm_params": {"model": "openai/gpt-4o"}}, where="x")
    request = ChatRequest(wire="openai", body={"model": "m", "messages": [], "reasoning_effort": "low"})
    assert without_unknown(None, deployment, to_openai(request)) == (request.body, ())
