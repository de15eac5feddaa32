"""Policies in shadow: they see a copy of what passes, what they say is recorded, and nothing waits for them.

Strategy: a shadow is an answer of its own in a task of its own, whose chunks go nowhere. It reads from a queue that is bounded in
bytes: a shadow that falls behind further is given up, and the record says so. It may outlive the stream; the transaction's
record is written when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from luthien_asgi.answer import Answer
from luthien_asgi.chunk_edits import detached
from luthien_asgi.chunks import Chunk, Part, content_size, read_part
from luthien_asgi.errors import ApiError, QueueFullError
from luthien_asgi.logs import logger_of
from luthien_asgi.pipeline import Step
from luthien_asgi.queues import End, Failed, StreamQueue
from luthien_asgi.recorder import Transaction
from luthien_asgi.runs import Run
from luthien_asgi.settling import Retake
from luthien_asgi.terms import Terms

__all__ = ["Shadow", "Shadows"]

_log: Final = logger_of(__name__)
_Result = TypeVar("_Result")


class Shadows:
    """The work of a transaction that nothing waits for while it streams."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Begin some work, and return the task that does it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def at_work(self) -> bool:
        """Whether some of it goes on."""
        return bool(self._tasks)

    async def ended(self, limit: float) -> None:
        """Wait for it, at most `limit` seconds; what goes on then is cancelled."""
        tasks = set(self._tasks)
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=limit)
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)


class _Nowhere:
    """Takes chunks and does nothing with them."""

    async def put(self, chunk: Chunk, part: Part) -> None:
        """Do nothing."""

    def offer(self, chunk: Chunk, text: str) -> bool:
        """Do nothing."""
        del chunk, text
        return True

    def takes_run(self, run: Run) -> bool:
        """Do nothing."""
        del run
        return True

    def put_run(self, run: Run) -> None:
        """Do nothing."""

    async def end_text(self, choice: int) -> None:
        """Do nothing."""


class Shadow:
    """One step in shadow, for one answer."""

    def __init__(self, step: Step, terms: Terms) -> None:
        self._step = step
        self._terms = terms
        bytes_ = terms.settings.queue_bytes
        self._queue = StreamQueue[Chunk](max_items=terms.settings.queue_size, max_bytes=bytes_, timeout=1.0)
        self._behind = False

    def show(self, chunk: Chunk) -> None:
        """Let the shadow see a chunk; it gets a copy, at its own pace."""
        if self._behind or self._queue.ended:
            return
        if not self._queue.offer(detached(chunk), content_size(read_part(chunk), chunk)):
            self._behind = True
            self._terms.log.note(f"the policy {self._step.name}, in shadow, fell behind and saw no more of the answer")
            self._queue.end(Failed(QueueFullError("It fell behind.")))

    def end(self, *, good: bool) -> None:
        """Say that the answer has ended."""
        self._queue.end(End() if good else Failed(ApiError("The answer failed.")))

    async def run(self) -> None:
        """Let the policies see the answer. Never raises but for cancellation."""
        log = Transaction(self._terms.log.begin)
        try:
            async with asyncio.TaskGroup() as judges:
                answer = Answer(
                    self._step,
                    replace(self._terms, log=log, judges=judges, wants_blocks=False, shadow=True),
                    _Nowhere(),
                    tools_wait=False,
                    records=False,
                )
                await self._pump(answer)
        except Exception:
            _log.exception("the policy %s failed in shadow", self._step.name)
        finally:
            self._terms.log.verdicts += log.verdicts

    async def _pump(self, answer: Answer) -> None:
        try:
            while not isinstance(item := await self._queue.get(), End | Failed):
                await answer.take(item)
            if isinstance(item, End):
                await answer.complete()
            else:
                answer.cancel_judges()
        except (ApiError, Retake):
            answer.cancel_judges()  # what the answer itself ends with is not this policy's matter
