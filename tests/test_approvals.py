"""The desk: one decision for each approval, whoever comes first, and none that was not made."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi import KeyAuth
from luthien_asgi.approval_values import content_of, shown, worker_of
from luthien_asgi.approvals import Approval, Approvals, Decision, Outcome, check_apart
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.errors import ConfigError

CALL = Block(kind=BlockKind.TOOL_CALL, name="bash", id="call_1", text='{"command": "rm -rf /"}')
ALLOW = Decision(allowed=True, by="operator:alice", reason="fine")
SECOND = 5.0
"""A bound on each wait, far beyond what any takes."""


def ask(desk: Approvals, block: Block = CALL, **more: Any) -> Approval:
    return desk.draft(transaction_id="t1", policy="NoShell", question="May it?", block=block, client="c", model="m", **more)


@pytest.fixture
async def desk() -> AsyncIterator[Approvals]:
    desk = Approvals()
    await desk.start()
    yield desk
    await desk.aclose()


async def until_waiting(desk: Approvals, many: int = 1) -> list[Approval]:
    """Let the other tasks run until so many approvals wait."""
    async with asyncio.timeout(SECOND):
        while len(desk.waiting()) < many:  # noqa: ASYNC110 - a desk has no event for tests
            await asyncio.sleep(0)
    return desk.waiting()


# --- deciding


@pytest.mark.parametrize("allowed", [True, False])
async def test_an_answer_decides(desk: Approvals, allowed: bool) -> None:
    """Whoever waits gets the decision as it was made, and nothing waits any more."""
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(ask(desk)))
        (waiting,) = await until_waiting(desk)
        assert await desk.answer(waiting.id, allowed, "operator:alice", "because")
        assert desk.waiting() == []
    assert decided.result() == Decision(allowed=allowed, by="operator:alice", reason="because")


async def test_exactly_one_of_many_answers_wins(desk: Approvals) -> None:
    """The others are told what had been decided."""
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(ask(desk)))
        (waiting,) = await until_waiting(desk)
        answers = [Decision(allowed=bool(n % 2), by=f"operator:{n}") for n in range(20)]
        outcomes = [tasks.create_task(desk.submit(waiting.id, answer)) for answer in answers]
    taken = [outcome.result() for outcome in outcomes if outcome.result().state == "taken"]
    late = [outcome.result() for outcome in outcomes if outcome.result().state == "late"]
    assert taken == [Outcome(state="taken", decision=decided.result())]
    assert late == [Outcome(state="late", decision=decided.result())] * 19


@pytest.mark.parametrize(("default", "allowed"), [("deny", False), ("allow", True)])
async def test_without_an_answer_the_default_decides(desk: Approvals, default: Any, allowed: bool) -> None:
    """After the time that the policy gives."""
    approval = ask(desk, default=default, timeout=0.01)
    async with asyncio.timeout(SECOND):
        decision = await desk.decide(approval)
    assert decision == Decision(allowed=allowed, by="timeout", reason="Nobody answered in time.")
    assert await desk.submit(approval.id, ALLOW) == Outcome(state="late", decision=decision)


async def test_an_answer_that_was_taken_stands_when_the_time_is_up_with_it(desk: Approvals) -> None:
    """The operator was told that it decided: the timeout's default must not replace it."""
    approval = ask(desk, timeout=0.02, default="deny")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(SECOND), asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(approval))
        await until_waiting(desk)
        # In one step of the loop: answered, and then late.
        await desk.answer(approval.id, True, "operator:alice")
        until = loop.time() + 0.03
        while loop.time() < until:
            pass
    assert decided.result() == Decision(allowed=True, by="operator:alice")


async def test_a_client_that_leaves_takes_its_approval_along(desk: Approvals) -> None:
    """At once; an answer finds nothing then."""
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(ask(desk)))
        (waiting,) = await until_waiting(desk)
        decided.cancel()
    assert desk.waiting() == []
    assert await desk.submit(waiting.id, ALLOW) == Outcome(state="unknown")


@pytest.mark.parametrize("default", ["allow", "deny"])
async def test_shutting_down_denies_what_waits(desk: Approvals, default: Any) -> None:
    """Whatever the default is: nobody decided. So does a desk that is closed, and it can be opened again."""
    async with asyncio.TaskGroup() as tasks:
        decided = [tasks.create_task(desk.decide(ask(desk, default=default))) for _ in range(3)]
        await until_waiting(desk, 3)
        await desk.aclose()
        await desk.aclose()
    assert {task.result() for task in decided} == {Decision(allowed=False, by="shutdown", reason="The server was stopped.")}
    assert (await desk.decide(ask(desk, default=default))).by == "shutdown"
    await desk.start()
    assert (await desk.decide(ask(desk, default=default, timeout=0.001))).by == "timeout"


