"""The desk where blocks wait for a person: who asks waits here, who answers finds it here, whichever worker either of them is at.

Strategy: one dictionary of what waits. Whoever takes an entry out of it has decided it: an operator, the callback, the timeout or
the shutdown; a client that leaves takes its own out. There is one loop and no lock, so exactly one does. What cannot be asked
(too many wait, the desk is closed) is denied, whatever the default is.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import multiprocessing
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from luthien_asgi.approval_relay import GoneError, Relay, check_folder, is_possible
from luthien_asgi.approval_values import (
    CONTENT_SHOWN,
    NAME_SHOWN,
    QUESTION_SHOWN,
    REASON_KEPT,
    Approval,
    Decision,
    Default,
    content_of,
    new_id,
    new_worker,
    shown,
    worker_of,
)
from luthien_asgi.auth import Auth, KeyAuth
from luthien_asgi.blocks import Block
from luthien_asgi.errors import ConfigError
from luthien_asgi.hook_run import bounded
from luthien_asgi.logs import logger_of

__all__ = ["Approval", "Approvals", "Decision", "Notify", "Outcome"]

_log: Final = logger_of(__name__)

Notify = Callable[[Approval], Awaitable[Decision | bool | None]]
"""Is told of each approval as it begins to wait; what it returns decides, unless that is None."""
_GRACE: Final = 0.5
"""Seconds that a callback has to end once the approval was decided."""
_REMEMBERED: Final = 1_000
"""Decisions that are kept to tell a second answer from one to an id that never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an answer.

    `taken`: it decided. `late`: something else had decided before it, `decision` says what. `unknown`: nothing waits under this
    id. `unreachable`: the worker where it waits did not say; the answer may have been taken.
    """

    state: Literal["taken", "late", "unknown", "unreachable"]
    decision: Decision | None = None


@dataclass(slots=True)
class _Entry:
    approval: Approval
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    decision: Decision | None = None


class _Question(msgspec.Struct, frozen=True):
    """What one worker asks another: for its list, or, with an id, to take an answer."""

    id: str = ""
    decision: Decision | None = None


_encode: Final = msgspec.json.Encoder().encode
_Read = TypeVar("_Read")


def _reader(shape: type[_Read]) -> Callable[[bytes], _Read]:
    """Return what reads another worker's line. It raises `ValueError` for one that is not of this shape."""
    decode = msgspec.json.Decoder(shape).decode

    def read(line: bytes) -> _Read:
        try:
            return decode(line)
        except RecursionError:
            msg = "the line is nested too deeply"
            raise ValueError(msg) from None

    return read


_read_question: Final = _reader(_Question)
_read_list: Final = _reader(list[Approval])
_read_outcome: Final = _reader(Outcome)


