"""Starts a gateway from its configuration file, or with the last good configuration where the file is bad.

Strategy: a worker that takes a dead one's place has no configuration of its own to go on with. So it starts with what the others
go on with, and hears of the file as they do: refused, and taken when it is good again. What counts as bad is what a reload would
refuse as well: what cannot be read, what is wrong, and what cannot be opened. Where nothing was ever good the server does not
start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from luthien_asgi.config import Config, load
from luthien_asgi.errors import ConfigError
from luthien_asgi.generations import check_keys_stay
from luthien_asgi.last_good import Kept, LastGood
from luthien_asgi.logs import logger_of

__all__ = ["keep", "started"]

_log: Final = logger_of(__name__)


class _Opened(Protocol):
    async def open(self) -> None: ...

    async def aclose(self) -> None: ...


_Gateway = TypeVar("_Gateway", bound=_Opened)


async def started(path: str, make: Callable[[Config, str], _Gateway], last_good: LastGood) -> _Gateway:
    """Return an opened gateway.

    `make` makes it of a configuration and of what is wrong with the file, where the configuration is not the file's. Raises what
    is wrong with the file where there is no good configuration to start with.
    """
    kept = last_good.read(path)
    try:
        config = load(path)
        if kept is not None:
            _check_keys_stay(config, kept)
        gateway = await _opened(make(config, ""))
    except Exception as error:
        if kept is None:
            raise
        return await _started_with(kept, make, error)
    keep(config, last_good)
    return gateway


def _check_keys_stay(config: Config, kept: Kept) -> None:
    try:
        before = load(kept.file, kept=kept.texts)
    except ConfigError:
        return  # what it took from the environment is gone
    check_keys_stay(config, before)


def keep(config: Config, last_good: LastGood) -> None:
    """Keep a configuration that was taken for workers that start later."""
    last_good.keep(Kept(config.file, config.texts, config.read_at))


async def _started_with(kept: Kept, make: Callable[[Config, str], _Gateway], error: Exception) -> _Gateway:
    problems = _problems(kept.file, error)
    try:
        config = load(kept.file, kept=kept.texts)
        gateway = await _opened(make(config, problems))
    except Exception:
        _log.exception("the last good configuration cannot be started with either")
        raise error from None
    for problem in problems.splitlines():
        _log.error("not taken: %s", problem)
    _log.error("this process starts with %s, the last good configuration", config.version)
    return gateway


def _problems(file: str, error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    _log.error("the configuration could not be started with", exc_info=error)
    return f"{file}: {type(error).__name__}; the reason is in the server's log"


async def _opened(gateway: _Gateway) -> _Gateway:
    try:
        await gateway.open()
    except BaseException:
        await gateway.aclose()
        raise
    return gateway
