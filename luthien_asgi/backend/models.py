"""What a model name stands for: LiteLLM's `model_list` shape, checked when it is loaded.

    [{"model_name": "fast", "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "os.environ/OPENAI_API_KEY"}}]

Settings of ours, beside `litellm_params` or in it: `passthrough` (the client's own credential is used), `stream: false` (the
provider's streaming is not to be used), `include_usage: false` (the provider refuses `stream_options`).

Exact names come before wildcards, the longest wildcard first; what each `*` matched is put into the `*` of the model. Several
entries with one name take turns; they speak the same wire. Load balancing beyond that is a `litellm.Router`'s.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from luthien_asgi.backend import known
from luthien_asgi.backend.protocol import Target
from luthien_asgi.backend.recent import Recent
from luthien_asgi.errors import ConfigError, RequestError
from luthien_asgi.logs import logger_of
from luthien_asgi.request import WireName

__all__ = ["Deployment", "ModelTable", "from_router", "not_configured", "read_deployment"]

_log: Final = logger_of(__name__)
_ENVIRONMENT: Final = "os.environ/"
_OURS: Final = ("passthrough", "stream", "include_usage")
_ENTRY_KEYS: Final = frozenset({"model_name", "litellm_params", "model_info", *_OURS})
_ADDRESSES: Final = ("api_base", "base_url")
_USER: Final = re.compile(r"[^/?#]*//[^/?#]*@")
_SAFE_MATCH: Final = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[\w.:/@+\-]+", re.ASCII)
"""What a `*` may match: it ends up in URLs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One entry of the model list."""

    name: str
    model: str
    """LiteLLM's model, with the provider in front."""
    provider: str
    """Empty when only LiteLLM's own table can tell."""
    params: Mapping[str, Any] = field(repr=False)
    """The other `litellm_params`, environment variables resolved."""
    passthrough: bool = False
    stream: bool = True
    include_usage: bool = True
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wire(self) -> WireName:
        """The wire that the provider's API speaks, `openai` where it is neither."""
        return "anthropic" if self.provider == "anthropic" else "openai"

    @property
    def spends_key(self) -> bool:
        """Whether a call may spend a credential of the server."""
        if self.passthrough:
            return False
        has_key = "api_key" in self.params or f"{self.provider.upper()}_API_KEY" in os.environ
        return has_key or self.provider not in known.KEYLESS_PROVIDERS

    def target(self, asked: str) -> Target:
        """Return what a client is told that this deployment is."""
        return Target(
            name=asked, provider=self.provider, wire=self.wire, passthrough=self.passthrough, spends_key=self.spends_key
        )


class ModelTable:
    """The configured models. Raises `ConfigError` that names the entry and the key."""

    def __init__(self, model_list: Sequence[Mapping[str, Any]]) -> None:
        groups: dict[str, list[Deployment]] = {}
        for position, entry in enumerate(model_list):
            deployment = read_deployment(entry, where=f"model_list[{position}]")
            groups.setdefault(deployment.name, []).append(deployment)
        for group in groups.values():
            _check_alike(group)
        self._groups = groups
        self._turns: Mapping[str, Iterator[Deployment]] = {name: itertools.cycle(group) for name, group in groups.items()}
        self._recent = Recent[Deployment]()
        self._wildcards = [(_pattern(name), name) for name in sorted(groups, key=len, reverse=True) if "*" in name]

    def providers(self) -> frozenset[str]:
        """Return the providers of all deployments; "" for one that a wildcard leaves open."""
        return frozenset(deployment.provider for group in self._groups.values() for deployment in group)

    def names(self) -> tuple[str, ...]:
        """Return the configured names, wildcards as they are written."""
        return tuple(self._groups)

    def find(self, asked: str) -> Deployment:
        """Return the first deployment of a name, also of a wildcard as it is written. Raises `RequestError` 404 for none."""
        name, matched = (asked, ()) if asked in self._groups else self._match(asked)
        if "*" in asked:
            return self._groups[name][0]
        return self._of(self._groups[name][0], matched)

    def next(self, asked: str) -> Deployment:
        """Return the deployment whose turn it is. Raises `RequestError` 404 when there is none."""
        name, matched = self._match(asked)
        return self._of(next(self._turns[name]), matched)

    def _of(self, deployment: Deployment, matched: tuple[str, ...]) -> Deployment:
        if "*" not in deployment.model:
            return deployment
        key = (id(deployment), matched)
        found = self._recent.get(key)
        if found is None:
            found = _filled(deployment, matched)
            self._recent.put(key, found)
        return found

    def _match(self, asked: str) -> tuple[str, tuple[str, ...]]:
        if asked in self._groups and "*" not in asked:
            return asked, ()
        for pattern, name in self._wildcards:
            if found := pattern.fullmatch(asked):
                return _checked(asked, name, found.groups())
        raise not_configured(asked)


def not_configured(asked: str) -> RequestError:
    """Return the error for a model name that stands for nothing."""
    return RequestError(f"the model {asked[:200]!r} is not configured", status=404, code="model_not_found", param="model")


