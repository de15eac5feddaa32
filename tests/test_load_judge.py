"""The judge of the load laboratory finds what is wrong: a load that passes says something."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

LOAD: Final = Path(__file__).parent / "load"
Change = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Any]:
    """The laboratory's module of a name: its folder is a program's and no package."""
    kept, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(LOAD))
    yield importlib.import_module
    sys.path[:] = kept
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(LOAD.parent)):
            del sys.modules[name]


def event(delta: dict[str, Any], finish: str | None = None) -> str:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return "data: " + json.dumps({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + "\n\n"


def right(plan: Any, deltas: int) -> list[str]:
    """Return the events that a client should have, up to the end: the policy has replaced what is between two deltas."""
    texts = [f"{'******' if n else 'ret'} @{n:016d};{plan.marker}; " for n in range(deltas)]
    return [event({"role": "assistant", "content": ""}), *(event({"content": text}) for text in texts)]


def good(plan: Any) -> list[str]:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "run", "arguments": ""}}
    arguments = json.dumps({"at": f"run #{1:016d};{plan.marker};"})
    calls = [call, {"index": 0, "function": {"arguments": arguments}}]
    said = [*right(plan, plan.deltas), event({"content": "sec"}), *(event({"tool_calls": [part]}) for part in calls)]
    return [*said, event({}, "tool_calls"), "data: [DONE]\n\n"]


def failed(plan: Any) -> list[str]:
    said = f"the provider says error {plan.marker}"
    error = {"error": {"message": said, "type": "server_error", "param": None, "code": None}}
    return [*right(plan, plan.after), "data: " + json.dumps(error) + "\n\n"]


@pytest.fixture(scope="module")
def plan(lab: Any) -> Any:
    return lab("plan").Plan(number=7, deltas=4, milliseconds=200, call="run", after=2)


def outcome(lab: Any, plan: Any, events: list[str], **more: Any) -> Any:
    fields: dict[str, Any] = {"how": "whole", "status": 200, "headers": {"x-pid": "1"}, "asked": 100.0, "ended": 110.0, **more}
    return lab("client").Outcome(plan, body="".join(events).encode(), **fields)


def test_what_is_right_passes(lab: Any, plan: Any) -> None:
    """A whole answer; a failed one with the provider's error; a client that left."""
    judge = lab("judge").complaints
    assert judge(outcome(lab, plan, good(plan))) == []
    assert judge(outcome(lab, replace(plan, fault="error"), failed(plan))) == []
    assert judge(outcome(lab, replace(plan, fault="leave"), right(plan, 2), how="left")) == []


CHANGES: Final[dict[str, Change]] = {
    "a delta is missing": lambda events: [*events[:2], *events[3:]],
    "a delta comes twice": lambda events: [*events[:3], *events[2:]],
    "two deltas are swapped": lambda events: [*events[:2], events[3], events[2], *events[4:]],
    "another's delta": lambda events: [*events[:2], events[2].replace("~00000007~", "~00000008~"), *events[3:]],
    "another's call": lambda events: [one.replace("#0000000000000001;~00000007~", "#0000000000000001;~9~") for one in events],
    "the policy has not replaced": lambda events: [one.replace("******", "secret") for one in events],
    "the rest is missing": lambda events: [one for one in events if '"sec"' not in one],
    "no call": lambda events: [one.replace('"tool_calls"', '"stop"') for one in events if '"tool_calls": [' not in one],
    "no terminal event": lambda events: events[:-1],
    "nothing after the middle": lambda events: events[:3],
    "two ends": lambda events: [*events, events[-1]],
    "an illegal frame": lambda events: [*events[:2], "data: {\n\n", *events[2:]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_wrong_with_a_whole_answer_is_found(lab: Any, plan: Any, change: Change) -> None:
    """One change, one complaint at least."""
    assert lab("judge").complaints(outcome(lab, plan, change(good(plan))))


@pytest.mark.parametrize(
    "change",
    [
        lambda events: [*events, "data: [DONE]\n\n"],
        lambda events: [*events[:-1], "data: [DONE]\n\n"],
        lambda events: events[:-1],
        lambda events: [*events[:2], events[-1]],
        lambda events: [one.replace("provider says", "server says") for one in events],
    ],
    ids=["a good end behind it", "a good end in its place", "no error", "a delta lost", "another error"],
)
def test_what_is_wrong_with_a_failed_answer_is_found(lab: Any, plan: Any, change: Change) -> None:
    """The provider's error, after all that it said before, and nothing behind it."""
    assert lab("judge").complaints(outcome(lab, replace(plan, fault="error"), change(failed(plan))))


def test_a_cut_is_for_streams_of_killed_workers_only(lab: Any, plan: Any) -> None:
    """A connection that broke off, or that was never answered, is wrong unless a kill explains it."""
    judge = lab("judge").complaints
    cut = outcome(lab, plan, right(plan, 2), how="cut")
    assert judge(cut) == ["cut off: after 10.0 s"]
    assert judge(cut, killed={2}, kills=[105.0]) == ["cut off: after 10.0 s"]
    assert judge(cut, killed={1}, kills=[105.0]) == []
    unanswered = outcome(lab, plan, [], how="cut", status=0, headers={})
    assert judge(unanswered, killed={1}, kills=[111.0]) == ["unanswered: after 10.0 s"]
    assert judge(unanswered, killed={1}, kills=[105.0]) == []
    assert judge(outcome(lab, plan, right(plan, 2), how="hung")) == ["hung"]


def test_a_record_that_is_missing_twice_or_anothers_is_found(lab: Any, plan: Any, tmp_path: Path) -> None:
    """One begin and one end a transaction, with its own stream's marker and the ending that its fault demands."""
    records = lab("records")
    begin = {"type": "begin", "id": "t", "request": {"messages": [{"content": plan.token()}]}}
    end = {"type": "end", "id": "t", "ending": "completed", "text": plan.marker}
    seen = outcome(lab, plan, good(plan), headers={"x-luthien-transaction": "t"})

    def complaints(*lines: dict[str, Any]) -> list[str]:
        file = tmp_path / "transactions.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return list(records.complaints(records.read_records([file]), [seen], finished={}))

    assert complaints(begin, end) == []
    assert complaints(end)
    assert complaints(begin)
    assert complaints(begin, begin, end)
    assert complaints(begin, end, end)
    assert complaints(begin, {**end, "ending": "failed"})
    assert complaints(begin, {**end, "text": "~00000008~"})
    assert complaints()


def test_a_plan_is_the_same_each_time_and_reaches_the_provider(lab: Any) -> None:
    """Seed and number make a plan; its provider's part comes out of the request as it went in."""
    plans = lab("plan")
    shape = plans.Shape(10, 0.2)
    made = [plans.plan(number, seed=3, shape=shape, faults=0.5) for number in range(300)]
    assert made == list(plans.plans(seed=3, shape=shape, faults=0.5, count=300))
    assert made != list(plans.plans(seed=4, shape=shape, faults=0.5, count=300))
    assert {one.fault for one in made} == {"", *plans.FAULTS}
    for one in made:
        read = plans.Plan.read(b"... " + one.token().encode() + b" ...")
        assert replace(read, client=one.client, provider=one.provider, stream=one.stream) == one
