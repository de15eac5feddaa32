"""The section `approvals` of a configuration file: who decides about held blocks, and for how long they wait.

Workers of one machine share the folder that `directory` names; without it, one in the system's temporary folder that belongs to
this user and this configuration file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from luthien_asgi import plugins
from luthien_asgi.approvals import Approvals
from luthien_asgi.auth import KeyAuth
from luthien_asgi.config_keys import Keys, read_operator_keys
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError
from luthien_asgi.private_folder import default_folder

__all__ = ["read_approvals"]

_KEYS: Final = ("keys", "timeout", "directory", "notify", "limit")


def read_approvals(section: Section, *, clients: Keys | None, operators: Keys | None) -> Approvals | None:
    """Return the desk, which is not opened; what is wrong with it is in the document.

    `operators` are those of the whole gateway, who answer where the section has no keys of its own.
    """
    if section.value is None:
        return None
    before = len(section.document.problems)
    keys = section.keys(_KEYS)
    own = _own_keys(section, keys, clients) if "keys" in keys or operators is None else operators
    directory = keys["directory"].text() if "directory" in keys else None
    given: dict[str, Any] = {
        "directory": Path(directory) if directory is not None else default_folder(_absolute(section.document.file)),
        "notify": _function(keys["notify"]) if "notify" in keys else None,
        **{name: _positive(keys[name], whole=name == "limit") for name in ("timeout", "limit") if name in keys},
    }
    if len(section.document.problems) > before or section.document.unresolved:
        return None
    try:
        return Approvals(auth=KeyAuth(own) if own else None, **given)
    except ConfigError as error:
        section.problem(str(error), at="directory" if directory is not None else None)
        return None


def _absolute(file: str) -> str:
    """Return a file's name from the root: the same for all workers, whatever a symbolic link in it leads to meanwhile."""
    return os.path.abspath(file)  # noqa: PTH100 - `absolute()` keeps `..`


def _own_keys(section: Section, keys: Mapping[str, Section], clients: Keys | None) -> Keys:
    """Return the keys of those who decide, by name."""
    if "keys" in keys:
        return read_operator_keys(keys["keys"], clients=clients)
    if "notify" not in keys and isinstance(section.value, dict):
        section.problem("keys is missing: operators' keys, a list or by name (or notify, for a callback that decides)")
    return {}


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
