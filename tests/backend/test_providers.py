"""The whole way: a client's request, the real LiteLLM, a provider on loopback, chunks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from luthien_asgi.chunks import finish_reason_of, provider_fields, read_part, usage_of
from luthien_asgi.errors import BackendError, RequestError

pytestmark = pytest.mark.litellm


def texts(chunks: Any) -> Any:
    return "".join(read_part(chunk).text for chunk in chunks)


OPENAI_STYLE = [
    "openai/gpt-4o",
    "azure/gpt-4o",
    "hosted_vllm/x",
    "groq/llama",
    "deepseek/deepseek-chat",
    "openrouter/a/b",
    "mistral/m",
    "xai/grok",
    "together_ai/x/y",
    "fireworks_ai/x",
    "azure_ai/x",
    "perplexity/sonar",
]


@pytest.mark.parametrize("model", OPENAI_STYLE)
async def test_openai_style_providers_are_read_from_their_own_bytes(lab: Any, kit: Any, model: Any) -> None:
    """The chunks carry the provider's id, texts, finish reason and usage, and nothing came through LiteLLM's iteration."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a", "b")), headers={"x-request-id": "r1"}))
    stream = await lab.calling(model, provider.url).open(kit.ask())
    chunks = await kit.collect(stream)
    assert (stream.decoder, stream.wire, list(stream.notes)) == ("openai", "openai", [])
    assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}
    assert texts(chunks) == "ab"
    assert [reason for chunk in chunks if (reason := finish_reason_of(chunk))] == ["stop"]
    assert usage_of(chunks[-1])["total_tokens"] == 5
    assert stream.headers["x-request-id"] == "r1"
    assert stream.sent == provider.asked[0].body


async def test_anthropic_is_read_from_its_own_bytes(lab: Any, kit: Any) -> None:
    """Message id and stop reason arrive in the riders; LiteLLM would have replaced them."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a", "b")), headers={"request-id": "r1"}))
    stream = await lab.calling("anthropic/claude-x", provider.url).open(kit.ask("anthropic"))
    chunks = await kit.collect(stream)
    assert (stream.decoder, stream.wire, list(stream.notes)) == ("anthropic", "anthropic", [])
    assert {chunk.id for chunk in chunks} == {"msg_1"}
    assert texts(chunks) == "ab"
    assert provider_fields(chunks[0])["anthropic"]["type"] == "message_start"
    assert stream.headers["request-id"] == "r1"


async def test_anthropic_client_body_arrives_as_it_was(lab: Any, kit: Any) -> None:
    """System blocks, cache marks, unknown fields, a history that LiteLLM could not convert: all as the client wrote them."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    history = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "new_kind", "x": 1}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "never_called", "content": "r", "is_error": True}]},
    ]
    fields = {
        "messages": history,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "metadata": {"user_id": "u"},
        "tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "bash"}],
        "a_field_of_the_future": {"deep": [1]},
    }
    call = kit.ask("anthropic", **fields, headers={"anthropic-beta": "b1, b2", "anthropic-version": "2099-01-01"})
    await kit.collect(await lab.calling("anthropic/claude-x", provider.url).open(call))
    asked = provider.asked[0]
    assert asked.body == {**call.request.body, "model": "claude-x", "stream": True}
    assert asked.headers["anthropic-beta"].split(",")[:2] == ["b1", "b2"]
    assert asked.headers["anthropic-version"] == "2099-01-01"
    assert asked.headers["x-api-key"] == kit.key
    assert asked.path == "/v1/messages"


async def test_operator_defaults_fill_what_an_anthropic_body_lacks(lab: Any, kit: Any) -> None:
    """`litellm_params` give a default; a field of the client's wins."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    backend = lab.calling("anthropic/claude-x", provider.url, temperature=0.25, max_tokens=99)
    await kit.collect(await backend.open(kit.ask("anthropic")))
    assert (provider.asked[0].body["temperature"], provider.asked[0].body["max_tokens"]) == (0.25, 16)


async def test_openai_client_reaches_anthropic(lab: Any, kit: Any) -> None:
    """The body that leaves is an Anthropic one, with a `max_tokens` although the client gave none."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    backend = lab.calling("anthropic/claude-x", provider.url)
    messages = [{"role": "system", "content": "sys"}, {"role": "user", "content": "hello"}]
    stream = await backend.open(kit.ask(messages=messages, stop=["END"]))
    assert texts(await kit.collect(stream)) == "a"
    body = provider.asked[0].body
    assert body["max_tokens"] > 0
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "sys" in json.dumps(body["system"])
    assert body["stop_sequences"] == ["END"]


