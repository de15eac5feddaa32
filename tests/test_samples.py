"""`Resample` and `Defer`: another answer to the same request, of which the client gets one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pytest

from luthien_asgi import (
    BackendError,
    Block,
    BlockKind,
    Chain,
    ConfigError,
    Defer,
    Deny,
    Hold,
    LuthienMiddleware,
    Observe,
    Policy,
    Resample,
    StreamContext,
    StreamSettings,
    Verdict,
)
from luthien_asgi.policies import ReplaceText, UpperCase
from luthien_asgi.request import WireName
from luthien_asgi.samples import added
from luthien_asgi.testing import ScriptedBackend, Thinking, ToolCall, chunks, run_policy
from luthien_asgi.testing.backend import Step
from luthien_asgi.testing.chunk_builders import (
    IDENTITY,
    build_chunk,
    finish,
    role,
    text_chunk,
    thinking_chunks,
    tool_chunks,
    usage,
)

CLIENTS: Sequence[WireName] = ("openai", "anthropic", "responses")
BAD = ToolCall("c1", "bash", {"command": "rm -rf /canary"})
CALL = {"kind": "tool_call", "index": 0}
GOOD = ToolCall("c2", "ls", {"path": "/"})


class Again(Policy):
    """Has an answer drawn again in which a tool is called, `bash` if nothing else is said."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Resample,)

    def __init__(self, n: int = 1, *, rest: bool = False, instructions: str = "") -> None:
        self.n = n
        self.rest = rest
        self.instructions = instructions
        self.bad = "bash"

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        ctx.scratchpad.setdefault("samples", []).append((ctx.sample, ctx.model))
        ctx.state(list).append(block.name)
        ctx.scratchpad["state"] = list(ctx.state(list))
        return Resample(self.n, self.instructions, "gave up", "rule") if block.name == self.bad else None


class Hands(Policy):
    """Has an answer in which `bash` is called written by another model."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Defer,)

    def __init__(self, model: str = "trusted", *, rest: bool = False) -> None:
        self.model = model
        self.asks = (model,)
        self.rest = rest

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Defer(self.model, "gave up") if block.name == "bash" else None


class NotBad(Policy):
    """Judges text in line."""

    handles: ClassVar = {BlockKind.TEXT: Hold()}
    verdicts = (Resample, Deny)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Resample() if "canary" in block.text else None


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_the_client_gets_the_new_answer_and_nothing_of_the_old_one(
    client: WireName, wire: WireName, *, stream: bool
) -> None:
    """No text, no call, no id of the first; the usage of both."""
    backend = ScriptedBackend([chunks("first canary ", BAD), chunks("second ", GOOD)], wire=wire)
    run = await run_policy(Again(), backend, client=client, stream=stream)
    assert (run.text, [call.name for call in run.tool_calls]) == ("second ", ["ls"])
    assert b"canary" not in b"".join(run.frames)
    assert b"first" not in b"".join(run.frames)
    assert run.record is not None
    assert run.record.usage == {"prompt_tokens": 22, "completion_tokens": 14, "total_tokens": 36}
    assert 22 in run.usage.values()
    (sample,) = run.record.samples
    assert (sample.model, sample.policy, sample.verdict) == ("scripted", "Again", "resample")
    assert [block.name or block.text for block in sample.blocks] == ["first canary ", "bash"]
    assert [block.name or block.text for block in run.record.backend_blocks] == ["second ", "ls"]
    assert [(record.verdict, record.action, record.sample) for record in run.verdicts] == [
        ("resample", "resample", 0),
        ("allow", "allow", 1),
    ]
    assert all(stream.closed.is_set() for stream in backend.streams)


async def test_the_beginning_of_a_second_answer_does_not_leave() -> None:
    """A client gets one `message_start`, and the identity in it is the first answer's."""
    scripts = [chunks(BAD), chunks(GOOD)]
    for script, id_ in zip(scripts, ("msg_first", "msg_second"), strict=True):
        message = {"id": id_, "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1}}
        event = {"type": "message_start", "message": message}
        script[0].provider_specific_fields = {"anthropic": event}  # type: ignore[attr-defined]  # a field of LiteLLM's class
    run = await run_policy(Again(), ScriptedBackend(scripts, wire="anthropic"), client="anthropic")
    assert [b"msg_second" in frame for frame in run.frames if b"msg_" in frame] == [False]


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_usage_in_the_providers_own_words_is_of_all_answers_too(wire: WireName) -> None:
    """On the same wire the client gets the provider's own fields, summed."""
    delta = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}}
    rider = {"openai": {"usage": {"own_tokens": 7}}} if wire == "openai" else {"anthropic": delta}
    scripts = [chunks(BAD), chunks(GOOD)]
    for script in scripts:
        script[-1].provider_specific_fields = rider  # type: ignore[attr-defined]  # a field of LiteLLM's class
    run = await run_policy(Again(), ScriptedBackend(scripts, wire=wire), client=wire)
    assert run.usage["own_tokens" if wire == "openai" else "output_tokens"] == 14


