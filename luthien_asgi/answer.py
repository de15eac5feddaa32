"""One answer on its way through the policy: what leaves at once, what waits, and in which order it leaves.

Strategy: every block gets a lane. A lane lets its chunks pass, holds them for a verdict, or keeps them back until the end of the
answer (tool calls that may leave only after every verdict is in, so that what follows never depends on how fast a judge was).
Text, thinking and refusals are judged in line, because what follows them has to wait anyway; tool calls are judged beside the
stream, each in a task of its own, and settled in the backend's order.
"""

from __future__ import annotations

import itertools
from functools import partial

from luthien_asgi.assembler import BlockAssembler, OpenBlock
from luthien_asgi.blocks import Block, BlockKind
from luthien_asgi.chunks import (
    Chunk,
    Part,
    finish_reason_of,
    has_role,
    provider_fields,
    read_part,
    side_data,
    usage_of,
)
from luthien_asgi.errors import BackendError
from luthien_asgi.judging import Judge
from luthien_asgi.lanes import THINKING, Lane
from luthien_asgi.outlet import Outlet, is_visible
from luthien_asgi.pipeline import Step
from luthien_asgi.policy import Transform
from luthien_asgi.rewriting import Rewriter
from luthien_asgi.settling import Settlement
from luthien_asgi.short_cut import ShortCut
from luthien_asgi.step_hooks import StepHooks
from luthien_asgi.terms import Terms
from luthien_asgi.writer import Sink

__all__ = ["Answer"]


