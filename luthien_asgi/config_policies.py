"""The section `policy` of a configuration file: one entry, or a list, which is a chain.

An entry is `{class, config}`, or several of them as `{chain: [...]}` or `{together: [...]}`, to any depth; each may say `mode`,
`on_error`, `timeout` and `concurrent`.

Strategy: an entry is read from its inside to its outside and checked at each level, so what is wrong is told where it is
written, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from luthien_asgi import plugins, policies
from luthien_asgi.backend.protocol import Backend
from luthien_asgi.compose import Chain, Composable, Governed, Together
from luthien_asgi.config_arguments import fitted
from luthien_asgi.config_classes import made
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError
from luthien_asgi.needs import check_needs
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.policy import Policy

__all__ = ["NOT_A_POLICY", "PolicySection", "find_policy", "read_policies"]

NOT_A_POLICY: Final = "is not a Policy: make it a subclass of luthien_asgi.Policy"
_COMPOSITIONS: Final[Mapping[str, type[Chain | Together]]] = {"chain": Chain, "together": Together}
_SETTINGS: Final = ("mode", "on_error", "timeout", "concurrent")
_MODES: Final = ("enforce", "shadow", "off")
_ON_ERROR: Final = ("block", "pass")


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One policy, governed as all that is around it says, and where its class is named."""

    named: Section
    policy: Composable


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """What was read. `policy` is None where nothing was written, and where something was wrong."""

    policy: Composable | None = None
    leaves: Sequence[_Leaf] = ()

    def check_needs(self, backend: Backend, *, has_desk: bool) -> None:
        """Note each policy that asks a model or a person that is not there."""
        for leaf in self.leaves:
            pipeline = _pipeline(leaf.policy)
            complaint = _needs(pipeline, backend, has_desk) if isinstance(pipeline, Pipeline) else ""
            if complaint:
                leaf.named.problem(complaint)


def read_policies(section: Section) -> PolicySection:
    """Return the policies; what is wrong with them is in the document."""
    if section.value is None or section.value == []:
        return PolicySection()
    _refuse_backspaces(section)
    if isinstance(section.value, list):
        return _composition(section, Chain)
    return _entry(section)


def _refuse_backspaces(section: Section) -> None:
    """Note each pattern whose `\\b` YAML made a backspace of: it would match nothing, and say nothing."""
    if isinstance(section.value, dict):
        for key in section.value:
            _refuse_backspaces(section.child(key))
    elif isinstance(section.value, list):
        for item in section.items():
            _refuse_backspaces(item)
    elif isinstance(section.value, str) and "\b" in section.value:
        section.problem("holds a backspace, which is what \\b means in double quotes: write a pattern in single quotes")


def find_policy(name: str) -> type[Policy]:
    """Return the class of a policy that ships, by its own name, or of any at a dotted path. Raises `PluginError`."""
    cls = plugins.find(_path(name))
    if complaint := _lacking(cls):
        raise plugins.PluginError(f"{name} {complaint}")
    return cls


def _path(name: str) -> str:
    if name in policies.__all__:
        return f"{policies.__name__}.{name}"
    if "." not in name:
        raise plugins.PluginError(
            f"no policy that ships is called {name!r} (one of yours is module.Class){plugins.meant(name, policies.__all__)}"
        )
    return name


def _lacking(cls: type[Any]) -> str:
    return "" if issubclass(cls, Policy) else NOT_A_POLICY


def _entry(section: Section) -> PolicySection:
    keys = section.keys(("class", "config", *_COMPOSITIONS, *_SETTINGS))
    if section.value is None:
        section.problem("must be a mapping, not nothing")
    what = [name for name in ("class", *_COMPOSITIONS) if name in keys]
    if len(what) > 1:
        section.problem(f"{' and '.join(what)} are there, and an entry is one of them")
    if not what and isinstance(section.value, dict):
        section.problem("class is missing (or chain, or together)")
    if len(what) != 1:
        return PolicySection()
    (name,) = what
    if name == "class":
        return _governed(section, keys, _single(keys["class"], keys.get("config")))
    if "config" in keys:
        keys["config"].problem(f"belongs to a class, not to {name}")
    return _governed(section, keys, _composition(keys[name], _COMPOSITIONS[name]))


def _single(named: Section, config: Section | None) -> PolicySection:
    written = named.text()
    if written is None:
        return PolicySection()
    try:
        path = _path(written)
    except plugins.PluginError as error:
        named.problem(str(error))
        return PolicySection()
    policy = made(named, path, config, lacking=_lacking)
    return _checked(named, policy, (_Leaf(named, policy),)) if policy is not None else PolicySection()


def _composition(section: Section, kind: type[Chain | Together]) -> PolicySection:
    if section.value == []:
        section.problem("is empty: nothing would be in charge")
    read = [_entry(entry) for entry in section.items()]
    found = [each.policy for each in read if each.policy is not None]
    leaves = tuple(leaf for each in read for leaf in each.leaves)
    if not found or len(found) < len(read):
        return PolicySection(leaves=leaves)
    return _checked(section, found[0] if len(found) == 1 else kind(found), leaves)


def _governed(section: Section, keys: Mapping[str, Section], inner: PolicySection) -> PolicySection:
    given = {name: value for name in _SETTINGS if name in keys and (value := _setting(keys[name], name)) is not None}
    if not given:
        return inner
    leaves = tuple(replace(leaf, policy=Governed(leaf.policy, **given)) for leaf in inner.leaves)
    if inner.policy is None:
        return PolicySection(leaves=leaves)
    return _checked(keys.get("concurrent", section), Governed(inner.policy, **given), leaves)


def _setting(section: Section, name: str) -> Any:  # noqa: ANN401 - a word, a number or a truth value
    if name == "mode":
        return section.choice(_MODES)
    if name == "on_error":
        return section.choice(_ON_ERROR)
    if name == "concurrent":
        value = fitted(section, {"type": "boolean"})
        return value if isinstance(value, bool) else None
    return section.positive()


def _checked(section: Section, policy: Composable, leaves: Sequence[_Leaf]) -> PolicySection:
    """Return what was read, unless the stream path cannot keep it: that is said at the section."""
    found = _pipeline(policy)
    if isinstance(found, Pipeline):
        return PolicySection(policy=policy, leaves=leaves)
    section.problem(found)
    return PolicySection(leaves=leaves)


def _pipeline(policy: Composable) -> Pipeline | str:
    """Return what runs, or why it cannot."""
    try:
        return Pipeline.of(policy)
    except ConfigError as error:
        return str(error)


def _needs(pipeline: Pipeline, backend: Backend, has_desk: bool) -> str:
    """Say what a policy needs and is not there; "" when nothing."""
    try:
        check_needs(pipeline, backend, has_desk=has_desk)
    except ConfigError as error:
        return str(error)
    return ""
