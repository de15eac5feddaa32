"""What goes wrong with policies elsewhere, each as a test on the real pipeline.

`case N` is a numbered case of a correct stream, `p N` a complaint about other gateways. Most run on every way: three client
formats, streamed and not.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from luthien_asgi import (
    Block,
    BlockKind,
    ChatRequest,
    ConfigError,
    Deny,
    Hold,
    LuthienMiddleware,
    MemoryRecorder,
    Observe,
    Policy,
    PolicyContext,
    StreamContext,
    StreamSettings,
    Transform,
    read_part,
    with_text,
)
from luthien_asgi.chunks import Chunk
from luthien_asgi.errors import ApiError
from luthien_asgi.policies import DenyTools, ReplaceText, UpperCase
from luthien_asgi.policy import Verdict
from luthien_asgi.request import WireName
from luthien_asgi.testing import (
    ASGIDriver,
    PolicyRun,
    Refusal,
    ScriptedBackend,
    Text,
    Thinking,
    ToolCall,
    Usage,
    assert_policy_holds,
    chunks,
    finish,
    role,
    run_policy,
    sse_events,
    text_chunk,
    tool_chunks,
    usage,
)
from luthien_asgi.testing.chunk_builders import part_chunks
from luthien_asgi.testing.kit import PATHS
from luthien_asgi.testing.proof.outcomes import fragments_of

CLIENTS: list[WireName] = ["openai", "anthropic", "responses"]
each_client = pytest.mark.parametrize("client", CLIENTS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])
ASKED: dict[str, dict[str, Any]] = {
    "openai": {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
    "anthropic": {"model": "scripted", "stream": True, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"model": "scripted", "stream": True, "input": "Hi"},
}


class HoldAll(Policy):
    """Holds every block, lets it through, and counts."""

    handles: ClassVar = dict.fromkeys(BlockKind, Hold())

    def __init__(self) -> None:
        self.judged: list[tuple[str, str]] = []

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        self.judged.append((str(block.kind), block.text or block.name))
        return None


class Canary(HoldAll):
    """Denies every block that says the word, in whatever field."""

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        arguments = block.arguments if block.kind is BlockKind.TOOL_CALL else ""
        return Deny("[removed]") if "CANARY" in f"{block.text} {block.name} {arguments} {block.raw}" else None


def whole(run: PolicyRun) -> bytes:
    return b"".join(run.frames)


def events(run: PolicyRun) -> list[Any]:
    data = [event.data for event in sse_events(whole(run))]
    return [json.loads(text) for text in data if text != "[DONE]"]


# --- 13 and 14: hooks that fail, answers that are emptied --------------------------------------------------------------------


class Late(Policy):
    """Never answers in one of its hooks."""

    handles: ClassVar = {BlockKind.TEXT: Hold()}

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        await asyncio.Event().wait()


@each_client
@streamed_or_not
async def test_case_13_a_hook_that_is_late(client: WireName, stream: bool) -> None:
    """An error and nothing of what it held; the record says which policy and which hook."""
    settings = StreamSettings(policy_timeout=0.02)
    run = await run_policy(Late(), chunks("held"), client=client, stream=stream, settings=settings)
    assert run.error is not None
    assert b"held" not in whole(run)
    assert run.record is not None
    assert run.record.ending == "failed"
    assert "Late did not answer in on_block_complete" in str(run.record.error)
    assert [(v.policy, v.verdict, v.action) for v in run.verdicts] == [("Late", "timeout", "fail")]
    assert run.backend.streams[0].closed.is_set()


class RaisesIn(Policy):
    """Fails in one hook."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def fails(self, hook: str) -> None:
        if hook == self.hook:
            raise KeyError("secret inside")

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> None:
        self.fails("on_request")

    def on_stream_complete(self, ctx: StreamContext) -> None:
        self.fails("on_stream_complete")


@each_client
@streamed_or_not
@pytest.mark.parametrize("hook", ["on_request", "on_stream_complete"])
async def test_case_13_every_hook_that_raises(client: WireName, stream: bool, hook: str) -> None:
    """No hook's failure lets the answer end well, and its words stay inside."""
    run = await run_policy(RaisesIn(hook), chunks("Hi"), client=client, stream=stream)
    assert run.error is not None
    assert b"secret" not in whole(run)
    assert run.record is not None
    assert f"RaisesIn failed in {hook}" in str(run.record.error)
    assert (run.backend.calls == []) == (hook == "on_request")


