"""Together: what the client gets depends on what was said, and never on who was faster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import pytest

from luthien_asgi import (
    Allow,
    Approvals,
    Block,
    BlockKind,
    Chain,
    Deny,
    Escalate,
    Governed,
    Hold,
    Policy,
    Replace,
    Resample,
    Stop,
    Together,
    Verdict,
)
from luthien_asgi.compose import Composable
from luthien_asgi.testing import PolicyRun, ToolCall, chunks, run_policy

BASH = ToolCall("c1", "bash", {"command": "cat canary"})
SWAP = Replace([Block(kind=BlockKind.TOOL_CALL, id="c1", name="bash", text="{}")])
ASK = Escalate("May it?", message="nobody wants it")
SPEEDS = ((0, 40), (40, 0), (3, 3))
"""Turns of the event loop that the first judge takes, and those of the second."""
Make = Callable[[int, int], Composable]


class Says(Policy):
    """Gives one verdict on tool calls and text that hold the canary, or fails, after some turns of the event loop."""

    handles: ClassVar = {BlockKind.TOOL_CALL: Hold(), BlockKind.TEXT: Hold()}

    def __init__(self, said: Verdict | Exception, turns: int, verdicts: Collection[type[Verdict]] = (Allow,)) -> None:
        self.said = said
        self.turns = turns
        self.verdicts = verdicts if isinstance(said, Exception) else (Allow, type(said))

    async def on_block_complete(self, block: Block, ctx: Any) -> Verdict | None:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if "canary" not in block.text:
            return None
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def fails(turns: int, *verdicts: type[Verdict]) -> Says:
    return Says(LookupError("out of order"), turns, (Allow, *verdicts))


async def runs(make: Make, *parts: Any, allowed: bool = True) -> list[PolicyRun]:
    """Return one run for each of the speeds."""

    async def notify(approval: object) -> bool:
        return allowed

    return [await run_policy(make(*speed), chunks(*(parts or (BASH,))), approvals=Approvals(notify=notify)) for speed in SPEEDS]


def got(run: PolicyRun) -> tuple[str, list[str], str]:
    return run.text, [call.text for call in run.tool_calls], (run.error or {}).get("message", "")


@pytest.mark.parametrize(
    "make",
    [
        lambda one, two: Together([Says(ASK, one), Says(SWAP, two)]),
        lambda one, two: Together([Together([Says(ASK, one), Says(SWAP, two)]), Says(Allow(), 0)]),
        lambda one, two: Together([Chain([Says(ASK, one)]), Says(SWAP, two)]),
    ],
    ids=["two", "nested", "chain"],
)
async def test_what_a_person_allows_is_still_replaced_by_who_stands_beside(make: Make) -> None:
    """A person allows what was asked; the redaction of another policy is no part of the question."""
    for run in await runs(make):
        assert got(run) == ("", ["{}"], "")


async def test_what_a_person_allows_another_policy_may_want_anew() -> None:
    """The weaker verdict holds when the person has said yes: here there is no other answer, so the block is denied."""
    for run in await runs(lambda one, two: Together([Says(ASK, one), Says(Resample(message="gave up"), two)])):
        assert run.tool_calls == []


async def test_nobody_is_asked_where_a_judge_fails() -> None:
    """Its failure blocks the call, whatever a person would say about the question of another."""
    for run in await runs(lambda one, two: Together([fails(one), Says(ASK, two)])):
        assert got(run)[0] == "The call of bash was blocked: the policy Says could not check it."
        assert [record.hook for record in run.verdicts] == ["on_block_complete"] * 2


@pytest.mark.parametrize("stronger", [Deny("no"), Stop("no")])
@pytest.mark.parametrize("parts", [(BASH,), ("the canary",)], ids=["call", "text"])
async def test_a_failure_counts_where_the_verdict_would_have(stronger: Verdict, parts: Any) -> None:
    """Who could only have said less may fail or be cancelled: the client gets the verdict of the other one."""
    for run in await runs(lambda one, two: Together([fails(one, Replace), Says(stronger, two)]), *parts):
        assert got(run) == ("no", [], "")


async def test_a_failure_of_who_could_have_said_more_is_not_outvoted() -> None:
    """The denial does not tell what the failed judge would have stopped."""
    for run in await runs(lambda one, two: Together([fails(one, Stop), Says(Deny("no"), two)]), "the canary"):
        assert got(run) == ("", [], "The policy Says failed in on_block_complete.")


async def test_no_denied_call_is_said_to_have_been_let_through() -> None:
    """A policy whose errors pass fails beside one that denies: nothing passed, in the text as in the record."""
    for run in await runs(lambda one, two: Together([Says(Deny("no"), one), Governed(fails(two, Deny), on_error="pass")])):
        assert got(run) == ("no", [], "")
        assert run.record is not None
        assert run.record.unchecked == ()


async def test_a_replaced_call_is_said_to_be_unchecked_by_another() -> None:
    """What the client gets was looked at by one of two policies only."""
    for run in await runs(lambda one, two: Together([Says(SWAP, one), Governed(fails(two), on_error="pass")])):
        assert got(run)[:2] == ("[The policy Says could not check the call of bash: it was let through.]", ["{}"])


async def test_a_person_asked_inside_a_chain_is_waited_for_where_the_no_may_come_first() -> None:
    """Of equal verdicts the first of the list is heard, also where a person gave it."""
    for run in await runs(
        lambda one, two: Together([Chain([Says(ASK, one), Says(SWAP, 0)]), Says(Deny("no"), two)]), allowed=False
    ):
        assert got(run) == ("nobody wants it", [], "")
