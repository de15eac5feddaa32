"""A call that is sent without LiteLLM is the one that LiteLLM would have sent, and what comes of it is the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from luthien_asgi.backend import hygiene, known

pytestmark = pytest.mark.litellm

MODELS = [f"{provider}/{'claude-x' if provider == 'anthropic' else 'gpt-4o'}" for provider in known.REMEMBERED]

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "settings": {"temperature": 0.5, "top_p": 1, "stop": ["é\ud83d\ude00"], "seed": None, "metadata": {"a": "b"}},
    "limit": {"max_tokens": 7},
    "other limit": {"max_completion_tokens": 9},
    "tools": {"tools": [TOOL], "tool_choice": "auto"},
    "options": {"stream_options": {"include_usage": False, "include_obfuscation": False}},
    "history": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}]},
}
ANTHROPIC_BODIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "settings": {
        "temperature": 0.5,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
    },
    "thinking": {"max_tokens": 2048, "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "tools": {"tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}},
}
PARAMS: dict[str, dict[str, Any]] = {
    "none": {},
    "defaults": {"temperature": 0.1, "max_tokens": 50, "extra_headers": {"X-One": "1", "Anthropic-Beta": "a-1"}, "timeout": 33},
    "body": {"extra_body": {"of_its_own": [1, None]}},
}


def test_whose_calls_are_remembered() -> None:
    """Those whose body is ours, and no others."""
    assert set(known.REMEMBERED) == {*known.OWN_BODY, "anthropic"}


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("model", MODELS)
async def test_what_is_sent_is_what_litellm_sends(lab: Any, kit: Any, asked_litellm: list[str], model: str, params: str) -> None:
    """Request line, header lines in their order and body, for each body, in both formats of clients."""
    provider = await lab.provider(lambda _: kit.answer(model))
    versions = {"anthropic-version": "2023-06-01", "anthropic-beta": "b-2"}
    calls = [kit.ask("openai", **body) for body in BODIES.values()]
    calls += [kit.ask("anthropic", headers=versions, **body) for body in ANTHROPIC_BODIES.values()]
    warm = lab.calling(model, provider.url, **PARAMS[params])
    for call in calls:
        await kit.collect(await warm.open(call))
    asked_litellm.clear()
    for call in calls:
        plain = await lab.calling(model, provider.url, **PARAMS[params]).open(call)
        remembered = await warm.open(call)
        await kit.collect(plain)
        await kit.collect(remembered)
        assert (remembered.sent, remembered.headers, remembered.decoder) == (plain.sent, plain.headers, plain.decoder)
        first, second = provider.asked[-2:]
        assert second.raw == first.raw
    assert len(asked_litellm) == len(calls)


@pytest.mark.parametrize("model", MODELS)
async def test_contents_need_no_call_of_litellm(lab: Any, kit: Any, asked_litellm: list[str], model: str) -> None:
    """Another conversation with the same fields is a call like the last, and its connection is used again."""
    provider = await lab.provider(lambda _: kit.answer(model))
    backend = lab.calling(model, provider.url)
    for text in ("a", "b", "c", "d"):
        await kit.collect(await backend.open(kit.ask(kit.own_wire(model), messages=[{"role": "user", "content": text}])))
    assert len(asked_litellm) == 1
    assert [asked.body["messages"][0]["content"] for asked in provider.asked] == ["a", "b", "c", "d"]
    assert provider.connections == 1


@pytest.mark.parametrize("model", MODELS)
async def test_a_cancelled_call_leaves_no_connection(lab: Any, kit: Any, asked_litellm: list[str], model: str) -> None:
    """Cancelled while the provider has not answered; the next call is sent all the same."""
    hang = False
    provider = await lab.provider(lambda _: kit.reply(begin=False, hang=True) if hang else kit.answer(model))
    backend = lab.calling(model, provider.url)
    await kit.collect(await backend.open(kit.ask(kit.own_wire(model))))
    hang = True
    provider.called.clear()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(backend.open(kit.ask(kit.own_wire(model))))
        await provider.called.wait()
        task.cancel()
    async with asyncio.timeout(1):
        await provider.hung_up.wait()
    hang = False
    await kit.collect(await backend.open(kit.ask(kit.own_wire(model))))
    assert len(asked_litellm) == 1


async def test_many_first_calls_at_once(lab: Any, kit: Any, asked_litellm: list[str]) -> None:
    """Each gets its own answer, and from then on LiteLLM is not asked."""
    provider = await lab.provider(lambda asked: kit.reply(kit.sse(*kit.openai_events(asked.body["messages"][0]["content"]))))
    backend = lab.calling("openai/gpt-4o", provider.url)

    async def one(text: str) -> str:
        stream = await backend.open(kit.ask(messages=[{"role": "user", "content": text}]))
        chunks = await kit.collect(stream)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    names = [str(number) for number in range(20)]
    assert await asyncio.gather(*map(one, names)) == names
    before = len(asked_litellm)
    assert await asyncio.gather(*map(one, names)) == names
    assert len(asked_litellm) == before
    assert provider.connections <= 20


@pytest.mark.parametrize(
    ("model", "variable", "header"),
    [
        ("openai/gpt-4o", "OPENAI_API_KEY", "authorization"),
        ("azure/gpt-4o", "AZURE_API_KEY", "api-key"),
        ("hosted_vllm/gpt-4o", "HOSTED_VLLM_API_KEY", "authorization"),
        ("litellm_proxy/x", "LITELLM_PROXY_API_KEY", "authorization"),
        ("llamafile/x", "LLAMAFILE_API_KEY", "authorization"),
        ("lm_studio/x", "LM_STUDIO_API_KEY", "authorization"),
        ("anthropic/claude-x", "ANTHROPIC_API_KEY", "x-api-key"),
        ("anthropic/claude-x", "ANTHROPIC_AUTH_TOKEN", "authorization"),
    ],
)
async def test_a_new_key_in_the_environment_is_used_at_once(
    lab: Any, kit: Any, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch, model: str, variable: str, header: str
) -> None:
    """A rotated key."""
    provider = await lab.provider(lambda _: kit.answer(model))
    backend = lab.calling(model, provider.url, api_key=None)
    for key in ("key-one", "key-one", "key-two", "key-two"):
        monkeypatch.setenv(variable, key)
        await kit.collect(await backend.open(kit.ask(kit.own_wire(model))))
    keys = [asked.headers[header].removeprefix("Bearer ") for asked in provider.asked]
    assert keys == ["key-one", "key-one", "key-two", "key-two"]
    assert len(asked_litellm) == 2


@pytest.mark.parametrize("setting", ["organization", "request_timeout", "headers"])
async def test_a_changed_setting_of_litellms_is_noticed(
    lab: Any, kit: Any, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """LiteLLM is asked again, whatever it makes of it."""
    litellm = await hygiene.load()
    provider = await lab.provider(lambda _: kit.answer("openai/x"))
    backend = lab.calling("openai/gpt-4o", provider.url)
    value = {"organization": "org-1", "request_timeout": 5.0, "headers": {"x-of-litellm": "1"}}[setting]
    for given in (getattr(litellm, setting), value):
        monkeypatch.setattr(litellm, setting, given)
        for _ in range(2):
            await kit.collect(await backend.open(kit.ask()))
    assert len(asked_litellm) == 2
    first, second = provider.asked[-2:]
    assert first.raw == second.raw


@pytest.mark.parametrize("setting", known.PLAIN_CALL_SETTINGS)
async def test_with_more_for_litellm_to_do_it_is_asked(
    lab: Any, kit: Any, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """A callback, a budget, a rule: every call is LiteLLM's as long as it is there."""
    from luthien_asgi.backend.models import read_deployment
    from luthien_asgi.backend.remembered import key_of

    litellm = await hygiene.load()
    deployment = read_deployment(kit.entry("openai/gpt-4o", "http://127.0.0.1:1"), where="here")
    arguments = {"model": "openai/gpt-4o", "api_key": "k", "no-log": True}
    assert key_of(litellm, deployment, arguments) is not None
    monkeypatch.setattr(litellm, setting, ["x"], raising=False)
    assert key_of(litellm, deployment, arguments) is None


