r"""Tests of a policy, without a server, a provider or a key: in each format, streamed or not, for every cut of the same answer.

Run it:

    pip install pytest
    python -m pytest examples/testing_a_policy.py

Each test passes. Break `own_policy.py` (search the pattern in each chunk, say) and see `test_no_cut_lets_a_key_through` fail.

To see the same with curl, a provider on loopback and real HTTP: `luthien_asgi.testing.ScriptedProvider` is a provider that says
what a test wants, faults included, and `luthien-asgi demo --serve` shows it with a policy in front.

The trap: a test with one chunk proves little. A provider cuts where it likes, so what a policy looks for has to be looked for in
every cut; a client that does not stream gets the same answer, and a key in a tool call is not in a text.
"""

from __future__ import annotations

from typing import Literal

import pytest
from own_policy import MaskKeys

from luthien_asgi.testing import Text, ToolCall, chunks, run_policy_sync

SAID = "Your key is sk-abcdefgh12345678, keep it."
MASKED = "Your key is [key], keep it."


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("client", ["openai", "anthropic", "responses"])
def test_every_client_gets_the_masked_text(client: Literal["openai", "anthropic", "responses"], stream: bool) -> None:
    run = run_policy_sync(MaskKeys(), chunks(SAID), client=client, stream=stream)
    assert run.text == MASKED
    assert b"abcdefgh" not in b"".join(run.frames)


@pytest.mark.parametrize("cut", range(11, 31))
def test_no_cut_lets_a_key_through(cut: int) -> None:
    assert run_policy_sync(MaskKeys(), chunks(Text(SAID[:cut], SAID[cut:]))).text == MASKED


def test_the_record_says_what_was_done() -> None:
    (verdict,) = run_policy_sync(MaskKeys(), chunks(SAID)).verdicts
    assert (verdict.policy, verdict.verdict, verdict.action) == ("MaskKeys", "replace", "replace")
    assert verdict.reason == "1 masked, 1 in this answer"


def test_tool_calls_pass_as_they_are() -> None:
    call = ToolCall("c1", "save", {"key": "sk-abcdefgh12345678"})
    (passed,) = run_policy_sync(MaskKeys(), chunks(call)).tool_calls
    assert passed.text == call.text