async def test_a_policy_knows_which_answer_it_judges_and_begins_anew() -> None:
    """The states of a dropped answer are gone; the scratchpad stays."""
    kept: list[Any] = []

    class Looks(Again):
        def on_stream_complete(self, ctx: StreamContext) -> None:
            kept.extend([ctx.scratchpad["samples"], ctx.scratchpad["state"]])

    await run_policy(Looks(), ScriptedBackend([chunks(BAD), chunks(GOOD)]))
    assert kept == [[(0, "scripted"), (1, "scripted")], ["ls"]]


@pytest.mark.parametrize("client", CLIENTS)
async def test_the_model_is_told_more_for_the_new_answer_only(client: WireName) -> None:
    """The instructions are in the second request, where its wire has them."""
    backend = ScriptedBackend([chunks(BAD), chunks(GOOD)])
    await run_policy(Again(instructions="no shell"), backend, client=client)
    first, second = (str(call.request.body) for call in backend.calls)
    assert "no shell" not in first
    assert "no shell" in second


def test_instructions_are_added_to_what_is_there() -> None:
    """A system prompt of blocks gets one more block, a text grows."""
    from luthien_asgi import ChatRequest

    blocks = ChatRequest(wire="anthropic", body={"model": "m", "system": [{"type": "text", "text": "a"}]})
    assert blocks.with_instructions("b").body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    text = ChatRequest(wire="responses", body={"model": "m", "instructions": "a"})
    assert text.with_instructions("b").body["instructions"] == "a\n\nb"
    assert ChatRequest(wire="anthropic", body={"model": "m"}).with_instructions("b").body["system"] == "b"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("n", [1, 2])
async def test_after_n_answers_the_block_is_denied(client: WireName, n: int) -> None:
    """The backend is asked n times more and not once more; what is recorded is the verdict and what was done."""
    backend = ScriptedBackend([chunks("x", BAD)] * (n + 1))
    run = await run_policy(Again(n), backend, client=client)
    assert len(backend.calls) == n + 1
    assert (run.text, run.tool_calls) == ("x\n\ngave up", [])
    assert [record.action for record in run.verdicts] == ["resample"] * n + ["deny"]


async def test_all_policies_together_have_a_bound() -> None:
    """`resamples` counts the dropped answers of a transaction."""
    backend = ScriptedBackend([chunks(BAD)] * 3)
    run = await run_policy(Again(100), backend, settings=StreamSettings(resamples=2))
    assert len(backend.calls) == 3
    assert run.text == "gave up"


async def test_each_policy_has_a_bound_of_its_own() -> None:
    """What one has had dropped is not taken from another's."""
    other = Again()
    other.bad = "ls"
    backend = ScriptedBackend([chunks(BAD), chunks(GOOD), chunks("fine")])
    run = await run_policy(Chain([Again(), other]), backend)
    assert (run.text, len(backend.calls)) == ("fine", 3)


