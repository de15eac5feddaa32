"""Several policies: in a chain, together, nested, and what is refused when they are loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import anyio
import pytest

from luthien_asgi import (
    Allow,
    Block,
    BlockKind,
    Chain,
    ChatRequest,
    ConfigError,
    Deny,
    Governed,
    Hold,
    Observe,
    Policy,
    Replace,
    Stop,
    Together,
    Verdict,
    read_part,
)
from luthien_asgi.compose import Composable
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policies import ReplaceText, UpperCase
from luthien_asgi.request import WireName
from luthien_asgi.testing import PolicyRun, ToolCall, chunks, run_policy
from luthien_asgi.verdicts import RANKS, rank_of

CLIENTS: Sequence[WireName] = ("openai", "anthropic", "responses")
BASH = ToolCall("c1", "bash", {"command": "rm -rf /"})
LS = ToolCall("c2", "ls", {"path": "/"})


class Says(Policy):
    """Gives one verdict on calls of one tool, once it is let go."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def __init__(self, verdict: Verdict | None, *, tool: str = "", go: asyncio.Event | None = None) -> None:
        self.verdict = verdict
        self.verdicts = (type(verdict),) if verdict is not None else (Allow,)
        self.tool = tool
        self.go = go
        self.seen: list[str] = []
        self.done = asyncio.Event()

    async def on_block_complete(self, block: Block, ctx: Any) -> Verdict | None:
        self.seen.append(f"{block.name}{block.text}")
        if self.go is not None:
            await self.go.wait()
        self.done.set()
        return self.verdict if self.tool in {"", block.name} else None


class Writes(Policy):
    """Appends a word to the last message of a request."""

    def __init__(self, word: str) -> None:
        self.word = word

    def on_request(self, request: ChatRequest, ctx: Any) -> ChatRequest:
        [*before, last] = request.body["messages"]
        return request.with_field("messages", [*before, {**last, "content": f"{last['content']} {self.word}"}])


def said(run: PolicyRun) -> list[tuple[str, str, str]]:
    return [(record.policy, record.verdict, record.action) for record in run.verdicts]


# --- in a chain -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_chain_goes_in_the_order_of_its_list(client: WireName, *, stream: bool) -> None:
    """Each policy sees what the one before let out."""
    policy = Chain([ReplaceText(replacements=[["a", "b"]]), UpperCase()])
    assert (await run_policy(policy, chunks("xax"), client=client, stream=stream)).text == "XBX"
    policy = Chain([UpperCase(), ReplaceText(replacements=[["a", "b"]])])
    assert (await run_policy(policy, chunks("xax"), client=client, stream=stream)).text == "XAX"


async def test_requests_go_through_a_chain_in_the_same_order() -> None:
    """The second policy changes what the first one wrote."""
    run = await run_policy(Chain([Writes("one"), Chain([Writes("two")]), Writes("three")]), chunks("x"))
    assert run.backend.calls[0].request.body["messages"][-1]["content"] == "Hello one two three"


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_later_policy_judges_what_an_earlier_one_wrote(client: WireName) -> None:
    """A call that was replaced is judged as it is now, and a denial's message passes the policies behind it."""
    swap = Says(Replace([Block(kind=BlockKind.TOOL_CALL, id="c9", name="bash", text='{"command": "ls"}')]), tool="ls")
    deny = Says(Deny("no bash"), tool="bash")
    run = await run_policy(Chain([swap, deny, UpperCase()]), chunks("so", LS), client=client)
    assert deny.seen == ['bash{"command": "ls"}']
    assert run.tool_calls == []
    assert run.text == "SO\n\nNO BASH"
    assert ("Says", "deny", "deny") in said(run)


async def test_a_policy_that_stops_ends_the_steps_before_it_too() -> None:
    """A judge of an earlier step that is still at work is not waited for."""
    never = asyncio.Event()
    slow = Says(None, go=never)
    stop = Says(Stop("enough"))
    stop.handles = {BlockKind.TEXT: Hold()}  # type: ignore[misc]  # a policy may declare what it handles as it is made
    run = await run_policy(Chain([slow, stop]), chunks("text", BASH))
    assert run.text == "enough"
    assert run.tool_calls == []
    assert run.record is not None
    assert run.record.ending == "stopped"


