"""A machine of random interleavings: provider, policy, client and clock, each step in any order, on the real middleware.

After every step, when nothing more can happen without the outside, this holds:

- what the client has is a legal beginning of its format (`luthien_asgi.testing.ResponseWatch`);
- nothing of a block that is held is among it before its verdict, and nothing of one that was denied ever;
- what was read of the provider and not sent is within the bounds of the queues;
- once the app has returned: one end record, one end of the body unless the client left, the provider's connection closed, no
  task left, nothing raised where nobody sees it.

At last the provider ends or falls silent, whatever waits gets a verdict, and the app has to return.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine_client import HANDLINGS, PATHS, VERDICTS, Asked, Client, Waiting, verdict_of
from machine_loop import VirtualLoop
from machine_provider import AnthropicScript, ManualBackend, OpenAIScript

from luthien_asgi import BackendError, BlockKind, LuthienMiddleware, MemoryRecorder, StreamSettings
from luthien_asgi.testing import Violation

__all__ = ["LETS_PASS", "AnswerMachine"]

_QUEUE_BYTES: Final = 4_000
_SETTINGS: Final = StreamSettings(
    first_chunk_timeout=40, stall_timeout=30, total_timeout=400, policy_timeout=15, usage_timeout=5, queue_timeout=20,
    send_timeout=25, ping_interval=7, commit_after=9, queue_size=8, queue_bytes=_QUEUE_BYTES, answer_bytes=400_000,
    close_timeout=0.5,
)  # fmt: skip
_RELEASED: Final = frozenset({"allow", "none"})
_BOUND: Final = 4 * _QUEUE_BYTES + 20_000
"""Two queues, what is held, what an unread packet holds, and what a fragment is wrapped in; a body has `answer_bytes`."""
LETS_PASS: Final = frozenset({"empty-text"})
"""A provider's own block has begun when the answer fails at its first fragment."""
_MARK: Final = re.compile(r"[tha]\d+q")
_handling = st.sampled_from(list(HANDLINGS))


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


