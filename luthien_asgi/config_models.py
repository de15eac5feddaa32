"""The `model_list` of a configuration file, in LiteLLM's own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from luthien_asgi.backend import known
from luthien_asgi.backend.models import ModelTable, read_deployment
from luthien_asgi.backend.providers import PROVIDERS
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError
from luthien_asgi.yaml_lines import dotted

__all__ = ["read_models", "warn_of_providers"]

_SWITCHES: Final = ("passthrough", "stream", "include_usage")
_MODEL_KEYS: Final = ("model_name", "litellm_params", "model_info", *_SWITCHES)


def read_models(section: Section) -> tuple[Mapping[str, Any], ...]:
    """Return the entries; what is wrong with them is in the document."""
    entries = section.items()
    if section.value == []:
        section.problem("is empty: name one model at least")
    before = len(section.document.problems)
    for entry in entries:
        _check_model(entry)
    models = tuple(entry.value for entry in entries)
    if len(section.document.problems) == before and not section.document.unresolved:
        _check_table(section, entries)
    return models


def warn_of_providers(section: Section) -> None:
    """Warn of entries whose provider LiteLLM does not know, as far as we know; the entries are good ones."""
    for entry in section.items():
        found = read_deployment(entry.value, where=dotted(entry.place))
        if found.provider and found.provider not in PROVIDERS:
            near = get_close_matches(found.provider, PROVIDERS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            entry.child("litellm_params").child("model").warn(f"{found.provider!r} is no provider that is known here{hint}")


def _check_model(entry: Section) -> None:
    keys = entry.keys(_MODEL_KEYS)
    for name in ("model_name", "litellm_params"):
        if name not in keys and isinstance(entry.value, dict):
            entry.problem(f"{name} is missing")
    if "model_name" in keys:
        keys["model_name"].text()
    if "model_info" in keys:
        keys["model_info"].keys()
    if "litellm_params" in keys:
        _check_params(keys["litellm_params"])


def _check_params(section: Section) -> None:
    written = section.value if isinstance(section.value, dict) else {}
    prefixed = {key for key in written if str(key).startswith(known.PARAMETER_PREFIXES)}
    params = section.keys(known.PARAMETERS | prefixed | set(_SWITCHES))
    if "model" in params:
        params["model"].text()
    elif section.value is None or written is section.value:
        section.problem("model is missing: the provider's model, as in openai/gpt-4o-mini")


def _check_table(section: Section, entries: Sequence[Section]) -> None:
    """Let the backend check what it alone knows: each entry, then all of them together."""
    before = len(section.document.problems)
    for entry in entries:
        where = dotted(entry.place)
        try:
            read_deployment(entry.value, where=where)
        except ConfigError as error:
            entry.problem(str(error).removeprefix(where).lstrip(":. "))
    if entries and len(section.document.problems) == before:
        try:
            ModelTable([entry.value for entry in entries])
        except ConfigError as error:
            section.problem(str(error))
