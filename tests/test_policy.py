"""The words that a policy is written in."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.policy import Allow, Deny, Hold, Observe, Policy, Replace, Stop, Transform, blocking, is_blocking

BLOCK = Block(kind=BlockKind.TEXT, text="x")
VALUES = [Allow(), Replace([BLOCK]), Deny("no"), Stop("no"), Hold(), Observe(), Transform()]
HOOKS = ["on_request", "on_chunk_added", "on_run_added", "on_block_end", "on_block_complete", "on_stream_complete", "on_error"]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_verdicts_and_handlings_are_values(value: Any) -> None:
    """Equal by content, not to be changed, without room for a misspelt field."""
    assert value == dataclasses.replace(value)
    for name in [field.name for field in dataclasses.fields(value)] or ["reason"]:
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(value, name, "changed")
    assert not hasattr(value, "__dict__")


def test_verdicts_of_different_kinds_are_never_equal() -> None:
    """A Deny is not a Stop with the same words."""
    assert Deny("a") != Stop("a")
    assert Hold() != Observe()
    assert Deny("a", reason="r") != Deny("a")


@pytest.mark.parametrize("value", [Allow(), Replace([]), Deny("m"), Stop("m")], ids=lambda value: type(value).__name__)
def test_every_verdict_may_carry_a_reason_for_the_record(value: Any) -> None:
    """Empty unless given."""
    assert value.reason == ""
    assert dataclasses.replace(value, reason="because").reason == "because"


def test_a_denial_needs_words_for_the_client() -> None:
    """There is no silent denial."""
    for kind in (Deny, Stop):
        with pytest.raises(TypeError):
            kind()  # type: ignore[call-arg]


def test_blocking_marks_a_hook_and_returns_it() -> None:
    """The hook itself is unchanged; one that was not marked is not blocking."""

    def hook() -> int:
        return 1

    assert not is_blocking(hook)
    assert blocking(hook) is hook
    assert is_blocking(hook)
    assert hook() == 1


def test_the_mark_is_seen_on_a_bound_method_and_not_inherited_by_an_override() -> None:
    """A subclass that overrides a blocking hook says for itself whether it blocks."""

    class Slow(Policy):
        @blocking
        def on_request(self, request: Any, ctx: Any) -> None: ...

    class Quick(Slow):
        def on_request(self, request: Any, ctx: Any) -> None: ...

    assert is_blocking(Slow().on_request)
    assert not is_blocking(Quick().on_request)
    assert not is_blocking(Slow().on_error)


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_is_not_overridden_has_no_opinion(name: str) -> None:
    """It returns None, plainly: there is nothing to await."""
    hook = getattr(Policy(), name)
    arguments = [object()] * len(inspect.signature(hook).parameters)
    assert hook(*arguments) is None


@pytest.mark.parametrize("name", HOOKS)
def test_a_hooks_docstring_is_its_documentation(name: str) -> None:
    """Each begins with a full sentence."""
    first = (inspect.getdoc(getattr(Policy, name)) or "").splitlines()[0]
    assert first.endswith((".", ")."))


def test_the_hooks_are_these_seven_and_a_policy_handles_nothing_by_default() -> None:
    """Adding a hook is a decision."""
    assert sorted(name for name in vars(Policy) if name.startswith("on_")) == sorted(HOOKS)
    assert Policy.handles == {}
    assert Policy().handles == {}
