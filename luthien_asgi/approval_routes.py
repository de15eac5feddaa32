"""The two routes of operators: what waits, and the answer to one of it. Small JSON, for curl and for programs.

An operator has a key apart from the clients' keys. What a model wrote is shown in a terminal here, so every character that is not
seen (control characters, marks that turn the direction of writing, fillers, tags) stands as its escape: to a program it is the
same JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from luthien_asgi import jsontext
from luthien_asgi.approval_values import REASON_KEPT
from luthien_asgi.approvals import Approvals, Decision, Outcome
from luthien_asgi.auth import authenticate
from luthien_asgi.disconnect import ClientConnection, ClientGoneError
from luthien_asgi.errors import ApiError, RequestError
from luthien_asgi.invisible import is_visible
from luthien_asgi.responses import Send, send_content
from luthien_asgi.settings import StreamSettings
from luthien_asgi.slots import Room

__all__ = ["OperatorRequest", "printable"]

BODY_BYTES: Final = 16 * 1024
"""A decision and its reason, each character of which may be escaped."""
SILENT_HEADER: Final = "x-luthien-silent-workers"
"""How many workers did not say what waits there; absent when all did."""
_DECISIONS: Final = {"allow": True, "deny": False}
_FIELDS: Final = ("decision", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRequest:
    """One request of an operator's."""

    desk: Approvals
    headers: Mapping[str, str]
    connection: ClientConnection
    send: Send
    settings: StreamSettings
    room: Room
    """For requests whose operator is not known yet."""

    async def list(self) -> None:
        """Answer with what waits at all workers, oldest first."""
        try:
            await self._operator()
            waiting, silent = await self.desk.waiting_everywhere()
        except ApiError as error:
            await self._fail(error)
            return
        await self._send(200, waiting, {SILENT_HEADER: str(silent)} if silent else {})

    async def answer(self, approval_id: str) -> None:
        """Decide an approval with the decision in the body; answer with it, or with the error."""
        try:
            operator = await self._operator()
            decision = _decision(await self._body(), by=f"operator:{operator}")
            taken = _taken(await self.desk.submit(approval_id, decision))
        except ClientGoneError:
            return
        except ApiError as error:
            await self._fail(error)
            return
        word = "allow" if taken.allowed else "deny"
        await self._send(200, {"id": approval_id, "decision": word, "by": taken.by, "reason": taken.reason})

    async def _operator(self) -> str:
        if self.desk.auth is None:
            msg = "No operator has a key, so nobody may see what waits, or answer."
            raise ApiError(msg, status=403)
        return (await authenticate(self.desk.auth, self.headers, self.settings, self.room)).name

    async def _body(self) -> bytes:
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            msg = "The Content-Type must be application/json."
            raise ApiError(msg, status=415)
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                return await self.connection.read_body(limit=BODY_BYTES)
        except TimeoutError:
            msg = "The request body did not arrive in time."
            raise RequestError(msg, status=408) from None

    async def _fail(self, error: ApiError) -> None:
        body = {"error": {"type": error.type, "message": error.message, "param": error.param}}
        await self._send(error.status, body, error.headers)

    async def _send(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        await send_content(self.send, status, printable(body), {**headers, "cache-control": "no-store"})


def _decision(content: bytes, *, by: str) -> Decision:
    body = _object(content)
    if unknown := [name for name in body if name not in _FIELDS]:
        msg = f"There is no field {unknown[0][:100]!r} here: decision and reason are."
        raise RequestError(msg, param=unknown[0][:100])
    decision, reason = body.get("decision"), body.get("reason", "")
    if not isinstance(decision, str) or decision not in _DECISIONS:
        msg = "decision must be allow or deny."
        raise RequestError(msg, param="decision")
    if not isinstance(reason, str) or len(reason) > REASON_KEPT:
        msg = f"reason must be a text of at most {REASON_KEPT} characters."
        raise RequestError(msg, param="reason")
    return Decision(allowed=_DECISIONS[decision], by=by, reason=reason)


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = jsontext.loads(content)
    except ValueError:
        msg = "The body is not JSON."
        raise RequestError(msg) from None
    if not isinstance(body, dict):
        msg = 'The body must be an object: {"decision": "allow", "reason": "…"}.'
        raise RequestError(msg)
    return body


def _taken(outcome: Outcome) -> Decision:
    """Return the decision that an answer was, or raise `ApiError`."""
    decision = outcome.decision
    if outcome.state == "taken" and decision is not None:
        return decision
    if outcome.state == "late" and decision is not None:
        word = "allowed" if decision.allowed else "denied"
        msg = f"It was {word} before, by {decision.by}."
        raise ApiError(msg, status=409)
    if outcome.state == "unreachable":
        msg = "The worker where it waits did not say whether it took the answer: look at the list before you try again."
        raise ApiError(msg, status=503)
    msg = "Nothing waits under this id."
    raise ApiError(msg, status=404)


def printable(value: object) -> bytes:
    """Write JSON over several lines, in which nothing but visible characters stands."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value).decode(), indent=2)
    except (UnicodeEncodeError, msgspec.MsgspecError):  # half an emoji
        text = json.dumps(value, indent=2)
    escapes = {ord(character): _escape(character) for character in set(text) if not is_visible(character) and character != "\n"}
    return text.translate(escapes).encode() + b"\n"


def _escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
