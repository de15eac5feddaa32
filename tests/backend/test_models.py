"""The model list: what it stands for, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_asgi.backend import LiteLLMBackend
from luthien_asgi.backend.providers import PROVIDERS
from luthien_asgi.errors import ConfigError, RequestError


def one(name: Any = "m", model: Any = "openai/gpt-4o", *, entry: Any = None, **params: Any) -> Any:
    return {"model_name": name, "litellm_params": {"model": model, **params}, **(entry or {})}


def test_exact_names_come_before_wildcards_and_long_wildcards_before_short_ones() -> None:
    """The most specific entry decides, whatever the order."""
    entries = [one("*", "groq/*"), one("openai/*", "azure/*"), one("openai/gpt-*", "xai/x-*"), one("openai/gpt-4o", "mistral/m")]
    backend = LiteLLMBackend(entries)
    found = {name: backend._table.find(name).model for name in ("openai/gpt-4o", "openai/gpt-5", "openai/o3", "a/b")}
    assert found == {"openai/gpt-4o": "mistral/m", "openai/gpt-5": "xai/x-5", "openai/o3": "azure/o3", "a/b": "groq/a/b"}
    assert list(backend.models()) == ["*", "openai/*", "openai/gpt-*", "openai/gpt-4o"]


@pytest.mark.parametrize(
    "asked", ["m2", "M", "", "anthropic/../v1/x", "anthropic/a?b", "anthropic/a b", "anthropic/", "anthropic/.."]
)
def test_a_name_that_is_not_configured_is_a_404(asked: Any) -> None:
    """Unknown names, and what a wildcard may not match because it would end up in a URL."""
    backend = LiteLLMBackend([one(), one("anthropic/*", "anthropic/*")])
    with pytest.raises(RequestError) as caught:
        backend.target(asked)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


def test_a_wildcard_has_a_target_as_it_is_written() -> None:
    """What start-up checks ask for."""
    target = LiteLLMBackend([one("anthropic/*", "anthropic/*")]).target("anthropic/*")
    assert (target.provider, target.wire) == ("anthropic", "anthropic")


@pytest.mark.parametrize(
    ("model", "provider", "wire"),
    [
        ("openai/gpt-4o", "openai", "openai"),
        ("anthropic/claude-x", "anthropic", "anthropic"),
        ("bedrock/anthropic.claude-x", "bedrock", "openai"),
        ("gpt-4o", "openai", "openai"),
        ("claude-sonnet-4-5", "anthropic", "anthropic"),
    ],
)
def test_target_says_provider_and_wire(model: Any, provider: Any, wire: Any) -> None:
    """Only Anthropic's own API speaks its wire."""
    target = LiteLLMBackend([one(model=model)]).target("m")
    assert (target.name, target.provider, target.wire) == ("m", provider, wire)


def test_who_pays_is_known(monkeypatch: Any) -> None:
    """A server's key is spent unless the model passes the client's through, or runs at home without one."""
    monkeypatch.delenv("HOSTED_VLLM_API_KEY", raising=False)
    entries = [
        one("a"),
        one("b", entry={"passthrough": True}),
        one("c", passthrough=True),
        one("d", "hosted_vllm/x"),
        one("e", "hosted_vllm/x", api_key="k"),
    ]
    backend = LiteLLMBackend(entries)
    assert {name: backend.target(name).spends_key for name in "abcde"} == {
        "a": True,
        "b": False,
        "c": False,
        "d": False,
        "e": True,
    }
    assert backend.target("c").passthrough


def test_entries_with_one_name_take_turns() -> None:
    """LiteLLM's shape allows several deployments of a name."""
    table = LiteLLMBackend([one(model="openai/a"), one(model="openai/b")])._table
    assert [table.next("m").model for _ in range(4)] == ["openai/a", "openai/b"] * 2


def test_environment_variables_are_resolved_at_construction(monkeypatch: Any) -> None:
    """`os.environ/NAME` anywhere in the parameters, and the resolved value is in no repr."""
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    backend = LiteLLMBackend([one(api_key="os.environ/SOME_KEY", extra_headers={"x": "os.environ/SOME_KEY"})])
    found = backend._table.find("m")
    assert (found.params["api_key"], found.params["extra_headers"]) == ("sk-secret", {"x": "sk-secret"})
    assert "sk-secret" not in repr(found)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "model_list or a router"),
        ([one(api_key="os.environ/NOT_SET_ANYWHERE")], "NOT_SET_ANYWHERE"),
        ([one(api_bse="x")], "api_base"),
        ([one(entry={"model_nam": 1})], "model_nam"),
        ([one(entry={"passthrough": "yes"})], "passthrough"),
        ([one(entry={"passthrough": True}, api_key="k")], "passthrough"),
        ([{"model_name": "m"}], "litellm_params"),
        ([{"litellm_params": {"model": "x"}}], "model_name"),
        ([one("a/*", "b/*/*")], "more \\*"),
        ([one(), one(model="anthropic/x")], "agree"),
        (["m"], "model_list\\[0\\]"),
    ],
)
def test_what_is_wrong_is_said(entries: Any, said: Any) -> None:
    """Each mistake names its entry, key or variable when the backend is made."""
    with pytest.raises(ConfigError, match=said):
        LiteLLMBackend(entries)


def test_parameters_without_effect_are_said(caplog: Any) -> None:
    """A limit that only a Router enforces is not accepted in silence."""
    LiteLLMBackend([one(rpm=5)])
    assert "rpm has no effect" in caplog.text


@pytest.mark.litellm
def test_every_provider_of_litellm_is_known() -> None:
    """A warning says of other names that they are none."""
    import litellm

    assert {provider.value for provider in litellm.LlmProviders} <= PROVIDERS