async def test_state_is_kept_apart_for_two_policies_of_one_class() -> None:
    """Each policy object has states of its own in a transaction."""

    class Counts(Policy):
        handles: ClassVar = {BlockKind.TEXT: Observe()}

        def on_chunk_added(self, chunk: Any, ctx: Any) -> None:
            ctx.state(list).extend(read_part(chunk).text)

        def on_stream_complete(self, ctx: Any) -> Any:
            return [ctx.text(f" {len(ctx.state(list))}")]

    run = await run_policy(Chain([Counts(), Counts()]), chunks("a", "b"))
    assert run.text == "ab\n\n 2\n\n 6"  # the second one sees the first one's words as well


# --- together ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stronger", RANKS[1:])
def test_every_verdict_has_one_place_among_the_others(stronger: type[Verdict]) -> None:
    """Stop > Deny > Escalate > Defer > Resample > Replace > Allow."""
    assert [verdict.__name__ for verdict in RANKS] == ["Allow", "Replace", "Resample", "Defer", "Escalate", "Deny", "Stop"]
    assert rank_of(stronger) > rank_of(RANKS[rank_of(stronger) - 1])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("client", CLIENTS)
async def test_the_strongest_verdict_is_carried_out(client: WireName, order: int) -> None:
    """A denial outranks a replacement, whatever the order; both are in the record, with what was done."""
    deny = Says(Deny("no"), tool="bash")
    replace = Says(Replace([Block(kind=BlockKind.TOOL_CALL, id="c9", name="other")]))
    run = await run_policy(Together([deny, replace][::order]), chunks(BASH, LS), client=client)
    assert [call.name for call in run.tool_calls] == ["other"]
    assert run.text == "no"
    assert sorted(said(run)) == [
        ("Says", "allow", "replace"),
        ("Says", "deny", "deny"),
        ("Says", "replace", "deny"),
        ("Says", "replace", "replace"),
    ]


async def test_judges_work_at_the_same_time() -> None:
    """Neither waits for the other: each is let go by the other's end."""
    first, second = Says(None), Says(Deny("no"))
    first.go, second.go = asyncio.Event(), first.done
    first.go.set()
    run = await run_policy(Together([second, first]), chunks(BASH))
    assert run.text == "no"


async def test_a_verdict_cancels_the_judges_that_cannot_overrule_it() -> None:
    """A judge that never answers is not waited for when somebody has stopped the answer; the record says so."""
    stuck = Says(Deny("late"), go=asyncio.Event())
    run = await run_policy(Together([stuck, Says(Stop("now"))]), chunks(BASH))
    assert run.text == "now"
    assert sorted(said(run)) == [("Says", "cancelled", "stop"), ("Says", "stop", "stop")]


@pytest.mark.parametrize("slow", [0, 1])
async def test_of_equal_verdicts_the_first_of_the_list_is_heard(slow: int) -> None:
    """What the client sees does not depend on who is faster."""
    judges = [Says(Deny("first")), Says(Deny("second"))]
    judges[slow].go = judges[1 - slow].done if slow == 0 else asyncio.Event()
    run = await run_policy(Together(judges), chunks(BASH))
    assert run.text == "first"


async def test_a_judge_that_fails_outranks_whoever_allows() -> None:
    """Fail closed: one judge's error is not outvoted."""

    class Fails(Says):
        async def on_block_complete(self, block: Block, ctx: Any) -> Verdict | None:
            msg = "out of order"
            raise LookupError(msg)

    run = await run_policy(Together([Says(None), Fails(Deny("x"))]), chunks(BASH))
    assert run.tool_calls == []
    assert run.text == "The call of bash was blocked: the policy Fails could not check it."


async def test_a_chain_in_a_together_hears_its_own_replacements() -> None:
    """Inside, one after the other; against the judge beside it, by rank."""
    swap = Says(Replace([Block(kind=BlockKind.TOOL_CALL, id="c9", name="bash", text="{}")]), tool="ls")
    inner = Says(Deny("inner"), tool="bash")
    run = await run_policy(Together([Chain([swap, inner]), Says(None)]), chunks(LS))
    assert inner.seen == ["bash{}"]
    assert run.text == "inner"
    allowed = await run_policy(Together([Chain([swap, Says(None)]), Says(None)]), chunks(LS))
    assert [call.name for call in allowed.tool_calls] == ["bash"]


async def test_a_chain_in_a_together_changes_requests_in_its_order() -> None:
    """As one that stands alone does."""
    run = await run_policy(Together([Chain([Writes("one"), Writes("two")]), Says(None)]), chunks("x"))
    assert run.backend.calls[0].request.body["messages"][-1]["content"] == "Hello one two"


