"""The executor: what leaves, what waits, in which order, and how a stream ends.

Backends here are in-process streams of real chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import anyio
import pytest

from luthien_asgi.backend.chunks import build
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunk_edits import with_text
from luthien_asgi.chunks import Chunk, finish_reason_of, provider_fields, read_part, usage_of
from luthien_asgi.context import NullObservability, PolicyContext, StreamContext
from luthien_asgi.errors import ApiError, BackendError, BackendTimeout, PolicyError, PolicyTimeout, QueueFullError
from luthien_asgi.executor import PolicyExecutor
from luthien_asgi.hooks import HookCaller
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policies import ReplaceText
from luthien_asgi.policy import Allow, Deny, Hold, Observe, Policy, Replace, Stop, Transform, Verdict
from luthien_asgi.queues import End, Failed, StreamQueue, Terminal
from luthien_asgi.recorder import Begin, Transaction
from luthien_asgi.request import ChatRequest, WireName
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings

TEXT, THINKING, TOOL = BlockKind.TEXT, BlockKind.THINKING, BlockKind.TOOL_CALL


def chunk(delta: dict[str, Any], *, choice: int = 0, finish: str | None = None, rider: dict[str, Any] | None = None) -> Chunk:
    data: dict[str, Any] = {
        "id": "chatcmpl-1",
        "created": 7,
        "model": "served",
        "choices": [{"index": choice, "delta": delta, "finish_reason": finish, "logprobs": None}],
    }
    if rider:
        data["provider_specific_fields"] = rider
    return build(data)


def role(choice: int = 0) -> Chunk:
    return chunk({"role": "assistant"}, choice=choice)


def t(text: str, choice: int = 0) -> Chunk:
    return chunk({"content": text}, choice=choice)


def th(text: str = "", signature: str = "") -> Chunk:
    block = {"type": "thinking", "thinking": text} | ({"signature": signature} if signature else {})
    return chunk({"reasoning_content": text, "thinking_blocks": [block]})


def tc(index: int, id: str = "", name: str = "", args: str = "", choice: int = 0) -> Chunk:  # noqa: A002
    call: dict[str, Any] = {"index": index, "function": {"arguments": args}}
    if id:
        call |= {"id": id, "type": "function", "function": {"name": name, "arguments": args}}
    return chunk({"tool_calls": [call]}, choice=choice)


def fin(reason: str = "stop", choice: int = 0) -> Chunk:
    return chunk({}, finish=reason, choice=choice)


def use(prompt: int = 5, completion: int = 7) -> Chunk:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return build({"id": "chatcmpl-1", "created": 7, "model": "served", "choices": [], "usage": usage})


def anthropic(kind: BlockKind, index: int, phase: str, delta: dict[str, Any], event: Any = None) -> Chunk:
    rider = {"kind": str(kind), "phase": phase, "index": index} | ({"anthropic": event} if event else {})
    return chunk(delta, rider=rider)


class Stream:
    """A backend's stream; an exception among the items is raised, an event is waited for."""

    decoder: Literal["openai"] = "openai"
    headers: ClassVar[Mapping[str, str]] = {}
    sent: ClassVar[Mapping[str, Any]] = {}
    ignored: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __init__(self, items: Iterable[Any], wire: WireName = "openai") -> None:
        self.items = list(items)
        self.wire: WireName = wire
        self.closed = 0
        self.error: ApiError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while True:
            if not self.items:
                raise StopAsyncIteration
            item = self.items.pop(0)
            if isinstance(item, BaseException):
                raise item
            if not isinstance(item, asyncio.Event):
                return item  # type: ignore[no-any-return]
            await item.wait()

    async def stream(self) -> Self:
        if self.error is not None:
            raise self.error
        return self

    async def aclose(self) -> None:
        self.closed += 1


class Result:
    """What came out."""

    def __init__(self, chunks: list[Chunk], terminal: Terminal, log: Transaction) -> None:
        self.chunks = chunks
        self.terminal = terminal
        self.log = log

    @property
    def said(self) -> list[str]:
        """What left, chunk by chunk, in the notation of the cases."""
        return [brief for item in self.chunks if (brief := brief_of(item))]

    @property
    def error(self) -> ApiError:
        assert isinstance(self.terminal, Failed), self.terminal
        return self.terminal.error


def brief_of(item: Chunk) -> str:
    part, finish = read_part(item), finish_reason_of(item)
    if finish is not None:
        return f"fin({finish})"
    if usage_of(item) is not None:
        return "use"
    if part.kind is TOOL:
        return f"tc({part.id},{part.name},{part.text})" if part.id or part.text else ""
    if part.kind is THINKING:
        return f"th({part.text}{'|' + part.signature if part.signature else ''})"
    return f"t({part.text})" if part.text else ""