class Erase(Policy):
    """Lets no text through."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        return [with_text(chunk, "")]


@each_client
@streamed_or_not
async def test_case_14_an_emptied_answer_has_the_notice_and_its_usage(client: WireName, stream: bool) -> None:
    """An empty answer would be refused next turn; the record tells."""
    settings = StreamSettings(empty_notice="[gone]")
    run = await run_policy(Erase(), chunks("a", "b", tokens=Usage(output=3)), client=client, stream=stream, settings=settings)
    assert run.text == "[gone]"
    assert (run.usage.get("completion_tokens") or run.usage.get("output_tokens")) == 3
    assert run.record is not None
    assert any("notice" in note for note in run.record.notes)


# --- 18 to 21: judges of calls -----------------------------------------------------------------------------------------------


@each_client
@streamed_or_not
async def test_case_18_thinking_first_and_the_call_last(client: WireName, stream: bool) -> None:
    """A judge that allows changes nothing of the order."""
    run = await run_policy(HoldAll(), chunks(Thinking("Hm"), "So.", ToolCall("c", "f")), client=client, stream=stream)
    assert [str(block.kind) for block in run.blocks] == ["thinking", "text", "tool_call"]


@each_client
@streamed_or_not
async def test_cases_19_and_20_the_message_stands_before_the_calls_that_survive(client: WireName, stream: bool) -> None:
    """One denied, one run: the client sees why before it runs the other; all denied: nothing to run, and the usage."""
    policy = DenyTools(names=["bad"])
    one = await run_policy(policy, chunks(ToolCall("c1", "bad"), ToolCall("c2", "ok")), client=client, stream=stream)
    assert [(str(b.kind), b.name) for b in one.blocks] == [("text", ""), ("tool_call", "ok")]
    assert "bad was denied" in one.text
    none = await run_policy(policy, chunks("On it.", ToolCall("c1", "bad")), client=client, stream=stream)
    assert none.tool_calls == []
    assert none.usage
    assert (none.finish_reason or none.stop_reason or none.body["status"]) in {"stop", "end_turn", "completed"}


class Down(Policy):
    """A judge whose model is down."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        raise ConnectionError("judge down")


@each_client
@streamed_or_not
async def test_case_21_a_judge_that_fails_blocks_the_call(client: WireName, stream: bool) -> None:
    """Failing closed: a message that a person can read in the place of the call."""
    run = await run_policy(Down(), chunks("Hi.", ToolCall("c", "bash")), client=client, stream=stream)
    assert (run.error, run.tool_calls) == (None, [])
    assert "bash was blocked" in run.text
    assert [(v.verdict, v.action) for v in run.verdicts] == [("error", "deny")]


# --- 22 to 25: text that is rewritten ----------------------------------------------------------------------------------------


@each_client
@streamed_or_not
async def test_cases_22_and_23_replacements_are_exact(client: WireName, stream: bool) -> None:
    """Across chunks, at the very end, with characters that mean something elsewhere; and nothing is carried to the next block."""
    policy = ReplaceText(replacements=[["hello", "bye"], ["$(x)", "\\1"], ["end", "END"]])
    script = [
        role(),
        *map(text_chunk, ["hel", "lo wor", "ld $", "(x) hel"]),
        *tool_chunks("c", "f", "{}"),
        *map(text_chunk, ["lo e", "nd"]),
    ]
    run = await run_policy(policy, [*script, finish("tool_calls"), usage()], client=client, stream=stream)
    assert run.text.replace("\n", "") == "bye world \\1 hello END"


@each_client
async def test_case_25_the_same_record_streamed_and_not(client: WireName) -> None:
    """Blocks, verdicts and usage: a form is no other path."""
    script = chunks(Thinking("Hm"), "On it.", ToolCall("c1", "bad"), ToolCall("c2", "ok", '{"a":1}'))
    runs = [await run_policy(DenyTools(names=["bad"]), script, client=client, stream=stream) for stream in (True, False)]
    first, second = (run.record for run in runs)
    assert first is not None
    assert second is not None
    for name in ("ending", "backend_blocks", "final_blocks", "usage", "finish_reasons"):
        assert getattr(first, name) == getattr(second, name), name
    assert [(v.kind, v.verdict, v.action, v.tool) for v in first.verdicts] == [
        (v.kind, v.verdict, v.action, v.tool) for v in second.verdicts
    ]


# --- 26, 34: waiting ---------------------------------------------------------------------------------------------------------


