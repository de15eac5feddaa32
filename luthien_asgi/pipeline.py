"""Several policies as what runs: steps that an answer goes through one after the other.

Strategy: a `Chain` becomes a list of steps, each with an assembler and lanes of its own, so that a policy sees blocks that the
one before let out. A step is one policy or several together; what those say about a block is brought together by rank. Policies
in shadow are taken out and put beside the step whose input they see. What cannot run is refused here, when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Final, TypeVar

from luthien_asgi.blocks import BlockKind
from luthien_asgi.compose import Chain, Composable, Governed, Mode, OnError, Together
from luthien_asgi.errors import ConfigError
from luthien_asgi.plans import Charge, PolicyPlan
from luthien_asgi.policy import Handling, Hold, Observe, Policy, Transform
from luthien_asgi.verdicts import Replace

__all__ = ["AtOnce", "InTurn", "Node", "Pipeline", "Step"]


@dataclass(frozen=True, slots=True)
class InTurn:
    """Who is asked one after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Who is asked at the same time."""

    nodes: tuple[Node, ...]


Node = PolicyPlan | InTurn | AtOnce

_Level = TypeVar("_Level")

_STRICTNESS: Final = (Observe, Transform, Hold)
_MODES: Final[Sequence[Mode]] = ("off", "shadow", "enforce")
_ON_ERROR: Final[Sequence[OnError]] = ("pass", "block")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: the policies that see the same blocks. With no policy everything passes."""

    node: Node
    members: tuple[PolicyPlan, ...]
    handles: Mapping[BlockKind, Handling]
    """The strictest handling that a member asks for."""
    shadows: tuple[Step, ...] = ()
    """Policies that see what this step gets, and whose verdicts are recorded only."""

    @classmethod
    def of(cls, node: Node, shadows: Sequence[Step] = ()) -> Step:
        """Return a step. Raises `ConfigError` for policies that cannot be asked together."""
        members = tuple(_members(node))
        if len(members) > 1:
            _check_together(node)
        return cls(node=node, members=members, handles=_strictest(members), shadows=tuple(shadows))

    @property
    def name(self) -> str:
        """The names of the policies."""
        return " + ".join(plan.name for plan in self.members)

    @property
    def may_speak(self) -> bool:
        """Whether a policy may deny, stop, replace or add text while the answer streams."""
        return any(plan.may_speak for plan in self.members)

    def judges(self, kind: BlockKind) -> bool:
        """Tell whether somebody is asked about whole blocks of a kind."""
        return any(plan.on_block_complete is not None and kind in plan.handles for plan in self.members)

    def watchers(self, kind: BlockKind) -> tuple[PolicyPlan, ...]:
        """Return the policies that see the chunks of a kind and do not change them."""
        watching = (plan for plan in self.members if plan.on_chunk_added is not None)
        return tuple(plan for plan in watching if isinstance(plan.handles.get(kind), Observe | Hold))

    def transformer(self, kind: BlockKind) -> PolicyPlan | None:
        """Return the policy that changes a kind as it flows."""
        return next((plan for plan in self.members if isinstance(plan.handles.get(kind), Transform)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """All policies of a middleware."""

    steps: tuple[Step, ...]
    """At least one; without a policy where none is in charge, and at the end where some in shadow come last."""

    @classmethod
    def of(cls, policy: Composable | None) -> Pipeline:
        """Return what runs. Raises `ConfigError` for what the stream path cannot keep, naming the policy."""
        found = _Builder().steps(policy, _Said()) if policy is not None else []
        steps = tuple(_with_shadows_placed(found))
        return cls(steps=steps)

    @property
    def name(self) -> str:
        """The names of the policies in charge."""
        return ", ".join(step.name for step in self.steps if step.members)

    @property
    def in_charge(self) -> tuple[PolicyPlan, ...]:
        """The policies whose verdicts are enforced, in order."""
        return tuple(chain.from_iterable(step.members for step in self.steps))

    @property
    def everybody(self) -> tuple[PolicyPlan, ...]:
        """The policies in charge and those in shadow."""
        shadows = chain.from_iterable(step.shadows for step in self.steps)
        return self.in_charge + tuple(chain.from_iterable(shadow.members for shadow in shadows))

    @property
    def shadows(self) -> tuple[Step, ...]:
        """The policies in shadow."""
        return tuple(chain.from_iterable(step.shadows for step in self.steps))

    @property
    def node(self) -> Node:
        """Who is asked about a request, and in which order."""
        return InTurn(tuple(step.node for step in self.steps))

    @property
    def handles(self) -> Mapping[BlockKind, Handling]:
        """The strictest handling of each kind by a policy in charge."""
        return _strictest(self.in_charge)

    @property
    def alters_text(self) -> bool:
        """Whether a policy may change or keep back text."""
        return any(plan.alters_text for plan in self.in_charge)

    @property
    def may_speak(self) -> bool:
        """Whether a policy may deny, stop, replace or add text while the answer streams."""
        return any(step.may_speak for step in self.steps)

    @property
    def redraws(self) -> bool:
        """Whether a policy may have an answer dropped and written anew."""
        return any(plan.redraws for plan in self.in_charge)

    @property
    def holds_answer(self) -> bool:
        """Whether nothing of an answer leaves before its last block is judged."""
        return any(plan.redraws and not plan.rest for plan in self.in_charge)

    @property
    def sees_requests(self) -> bool:
        """Whether a policy, in charge or in shadow, looks at requests."""
        return any(plan.on_request is not None for plan in self.everybody)

    @property
    def escalates(self) -> bool:
        """Whether a person may have to be asked."""
        return any(plan.escalates for plan in self.in_charge)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What outer levels said about how a policy is in charge."""

    mode: Mode | None = None
    on_error: OnError | None = None
    timeout: float | None = None
    concurrent: bool | None = None

    def tightened(self, by: Governed) -> _Said:
        """Return what holds inside `by`: the stricter of what either says."""
        timeouts = [value for value in (self.timeout, by.timeout) if value is not None]
        return _Said(
            mode=_stricter(_MODES, self.mode, by.mode),
            on_error=_stricter(_ON_ERROR, self.on_error, by.on_error),
            timeout=min(timeouts, default=None),
            concurrent=by.concurrent if by.concurrent is not None else self.concurrent,
        )


def _stricter(order: Sequence[_Level], *values: _Level | None) -> _Level | None:
    return max((value for value in values if value is not None), key=order.index, default=None)


class _Builder:
    """Makes steps of a tree of policies. A policy object that is there twice is one policy twice."""

    def steps(self, policy: Composable, said: _Said) -> list[Step]:
        """Return the steps of a policy; a step without members carries shadows only."""
        if isinstance(policy, Governed):
            return self.steps(policy.policy, said.tightened(policy))
        if isinstance(policy, Chain):
            return [step for each in policy.policies for step in self.steps(each, said)]
        if isinstance(policy, Together):
            return self._together(policy, said)
        return self._single(policy, said)

    def _single(self, policy: Policy, said: _Said) -> list[Step]:
        # What is off is checked all the same: it may be switched on.
        plan = self._plan(policy, said)
        if said.mode == "off":
            return []
        if said.mode == "shadow":
            return [Step.of(InTurn(()), [Step.of(plan)])]
        return [Step.of(plan)]

    def _together(self, policy: Together, said: _Said) -> list[Step]:
        nodes: list[Node] = []
        shadows: list[Step] = []
        for each in policy.policies:
            inner = self.steps(each, said)
            shadows += [shadow for step in inner for shadow in step.shadows]
            asked = tuple(step.node for step in inner if step.members)
            nodes += [asked[0] if len(asked) == 1 else InTurn(asked)] if asked else []
        node = nodes[0] if len(nodes) == 1 else AtOnce(tuple(nodes))
        return [Step.of(node, shadows)]

    @staticmethod
    def _plan(policy: Policy, said: _Said) -> PolicyPlan:
        concurrent = bool(said.concurrent) and said.mode != "shadow"
        charge = Charge(on_error=said.on_error or "block", timeout=said.timeout, concurrent=concurrent)
        return PolicyPlan.of(policy, charge)


def _with_shadows_placed(steps: Iterable[Step]) -> Iterator[Step]:
    """Move shadows that stand alone to the step whose input they see."""
    waiting: tuple[Step, ...] = ()
    placed = False
    for step in steps:
        waiting += step.shadows
        if step.members:
            yield replace(step, shadows=waiting)
            waiting, placed = (), True
    if waiting or not placed:
        yield Step.of(InTurn(()), waiting)


def _members(node: Node) -> Iterator[PolicyPlan]:
    if isinstance(node, PolicyPlan):
        yield node
    else:
        for each in node.nodes:
            yield from _members(each)


def _strictest(plans: Iterable[PolicyPlan]) -> dict[BlockKind, Handling]:
    found: dict[BlockKind, Handling] = {}
    for plan in plans:
        for kind, handling in plan.handles.items():
            known = found.get(kind)
            if known is None or _STRICTNESS.index(type(handling)) > _STRICTNESS.index(type(known)):
                found[kind] = handling
    return found


def _check_together(node: Node) -> None:
    """Refuse what cannot be asked at the same time. Raises `ConfigError`."""
    if isinstance(node, PolicyPlan):
        return
    for plan in _members(node):
        if any(isinstance(handling, Transform) for handling in plan.handles.values()):
            msg = f"{plan.name} changes text as it flows, and those beside it would not see that: it belongs into a Chain"
            raise ConfigError(msg)
    for one, other in combinations(node.nodes, 2) if isinstance(node, AtOnce) else ():
        if kinds := _replaced(one) & _replaced(other):
            names = " and ".join(plan.name for plan in (*_members(one), *_members(other)))
            msg = (
                f"of {names}, two may replace a {min(kinds)} block at the same time, and only one can: let their `verdicts` name "
                "what they return (without Replace), or put them into a Chain"
            )
            raise ConfigError(msg)
    for inner in node.nodes:
        _check_together(inner)


def _replaced(node: Node) -> set[BlockKind]:
    return {kind for plan in _members(node) if Replace in plan.verdicts for kind in _held(plan)}


def _held(plan: PolicyPlan) -> set[BlockKind]:
    return {kind for kind, handling in plan.handles.items() if isinstance(handling, Hold)}
