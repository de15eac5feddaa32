"""One answer on all its ways: however it is cut, streamed or not, to every client, it comes to the same, and is legal.

Strategy: the whole answer, streamed, is what is expected; each other way is compared with it. Without a policy the same answer
shows what "unchanged" is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.policy import Policy, Transform
from luthien_asgi.request import WireName
from luthien_asgi.testing.kit import PolicyRun
from luthien_asgi.testing.parts import Answer, Refusal, Text
from luthien_asgi.testing.proof.counterexample import Counterexample
from luthien_asgi.testing.proof.cuts import WHOLE, Cut, joined, shrunk
from luthien_asgi.testing.proof.next_turn import complaint
from luthien_asgi.testing.proof.outcomes import Fragments, Outcome, fragments_of
from luthien_asgi.testing.proof.stage import PROVIDERS, Case, ProofBackend, Stage, handles_of
from luthien_asgi.testing.validate import check_body, check_stream

__all__ = ["Forms"]

FRAGMENTS: Final = "the result depends on how the answer was cut"
FORMS: Final = "the result depends on whether the client streams"
FORMATS: Final = "the result depends on the client's format"
JUDGES: Final = "the number of judge calls depends on how the answer was cut"
ONCE: Final = "a block was judged more or less than once"
BOUNDARIES: Final = "what passes unchanged is cut in other places"
LEGAL: Final = "the answer is not legal on the client's wire"
_ANOTHERS: Final = frozenset({"resample", "defer"})
NEXT: Final = "the next turn, built from what the client stored, would be refused"


@dataclass(slots=True)
class Forms:
    """Holds one policy to what is the same for every form of one answer."""

    stage: Stage
    clients: Sequence[WireName]
    holds_back: int | None = None
    _plain: dict[tuple[WireName, WireName, Cut], Fragments] = field(default_factory=dict)
    """What leaves of the answer without a policy."""
    _seen_plain: tuple[Cut, ...] = ()
    """The cuts for which that is looked at: the coarsest and the finest."""

    async def check(self, answer: Answer, cuts: Sequence[Cut]) -> None:
        """Raise `Counterexample` for the first difference."""
        self._plain.clear()
        self._seen_plain = (WHOLE, cuts[-1])
        for provider in PROVIDERS:
            said: dict[WireName, Outcome] = {
                client: await self._one_client(Case(answer, provider=provider, client=client), cuts) for client in self.clients
            }
            self._compare_formats(answer, provider, said)

    async def _one_client(self, whole: Case, cuts: Sequence[Cut]) -> Outcome:
        run = await self._run(whole)
        expected = Outcome.of(run)
        self._compare(FORMS, expected, await self._run(whole.but(stream=False)), whole.but(stream=False))
        for number, cut in enumerate(cuts):
            case = whole.but(cut=cut, stream=number % 3 != 2)
            got = await self._run(case)
            if expected.against(Outcome.of(got)):
                await self._smallest(expected, case)
            if _judge_calls(got) != _judge_calls(run):
                raise Counterexample(JUDGES, case, f"{_judge_calls(run)} for the whole answer, {_judge_calls(got)} for this")
        return expected

    async def _smallest(self, expected: Outcome, case: Case) -> None:
        """Raise with the fewest cuts that still make the difference."""
        smaller = True
        while smaller:
            smaller = False
            for fewer in shrunk(case.cut):
                if expected.against(Outcome.of(await self._run(case.but(cut=fewer)))):
                    case, smaller = case.but(cut=fewer), True
                    break
        raise Counterexample(FRAGMENTS, case, expected.against(Outcome.of(await self._run(case))))

    async def _run(self, case: Case) -> PolicyRun:
        try:
            run = await self.stage.run(case)
            _check_legal(run, case)
        except ValueError as error:
            raise Counterexample(LEGAL, case, str(error)) from error
        self._check_once(run, case)
        if run.error is None:
            if refused := complaint(case.client, run.body):
                raise Counterexample(NEXT, case, refused)
            if case.stream and case.cut in self._seen_plain:
                await self._check_boundaries(run, case)
        return run

    def _check_once(self, run: PolicyRun, case: Case) -> None:
        """Check that every policy that judged was asked about each block of a kind once."""
        if run.record is None or run.record.ending != "completed":
            return
        policy = self.stage.make()
        if not isinstance(policy, Policy) or any(verdict.verdict in _ANOTHERS for verdict in run.verdicts):
            return  # of several policies a later one sees what an earlier one let out, and so does one that draws another answer
        blocks = sum(block.kind in policy.handles for block in run.record.backend_blocks)
        own = [verdict for verdict in run.verdicts if verdict.hook == "on_block_complete"]
        if own and len(own) != blocks:
            raise Counterexample(ONCE, case, f"{blocks} blocks of the kinds that it handles, {len(own)} verdicts")

    async def _check_boundaries(self, run: PolicyRun, case: Case) -> None:
        expected, got = await self._unchanged(case), fragments_of(run, case.client)
        if _whole(expected) != _whole(got):
            return  # the policy changed something
        handles = handles_of(self.stage.make())
        for place, fragments in expected.items():
            if not isinstance(handles.get(place[0]), Transform):
                if got[place] != fragments:
                    raise Counterexample(BOUNDARIES, case, f"expected {place[0]}: {fragments}\n  got      {got[place]}")
            elif self.holds_back is not None and (late := _late(fragments, got[place], self.holds_back)):
                raise Counterexample(BOUNDARIES, case, late)

    async def _unchanged(self, case: Case) -> Fragments:
        key = case.provider, case.client, case.cut
        if key not in self._plain:
            self._plain[key] = fragments_of(await self.stage.run(case, policy=Policy()), case.client)
        return self._plain[key]

    def _compare(self, promise: str, expected: Outcome, run: PolicyRun, case: Case) -> None:
        if difference := expected.against(Outcome.of(run)):
            raise Counterexample(promise, case, difference)

    def _compare_formats(self, answer: Answer, provider: WireName, said: dict[WireName, Outcome]) -> None:
        if any(isinstance(part, Refusal) for part in answer.parts) and any(isinstance(part, Text) for part in answer.parts):
            return  # two texts whose order not every format keeps
        (first, expected), *others = said.items()
        for client, got in others:
            if expected.across_formats() != got.across_formats():
                case = Case(answer, provider=provider, client=client)
                what = f"a client of {first}: {expected.across_formats()}\n  a client of {client}: {got.across_formats()}"
                raise Counterexample(FORMATS, case, what)


def _check_legal(run: PolicyRun, case: Case) -> None:
    body = b"".join(run.frames)
    if run.headers.get("content-type", "").startswith("text/event-stream"):
        check_stream(case.client, body)
    else:
        check_body(case.client, body)


def _judge_calls(run: PolicyRun) -> int:
    return run.backend.judge_calls if isinstance(run.backend, ProofBackend) else 0


def _whole(fragments: Fragments) -> dict[tuple[BlockKind, str], str]:
    return {place: joined("".join(texts)) for place, texts in fragments.items()}


def _late(expected: Sequence[str], got: Sequence[str], most: int) -> str:
    """Say where more than `most` characters were kept back, or nothing."""
    ends = [0, *accumulate(map(len, got))]
    came = 0
    for text in expected:
        came += len(text)
        left = max(end for end in ends if end <= came)
        if came - left > most:
            return f"{came - left} characters were kept back after {came} had come, {most} are allowed"
    return ""
