"""The configuration that answers, and those before it whose answers have not ended.

Strategy: a configuration is a middleware of its own. A request gets the one that is there when it comes, and keeps it to its end;
the next one is opened beside it and takes its place in one assignment, so no request sees parts of both. Handed on are the
recorder, where it stays the same, the connections to providers, and the counters of what is under way. Operators' desks find each
other through their folder, so what waits at an old one can be answered at the new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from luthien_asgi.auth import Auth, KeyAuth
from luthien_asgi.backend import LiteLLMBackend
from luthien_asgi.config import Config
from luthien_asgi.errors import ConfigError
from luthien_asgi.logs import logger_of
from luthien_asgi.loopback import LoopbackGuard
from luthien_asgi.middleware import ASGIApp, LuthienMiddleware
from luthien_asgi.shared_recorder import SharedRecorder
from luthien_asgi.telemetry import Telemetry, default_telemetry

__all__ = ["Generation", "Generations", "auth_of"]

_log: Final = logger_of(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One configuration and what answers by it."""

    config: Config
    middleware: LuthienMiddleware
    backend: LiteLLMBackend
    recorder: SharedRecorder
    telemetry: Telemetry
    loaded_at: float = field(default_factory=time.time)
    """Seconds since 1970."""

    @property
    def local_only(self) -> bool:
        """Whether nobody has a key, and keys of the server's are spent."""
        return self.config.auth is None and self.config.spends_server_keys


class Generations:
    """The generation that answers (`current`), and those that end. Of one event loop; made anywhere."""

    def __init__(self, config: Config, fallback: Callable[[], ASGIApp]) -> None:
        self._fallback = fallback
        self._ending: dict[asyncio.Task[None], Generation] = {}
        self.current = self._made(config)

    def _made(self, config: Config, before: Generation | None = None) -> Generation:
        backend = LiteLLMBackend(
            model_list=config.model_list,
            settings=config.settings,
            limits=config.limits,
            freeze=before is None,  # later it would keep what is being given up
        )
        recorder = SharedRecorder(config.recorder)
        if before is not None:
            backend.go_on_from(before.backend)
            if config.record_section == before.config.record_section:
                recorder = before.recorder
        telemetry = before.telemetry if before is not None else default_telemetry()
        middleware = LuthienMiddleware(
            self._fallback(),
            backend=backend,
            policy=config.policy,
            recorder=recorder.lease(),
            telemetry=telemetry,
            auth=auth_of(config),
            settings=config.settings,
            limits=config.limits,
            paths=config.paths,
            approvals=config.approvals,
            operators=KeyAuth(config.operators) if config.operators is not None else None,
            slots=before.middleware.slots if before is not None else None,
        )
        return Generation(config=config, middleware=middleware, backend=backend, recorder=recorder, telemetry=telemetry)

    async def take(self, config: Config) -> None:
        """Put a configuration in the place of the current one. Raises `ConfigError`, and everything is as before.

        It answers at once: what can fail or takes time is done before. The old one is closed when its last answer has ended.
        """
        before = self.current
        new = self._made(config, before)
        new.middleware.more_health = before.middleware.more_health
        try:
            await self._open(new, before)
        except BaseException:
            await new.middleware.aclose()
            raise
        self.current = new
        task = asyncio.get_running_loop().create_task(before.middleware.retire())
        self._ending[task] = before
        task.add_done_callback(self._ended)

    @staticmethod
    async def _open(new: Generation, before: Generation) -> None:
        try:
            await new.middleware.open()
            if before.middleware.is_warm:
                await new.middleware.start()
        except OSError as error:
            raise ConfigError(f"{new.config.file}: cannot be opened: {error.strerror or type(error).__name__}") from error

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a configuration that was replaced could not be closed", exc_info=error)

    @property
    def ending(self) -> int:
        """How many old generations have answers that have not ended."""
        return len(self._ending)

    def drain(self, within: float) -> None:
        """Have all of them end what runs."""
        for generation in (self.current, *self._ending.values()):
            generation.middleware.drain(within=within)

    async def aclose(self) -> None:
        """Close all of them; what runs ends with an error. They may be opened again."""
        ending = dict(self._ending)
        for task in ending:
            task.cancel()
        for task in ending:
            with suppress(asyncio.CancelledError):
                await task
        async with asyncio.TaskGroup() as tasks:
            for generation in (self.current, *ending.values()):
                tasks.create_task(generation.middleware.aclose())


def auth_of(config: Config) -> Auth | None:
    """Return who may ask: holders of the configured keys; without any, whoever is on this machine where server keys are spent."""
    if config.auth is not None:
        return KeyAuth(config.auth)
    return LoopbackGuard() if config.spends_server_keys else None


def check_keys_stay(config: Config, before: Config) -> None:
    """Raise `ConfigError` where clients needed a key before and would need none: that is no change for a server that runs."""
    if before.auth is not None and config.auth is None:
        msg = f"{config.file}: auth: clients need a key until now and would need none: only a start of the server takes that"
        raise ConfigError(msg)


def kept(config: Config, before: Config) -> tuple[Config, list[str]]:
    """Return a configuration as it can be taken while another one runs, and what of it counts from the next start only."""
    waits = []
    if (config.host, config.port) != (before.host, before.port):
        waits.append("server: host and port")
    new, old = config.approvals, before.approvals
    if new is not None and old is not None and new.directory != old.directory:
        waits.append("approvals: directory")  # what waits in the old one could not be answered any more
        config = replace(config, approvals=new.moved(old.directory))
    return config, waits
