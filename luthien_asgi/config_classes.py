"""Objects of classes that a configuration file names, with their arguments: policies and recorders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from luthien_asgi import plugins
from luthien_asgi.config_arguments import fitted
from luthien_asgi.config_schema import Section
from luthien_asgi.json_schema import schema_of

__all__ = ["Lacking", "made"]

Lacking = Callable[[type[Any]], str]
"""Says what a class lacks to be what is wanted; "" when nothing."""


def made(named: Section, path: str, config: Section | None, *, lacking: Lacking, more: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - an object of the class named
    """Return an object of the class at a path, made from `config` and `more`; None where there was a problem.

    `named` is where the class is named.
    """
    cls = _class(named, path, lacking)
    config = config if config is not None else Section(named.document)
    given = config.keys()
    if cls is None or not (config.value is None or isinstance(config.value, dict)):
        return None
    place = config if config.place else named
    if wrong := plugins.argument_problems(cls, [*given, *(more or {})]):
        for name, message in wrong:
            place.problem(message, at=name if name in given else None)
        return None
    before = len(named.document.problems)
    schemas = schema_of(cls)["properties"]
    arguments = {name: fitted(section, schemas.get(name, {})) for name, section in given.items()}
    if len(named.document.problems) > before or _is_unresolved(config):
        return None
    try:
        return plugins.make(cls, {**arguments, **(more or {})})
    except plugins.PluginError as error:
        place.problem(f"{cls.__name__}: {error}")
        return None


def _class(named: Section, path: str, lacking: Lacking) -> type[Any] | None:
    try:
        cls = plugins.find(path)
    except plugins.PluginError as error:
        named.problem(str(error))
        return None
    if complaint := lacking(cls):
        named.problem(f"{path} {complaint}")
        return None
    return cls


def _is_unresolved(config: Section) -> bool:
    return any(place[: len(config.place)] == config.place for place in config.document.unresolved if config.place)
