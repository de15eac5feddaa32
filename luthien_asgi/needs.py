"""What the parts of a gateway need of one another: refused at the start where it is not there."""

from __future__ import annotations

from luthien_asgi.approvals import Approvals, check_apart
from luthien_asgi.auth import Auth
from luthien_asgi.backend.protocol import Backend
from luthien_asgi.errors import ApiError, ConfigError
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.record_routes import RecordFinder
from luthien_asgi.recorder import TransactionRecorder
from luthien_asgi.routes import Paths

__all__ = ["check_approvals", "check_needs", "check_nothing_is_spent", "check_records"]


def check_needs(pipeline: Pipeline, backend: Backend, *, has_desk: bool) -> None:
    """Raise `ConfigError` for policies that ask models or people that are not there."""
    for plan in pipeline.everybody:
        for model in plan.asks:
            _check_model(plan.name, model, backend)
    if pipeline.escalates and not has_desk:
        names = ", ".join(plan.name for plan in pipeline.in_charge if plan.escalates)
        section = "an approvals section (beside operators, approvals: {} is enough)"
        msg = f"{names} may ask a person, and there is nobody to ask: give approvals=Approvals(...), or {section}"
        raise ConfigError(msg)


def _check_model(policy: str, model: str, backend: Backend) -> None:
    try:
        target = backend.target(model)
    except ApiError:
        msg = f"{policy} asks the model {model!r}, which is not configured"
        raise ConfigError(msg) from None
    if target.passthrough:
        msg = f"{policy} asks the model {model!r}, which takes a client's own credential: a policy has none"
        raise ConfigError(msg)


def check_nothing_is_spent(backend: Backend) -> None:
    """Raise `ConfigError` for a backend that spends keys of the server's, where nobody said who may ask."""
    spending = [name for name in backend.models() if backend.target(name).spends_key]
    if spending:
        msg = (
            f"the models {', '.join(spending[:5])} spend a key of yours, and anybody who reaches this app could ask for them: "
            "give auth=KeyAuth(...), or write auth=None if something in front of it decides who may"
        )
        raise ConfigError(msg)


def check_approvals(approvals: Approvals | None, paths: Paths, auth: Auth | None) -> None:
    """Raise `ConfigError` where the routes of operators have no desk behind them, or let the wrong ones in."""
    if paths.approvals is not None and (approvals is None or approvals.auth is None):
        msg = f"{paths.approvals} is for operators: give approvals=Approvals(auth=KeyAuth(...)), with keys that no client has"
        raise ConfigError(msg)
    if approvals is not None:
        check_apart(approvals.auth, auth)


def check_records(recorder: TransactionRecorder | None, paths: Paths, operators: Auth | None) -> None:
    """Raise `ConfigError` where the route to records has nobody who may ask, or nothing to show."""
    if paths.records is not None and operators is None:
        msg = f"{paths.records} is for operators: give operators=KeyAuth(...), with keys that no client has"
        raise ConfigError(msg)
    if paths.records is not None and not isinstance(recorder, RecordFinder):
        msg = f"{paths.records} needs a recorder that can find a transaction: JsonlRecorder(...), or one with find()"
        raise ConfigError(msg)
