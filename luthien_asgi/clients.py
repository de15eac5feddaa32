"""A client as an authenticator knows it: its name, the models that it may ask for, and how many answers it may have under way.

Names of models may hold `*`, which stands for one character or more, as in a `model_list`; everything else stands for itself,
upper and lower case too. So a list allows what is written in it and nothing that looks alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from luthien_asgi.errors import ConfigError

__all__ = ["Client", "ClientKey", "may_be_same", "models_problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks. An authenticator returns one where a name alone says too little.

    Raises `ConfigError` for a name that is no string, and for models or streams that say nothing.
    """

    name: str
    """What records and policies see. Limits are counted by it."""
    models: Sequence[str] | None = None
    """The models that may be asked for, `*` in them as in a `model_list`; None for all that are configured."""
    streams: int | None = None
    """Answers under way at the same time in one process; None for the limit `client_streams`."""

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str):
            msg = "the name of a client must be a string"
            raise ConfigError(msg)
        _check(self.models, self.streams)

    def may_ask(self, model: str) -> bool:
        """Tell whether this client may ask for a model, whether there is one of that name or not."""
        return self.models is None or any(_covers(name, model) for name in self.models)

    def listed(self, configured: Sequence[str]) -> list[str]:
        """Return what of the configured names this client may ask for.

        Of a wildcard that is wider than what it may ask for, its own names are returned: `claude-*` of a `*`.
        """
        if self.models is None:
            return list(configured)
        found: dict[str, None] = {}
        for name in configured:
            if self.may_ask(name):
                found[name] = None
            else:
                found.update((own, None) for own in self.models if _covers(name, own))
        return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A client's key and what it opens. Raises `ConfigError` for models or streams that say nothing."""

    key: str = field(repr=False)
    models: Sequence[str] | None = None
    """As in `Client`."""
    streams: int | None = None
    """As in `Client`."""

    def __post_init__(self) -> None:
        _check(self.models, self.streams)


def _check(models: Sequence[str] | None, streams: int | None) -> None:
    if problem := models_problem(models):
        msg = f"models {problem}"
        raise ConfigError(msg)
    if streams is not None and (type(streams) is not int or streams < 1):
        msg = f"streams must be a positive whole number, not {streams!r}"
        raise ConfigError(msg)


def models_problem(models: object) -> str:
    """Return what is wrong with the models of a key; "" for nothing."""
    if models is None:
        return ""
    if isinstance(models, str) or not isinstance(models, Sequence):
        return "must be a list of names"
    if not models:
        return "is empty: the key could ask for nothing; leave it out for all models"
    wrong = next((name for name in models if not isinstance(name, str) or not name.strip()), None)
    return "" if wrong is None else f"must be a list of names, and {wrong!r} is none"


def may_be_same(name: str, other: str) -> bool:
    """Tell whether there may be a model of both names, where each may hold `*`; not where there is none for certain."""
    if "*" not in name or "*" not in other:
        return _covers(name, other) or _covers(other, name)
    begin, end = (name.partition("*")[0], other.partition("*")[0]), (name.rpartition("*")[2], other.rpartition("*")[2])
    return _either(begin, str.startswith) and _either(end, str.endswith)


def _either(texts: tuple[str, str], holds: Callable[[str, str], bool]) -> bool:
    return holds(texts[0], texts[1]) or holds(texts[1], texts[0])


def _covers(name: str, model: str) -> bool:
    return name == model or ("*" in name and _pattern(name).fullmatch(model) is not None)


@lru_cache(maxsize=1024)
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".+".join(re.escape(part) for part in name.split("*")))