@each_client
@streamed_or_not
async def test_case_26_a_backend_that_stalls_is_closed(client: WireName, stream: bool) -> None:
    """The client gets an error, the provider's connection is closed, and the policy is not blamed."""
    settings = StreamSettings(stall_timeout=0.02)
    script = [role(), text_chunk("Hi"), asyncio.Event()]
    run = await run_policy(HoldAll(), script, client=client, stream=stream, settings=settings)
    assert run.error is not None
    assert run.backend.streams[0].closed.is_set()
    assert run.record is not None
    assert "HoldAll" not in str(run.record.error)


class Slow(Policy):
    """A judge that thinks until it is told to answer."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        self.asked.set()
        await self.answer.wait()
        return None


PING = {"openai": b": ", "anthropic": b"event: ping", "responses": b": "}


@each_client
async def test_case_34_pings_go_out_while_a_judge_thinks(client: WireName) -> None:
    """Pings of the client's format and not a byte of the held call; then it is released whole."""
    policy, recorder = Slow(), MemoryRecorder()
    backend = ScriptedBackend(chunks("Look.", ToolCall("c", "bash", '{"a":1}')))
    settings = StreamSettings(ping_interval=0.01)
    app = LuthienMiddleware(nothing, policy=policy, backend=backend, recorder=recorder, auth=None, settings=settings)
    seen = b""
    async with ASGIDriver(app).request("POST", PATHS[client], json=ASKED[client]) as response:
        await policy.asked.wait()
        async for part in response:
            seen += part
            if seen.count(PING[client]) >= 3 and not policy.answer.is_set():
                assert b"bash" not in seen
                assert b"Look." in seen
                policy.answer.set()
        await response.done()
    await app.aclose()
    assert b"bash" in seen
    assert recorder.ended[-1].ending == "completed"


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope["path"])


# --- 30, 35 to 38: by the kit ------------------------------------------------------------------------------------------------


def test_cases_30_35_36_and_38_by_the_kits_proof() -> None:
    """No cross-talk, the canary in every field and choice and cut, and a judge that is asked once a block."""
    proof = assert_policy_holds(Canary, canary="CANARY", examples=["CANARY"], cuts=1, halves=False)
    assert proof.canary_runs > 300


@each_client
async def test_case_37_p10_and_p19_what_passes_is_as_if_there_were_no_policy(client: WireName) -> None:
    """With a policy that has nothing to say the client gets the same bytes; with one that holds, the same fragments."""
    script = chunks(*[f"{number} " for number in range(50)])
    plain = await run_policy(Policy(), script, client=client)
    unrelated = await run_policy(DenyTools(names=["never"]), script, client=client)
    holding = await run_policy(HoldAll(), script, client=client)
    assert fragments_of(plain, client) == fragments_of(holding, client)
    assert len(next(iter(fragments_of(holding, client).values()))) == 50
    if client == "openai":  # the others carry ids and times of their own
        assert whole(plain) == whole(unrelated) == whole(holding)


# --- complaints: a policy that does not act, or acts too late ----------------------------------------------------------------


class CountsHooks(Policy):
    """Counts the calls of each hook."""

    handles: ClassVar = {BlockKind.TEXT: Transform(), BlockKind.TOOL_CALL: Hold(), BlockKind.THINKING: Observe()}

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> None:
        self.calls["on_request"] += 1

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        self.calls[f"on_chunk_added {read_part(chunk).kind}"] += 1

    def on_block_end(self, block: Block, ctx: StreamContext) -> None:
        self.calls["on_block_end"] += 1

    def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
        self.calls[f"on_block_complete {block.kind}"] += 1

    def on_stream_complete(self, ctx: StreamContext) -> None:
        self.calls["on_stream_complete"] += 1

    def on_error(self, error: ApiError, ctx: PolicyContext) -> None:
        self.calls["on_error"] += 1


