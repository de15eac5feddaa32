"""What a gateway that follows its configuration's file does beside its requests: watching the file, and hearing commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from luthien_asgi.config import Config
from luthien_asgi.control import Control
from luthien_asgi.generations import Generations
from luthien_asgi.logs import logger_of
from luthien_asgi.reloading import Reloader

__all__ = ["Follower"]

_log: Final = logger_of(__name__)


class Follower:
    """Follows a file in the running event loop, from `begin` to `aclose`."""

    def __init__(
        self,
        generations: Generations,
        *,
        refuses: Callable[[Config], str],
        took: Callable[[Config], None],
        accepted: Callable[[Config], None],
        refused: str,
    ) -> None:
        self.reloader = Reloader(generations, refuses=refuses, took=took, accepted=accepted, refused=refused)
        self._control = Control(self.reloader, generations.current.config.file)
        self._task: asyncio.Task[None] | None = None
        generations.current.middleware.more_health = self.reloader.health

    def begin(self) -> None:
        """Begin to follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        try:
            await self._control.open()
            await self.reloader.follow()
        except Exception:
            _log.exception("the configuration's file is not followed any more")
        finally:
            await self._control.aclose()

    async def aclose(self) -> None:
        """Follow no more. A reload that is under way is given up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.reloader.aclose()