async def test_what_was_dropped_is_held_no_longer() -> None:
    """The bound is of one answer."""
    backend = ScriptedBackend([chunks("x" * 2000, BAD), chunks("y" * 2000, GOOD)])
    run = await run_policy(Again(), backend, settings=StreamSettings(queue_bytes=3500))
    assert (run.error, run.text) == (None, "y" * 2000)


async def test_an_answer_drawn_again_is_of_the_model_that_writes_by_then() -> None:
    """After `Defer` the other model is asked again, and instructions are those of the last verdict alone."""

    class Both(Again):
        verdicts = (Resample, Defer)

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
            return [Resample(9, "no shell"), Defer("trusted"), Resample(9, "no shell"), None][ctx.sample]

    backend = ScriptedBackend([chunks(BAD)] * 3 + [chunks(GOOD)])
    run = await run_policy(Both(), backend)
    assert [call.name for call in run.tool_calls] == ["ls"]
    assert [call.request.model for call in backend.calls] == ["scripted", "scripted", "trusted", "trusted"]
    assert [str(call.request.body).count("no shell") for call in backend.calls] == [0, 1, 0, 1]


async def test_a_dropped_answer_is_closed_before_another_is_asked_for() -> None:
    """Two at a time would be paid for, and the first is read by nobody."""
    open_before: list[int] = []

    class Backend(ScriptedBackend):
        async def open(self, call: Any) -> Any:
            open_before.append(sum(not stream.closed.is_set() for stream in self.streams))
            return await super().open(call)

    await run_policy(NotBad(), Backend([[*chunks("a canary", GOOD)[:-2], asyncio.Event()], chunks("fine")]))
    assert open_before == [0, 0]


async def test_a_text_that_is_judged_in_line_ends_its_stream() -> None:
    """The rest of a dropped answer is not read; the record says what that means for the usage."""
    never = asyncio.Event()
    backend = ScriptedBackend([[*chunks("a canary", GOOD)[:-2], never], chunks("fine")])
    run = await run_policy(NotBad(), backend)
    assert run.text == "fine"
    assert run.record is not None
    assert any("usage is too low" in note for note in run.record.notes)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_rest_lets_text_leave_and_takes_the_calls_of_the_new_answer(client: WireName, *, stream: bool) -> None:
    """The text of the first, the calls of the second; a policy's own words are said."""
    backend = ScriptedBackend([chunks("first ", BAD), chunks("second ", GOOD)])
    run = await run_policy(Again(rest=True), backend, client=client, stream=stream)
    assert (run.text, [call.name for call in run.tool_calls]) == ("first ", ["ls"])
    backend = ScriptedBackend([chunks("first ", BAD), chunks("second ", BAD)])
    run = await run_policy(Again(rest=True), backend, client=client, stream=stream)
    assert (run.text, run.tool_calls) == ("first \n\ngave up", [])


async def test_rest_takes_the_whole_new_answer_where_nothing_has_left() -> None:
    """Nothing is doubled then."""
    run = await run_policy(Again(rest=True), ScriptedBackend([chunks(BAD), chunks("second ", GOOD)]))
    assert (run.text, [call.name for call in run.tool_calls]) == ("second ", ["ls"])


@pytest.mark.parametrize("client", CLIENTS)
async def test_calls_of_one_answer_do_not_go_with_the_thinking_of_another(client: WireName) -> None:
    """With `rest` the thinking has left: the call is denied. Without, all of the first answer is gone."""
    first = chunks(Thinking("hm canary", signature="c2ln"), BAD)
    backend = ScriptedBackend([first, chunks(GOOD)], wire="anthropic")
    run = await run_policy(Again(rest=True), backend, client=client)
    assert (len(backend.calls), run.tool_calls, run.text) == (1, [], "gave up")
    assert run.verdicts[0].action == "deny"
    run = await run_policy(Again(), ScriptedBackend([first, chunks(GOOD)], wire="anthropic"), client=client)
    assert (run.thinking, [call.name for call in run.tool_calls]) == ("", ["ls"])


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("rest", [True, False])
async def test_another_model_writes_the_answer(client: WireName, *, rest: bool) -> None:
    """It is asked the same; when its answer is refused too, the block is denied."""
    backend = ScriptedBackend([chunks("one ", BAD), chunks("two ", GOOD)])
    run = await run_policy(Hands(rest=rest), backend, client=client)
    assert [call.request.model for call in backend.calls] == ["scripted", "trusted"]
    assert [call.name for call in run.tool_calls] == ["ls"]
    assert run.text == ("one " if rest else "two ")
    backend = ScriptedBackend([chunks("one ", BAD), chunks("two ", BAD)])
    run = await run_policy(Hands(rest=rest), backend, client=client)
    assert len(backend.calls) == 2
    assert (run.tool_calls, run.text) == ([], "one \n\ngave up" if rest else "two \n\ngave up")