async def test_a_callback_of_the_hosts_may_hear_of_every_call(
    lab: Any, kit: Any, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM is asked while there is one, also where calls like it were remembered before."""
    litellm = await hygiene.load()
    provider = await lab.provider(lambda _: kit.answer("openai/x"))
    backend = lab.calling("openai/gpt-4o", provider.url)
    for _ in range(2):
        await kit.collect(await backend.open(kit.ask()))
    monkeypatch.setattr(litellm, "input_callback", [lambda details: None])
    for _ in range(2):
        await kit.collect(await backend.open(kit.ask()))
    assert len(asked_litellm) == 3


async def test_a_router_hears_of_every_call(lab: Any, kit: Any, asked_litellm: list[str]) -> None:
    """What it learns of calls it learns from LiteLLM."""
    litellm = await hygiene.load()
    provider = await lab.provider(lambda _: kit.answer("openai/x"))
    router = litellm.Router(model_list=[kit.entry("openai/gpt-4o", provider.url)])
    try:
        backend = lab.backend(router=router)
        for _ in range(3):
            await kit.collect(await backend.open(kit.ask()))
        assert len(asked_litellm) == 3
    finally:
        router.reset()


async def test_anthropics_identities_are_litellms_to_exchange(lab: Any, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key there is a token, for a while: nothing of such a call is remembered."""
    from luthien_asgi.backend.models import read_deployment
    from luthien_asgi.backend.remembered import key_of

    litellm = await hygiene.load()
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    deployment = read_deployment({"model_name": "m", "litellm_params": {"model": "anthropic/claude-x"}}, where="here")
    assert key_of(litellm, deployment, {"model": "anthropic/claude-x", "no-log": True}) is None
    assert key_of(litellm, deployment, {"model": "anthropic/claude-x", "no-log": True, "api_key": " "}) is None


async def test_a_clients_own_credential_is_not_kept(lab: Any, kit: Any, asked_litellm: list[str]) -> None:
    """Each client's calls have its own; none is in what is remembered."""
    provider = await lab.provider(lambda _: kit.answer("anthropic/x"))
    params = {"model": "anthropic/claude-x", "api_base": provider.url}
    backend = lab.backend({"model_name": "m", "litellm_params": params, "passthrough": True})
    clients = ["sk-ant-one-0123456789", "sk-ant-two-0123456789"] * 2
    for credential in clients:
        await kit.collect(await backend.open(kit.ask("anthropic", credential=credential)))
    assert [asked.headers["x-api-key"] for asked in provider.asked] == clients
    assert len(asked_litellm) == 2
    kept = backend._engine.memory._recent._found
    assert len(kept) == 2
    assert "0123456789" not in json.dumps([[str(key), dict(made.headers), dict(made.body)] for key, (made, _) in kept.items()])


async def test_a_second_attempt_is_remembered_as_its_own(lab: Any, kit: Any, asked_litellm: list[str]) -> None:
    """A provider that refuses `stream_options` is asked with and without them, each time."""

    def script(asked: Any) -> Any:
        if "stream_options" not in asked.body:
            return kit.answer("openai/x")
        error = json.dumps({"error": {"message": "stream_options: unknown", "type": "invalid_request_error"}}).encode()
        return kit.reply(error, status=400, content_type="application/json")

    provider = await lab.provider(script)
    backend = lab.calling("openai/gpt-4o", provider.url)
    streams = [await backend.open(kit.ask()) for _ in range(2)]
    for stream in streams:
        await kit.collect(stream)
    assert ["stream_options" in asked.body for asked in provider.asked] == [True, False] * 2
    assert streams[0].notes == streams[1].notes
    assert len(asked_litellm) == 3