class Answer:
    """Takes the backend's chunks one by one and sends on what the policy lets through."""

    def __init__(self, step: Step, terms: Terms, sink: Sink, *, tools_wait: bool, records: bool) -> None:
        """Make what one step does to one answer.

        `tools_wait`: tool calls leave at the end, so that no text ever follows one that has left. `records`: this is what the
        backend said, and not what another step let out.
        """
        self._step = step
        self._outlet = Outlet(terms.make, sink)
        self._terms = terms
        self._tools_wait = tools_wait
        self._records = records
        self._transparent = not (tools_wait or (records and terms.wants_blocks) or step.handles)
        """Nobody looks at blocks: they are not even assembled."""
        self._judge = Judge(
            step=step,
            hooks=terms.hooks,
            log=terms.log,
            person=terms.person,
            redraws=terms.redraws,
            sample=terms.ctx.sample,
            shadow=terms.shadow,
        )
        self._hooks = StepHooks(step, terms, self._judge)
        self._rewriter = Rewriter(step, self._hooks, terms)
        self._assembler = BlockAssembler(most=terms.settings.answer_blocks)
        self._lanes: dict[OpenBlock, Lane] = {}
        self._settlement = Settlement(step, outlet=self._outlet, make=terms.make, log=terms.log, settings=terms.settings)
        self._short_cut = ShortCut(
            self._outlet, self._rewriter, transparent=self._transparent, hold_run=self._settlement.hold_run
        )
        self.pass_plain = self._short_cut.take
        """Take a chunk that is plain text, where that can be done at once; tell whether it was. If not, `take` it."""
        self.takes_run = self._short_cut.takes_run
        self.put_run = self._short_cut.put_run
        self._judged_ids: set[tuple[int, str]] = set()
        self._calls: set[tuple[int, int | None, str | None]] = set()
        """Choice and provider's number of the calls that began, each alone (None) and with the call's id."""
        self._ids: set[tuple[int, str]] = set()
        """Choice and id of the calls that began."""
        self._completed = False

    @property
    def stopped(self) -> bool:
        """Whether the policy ended the answer: the backend need not be read any further."""
        return self._settlement.stopped

    @property
    def finished(self) -> bool:
        """Whether every choice that began has its finish reason."""
        choices = self._outlet.choices
        for choice in choices.values():  # asked once for each packet
            if choice.finish is None:
                return False
        return bool(choices)

    async def put(self, chunk: Chunk, part: Part) -> None:
        """Take a chunk that another step let out."""
        del part
        await self.take(chunk)

    def offer(self, chunk: Chunk, text: str) -> bool:
        """Take a chunk of another step's that holds nothing but text, if it can go on at once; tell whether it did."""
        del text
        return self.pass_plain(chunk)

    async def end_text(self, choice: int) -> None:
        """End the block without boundaries that another step has ended: what ended it may be waiting there."""
        for block in self._assembler.end_text(choice):
            await self._end_lane(self._lanes[block], None)

    async def take(self, chunk: Chunk) -> None:
        """Take one chunk. Raises `ApiError` for what cannot go on."""
        part = read_part(chunk)
        if self._short_cut.is_unfinished:
            await self._pass_all(*await self._short_cut.rest(chunk, part))
            return
        reason = finish_reason_of(chunk)
        self._note(chunk, reason)
        if reason is not None:
            await self._take_finish(chunk)
        elif part.kind is None:
            await self._take_other(chunk, part)
        elif self._transparent:
            self._outlet.choice(part.choice)
            await self._outlet.put(chunk, part)
        else:
            await self._take_part(chunk, part)

    async def complete(self) -> None:
        """End a good answer: settle what waits, let the policy add its last words, send the finish reasons on.

        Raises `BackendError` when the backend did not finish, and what the policy's hooks raise.
        """
        if self._completed:
            return
        if not self.stopped:
            self._require_finish()
            await self._end_open_lanes()
        if not self.stopped:
            await self._settlement.settle_calls()
        additions = await self._last_words()
        self._completed = True
        self._outlet.choice(0)  # also where a policy ended the answer at another choice, before this one began
        for choice in list(self._outlet.choices.values()):
            await self._settlement.close(choice, additions if choice.index == 0 else "")

    def partial_blocks(self) -> list[Block]:
        """Return the blocks that had not ended, for the record of an answer that broke off."""
        return [block.block() for block in self._assembler.open_blocks()]

    def cancel_judges(self) -> None:
        """Stop the judges that are still at work: nobody waits for their verdict any more."""
        self._settlement.cancel_judges()

    def halt(self) -> None:
        """Let nothing out any more that waits: a later step has ended the answer."""
        self._settlement.halt()

    # --- taking chunks -------------------------------------------------------------------------------------------------

    def _note(self, chunk: Chunk, reason: str | None) -> None:
        if not self._records:
            return
        usage = usage_of(chunk)
        if usage is not None:
            self._terms.log.usage = usage
        if reason is not None:
            self._terms.log.finish_reasons[chunk.choices[0].index] = reason
            self._terms.log.mark("backend_finished")

    async def _take_finish(self, chunk: Chunk) -> None:
        choice = self._outlet.choice(chunk.choices[0].index)
        for block in self._assembler.finish(choice.index):
            await self._end_lane(self._lanes[block], None)
        # Some providers repeat the finish reason on each call: the last one counts, and one leaves.
        choice.finish = chunk

    async def _take_other(self, chunk: Chunk, part: Part) -> None:
        if chunk.choices and has_role(chunk):
            choice = self._outlet.choice(part.choice)
            choice.began = True
        elif not chunk.choices and usage_of(chunk) is None and not provider_fields(chunk):
            return
        if BlockKind.OTHER in self._step.handles and _is_unknown_event(chunk, part):
            self._terms.log.note("an event of an unknown type was left out: no policy could judge it")
            return
        await self._outlet.put(chunk, part)

    async def _take_part(self, chunk: Chunk, part: Part) -> None:
        step = self._assembler.feed(part)
        if step.opened and part.kind is BlockKind.TOOL_CALL:
            self._require_new(part)
        for ended in step.ended:
            await self._end_lane(self._lanes[ended], None)
        if step.block is None or self.stopped:
            return
        lane = self._open_lane(step.block) if step.opened else self._lanes[step.block]
        if part.phase == "close":
            await self._end_lane(lane, chunk)
            return
        await self._add(lane, chunk, part)
        if step.closes and not self.stopped:
            await self._end_lane(lane, None)

    def _require_new(self, part: Part) -> None:
        """Refuse a fragment that would go on with a call which was judged without it: a client would put the two together."""
        is_known = not part.id or (part.choice, part.id) in self._judged_ids
        if is_known and self._outlet.choice(part.choice).finish is not None:
            msg = "The provider went on with a tool call after its finish reason."
            raise BackendError(msg)
        number, call = (part.choice, part.source, None), (part.choice, part.source, part.id)
        if part.phase == "delta" and number in self._calls and (not part.id or call in self._calls):
            msg = "The provider went on with a tool call after another one had taken its place, or after its end."
            raise BackendError(msg)
        if not part.name and (part.choice, part.id) in self._ids:
            msg = "The provider went on with a tool call under another number."
            raise BackendError(msg)
        self._calls |= {number, call}
        if part.id:
            self._ids.add((part.choice, part.id))

    def _open_lane(self, block: OpenBlock) -> Lane:
        choice = self._outlet.choice(block.choice)
        handling = self._step.handles.get(block.kind)
        waits = self._tools_wait and block.kind is BlockKind.TOOL_CALL
        lane = self._lanes[block] = Lane(block, handling, waits)
        if handling is not None:
            lane.contexts = self._hooks.contexts(partial(self._terms.make.fragment, block))
            lane.watchers = self._step.watchers(block.kind)
        if block.kind is BlockKind.TOOL_CALL and (waits or lane.held):
            choice.waiting.append(lane)
        # Thinking that is denied takes the rest of the choice's thinking with it: half of it would not be accepted again.
        lane.dropped = choice.thinking_denied and block.kind in THINKING
        return lane

    async def _add(self, lane: Lane, chunk: Chunk, part: Part) -> None:
        choice = self._outlet.choice(lane.block.choice)
        choice.said = choice.said or is_visible(lane.block, part)
        if lane.handling is not None and (side := side_data(chunk)):
            lane.block.events.append(side)
        if lane.handling is None and not (lane.waits or lane.dropped):
            await self._outlet.send(lane.block, chunk, part)
        elif lane.handling is None or not (lane.watchers or isinstance(lane.handling, Transform)):
            await self._pass(lane, chunk, part)
        elif lane.watchers:
            for plan in lane.watchers:
                await self._hooks.watch(plan, chunk, lane)
            await self._pass(lane, chunk, part)
        else:
            await self._pass_all(lane, await self._rewriter.rewritten(lane, chunk, part))
        if choice.text_sent or not isinstance(lane.handling, Transform):
            self._short_cut.open(lane, part)

    async def _pass_all(self, lane: Lane, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            await self._pass(lane, chunk, read_part(chunk))

    async def _pass(self, lane: Lane, chunk: Chunk, part: Part) -> None:
        """Let a chunk go its lane's way: on, or to those that wait."""
        if lane.dropped:
            return
        if lane.held or lane.waits:
            self._settlement.hold(lane, chunk, part)
            return
        if part.phase == "open" and isinstance(lane.handling, Transform) and lane.block.kind is BlockKind.TEXT and not part.text:
            lane.opening = chunk
            return
        await self._outlet.send(lane.block, chunk, part, lane)

    # --- ending blocks -------------------------------------------------------------------------------------------------

    async def _end_lane(self, lane: Lane, closing: Chunk | None) -> None:
        """End a block: flush, judge, release. `closing` is the provider's own closing chunk, where it has one."""
        block = lane.block.block()
        self._judged_ids.add((block.choice, block.id))
        self._short_cut.close(lane)
        if self._records:
            self._terms.log.backend_blocks.append(block)
        if self.stopped:
            return
        if isinstance(lane.handling, Transform):
            await self._pass_all(lane, await self._rewriter.rest(lane, block))
        if closing is not None:
            await self._close_out(lane, block, closing)
        judged = lane.handling is not None and self._step.judges(block.kind)
        if judged and lane.held and block.kind is BlockKind.TOOL_CALL:
            work = self._judge.judge(block, lane.contexts, read=self._settlement.read)
            lane.judge = self._terms.judges.create_task(work)
        elif judged:
            await self._settlement.settle(lane, await self._judge.judge(block, lane.contexts))
        if not lane.block.bounded and block.kind is not BlockKind.TOOL_CALL and not self.stopped:
            await self._outlet.end_text(block.choice)

    async def _close_out(self, lane: Lane, block: Block, closing: Chunk) -> None:
        if lane.opening is not None and block.text:
            # The policy emptied the block: an empty one would be refused when the client sends it back.
            return
        if lane.opening is not None:
            opening, lane.opening = lane.opening, None
            await self._outlet.put(opening, read_part(opening))
        await self._pass(lane, closing, read_part(closing))

    # --- the end of the answer -----------------------------------------------------------------------------------------

    async def _end_open_lanes(self) -> None:
        """End the blocks that began after a finish reason: they are judged like every other."""
        for index in list(self._outlet.choices):
            for block in self._assembler.finish(index):
                await self._end_lane(self._lanes[block], None)

    def _require_finish(self) -> None:
        if not self._outlet.choices:
            msg = "The provider's answer was empty."
            raise BackendError(msg)
        if not self.finished:
            msg = "The provider's answer ended without a finish reason."
            raise BackendError(msg)
        missing = next(place for place in itertools.count() if place not in self._outlet.choices)
        if missing < len(self._outlet.choices):
            msg = f"The provider's answer has no choice {missing}."
            raise BackendError(msg)

    async def _last_words(self) -> str:
        contexts = self._hooks.contexts(self._terms.make.plain_text)
        return "".join([await self._hooks.last_words(plan, contexts[id(plan)]) for plan in self._step.members])


def _is_unknown_event(chunk: Chunk, part: Part) -> bool:
    """Tell whether a chunk carries nothing but an event that no block and no message field knows."""
    return not chunk.choices and part.event is not None and usage_of(chunk) is None
