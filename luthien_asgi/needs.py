"""What policies need of the rest: refused at the start where it is not there."""

from __future__ import annotations

from luthien_asgi.backend.protocol import Backend
from luthien_asgi.errors import ApiError, ConfigError
from luthien_asgi.pipeline import Pipeline

__all__ = ["check_needs"]


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