@each_client
@streamed_or_not
async def test_p1_p5_p6_p77_and_p82_every_hook_is_called_on_every_way_and_recorded(client: WireName, stream: bool) -> None:
    """As often for each format and form: a hook a block, whatever the number of chunks, and one verdict a block in the record."""
    policy = CountsHooks()
    script = chunks(Thinking("H", "m"), Text("a", "b", "c"), ToolCall("1", "f", '{"a":1}', cuts=(2, 4)), ToolCall("2", "g"))
    run = await run_policy(policy, script, client=client, stream=stream)
    assert dict(policy.calls) == {
        "on_request": 1,
        "on_chunk_added thinking": 2,
        "on_chunk_added text": 3,
        "on_chunk_added tool_call": 6,
        "on_block_end": 1,
        "on_block_complete thinking": 1,
        "on_block_complete text": 1,
        "on_block_complete tool_call": 2,
        "on_stream_complete": 1,
    }
    judged = [v for v in run.verdicts if v.hook == "on_block_complete"]
    assert sorted((v.policy, v.kind, v.verdict, v.action) for v in judged) == [
        ("CountsHooks", kind, "allow", "allow") for kind in ("text", "thinking", "tool_call", "tool_call")
    ]


@each_client
@streamed_or_not
async def test_p2_a_rewritten_stream_is_rewritten_in_every_delta(client: WireName, stream: bool) -> None:
    """Nothing of the original text is anywhere in the bytes."""
    run = await run_policy(UpperCase(), chunks("hello ", "wor", "ld"), client=client, stream=stream)
    assert run.text == "HELLO WORLD"
    assert not [word for word in (b"hello", b"wor", b'ld"') if word in whole(run)]


@each_client
async def test_p3_a_part_that_no_policy_can_judge_does_not_pass(client: WireName) -> None:
    """A policy that handles every kind is asked about parts of unknown kinds too: what it denies is not in the bytes."""
    audio = {"id": "a", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"audio": {"id": "x", "transcript": "CANARY"}}, "finish_reason": None, "logprobs": None}]
    hot = ScriptedBackend.make_chunk({**audio, "choices": choices})
    run = await run_policy(Canary(), [role(), text_chunk("Hi"), hot, finish()], client=client)
    assert b"CANARY" not in whole(run)
    assert [v.verdict for v in run.verdicts if v.kind == "other"] == ["deny"]


@each_client
@streamed_or_not
async def test_p4_and_p8_nothing_of_a_denied_block_comes_before_its_verdict(client: WireName, stream: bool) -> None:
    """Not its first words either."""
    script = chunks(Text("First words ", "of it, ", "then CANARY."))
    run = await run_policy(Canary(), script, client=client, stream=stream)
    assert run.text == "[removed]"
    assert b"First" not in whole(run)


class DeniesRequests(Policy):
    """Lets no request with the word through."""

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> Deny | None:
        return Deny("No.") if any("CANARY" in block.text for block in request.blocks()) else None


async def test_p7_counting_tokens_passes_the_policy_too() -> None:
    """What a policy lets nobody send is not sent to be counted either."""
    backend = ScriptedBackend(chunks("Hi"))
    app = LuthienMiddleware(nothing, policy=DeniesRequests(), backend=backend, auth=None)
    body = {"model": "scripted", "messages": [{"role": "user", "content": "CANARY"}]}
    fetched = await ASGIDriver(app).fetch("POST", "/v1/messages/count_tokens", json=body)
    await app.aclose()
    assert (fetched.status, backend.calls) == (403, [])


def test_p9_a_policy_whose_needs_cannot_be_met_is_refused_at_load() -> None:
    """Never skipped in silence."""

    class EditsThinking(Policy):
        handles: ClassVar = {BlockKind.THINKING: Transform()}

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Iterable[Chunk] | None:
            return None

    with pytest.raises(ConfigError, match="never edited in parts"):
        LuthienMiddleware(nothing, policy=EditsThinking(), backend=ScriptedBackend(chunks("Hi")), auth=None)


@each_client
@pytest.mark.parametrize(
    "policy",
    [DenyTools(names=["never"]), UpperCase(), ReplaceText(replacements=[["never", "x"]])],
    ids=["holds calls", "transforms", "keeps back"],
)
async def test_p11_p12_p15_and_p16_text_leaves_while_the_backend_goes_on(client: WireName, policy: Policy) -> None:
    """Each chunk is with the client before the provider writes the next: no policy here may gather a stream."""
    gates = [asyncio.Event() for _ in range(3)]
    parts = ["One. ", "Two. ", "Three. "]
    script: list[Any] = [role()]
    for part, gate in zip(parts, gates, strict=True):
        script += [text_chunk(part), gate]
    app = LuthienMiddleware(nothing, policy=policy, backend=ScriptedBackend([*script, finish()]), auth=None)
    seen = b""
    async with ASGIDriver(app).request("POST", PATHS[client], json=ASKED[client]) as response:
        waiting = list(zip(parts, gates, strict=True))
        async for got in response:
            seen += got
            while waiting and waiting[0][0].strip().lower() in seen.decode().lower():
                waiting.pop(0)[1].set()
        await response.done()
    await app.aclose()
    assert waiting == []


