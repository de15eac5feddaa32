"""Whoever leaves, in whatever phase: the provider's connection is closed within a second."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from typing import Any

import pytest

pytestmark = pytest.mark.litellm

MODELS = ["openai/gpt-4o", "azure/gpt-4o", "hosted_vllm/x", "groq/x", "anthropic/claude-x", "ollama_chat/x"]
OLLAMA = b'{"model":"x","created_at":"2024-01-01T00:00:00Z","message":{"role":"assistant","content":"a"},"done":false}\n'


def beginning(kit: Any, model: Any) -> Any:
    if model.startswith("ollama"):
        return OLLAMA
    return kit.sse(*(kit.anthropic_events("a")[:3] if "claude" in model else kit.openai_events("a")[:2]))


def asking(kit: Any, model: Any) -> Any:
    return kit.ask("anthropic" if "claude" in model else "openai")


async def assert_hangs_up(provider: Any, since: Any) -> None:
    async with asyncio.timeout(1.0):
        await provider.hung_up.wait()
    assert time.monotonic() - since < 1.0


async def cancelled(run: Any, until: Any) -> Any:
    """Run a coroutine until the event, then cancel it; return when."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await until.wait()
        since = time.monotonic()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return since


@pytest.mark.parametrize("model", MODELS)
async def test_cancelled_while_the_provider_has_not_answered(lab: Any, kit: Any, model: Any) -> None:
    """No headers yet: cancelling `open` closes the connection."""
    provider = await lab.provider(lambda _: kit.reply(begin=False, hang=True))
    backend = lab.calling(model, provider.url)
    since = await cancelled(lambda: backend.open(asking(kit, model)), provider.called)
    await assert_hangs_up(provider, since)


@pytest.mark.parametrize("model", MODELS)
async def test_closed_before_anything_was_read(lab: Any, kit: Any, model: Any) -> None:
    """An answer that nobody iterated is closed by `aclose`, twice is once, and iterating it then ends at once."""
    provider = await lab.provider(lambda _: kit.reply(beginning(kit, model), hang=True))
    stream = await kit.soon(lab.calling(model, provider.url).open(asking(kit, model)))
    since = time.monotonic()
    await stream.aclose()
    await stream.aclose()
    await assert_hangs_up(provider, since)
    assert [chunk async for chunk in stream] == []


@pytest.mark.parametrize("model", MODELS)
async def test_closed_after_one_chunk(lab: Any, kit: Any, model: Any) -> None:
    """Somebody stops iterating and closes."""
    provider = await lab.provider(lambda _: kit.reply(beginning(kit, model), hang=True))
    stream = await kit.soon(lab.calling(model, provider.url).open(asking(kit, model)))
    await kit.soon(anext(stream))
    since = time.monotonic()
    await stream.aclose()
    await assert_hangs_up(provider, since)


@pytest.mark.parametrize("model", MODELS)
async def test_cancelled_while_waiting_for_the_next_chunk(lab: Any, kit: Any, model: Any) -> None:
    """A cancelled `__anext__` leaves the stream closable."""
    provider = await lab.provider(lambda _: kit.reply(beginning(kit, model), hang=True))
    stream = await kit.soon(lab.calling(model, provider.url).open(asking(kit, model)))
    began = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            began.set()

    since = await cancelled(read, began)
    await stream.aclose()
    await assert_hangs_up(provider, since)


async def test_a_connection_is_used_again(lab: Any, kit: Any) -> Any:
    """An answer that was read to its end gives its connection back: calls do not open one each."""
    connections = set()

    def script(asked: Any) -> Any:
        connections.add(asked.headers["host"])
        return kit.reply(kit.sse(*kit.anthropic_events("a")))

    provider = await lab.provider(script)
    backend = lab.calling("anthropic/claude-x", provider.url)
    for _ in range(3):
        await kit.collect(await backend.open(kit.ask("anthropic")))
    assert len(provider.asked) == 3
    assert not provider.hung_up.is_set()


async def test_nothing_is_left_behind(lab: Any, kit: Any) -> None:
    """After the answers are closed no task of theirs runs on."""
    provider = await lab.provider(lambda _: kit.reply(kit.sse(*kit.anthropic_events("a"))))
    backend = lab.calling("anthropic/claude-x", provider.url)
    await kit.collect(await backend.open(kit.ask("anthropic")))
    before = {task.get_name() for task in asyncio.all_tasks()}
    for _ in range(3):
        await kit.collect(await backend.open(kit.ask("anthropic")))
    gc.collect()
    assert {task.get_name() for task in asyncio.all_tasks()} <= before
