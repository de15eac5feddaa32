"""The public API as users write it: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from luthien_asgi import (
    Allow,
    ApiError,
    Backend,
    BackendCall,
    BackendStream,
    Begin,
    Block,
    BlockKind,
    ChatRequest,
    Chunk,
    Deny,
    End,
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
    Target,
    TransactionRecorder,
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


class Endings:
    """A recorder of the user's own."""

    wants_blocks = False

    def __init__(self) -> None:
        self.endings: list[str] = []

    async def start(self) -> None: ...

    async def begin(self, begin: Begin) -> None: ...

    async def end(self, end: End) -> None:
        self.endings.append(end.ending)

    async def aclose(self) -> None: ...


class Renamed:
    """A backend of the user's own, around another."""

    def __init__(self, inner: Backend, names: Mapping[str, str]) -> None:
        self.inner = inner
        self.names = names
        self.make_chunk = inner.make_chunk

    async def start(self) -> None:
        await self.inner.start()

    def models(self) -> Sequence[str]:
        return list(self.names)

    def target(self, model: str) -> Target:
        return self.inner.target(self.names.get(model, model))

    async def open(self, call: BackendCall) -> BackendStream:
        return await self.inner.open(replace(call, request=call.request.with_model(self.names[call.request.model])))

    async def count_tokens(self, call: BackendCall) -> int:
        return await self.inner.count_tokens(call)

    async def aclose(self) -> None:
        await self.inner.aclose()


def client_of(headers: Mapping[str, str]) -> str:
    """An authenticator of the user's own."""
    if "x-team" not in headers:
        raise ApiError("Say who you are.", status=401)
    return headers["x-team"]


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def build_of_parts(backend: Backend) -> LuthienMiddleware:
    recorder: TransactionRecorder = Endings()
    return LuthienMiddleware(app, backend=Renamed(backend, {"fast": "m"}), recorder=recorder, auth=client_of)


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
