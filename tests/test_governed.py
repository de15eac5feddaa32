"""How a policy is in charge: its mode, what its errors lead to, its time, and where its look at the request runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from luthien_asgi import (
    Block,
    BlockKind,
    Chain,
    ChatRequest,
    ConfigError,
    Deny,
    Governed,
    Hold,
    LuthienMiddleware,
    MemoryRecorder,
    Observe,
    Policy,
    Stop,
    StreamContext,
    StreamSettings,
    Together,
    Transform,
    Verdict,
    read_part,
)
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policies import ReplaceText, UpperCase
from luthien_asgi.request import WireName
from luthien_asgi.testing import PolicyRun, ScriptedBackend, ToolCall, chunks, run_policy
from luthien_asgi.testing.backend import Step
from luthien_asgi.testing.driver import ASGIDriver

CLIENTS: Sequence[WireName] = ("openai", "anthropic", "responses")
BASH = ToolCall("c1", "bash", {"command": "rm -rf /"})


class NoCalls(Policy):
    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Deny,)

    def __init__(self, go: asyncio.Event | None = None) -> None:
        self.go = go

    async def on_block_complete(self, block: Block, ctx: Any) -> Verdict | None:
        if self.go is not None:
            await self.go.wait()
        return Deny("no calls", "rule 1")


class Fails(Policy):
    """Fails in the hooks that it is told to."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.TEXT: Transform()}

    def __init__(self, *hooks: str, after: int = 0) -> None:
        self.hooks = hooks
        self.after = after

    def _fail(self, hook: str) -> None:
        if hook in self.hooks:
            msg = "out of order"
            raise LookupError(msg)

    def on_request(self, request: ChatRequest, ctx: Any) -> None:
        self._fail("on_request")

    def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> Any:
        if part := read_part(chunk).text:
            ctx.state(list).append(part)
        if len(ctx.state(list)) > self.after:
            self._fail("on_chunk_added")
        return ()

    def on_block_end(self, block: Block, ctx: StreamContext) -> Any:
        self._fail("on_block_end")
        kept = "".join(ctx.state(list))
        return [ctx.text(kept)] if kept else None

    def on_block_complete(self, block: Block, ctx: Any) -> None:
        if block.kind is BlockKind.TOOL_CALL:
            self._fail("on_block_complete")

    def on_stream_complete(self, ctx: Any) -> None:
        self._fail("on_stream_complete")


def said(run: PolicyRun) -> list[tuple[str, str, str]]:
    return [(record.verdict, record.action, record.mode) for record in run.verdicts]


# --- mode -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_policy_in_shadow_changes_nothing_and_is_recorded(client: WireName, *, stream: bool) -> None:
    """Chunk by chunk and byte by byte what the client gets without it."""
    script = chunks("one ", "two", BASH)
    bare = await run_policy(Policy(), script, client=client, stream=stream)
    shadows = [NoCalls(), ReplaceText(replacements=[["one", "1"]]), Fails("on_chunk_added")]
    run = await run_policy(Chain([Governed(policy, mode="shadow") for policy in shadows]), script, client=client, stream=stream)
    assert (run.text, run.finish_reason, run.stop_reason) == (bare.text, bare.finish_reason, bare.stop_reason)
    assert [call.text for call in run.tool_calls] == [call.text for call in bare.tool_calls]
    assert len(run.frames) == len(bare.frames)
    assert {(action, mode) for _, action, mode in said(run)} == {("allow", "shadow")}
    assert {verdict for verdict, _, _ in said(run)} == {"allow", "deny", "error", "replace"}
    assert run.record is not None
    assert (run.record.ending, run.record.unchecked) == ("completed", ())


