"""What has to hold after a case, as a list of complaints: what the tools did, what was said, and what went over the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from acceptance.cases import DENIAL, JUDGE, SIGNATURE, Case, commands_in, offered_tool, wire_of
from acceptance.clients import Outcome
from acceptance.gateway import CLIENT_KEY
from acceptance.wiretap import Exchange
from luthien_asgi.testing import ProviderRequest, check_history

__all__ = ["Report", "of_case", "report"]

_DENIED: Final = DENIAL.partition("{name}")[2]
_CHECKED: Final = frozenset({"anthropic", "openai"})
"""The wires whose history `check_history` knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A case, what is wrong with it, and what a reader may want to know."""

    case: Case
    problems: Sequence[str]
    notes: Sequence[str]


def report(outcome: Outcome, exchanges: Sequence[Exchange], requests: Sequence[ProviderRequest]) -> Report:
    """Judge a case by its own exchanges and its own requests at the provider."""
    judged = [request for request in requests if request.body.get("model") == JUDGE]
    asked = [request for request in requests if request.body.get("model") != JUDGE]
    problems = [*_tools(outcome), *_said(outcome), *_wire(outcome.case, exchanges), *_provider(outcome.case, asked)]
    if len(judged) != outcome.case.scenario.judgements:
        problems.append(f"the judge was asked {len(judged)} times, not {outcome.case.scenario.judgements}")
    return Report(case=outcome.case, problems=problems, notes=list(_notes(outcome, exchanges)))


def _tools(outcome: Outcome) -> Iterator[str]:
    """Check that exactly the allowed commands ran."""
    made = sorted(file.name for file in outcome.folder.glob("*.txt"))
    if made != sorted(outcome.case.scenario.made):
        yield f"the tools made {made}, not {[*outcome.case.scenario.made]}"


def _said(outcome: Outcome) -> Iterator[str]:
    """Check that the client ended in peace, with the tool's words or with the policy's."""
    if outcome.error:
        yield f"the client is not at peace: {outcome.error}"
    expected = ["The tool said: ", "ran"] if outcome.case.scenario.made else [_DENIED]
    for words in expected:
        if words not in outcome.text:
            yield f"the final text is {outcome.text!r}, without {words!r}"


def _wire(case: Case, exchanges: Sequence[Exchange]) -> Iterator[str]:
    """Check that the loop took its turns and no more (no retry, no second attempt without streaming), all of them answered."""
    turns = [exchange for exchange in exchanges if offered_tool(exchange.body)]
    if len(turns) != case.scenario.turns:
        statuses = [exchange.status for exchange in turns]
        yield f"the client made {len(turns)} requests, not {case.scenario.turns}: {statuses}"
    for exchange in exchanges:
        if exchange.status != 200:
            yield f"{exchange.method} {exchange.path} got {exchange.status}: {exchange.answer[:300]!r}"
        wire = wire_of(exchange.path)
        if wire in _CHECKED and (complaint := check_history(wire, _without_unsigned(exchange.body))):
            yield f"the client's {wire} history is not accepted: {complaint}"
    for exchange in turns:
        if bool(exchange.body.get("stream")) != case.stream:
            yield f"the client asked with stream={exchange.body.get('stream')}"
    if len(case.scenario.wants) > 1 and turns and _DENIED.encode() not in turns[-1].content:
        yield "the denial is not in the history that the client sent back"


def _without_unsigned(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request without thinking that nobody signed: what a model of another provider thought has no signature, and the
    gateway takes it back like that. Signed thinking stays, and is held to the API's rules.
    """
    kept = [
        {**message, "content": [part for part in message["content"] if part.get("type") != "thinking" or part.get("signature")]}
        if isinstance(message.get("content"), list)
        else message
        for message in body.get("messages") or []
    ]
    return {**body, "messages": kept}


def _provider(case: Case, requests: Sequence[ProviderRequest]) -> Iterator[str]:
    """Check what arrived at the provider: in its own wire, with a history that it accepts, without the client's key."""
    turns = [request for request in requests if offered_tool(request.body)]
    if len(turns) != case.scenario.turns:
        yield f"the provider got {len(turns)} requests, not {case.scenario.turns}"
    yield from _kept_thinking(case, turns)
    for request in requests:
        if request.wire != case.backend:
            yield f"the provider was asked in the {request.wire} wire"
        if complaint := check_history(request.wire, request.body):
            yield f"the provider's history is not accepted: {complaint}"
        if CLIENT_KEY in f"{request.headers}{request.body}":
            yield "the client's key reached the provider"


def _kept_thinking(case: Case, turns: Sequence[ProviderRequest]) -> Iterator[str]:
    """Check that signed thinking came back to the provider that signed it, where the client's format can carry it."""
    carries = case.backend == "anthropic" and case.api != "openai-chat"
    if carries and len(turns) > 1 and turns[0].body.get("thinking") and SIGNATURE.encode() not in turns[1].content:
        yield "the thinking that the provider signed did not come back to it"


def _notes(outcome: Outcome, exchanges: Sequence[Exchange]) -> Iterator[str]:
    """Say what is no defect and yet worth a look: parameters ignored, side requests, warnings."""
    if ignored := {exchange.headers["x-luthien-ignored"] for exchange in exchanges if "x-luthien-ignored" in exchange.headers}:
        yield f"ignored: {'; '.join(sorted(ignored))}"
    if side := [f"{exchange.method} {exchange.path}" for exchange in exchanges if not offered_tool(exchange.body)]:
        yield f"side requests: {', '.join(side)}"
    yield from dict.fromkeys(line for line in outcome.stderr.splitlines() if "warning" in line.lower())


def of_case(case: Case, exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Return the exchanges that belong to a case: its mark stands in their conversation."""
    return [exchange for exchange in exchanges if case.name in commands_in(exchange.body)]
