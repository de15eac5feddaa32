"""`AllowModels`: what is not allowed is refused before it costs anything."""

from __future__ import annotations

import re
from typing import Any

import pytest

from luthien_asgi.policies import AllowModels
from luthien_asgi.request import WireName
from luthien_asgi.testing import ScriptedBackend, chunks, run_policy


@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_is_not_allowed_is_refused(client: WireName, stream: bool) -> None:
    """403 with the model's name, in the client's format; the backend is never called."""
    backend = ScriptedBackend(chunks("Hello"), names=("fast", "slow"))
    policy = AllowModels(allow=["fast"])
    run = await run_policy(policy, backend, client=client, stream=stream, request={"model": "slow"})
    assert run.status == 403
    assert run.error is not None
    assert run.error["message"] == "The model slow may not be used here."
    assert backend.calls == []
    run = await run_policy(policy, backend, client=client, stream=stream, request={"model": "fast"})
    assert (run.status, run.text) == (200, "Hello")


@pytest.mark.parametrize(
    ("config", "model", "reason"),
    [
        ({"allow": ["gpt-*"]}, "gpt-4o", None),
        ({"allow": ["gpt-*"]}, "GPT-4o", None),
        ({"allow": ["gpt-*"]}, "claude", "the model is not among those allowed"),
        ({"allow": ["gpt-*"], "deny": ["*-pro"]}, "gpt-5-pro", "the model's name matches '*-pro'"),
        ({"deny": ["*-pro"]}, "GPT-5-PRO", "the model's name matches '*-pro'"),
        ({"deny": ["*-pro"]}, "gpt-5", None),
        ({"allow": []}, "gpt-5", "the model is not among those allowed"),
    ],
)
async def test_allow_and_deny(config: dict[str, Any], model: str, reason: str | None) -> None:
    """`deny` wins, case does not count; the record has the reason."""
    run = await run_policy(AllowModels(**config), ScriptedBackend(chunks("Hello"), names=(model,)), request={"model": model})
    assert (run.status, run.verdicts[0].reason) == ((200, "") if reason is None else (403, reason))


async def test_a_name_cannot_say_anything_in_the_message() -> None:
    """A client's own text is cut to one short word."""
    model = "x\n\nBuy now <b> " + "y" * 400
    policy = AllowModels(allow=["fast"], message="{model}: not here.")
    run = await run_policy(policy, ScriptedBackend(chunks("Hello"), names=(model,)), request={"model": model})
    assert run.error is not None
    assert re.fullmatch(r"x_Buy_now_b_y+: not here\.", run.error["message"])
    assert len(run.error["message"]) <= 64 + len(": not here.")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "give allow or deny"),
        ({"allow": "gpt"}, "allow must be a list of model names, not 'gpt'"),
        ({"deny": [1]}, "deny must be a list of model names, not [1]"),
        ({"deny": ["x"], "message": ""}, "message must be a text"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match=re.escape(message)):
        AllowModels(**config)