@pytest.mark.parametrize("kind", [BlockKind.TOOL_CALL, BlockKind.TEXT])
async def test_nothing_waits_for_a_policy_in_shadow(kind: BlockKind) -> None:
    """The client has its whole answer while the judge is still at work; the record waits for the judge.

    A judge of text keeps the shadow itself from reading on, one of a call does not.
    """
    go, recorder = asyncio.Event(), MemoryRecorder()
    backend = ScriptedBackend(chunks("text", BASH))
    judge = NoCalls(go)
    judge.handles = {kind: Hold()}  # type: ignore[misc]  # a policy may declare what it handles as it is made
    app = LuthienMiddleware(_nothing, policy=Governed(judge, mode="shadow"), backend=backend, recorder=recorder, auth=None)
    fetched = await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json=_body(stream=True))
    assert fetched.body.endswith(b"data: [DONE]\n\n")
    assert recorder.ended == []
    go.set()
    await app.aclose()
    (end,) = recorder.ended
    assert [(record.verdict, record.action, record.mode) for record in end.verdicts] == [("deny", "allow", "shadow")]


async def test_a_shadow_that_falls_behind_is_given_up() -> None:
    """What is kept for it is bounded; the client gets everything, and the record says that the policy did not."""
    judge = NoCalls(asyncio.Event())
    judge.handles = {BlockKind.TEXT: Hold()}  # type: ignore[misc]
    first, *more = chunks("text", BASH, *["x" * 1000] * 9)
    recorder = MemoryRecorder()
    app = LuthienMiddleware(
        _nothing,
        policy=Governed(judge, mode="shadow"),
        backend=ScriptedBackend([first, *more]),
        recorder=recorder,
        auth=None,
        settings=StreamSettings(queue_bytes=4000, drain_timeout=0.0),
    )
    fetched = await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json=_body(stream=False))
    assert fetched.body.count(b"x" * 1000) > 0
    await app.aclose()
    (end,) = recorder.ended
    assert end.notes == ("the policy NoCalls, in shadow, fell behind and saw no more of the answer",)


async def test_a_shadow_together_with_others_sees_what_they_see() -> None:
    """And does not count among their verdicts."""
    run = await run_policy(Together([Fails(), Governed(NoCalls(), mode="shadow")]), chunks(BASH))
    assert [call.name for call in run.tool_calls] == ["bash"]
    assert ("deny", "allow", "shadow") in said(run)


async def test_a_shadow_has_chunks_of_its_own() -> None:
    """One that edits in place changes nothing of what the client gets."""

    class InPlace(Policy):
        handles: ClassVar = {BlockKind.TEXT: Transform()}

        def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> None:
            chunk.choices[0].delta.content = "X"

    assert (await run_policy(Governed(InPlace(), mode="shadow"), chunks("a", "b", "c"))).text == "abc"


async def test_a_shadow_that_fails_lets_nothing_through() -> None:
    """The answer is marked as unchecked where somebody in charge did not check it."""
    for hook in ("on_request", "on_chunk_added", "on_block_complete"):
        run = await run_policy(Governed(Fails(hook), mode="shadow", on_error="pass"), chunks("text", BASH))
        assert ("error", "allow", "shadow") in said(run)
        assert run.record is not None
        assert (run.record.unchecked, "x-luthien-unchecked" in run.headers) == ((), False)


async def test_a_shadow_that_never_ends_is_given_up_when_the_server_stops() -> None:
    """The record is written all the same."""
    recorder = MemoryRecorder()
    app = LuthienMiddleware(
        _nothing,
        policy=Governed(NoCalls(asyncio.Event()), mode="shadow"),
        backend=ScriptedBackend(chunks("text", BASH)),
        recorder=recorder,
        auth=None,
        settings=StreamSettings(drain_timeout=0.0),
    )
    await ASGIDriver(app).fetch("POST", "/v1/chat/completions", json=_body(stream=False))
    await app.aclose()
    assert [end.ending for end in recorder.ended] == ["completed"]