@pytest.mark.parametrize(("params", "limit"), [({}, 32_000), ({"max_tokens": 9}, 9)])
async def test_an_openai_client_without_a_limit_gets_one(lab: Any, kit: Any, params: Any, limit: Any) -> None:
    """The operator's `max_tokens`, or what every current model can write: the API wants one."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    await kit.collect(await lab.calling("anthropic/claude-x", provider.url, **params).open(kit.ask()))
    assert provider.asked[0].body["max_tokens"] == limit


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("claude-haiku-4-5", "enabled"),
        ("claude-opus-4-6", "adaptive"),
        ("claude-sonnet-4-20250514", "enabled"),
        ("claude-opus-9-1", "adaptive"),
    ],
)
async def test_reasoning_effort_is_written_as_the_model_takes_it(lab: Any, kit: Any, model: Any, kind: Any) -> None:
    """By LiteLLM's table where it lists the model, by the version in its name otherwise."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    await kit.collect(await lab.calling(f"anthropic/{model}", provider.url).open(kit.ask(reasoning_effort="high")))
    assert provider.asked[0].body["thinking"]["type"] == kind


@pytest.mark.parametrize(("model", "sent"), [("hosted_vllm/x", 5), ("openai/gpt-4o", None)])
async def test_top_k_reaches_providers_that_take_it(lab: Any, kit: Any, model: Any, sent: Any) -> None:
    """An Anthropic client's `top_k` goes on where the provider has it, and is not dropped in silence elsewhere."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    backend = lab.calling(model, provider.url)
    if sent is None:
        with pytest.raises(RequestError, match="top_k"):
            await backend.open(kit.ask("anthropic", top_k=5))
    else:
        await kit.collect(await backend.open(kit.ask("anthropic", top_k=5)))
        assert provider.asked[0].body["top_k"] == sent


async def test_anthropic_client_reaches_openai(lab: Any, kit: Any) -> None:
    """The body that leaves is an OpenAI one."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    stream = await lab.calling("openai/gpt-4o", provider.url).open(kit.ask("anthropic", system="sys", stop_sequences=["END"]))
    assert texts(await kit.collect(stream)) == "a"
    body = provider.asked[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["stop"] == ["END"]


@pytest.mark.parametrize("model", ["openai/gpt-4o", "hosted_vllm/x", "azure/gpt-4o", "groq/x"])
async def test_fields_that_litellm_would_interpret_reach_the_provider(lab: Any, kit: Any, model: Any) -> None:
    """`metadata`, `user`, `verbosity` and `store` are the client's fields for the provider, whatever LiteLLM knows of it."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    fields = {"metadata": {"k": "v"}, "user": "u", "verbosity": "low", "store": True, "max_tokens": 5}
    await kit.collect(await lab.calling(model, provider.url).open(kit.ask(**fields)))
    assert {name: provider.asked[0].body.get(name) for name in fields} == fields


@pytest.mark.parametrize(("given", "sent"), [({}, {"include_usage": True}), ({"include_usage": False}, None)])
async def test_usage_is_asked_for_unless_the_model_says_no(lab: Any, kit: Any, given: Any, sent: Any) -> None:
    """`stream_options.include_usage` is added; `include_usage: false` keeps it out for providers that refuse it."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    await kit.collect(await lab.calling("openai/gpt-4o", provider.url, **given).open(kit.ask()))
    assert provider.asked[0].body.get("stream_options") == sent


def _ollama(*texts: Any) -> Any:
    base = {"model": "x", "created_at": "2024-01-01T00:00:00Z"}
    lines = [{**base, "message": {"role": "assistant", "content": text}, "done": False} for text in texts]
    last = {**base, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    return "".join(json.dumps(line) + "\n" for line in [*lines, {**last, "prompt_eval_count": 1, "eval_count": 1}]).encode()


def _gemini(*texts: Any) -> Any:
    def candidate(text: Any, **more: Any) -> Any:
        return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}]}

    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    events = [candidate(text) for text in texts[:-1]] + [{**candidate(texts[-1], finishReason="STOP"), "usageMetadata": usage}]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()