@each_client
@streamed_or_not
async def test_p14_and_case_28_a_denied_request_has_no_answer(client: WireName, stream: bool) -> None:
    """An error in the client's format, no byte of an answer, and nobody is called."""
    words: dict[str, Any] = (
        {"input": "CANARY"} if client == "responses" else {"messages": [{"role": "user", "content": "CANARY"}]}
    )
    run = await run_policy(DeniesRequests(), chunks("Hi"), client=client, stream=stream, request=words)
    assert run.status == 403
    assert run.error is not None
    assert run.error["message"] == "No."
    assert run.backend.calls == []
    assert run.record is not None
    assert run.record.ending == "denied"


@each_client
@streamed_or_not
async def test_p17_a_canary_on_every_chunk_boundary(client: WireName, stream: bool) -> None:
    """A chunk a character."""
    run = await run_policy(Canary(), chunks(*"say CANARY now"), client=client, stream=stream)
    assert b"CANARY" not in whole(run)
    assert run.text == "[removed]"


class Masks(Policy):
    """Masks a word in text and in arguments."""

    handles: ClassVar = {BlockKind.TEXT: Transform(), BlockKind.TOOL_CALL: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        text = read_part(chunk).text
        return [with_text(chunk, text.replace("secret", "******"))] if text else [chunk]


@streamed_or_not
async def test_p18_and_p22_arguments_and_every_choice_are_rewritten_and_each_ends_once(stream: bool) -> None:
    """Edited arguments leave edited, choice 1 as choice 0; usage once, one finish a choice."""
    script = [
        role(), role(choice=1), text_chunk("a secret"), text_chunk("my secret", choice=1),
        *part_chunks(ToolCall("c", "f", '{"a":"secret"}'), choice=1),
        finish(), finish("tool_calls", choice=1), usage(Usage(input=5, output=6)),
    ]  # fmt: skip
    run = await run_policy(Masks(), script, stream=stream, request={"n": 2})
    assert b"secret" not in whole(run)
    assert [(b.choice, str(b.kind), b.text) for b in run.blocks] == [
        (0, "text", "a ******"), (1, "text", "my ******"), (1, "tool_call", '{"a":"******"}'),
    ]  # fmt: skip
    assert [choice["finish_reason"] for choice in run.body["choices"]] == ["stop", "tool_calls"]
    assert run.usage["completion_tokens"] == 6
    if stream:
        ends = [choice["index"] for event in events(run) for choice in event["choices"] if choice["finish_reason"]]
        assert ends == [0, 1]
        assert sum(bool(event.get("usage")) for event in events(run)) == 1


# --- complaints: a stream that is spoilt -------------------------------------------------------------------------------------


class FailsLast(Policy):
    """Fails at the last chunk of a block, when everything else has left."""

    handles: ClassVar = {BlockKind.TEXT: Transform()}

    def on_block_end(self, block: Block, ctx: StreamContext) -> list[Chunk]:
        raise KeyError("masking failed")


@each_client
async def test_p21_a_failure_at_the_end_still_ends_the_stream_once(client: WireName) -> None:
    """One terminal event, and it is the error."""
    run = await run_policy(FailsLast(), chunks("Hi"), client=client)
    assert run.error is not None
    assert b"[DONE]" not in whole(run)
    assert b"message_stop" not in whole(run)
    assert b"response.completed" not in whole(run)


@each_client
@streamed_or_not
async def test_p23_the_original_and_the_final_are_kept_apart(client: WireName, stream: bool) -> None:
    """What the provider said is not what the policy made of it, in the record and for the judge."""

    class Both(UpperCase):
        seen: ClassVar[list[str]] = []

        def on_block_complete(self, block: Block, ctx: StreamContext) -> None:
            self.seen.append(block.text)

    run = await run_policy(Both(), chunks("he", "llo"), client=client, stream=stream)
    assert Both.seen == ["hello"]
    assert run.record is not None
    assert [block.text for block in run.record.backend_blocks] == ["hello"]
    assert [block.text for block in run.record.final_blocks] == ["HELLO"]


# --- complaints: places that are not looked at -------------------------------------------------------------------------------

HISTORIES: dict[WireName, dict[str, Any]] = {
    "openai": {
        "messages": [
            {"role": "system", "content": "w1"},
            {"role": "user", "content": [{"type": "text", "text": "w2"}]},
            {"role": "assistant", "content": "w3", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"w4"}'}}]},
            {"role": "tool", "tool_call_id": "c", "content": "w5"},
        ]
    },
    "anthropic": {
        "system": [{"type": "text", "text": "w1"}],
        "messages": [
            {"role": "user", "content": "w2"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "w3"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "w4"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "w5"}]}]},
        ],
    },
    "responses": {
        "instructions": "w1",
        "input": [
            {"role": "user", "content": "w2"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "w3"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":"w4"}'},
            {"type": "function_call_output", "call_id": "c", "output": "w5"},
        ],
    },
}  # fmt: skip


