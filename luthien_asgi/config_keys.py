"""Keys in a configuration file, of clients and of operators: a list, or a mapping of names to keys. Messages show no key.

An entry is a key, or a mapping with `key` or `key_file`; a client's may also say which `models` it may ask for, and how many
`streams` it may have at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from luthien_asgi.auth import KeyAuth
from luthien_asgi.clients import ClientKey, may_be_same, models_problem
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError
from luthien_asgi.key_file import read_key
from luthien_asgi.plugins import meant

__all__ = ["Keys", "read_client_keys", "read_operator_keys", "warn_of_models"]

Keys = Mapping[str, str | ClientKey]
"""Keys by name, as `KeyAuth` takes them."""

_SOURCES: Final = ("key", "key_file")
_RIGHTS: Final = ("models", "streams")


def read_client_keys(keys: Section) -> Keys:
    """Return the clients' keys by name; those of a list are `client-1`, …. What is wrong with them is in the document."""
    return _read(keys, whose="client", known=(*_SOURCES, *_RIGHTS))


def read_operator_keys(keys: Section, *, clients: Keys | None) -> Keys:
    """Return the operators' keys by name. One that is a client's too is a problem: a client could do what an operator does."""
    operators = _read(keys, whose="operator", known=_SOURCES)
    theirs = {text_of(key) for key in (clients or {}).values()}
    for name, entry in _named(keys, whose="operator").items():
        if name in operators and text_of(operators[name]) in theirs:
            entry.problem("is a client's key too, and a client could approve its own requests")
    return operators


def warn_of_models(keys: Section, configured: Sequence[str]) -> None:
    """Warn of models of a key that none of the configured names can be; the keys are good ones."""
    for entry in _named(keys, whose="client").values():
        models = entry.value.get("models") if isinstance(entry.value, dict) else None
        for name in models or ():
            if not any(may_be_same(name, other) for other in configured):
                entry.child("models").warn(f"{name!r} is no model of model_list{meant(name, configured)}")


def text_of(key: str | ClientKey) -> str:
    """Return the key itself."""
    return key.key if isinstance(key, ClientKey) else key


def _named(keys: Section, *, whose: str) -> dict[str, Section]:
    if isinstance(keys.value, dict):
        return keys.keys()
    return {f"{whose}-{number}": entry for number, entry in enumerate(keys.items(), start=1)}


def _read(keys: Section, *, whose: str, known: Sequence[str]) -> Keys:
    problems = len(keys.document.problems)
    entries = _named(keys, whose=whose)
    if keys.value in ([], {}):
        keys.problem("is empty: nobody could come in")
    found: dict[str, str | ClientKey] = {}
    for name, entry in entries.items():
        key = _entry(entry, known)
        if key is None:
            continue
        if text_of(key) in {text_of(other) for other in found.values()}:
            entry.problem("the same key is there twice")
        found[name] = key
    if found and len(keys.document.problems) == problems and not keys.document.unresolved:
        _check(keys, found)
    return found


def _check(section: Section, keys: Keys) -> None:
    try:
        KeyAuth(keys)
    except ConfigError as error:
        section.problem(str(error))


def _entry(entry: Section, known: Sequence[str]) -> str | ClientKey | None:
    if not isinstance(entry.value, dict):
        return _key(entry)
    parts = entry.keys(known)
    before = len(entry.document.problems)
    if ("key" in parts) == ("key_file" in parts):
        entry.problem("needs a key or a key_file" if "key" not in parts else "has a key and a key_file: one of them is enough")
    key = _key(parts["key"]) if "key" in parts else _key_in_file(parts["key_file"]) if "key_file" in parts else None
    models = _models(parts["models"]) if "models" in parts else None
    streams = _streams(parts["streams"]) if "streams" in parts else None
    if key is None or len(entry.document.problems) > before:
        return None
    return key if not parts.keys() & set(_RIGHTS) else ClientKey(key=key, models=models, streams=streams)


def _key(entry: Section) -> str | None:
    """Return a key. Unlike `Section.text` this never shows what is there instead."""
    if isinstance(entry.value, str) and entry.value.strip():
        return entry.value
    entry.problem("a key must be a string that is not blank: quote it")
    return None


def _key_in_file(section: Section) -> str | None:
    path = section.text()
    if path is None or section.place in section.document.unresolved:
        return None
    try:
        key = section.document.text_of(path, read_key)
    except ConfigError as error:
        section.problem(str(error))
        return None
    section.document.secrets[f"key_file {path}"] = key  # masked in messages like what comes from the environment
    return key


def _models(section: Section) -> Sequence[str] | None:
    if section.value is None:
        section.problem("is empty: write the models, or leave it out for all")
        return None
    if problem := models_problem(section.value):
        section.problem(problem)
        return None
    return section.value  # type: ignore[no-any-return]  # a list of names, as was just checked


def _streams(section: Section) -> int | None:
    value = section.number(whole=True)
    if value is not None and not 0 < value < math.inf:
        section.problem(f"must be positive, not {section.shown()}")
        return None
    return None if value is None else int(value)