@pytest.mark.parametrize(("model", "body"), [("ollama_chat/x", _ollama("a", "b")), ("gemini/x", _gemini("a", "b"))])
async def test_other_wires_come_through_litellms_iteration_and_say_so(lab: Any, kit: Any, model: Any, body: Any) -> None:
    """A wire that we do not decode still works, and `notes` names the fallback."""
    provider = await lab.provider(lambda _: kit.reply(body, content_type="text/event-stream"))
    stream = await lab.calling(model, provider.url).open(kit.ask())
    assert texts(await kit.collect(stream)) == "ab"
    assert (stream.decoder, stream.wire) == ("litellm", "openai")
    assert any(note.startswith("fallback: ") for note in stream.notes)


async def test_a_cut_answer_is_no_success_in_litellms_iteration(lab: Any, kit: Any) -> None:
    """LiteLLM invents `stop` for an answer that was cut off; here it is an error after what came."""
    provider = await lab.provider(lambda _: kit.reply(_ollama("a", "b").rsplit(b"{", 2)[0], content_type="application/x-ndjson"))
    stream = await lab.calling("ollama_chat/x", provider.url).open(kit.ask())
    chunks, error = await kit.until_error(stream)
    assert isinstance(error, BackendError)
    assert "without a finish reason" in error.message
    assert texts(chunks) in {"a", "ab"}
    assert len({chunk.id for chunk in chunks}) == 1


