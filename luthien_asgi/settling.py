"""What becomes of the blocks that wait: of each the verdict is carried out here, and what survives leaves in its order.

Strategy: blocks that are judged in line are settled when their verdict is there. Tool calls are settled together, at the end of
the answer and in the backend's order: a message instead of a denied call leaves before every call that survives.
"""

from __future__ import annotations

from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import Chunk, Part, read_part
from luthien_asgi.errors import PolicyError, QueueFullError
from luthien_asgi.flag import Flag
from luthien_asgi.held import HeldChunks
from luthien_asgi.judgements import Judgement
from luthien_asgi.lanes import THINKING, Choice, Lane
from luthien_asgi.outlet import Outlet
from luthien_asgi.pipeline import Step
from luthien_asgi.plans import PolicyPlan
from luthien_asgi.recorder import Transaction
from luthien_asgi.runs import Run
from luthien_asgi.settings import StreamSettings
from luthien_asgi.verdicts import Allow, Defer, Deny, Replace, Resample, Stop
from luthien_asgi.writer import ChunkMaker

__all__ = ["Retake", "Settlement"]


class Retake(Exception):
    """Another answer is to be asked for, because of a verdict."""

    def __init__(self, plan: PolicyPlan | None, verdict: Resample | Defer) -> None:
        super().__init__(verdict)
        self.plan = plan
        self.verdict = verdict


