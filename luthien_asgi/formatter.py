"""Task 2: what the policy let through, as frames in the client's own format into the SSE queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from luthien_asgi.assembler import BlockAssembler
from luthien_asgi.chunks import Chunk, finish_reason_of, read_part
from luthien_asgi.context import ObservabilityContext
from luthien_asgi.errors import ApiError, StreamStateError
from luthien_asgi.queues import End, Failed, StreamQueue, Terminal
from luthien_asgi.recorder import Transaction
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.protocol import StreamEncoder

__all__ = ["ClientFormatter", "FinalBlocks"]

_log: Final = logging.getLogger(__name__)


class FinalBlocks:
    """Assembles what leaves into the final blocks of the record."""

    def __init__(self, log: Transaction, *, wanted: bool) -> None:
        self._log = log
        self._assembler = BlockAssembler() if wanted else None

    def add(self, chunk: Chunk) -> None:
        """Take a chunk that leaves."""
        if self._assembler is None:
            return
        step = self._assembler.feed(read_part(chunk))
        ended = [*step.ended, *([step.block] if step.closes and step.block is not None else [])]
        if finish_reason_of(chunk) is not None:
            ended += self._assembler.finish(chunk.choices[0].index)
        self._log.final_blocks += [block.block() for block in ended]

    def add_run(self, run: Run) -> None:
        """Take a run that leaves."""
        if self._assembler is None:
            return
        step = self._assembler.feed(run.part._replace(text=run.texts[0]))
        self._log.final_blocks += [block.block() for block in step.ended]
        if step.block is not None:
            step.block.fragments.extend(run.texts[1:])

    def close(self, omitted: Sequence[str] = ()) -> None:
        """Take what had left of blocks that never ended, and the names of what the client's format had no field for."""
        self._log.ignored += [name for name in omitted if name not in self._log.ignored]
        if self._assembler is not None:
            self._log.final_blocks += [block.block() for block in self._assembler.open_blocks()]
            self._log.final_blocks.sort(key=lambda block: (block.choice, block.index))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFormatter:
    """Turns one answer into frames, or into one body."""

    encoder: StreamEncoder
    settings: StreamSettings
    final: FinalBlocks
    late: bool = False
    """The client has waited for `commit_after` seconds already: a ping goes out at once."""

    async def process(
        self, policy_out: StreamQueue[Chunk | Run], sse_queue: StreamQueue[bytes], *, obs: ObservabilityContext
    ) -> None:
        """Put frames into `sse_queue`, pings while nothing comes, then the terminal item.

        Frames of chunks that are there together go on as one item, so they leave in one `send`. Raises nothing but cancellation;
        what goes wrong here is the terminal item.
        """
        try:
            with obs.span("luthien.format"):
                sse_queue.end(await self._run(policy_out, sse_queue))
        except ApiError as error:
            sse_queue.end(Failed(error))
        finally:
            self.final.close(self.encoder.omitted)

    async def collect(self, policy_out: StreamQueue[Chunk | Run], *, obs: ObservabilityContext) -> dict[str, Any]:
        """Return the whole answer as a body. Raises the `ApiError` that the answer failed with."""
        try:
            with obs.span("luthien.format"):
                while True:
                    _, terminal = self._encode(await policy_out.get_ready())
                    if isinstance(terminal, Failed):
                        raise terminal.error
                    if terminal is not None:
                        return self.encoder.body()
        finally:
            self.final.close(self.encoder.omitted)

    async def _run(self, policy_out: StreamQueue[Chunk | Run], sse_queue: StreamQueue[bytes]) -> Terminal:
        frames, terminal = self.encoder.ping() if self.late else [], None
        while True:
            if frames:
                joined = frames[0] if len(frames) == 1 else b"".join(frames)
                await sse_queue.put(joined, len(joined))
            if terminal is not None:
                return terminal
            frames, terminal = await self._next(policy_out)

    async def _next(self, policy_out: StreamQueue[Chunk | Run]) -> tuple[list[bytes], Terminal | None]:
        try:
            async with asyncio.timeout(self.settings.ping_interval):
                items = await policy_out.get_ready()
        except TimeoutError:
            return self.encoder.ping(), None
        return self._encode(items)

    def _encode(self, items: Sequence[Chunk | Run | Terminal]) -> tuple[list[bytes], Terminal | None]:
        frames: list[bytes] = []
        try:
            for item in items:
                if isinstance(item, Run):
                    frames += self.encoder.feed_run(item)
                    self.final.add_run(item)
                    continue
                if isinstance(item, End):
                    frames += self.encoder.finish()
                    return frames, item
                if isinstance(item, Failed):
                    frames += self.encoder.fail(item.error)
                    return frames, item
                frames += self.encoder.feed(item)
                self.final.add(item)
        except Exception as error:
            # An illegal stream must not leave, whatever made it so: the client gets what was legal and the error event.
            _log.exception("the answer could not be written in the client's format")
            failure = ApiError("Internal error while the answer was written.", status=500)
            failure.__cause__ = error
            return frames + self._last_frames(failure), Failed(failure)
        return frames, None

    def _last_frames(self, failure: ApiError) -> list[bytes]:
        try:
            return self.encoder.fail(failure)
        except StreamStateError:  # the answer was over already
            return []
