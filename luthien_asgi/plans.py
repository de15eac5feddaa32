"""What one policy does, looked up once when it is loaded, and refused there when the stream path cannot keep it.

A hook that is not overridden is None in the plan, so it costs nothing.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from luthien_asgi.blocks import BlockKind
from luthien_asgi.compose import OnError
from luthien_asgi.errors import ConfigError
from luthien_asgi.policy import Handling, Hold, Observe, Policy, Transform, is_blocking
from luthien_asgi.verdicts import RANKS, Allow, Defer, Escalate, Replace, Resample, Verdict

__all__ = ["Charge", "Hook", "Owner", "PolicyPlan"]

Hook = Callable[..., Any]

_BLOCK_HOOKS: Final = ("on_chunk_added", "on_run_added", "on_block_end", "on_block_complete")
_HOOKS: Final = ("on_request", *_BLOCK_HOOKS, "on_stream_complete", "on_error")
_FLUSHING: Final = ("on_block_end", "on_stream_complete")
_NEVER_EDITED: Final = (BlockKind.THINKING, BlockKind.REDACTED_THINKING, BlockKind.OTHER)


_NEAR: Final = 0.85
"""How much a method's name is like a hook's when it was meant to be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """How a policy is in charge, with what was said at all levels brought together."""

    on_error: OnError = "block"
    timeout: float | None = None
    concurrent: bool = False


class Owner:
    """Stands for one policy where something is kept for it: two policies of one class are two."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyPlan:
    """One policy."""

    name: str
    owner: Owner
    handles: Mapping[BlockKind, Handling]
    verdicts: frozenset[type[Verdict]]
    rest: bool
    asks: Sequence[str]
    charge: Charge
    on_request: Hook | None
    on_chunk_added: Hook | None
    on_run_added: Hook | None
    """None also where `on_chunk_added` is overridden by a class that knows nothing of runs."""
    on_block_end: Hook | None
    on_block_complete: Hook | None
    on_stream_complete: Hook | None
    on_error: Hook | None

    @classmethod
    def of(cls, policy: Policy | None, charge: Charge = Charge()) -> PolicyPlan:
        """Return a policy's plan. Raises `ConfigError` for a declaration that the stream path cannot keep."""
        hooks = {name: _overridden(policy, name) for name in _HOOKS}
        handles = dict(policy.handles) if policy is not None else {}
        name = type(policy).__name__ if policy is not None else ""
        verdicts = _verdicts(policy) if policy is not None else frozenset()
        _check_names(policy, name)
        _check_signatures(name, hooks)
        _check(name, handles, hooks)
        _check_charge(name, charge, hooks)
        return cls(
            name=name,
            owner=Owner(name),
            handles=handles,
            verdicts=verdicts if hooks["on_block_complete"] is not None else frozenset(),
            rest=policy is not None and policy.rest,
            asks=tuple(policy.asks) if policy is not None else (),
            charge=charge,
            **hooks,
        )

    @property
    def timeout(self) -> float | None:
        """Seconds that one hook may take; None for those of the settings."""
        return self.charge.timeout

    @property
    def passes_errors(self) -> bool:
        """Whether a hook that fails is taken for one without an opinion."""
        return self.charge.on_error == "pass"

    @property
    def alters_text(self) -> bool:
        """Whether the policy may change or keep back text: what is said in sound would get past it."""
        return isinstance(self.handles.get(BlockKind.TEXT), Transform | Hold)

    @property
    def may_speak(self) -> bool:
        """Whether the policy may deny, stop, replace or add text while the answer streams."""
        return bool(self.verdicts - {Allow}) or self._may_warn or self.on_stream_complete is not None

    @property
    def _may_warn(self) -> bool:
        """Whether a message may have to say that a block was let through unchecked."""
        return self.passes_errors and self.on_block_complete is not None

    @property
    def escalates(self) -> bool:
        """Whether a person may have to be asked."""
        return Escalate in self.verdicts

    @property
    def redraws(self) -> bool:
        """Whether the policy may have the answer dropped and written anew."""
        return not self.verdicts.isdisjoint({Resample, Defer})


def _verdicts(policy: Policy) -> frozenset[type[Verdict]]:
    name, declared = type(policy).__name__, policy.verdicts
    unknown: list[Any] = [verdict for verdict in declared if verdict not in RANKS]
    if unknown or not declared:
        said = f"not {unknown[0]!r}" if unknown else "and is empty"
        raise ConfigError(f"{name}.verdicts names the classes of verdicts that on_block_complete returns, {said}")
    if declared is not Policy.verdicts and Replace in declared and not any(isinstance(h, Hold) for h in policy.handles.values()):
        raise ConfigError(f"{name} declares Replace and holds no kind of block: what has left cannot be replaced")
    return frozenset({Allow, *declared})


