"""Task 2: what the policy let through, as frames in the client's own format into the SSE queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

from luthien_asgi.assembler import BlockAssembler, OpenBlock
from luthien_asgi.chunks import Chunk, Part, finish_reason_of, read_part
from luthien_asgi.context import ObservabilityContext
from luthien_asgi.drain import ShutdownError
from luthien_asgi.errors import ApiError, QueueFullError, StreamStateError
from luthien_asgi.flag import Flag
from luthien_asgi.logs import logger_of
from luthien_asgi.queues import End, Failed, StreamQueue, Terminal
from luthien_asgi.recorder import Transaction
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.wire.protocol import StreamEncoder

__all__ = ["ClientFormatter", "FinalBlocks"]

_log: Final = logger_of(__name__)


class FinalBlocks:
    """Assembles what leaves into the final blocks of the record."""

    def __init__(self, log: Transaction, *, wanted: bool) -> None:
        self._log = log
        self._assembler = BlockAssembler() if wanted else None
        self._closed = False
        self._part: Part | None = None
        self._block: OpenBlock | None = None
        """What the last run was a part of, and its block, if nothing has come since."""

    def add(self, chunk: Chunk) -> None:
        """Take a chunk that leaves."""
        if self._assembler is None:
            return
        self._block = None
        step = self._assembler.feed(read_part(chunk))
        ended = [*step.ended, *([step.block] if step.closes and step.block is not None else [])]
        if finish_reason_of(chunk) is not None:
            ended += self._assembler.finish(chunk.choices[0].index)
        self._log.final_blocks += [block.block() for block in ended]

    def add_run(self, run: Run) -> None:
        """Take a run that leaves."""
        if self._assembler is None:
            return
        if run.part is not self._part or self._block is None:
            step = self._assembler.feed(run.part._replace(text=run.texts[0]))
            self._log.final_blocks += [block.block() for block in step.ended]
            self._part, self._block = run.part, step.block
            if step.block is not None:
                step.block.fragments.extend(run.texts[1:])
        else:
            self._block.fragments.extend(run.texts)

    def close(self, omitted: Sequence[str] = ()) -> None:
        """Take what had left of blocks that never ended, and the names of what the client's format had no field for.

        The first time counts.
        """
        if self._closed:
            return
        self._closed = True
        self._log.ignored += [name for name in omitted if name not in self._log.ignored]
        if self._assembler is not None:
            self._log.final_blocks += [block.block() for block in self._assembler.open_blocks()]
            self._log.final_blocks.sort(key=lambda block: (block.choice, block.index))
            self._assembler = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFormatter:
    """Turns one answer into frames, or into one body."""

    encoder: StreamEncoder
    settings: StreamSettings
    final: FinalBlocks
    late: bool = False
    """The client has waited for `commit_after` seconds already: a ping goes out at once."""
    seal: Callable[[Terminal], asyncio.Task[Terminal]] | None = None
    """What is told how a stream is about to end, before its last frames leave, and says how it is to end."""

    async def process(
        self, policy_out: StreamQueue[Chunk | Run], sse_queue: StreamQueue[bytes], *, obs: ObservabilityContext
    ) -> None:
        """Put frames into `sse_queue`, pings while nothing comes, then the terminal item.

        Frames of chunks that are there together go on as one item, so they leave in one `send`. Raises nothing but cancellation;
        what goes wrong here is the terminal item, and the frames that say so have room always: a client that begins to read again
        must not take what it gets for the whole answer.
        """
        try:
            with obs.span("luthien.format"):
                sse_queue.end(await _Flow(self, policy_out, sse_queue).to_the_end())
        except ApiError as error:
            last = b"".join(self.last_frames(error))
            if last:
                sse_queue.hand(last, len(last))
            sse_queue.end(Failed(error))
        finally:
            self.final.close(self.encoder.omitted)

    async def collect(self, policy_out: StreamQueue[Chunk | Run], *, obs: ObservabilityContext) -> dict[str, Any]:
        """Return the whole answer as a body. Raises the `ApiError` that the answer failed with."""
        try:
            with obs.span("luthien.format"):
                while True:
                    _, terminal = self.encode(await policy_out.get_ready())
                    if isinstance(terminal, Failed):
                        raise terminal.error
                    if terminal is not None:
                        return self.encoder.body()
        finally:
            self.final.close(self.encoder.omitted)

    def encode(self, items: Sequence[Chunk | Run | Terminal]) -> tuple[list[bytes], Terminal | None]:
        """Return the frames of what the policy let through, and the terminal item if it is among that. Raises nothing."""
        frames: list[bytes] = []
        try:
            for item in items:
                if isinstance(item, Run):
                    frames += self.encoder.feed_run(item)
                    self.final.add_run(item)
                    continue
                if isinstance(item, End | Failed):
                    return self._ended(frames, item)
                frames += self.encoder.feed(item)
                self.final.add(item)
        except Exception as error:
            return self._ended(frames, _unwritten(error))
        return frames, None

    def _ended(self, frames: list[bytes], terminal: Terminal) -> tuple[list[bytes], Terminal]:
        if self.seal is not None:
            return frames, terminal
        last, terminal = self.finished(terminal)
        return frames + last, terminal

    def finished(self, terminal: Terminal) -> tuple[list[bytes], Terminal]:
        """Return the frames that end the answer, and how it ends: what cannot be ended well fails. Raises nothing."""
        try:
            return self.encoder.finish() if isinstance(terminal, End) else self.encoder.fail(terminal.error), terminal
        except Exception as error:
            failed = _unwritten(error)
            return self.last_frames(failed.error), failed

    def last_frames(self, failure: ApiError) -> list[bytes]:
        """Return the frames that end the answer with an error; none where it has ended already."""
        try:
            return self.encoder.fail(failure)
        except StreamStateError:
            return []


def _unwritten(error: Exception) -> Failed:
    """Return what an illegal stream ends with, whatever made it so: the client gets what was legal and the error event."""
    _log.error("the answer could not be written in the client's format", exc_info=error)
    failure = ApiError("Internal error while the answer was written.", status=500)
    failure.__cause__ = error
    return Failed(failure)


class _Flow:
    """One answer's way through the formatter.

    Strategy: a run that the policy lets through is encoded at once, by who puts it into the queue, and a chunk as soon as the
    event loop turns, by a callback: waking a task for it would cost more than the encoding. The task is there for what takes
    time: pings, a queue that is full, the end.
    """

    def __init__(self, formatter: ClientFormatter, source: StreamQueue[Chunk | Run], target: StreamQueue[bytes]) -> None:
        self._formatter = formatter
        self._source = source
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._wake = Flag()
        self._is_due = False
        """Whether the callback is about to be called."""
        self._waiting = b"".join(formatter.encoder.ping()) if formatter.late else b""
        """Frames for which there was no room; while there are some, nothing is encoded."""
        self._terminal: Terminal | None = None
        self._held: list[Chunk | Run] = []
        """What ends the answer, where that has to wait."""
        self._over = False
        self._last = self._loop.time()
        """When something was written last."""

    async def to_the_end(self) -> Terminal:
        """Write frames until the terminal item and return that. Raises `QueueFullError`."""
        try:
            while True:
                if self._waiting:
                    await self._target.put(self._waiting, len(self._waiting))
                    self._waiting, self._last = b"", self._loop.time()
                if self._terminal is not None:
                    seal = self._formatter.seal
                    return self._terminal if seal is None else await self._sealed(self._terminal, seal)
                self._source.tell(self._schedule, self._move)
                await self._pause()
        except (asyncio.CancelledError, QueueFullError):
            if self._waiting:  # the encoder takes it for sent: nothing that is sent after this may lack it
                self._target.hand(self._waiting, len(self._waiting))
            raise
        finally:
            self._over = True
            self._source.tell(None)

    async def _sealed(self, terminal: Terminal, seal: Callable[[Terminal], asyncio.Task[Terminal]]) -> Terminal:
        """Write the last frames when `seal` says that they may leave; pings meanwhile.

        What they will be is tried on a copy of the encoder: until they leave, the answer can still end with an error.
        """
        formatter = self._formatter
        trial = replace(formatter, encoder=deepcopy(formatter.encoder))
        _, terminal = self._last_frames(trial, terminal)
        formatter.final.close(trial.encoder.omitted)
        sealing = seal(terminal)
        while not sealing.done():
            await asyncio.wait({sealing}, timeout=formatter.settings.ping_interval)
            ping = b"".join(formatter.encoder.ping()) if not sealing.done() else b""
            if ping:
                self._target.offer(ping, len(ping))
        told: Terminal = Failed(ShutdownError()) if sealing.cancelled() else sealing.result()
        last, told = self._last_frames(formatter, told)
        if frames := b"".join(last):
            self._target.hand(frames, len(frames))  # room or not: the record has it that the answer ended so
        return told

    def _last_frames(self, formatter: ClientFormatter, terminal: Terminal) -> tuple[list[bytes], Terminal]:
        held, failed = formatter.encode(self._held if isinstance(terminal, End) else ())
        last, terminal = formatter.finished(failed or terminal)
        return held + last, terminal

    def _hold_back(self, items: list[Chunk | Run | Terminal]) -> list[Chunk | Run | Terminal]:
        """Keep what belongs to the end of the answer, from its first finish reason on, and return the rest."""
        ends = 0
        while ends < len(items) and not (self._held or _finishes(items[ends])):
            ends += 1
        self._held += [item for item in items[ends:] if not isinstance(item, End | Failed)]
        return items[:ends] + [item for item in items[ends:] if isinstance(item, End | Failed)]

    async def _pause(self) -> None:
        """Wait until the callback has something for the task, or a ping is due."""
        interval = self._formatter.settings.ping_interval
        self._wake.clear()
        while not self._wake.is_set():
            try:
                async with asyncio.timeout_at(self._last + interval):
                    await self._wake.wait()
            except TimeoutError:
                # The time may be up in the very turn in which the callback was called: what it left is not overwritten.
                if not self._wake.is_set() and self._loop.time() >= self._last + interval:
                    self._keep(b"".join(self._formatter.encoder.ping()))

    def _schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        self._is_due = False
        if self._waiting or self._over or self._terminal is not None:
            return
        items = self._source.take_ready()
        if self._formatter.seal is not None:
            items = self._hold_back(items)
        frames, self._terminal = self._formatter.encode(items)
        if frames:
            self._keep(frames[0] if len(frames) == 1 else b"".join(frames))
        if self._terminal is not None:
            self._wake.set()

    def _keep(self, frames: bytes) -> None:
        self._last = self._loop.time()
        if frames and not self._target.offer(frames, len(frames)):
            self._waiting = frames
            self._source.tell(None)
            self._wake.set()


def _finishes(item: Chunk | Run | Terminal) -> bool:
    return not isinstance(item, Run | End | Failed) and finish_reason_of(item) is not None