class Settlement:
    """Holds what waits for a verdict, and does what the verdict says."""

    def __init__(self, step: Step, *, outlet: Outlet, make: ChunkMaker, log: Transaction, settings: StreamSettings) -> None:
        self._step = step
        self._outlet = outlet
        self._make = make
        self._log = log
        self._settings = settings
        self._held_bytes = 0
        self.stopped = False
        """Whether the policy ended the answer."""
        self.read = Flag()
        """Is set when the answer was read to its end."""

    def hold(self, lane: Lane, chunk: Chunk, part: Part) -> None:
        """Keep a chunk until its block is settled. Raises `QueueFullError` beyond `queue_bytes`."""
        self._held_bytes += lane.chunks.append(chunk, part)
        self._require_room()

    def _require_room(self) -> None:
        if self._held_bytes > self._settings.queue_bytes:
            msg = "The answer holds more content for a policy's verdict than the limit allows."
            raise QueueFullError(msg)

    def hold_run(self, lane: Lane, run: Run) -> None:
        """Keep the chunks of a run, and give their texts to their block. Raises `QueueFullError` beyond `queue_bytes`."""
        for place, text in enumerate(run.texts):
            lane.block.fragments.append(text)
            if place and lane.chunks.is_sure:
                self._held_bytes += lane.chunks.append_like(text)
            else:
                self.hold(lane, run.with_texts([text]).first(), run.part._replace(text=text))
        self._require_room()

    async def settle(self, lane: Lane, judgement: Judgement) -> None:
        """Do what was decided about a block that was judged in line. Raises the judgement's error."""
        if judgement.error is not None:
            raise judgement.error
        action = judgement.action
        if isinstance(action, Allow):
            if lane.held:
                await self._release(lane)
        elif isinstance(action, Resample | Defer):
            raise Retake(judgement.plan, action)
        elif isinstance(action, Replace):
            self._discard(lane)
            await self._outlet.write(lane.block.choice, action.blocks)
        elif isinstance(action, Deny):
            self._discard(lane)
            await self._outlet.say(lane.block.choice, self._marked(action.message))
            self._outlet.choice(lane.block.choice).thinking_denied |= lane.block.kind in THINKING
        elif isinstance(action, Stop):
            await self._stop(lane.block.choice, action)

    async def settle_calls(self) -> None:
        """Collect the verdicts on the tool calls that wait, in the backend's order. Raises a judgement's error."""
        self.read.set()
        for choice in self._outlet.choices.values():
            surviving: list[Lane] = []
            for lane in choice.waiting:
                judgement = await self._judgement(lane)
                if judgement.error is not None:
                    raise judgement.error
                await self._settle_call(choice, lane, judgement, surviving)
                if self.stopped:
                    break
            choice.waiting = surviving

    async def close(self, choice: Choice, additions: str) -> None:
        """Send what is left of a choice: the policy's messages and additions, the calls that survive, the finish reason."""
        await self._outlet.write(choice.index, choice.messages)
        await self._outlet.say(choice.index, additions)
        for lane in choice.waiting:
            await self._release(lane)
        if choice.said and not choice.spoke:
            self._log.note("the policy emptied the answer: the client got the notice text")
            await self._outlet.say(choice.index, self._marked(self._settings.empty_notice))
        finish = self._make.finish(choice.index, "stop") if self.stopped or choice.finish is None else choice.finish
        await self._outlet.put(finish, read_part(finish))

    def cancel_judges(self) -> None:
        """Stop the judges that are still at work: nobody waits for their verdict any more."""
        for choice in self._outlet.choices.values():
            for lane in choice.waiting:
                if lane.judge is not None:
                    lane.judge.cancel()

    def halt(self) -> None:
        """Let nothing go that waits: the answer has ended."""
        self.stopped = True
        self.cancel_judges()
        for state in self._outlet.choices.values():
            state.waiting.clear()

    # --- blocks -------------------------------------------------------------------------------------------------------

    async def _release(self, lane: Lane) -> None:
        chunks = self._taken(lane)
        for item in chunks.items() if not lane.dropped else ():
            if isinstance(item, Run) and self._outlet.send_run(lane.block, item):
                continue
            for chunk in item.chunks() if isinstance(item, Run) else (item,):
                await self._outlet.send(lane.block, chunk, read_part(chunk))

    def _discard(self, lane: Lane) -> None:
        self._taken(lane)
        lane.dropped = True

    def _taken(self, lane: Lane) -> HeldChunks:
        """Take from a lane what it holds."""
        chunks, lane.chunks = lane.chunks, HeldChunks()
        self._held_bytes -= chunks.size
        return chunks

    async def _stop(self, choice: int, verdict: Stop) -> None:
        """End the answer: nothing that waits leaves any more."""
        self.halt()
        for state in self._outlet.choices.values():
            await self._outlet.write(state.index, state.messages)
            state.messages.clear()
        await self._outlet.say(choice, self._marked(verdict.message))

    def _marked(self, message: str) -> str:
        """Return a message of the gateway's with what the model could not have written, where that is wanted."""
        marks = self._settings.message_mark == "transaction" and message
        return f"{message}\n[x-luthien-transaction: {self._log.begin.id}]" if marks else message

    # --- tool calls -----------------------------------------------------------------------------------------------------

    async def _judgement(self, lane: Lane) -> Judgement:
        if lane.judge is not None:
            return await lane.judge
        if lane.held:
            msg = f"The policy {self._step.name} was not asked about a tool call that it holds."
            raise PolicyError(msg)
        return Judgement(Allow())

    async def _settle_call(self, choice: Choice, lane: Lane, judgement: Judgement, surviving: list[Lane]) -> None:
        action = judgement.action
        if choice.thinking_denied:
            self._discard(lane)
            return
        choice.messages += [Block(kind=BlockKind.TEXT, text=self._marked(warning)) for warning in judgement.warnings]
        if isinstance(action, Allow):
            surviving.append(lane)
        elif isinstance(action, Resample | Defer):
            raise Retake(judgement.plan, action)
        elif isinstance(action, Stop):
            await self._stop(choice.index, action)
            surviving.clear()
        elif isinstance(action, Deny):
            self._discard(lane)
            choice.messages += [Block(kind=BlockKind.TEXT, text=self._marked(action.message))] if action.message else []
        elif isinstance(action, Replace):
            self._replace_call(choice, lane, action, surviving)

    def _replace_call(self, choice: Choice, lane: Lane, action: Replace, surviving: list[Lane]) -> None:
        """Texts leave with the messages, before every call; calls take the place of the one that they replace."""
        self._discard(lane)
        calls = [block for block in action.blocks if block.kind is BlockKind.TOOL_CALL]
        choice.messages += [block for block in action.blocks if block.kind is not BlockKind.TOOL_CALL]
        for call in calls:
            chunks = self._make.whole(call, choice.index)
            surviving.append(Lane(lane.block, None, waits=True, chunks=HeldChunks(chunks)))