def _check_charge(name: str, charge: Charge, hooks: Mapping[str, Hook | None]) -> None:
    if charge.concurrent and hooks["on_request"] is None:
        msg = f"{name} has no on_request: there is nothing to run beside the call of the backend (concurrent)"
        raise ConfigError(msg)


def _overridden(policy: Policy | None, name: str) -> Hook | None:
    if policy is None or getattr(type(policy), name, None) is getattr(Policy, name):
        return None
    hook: Hook = getattr(policy, name)
    if name == "on_run_added" and _place_of(policy, name) > _place_of(policy, "on_chunk_added"):
        return None
    return hook


def _place_of(policy: Policy, name: str) -> int:
    """Return how far up its classes a policy's method is defined; before all of them is what an object has of its own."""
    places = (getattr(policy, "__dict__", {}), *map(vars, type(policy).__mro__))
    return next(place for place, names in enumerate(places) if name in names)


def _check_names(policy: Policy | None, name: str) -> None:
    """Refuse a method whose name is nearly a hook's: it would never be called."""
    for given in dir(type(policy)) if policy is not None else ():
        near = difflib.get_close_matches(given, _HOOKS, n=1, cutoff=_NEAR) if given not in _HOOKS else []
        if near and callable(getattr(policy, given)):
            msg = f"{name} has a method {given}, which is no hook and would never be called; did you mean {near[0]}?"
            raise ConfigError(msg)


def _check_signatures(name: str, hooks: Mapping[str, Hook | None]) -> None:
    for hook, method in hooks.items():
        arguments = [parameter for parameter in inspect.signature(getattr(Policy, hook)).parameters if parameter != "self"]
        if method is None:
            continue
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError:
            msg = f"{name}.{hook} is called with {', '.join(arguments)}, and does not take that"
            raise ConfigError(msg) from None
        except ValueError:
            continue  # a callable without a signature, of an extension module


def _check_generators(name: str, handles: Mapping[Any, Any], hooks: Mapping[str, Hook | None]) -> None:
    """Refuse hooks that would be called and never run: nobody takes what they yield, or waits for them."""
    for hook, method in hooks.items():
        flushes = hook in _FLUSHING or (hook == "on_chunk_added" and all(isinstance(h, Transform) for h in handles.values()))
        if inspect.isasyncgenfunction(method) or (inspect.isgeneratorfunction(method) and not flushes):
            msg = f"{name}.{hook} yields, and nobody would take what it yields: return the result instead"
            raise ConfigError(msg)
        if method is not None and is_blocking(method) and inspect.iscoroutinefunction(method):
            msg = f"{name}.{hook} is marked as blocking, which is for plain functions: in a thread nobody waits for an async one"
            raise ConfigError(msg)


def _check(name: str, handles: Mapping[Any, Any], hooks: Mapping[str, Hook | None]) -> None:
    for kind, handling in handles.items():
        if not isinstance(kind, BlockKind) or not isinstance(handling, Observe | Transform | Hold):
            msg = f"{name}.handles maps a BlockKind to Observe(), Transform() or Hold(), not {kind!r} to {handling!r}"
            raise ConfigError(msg)
        if isinstance(handling, Transform) and kind in _NEVER_EDITED:
            msg = f"{name}.handles: a {kind} block is never edited in parts; declare Observe() or Hold()"
            raise ConfigError(msg)
        if isinstance(handling, Hold) and hooks["on_block_complete"] is None:
            msg = f"{name}.handles holds {kind} blocks, but on_block_complete is not overridden: nothing would judge them"
            raise ConfigError(msg)
    if (run := hooks["on_run_added"]) is not None and (is_blocking(run) or inspect.iscoroutinefunction(run)):
        msg = f"{name}.on_run_added has to return at once: make it a plain function, not async and not @blocking"
        raise ConfigError(msg)
    if run is not None and hooks["on_chunk_added"] is None:
        msg = f"{name} overrides on_run_added without on_chunk_added, which is called for every chunk that comes alone"
        raise ConfigError(msg)
    if run is not None and not any(isinstance(handling, Transform) for handling in handles.values()):
        msg = f"{name} overrides on_run_added, which belongs to Transform() kinds, and declares none"
        raise ConfigError(msg)
    _check_generators(name, handles, hooks)
    unused = [hook for hook in _BLOCK_HOOKS if hooks[hook] is not None]
    if unused and not handles:
        msg = f"{name} overrides {', '.join(unused)}, but its `handles` is empty: the hook would never be called"
        raise ConfigError(msg)
    if hooks["on_block_end"] is not None and not any(isinstance(value, Transform) for value in handles.values()):
        msg = f"{name} overrides on_block_end, which belongs to Transform() kinds, and declares none"
        raise ConfigError(msg)