def _checked(asked: str, name: str, matched: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if not all(_SAFE_MATCH.fullmatch(part) for part in matched):
        raise not_configured(asked)
    return name, matched


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("(.+)".join(re.escape(part) for part in name.split("*")))


def from_router(entry: Mapping[str, Any]) -> Deployment:
    """Return a deployment that a `litellm.Router` picked: its parameters are LiteLLM's own and resolved."""
    params = {name: value for name, value in entry["litellm_params"].items() if value is not None}
    return _deployment(entry["model_name"], entry, params, "router")


def _filled(deployment: Deployment, matched: tuple[str, ...]) -> Deployment:
    parts = deployment.model.split("*")
    model = "".join(itertools.chain.from_iterable(itertools.zip_longest(parts, matched[: len(parts) - 1], fillvalue="")))
    return replace(deployment, model=model, provider=_provider(model, deployment.params))


def read_deployment(entry: Mapping[str, Any], *, where: str) -> Deployment:
    """Return a checked entry of a model list. Raises `ConfigError`; `where` is how its messages name the entry."""
    if not isinstance(entry, Mapping):
        msg = f"{where} must be a mapping with model_name and litellm_params"
        raise ConfigError(msg)
    _check_keys(entry, _ENTRY_KEYS, where)
    name, params = entry.get("model_name"), entry.get("litellm_params")
    if not isinstance(name, str) or not name:
        msg = f"{where}.model_name must be a name"
        raise ConfigError(msg)
    if not isinstance(params, Mapping) or not isinstance(params.get("model"), str) or not params["model"]:
        msg = f"{where}.litellm_params must be a mapping with a model"
        raise ConfigError(msg)
    _check_params(params, f"{where}.litellm_params")
    _check_stars(name, params["model"], where)
    resolved = _resolved(params, f"{where}.litellm_params")
    _check_addresses(resolved, f"{where}.litellm_params")
    return _deployment(name, entry, resolved, where)


def _deployment(name: str, entry: Mapping[str, Any], params: dict[str, Any], where: str) -> Deployment:
    switches = {key: entry.get(key, params.pop(key, default)) for key, default in zip(_OURS, (False, True, True), strict=True)}
    for key, value in switches.items():
        if not isinstance(value, bool):
            msg = f"{where}.{key} must be true or false, not {value!r}"
            raise ConfigError(msg)
    if switches["passthrough"] and "api_key" in params:
        msg = f"{where}: a passthrough model uses the client's credential and has no api_key of its own"
        raise ConfigError(msg)
    model = params.pop("model")
    provider = _provider(model, params)
    return Deployment(
        name=name, model=model, provider=provider, params=params, info=dict(entry.get("model_info") or {}), **switches
    )


def _provider(model: str, params: Mapping[str, Any]) -> str:
    if named := params.get("custom_llm_provider"):
        return str(named)
    prefix, slash, _ = model.partition("/")
    if slash and "*" not in prefix:
        return prefix
    return next((provider for start, provider in known.BARE_MODELS.items() if model.startswith(start)), "")


def _check_keys(found: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    for key in found:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            msg = f"{where} has an unknown key {key!r}{hint}"
            raise ConfigError(msg)


def _check_params(params: Mapping[str, Any], where: str) -> None:
    plain = {key: value for key, value in params.items() if not str(key).startswith(known.PARAMETER_PREFIXES)}
    _check_keys(plain, known.PARAMETERS | set(_OURS), where)
    idle = sorted(params.keys() & known.ROUTER_ONLY)
    if idle:
        _warn_idle(where, tuple(idle))


@lru_cache(maxsize=256)
def _warn_idle(where: str, names: tuple[str, ...]) -> None:
    """Say it once: an entry is read several times."""
    _log.warning("%s: %s has no effect without a litellm.Router", where, ", ".join(names))


def _check_stars(name: str, model: str, where: str) -> None:
    if model.count("*") > name.count("*"):
        msg = f"{where}: the model {model!r} has more * than the model_name {name!r}"
        raise ConfigError(msg)


def _check_addresses(params: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` for an address with a credential in it, which errors would show. The message has none of it."""
    for key in _ADDRESSES:
        found = params.get(key)
        if not isinstance(found, str):
            continue
        if _USER.match(found):
            msg = f"{where}.{key} holds a user or a password: give the key as api_key, or a header in extra_headers"
            raise ConfigError(msg)
        if not found.isprintable() or " " in found:
            msg = f"{where}.{key} holds spaces or control characters"
            raise ConfigError(msg)


def _check_alike(group: Sequence[Deployment]) -> None:
    if len({(deployment.wire, deployment.passthrough) for deployment in group}) > 1:
        msg = f"the entries for model_name {group[0].name!r} must agree in wire and passthrough"
        raise ConfigError(msg)


def _resolved(value: Any, where: str) -> Any:  # noqa: ANN401 - configuration is any shape
    if isinstance(value, Mapping):
        return {key: _resolved(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item, f"{where}[{position}]") for position, item in enumerate(value)]
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
        return value
    variable = value.removeprefix(_ENVIRONMENT)
    found = os.environ.get(variable)
    if not found:
        msg = f"{where}: the environment variable {variable} is not set"
        raise ConfigError(msg)
    return found