BODY = {
    "id": "chatcmpl-2",
    "object": "chat.completion",
    "created": 7,
    "model": "served",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "whole"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
MESSAGE = {
    "id": "msg_2",
    "type": "message",
    "role": "assistant",
    "model": "served",
    "content": [{"type": "text", "text": "whole"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def _whole(kit: Any, asked: Any) -> Any:
    body = MESSAGE if asked.path.endswith("/messages") else BODY
    return kit.reply(json.dumps(body).encode(), content_type="application/json")


@pytest.mark.parametrize("model", ["openai/gpt-4o", "hosted_vllm/x", "anthropic/claude-x"])
@pytest.mark.parametrize("params", [{}, {"stream": False}], ids=["ignored by the provider", "the model's setting"])
async def test_a_whole_answer_is_fed_through_as_chunks(lab: Any, kit: Any, model: Any, params: Any) -> None:
    """A provider that does not stream, by itself or because the configuration says so, gives the same chunks, noted."""
    provider = await lab.provider(lambda asked: _whole(kit, asked))
    stream = await lab.calling(model, provider.url, **params).open(kit.ask("anthropic" if "claude" in model else "openai"))
    chunks = await kit.collect(stream)
    assert texts(chunks) == "whole"
    assert stream.decoder == "body"
    assert stream.notes
    assert bool(provider.asked[0].body.get("stream")) is not bool(params)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "hosted_vllm/x"])
async def test_a_refusal_to_stream_is_answered_by_one_call_without(lab: Any, kit: Any, model: Any) -> Any:
    """A 400 that names `stream` is followed by exactly one call with `stream: false`."""
    refusal = json.dumps({"error": {"message": "stream is not supported for this model", "param": "stream"}}).encode()

    def script(asked: Any) -> Any:
        streams = asked.body.get("stream")
        return kit.reply(refusal, status=400, content_type="application/json") if streams else _whole(kit, asked)

    provider = await lab.provider(script)
    stream = await lab.calling(model, provider.url).open(kit.ask())
    assert texts(await kit.collect(stream)) == "whole"
    assert [bool(asked.body.get("stream")) for asked in provider.asked] == [True, False]


async def test_refused_stream_options_are_left_out(lab: Any, kit: Any) -> Any:
    """A 400 that names `stream_options` is followed by one streaming call without them."""
    refusal = json.dumps({"error": {"message": "Unknown field: stream_options"}}).encode()

    def script(asked: Any) -> Any:
        refused = "stream_options" in asked.body
        return (
            kit.reply(refusal, status=400, content_type="application/json")
            if refused
            else kit.reply(kit.sse(*kit.openai_events("a")))
        )

    provider = await lab.provider(script)
    stream = await lab.calling("openai/gpt-4o", provider.url).open(kit.ask())
    assert texts(await kit.collect(stream)) == "a"
    assert (len(provider.asked), stream.decoder) == (2, "openai")


async def test_twenty_calls_at_once_read_their_own_answers(lab: Any, kit: Any) -> Any:
    """No call reads another's response: the handler belongs to the call, the connections to the backend."""
    provider = await lab.provider(lambda asked: kit.reply(kit.sse(*kit.anthropic_events(asked.body["messages"][0]["content"]))))
    backend = lab.calling("anthropic/claude-x", provider.url)

    async def one(number: Any) -> Any:
        call = kit.ask("anthropic", messages=[{"role": "user", "content": f"n{number}"}])
        return texts(await kit.collect(await backend.open(call)))

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(20)]
    assert [task.result() for task in tasks] == [f"n{number}" for number in range(20)]


async def test_tokens_are_counted_by_anthropic(lab: Any, kit: Any) -> None:
    """The provider's own count for an Anthropic model, without the fields that its endpoint refuses."""
    provider = await lab.provider(lambda _: kit.reply(b'{"input_tokens": 42}', content_type="application/json"))
    backend = lab.calling("anthropic/claude-x", provider.url)
    assert await backend.count_tokens(kit.ask("anthropic", system="s", temperature=1)) == 42
    asked = provider.asked[0]
    assert asked.path == "/v1/messages/count_tokens"
    assert asked.body == {"model": "claude-x", "messages": [{"role": "user", "content": "hello"}], "system": "s"}


async def test_tokens_are_estimated_for_others(lab: Any, kit: Any) -> None:
    """No call is made for a provider without a count of its own."""
    provider = await lab.provider(lambda _: kit.reply())
    assert await lab.calling("openai/gpt-4o", provider.url).count_tokens(kit.ask("anthropic")) > 0
    assert provider.asked == []


async def test_a_passthrough_model_spends_the_clients_credential(lab: Any, kit: Any, monkeypatch: Any) -> None:
    """The client's credential goes to the provider, and the server's own in the environment does not."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-server")
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    params = {"model": "anthropic/claude-x", "api_base": provider.url}
    backend = lab.backend({"model_name": "m", "litellm_params": params, "passthrough": True})
    await kit.collect(await backend.open(kit.ask("anthropic", credential="sk-ant-client")))
    assert provider.asked[0].headers["x-api-key"] == "sk-ant-client"
    for call, status in [(kit.ask("anthropic"), 401), (kit.ask(credential="sk-ant-client"), 403)]:
        with pytest.raises(RequestError) as caught:
            await backend.open(call)
        assert caught.value.status == status
    assert len(provider.asked) == 1


async def test_a_router_picks_the_deployment(lab: Any, kit: Any) -> None:
    """With a `litellm.Router` the deployment is its choice, the name is its alias, and the bytes are still read raw."""
    from luthien_asgi.backend import hygiene

    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    litellm = await hygiene.load()
    router = litellm.Router(model_list=[kit.entry("openai/gpt-4o", provider.url)])
    try:
        backend = lab.backend(router=router)
        stream = await backend.open(kit.ask())
        assert texts(await kit.collect(stream)) == "a"
        assert (stream.decoder, provider.asked[0].body["model"]) == ("openai", "gpt-4o")
        assert (tuple(backend.models()), backend.target("m").provider) == (("m",), "openai")
        with pytest.raises(RequestError):
            backend.target("unknown")
    finally:
        router.reset()


async def test_a_router_hears_of_a_failure(lab: Any, kit: Any) -> None:
    """A failure before the first byte cools the deployment down, by LiteLLM's own callbacks."""
    from luthien_asgi.backend import hygiene

    error = json.dumps({"error": {"message": "no", "type": "x"}}).encode()
    bad = await lab.provider(lambda _: kit.reply(error, status=401, content_type="application/json"))
    good = await lab.provider(lambda _: kit.reply(kit.sse(*kit.openai_events("a"))))
    litellm = await hygiene.load()
    router = litellm.Router(
        model_list=[kit.entry("openai/gpt-4o", bad.url), kit.entry("openai/gpt-4o", good.url)], cooldown_time=60
    )
    try:
        backend = lab.backend(router=router)
        for _ in range(12):
            with contextlib.suppress(BackendError):
                await kit.collect(await backend.open(kit.ask()))
        assert len(bad.asked) <= 3
        assert len(good.asked) >= 9
    finally:
        router.reset()