@pytest.mark.broken_off
async def test_a_shadow_is_given_up_when_the_client_leaves() -> None:
    """Nobody gets the answer that it would speak about; the record is written at once."""
    recorder, asked = MemoryRecorder(), asyncio.Event()

    class Stuck(Policy):
        async def on_request(self, request: Any, ctx: Any) -> None:
            asked.set()
            await asyncio.Event().wait()

    script: list[Step] = [*chunks("text")[:2], asyncio.Event()]
    app = LuthienMiddleware(
        _nothing,
        policy=Governed(Stuck(), mode="shadow"),
        backend=ScriptedBackend(script),
        recorder=recorder,
        auth=None,
    )
    async with ASGIDriver(app).request("POST", "/v1/chat/completions", json=_body(stream=True)) as response:
        await asked.wait()
        await response.part()
        response.disconnect()
        await response.done()
    assert [end.ending for end in recorder.ended] == ["client_disconnected"]
    await app.aclose()


async def test_a_shadow_sees_what_the_policy_before_it_let_out() -> None:
    """At its place in the chain."""
    watched = Governed(ReplaceText(replacements=[["B", "x"]]), mode="shadow")
    run = await run_policy(Chain([UpperCase(), watched]), chunks("abc"))
    assert run.text == "ABC"
    assert ("replace", "allow", "shadow") in said(run)
    run = await run_policy(Chain([watched, UpperCase()]), chunks("abc"))
    assert [record.policy for record in run.verdicts] == ["UpperCase"]


async def test_requests_are_shown_to_a_shadow_too() -> None:
    """What it would have refused is called all the same."""

    class Refuses(Policy):
        def on_request(self, request: ChatRequest, ctx: Any) -> Deny:
            return Deny("no", "rule 7")

    run = await run_policy(Governed(Refuses(), mode="shadow"), chunks("fine"))
    assert run.text == "fine"
    (record,) = run.verdicts
    assert (record.hook, record.verdict, record.action, record.reason) == ("on_request", "deny", "allow", "rule 7")


async def test_a_policy_that_is_off_is_not_asked_and_still_checked() -> None:
    """A mistake in it is found before it is switched on."""
    run = await run_policy(Together([Governed(NoCalls(), mode="off"), Governed(NoCalls(), mode="off")]), chunks(BASH))
    assert [call.name for call in run.tool_calls] == ["bash"]
    assert run.verdicts == ()
    wrong = NoCalls()
    wrong.handles = {BlockKind.THINKING: Transform()}  # type: ignore[misc]
    with pytest.raises(ConfigError, match="never edited"):
        Pipeline.of(Chain([UpperCase(), Governed(wrong, mode="off")]))


async def test_an_outer_layer_can_only_tighten() -> None:
    """Enforce over shadow over off, block over pass, the shorter of two timeouts; nothing said changes nothing."""
    relaxed = Governed(NoCalls(), mode="shadow", on_error="pass", timeout=9)
    (plan,) = Pipeline.of(Governed(Chain([relaxed]), mode="enforce", on_error="block", timeout=5)).in_charge
    assert (plan.charge.on_error, plan.charge.timeout) == ("block", 5)
    strict = Governed(NoCalls(), mode="enforce", on_error="block", timeout=5)
    (plan,) = Pipeline.of(Governed(strict, mode="off", on_error="pass", timeout=9)).in_charge
    assert (plan.charge.on_error, plan.charge.timeout) == ("block", 5)
    assert Pipeline.of(Governed(Chain([NoCalls()]), mode="off")).in_charge == ()
    assert Pipeline.of(Chain([relaxed])).in_charge == ()


