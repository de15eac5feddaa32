"""What the command line says about policies and configurations: values first, so that they can be JSON or text."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from luthien_asgi import plugins, policies

if TYPE_CHECKING:
    from luthien_asgi.approvals import Approvals
    from luthien_asgi.config import Config

__all__ = ["policies_as_text", "shipped_policies", "summary"]

_INDENT: Final = "    "


def shipped_policies() -> list[dict[str, Any]]:
    """Return the policies that ship: name, dotted path, documentation, parameters, and the kinds of block that each handles."""
    return [_described(getattr(policies, name)) for name in sorted(policies.__all__)]


def _described(cls: type[Any]) -> dict[str, Any]:
    parameters = plugins.parameters(cls)
    return {
        "name": cls.__name__,
        "class": f"{policies.__name__}.{cls.__name__}",
        "documentation": inspect.getdoc(cls) or "",
        "handles": {str(kind): type(handling).__name__.lower() for kind, handling in cls.handles.items()},
        "parameters": [
            {"name": each.name, "type": each.type, "required": each.default is None, "default": each.default}
            for each in parameters
        ],
    }


def policies_as_text() -> Iterator[str]:
    """Yield the lines of `luthien-asgi policies`."""
    for policy in shipped_policies():
        yield policy["class"]
        yield from (f"{_INDENT}{line}".rstrip() for line in policy["documentation"].splitlines())
        yield ""
        yield f"{_INDENT}config:" if policy["parameters"] else f"{_INDENT}config: none"
        yield from (f"{_INDENT * 2}{_parameter(parameter)}" for parameter in policy["parameters"])
        yield ""


def _parameter(parameter: Mapping[str, Any]) -> str:
    default = "(required)" if parameter["required"] else f"= {parameter['default']}"
    return f"{parameter['name']}: {parameter['type']} {default}"


def summary(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what a configuration comes to, as pairs of a word and what goes with it; no credential is in it."""
    for deployment in config.deployments:
        key = "the client's key" if deployment.passthrough else "a server key" if deployment.spends_key else "no key"
        yield "model", f"{deployment.name} is {deployment.model} with {key}"
    yield "policy", type(config.policy).__name__ if config.policy is not None else "none: everything passes"
    yield "auth", _auth(config)
    if config.approvals is not None:
        yield "approval", _approval(config.approvals)
    yield "record", type(config.recorder).__name__.replace("NullRecorder", "none")
    yield "address", f"{config.host}, port {config.port}"


def _approval(desk: Approvals) -> str:
    return f"by {desk.auth or 'a callback'} within {desk.timeout:g} s, workers meet in {desk.directory}"


def _auth(config: Config) -> str:
    if config.auth is not None:
        return f"{len(config.auth)} key{'s' if len(config.auth) > 1 else ''}"
    return "none: callers on this machine only" if config.spends_server_keys else "none: no server key is spent"
