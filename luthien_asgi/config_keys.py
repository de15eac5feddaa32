"""Keys in a configuration file, of clients and of operators: a list, or a mapping of names to keys. Messages show no key."""

from __future__ import annotations

from collections.abc import Mapping

from luthien_asgi.auth import KeyAuth
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError

__all__ = ["entries", "read_keys"]


def read_keys(keys: Section, *, whose: str) -> Mapping[str, str]:
    """Return the keys by name; those of a list are `<whose>-1`, `<whose>-2`, …. What is wrong with them is in the document."""
    each = entries(keys)
    if keys.value in ([], {}):
        keys.problem("is empty: nobody could come in")
    written = [_key(entry) for entry in each]
    for number, entry in enumerate(each):
        if written[number] is not None and written[number] in written[:number]:
            entry.problem("the same key is there twice")
    names = keys.value if isinstance(keys.value, dict) else [f"{whose}-{number}" for number in range(1, len(each) + 1)]
    found = {name: key for name, key in zip(names, written, strict=False) if key}
    if written and None not in written and len({*written}) == len(written) and not keys.document.unresolved:
        _check(keys, found)
    return found


def entries(keys: Section) -> list[Section]:
    """Return the sections of the single keys."""
    return list(keys.keys().values()) if isinstance(keys.value, dict) else keys.items()


def _check(section: Section, keys: Mapping[str, str]) -> None:
    try:
        KeyAuth(keys)
    except ConfigError as error:
        section.problem(str(error))


def _key(entry: Section) -> str | None:
    """Return a key. Unlike `Section.text` this never shows what is there instead."""
    if isinstance(entry.value, str) and entry.value.strip():
        return entry.value
    entry.problem("a key must be a string that is not blank: quote it")
    return None