async def run(
    stream: Stream | Iterable[Any],
    policy: Policy | None = None,
    *,
    client: WireName = "openai",
    settings: StreamSettings | None = None,
    reader: bool = True,
    wants_blocks: bool = True,
) -> Result:
    settings = settings or StreamSettings()
    source = stream if isinstance(stream, Stream) else Stream(stream)
    queue: StreamQueue[Chunk | Run] = StreamQueue(
        max_items=settings.queue_size, max_bytes=settings.queue_bytes, timeout=settings.queue_timeout
    )
    request = ChatRequest(wire=client, body={"model": "m", "messages": [{"role": "user", "content": "x"}]})
    begin = Begin(id="t1", at=0, wire=client, path="/", model="m", stream=True, client="", request=request.body)
    log = Transaction(begin)
    hooks = HookCaller(timeout=settings.policy_timeout, threads=2)
    executor = PolicyExecutor(
        pipeline=Pipeline.of(policy), hooks=hooks, make_chunk=build, settings=settings, wants_blocks=wants_blocks
    )
    ctx = PolicyContext(transaction_id="t1", request=request)
    out: list[Chunk] = []
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        process = executor.process(source, queue, client=client, ctx=ctx, obs=NullObservability(), log=log)
        task = tasks.create_task(process)
        if not reader:
            await task
        while not isinstance(item := await queue.get(), End | Failed):
            out += item.chunks() if isinstance(item, Run) else [item]
    hooks.close()
    assert source.closed == 1
    return Result(out, item, log)


# --- passing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wants_blocks", [True, False])
async def test_without_a_policy_every_chunk_leaves_as_the_object_it_was(*, wants_blocks: bool) -> None:
    """Pass-through changes neither count nor boundaries nor the chunks themselves, whether blocks are recorded or not."""
    chunks = [role(), *map(t, ["Hi", "!", " How", " are", " you?"]), fin(), use()]
    result = await run(chunks, wants_blocks=wants_blocks)
    assert result.terminal == End()
    assert [block.text for block in result.log.backend_blocks] == ["Hi! How are you?"] * wants_blocks
    assert [id(c) for c in result.chunks if not finish_reason_of(c)] == [id(c) for c in chunks if not finish_reason_of(c)]
    assert result.said.count("fin(stop)") == 1


@pytest.mark.parametrize("wants_blocks", [True, False])
@pytest.mark.parametrize("settings", [StreamSettings(answer_bytes=300), StreamSettings(queue_bytes=200, queue_timeout=0.01)])
async def test_the_bounds_hold_for_answers_that_nobody_looks_at(settings: StreamSettings, *, wants_blocks: bool) -> None:
    """The short cut counts like the long way: an answer that is too long ends, and a full queue opens the breaker."""
    chunks = [role(), *(t("0123456789") for _ in range(9)), fin()]
    result = await run(chunks, settings=settings, wants_blocks=wants_blocks, reader=False)
    assert isinstance(result.error, BackendError if settings.answer_bytes == 300 else QueueFullError)
    assert result.said == ["t(0123456789)"] * (3 if settings.answer_bytes == 300 else 1)


async def test_tool_calls_of_an_openai_answer_leave_as_they_come() -> None:
    """An OpenAI client without a policy gets interleaved calls in the backend's order."""
    chunks = [role(), tc(0, "a", "f"), tc(1, "b", "g"), tc(0, args="{}"), tc(1, args="[]"), fin("tool_calls")]
    assert (await run(chunks)).said == ["tc(a,f,)", "tc(b,g,)", "tc(,,{})", "tc(,,[])", "fin(tool_calls)"]


async def test_calls_for_an_anthropic_client_wait_for_the_text_after_them() -> None:
    """From another wire, text that follows a call leaves before it."""
    chunks = [role(), tc(0, "a", "f", "{"), t("after"), tc(0, args="}"), fin("tool_calls"), use()]
    result = await run(chunks, client="anthropic")
    assert [s for s in result.said if s != "use"] == ["t(after)", "tc(a,f,{)", "tc(,,})", "fin(tool_calls)"]