async def test_a_desk_that_was_not_opened_denies() -> None:
    """Also what is allowed by default."""
    desk = Approvals()
    decision = await desk.decide(ask(desk, default="allow"))
    assert (decision.allowed, decision.by) == (False, "shutdown")


async def test_what_is_too_much_is_denied_at_once() -> None:
    """Whatever the default is: a client could fill the desk in order to be let through. What waits goes on waiting."""
    desk = Approvals(limit=2)
    await desk.start()
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(desk.decide(ask(desk))) for _ in range(2)]
        await until_waiting(desk, 2)
        assert await desk.decide(ask(desk, default="allow")) == Decision(
            allowed=False, by="limit", reason="2 approvals wait already."
        )
        first, second = desk.waiting()
        assert await desk.answer(first.id, True, "operator:a")
        assert await desk.answer(second.id, False, "operator:a")
    assert [task.result().allowed for task in waiting] == [True, False]
    await desk.aclose()


async def test_an_approval_is_asked_once(desk: Approvals) -> None:
    """A second time is an error of whoever asks, while it waits and afterwards; the first is not disturbed."""
    approval = ask(desk)
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(approval))
        await until_waiting(desk)
        with pytest.raises(ValueError, match="was asked already"):
            await desk.decide(approval)
        assert await desk.answer(approval.id, True, "operator:a")
    assert decided.result().allowed
    with pytest.raises(ValueError, match="was asked already"):
        await desk.decide(approval)


async def test_decisions_are_remembered_for_a_while_only(desk: Approvals) -> None:
    """Memory is bounded: the oldest are forgotten, and a late answer to one of them is to an id that is not known."""
    ids = []
    for _ in range(1002):
        approval = ask(desk)
        ids.append(approval.id)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(desk.decide(approval))
            await until_waiting(desk)
            await desk.answer(approval.id, False, "operator:a")
    states = [(await desk.submit(one, ALLOW)).state for one in ids]
    assert states == ["unknown"] * 2 + ["late"] * 1000


# --- the callback


@pytest.mark.parametrize(
    ("said", "decision"),
    [
        (True, Decision(allowed=True, by="callback")),
        (False, Decision(allowed=False, by="callback")),
        (Decision(allowed=True, by="operator:mallory", reason="ok"), Decision(allowed=True, by="callback", reason="ok")),
    ],
)
async def test_a_callback_may_decide(said: Any, decision: Decision) -> None:
    """It gets the approval; whatever it says of who decided, it was the callback."""
    seen = []

    async def notify(approval: Approval) -> Any:
        seen.append(approval)
        return said

    desk = Approvals(notify=notify)
    await desk.start()
    approval = ask(desk)
    assert await desk.decide(approval) == decision
    assert seen == [approval]
    await desk.aclose()


