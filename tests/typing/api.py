"""The public API as users write it: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from luthien_asgi import (
    Allow,
    Block,
    BlockKind,
    ChatRequest,
    Chunk,
    Deny,
    Hold,
    JsonlRecorder,
    KeyAuth,
    Limits,
    LiteLLMBackend,
    LuthienMiddleware,
    MemoryRecorder,
    Observe,
    Paths,
    Policy,
    PolicyContext,
    Replace,
    Stop,
    StreamContext,
    StreamSettings,
    Transform,
    blocking,
    read_part,
    with_text,
)
from luthien_asgi.policies import DenyTools, ReplaceText
from luthien_asgi.policy import Verdict
from luthien_asgi.testing import PolicyRun, ScriptedBackend, chunks, run_policy, run_policy_sync


class Counted:
    def __init__(self) -> None:
        self.chunks = 0


class Everything(Policy):
    handles: ClassVar = {BlockKind.TEXT: Transform(), BlockKind.TOOL_CALL: Hold(), BlockKind.THINKING: Observe()}

    async def on_request(self, request: ChatRequest, ctx: PolicyContext) -> ChatRequest | Deny | None:
        if "password" in request.model:
            return Deny("No.", "reason")
        return request.with_field("temperature", 0.5)

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
        ctx.state(Counted).chunks += 1
        return [with_text(chunk, read_part(chunk).text.upper())]

    async def on_block_end(self, block: Block, ctx: StreamContext) -> Iterable[Chunk] | None:
        ctx.keepalive()
        return [ctx.text("bye")]

    @blocking
    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        if block.name == "bash":
            return Stop("Enough.")
        if block.name == "rm":
            return Replace([block.with_text("{}")])
        return Allow() if block.arguments else None


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def build() -> LuthienMiddleware:
    backend = LiteLLMBackend(model_list=[{"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": "k"}}])
    return LuthienMiddleware(
        app,
        backend=backend,
        policy=Everything(),
        recorder=JsonlRecorder("transactions.jsonl"),
        auth=KeyAuth({"alice": "a-long-key"}),
        settings=StreamSettings(ping_interval=5),
        limits=Limits(messages=100),
        paths=Paths(models="/v1/models"),
    )


async def test_policies() -> str:
    run: PolicyRun = await run_policy(DenyTools(names=["bash"]), chunks("Hel", "lo"), client="anthropic", stream=False)
    return run.text + run_policy_sync(ReplaceText(replacements=[["a", "b"]]), ScriptedBackend(chunks("x"))).text


RECORDER = MemoryRecorder()