async def test_other_policies_judge_the_new_answer_from_its_beginning() -> None:
    """What a rewriting policy had kept back of a dropped answer is not in the next."""
    policy = Chain([ReplaceText(replacements=[["sec", "SEC"], ["ond!", "?"]]), Again(), UpperCase()])
    run = await run_policy(policy, ScriptedBackend([chunks("on", BAD), chunks("second", "!", GOOD)]))
    assert run.text == "SEC?"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_second_answer_that_fails_is_an_error(*, stream: bool) -> None:
    """Nothing of the first is given instead."""
    backend = ScriptedBackend([chunks("canary", BAD), BackendError("overloaded", status=529)])
    run = await run_policy(Again(), backend, stream=stream)
    assert run.error is not None
    assert b"canary" not in b"".join(run.frames)
    assert run.record is not None
    assert run.record.ending == "failed"
    assert run.record.usage == {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


async def test_an_answer_that_is_held_is_bounded() -> None:
    """One that is longer than what may be held ends."""
    run = await run_policy(Again(), chunks(*["x" * 100] * 50), settings=StreamSettings(queue_bytes=2000))
    assert run.error is not None
    assert b"xxx" not in b"".join(run.frames)


async def test_a_held_answer_fails_as_a_whole() -> None:
    """What was not judged to its end does not leave."""
    backend = ScriptedBackend([[*chunks("a canary")[:-2], BackendError("broke off")]])
    run = await run_policy(Again(), backend)
    assert run.error is not None
    assert b"canary" not in b"".join(run.frames)


def test_a_model_that_is_not_configured_is_refused_at_the_start() -> None:
    """A policy would find out when it is too late."""

    class Backend(ScriptedBackend):
        def target(self, model: str) -> Any:
            if model != "scripted":
                raise BackendError(model, status=404)
            return super().target(model)

    with pytest.raises(ConfigError, match="Hands asks the model 'trusted', which is not configured"):
        LuthienMiddleware(_nothing, policy=Hands(), backend=Backend(chunks("x")), auth=None)


@pytest.mark.parametrize("verdict", [lambda: Resample(0)])
def test_a_resample_asks_at_least_once(verdict: Any) -> None:
    """None would be a denial."""
    with pytest.raises(ValueError, match="at least 1"):
        verdict()


def test_usages_add_up_at_any_depth() -> None:
    """Numbers are added, anything else is the later one's."""
    one = {"prompt_tokens": 1, "details": {"cached": 2, "kind": "a"}, "flag": True, "only": 1}
    other = {"prompt_tokens": 10, "details": {"cached": 20, "kind": "b"}, "flag": False, "more": 0.5}
    assert added(one, other) == {
        "prompt_tokens": 11,
        "details": {"cached": 22, "kind": "b"},
        "flag": False,
        "only": 1,
        "more": 0.5,
    }


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError(scope["type"])


class Watches(Policy):
    """Sees text as it is, and has an answer with a bad word drawn again."""

    handles: ClassVar = {BlockKind.TEXT: Observe()}
    verdicts = (Resample,)

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        return Resample() if "bad" in block.text else None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("level", ["chunk", "choice", "delta"])
async def test_nothing_of_a_dropped_answer_leaves_by_the_side(level: str, *, stream: bool) -> None:
    """A provider's own fields beside the role come before anything is judged: they are left out."""
    beside = build_chunk(
        {
            **IDENTITY,
            "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}],
            "provider_specific_fields": {"openai": {level: {"note": "canary"}}},
        }
    )
    dropped = [beside, text_chunk("bad"), finish(), usage()]
    run = await run_policy(Watches(), [dropped, chunks("fine")], stream=stream)
    assert run.text == "fine"
    assert b"canary" not in b"".join(run.frames)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("policy", [Watches(), Again()], ids=["observes", "holds"])
async def test_an_unknown_event_is_part_of_the_answer_that_it_came_with(policy: Policy, *, stream: bool) -> None:
    """Events of the future wait with the answer: those of a dropped one never leave, those of the client's own do."""
    surprises = [
        build_chunk({**IDENTITY, "choices": [], "provider_specific_fields": {"anthropic": {"type": "surprise", "data": data}}})
        for data in ("canary", "for you")
    ]
    answers = [[surprises[0], *chunks("bad", BAD)], [*chunks("fine")[:-2], surprises[1], *chunks("fine")[-2:]]]
    run = await run_policy(policy, ScriptedBackend(answers, wire="anthropic"), client="anthropic", stream=stream)
    got = b"".join(run.frames)
    assert run.text == "fine"
    assert b"canary" not in got
    assert (b"for you" in got) is stream


@pytest.mark.parametrize("stream", [True, False])
async def test_rest_is_told_for_each_choice_apart(*, stream: bool) -> None:
    """A choice of which no text has left gets the new answer's, whatever has left of another."""
    ends = [finish(), finish(choice=1), usage()]
    begins = [role(), role(choice=1)]
    first = [*begins, text_chunk("old zero"), *tool_chunks("c1", "bash", "{}", choice=1), *ends]
    second = [*begins, text_chunk("new zero"), text_chunk("new one", choice=1), *ends]
    run = await run_policy(Again(rest=True), [first, second], stream=stream, request={"n": 2})
    assert [choice["message"]["content"] for choice in run.body["choices"]] == ["old zero", "new one"]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_whether_there_may_be_another_answer_does_not_depend_on_the_judge(*, fast: bool, stream: bool) -> None:
    """Thinking that follows a call leaves in both cases, whether the judge of the call has spoken before or after."""
    asked, read = asyncio.Event(), asyncio.Event()

    class Slow(Policy):
        handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
        verdicts = (Resample,)
        rest = True

        async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
            asyncio.get_running_loop().call_soon(asked.set)
            if not fast:
                await read.wait()
            return Resample(message="gave up")

    class Reached(asyncio.Event):
        async def wait(self) -> Literal[True]:
            read.set()
            return True

    opened = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}]}
    call = [
        build_chunk(
            {**IDENTITY, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "provider_specific_fields": rider}
        )
        for delta, rider in ((opened, {**CALL, "phase": "open"}), ({}, {**CALL, "phase": "close"}))
    ]
    first: Sequence[Step] = [
        role(),
        *call,
        asked,
        *thinking_chunks("hm"),
        Reached(),
        text_chunk("text"),
        finish("tool_calls"),
        usage(),
    ]
    run = await run_policy(Slow(), [first, chunks("new", GOOD)], stream=stream)
    assert (run.thinking, run.text, run.error) == ("hm", "text\n\ngave up", None)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_new_answer_with_fewer_choices_is_the_providers_fault(*, stream: bool) -> None:
    """A choice that the client knows of does not end in silence."""
    second = [({"role": "assistant"}, None), ({"content": "b"}, None), ({}, "stop")]
    two = [*chunks("canary", BAD)[:-1], *(of_choice(1, delta, finish) for delta, finish in second)]
    backend = ScriptedBackend([two, chunks("one")])
    run = await run_policy(Again(), backend, stream=stream, request={"n": 2})
    assert "fewer choices" in (run.error or {})["message"]
    assert b"canary" not in b"".join(run.frames)


def of_choice(index: int, delta: dict[str, Any], finish: str | None) -> Any:
    return build_chunk({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
