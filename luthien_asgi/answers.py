"""One answer's way through all steps: what one lets out is what the next one takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from luthien_asgi.answer import Answer
from luthien_asgi.blocks import Block
from luthien_asgi.chunks import Chunk, Part
from luthien_asgi.pipeline import Pipeline
from luthien_asgi.runs import Run
from luthien_asgi.shadow import Shadow
from luthien_asgi.terms import Terms
from luthien_asgi.writer import Sink

__all__ = ["AnswerSteps"]


class AnswerSteps:
    """The steps of one answer."""

    def __init__(
        self,
        pipeline: Pipeline,
        terms: Terms,
        sink: Sink,
        *,
        tools_wait: bool,
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """Make the steps, from the last to the first.

        `tools_wait`: the client's wire wants tool calls at the end. `start` begins what nothing waits for.
        """
        self._steps: list[Answer] = []
        self._shadows: dict[int, list[Shadow]] = {}
        for place in reversed(range(len(pipeline.steps))):
            step, is_last = pipeline.steps[place], place == len(pipeline.steps) - 1
            waits = step.may_speak or (tools_wait and is_last)
            answer = Answer(step, terms, sink, tools_wait=waits, records=place == 0)
            self._steps.insert(0, answer)
            sink = answer
            if step.shadows:
                shadows = self._shadows[place] = [Shadow(shadow, terms) for shadow in step.shadows]
                sink = _Shown(answer, shadows)
                for shadow in shadows:
                    start(shadow.run())
        self._entry = sink
        self.pass_plain: Callable[[Chunk], bool] = self._steps[0].pass_plain if sink is self._steps[0] else _never
        """Send a chunk on that nobody looks at and that is plain text, where that can be done at once; tell whether it was."""

    @property
    def stopped(self) -> bool:
        """Whether a policy ended the answer: the backend need not be read any further."""
        return any(step.stopped for step in self._steps)

    @property
    def finished(self) -> bool:
        """Whether every choice that began has its finish reason."""
        return self._steps[0].finished

    async def take(self, chunk: Chunk, part: Part) -> None:
        """Take one chunk. Raises `ApiError` for what cannot go on."""
        await self._entry.put(chunk, part)

    def takes_run(self, run: Run) -> bool:
        """Tell whether a run can go through all steps as it is, at once."""
        return self._entry.takes_run(run)

    def put_run(self, run: Run) -> None:
        """Take a run that `takes_run` was asked about. Raises `ApiError`."""
        self._entry.put_run(run)

    async def complete(self) -> None:
        """End a good answer, step by step. Raises `ApiError`."""
        for place, step in enumerate(self._steps):
            for shadow in self._shadows.get(place, ()):
                shadow.end(good=True)
            if any(later.stopped for later in self._steps[place + 1 :]):
                step.halt()
            await step.complete()

    def abandon(self) -> None:
        """Stop whoever is still at work for an answer that goes no further."""
        for shadow in itertools.chain.from_iterable(self._shadows.values()):
            shadow.end(good=False)
        for step in self._steps:
            step.cancel_judges()

    def partial_blocks(self) -> list[Block]:
        """Return the backend's blocks that had not ended."""
        return self._steps[0].partial_blocks()


class _Shown:
    """Shows what passes to policies in shadow before a step takes it."""

    def __init__(self, answer: Answer, shadows: list[Shadow]) -> None:
        self._answer = answer
        self._shadows = shadows

    async def put(self, chunk: Chunk, part: Part) -> None:
        """Show a chunk, and let the step take it."""
        for shadow in self._shadows:
            shadow.show(chunk)
        await self._answer.put(chunk, part)

    def offer(self, chunk: Chunk, text: str) -> bool:
        """Never take a short cut: each chunk is shown."""
        del chunk, text
        return False

    def takes_run(self, run: Run) -> bool:
        """Never take a run: each chunk is shown."""
        del run
        return False

    def put_run(self, run: Run) -> None:
        """Take none."""

    async def end_text(self, choice: int) -> None:
        """Let the step know; a policy in shadow sees it from what follows."""
        await self._answer.end_text(choice)


def _never(chunk: Chunk) -> bool:
    del chunk
    return False
