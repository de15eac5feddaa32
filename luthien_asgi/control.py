"""How `luthien-asgi reload` reaches the servers of a configuration: a Unix socket a process, in a folder of this user's alone.

The folder follows from the user, the system's temporary folder and the configuration's path; the socket and who may use it are
`approval_relay`'s. One line asks: `reload`, answered by the number of the reload that has begun, or `state`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from luthien_asgi.approval_relay import GoneError, Relay, is_possible
from luthien_asgi.approval_values import new_worker
from luthien_asgi.errors import ConfigError
from luthien_asgi.logs import logger_of
from luthien_asgi.private_folder import default_folder, make_private
from luthien_asgi.reloading import Reloader

__all__ = ["Answer", "Control", "ask_all", "folder_of"]

_log: Final = logger_of(__name__)
PATIENCE: Final = 60.0
"""Seconds that a reload may take: a configuration may name models that need more of LiteLLM than was loaded."""
_PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What one process says of a reload."""

    pid: int
    version: str = ""
    problems: str = ""
    silent: bool = False
    """Whether it did not answer, or not in time."""


def folder_of(file: str) -> Path:
    """Return where the servers of a configuration file are found.

    It is the file's name that counts, and not what a symbolic link on the way leads to, which may be another file by now.
    """
    return default_folder(f"control:{os.path.abspath(file)}")  # noqa: PTH100 - `absolute()` keeps `..`


class Control:
    """One process's end."""

    def __init__(self, reloader: Reloader, file: str) -> None:
        self._reloader = reloader
        self._relay = Relay(folder_of(file), new_worker(), self._served)

    async def open(self) -> None:
        """Listen. Where that is not possible the log says so: the file is watched all the same."""
        if not is_possible():
            return
        try:
            await self._relay.open()
        except (ConfigError, OSError) as error:
            _log.warning("`luthien-asgi reload` cannot reach this process: %s", error)

    async def aclose(self) -> None:
        """Stop listening. Twice is once."""
        await self._relay.aclose()

    def _served(self, line: bytes) -> bytes:
        """Answer a line. Raises `ValueError` for an unknown one."""
        if line.strip() == b"reload":
            return msgspec.json.encode({"number": self._reloader.soon()})
        if line.strip() != b"state":
            msg = "neither reload nor state"
            raise ValueError(msg)
        last = self._reloader.last
        state = {"pid": os.getpid(), "number": last.number, "version": last.version, "problems": last.problems}
        return msgspec.json.encode(state)


async def ask_all(file: str) -> list[Answer]:
    """Have each process that serves a configuration file reload it, and return what they say.

    Raises `ConfigError` for a folder that is not this user's alone.
    """
    folder = folder_of(file)
    if not folder.exists():
        return []
    make_private(folder)
    relay = Relay(folder, new_worker(), bytes)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask(relay, worker)) for worker in relay.others()]
    return [answer for task in asked if (answer := task.result()) is not None]


async def _ask(relay: Relay, worker: str) -> Answer | None:
    try:
        async with asyncio.timeout(PATIENCE):
            number = _read(await relay.ask(worker, b"reload"))["number"]
            while (state := _read(await relay.ask(worker, b"state")))["number"] < number:  # noqa: ASYNC110 - another process
                await asyncio.sleep(_PAUSE)
    except GoneError:
        return None
    except (OSError, ValueError, LookupError):
        return Answer(0, silent=True)
    return Answer(state["pid"], state["version"], state["problems"])


def _read(line: bytes) -> Mapping[str, Any]:
    value: Mapping[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
    return value
