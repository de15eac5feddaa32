"""What was judged as one call leaves as one, and nothing is added to it that nobody judged: not by a repeated id or number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from luthien_asgi.policies import DenyTools, GuardShell
from luthien_asgi.request import WireName
from luthien_asgi.testing import ScriptedBackend, run_policy
from luthien_asgi.testing.proof.stage import decoded

EVIL = '{"command": "rm -rf /"}'
CLIENTS: tuple[WireName, ...] = ("openai", "anthropic", "responses")


def openai(*deltas: dict[str, Any], finish: str = "tool_calls") -> list[bytes]:
    """Return the events of an OpenAI stream with these deltas."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [*({"index": 0, "delta": delta} for delta in deltas), {"index": 0, "delta": {}, "finish_reason": finish}]
    return [*(b"data: " + json.dumps({**head, "choices": [one]}).encode() + b"\n\n" for one in choices), b"data: [DONE]\n\n"]


def call(index: int | None, id: str | None, name: str | None, text: str, kind: str = "function") -> dict[str, Any]:  # noqa: A002
    body = {"arguments" if kind == "function" else "input": text} | ({"name": name} if name else {})
    entry = {"index": index, "id": id, "type": kind, kind: body}
    return {"tool_calls": [{field: value for field, value in entry.items() if value is not None}]}


RETURNS = {
    "an id comes back": openai(call(0, "a", "bash", ""), call(0, "b", "forbidden", "{}"), call(0, "a", None, EVIL)),
    "it comes back twice": openai(
        call(0, "a", "bash", ""), call(0, "b", "forbidden", "{}"), call(0, "b", None, ""), call(0, "a", None, EVIL)
    ),
    "half of it": openai(
        call(0, "a", "bash", '{"command": "r'), call(0, "b", "forbidden", "{}"), call(0, "a", None, 'm -rf /"}')
    ),
    "free text": openai(
        call(0, "a", "bash", "echo; rm -r", "custom"), call(0, "b", "forbidden", "{}"), call(0, "a", None, "f /", "custom")
    ),
    "with another number between": openai(
        call(0, "a", "bash", ""), call(1, "c", "fine", "{}"), call(0, "b", "forbidden", "{}"), call(0, "a", None, EVIL)
    ),
    "under a name again": openai(call(0, "a", "bash", ""), call(0, "b", "forbidden", "{}"), call(0, "a", "fine", EVIL)),
}


async def calls_of(
    events: Sequence[bytes], policy: Any, client: WireName, *, stream: bool, provider: WireName = "openai"
) -> tuple[list[tuple[str, str]], str]:
    run = await run_policy(policy, ScriptedBackend(decoded(events, provider), wire=provider), client=client, stream=stream)
    return [(each.name, each.text) for each in run.tool_calls], run.error


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", RETURNS)
async def test_a_call_that_comes_back_is_refused(name: str, client: WireName, stream: bool) -> None:
    """Another took its place, so it was judged; what is added then would be a part of it at the client."""
    policies = (DenyTools(names=["forbidden"], patterns={"bash": r"rm\s", "*": r"rm\s+-rf"}), GuardShell())
    for policy in policies:
        calls, error = await calls_of(RETURNS[name], policy, client, stream=stream)
        assert not any("rm -rf" in text for _, text in calls)
        assert "another one had taken its place" in str(error)