# --- on_error ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_judge_that_fails_blocks_or_passes_with_a_warning(client: WireName, *, stream: bool) -> None:
    """Blocked with a message; or let through, with a warning before the call, a mark in the record, a header where it can be."""
    script = chunks("so ", BASH)
    run = await run_policy(Governed(Fails("on_block_complete")), script, client=client, stream=stream)
    assert run.tool_calls == []
    assert run.text == "so \n\nThe call of bash was blocked: the policy Fails could not check it."
    run = await run_policy(Governed(Fails("on_block_complete"), on_error="pass"), script, client=client, stream=stream)
    assert [call.name for call in run.tool_calls] == ["bash"]
    assert run.text == "so \n\n[The policy Fails could not check the call of bash: it was let through.]"
    assert run.record is not None
    assert run.record.unchecked == ("Fails",)
    assert ("error", "allow", "enforce") in said(run)
    assert (run.headers.get("x-luthien-unchecked") == "Fails") is not stream


@pytest.mark.parametrize("hook", ["on_chunk_added", "on_block_end"])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_rewriting_policy_that_fails_loses_no_text_where_errors_pass(hook: str, after: int) -> None:
    """What it had kept back goes on, and the rest of the block as the provider writes it."""
    script = chunks("one ", "two ", "three")
    run = await run_policy(Governed(Fails(hook, after=after)), script)
    assert run.error is not None
    run = await run_policy(Governed(Fails(hook, after=after), on_error="pass"), script)
    assert (run.error, run.text) == (None, "one two three")
    assert run.record is not None
    assert run.record.unchecked == ("Fails",)


class Tires(Policy):
    """Writes in capitals, perhaps keeps `d` back, and fails at `e`."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps

    def on_chunk_added(self, chunk: Any, ctx: StreamContext) -> Any:
        seen = ctx.state(list)
        seen.append(read_part(chunk).text)
        if seen[-1] == "e":
            msg = "out of order"
            raise LookupError(msg)
        return () if self.keeps and seen[-1] == "d" else [ctx.text(seen[-1].upper())]

    def on_block_end(self, block: Block, ctx: StreamContext) -> Any:
        return [ctx.text("D")] if self.keeps else None


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_policy_that_fails_late_is_not_asked_again(*, keeps: bool, stream: bool) -> None:
    """What it wrote has left, what it kept back of a text that it had changed is asked for, the rest is the provider's."""
    run = await run_policy(Governed(Tires(keeps=keeps), on_error="pass"), chunks(*"abcdefg"), stream=stream)
    assert (run.error, run.text) == (None, "ABCDefg")
    assert (await run_policy(Tires(keeps=keeps), chunks(*"abcdefg"), stream=stream)).error is not None


async def test_a_request_that_could_not_be_checked_passes_with_a_header() -> None:
    """While nothing has been sent, a header says it."""
    run = await run_policy(Governed(Fails("on_request")), chunks("fine"))
    assert run.status == 500
    assert run.backend.calls == []
    run = await run_policy(Governed(Fails("on_request"), on_error="pass"), chunks("fine"))
    assert (run.text, run.headers["x-luthien-unchecked"]) == ("fine", "Fails")


async def test_last_words_that_fail_are_none_where_errors_pass() -> None:
    """The answer itself was judged already."""
    assert (await run_policy(Governed(Fails("on_stream_complete")), chunks("fine"))).error is not None
    assert (await run_policy(Governed(Fails("on_stream_complete"), on_error="pass"), chunks("fine"))).text == "fine"


@pytest.mark.parametrize("on_error", ["block", "pass"])
async def test_a_policy_has_a_time_of_its_own(on_error: Any) -> None:
    """`timeout` is that policy's, whatever the settings say."""
    policy = Governed(NoCalls(asyncio.Event()), timeout=0.02, on_error=on_error)
    run = await run_policy(policy, chunks("so", BASH))
    assert run.verdicts[0].verdict == "timeout"
    assert (run.error is None, len(run.tool_calls)) == ((True, 1) if on_error == "pass" else (False, 0))


# --- beside the backend -----------------------------------------------------------------------------------------------------