class Approvals:
    """Blocks that wait for a person's decision.

    Args:
        auth: Who may answer over HTTP, apart from whoever may ask models: `KeyAuth({"alice": …})`. With None nobody may, and the
            callback and the timeout decide.
        timeout: Seconds that an approval waits, where the policy says nothing else.
        notify: Is called with each `Approval` as it begins to wait (to post it in a chat, say); it may decide by returning True,
            False or a `Decision`, whose `by` becomes `callback`. One that raises, or returns something else, decides nothing. It
            is cancelled when somebody else has decided.
        directory: The folder in which workers of one machine find each other; None for one process alone. Made with mode 0700
            where it is not there. All desks that name one are answered by each other's operators.
        limit: Approvals that wait at once in one process; the next is denied.

    Raises `ConfigError` for a timeout or a limit that is not positive, and for a folder whose path is too long for sockets.

    Nothing is opened before `start()`, so that a server may fork after this was made. Everything else is called in the loop in
    which that was.
    """

    def __init__(
        self,
        *,
        auth: Auth | None = None,
        timeout: float = 300.0,
        notify: Notify | None = None,
        directory: Path | None = None,
        limit: int = 100,
    ) -> None:
        _check_positive(timeout=timeout, limit=limit)
        if directory is not None and is_possible():
            check_folder(directory)
        self.auth: Final = auth
        self.timeout: Final = timeout
        self.directory: Final = directory
        self._notify = notify
        self._limit = limit
        self._worker = ""
        self._relay: Relay | None = None
        self._waiting: dict[str, _Entry] = {}
        self._decided: OrderedDict[str, Decision] = OrderedDict()

    def __repr__(self) -> str:
        return f"Approvals(auth={self.auth!r}, timeout={self.timeout!r}, directory={self.directory!s}, limit={self._limit!r})"

    def moved(self, directory: Path | None) -> Approvals:
        """Return a desk like this one, not opened, in another folder."""
        return Approvals(auth=self.auth, timeout=self.timeout, notify=self._notify, directory=directory, limit=self._limit)

    async def start(self) -> None:
        """Open the desk. Twice is once.

        Raises `ConfigError` for a folder that is not this user's alone, and without one for a process that is one of several
        workers: an operator's answer would reach the right one by luck.
        """
        if self._worker:
            return
        directory = self.directory if is_possible() else None
        if self.auth is not None and directory is None and _is_a_worker():
            msg = "approvals are answered at one process, and this is a worker of a server that may have more: give a directory"
            raise ConfigError(msg)
        worker = self._worker = new_worker()
        if directory is None:
            why = "no directory is given" if self.directory is None else "this system has no Unix sockets"
            _log.info("approvals are answered in this process only: %s", why)
            return
        relay = Relay(directory, worker, self._served)
        try:
            await relay.open()
        except BaseException:
            self._worker = ""
            await relay.aclose()
            raise
        self._relay = relay

    async def aclose(self) -> None:
        """Deny what waits and close the desk. Twice is once; it can be started again."""
        self._worker = ""
        for approval_id in tuple(self._waiting):
            self._decide(approval_id, Decision(allowed=False, by="shutdown", reason="The server was stopped."))
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.aclose()

    # --- asking --------------------------------------------------------------------------------------------------------

    def draft(
        self,
        *,
        transaction_id: str,
        policy: str,
        question: str,
        block: Block,
        client: str = "",
        model: str = "",
        default: Default = "deny",
        timeout: float | None = None,
    ) -> Approval:
        """Return what a person will be asked about a block. The waiting begins with `decide`.

        Raises `ConfigError` for a timeout that is not positive, or not finite.
        """
        timeout = self.timeout if timeout is None else timeout
        _check_positive(timeout=timeout)
        now = time.time()
        content, omitted = shown(content_of(block), CONTENT_SHOWN)
        return Approval(
            id=new_id(self._worker or new_worker()),
            transaction_id=transaction_id,
            policy=policy,
            question=shown(question, QUESTION_SHOWN)[0],
            kind=str(block.kind),
            tool=shown(block.name, NAME_SHOWN)[0],
            content=content,
            omitted=omitted,
            client=client,
            model=shown(model, NAME_SHOWN)[0],
            asked_at=now,
            expires_at=now + timeout,
            default=default,
        )

    async def decide(self, approval: Approval) -> Decision:
        """Wait for a decision, `expires_at - asked_at` seconds at most, and return it.

        Cancelled, it takes the approval out of the list at once. Raises `ValueError` for an approval that waits already.
        """
        if worker_of(approval.id) != (self._worker or None):
            return Decision(allowed=False, by="shutdown", reason="Nobody can be asked: the desk is closed.")
        if approval.id in self._waiting or approval.id in self._decided:
            msg = f"the approval {approval.id} was asked already"
            raise ValueError(msg)
        if len(self._waiting) >= self._limit:
            _log.warning("an approval was denied at once: %d wait already", self._limit)
            return Decision(allowed=False, by="limit", reason=f"{self._limit} approvals wait already.")
        entry = self._waiting[approval.id] = _Entry(approval)
        try:
            return await self._decision(entry)
        finally:
            self._waiting.pop(approval.id, None)

    async def _decision(self, entry: _Entry) -> Decision:
        approval = entry.approval
        try:
            async with asyncio.timeout(max(0.0, approval.expires_at - approval.asked_at)), asyncio.TaskGroup() as tasks:
                notified = tasks.create_task(self._notified(approval))
                await entry.answered.wait()
                notified.cancel()
        except TimeoutError:
            allowed = approval.default == "allow"
            self._decide(approval.id, Decision(allowed=allowed, by="timeout", reason="Nobody answered in time."))
        assert entry.decision is not None  # noqa: S101 - an entry is answered, or has just been decided
        return entry.decision

    async def _notified(self, approval: Approval) -> None:
        if self._notify is None:
            return
        try:
            said: object = self._notify(approval)
            if inspect.isawaitable(said):
                said = await bounded(
                    said, approval.expires_at - approval.asked_at, grace=_GRACE, what="the callback for approvals"
                )
        except Exception as error:
            # Not `exception`: what a callback says of an approval may have the block in it.
            _log.error("the callback for approvals failed: %s", type(error).__name__)
            return
        if isinstance(said, Decision):
            self._decide(approval.id, _bounded(replace(said, by="callback")))
        elif isinstance(said, bool):
            self._decide(approval.id, Decision(allowed=said, by="callback"))
        elif said is not None:
            _log.error("the callback for approvals returned %s, which decides nothing", type(said).__name__)

    # --- answering -----------------------------------------------------------------------------------------------------

    def waiting(self) -> list[Approval]:
        """Return what waits in this process, oldest first."""
        return [entry.approval for entry in self._waiting.values()]

    async def waiting_everywhere(self) -> tuple[list[Approval], int]:
        """Return what waits at all workers, oldest first, and how many workers did not say."""
        found, silent = self.waiting(), 0
        said = await self._relay.ask_all(_encode(_Question())) if self._relay is not None else {}
        for line in said.values():
            try:
                found += _read_list(line) if line is not None else []
                silent += line is None
            except ValueError:
                _log.error("another worker's list cannot be read: it may be of another version")
                silent += 1
        return sorted(found, key=lambda approval: approval.asked_at), silent

    async def answer(self, approval_id: str, allowed: bool, by: str, reason: str = "") -> bool:
        """Decide an approval, at whichever worker it waits; return whether this answer was the one."""
        return (await self.submit(approval_id, Decision(allowed=allowed, by=by, reason=reason))).state == "taken"

    async def submit(self, approval_id: str, decision: Decision) -> Outcome:
        """Decide an approval, at whichever worker it waits, and return what became of the answer."""
        worker = worker_of(approval_id)
        if worker is None:
            return Outcome(state="unknown")
        if worker == self._worker or self._relay is None:
            return self._decide(approval_id, _bounded(decision))
        try:
            line = await self._relay.ask(worker, _encode(_Question(approval_id, _bounded(decision))))
            return _read_outcome(line)
        except GoneError:
            return Outcome(state="unknown")
        except (OSError, ValueError) as error:
            _log.error("an answer to an approval of another worker may be lost: %s", type(error).__name__)
            return Outcome(state="unreachable")

    def _decide(self, approval_id: str, decision: Decision) -> Outcome:
        entry = self._waiting.pop(approval_id, None)
        if entry is None:
            earlier = self._decided.get(approval_id)
            return Outcome(state="late" if earlier is not None else "unknown", decision=earlier)
        entry.decision = self._decided[approval_id] = decision
        entry.answered.set()
        if len(self._decided) > _REMEMBERED:
            self._decided.popitem(last=False)
        return Outcome(state="taken", decision=decision)

    def _served(self, line: bytes) -> bytes:
        """Answer another worker. Raises `ValueError` for what is no question."""
        question = _read_question(line)
        if question.decision is None:
            return _encode(self.waiting())
        return _encode(self._decide(question.id, question.decision))


def check_apart(operators: Auth | None, clients: Auth | None) -> None:
    """Raise `ConfigError` where a client's key would be an operator's too, as far as that can be known."""
    shared = isinstance(operators, KeyAuth) and isinstance(clients, KeyAuth) and operators.shares_a_key_with(clients)
    if shared or (operators is clients and operators is not None):
        msg = "an operator has the key of a client, which could then approve its own requests: give operators keys of their own"
        raise ConfigError(msg)


def _bounded(decision: Decision) -> Decision:
    return replace(decision, reason=shown(decision.reason, REASON_KEPT)[0], by=shown(decision.by, NAME_SHOWN)[0])


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not 0 < value < math.inf:
            msg = f"{name} must be positive and finite, not {value!r}"
            raise ConfigError(msg)


def _is_a_worker() -> bool:
    """Tell whether this process was made by a server that makes several: uvicorn's supervisor, or gunicorn's arbiter."""
    return multiprocessing.parent_process() is not None or os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/")