async def test_requests_are_judged_together_and_the_first_of_the_list_is_heard() -> None:
    """The slow one that comes first in the list is waited for, until everybody else waits for it."""

    class Refuses(Policy):
        def __init__(self, message: str) -> None:
            self.message = message

        async def on_request(self, request: ChatRequest, ctx: Any) -> Deny:
            if self.message == "slow":
                await anyio.wait_all_tasks_blocked()
            return Deny(self.message)

    for refusals, heard in ((["slow", "fast"], "slow"), (["fast", "slow"], "fast")):
        run = await run_policy(Together([Refuses(message) for message in refusals]), chunks("x"))
        assert (run.status, (run.error or {})["message"]) == (403, heard)
        assert run.backend.calls == []


async def test_two_that_change_a_request_at_the_same_time_are_an_error() -> None:
    """Neither change would hold the other's."""
    run = await run_policy(Together([Writes("one"), Writes("two")]), chunks("x"))
    assert run.status == 500
    assert run.backend.calls == []
    one = await run_policy(Together([Writes("one"), Says(None)]), chunks("x"))
    assert one.backend.calls[0].request.body["messages"][-1]["content"] == "Hello one"


# --- what is refused --------------------------------------------------------------------------------------------------------


class Undeclared(Policy):
    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Block, ctx: Any) -> Verdict:
        return Stop("x")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda: Together([Undeclared(), Undeclared()]), "two may replace a tool_call block at the same time"),
        (lambda: Together([UpperCase(), Undeclared()]), "UpperCase changes text as it flows.*Chain"),
        (lambda: Together([Chain([UpperCase()]), Undeclared()]), "UpperCase changes text as it flows"),
        (lambda: Governed(UpperCase(), concurrent=True), "no on_request"),
    ],
)
def test_what_cannot_be_composed_is_refused_when_it_is_loaded(policy: Any, message: str) -> None:
    """The message names the policies and the way out."""
    with pytest.raises(ConfigError, match=message):
        Pipeline.of(policy())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Chain([]), "empty"),
        (lambda: Together("UpperCase"), "list of policies"),  # type: ignore[arg-type]
        (lambda: Chain([UpperCase]), "make an object of it"),  # type: ignore[list-item]
        (lambda: Governed(UpperCase(), mode="on"), "mode must be one of enforce, shadow, off"),  # type: ignore[arg-type]
        (lambda: Governed(UpperCase(), on_error="fail"), "on_error must be one of block, pass"),  # type: ignore[arg-type]
        (lambda: Governed(UpperCase(), timeout=0), "timeout must be positive"),
    ],
)
def test_a_composition_of_something_else_is_refused_as_it_is_made(make: Any, message: str) -> None:
    """With a sentence that says what is expected."""
    with pytest.raises(ValueError, match=message):
        make()


class Surprises(Policy):
    """Returns a verdict that it does not name."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold()}
    verdicts = (Deny,)

    def on_block_complete(self, block: Block, ctx: Any) -> Verdict:
        return Stop("x")


async def test_a_verdict_that_was_not_declared_is_an_error() -> None:
    """What it did not say it would do is not done, and the call does not leave."""
    run = await run_policy(Surprises(), chunks("x", BASH))
    assert run.tool_calls == []
    assert run.verdicts[0].verdict == "error"
    assert "Stop, which its `verdicts` do not name" in run.verdicts[0].reason


@pytest.mark.parametrize("declared", [(), ("Deny",), (Deny, str)])
def test_a_declaration_of_verdicts_names_classes(declared: Any) -> None:
    """Anything else would hold for nothing."""
    policy = Surprises()
    policy.verdicts = declared
    with pytest.raises(ConfigError, match="verdicts names the classes"):
        Pipeline.of(policy)


def test_a_replacement_needs_a_kind_that_is_held() -> None:
    """What has left cannot be replaced."""
    watching: Composable = type("W", (Undeclared,), {"handles": {BlockKind.TEXT: Observe()}, "verdicts": (Replace,)})()
    with pytest.raises(ConfigError, match="holds no kind"):
        Pipeline.of(watching)


async def test_a_policy_that_only_allows_delays_no_call() -> None:
    """Nothing has to come before a call where nobody can deny one."""
    watch = Says(None)
    watch.handles = {BlockKind.TOOL_CALL: Observe()}  # type: ignore[misc]
    assert not Pipeline.of(watch).may_speak
    assert Pipeline.of(Says(Deny("x"))).may_speak
