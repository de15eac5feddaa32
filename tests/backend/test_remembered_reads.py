"""Everything that LiteLLM looks at when it makes a call is in a remembered call's key, or keeps it from being remembered."""

from __future__ import annotations

import os
import types
from typing import Any

import pytest

from luthien_asgi.backend import hygiene, known

pytestmark = pytest.mark.litellm

MODELS = [f"{provider}/{'claude-x' if provider == 'anthropic' else 'gpt-4o'}" for provider in known.REMEMBERED]
WITHOUT_EFFECT = {
    "OPENAI_CHAT_COMPLETION_PARAMS": "a constant",
    "_key_management_settings": "of the secret manager, without which it says nothing",
    "azure_llms": "a constant",
    "common_cloud_provider_auth_params": "a constant",
    "model_cost": "the table of models: noticed after a minute",
    "model_list_set": "made of the table of models",
    "openAIGPTAudioConfig": "holds no setting",
    "openAIGPTConfig": "holds no setting",
    "openaiOSeriesConfig": "holds no setting",
    "openai_compatible_providers": "a constant",
    "openai_text_completion_compatible_providers": "a constant",
    "provider_list": "a constant",
    "suppress_debug_info": "is about what is printed",
    "turn_off_message_logging": "is about logs, and callbacks keep calls from being remembered",
}
MADE_OF_THE_TABLE = "_models"
AMONG_THE_ARGUMENTS = {
    "AZURE_AD_TOKEN",
    "AZURE_API_KEY",
    "AZURE_OPENAI_AD_TOKEN",
    "AZURE_OPENAI_API_KEY",
    "AZURE_PASSWORD",
    "AZURE_USERNAME",
}
"""What we look for ourselves before each call, which is another call for it."""


class Reads:
    """What was read while it was on."""

    def __init__(self) -> None:
        self.on = False
        self.settings: set[str] = set()
        self.variables: set[str] = set()


@pytest.fixture
async def reads(asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    litellm = await hygiene.load()
    seen = Reads()

    class Watched(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            if seen.on:
                seen.settings.add(name)
            return super().__getattribute__(name)

    environment: Any = type(os.environ)

    class WatchedEnvironment(environment):  # type: ignore[misc]  # the class has no public name
        def __getitem__(self, name: str) -> Any:
            if seen.on:
                seen.variables.add(name)
            return super().__getitem__(name)

    monkeypatch.setattr(os.environ, "__class__", WatchedEnvironment)
    monkeypatch.setattr(litellm, "__class__", Watched)
    return seen


def is_setting(value: Any) -> bool:
    return not isinstance(value, type | types.FunctionType | types.ModuleType | types.BuiltinFunctionType)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("model", MODELS)
async def test_what_litellm_reads_is_known(
    lab: Any, kit: Any, reads: Reads, asked_litellm: list[str], monkeypatch: pytest.MonkeyPatch, model: str, keyed: bool
) -> None:
    """Settings of its module and variables of the environment, with a key in the configuration and with one found elsewhere."""
    litellm = await hygiene.load()
    provider = await lab.provider(lambda _: kit.answer(model))
    name = model.partition("/")[0]
    monkeypatch.setenv(f"{name.upper()}_API_KEY", "sk-of-the-environment")
    params = {} if keyed else {"api_key": None}
    backend = lab.calling(model, provider.url, **params)
    call = kit.ask(kit.own_wire(model))
    await kit.collect(await backend.open(call))
    monkeypatch.setenv("USE_LITELLM_PROXY", "False")  # another key for the same call
    reads.on = True
    stream = await backend.open(call)
    reads.on = False
    await kit.collect(stream)
    assert len(asked_litellm) == 2

    settings = {setting for setting, value in vars(litellm).items() if setting in reads.settings and is_setting(value)}
    settings = {setting for setting in settings if not setting.startswith("__") and not setting.endswith(MADE_OF_THE_TABLE)}
    assert settings - {*known.KEY_SETTINGS, *known.PLAIN_CALL_SETTINGS, *WITHOUT_EFFECT} == set()
    assert reads.variables - {*known.KEY_VARIABLES, *known.REMEMBERED[name], *AMONG_THE_ARGUMENTS} == set()
