"""Three lines to test a policy.

    run = await run_policy(MyPolicy(), chunks("my password ", "is swordfish"))
    assert "swordfish" not in run.text
    assert run.verdicts[0].verdict == "deny"

The policy runs in the real middleware, executor and formatter; only the provider is scripted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from luthien_asgi.approvals import Approvals
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.compose import Composable
from luthien_asgi.recorder import End, MemoryRecorder, VerdictRecord
from luthien_asgi.request import WireName
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing.accumulate import Accumulated, accumulate_anthropic, accumulate_openai
from luthien_asgi.testing.accumulate_responses import accumulate_responses
from luthien_asgi.testing.backend import Script, ScriptedBackend
from luthien_asgi.testing.driver import ASGIDriver, Fetched
from luthien_asgi.testing.events import frames_of
from luthien_asgi.testing.reading import READERS
from luthien_asgi.testing.running import Receive, Scope, Send

__all__ = ["PolicyRun", "run_policy", "run_policy_sync"]

PATHS: Final[Mapping[WireName, str]] = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
}
_ACCUMULATORS: Final = {"openai": accumulate_openai, "anthropic": accumulate_anthropic, "responses": accumulate_responses}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRun:
    """What the client got through a policy, and what was recorded about it."""

    status: int
    body: Mapping[str, Any]
    """The answer in the shape of a response that is not streamed, whether it was streamed or not; empty after an error."""
    blocks: Sequence[Block]
    """What the client got, of all choices. The OpenAI wire has no order between kinds: here thinking, text, refusal, calls."""
    finish_reason: str | None
    """The first choice's finish reason; None on the Anthropic and Responses wires (the latter's `body` has a `status`)."""
    stop_reason: str | None
    """The stop reason; None on the OpenAI and Responses wires."""
    usage: Mapping[str, Any]
    error: Mapping[str, Any] | None
    """The error object of an error response or an error event."""
    frames: Sequence[bytes]
    """The raw stream, frame by frame; of an answer that was not streamed, its body."""
    headers: Mapping[str, str]
    record: End | None
    """The record of the transaction's end; None when none began."""
    backend: ScriptedBackend

    @property
    def text(self) -> str:
        """All text that the client got."""
        return self._joined(BlockKind.TEXT)

    @property
    def thinking(self) -> str:
        """All thinking that the client got."""
        return self._joined(BlockKind.THINKING)

    @property
    def refusal(self) -> str:
        """All refusal that the client got."""
        return self._joined(BlockKind.REFUSAL)

    @property
    def tool_calls(self) -> list[Block]:
        """The tool calls that the client got: `name`, `id`, `text` (JSON) and `arguments` (parsed)."""
        return [block for block in self.blocks if block.kind is BlockKind.TOOL_CALL]

    @property
    def verdicts(self) -> Sequence[VerdictRecord]:
        """What the policy said, in the order it said it."""
        return self.record.verdicts if self.record else ()

    def _joined(self, kind: BlockKind) -> str:
        return "".join(block.text for block in self.blocks if block.kind is kind)


async def run_policy(
    policy: Composable,
    chunks: Script | ScriptedBackend,
    *,
    client: WireName = "openai",
    stream: bool = True,
    request: Mapping[str, Any] | None = None,
    settings: StreamSettings | None = None,
    approvals: Approvals | None = None,
) -> PolicyRun:
    """Send one request through a policy and return what the client got.

    `chunks` is what the backend says (see `chunks()` and `ScriptedBackend`); `request` are fields of the client's request body,
    added to the least that the wire wants; `approvals` is who is asked when the policy escalates. An answer that breaks its
    wire's grammar raises `ValueError`.
    """
    from luthien_asgi.middleware import LuthienMiddleware  # whoever only wants the provider does not pay for it

    backend = chunks if isinstance(chunks, ScriptedBackend) else ScriptedBackend(chunks)
    recorder = MemoryRecorder()
    app = LuthienMiddleware(
        _nothing_behind,
        policy=policy,
        backend=backend,
        recorder=recorder,
        auth=None,
        settings=settings or StreamSettings(),
        approvals=approvals,
    )
    try:
        fetched = await ASGIDriver(app).fetch("POST", PATHS[client], json=_request(client, stream, request or {}))
    finally:
        await app.aclose()
    return _run_of(client, fetched, recorder.ended[-1] if recorder.ended else None, backend)


def run_policy_sync(
    policy: Composable,
    chunks: Script | ScriptedBackend,
    *,
    client: WireName = "openai",
    stream: bool = True,
    request: Mapping[str, Any] | None = None,
    settings: StreamSettings | None = None,
    approvals: Approvals | None = None,
) -> PolicyRun:
    """Do as `run_policy`, in a test that is not async."""
    return asyncio.run(
        run_policy(policy, chunks, client=client, stream=stream, request=request, settings=settings, approvals=approvals)
    )


async def _nothing_behind(scope: Scope, receive: Receive, send: Send) -> None:
    del receive, send
    msg = f"the middleware let a request through to the app behind it: {scope['type']} {scope.get('path')}"
    raise LookupError(msg)


def _request(client: WireName, stream: bool, fields: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "scripted", "stream": stream}
    if client == "responses":
        body["input"] = "Hello"
    else:
        body["messages"] = [{"role": "user", "content": "Hello"}]
    if client == "anthropic":
        body["max_tokens"] = 1024
    elif client == "openai" and stream:
        body["stream_options"] = {"include_usage": True}
    return body | dict(fields)


def _run_of(client: WireName, fetched: Fetched, record: End | None, backend: ScriptedBackend) -> PolicyRun:
    streamed = fetched.headers.get("content-type", "").startswith("text/event-stream")
    got = _ACCUMULATORS[client](fetched.body) if streamed else _whole(fetched)
    body = got.body
    choices = body.get("choices") or [{}]
    return PolicyRun(
        status=fetched.status,
        body=body,
        blocks=READERS[client](body) if body else (),
        finish_reason=choices[0].get("finish_reason"),
        stop_reason=body.get("stop_reason"),
        usage=body.get("usage") or {},
        error=got.error,
        frames=frames_of(fetched.parts) if streamed else [fetched.body],
        headers=fetched.headers,
        record=record,
        backend=backend,
    )


def _whole(fetched: Fetched) -> Accumulated:
    body = fetched.json()
    return Accumulated(error=body["error"]) if fetched.status >= 400 else Accumulated(body=body, done=True)