@each_client
async def test_p35_a_policy_sees_every_text_of_a_request(client: WireName) -> None:
    """System, user, assistant, arguments of calls, results of tools: all that goes to the model."""
    seen: list[str] = []

    class Reads(Policy):
        def on_request(self, request: ChatRequest, ctx: PolicyContext) -> None:
            seen.extend(block.text for block in request.blocks())

    await run_policy(Reads(), chunks("Hi"), client=client, request=HISTORIES[client])
    assert [word for word in ("w1", "w2", "w3", "w4", "w5") if not any(word in text for text in seen)] == []


@each_client
@streamed_or_not
@pytest.mark.parametrize(
    ("script", "kinds"),
    [
        (chunks(ToolCall("c", "f")), ["tool_call"]),
        ([role(), text_chunk(""), *tool_chunks("c", "f", "{}"), finish("tool_calls"), usage()], ["tool_call"]),
        (chunks(Refusal("No.")), ["refusal"]),
        ([role(), finish(), usage()], []),
    ],
    ids=["calls alone", "an empty text before", "a refusal", "nothing"],
)
async def test_p36_turns_without_text_are_judged(client: WireName, stream: bool, script: list[Chunk], kinds: list[str]) -> None:
    """A guard that expects text neither fails on them nor skips them."""
    policy = HoldAll()
    run = await run_policy(policy, script, client=client, stream=stream)
    assert run.error is None
    assert [kind for kind, text in policy.judged if text] == kinds


@streamed_or_not
@pytest.mark.parametrize("part", [Text("CANARY"), ToolCall("c", "f", '{"a":"CANARY"}'), Refusal("CANARY"), Thinking("CANARY")])
async def test_p37_every_choice_is_judged(stream: bool, part: Any) -> None:
    """Choice 2 as choice 0."""
    script = [role(), role(choice=1), role(choice=2), text_chunk("fine"), text_chunk("fine", choice=1)]
    script += [*part_chunks(part, choice=2), finish(), finish(choice=1), finish(choice=2), usage()]
    run = await run_policy(Canary(), script, stream=stream, request={"n": 3})
    assert b"CANARY" not in whole(run)
    assert [(v.choice, v.verdict) for v in run.verdicts] == [(0, "allow"), (1, "allow"), (2, "deny")]


@each_client
@streamed_or_not
async def test_p42_denied_thinking_goes_whole_with_its_signature(client: WireName, stream: bool) -> None:
    """And with the calls that it led to: without it they would be refused next turn."""
    script = chunks(Thinking("first CAN", "ARY", signature="c2lnbmVk"), "Text.", ToolCall("c", "f"))
    run = await run_policy(Canary(), script, client=client, stream=stream)
    assert run.thinking == ""
    assert run.tool_calls == []
    assert "Text." in run.text
    assert not [word for word in (b"c2lnbmVk", b"first", b'encrypted_content":"') if word in whole(run)]


@each_client
@streamed_or_not
async def test_p78_the_turn_after_a_denial_passes(client: WireName, stream: bool) -> None:
    """What the policy said about a denied block is in the history, and is no reason to deny again."""

    class Both(Canary, DeniesRequests):
        pass

    first = await run_policy(Both(), chunks("CANARY"), client=client, stream=stream)
    said = {"role": "assistant", "content": first.text}
    turns = [{"role": "user", "content": "Hi"}, said, {"role": "user", "content": "And now?"}]
    history: dict[str, Any] = {"input": turns} if client == "responses" else {"messages": turns}
    second = await run_policy(Both(), chunks("Fine."), client=client, stream=stream, request=history)
    assert (second.status, second.text) == (200, "Fine.")