class AnswerMachine(RuleBasedStateMachine):
    """One request, from its body to its end record."""

    @initialize(
        client=st.sampled_from(list(PATHS)),
        backend=st.sampled_from(["openai", "anthropic"]),
        stream=st.sampled_from([True, True, True, False]),
        text=_handling,
        thinking=st.sampled_from(["hold", "observe", "pass"]),
        call=st.sampled_from(["hold", "hold", "observe", "pass"]),
        opened=st.sampled_from([True, True, True, False]),
    )
    def begin(self, client: str, backend: str, stream: bool, text: str, thinking: str, call: str, opened: bool) -> None:
        """A client asks."""
        logging.getLogger("luthien_asgi").setLevel(logging.CRITICAL)  # every failure of theirs is meant
        self.loop = VirtualLoop()
        asyncio.set_event_loop(None)
        self.marks = itertools.count()
        self.withheld: set[str] = set()
        self.ended = False
        self.unasked = 0
        """Bytes of choices that this client has no place for: they are read, and dropped."""
        self.script: Any = OpenAIScript() if backend == "openai" else AnthropicScript()
        wanted = {BlockKind.TEXT: text, BlockKind.THINKING: thinking, BlockKind.TOOL_CALL: call}
        handles = {kind: handling for kind, name in wanted.items() if (handling := HANDLINGS[name]) is not None}
        self.policy = Waiting(handles)
        self.backend = ManualBackend(backend, self.loop)
        self.recorder = MemoryRecorder()
        app = LuthienMiddleware(
            _not_found, backend=self.backend, policy=self.policy if handles else None, recorder=self.recorder, settings=_SETTINGS
        )
        self.client = Client(client, self.loop, stream=stream)
        self.task = self.loop.create_task(self.client.run(app))
        self.loop.settle()
        if opened:
            self.the_call_is_answered()

    # --- the provider --------------------------------------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Tell whether the provider can say something."""
        return self.backend.response is not None and not self.ended

    def may_open(self) -> bool:
        """Tell whether the call waits for its answer."""
        return self.backend.calls > 0 and not self.backend.opening.done()

    @precondition(may_open)
    @rule()
    def the_call_is_answered(self) -> None:
        """The response's headers come."""
        self.backend.opening.set_result(None)
        self.loop.settle()

    @precondition(may_open)
    @rule(status=st.sampled_from([400, 429, 503]))
    def the_call_is_refused(self, status: int) -> None:
        """The provider answers with an error."""
        self.backend.opening.set_exception(BackendError("it was refused", status=status))
        self.ended = True
        self.loop.settle()

    @precondition(is_open)
    @rule(data=st.data(), size=st.sampled_from([1, 1, 1, 200, 1500]), kind=st.sampled_from("tthcca"), also=st.booleans())
    def it_says_something(self, data: st.DataObject, size: int, kind: str, also: bool) -> None:
        """A fragment of text, thinking, a call or its arguments, perhaps two in one packet."""
        choices = self.script.open_choices()
        if not choices:
            return
        packet = b""
        for one in kind + ("t" if also else ""):
            choice = data.draw(st.sampled_from(choices))
            calls = self.script.calls_of(choice)
            if one == "a" and not calls:
                continue
            index = data.draw(st.integers(0, calls - 1)) if one == "a" else 0
            packet += self._piece(one, choice, index, size)
        if packet:
            self._give(packet)

    @precondition(is_open)
    @rule(packets=st.sampled_from([5, 60]))
    def it_says_a_lot(self, packets: int) -> None:
        """Packets of text that come at once: more than is kept, if the client does not read."""
        if choices := self.script.open_choices():
            response = self.backend.response
            assert response is not None
            for _ in range(packets):
                packet = self._piece("t", choices[0], 0, 300)
                response.give(packet)
                if choices[0] != 0 and self.client.wire != "openai":
                    self.unasked += len(packet)
            self.loop.settle()

    def _piece(self, kind: str, choice: int, index: int, size: int) -> bytes:
        mark = f"{kind}{next(self.marks)}q"
        if kind == "t":
            return bytes(self.script.text(choice, mark * size))
        if kind == "h":
            return bytes(self.script.thinking(choice, mark * size))
        if kind == "c":
            return bytes(self.script.call(choice, mark))
        return bytes(self.script.arguments(choice, index, json.dumps({mark: "x" * size})))

    @precondition(is_open)
    @rule(data=st.data())
    def a_choice_finishes(self, data: st.DataObject) -> None:
        """A finish reason, and nothing more of that choice."""
        if choices := self.script.open_choices():
            self._give(self.script.finish(data.draw(st.sampled_from(choices))))

    @precondition(is_open)
    @rule(what=st.sampled_from(["usage", "ping", "ping"]))
    def it_says_something_else(self, what: str) -> None:
        """Usage, early or late, or a sign of life."""
        self._give(getattr(self.script, what)())

    @precondition(is_open)
    @rule(how=st.sampled_from(["done", "done", "close", "break", "error", "garbage", "half"]))
    def it_ends(self, how: str) -> None:
        """In order, or in one of the ways in which a stream breaks."""
        self.ended = True
        response = self.backend.response
        assert response is not None
        match how:
            case "done":
                finish = b"".join(self.script.finish(choice) for choice in self.script.open_choices())
                response.give(finish + self.script.done())
            case "error":
                response.give(self.script.error())
            case "garbage":
                response.give(b"data: {nonsense\n\n")
            case "half":
                response.give(self.script.text(0, "cut")[:-9] if self.script.open_choices() else b"data: {")
            case "break":
                response.give(ConnectionResetError("it broke"))
        response.give(None)
        self.loop.settle()

    def _give(self, packet: bytes) -> None:
        assert self.backend.response is not None
        self.backend.response.give(packet)
        self.loop.settle()

    # --- the policy ----------------------------------------------------------------------------------------------------------

    def waits(self) -> bool:
        """Tell whether a block waits for its verdict."""
        return bool(self._waiting())

    def _waiting(self) -> list[Asked]:
        return [asked for asked in self.policy.asked if not asked.answer.done()]

    @precondition(waits)
    @rule(data=st.data(), name=st.sampled_from(VERDICTS))
    def a_verdict_comes(self, data: st.DataObject, name: str) -> None:
        """In any order; or the policy fails, or what it waited for was cancelled."""
        asked = data.draw(st.sampled_from(self._waiting()))
        if name not in _RELEASED:
            self.withheld |= _marks_in(asked)
        if name == "raise":
            asked.answer.set_exception(ValueError("it failed"))
        elif name == "cancel":
            asked.answer.cancel()
        else:
            asked.answer.set_result(verdict_of(name))
        self.loop.settle()

    @precondition(waits)
    @rule(data=st.data())
    def it_says_that_it_lives(self, data: st.DataObject) -> None:
        """The hook's time starts anew."""
        data.draw(st.sampled_from(self._waiting())).ctx.keepalive()
        self.loop.settle()

    @precondition(is_open)
    @rule()
    def the_policy_will_fail(self) -> None:
        """At the next fragment that it looks at."""
        self.policy.failing = True

    # --- the client and the clock --------------------------------------------------------------------------------------------

    def goes_on(self) -> bool:
        """Tell whether the app has not returned."""
        return not self.task.done()

    @precondition(is_open)
    @rule()
    def the_client_stops_or_begins_to_read(self) -> None:
        """So that what is sent waits, or goes on."""
        if not self.client.left:
            self.client.read(reads=not self.client.reads)
            self.loop.settle()

    @precondition(goes_on)
    @rule()
    def the_client_leaves(self) -> None:
        """And everything is over at once, but for closing the provider's connection."""
        self.client.leave()
        self.loop.advance(1.0)
        assert self.task.done(), "the app goes on a second after the client left"

    @rule(seconds=st.sampled_from([0.2, 3.0, 6.0, 8.0, 16.0, 31.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        """Long enough for pings, and for each of the time-outs."""
        self.loop.advance(seconds)

    # --- what holds ----------------------------------------------------------------------------------------------------------

    @invariant()
    def what_left_is_legal(self) -> None:
        """Every prefix of the response is."""
        stream = self.client.watch._stream
        wrong = [str(one) for one in (stream.violations if stream is not None else ()) if _is_wrong(one)]
        assert not wrong, wrong

    @invariant()
    def nothing_held_has_left(self) -> None:
        """Marks of held kinds are with the client only after their block was let through."""
        got = self.client.bytes.decode()
        for asked in self.policy.asked:
            if not asked.answer.done():
                assert not any(mark in got for mark in _marks_in(asked)), "a part of a block left before its verdict"
        assert not any(mark in got for mark in self.withheld), "a part of a block left that was not to"

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        """What was read of the provider and has not been sent."""
        response = self.backend.response
        if response is not None and not self.task.done() and not self.client.reads and self.client.stream:
            assert response.taken - self.unasked - len(self.client.bytes) <= _BOUND, f"{response.taken} bytes were read"

    @invariant()
    def it_ends_once(self) -> None:
        """When the app has returned, everything of it is over."""
        if self.task.done():
            self._check_end()

    def _check_end(self) -> None:
        assert self.task.exception() is None, repr(self.task.exception())
        left = self._tasks()
        assert not left, f"tasks are left: {left}"
        assert not self.loop.complaints, self.loop.complaints
        assert len(self.recorder.begun) == len(self.recorder.ended) == 1
        response, watch = self.backend.response, self.client.watch
        assert response is None or response.closed, "the provider's connection is open"
        ending = self.recorder.ended[0].ending
        assert watch.complete or self.client.left or not self.client.reads or ending == "client_disconnected"
        assert self.client.ends == int(watch.complete)
        wrong = [str(one) for one in watch.finish() if _is_wrong(one)]
        assert not wrong, wrong
        if watch.complete and ending in {"completed", "stopped"}:
            assert watch.status == 200
            assert b'"error":{' not in self.client.bytes

    def _tasks(self) -> list[asyncio.Task[Any]]:
        """Return what still runs, the library's watch for the server's end apart, of which each thread has one."""
        running = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        return [task for task in running if getattr(task.get_coro(), "__name__", "") != "_shutdown_watcher"]

    def teardown(self) -> None:
        """The provider falls silent, what waits is allowed, the client reads: the answer has to end."""
        if not hasattr(self, "task"):
            return
        try:
            self.client.read(reads=True)
            for _ in range(60):
                self.loop.settle()
                for asked in self._waiting():
                    asked.answer.set_result(None)
                self.loop.settle()
                if self.task.done():
                    break
                self.loop.advance(20.0)
                self.what_left_is_legal()
                self.nothing_held_has_left()
            assert self.task.done(), "the answer does not end"
            self._check_end()
        finally:
            self._close()
            logging.getLogger("luthien_asgi").setLevel(logging.NOTSET)

    def _close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.settle()
        self.loop.close()


def _is_wrong(violation: Violation) -> bool:
    return violation.severity == "error" and violation.rule not in LETS_PASS


def _marks_in(asked: Asked) -> set[str]:
    """Return the marks of what a block holds. A call's name is not among them: what a client is told of a denied one names it."""
    return set(_MARK.findall(asked.block.text))
