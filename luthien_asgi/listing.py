"""What the command line says about policies and configurations: values first, so that they can be JSON or text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import yaml

from luthien_asgi import docstrings, policies
from luthien_asgi.compose import Chain, Composable, Governed, Together
from luthien_asgi.json_schema import Schema, schema_of
from luthien_asgi.policy import Policy

if TYPE_CHECKING:
    from luthien_asgi.approvals import Approvals
    from luthien_asgi.config import Config

__all__ = ["described", "policies_as_text", "policy_as_text", "shipped", "summary"]

_INDENT: Final = "    "
_LONGEST_DEFAULT: Final = 60
_HOOKS: Final = tuple(name for name in vars(Policy) if name.startswith("on_"))
_PLACEHOLDERS: Final[Mapping[str, Any]] = {
    "string": "…", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip


def shipped() -> Sequence[type[Policy]]:
    """Return the policies that ship, by name."""
    return [getattr(policies, name) for name in sorted(policies.__all__)]


def described(cls: type[Policy]) -> dict[str, Any]:
    """Return what there is to know of a policy: its documentation, what it hooks, and the schema of its configuration.

    `handles` and `verdicts` are those of the class; a policy may declare less once it is configured.
    """
    text = docstrings.of(cls)
    return {
        "name": cls.__name__,
        "class": _path(cls),
        "summary": docstrings.summary(text),
        "documentation": text,
        "hooks": [name for name in _HOOKS if getattr(cls, name) is not getattr(Policy, name)],
        "handles": _handles(cls),
        "verdicts": _verdicts(cls),
        "schema": schema_of(cls),
    }


def _path(cls: type[Policy]) -> str:
    ships = getattr(policies, cls.__name__, None) is cls
    return f"{policies.__name__ if ships else cls.__module__}.{cls.__qualname__}"


def _handles(cls: type[Policy]) -> dict[str, str]:
    handles: object = cls.handles  # what is a property is known of an object only
    return {str(kind): type(how).__name__.lower() for kind, how in handles.items()} if isinstance(handles, Mapping) else {}


def _verdicts(cls: type[Policy]) -> list[str]:
    verdicts: object = cls.verdicts
    if cls.on_block_complete is Policy.on_block_complete or isinstance(verdicts, property):
        return []
    return [verdict.__name__.lower() for verdict in cls.verdicts]


def policies_as_text() -> Iterator[str]:
    """Yield the lines of `luthien-asgi policies`."""
    for policy in map(described, shipped()):
        yield policy["name"]
        yield f"{_INDENT}{policy['summary']}"
        yield from (f"{_INDENT}{line}" for line in _facts(policy))
        yield from _parameters(policy["schema"], _INDENT)
        yield ""
    yield "luthien-asgi policies NAME says more of one, luthien-asgi demo --policy NAME shows it at work."


def policy_as_text(cls: type[Policy], example: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield the lines of `luthien-asgi policies NAME`; `example` is a configuration that makes sense."""
    policy = described(cls)
    yield policy["class"]
    yield ""
    yield from (f"{_INDENT}{line}".rstrip() for line in policy["documentation"].splitlines())
    yield ""
    yield from _facts(policy)
    yield from _parameters(policy["schema"], "")
    yield ""
    yield "example:"
    yield from (f"{_INDENT}{line}" for line in _example(policy, example).splitlines())


def _facts(policy: Mapping[str, Any]) -> Iterator[str]:
    yield f"hooks: {', '.join(policy['hooks']) or 'none'}"
    if policy["handles"]:
        yield f"handles: {', '.join(f'{kind} ({how})' for kind, how in policy['handles'].items())}"
    if policy["verdicts"]:
        yield f"verdicts: {', '.join(policy['verdicts'])}"


def _parameters(schema: Schema, indent: str) -> Iterator[str]:
    if not schema["properties"] and not schema["additionalProperties"]:
        yield f"{indent}config: none"
        return
    yield f"{indent}config:"
    for name, each in schema["properties"].items():
        yield f"{indent}{_INDENT}{name}: {_type(each)}{_default(name, each, schema)}"


def _type(schema: Schema) -> str:
    """Return a schema in a few words, as in `list of string`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(branch) for branch in schema["anyOf"] if branch != {"type": "null"}))
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    names = [schema["type"]] if isinstance(schema.get("type"), str) else list(schema.get("type", ["any"]))
    words = {"array": f"list{_of(schema.get('items'))}", "object": f"mapping{_of(schema.get('additionalProperties'))}"}
    return " or ".join(words.get(name, name) for name in names if name != "null" or len(names) == 1)


def _of(inner: object) -> str:
    return f" of {_type(inner)}" if isinstance(inner, Mapping) and inner else ""


def _default(name: str, each: Schema, schema: Schema) -> str:
    if name in schema["required"]:
        return " (required)"
    if each.get("default") is None:
        return ""
    shown = json.dumps(each["default"], ensure_ascii=False)
    return f" = {shown if len(shown) <= _LONGEST_DEFAULT else shown[: _LONGEST_DEFAULT - 1] + '…'}"


def _example(policy: Mapping[str, Any], config: Mapping[str, Any] | None) -> str:
    """Return the section of a configuration file; without a configuration that makes sense, with what is required."""
    schema, cls = policy["schema"], policy["class"]
    if config is None:
        config = {name: _placeholder(schema["properties"][name]) for name in schema["required"]}
    name = policy["name"] if cls.startswith(f"{policies.__name__}.") else cls
    entry = {"class": name, **({"config": dict(config)} if config else {})}
    written: str = yaml.safe_dump({"policy": entry}, sort_keys=False, allow_unicode=True, width=100)
    return written


def _placeholder(schema: Schema) -> Any:  # noqa: ANN401 - a YAML value
    if "anyOf" in schema:
        return _placeholder(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "string")
    return _PLACEHOLDERS[kind if isinstance(kind, str) else kind[0]]


def summary(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what a configuration comes to, as pairs of a word and what goes with it; no credential is in it."""
    for deployment in config.deployments:
        key = "the client's key" if deployment.passthrough else "a server key" if deployment.spends_key else "no key"
        yield "model", f"{deployment.name} is {deployment.model} with {key}"
    yield "policy", _tree(config.policy) if config.policy is not None else "none: everything passes"
    yield "auth", _auth(config)
    if config.operators is not None:
        yield "operators", _number_of_keys(config.operators)
    if config.approvals is not None:
        yield "approval", _approval(config.approvals)
    yield "record", type(config.recorder).__name__.replace("NullRecorder", "none")
    yield "address", f"{config.host}, port {config.port}"


def _tree(policy: Composable) -> str:
    if isinstance(policy, Governed):
        given = {"mode": policy.mode, "on_error": policy.on_error, "timeout": policy.timeout, "concurrent": policy.concurrent}
        said = ", ".join(f"{name}: {value}" for name, value in given.items() if value is not None and value is not False)
        return f"{_tree(policy.policy)} ({said})" if said else _tree(policy.policy)
    if isinstance(policy, Chain | Together):
        return f"{type(policy).__name__}[{', '.join(map(_tree, policy.policies))}]"
    return type(policy).__name__


def _approval(desk: Approvals) -> str:
    return f"by {desk.auth or 'a callback'} within {desk.timeout:g} s, workers meet in {desk.directory}"


def _number_of_keys(keys: Collection[object]) -> str:
    return f"{len(keys)} key{'s' if len(keys) > 1 else ''}"


def _auth(config: Config) -> str:
    if config.auth is not None:
        return _number_of_keys(config.auth)
    return "none: callers on this machine only" if config.spends_server_keys else "none: no server key is spent"