async def test_calls_of_the_same_wire_leave_at_once_for_an_anthropic_client() -> None:
    """Anthropic on Anthropic without a policy: as it comes."""
    opening = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    chunks = [
        role(),
        anthropic(TOOL, 0, "open", {"tool_calls": [opening]}),
        anthropic(TOOL, 0, "delta", {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        anthropic(TOOL, 0, "close", {}),
        fin("tool_calls"),
    ]  # fmt: skip
    result = await run(Stream(chunks, "anthropic"), client="anthropic")
    assert [id(c) for c in result.chunks] == [id(c) for c in chunks]


async def test_a_finish_reason_on_each_call_leaves_once_at_the_end() -> None:
    """A provider that repeats its finish reason gives one finish, after everything."""
    chunks = [role(), tc(0, "a", "f", "{}"), fin("tool_calls"), tc(1, "b", "g", "{}"), fin("tool_calls"), use()]
    result = await run(chunks)
    assert [s for s in result.said if s != "use"] == ["tc(a,f,{})", "tc(b,g,{})", "fin(tool_calls)"]


async def test_keepalive_chunks_of_the_backend_do_not_leave() -> None:
    """A chunk without choices, usage or event is a sign of life only."""
    empty = build({"id": "x", "created": 1, "model": "m", "choices": []})
    assert (await run([role(), empty, t("a"), fin()])).said == ["t(a)", "fin(stop)"]


# --- how a stream ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [[role(), t("a")], [role(), t("a"), fin(), t("b", 1)], []])
async def test_an_answer_without_its_finish_reason_is_a_failure(items: list[Any]) -> None:
    """A clean end before every choice has finished is no stop."""
    result = await run(items)
    assert isinstance(result.error, BackendError)
    assert "fin(stop)" not in result.said


async def test_what_was_allowed_is_delivered_before_the_backends_error() -> None:
    """An error after two chunks ends the stream after these two."""
    result = await run([role(), t("a"), t("b"), BackendError("reset", status=502)])
    assert result.said == ["t(a)", "t(b)"]
    assert result.error.message == "reset"
    assert [block.text for block in result.log.backend_blocks] == ["ab"]  # also what did not end is recorded


async def test_an_unexpected_exception_of_the_backend_tells_the_client_nothing() -> None:
    """Raw exception text stays in the log."""
    result = await run([role(), ValueError("secret at 10.0.0.1")])
    assert "secret" not in result.error.message
    assert result.error.status == 500


async def test_a_call_that_could_not_be_opened_is_the_failure() -> None:
    """An error before the first chunk is the terminal item."""
    stream = Stream([])
    stream.error = BackendError("no", status=529)
    assert (await run(stream)).error.status == 529


async def test_a_silent_backend_is_timed_out_and_told_from_a_slow_policy() -> None:
    """A stall is BackendTimeout."""
    result = await run([role(), asyncio.Event()], settings=StreamSettings(stall_timeout=0.01))
    assert isinstance(result.error, BackendTimeout)


async def test_the_whole_answer_is_bounded_too() -> None:
    """total_timeout ends an answer whose chunks keep coming."""

    class Slow(Policy):
        handles: ClassVar = {TEXT: Observe()}

        async def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
            await asyncio.Event().wait()

    result = await run([role(), t("a")], Slow(), settings=StreamSettings(total_timeout=0.01))
    assert isinstance(result.error, BackendTimeout)


async def test_a_backend_that_keeps_its_connection_open_after_the_finish_is_not_waited_for() -> None:
    """After the finish reason only the usage is waited for, and not for long."""
    result = await run([role(), t("a"), fin(), asyncio.Event()], settings=StreamSettings(usage_timeout=0.01))
    assert result.terminal == End()
    assert result.said == ["t(a)", "fin(stop)"]


async def test_a_reader_that_does_not_read_opens_the_breaker() -> None:
    """No room for queue_timeout seconds is QueueFullError, and the backend is closed."""
    settings = StreamSettings(queue_size=2, queue_timeout=0.01)
    result = await run([role(), *(t("x") for _ in range(9)), fin()], settings=settings, reader=False)
    assert isinstance(result.error, QueueFullError)
    assert len(result.chunks) == 2


async def test_held_content_is_bounded() -> None:
    """A block that is held beyond queue_bytes ends the answer; nothing of it leaves."""
    result = await run(
        [role(), *(t("x" * 500) for _ in range(9)), fin()], Verdicts({}), settings=StreamSettings(queue_bytes=1000)
    )
    assert isinstance(result.error, QueueFullError)
    assert result.said == []


@pytest.mark.parametrize("verdict", [None, Deny("No.")])
async def test_what_was_settled_is_held_no_longer(verdict: Verdict | None) -> None:
    """The bound is of what is held at a time, not of all that was."""
    texts = [letter * 2000 for letter in "abc"]
    chunks = [role(), *(item for place, text in enumerate(texts) for item in (t(text), tc(place, str(place), "f", "{}")))]
    policy = Verdicts(dict.fromkeys(texts, verdict))
    result = await run([*chunks, fin("tool_calls")], policy, settings=StreamSettings(queue_bytes=5000))
    assert result.terminal == End()
    assert sorted(policy.seen) == [*texts, "f", "f", "f"]


# --- verdicts ---------------------------------------------------------------------------------------------------------------


class Verdicts(Policy):
    """Holds every kind and answers by the block's text or name."""

    handles: ClassVar = dict.fromkeys(BlockKind, Hold())

    def __init__(self, verdicts: Mapping[str, Any]) -> None:
        self.said = verdicts
        self.seen: list[str] = []

    def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        self.seen.append(block.name or block.text or block.signature)
        said = self.said.get(block.name or block.text)
        if isinstance(said, Exception):
            raise said
        return said


async def test_allowed_blocks_leave_with_their_chunk_boundaries() -> None:
    """A held block that is allowed leaves as the very chunks that came, in the backend's order."""
    chunks = [
        role(),
        th("hm"),
        th(signature="s"),
        t("a"),
        t("b"),
        tc(0, "c", "f", "{"),
        tc(0, args="}"),
        fin("tool_calls"),
        use(),
    ]
    policy = Verdicts({})
    result = await run(chunks, policy)
    assert [s for s in result.said if s != "use"] == [
        "th(hm)",
        "th(|s)",
        "t(a)",
        "t(b)",
        "tc(c,f,{)",
        "tc(,,})",
        "fin(tool_calls)",
    ]
    assert policy.seen == ["hm", "ab", "f"]


async def test_a_denied_call_leaves_a_message_and_no_trace_of_itself() -> None:
    """Text, message, no tool; the usage stays."""
    result = await run(
        [role(), t("Sure."), tc(0, "c", "bad", "{}"), fin("tool_calls"), use()], Verdicts({"bad": Deny("No.", "r")})
    )
    assert [s for s in result.said if s != "use"] == ["t(Sure.)", "t(\n\nNo.)", "fin(tool_calls)"]
    assert "use" in result.said
    [_, verdict] = result.log.verdicts
    assert (verdict.verdict, verdict.action, verdict.tool, verdict.reason) == ("deny", "deny", "bad", "r")


@pytest.mark.parametrize("order", [("ok", "bad"), ("bad", "ok")])
async def test_the_message_leaves_before_the_calls_that_survive(order: tuple[str, str]) -> None:
    """Whichever call is denied, its message comes first and the other survives whole."""
    chunks = [role(), tc(0, "1", order[0], "{}"), tc(1, "2", order[1], "{}"), fin("tool_calls")]
    result = await run(chunks, Verdicts({"bad": Deny("No.")}))
    survivor = order.index("ok") + 1
    assert result.said == ["t(No.)", f"tc({survivor},ok,{{}})", "fin(tool_calls)"]


async def test_the_order_of_calls_does_not_depend_on_how_fast_a_judge_is() -> None:
    """A judge of the first call that answers when everybody else waits for it changes nothing, and text flows meanwhile."""
    second = asyncio.Event()

    class Judge(Policy):
        handles: ClassVar = {TOOL: Hold()}

        async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            if block.name == "f":
                await anyio.wait_all_tasks_blocked()
            else:
                second.set()
            return Allow()

    chunks = [role(), tc(0, "1", "f", "{}"), tc(1, "2", "g", "{}"), fin("tool_calls"), second, t("later"), fin("tool_calls")]
    result = await run(chunks, Judge())
    assert result.said == ["t(later)", "tc(1,f,{})", "tc(2,g,{})", "fin(tool_calls)"]


async def test_a_call_waits_for_the_verdict_on_the_text_after_it() -> None:
    """Also one that nobody judges: a message may still have to come before it."""

    class NoText(Policy):
        handles: ClassVar = {TEXT: Hold()}
        verdicts = (Deny,)

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            return Deny("No.")

    result = await run([role(), tc(0, "1", "f", "{}"), t("bad"), fin("tool_calls")], NoText())
    assert result.said == ["t(No.)", "tc(1,f,{})", "fin(tool_calls)"]


async def test_replacing_a_call_puts_texts_before_the_calls() -> None:
    """A call replaced by a text and another call: the text leaves first, the new call in its place."""
    new = [Block(kind=TOOL, id="n", name="safe", text='{"a":1}'), Block(kind=TEXT, text="changed")]
    result = await run([role(), tc(0, "1", "bad", "{}"), fin("tool_calls")], Verdicts({"bad": Replace(new)}))
    assert result.said == ["t(changed)", "tc(n,safe,)", 'tc(,,{"a":1})', "fin(tool_calls)"]


async def test_replacing_and_denying_text_happens_in_its_place() -> None:
    """A held text that is replaced or denied gives way where it stood."""
    verdicts = {"one": Replace([Block(kind=TEXT, text="1"), Block(kind=TEXT, text="2")])}
    assert (await run([role(), t("one"), fin()], Verdicts(verdicts))).said == ["t(1)", "t(\n\n2)", "fin(stop)"]
    assert (await run([role(), t("one"), fin()], Verdicts({"one": Deny("gone")}))).said == ["t(gone)", "fin(stop)"]


async def test_stop_ends_the_answer_and_reads_no_further() -> None:
    """After Stop nothing else leaves, and the backend is closed without being read to its end."""
    stream = Stream([role(), t("bad"), tc(0, "c", "f", "{}"), t("never"), fin("tool_calls")])
    result = await run(stream, Verdicts({"bad": Stop("Enough.")}))
    assert result.said == ["t(Enough.)", "fin(stop)"]
    assert stream.items


async def test_stop_by_a_judge_of_a_call_drops_the_calls() -> None:
    """A call whose verdict is Stop takes the others that wait with it."""
    chunks = [role(), t("a"), tc(0, "1", "ok", "{}"), tc(1, "2", "bad", "{}"), fin("tool_calls")]
    result = await run(chunks, Verdicts({"bad": Stop("Enough.")}))
    assert result.said == ["t(a)", "t(\n\nEnough.)", "fin(stop)"]


async def test_denied_thinking_goes_whole_and_takes_the_calls_with_it() -> None:
    """Neither signature nor later thinking nor a call of the answer survives its thinking."""
    chunks = [
        role(),
        th("plot"),
        th(signature="s"),
        th("more"),
        th(signature="u"),
        t("Hi"),
        tc(0, "c", "f", "{}"),
        fin("tool_calls"),
    ]
    result = await run(chunks, Verdicts({"plot": Deny("[thinking removed]")}))
    assert result.said == ["t([thinking removed])", "t(Hi)", "fin(tool_calls)"]


async def test_denying_what_is_not_held_means_stop_here() -> None:
    """What an observer denies has left; nothing follows it."""

    class Observer(Policy):
        handles: ClassVar = {TEXT: Observe()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            return Deny("Stopped.")

    result = await run([role(), t("seen"), tc(0, "c", "f", "{}"), fin("tool_calls")], Observer())
    assert result.said == ["t(seen)", "t(\n\nStopped.)", "fin(stop)"]
    assert (result.log.verdicts[0].verdict, result.log.verdicts[0].action) == ("deny", "stop")


@pytest.mark.parametrize(
    "said",
    [
        "yes",
        1,
        Replace([Block(kind=THINKING, text="x")]),
        Replace([Block(kind=TOOL, text="{}", id="c")]),
        Replace([Block(kind=TOOL, name="f", text="not json", id="c")]),
        Replace([Block(kind=TOOL, name="f", text="[]", id="c")]),
    ],
)
async def test_a_verdict_that_is_none_fails_closed(said: Any) -> None:
    """Something that is no verdict, or replaces by thinking, ends the answer; the block does not leave."""
    result = await run([role(), t("x"), fin()], Verdicts({"x": said}))
    assert isinstance(result.error, PolicyError)
    assert result.said == []


async def test_replacing_what_is_not_held_fails_closed() -> None:
    """Replace of a kind that is observed is an error."""

    class Observer(Policy):
        handles: ClassVar = {TEXT: Observe()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            return Replace([block])

    assert isinstance((await run([role(), t("x"), fin()], Observer())).error, PolicyError)


# --- failing hooks ------------------------------------------------------------------------------------------------------------


async def test_a_judge_of_a_held_call_that_raises_blocks_the_call_with_a_message() -> None:
    """The call is blocked, the message names tool and policy, the conversation goes on."""
    result = await run([role(), tc(0, "c", "bad", "{}"), fin("tool_calls")], Verdicts({"bad": KeyError("x")}))
    assert result.terminal == End()
    assert result.said == ["t(The call of bad was blocked: the policy Verdicts could not check it.)", "fin(tool_calls)"]
    assert (result.log.verdicts[0].verdict, result.log.verdicts[0].action) == ("error", "deny")


async def test_a_judge_of_text_that_raises_ends_the_answer() -> None:
    """The text does not leave, the error names the policy, the record too."""
    result = await run([role(), t("x"), fin()], Verdicts({"x": KeyError("secret")}))
    assert isinstance(result.error, PolicyError)
    assert result.said == []
    assert (result.log.verdicts[0].verdict, result.log.verdicts[0].action) == ("error", "fail")


class Hang(Policy):
    def __init__(self, kind: BlockKind) -> None:
        self.handles = {kind: Hold()}  # type: ignore[misc]

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("kind", [TEXT, TOOL])
async def test_a_judge_that_hangs_ends_the_answer(kind: BlockKind) -> None:
    """A hook beyond policy_timeout is PolicyTimeout for every kind."""
    chunks = [role(), t("x"), tc(0, "c", "f", "{}"), fin("tool_calls")]
    result = await run(chunks, Hang(kind), settings=StreamSettings(policy_timeout=0.01))
    assert isinstance(result.error, PolicyTimeout)
    assert result.log.verdicts[0].verdict == "timeout"


async def test_judges_at_work_are_cancelled_when_the_backend_fails() -> None:
    """No judge outlives its stream."""
    result = await run([role(), tc(0, "1", "f", "{}"), tc(0, "2", "g", "{}"), BackendError("reset")], Hang(TOOL))
    assert result.error.message == "reset"


# --- transforming -------------------------------------------------------------------------------------------------------------


class Upper(Policy):
    handles: ClassVar = {TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        return [with_text(chunk, read_part(chunk).text.upper())]


class KeepBack(Policy):
    """Keeps text back until its block ends."""

    handles: ClassVar = {TEXT: Transform()}

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
        ctx.scratchpad["kept"] = ctx.scratchpad.get("kept", "") + read_part(chunk).text
        return []

    def on_block_end(self, block: Block, ctx: StreamContext) -> list[Chunk]:
        return [ctx.text(ctx.scratchpad.pop("kept").upper())]


async def test_transformed_text_leaves_instead_and_the_record_keeps_the_original() -> None:
    """What a hook returns goes on; what the backend said stays what it said."""
    result = await run([role(), *map(t, "abcde"), fin()], Upper())
    assert result.said == ["t(A)", "t(B)", "t(C)", "t(D)", "t(E)", "fin(stop)"]
    assert [block.text for block in result.log.backend_blocks] == ["abcde"]


async def test_rewritten_text_waits_for_room_and_is_not_lost() -> None:
    """However small the queue is."""
    result = await run([role(), *map(t, "abcdefgh"), fin()], Upper(), settings=StreamSettings(queue_size=1))
    assert "".join(result.said) == "".join(f"t({letter})" for letter in "ABCDEFGH") + "fin(stop)"


async def test_a_rewriting_hook_may_be_awaited_at_each_chunk() -> None:
    """However many chunks there are."""

    class Async(Upper):
        async def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:  # type: ignore[override]
            return super().on_chunk_added(chunk, ctx)

    assert (await run([role(), *map(t, "abcd"), fin()], Async())).said == ["t(A)", "t(B)", "t(C)", "t(D)", "fin(stop)"]


async def test_an_edit_in_place_does_not_falsify_the_record() -> None:
    """A hook that edits its chunk changes what leaves, not what was said."""

    class InPlace(Policy):
        handles: ClassVar = {TEXT: Transform()}

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
            chunk.choices[0].delta.content = "X"
            return [chunk]

    text = chunk({"content": "a"}, rider={"openai": {"choice": {"token_ids": [1]}}})
    result = await run([role(), text, fin()], InPlace())
    assert result.said == ["t(X)", "fin(stop)"]
    assert result.log.backend_blocks[0].text == "a"
    assert not any(provider_fields(item) for item in result.chunks)  # what spoke of the text as it was


async def test_an_observer_cannot_change_anything_by_editing_in_place() -> None:
    """An observer gets a copy."""

    class Meddler(Policy):
        handles: ClassVar = {TEXT: Observe()}

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
            chunk.choices[0].delta.content = "X"

    assert (await run([role(), t("a"), fin()], Meddler())).said == ["t(a)", "fin(stop)"]


async def test_what_was_kept_back_is_flushed_before_the_block_ends() -> None:
    """Both with and without boundaries of the provider's, the flush is inside the block."""
    result = await run([role(), t("a"), t("b"), tc(0, "c", "f"), fin("tool_calls")], KeepBack())
    assert result.said[0] == "t(AB)"
    bounded = [
        role(),
        anthropic(TEXT, 3, "open", {"content": ""}),
        anthropic(TEXT, 3, "delta", {"content": "a"}),
        anthropic(TEXT, 3, "close", {}),
        fin(),
    ]
    chunks = (await run(Stream(bounded, "anthropic"), KeepBack(), client="anthropic")).chunks[1:-1]
    assert [(read_part(c).phase, read_part(c).source, read_part(c).text) for c in chunks] == [
        ("open", 3, ""),
        ("delta", 3, "A"),
        ("close", 3, ""),
    ]


async def test_a_block_that_a_policy_emptied_leaves_neither_boundary_nor_silence() -> None:
    """No empty block leaves, and an empty answer gets the notice text."""

    class Erase(Policy):
        handles: ClassVar = {TEXT: Transform()}

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
            return []

    bounded = [
        role(),
        anthropic(TEXT, 0, "open", {"content": ""}),
        anthropic(TEXT, 0, "delta", {"content": "a"}),
        anthropic(TEXT, 0, "close", {}),
        fin(),
    ]
    result = await run(Stream(bounded, "anthropic"), Erase(), client="anthropic", settings=StreamSettings(empty_notice="[gone]"))
    assert result.said == ["t([gone])", "fin(stop)"]
    assert all(read_part(c).source != 0 for c in result.chunks)
    assert result.log.notes


async def test_an_answer_that_the_backend_left_empty_stays_empty() -> None:
    """The notice is for what a policy took away, not for a refusal without words."""
    assert (await run([role(), fin("content_filter")], Upper())).said == ["fin(content_filter)"]


async def test_citations_of_changed_text_are_dropped_and_of_unchanged_text_kept() -> None:
    """Side data belongs to its block: it goes when the text is another."""
    cited = anthropic(TEXT, 0, "delta", {}, {"type": "content_block_delta", "delta": {"type": "citations_delta"}})
    bounded = [
        role(),
        anthropic(TEXT, 0, "open", {"content": ""}),
        anthropic(TEXT, 0, "delta", {"content": "a1"}),
        cited,
        anthropic(TEXT, 0, "close", {}),
        fin(),
    ]

    class Digits(Policy):
        handles: ClassVar = {TEXT: Transform()}

        def __init__(self, digit: str) -> None:
            self.digit = digit

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> list[Chunk]:
            return [with_text(chunk, read_part(chunk).text.replace("1", self.digit))]

    kept = await run(Stream(bounded, "anthropic"), Digits("1"), client="anthropic")
    dropped = await run(Stream(bounded, "anthropic"), Digits("2"), client="anthropic")
    assert any(provider_fields(c) == provider_fields(cited) for c in kept.chunks)
    assert not any(provider_fields(c) == provider_fields(cited) for c in dropped.chunks)


async def test_a_citation_before_its_text_passes_the_transforming_hook() -> None:
    """Citations come before the text that they belong to: the hook that would remove a text can remove them too."""
    event = {"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": {"cited_text": "a secret"}}}
    bounded = [
        role(),
        anthropic(TEXT, 0, "open", {"content": ""}),
        anthropic(TEXT, 0, "delta", {}, event),
        anthropic(TEXT, 0, "delta", {"content": "says who"}),
        anthropic(TEXT, 0, "close", {}),
        fin(),
    ]
    policy = ReplaceText(replacements=[["secret", "[gone]"]])
    result = await run(Stream(bounded, "anthropic"), policy, client="anthropic")
    assert result.said == ["t(says who)", "fin(stop)"]
    assert not any("secret" in repr(provider_fields(c)) for c in result.chunks)


@pytest.mark.parametrize("returned", ["text", {"a": 1}, [1], 7, [tc(0, "x", "f")], [fin()]])
async def test_a_hook_that_returns_rubbish_fails_closed(returned: Any) -> None:
    """What is no chunk of the block ends the answer and does not leave."""

    class Rubbish(Policy):
        handles: ClassVar = {TEXT: Transform()}

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> Any:
            return returned

    result = await run([role(), t("a"), fin()], Rubbish())
    assert isinstance(result.error, PolicyError)
    assert result.said == []


# --- the end of the stream ----------------------------------------------------------------------------------------------------


class Last(Policy):
    def __init__(self, make: Any = None) -> None:
        self.make = make

    def on_stream_complete(self, ctx: StreamContext) -> Any:
        return self.make(ctx) if self.make else [ctx.text("bye"), ctx.text("!")]


async def test_last_words_leave_before_the_calls_and_the_finish() -> None:
    """Text added at the end is placed legally."""
    result = await run([role(), t("a"), tc(0, "c", "f", "{}"), fin("tool_calls"), use()], Last(), client="anthropic")
    assert [s for s in result.said if s != "use"] == ["t(a)", "t(\n\nbye!)", "tc(c,f,{})", "fin(tool_calls)"]


@pytest.mark.parametrize("make", [lambda ctx: [tc(0, "x", "f")], lambda ctx: "text", lambda ctx: [fin()]])
async def test_last_words_that_are_no_text_fail_closed(make: Any) -> None:
    """Only text can be added at the end."""
    assert isinstance((await run([role(), t("a"), fin()], Last(make))).error, PolicyError)


async def test_two_choices_keep_apart() -> None:
    """A denied block of one choice does not touch the other."""
    chunks = [role(), role(1), t("bad"), t("good", 1), fin(), fin("stop", 1)]
    result = await run(chunks, Verdicts({"bad": Deny("no")}))
    by_choice = [(c.choices[0].index, brief_of(c)) for c in result.chunks if brief_of(c)]
    assert sorted(by_choice) == [(0, "fin(stop)"), (0, "t(no)"), (1, "fin(stop)"), (1, "t(good)")]


async def test_chunks_that_a_policy_wrote_have_the_streams_identity() -> None:
    """id, model and created are those of the backend's stream."""
    result = await run([role(), t("x"), fin()], Verdicts({"x": Deny("no")}))
    assert {(c.id, c.created, c.model) for c in result.chunks} == {("chatcmpl-1", 7, "served")}


async def test_thinking_cannot_be_written_by_a_policy() -> None:
    """ctx.text in a hook about thinking is an error of the policy."""

    class Writer(Policy):
        handles: ClassVar = {THINKING: Observe()}

        def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
            ctx.text("x")

    assert isinstance((await run([role(), th("a"), fin()], Writer())).error, PolicyError)


# --- what a hostile provider tries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["openai", "anthropic"])
async def test_a_call_after_the_finish_reason_is_judged_like_every_other(client: WireName) -> None:
    """A provider that finishes first and calls then does not get its call past the judge."""
    chunks = [role(), t("a"), fin(), tc(0, "1", "bad", "{}"), use()]
    result = await run(chunks, Verdicts({"bad": Deny("No.")}), client=client)
    assert not any("bad" in said for said in result.said)
    assert "t(\n\nNo.)" in result.said


async def test_going_on_with_a_call_that_was_judged_fails_closed() -> None:
    """A fragment after the finish reason would belong to a call that was judged without it."""
    chunks = [role(), tc(0, "1", "ok", "{"), fin("tool_calls"), tc(0, args='"rm -rf"}'), fin("tool_calls")]
    result = await run(chunks, Verdicts({}))
    assert isinstance(result.error, BackendError)
    assert not any("rm -rf" in said for said in result.said)


async def test_a_call_cannot_be_named_after_it_was_judged() -> None:
    """The same id again after the finish reason is no other call to the client, so it is none here."""
    again = chunk({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "bad", "arguments": ""}}]})
    unnamed = chunk({"tool_calls": [{"index": 0, "id": "1", "function": {"arguments": "{}"}}]})
    result = await run([role(), unnamed, fin("tool_calls"), again, fin("tool_calls")], Verdicts({}))
    assert isinstance(result.error, BackendError)


async def test_fragments_of_a_call_that_began_after_a_finish_reason_are_its_own() -> None:
    """Providers that finish each call in turn are understood."""
    chunks = [role(), tc(0, "a", "f", "{}"), fin("tool_calls"), tc(1, "b", "g"), tc(1, args="[]"), fin("tool_calls")]
    policy = Verdicts({})
    result = await run(chunks, policy)
    assert [s for s in result.said if s.startswith("tc")] == ["tc(a,f,{})", "tc(b,g,)", "tc(,,[])"]
    assert policy.seen == ["f", "g"]


async def test_a_call_whose_id_comes_with_another_name_is_another_call() -> None:
    """A harmless name without an id does not cover for the call that follows under the same index."""
    chunks = [
        role(),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "safe", "arguments": ""}}]}),
        tc(0, "1", "bad", "{}"),
    ]
    policy = Verdicts({"bad": Deny("No.")})
    result = await run([*chunks, fin("tool_calls")], policy)
    assert policy.seen == ["safe", "bad"]
    assert not any("bad" in said for said in result.said)


