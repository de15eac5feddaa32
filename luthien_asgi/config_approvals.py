"""The section `approvals` of a configuration file: who decides about held blocks, and for how long they wait.

Workers of one machine share the folder that `directory` names; without it, one in the system's temporary folder that belongs to
this user and this configuration file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from luthien_asgi import plugins
from luthien_asgi.approvals import Approvals
from luthien_asgi.auth import KeyAuth
from luthien_asgi.config_keys import entries, read_keys
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError
from luthien_asgi.private_folder import default_folder

__all__ = ["read_approvals"]

_KEYS: Final = ("keys", "timeout", "directory", "notify", "limit")


def read_approvals(section: Section, *, clients: Mapping[str, str] | None) -> Approvals | None:
    """Return the desk, which is not opened; what is wrong with it is in the document."""
    if section.value is None:
        return None
    before = len(section.document.problems)
    keys = section.keys(_KEYS)
    operators = _operators(section, keys, clients)
    directory = keys["directory"].text() if "directory" in keys else None
    given: dict[str, Any] = {
        "directory": Path(directory) if directory is not None else default_folder(str(Path(section.document.file).resolve())),
        "notify": _function(keys["notify"]) if "notify" in keys else None,
        **{name: _positive(keys[name], whole=name == "limit") for name in ("timeout", "limit") if name in keys},
    }
    if len(section.document.problems) > before or section.document.unresolved:
        return None
    try:
        return Approvals(auth=KeyAuth(operators) if operators else None, **given)
    except ConfigError as error:
        section.problem(str(error), at="directory" if directory is not None else None)
        return None


def _operators(section: Section, keys: Mapping[str, Section], clients: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the operators' keys by name."""
    if "keys" not in keys:
        if "notify" not in keys and isinstance(section.value, dict):
            section.problem("keys is missing: operators' keys, a list or by name (or notify, for a callback that decides)")
        return {}
    theirs = {*clients.values()} if clients is not None else set()
    operators = read_keys(keys["keys"], whose="operator")
    for entry in entries(keys["keys"]) if theirs.intersection(operators.values()) else ():
        if entry.value in theirs:
            entry.problem("is a client's key too, and a client could approve its own requests")
    return operators


def _positive(section: Section, *, whole: bool) -> float | None:
    value = section.number(whole=whole)
    if value is None or 0 < value < math.inf:
        return value
    section.problem(f"must be positive, not {section.shown()}")
    return None


def _function(section: Section) -> Any:  # noqa: ANN401 - a function that the operator named
    path = section.text()
    try:
        return plugins.find_function(path) if path is not None else None
    except plugins.PluginError as error:
        section.problem(str(error))
        return None
