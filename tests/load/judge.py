"""Whether a client got what its plan demands: every delta of its own and none of another's, whole, legal, and ended as it must.

What is demanded follows from the plan alone. A client that left has no claim to an end, but what it has must be right so far.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from client import Outcome
from plan import CLIENT_FAULTS, Plan
from provider import RETRY_AFTER, said
from reading import Seen, read

__all__ = ["ENDINGS", "MARKER", "complaints"]

MARKER: Final = re.compile(rb"~(\d{8})~")
_CLOCK: Final = r"\d{16}"
_ENDS: Final = {"openai": "[DONE]", "anthropic": "message_stop"}
_STATUSES: Final = {"500": 500, "429": 429, "silent": 504}
_DYING: Final = 2.0
"""Seconds that a killed process has its sockets for: the kernel gives back its memory first."""
ENDINGS: Final = {
    "": {"completed"},
    "slow": {"completed"},
    "leave": {"client_disconnected"},
    "abort": {"client_disconnected"},
    "early": {"client_disconnected"},
    "deaf": {"client_disconnected", "failed"},
}
"""What the record may say, by fault; of the provider's faults it says `failed`."""


def complaints(outcome: Outcome, *, killed: Collection[int] = (), kills: Collection[float] = ()) -> list[str]:
    """Return what is wrong with a stream. `killed`: workers that were killed; `kills`: when (`monotonic`)."""
    plan = outcome.plan
    others = set(MARKER.findall(outcome.body)) - {b"%08d" % plan.number}
    found = [f"cross-talk: it holds what belongs to {sorted(others)[:3]}"] if others else []
    if outcome.how in {"hung", "refused"}:
        return [*found, outcome.how]
    if outcome.how == "cut" and _by_kill(outcome, killed, kills):
        return [*found, *_so_far(outcome)]
    if outcome.how == "cut" and plan.fault == "deaf":
        return [*found, *_so_far(outcome)]
    if outcome.how == "cut":
        seconds = f"after {outcome.ended - outcome.asked:.1f} s"
        return [*found, f"unanswered: {seconds}" if not outcome.status else f"cut off: {seconds}"]
    return [*found, *(_so_far(outcome) if outcome.how == "left" else _whole(outcome))]


def _by_kill(outcome: Outcome, killed: Collection[int], kills: Collection[float]) -> bool:
    """Tell whether a kill may have cut this connection: its own worker's; without a head nobody knows whose it was."""
    if outcome.worker:
        return outcome.worker in killed
    return any(outcome.asked - _DYING <= at <= outcome.ended for at in kills)


def _so_far(outcome: Outcome) -> Iterator[str]:
    if outcome.status != 200:
        return
    seen = read(outcome.plan.client, outcome.body, stream=outcome.plan.stream, whole=False)
    yield from seen.illegal
    if seen.ended == "an error" and outcome.plan.fault in {"", *CLIENT_FAULTS}:
        yield f"an error: {seen.error}"
    text = _text_of(outcome.plan, seen.text.count("@"))
    if seen.text and not re.match(text.removesuffix("sec"), seen.text):
        yield f"wrong text: {seen.text[:300]!r}"


def _whole(outcome: Outcome) -> Iterator[str]:
    plan = outcome.plan
    if plan.fault in _STATUSES:
        yield from _refusal(outcome)
        return
    if outcome.status != 200:
        yield f"status {outcome.status}: {outcome.body[:300]!r}"
        return
    seen = read(plan.client, outcome.body, stream=plan.stream, whole=True)
    yield from seen.illegal
    yield from _text(plan, seen)
    if plan.fault in {"", *CLIENT_FAULTS}:
        yield from _good_end(plan, seen)
    else:
        yield from _bad_end(plan, seen)


def _refusal(outcome: Outcome) -> Iterator[str]:
    plan, seen = outcome.plan, read(outcome.plan.client, outcome.body, stream=False, whole=True)
    yield from seen.illegal
    if outcome.status != _STATUSES[plan.fault]:
        yield f"status {outcome.status} in place of {_STATUSES[plan.fault]}"
    if plan.fault != "silent" and seen.error != said(plan, plan.fault):
        yield f"another error than the provider's: {seen.error!r}"
    if plan.fault != "silent" and outcome.headers.get("retry-after") != str(RETRY_AFTER):
        yield f"retry-after: {outcome.headers.get('retry-after')}"


def _good_end(plan: Plan, seen: Seen) -> Iterator[str]:
    if seen.ended != (_ENDS[plan.client] if plan.stream else "whole"):
        yield f"ended with {seen.ended}: {seen.error}"
    arguments = [rf'\{{"at": ?"run #{_CLOCK};{plan.marker};"\}}'] if plan.call == "run" else []
    if len(seen.calls) != len(arguments) or not all(map(re.fullmatch, arguments, seen.calls.values())):
        yield f"wrong tool calls: {seen.calls}"


def _bad_end(plan: Plan, seen: Seen) -> Iterator[str]:
    if seen.ended != "an error" or not seen.error:
        yield f"ended with {seen.ended}, and not with an error"
    if plan.fault == "error" and seen.error != said(plan, "error"):
        yield f"another error than the provider's: {seen.error!r}"
    if seen.calls:
        yield f"tool calls of a failed answer: {seen.calls}"


def _text(plan: Plan, seen: Seen) -> Iterator[str]:
    count = plan.said
    text = _text_of(plan, count)
    if plan.fault not in {"", *CLIENT_FAULTS}:
        text = text.removesuffix("sec") + "(?:sec)?"  # what the policy kept back goes with the answer, or not
    elif plan.call == "rm":
        text += rf"(?:\n\n)?Denied: rm #{_CLOCK};{plan.marker};"
    if not re.fullmatch(text, seen.text):
        yield f"wrong text, {seen.text.count('@')} deltas of {count}: {seen.text[:120]!r} … {seen.text[-200:]!r}"
    clocks = [int(clock) for clock in re.findall(rf"@({_CLOCK});", seen.text)]
    if clocks != sorted(clocks):
        yield "deltas out of order"


def _text_of(plan: Plan, deltas: int) -> str:
    """Return what the first deltas are to a client, as a pattern: the policy has replaced the word between any two."""
    one = rf"@{_CLOCK};{plan.marker};x{{{plan.pad}}} "
    return rf"ret {one}(?:\*{{6}} {one}){{{max(deltas - 1, 0)}}}sec"