class Waits(Policy):
    def __init__(self, go: asyncio.Event, verdict: Deny | None) -> None:
        self.go = go
        self.verdict = verdict
        self.asked = asyncio.Event()

    async def on_request(self, request: ChatRequest, ctx: Any) -> Deny | None:
        self.asked.set()
        await self.go.wait()
        return self.verdict


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_byte_waits_for_the_verdict_and_the_backend_does_not(*, stream: bool) -> None:
    """The policy is let go by the backend's own first chunk; a denial is a status, not an event."""
    for verdict, status in ((None, 200), (Deny("no"), 403)):
        opened = asyncio.Event()
        backend = _Announcing(chunks("fine"), opened)
        run = await run_policy(Governed(Waits(opened, verdict), concurrent=True), backend, stream=stream)
        assert (run.status, len(backend.calls)) == (status, 1)
        assert b"fine" not in b"".join(run.frames) if verdict else run.text == "fine"
        assert backend.streams[0].closed.is_set()


class _Announcing(ScriptedBackend):
    """Sets an event when it is called."""

    def __init__(self, answers: Any, opened: asyncio.Event) -> None:
        super().__init__(answers)
        self.opened = opened

    async def open(self, call: Any) -> Any:
        self.opened.set()
        return await super().open(call)


async def test_a_denial_beside_the_backend_ends_its_call_at_once() -> None:
    """A backend that has not answered yet is not waited for."""
    go = asyncio.Event()
    go.set()
    backend = ScriptedBackend([[asyncio.Event()]])
    run = await run_policy(Governed(Waits(go, Deny("no")), concurrent=True), backend)
    assert (run.status, (run.error or {})["message"]) == (403, "no")
    assert run.record is not None
    assert run.record.ending == "denied"


async def test_a_policy_beside_the_backend_cannot_change_the_request() -> None:
    """It was sent already: fail closed."""

    class Changes(Policy):
        def on_request(self, request: ChatRequest, ctx: Any) -> ChatRequest:
            return request.with_field("temperature", 0.1)

    run = await run_policy(Governed(Changes(), concurrent=True), chunks("fine"))
    assert run.status == 500
    assert "can only deny" in (run.error or {})["message"]


async def test_counting_tokens_asks_everybody() -> None:
    """The content goes to the provider there as well, and there is no call to run beside."""
    go = asyncio.Event()
    go.set()
    policy = Governed(Waits(go, Deny("no")), concurrent=True)
    backend = ScriptedBackend(chunks("x"))
    app = LuthienMiddleware(_nothing, policy=policy, backend=backend, auth=None)
    body = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    fetched = await ASGIDriver(app).fetch("POST", "/v1/messages/count_tokens", json=body)
    assert (fetched.status, backend.calls) == (403, [])
    await app.aclose()


async def test_a_stop_after_denials_says_both() -> None:
    """The messages leave in the order of what they are about."""

    class Strict(NoCalls):
        verdicts = (Deny, Stop)

        async def on_block_complete(self, block: Block, ctx: Any) -> Verdict | None:
            return Stop("stop") if block.name == "ls" else Deny("no")

    run = await run_policy(Strict(), chunks("so", BASH, ToolCall("c2", "ls", {})))
    assert run.text == "so\n\nno\n\nstop"


def _body(*, stream: bool) -> dict[str, Any]:
    return {"model": "scripted", "stream": stream, "messages": [{"role": "user", "content": "x"}]}


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError(scope["type"])


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_who_only_watches_changes_nothing_by_editing_in_place(mode: Any) -> None:
    """Also deep inside of a chunk, where a call's arguments are."""

    class Edits(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Observe()}

        def on_chunk_added(self, chunk: Any, ctx: Any) -> None:
            for call in chunk.choices[0].delta.tool_calls:
                call.function.arguments = "edited"

    run = await run_policy(Governed(Edits(), mode=mode), chunks(ToolCall("c1", "ls", {"path": "/"})))
    assert [call.arguments for call in run.tool_calls] == [{"path": "/"}]