@pytest.mark.parametrize("said", [None, "yes", 1, RuntimeError("rm -rf")])
async def test_a_callback_that_says_nothing_leaves_it_to_the_operator(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Raising and what is merely true decide nothing; no content gets into the log."""

    async def notify(approval: Approval) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    desk = Approvals(notify=notify)
    await desk.start()
    async with asyncio.TaskGroup() as tasks:
        decided = tasks.create_task(desk.decide(ask(desk)))
        (waiting,) = await until_waiting(desk)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not decided.done()
        assert await desk.answer(waiting.id, True, "operator:a")
    assert decided.result().by == "operator:a"
    assert "rm -rf" not in caplog.text
    assert len(caplog.records) == (0 if said is None else 1)
    await desk.aclose()


async def test_a_callback_that_raises_at_once_is_no_different(desk: Approvals) -> None:
    """A plain function is called too, and its exception leaves the decision open."""

    def notify(approval: Approval) -> Any:
        raise KeyError(approval.content)

    desk = Approvals(notify=notify)
    await desk.start()
    assert (await desk.decide(ask(desk, timeout=0.01))).by == "timeout"
    await desk.aclose()


async def test_a_callback_is_cancelled_when_somebody_else_decided() -> None:
    """By the operator, by the timeout, and by the client's leaving."""
    began, cancelled = asyncio.Event(), []

    async def notify(approval: Approval) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(approval.id)

    desk = Approvals(notify=notify)
    await desk.start()
    async with asyncio.timeout(SECOND), asyncio.TaskGroup() as tasks:
        answered, left, late = ask(desk), ask(desk), ask(desk, timeout=0.01)
        waits = [tasks.create_task(desk.decide(one)) for one in (answered, left, late)]
        await began.wait()
        await desk.answer(answered.id, True, "operator:a")
        waits[1].cancel()
    assert sorted(cancelled) == sorted([answered.id, left.id, late.id])
    assert waits[2].result().by == "timeout"
    await desk.aclose()


# --- what is shown


async def test_an_approval_says_what_a_person_needs(desk: Approvals) -> None:
    """And no more: no key, no history."""
    approval = ask(desk, timeout=60.0)
    assert approval == Approval(
        id=approval.id,
        transaction_id="t1",
        policy="NoShell",
        question="May it?",
        kind="tool_call",
        tool="bash",
        content='{"command": "rm -rf /"}',
        client="c",
        model="m",
        asked_at=approval.asked_at,
        expires_at=approval.asked_at + 60.0,
        default="deny",
    )


def test_a_long_text_is_cut_in_its_middle() -> None:
    """Its end is shown as well: what is harmful could stand there. The mark says how much is missing."""
    text, omitted = shown("a" * 9_000 + "rm -rf /", 8_000)
    assert omitted == 1_008
    assert text.startswith("a" * 6_000 + " […1008 characters are not shown…] a")
    assert text.endswith("rm -rf /")
    assert len(text) == 8_000 + len(" […1008 characters are not shown…] ")
    assert shown("a" * 8_000, 8_000) == ("a" * 8_000, 0)


def test_lone_surrogates_are_replaced_and_pairs_are_joined() -> None:
    """No UTF-8 can carry them, and a model can write them."""
    assert shown("a\ud83d", 10) == ("a\ufffd", 0)
    assert shown("\ud83d\ude00", 10) == ("😀", 0)


def test_a_block_without_text_is_shown_as_the_provider_wrote_it() -> None:
    """A block of no common form has nothing else."""
    assert content_of(Block(kind=BlockKind.OTHER, raw={"type": "server_tool_use"})) == '{"type":"server_tool_use"}'
    assert content_of(CALL) == CALL.text


# --- ids


async def test_ids_cannot_be_guessed(desk: Approvals) -> None:
    """128 bits of each are its own; the rest names the worker."""
    ids = [ask(desk).id for _ in range(100)]
    assert len({one.partition("-")[2] for one in ids}) == 100
    assert all(len(one.partition("-")[2]) * 4 == 128 for one in ids)
    assert len({worker_of(one) for one in ids}) == 1


FORGED = [
    "",
    "..",
    "../../etc/passwd",
    "0123456789abcdef",
    "0123456789abcdef-",
    "0123456789abcde/-" + "0" * 32,
    "../3456789abcdef-" + "0" * 32,
    "0123456789ABCDEF-" + "0" * 32,
    "0123456789abcdef-" + "0" * 32 + "\n",
    "0123456789abcdef-" + "0" * 33,
    "０" * 16 + "-" + "0" * 32,
    "0123456789abcdef-" + "0" * 31 + "\x00",
]


@pytest.mark.parametrize("forged", FORGED)
async def test_a_forged_id_is_unknown(desk: Approvals, tmp_path: Path, forged: str) -> None:
    """What is no id is not looked for: not in a folder either."""
    assert worker_of(forged) is None
    other = Approvals(directory=tmp_path / "d")
    await other.start()
    assert await desk.submit(forged, ALLOW) == await other.submit(forged, ALLOW) == Outcome(state="unknown")
    await other.aclose()


# --- what is refused when it is made


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, True])
@pytest.mark.parametrize("name", ["timeout", "limit"])
def test_numbers_have_to_be_positive(name: str, wrong: Any) -> None:
    """And finite."""
    with pytest.raises(ConfigError, match=f"{name} must be positive and finite, not"):
        Approvals(**{name: wrong})


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_policys_timeout_has_to_be_positive_too(wrong: float) -> None:
    with pytest.raises(ConfigError, match="timeout must be positive and finite"):
        ask(Approvals(), timeout=wrong)


def test_operators_are_apart_from_clients() -> None:
    """One key that is both, whatever its names, or one authenticator for both."""
    alice, shared = {"alice": "operator-key-1"}, {"bob": "operator-key-1", "carol": "client-key-22"}
    check_apart(KeyAuth(alice), KeyAuth({"carol": "client-key-22"}))
    check_apart(KeyAuth(alice), None)
    check_apart(None, None)
    check_apart(KeyAuth(alice), lambda headers: "anybody")
    with pytest.raises(ConfigError, match="an operator has the key of a client"):
        check_apart(KeyAuth(alice), KeyAuth(shared))

    def both(headers: Any) -> str:
        return "x"

    with pytest.raises(ConfigError, match="an operator has the key of a client"):
        check_apart(both, both)


async def test_one_process_alone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever runs several workers reads it in the log."""
    desk = Approvals()
    with caplog.at_level(logging.INFO, logger="luthien_asgi.approvals"):
        await desk.start()
    assert caplog.messages == ["approvals are answered in this process only: no directory is given"]
    await desk.aclose()


async def test_one_of_several_workers_does_not_start_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's answer would reach the right worker by luck; a callback reaches it always."""
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/27.0.0")
    with pytest.raises(ConfigError, match="give a directory"):
        await Approvals(auth=KeyAuth({"alice": "operator-key"})).start()

    async def notify(approval: Approval) -> None:
        raise LookupError(approval.id)

    desk = Approvals(notify=notify)
    await desk.start()
    await desk.aclose()
