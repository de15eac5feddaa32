"""Several policies as one, and how a policy is in charge: what an operator decides, and no code in a policy.

    Chain([ReplaceText(...), Together([DenyTools(...), Governed(MyJudge(), mode="shadow")])])

Strategy: these are values that say what is wanted; `luthien_asgi.pipeline` makes of them what runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from luthien_asgi.policy import Policy

__all__ = ["Chain", "Composable", "Governed", "Mode", "OnError", "Together", "policies_of"]

Mode = Literal["enforce", "shadow", "off"]
"""`shadow`: the policy sees everything and its verdicts are recorded, nothing is done about them, and no chunk waits for it."""
OnError = Literal["block", "pass"]
"""What a hook that raises or takes too long leads to. What is let through because of it is marked in the record, in a metric, and
in a header while that is possible."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One after the other, requests and answers alike: each policy sees what the one before let out."""

    policies: Sequence[Composable]

    def __post_init__(self) -> None:
        _check(self, self.policies)


@dataclass(frozen=True, slots=True)
class Together:
    """At the same time, each about the same block: Stop over Deny over Escalate over Defer over Resample over Replace over Allow.

    Stop, Deny, Defer and Resample cancel the judges that cannot overrule them any more; whether such a one would have failed does
    not matter either. Where a person allows what was escalated, the next verdict holds. Among equal verdicts the first policy of
    the list is heard, and not the fastest. Policies that rewrite text as it flows belong into a `Chain`, and only one of those
    here may replace a block of a kind; anything else is refused when it is loaded.
    """

    policies: Sequence[Composable]

    def __post_init__(self) -> None:
        _check(self, self.policies)


@dataclass(frozen=True, slots=True)
class Governed:
    """A policy, or several, with settings of its own; None leaves what it is: enforce, block, `policy_timeout`, False.

    Settings may be given at several levels. An outer one can only tighten: of the modes enforce counts most, of `on_error` block,
    of two timeouts the shorter one.

    Raises `ValueError` for a setting that does not exist.
    """

    policy: Composable
    mode: Mode | None = None
    on_error: OnError | None = None
    timeout: float | None = None
    """Seconds that one hook may take without `ctx.keepalive()`."""
    concurrent: bool | None = None
    """`on_request` runs beside the call of the backend and can only deny; nothing of the answer leaves before it has spoken."""

    def __post_init__(self) -> None:
        _check(self, [self.policy])
        for name, value, known in (
            ("mode", self.mode, ("enforce", "shadow", "off")),
            ("on_error", self.on_error, ("block", "pass")),
            ("concurrent", self.concurrent, (True, False)),
        ):
            if value is not None and value not in known:
                msg = f"{name} must be one of {', '.join(map(str, known))}, not {value!r}"
                raise ValueError(msg)
        if self.timeout is not None and not self.timeout > 0:
            msg = f"timeout must be positive, not {self.timeout!r}"
            raise ValueError(msg)


Composable = Policy | Chain | Together | Governed


def policies_of(policy: Composable | None) -> Iterator[Policy]:
    """Yield the policies that a composition is made of, in the order in which they are written."""
    if isinstance(policy, Governed):
        yield from policies_of(policy.policy)
    elif isinstance(policy, Chain | Together):
        for each in policy.policies:
            yield from policies_of(each)
    elif policy is not None:
        yield policy


def _check(composition: object, policies: object) -> None:
    name = type(composition).__name__
    if isinstance(policies, str) or not isinstance(policies, Sequence):
        msg = f"{name} takes a list of policies, not {policies!r}"
        raise ValueError(msg)  # noqa: TRY004 - one kind of error for whoever reads a configuration
    if not policies:
        msg = f"{name} is empty: nothing would be in charge"
        raise ValueError(msg)
    for policy in policies:
        if not isinstance(policy, Composable):
            hint = "; make an object of it" if isinstance(policy, type) else ""
            msg = f"{name} takes policies, not {policy!r}{hint}"
            raise ValueError(msg)  # noqa: TRY004 - as above
