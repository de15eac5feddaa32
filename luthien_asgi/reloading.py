"""Takes the configuration's file anew: when it has changed, or when somebody asks.

Strategy: the files are looked at once in a while (`stat`, some microseconds; a watcher of the system's would be another
dependency and would not see what is behind a network or a container's mount). A change counts when it has settled: an editor's
half file is not read, and one that is replaced by renaming is found by its name. A file with a problem is refused as a whole,
with all that is wrong in the log, and what was there goes on. Each process does so for itself.

Python modules of the operator's own are not imported again: objects of the old and the new code would be of different classes
with the same name. That they have changed is said; they count from the next start.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from luthien_asgi.compose import policies_of
from luthien_asgi.config import Config, load
from luthien_asgi.errors import ConfigError
from luthien_asgi.generations import Generations, check_keys_stay, kept
from luthien_asgi.key_file import read_key
from luthien_asgi.logs import logger_of
from luthien_asgi.yaml_lines import text_of

__all__ = ["Outcome", "Reloader"]

_log: Final = logger_of(__name__)
INTERVAL: Final = 1.0
"""Seconds between two looks at the files; a change that stays for as long has settled."""

Signature = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one reload."""

    number: int
    version: str
    """Of the configuration that answers now."""
    problems: str = ""
    """What is wrong with the new one, a line each; empty when it was taken."""


class Reloader:
    """Reloads one configuration file for one process. Of one event loop; made anywhere.

    Args:
        generations: Where a configuration is taken.
        refuses: What is wrong with a configuration that can be read, for this server; "" for nothing.
        took: Called with each configuration that was taken.
        accepted: Called in a thread with each configuration that was taken, or that the file says again.
        refused: What is wrong with the file, where the current configuration is not what it says.
    """

    def __init__(
        self,
        generations: Generations,
        *,
        refuses: Callable[[Config], str] = lambda _: "",
        took: Callable[[Config], None] = lambda _: None,
        accepted: Callable[[Config], None] = lambda _: None,
        refused: str = "",
    ) -> None:
        self._generations = generations
        self._refuses, self._took, self._accepted = refuses, took, accepted
        self._path = generations.current.config.file
        self._lock = asyncio.Lock()
        self._asked = 0
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._code = {path: _signature(path) for path in _modules(generations.current.config)}
        self._code_changed = False
        self._tried: Signature | None = None
        """The files as they were when they were last read, taken or not; None where that is not known."""
        self.last = Outcome(0, generations.current.config.version, refused)
        self.refused_at: float | None = round(time.time(), 3) if refused else None
        """When a configuration was refused, in seconds since 1970, if none was taken since."""

    def health(self) -> Mapping[str, Any]:
        """Return what the health route says of the configuration."""
        current = self._generations.current
        return {
            "config": {
                "version": current.config.version,
                "loaded_at": round(current.loaded_at, 3),
                "refused_at": self.refused_at,
                "restart_needed": self._code_changed,
            }
        }

    def soon(self) -> int:
        """Reload beside what the caller does; return the number that its outcome will have."""
        self._asked += 1
        task = asyncio.get_running_loop().create_task(self._reload(self._asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return self._asked

    async def reload(self) -> Outcome:
        """Take the file anew, changed or not. Raises nothing: what is wrong is in the outcome and in the log."""
        self._asked += 1
        return await self._reload(self._asked)

    async def _reload(self, number: int, *, changed_only: bool = False) -> Outcome:
        async with self._lock:
            problems = await self._attempt(changed_only=changed_only)
            self.last = Outcome(max(number, self.last.number), self._generations.current.config.version, problems)
            return self.last

    async def _attempt(self, *, changed_only: bool) -> str:
        found = self._files()
        if changed_only and found == self._tried:
            return self.last.problems  # somebody asked meanwhile
        self._tried = found
        try:
            config = await asyncio.to_thread(load, self._path)
            before = self._generations.current.config
            if changed_only and config.version == before.version:
                if self.refused_at is not None:
                    _log.warning("%s is good again: the configuration %s stays", self._path, before.version)
                self.refused_at = None
            else:
                await self._take(config, before)
            await asyncio.to_thread(self._accepted, config)
        except ConfigError as error:
            return self._refused(str(error))
        except Exception as error:
            _log.exception("the new configuration could not be taken")
            return self._refused(f"{self._path}: {type(error).__name__}; the reason is in the server's log")
        return ""

    async def _take(self, config: Config, before: Config) -> None:
        if complaint := self._refuses(config):
            raise ConfigError(f"{config.file}: {complaint}")
        check_keys_stay(config, before)
        config, waits = kept(config, before)
        await self._generations.take(config)
        self._took(config)
        self.refused_at = None
        for warning in config.warnings:
            _log.warning("%s", warning)
        for what in waits:
            _log.warning("%s: %s: counts from the next start only", self._path, what)
        for path in _modules(config):
            self._code.setdefault(path, _signature(path))
        _log.warning("the configuration %s is the new one (before: %s)", config.version, before.version)

    def _refused(self, problems: str) -> str:
        self.refused_at = round(time.time(), 3)
        for problem in problems.splitlines():
            _log.error("not taken: %s", problem)
        _log.error("the configuration %s stays", self._generations.current.config.version)
        return problems

    async def aclose(self) -> None:
        """Give up what was asked for with `soon` and has not ended."""
        for task in (tasks := tuple(self._tasks)):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- watching ------------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Reload whenever the files have changed, until this is cancelled."""
        if self._tried is None and self.refused_at is None and self._is_as_read():
            self._tried = self._files()
        while True:
            await asyncio.sleep(INTERVAL)
            self._look_at_code()
            found = self._files()
            if found == self._tried:
                continue
            while True:
                await asyncio.sleep(INTERVAL)
                if (now := self._files()) == found:
                    break
                found = now
            await self._reload(self._asked, changed_only=True)

    def _files(self) -> Signature:
        names = {self._path: None, **self._generations.current.config.contents}
        return tuple(_signature(name) for name in names)

    def _is_as_read(self) -> bool:
        """Whether no file has changed since it was read, which may be a while ago."""
        known = self._generations.current.config.contents
        try:
            found = {name: sha256(self._content(name).encode()).hexdigest() for name in (self._path, *known)}
        except ConfigError:
            return False
        return found == known

    def _content(self, name: str) -> str:
        return text_of(name) if name == self._path else read_key(name)

    def _look_at_code(self) -> None:
        changed = [path for path, signature in self._code.items() if _signature(path) != signature]
        if changed and not self._code_changed:
            _log.warning("%s changed: code is not imported again, restart the server for it", ", ".join(changed))
        self._code_changed = bool(changed)


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a name, once a second
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _modules(config: Config) -> Iterator[str]:
    """Yield the files of the modules that the configuration names, those of this package left out."""
    for owner in (*policies_of(config.policy), config.recorder):
        name = type(owner).__module__
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and name.partition(".")[0] != "luthien_asgi":
            yield file
