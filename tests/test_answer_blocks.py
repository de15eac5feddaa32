"""An answer of very many blocks: bounded, and taken in turns with everything else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from luthien_asgi import StreamSettings
from luthien_asgi.policies import DenyTools
from luthien_asgi.request import WireName
from luthien_asgi.testing import ScriptedBackend, run_policy
from luthien_asgi.testing.proof.stage import decoded

CLIENTS: tuple[WireName, ...] = ("openai", "anthropic", "responses")


def one_event(calls: int) -> list[bytes]:
    """Return a stream whose first event holds so many tool calls."""
    entries = [
        {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(calls)
    ]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": {"tool_calls": entries}},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
    ]
    return [*(b"data: " + json.dumps({**head, "choices": [one]}).encode() + b"\n\n" for one in choices), b"data: [DONE]\n\n"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_has_so_many_blocks_and_no_more(client: WireName, stream: bool) -> None:
    """The last that may be is there; one more is an error that names the setting."""
    settings = StreamSettings(answer_blocks=20)
    policy = DenyTools(names=["g"])
    good = await run_policy(
        policy, ScriptedBackend(decoded(one_event(20), "openai")), client=client, stream=stream, settings=settings
    )
    assert len(good.tool_calls) == 20
    bad = await run_policy(
        policy, ScriptedBackend(decoded(one_event(21), "openai")), client=client, stream=stream, settings=settings
    )
    assert bad.tool_calls == []
    assert "more than 20 blocks (answer_blocks)" in str(bad.error)


async def test_what_came_in_one_event_is_taken_in_turns() -> None:
    """Whoever else is ready gets the loop in between, as often as there are a few hundred chunks."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def calls(number: int) -> int:
        nonlocal turns
        backend = ScriptedBackend(decoded(one_event(number), "openai"))
        turns = 0
        assert len((await run_policy(DenyTools(names=["g"]), backend)).tool_calls) == number
        return turns

    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(count())
        few = await calls(100)
        many = await calls(2_660)
        counting.cancel()
    assert many - few >= 20
