"""Proof that a policy keeps what every policy promises, in one line of a test:

    def test_my_policy_holds() -> None:
        assert_policy_holds(MyPolicy(), examples=["swordfish"], canary="swordfish")

Strategy: the policy runs in the real middleware on answers of every kind, in every cut, form and format; each promise is a module
that compares what came out. Nothing is drawn that is not seeded, so a counterexample comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from random import Random
from typing import Any

from luthien_asgi.approvals import Approvals
from luthien_asgi.compose import Composable
from luthien_asgi.request import WireName
from luthien_asgi.settings import StreamSettings
from luthien_asgi.testing.parts import Answer, Part
from luthien_asgi.testing.proof import answers as corpus
from luthien_asgi.testing.proof.canary import FIELDS, Canary
from luthien_asgi.testing.proof.cuts import Cut, everywhere, randomly
from luthien_asgi.testing.proof.forms import Forms
from luthien_asgi.testing.proof.sharing import Sharing
from luthien_asgi.testing.proof.stage import CLIENTS, Judges, Stage, handles_of
from luthien_asgi.testing.proof.together import Together

__all__ = ["PolicyProof", "assert_policy_holds"]


@dataclass(frozen=True, slots=True)
class PolicyProof:
    """What was tried."""

    answers: int
    runs: int
    canary_runs: int = 0
    """How many of the runs had the canary in them."""


def assert_policy_holds(
    policy: Composable | Callable[[], Composable],
    *,
    examples: Sequence[str] = (),
    answers: Iterable[Answer | Part | str] = (),
    canary: str = "",
    canary_in: Collection[str] | None = None,
    judges: Judges | None = None,
    request: Mapping[str, Any] | None = None,
    settings: StreamSettings | None = None,
    approvals: Callable[[], Approvals] | None = None,
    clients: Sequence[WireName] = CLIENTS,
    cuts: int = 4,
    halves: bool = True,
    seed: int = 0,
    holds_back: int | None = None,
    ignoring: Collection[str] = (),
    max_block: float = 0.1,
) -> PolicyProof:
    """Raise `AssertionError` with a counterexample unless the policy keeps what every policy promises.

    - *Fragment invariance*: however an answer is cut, inside a character or a JSON escape too, the client has the same in the
      end, and a judge is asked as often.
    - *Runs*: fragments that come in one packet (`on_run_added`) give what they give one by one.
    - *Parity*: the same when the client does not stream; the same texts, calls and verdicts in every client's format.
    - *Boundaries*: what leaves unchanged leaves in the chunks in which it came. A `Transform` kind may keep back what it needs;
      with `holds_back` no more than so many characters.
    - *Once*: each block is judged once.
    - *Legality*: every answer is legal on its wire, and the next turn built from it is accepted (see `check_history`).
    - *Sharing*: the policy writes nothing on itself while it serves (save on the fields in `ignoring`), two streams at once do
      not mix, and no hook blocks the event loop for more than `max_block` seconds.
    - *Canary*: with `canary`, a text that the policy denies or masks wherever it is, nothing that the client gets holds it, nor
      does the next turn: in every field of the kinds that the policy handles, or in those of `canary_in` (`text`, `logprobs`,
      `annotations`, `citations`, `thinking`, `refusal`, `tool_name`, `tool_arguments`), choice 0 and 1, cut at every place.

    `policy` is one object (a `Chain` and the like too), or what makes one: then each run has a fresh object, as a policy with a
    budget needs it. `examples` are texts that the policy reacts to, put into every kind of block; `answers` are whole answers of
    the author's own. `judges` are what the models that the policy itself asks say, by their names: functions of the call, so that
    they always say the same to the same; `approvals` makes the desk of each run, whose `notify` decides for the person that is
    asked. `request` are fields of each request, as for `run_policy`; `cuts` is how many random cuts each answer gets beside the
    cut everywhere; without `halves` no character is cut in two. Callable with or without a running event loop.

    Raises `ValueError` for a canary that the policy handles no field for, and `LookupError` for a model that the policy asks and
    `judges` does not name. A policy that always fails in the same way keeps these promises: what it says is for tests of its own.
    """
    make: Callable[[], Composable] = (lambda: policy) if isinstance(policy, Composable) else policy
    stage = Stage(make, judges=judges or {}, request=request or {}, settings=settings, approvals=approvals)
    chosen = Random(seed)  # noqa: S311 - not for secrets
    tried = corpus.answers(chosen, examples=examples, own=answers)
    plan = [(answer, _cuts(answer, chosen, cuts, halves=halves)) for answer in tried]
    word = Canary(stage, canary, _fields(make(), canary_in), clients, halves=halves) if canary else None
    sharing = Sharing(stage, ignoring=ignoring, max_block=max_block)
    found = _finished(_prove(Forms(stage, clients, holds_back), sharing, word, plan))
    return PolicyProof(len(tried), stage.runs, found)


async def _prove(forms: Forms, sharing: Sharing, canary: Canary | None, plan: Sequence[tuple[Answer, Sequence[Cut]]]) -> int:
    await sharing.check([(answer, cuts[-1]) for answer, cuts in plan])  # first: what is written by now was written here
    found = 0 if canary is None else await canary.check()
    together = Together(forms.stage)
    for answer, cuts in plan:
        await together.check(answer, cuts[-1])
        await forms.check(answer, cuts)
    return found


def _cuts(answer: Answer, chosen: Random, count: int, *, halves: bool) -> list[Cut]:
    return [*(randomly(answer, chosen, halves=halves) for _ in range(count)), everywhere(answer, halves=halves)]


def _fields(policy: Composable, given: Collection[str] | None) -> Collection[str]:
    fields = [name for name, kind in FIELDS.items() if kind in handles_of(policy)] if given is None else given
    if not fields or not FIELDS.keys() >= {*fields}:
        msg = f"no field for the canary of {type(policy).__name__}: say `canary_in`, of {', '.join(FIELDS)}"
        raise ValueError(msg)
    return fields


def _finished(work: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine to its end: in a thread of its own where an event loop runs already."""
    if not _loop_runs():
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, work).result()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