async def test_a_judge_sees_what_comes_beside_the_text() -> None:
    """Logprobs and annotations are in the block's raw form."""
    seen: list[Any] = []

    class Look(Policy):
        handles: ClassVar = {TEXT: Hold()}

        def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict:
            seen.append(block.raw)
            return Deny("removed")

    beside = chunk({"content": "a", "annotations": [{"url": "CANARY"}]})
    result = await run([role(), beside, fin()], Look())
    assert "CANARY" in repr(seen)
    assert result.said == ["t(removed)", "fin(stop)"]


async def test_side_data_counts_as_held_content() -> None:
    """What rides along is bounded like the text."""
    heavy = [chunk({"content": "a", "annotations": [{"url": "x" * 1000}]}) for _ in range(5)]
    result = await run([role(), *heavy, fin()], Verdicts({}), settings=StreamSettings(queue_bytes=3000))
    assert isinstance(result.error, QueueFullError)


async def test_an_answer_is_bounded_as_a_whole() -> None:
    """More than answer_bytes is a failure, held or not."""
    result = await run([role(), *(t("x" * 500) for _ in range(9)), fin()], settings=StreamSettings(answer_bytes=2000))
    assert isinstance(result.error, BackendError)


async def test_an_event_that_no_policy_can_judge_does_not_pass_one_that_handles_everything() -> None:
    """An unknown event is left out, with a note, where blocks of kind other are handled."""
    event = build(
        {"id": "c", "created": 1, "model": "m", "choices": [], "provider_specific_fields": {"anthropic": {"type": "news"}}}
    )
    held = await run([role(), event, t("a"), fin()], Verdicts({}))
    assert not any(c is event for c in held.chunks)
    assert held.log.notes
    passed = await run([role(), event, t("a"), fin()])
    assert any(c is event for c in passed.chunks)
