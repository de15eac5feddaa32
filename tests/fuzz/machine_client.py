"""A client whose every step a test takes: what it asks, whether it reads, when it leaves; and a policy that waits to be told.

Both are plain ASGI and plain policy code: the middleware between them is the real one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from luthien_asgi import Allow, Block, BlockKind, Deny, Hold, Observe, Policy, Replace, Stop, StreamContext, Transform
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.policy import Handling, Verdict
from luthien_asgi.testing import ResponseWatch

__all__ = ["PATHS", "Asked", "Client", "Waiting"]

PATHS: Final[Mapping[str, str]] = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
}
_MESSAGES: Final = [{"role": "user", "content": "x"}]
_BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "openai": {"model": "m", "messages": _MESSAGES, "n": 2, "stream_options": {"include_usage": True}},
    "anthropic": {"model": "m", "messages": _MESSAGES, "max_tokens": 64},
    "responses": {"model": "m", "input": "x"},
}


class Client:
    """One request and its response."""

    def __init__(self, wire: Any, loop: asyncio.AbstractEventLoop, *, stream: bool) -> None:
        self.wire, self.stream = wire, stream
        self.sent: list[bytes] = []
        """What the app sent, as it was taken."""
        self.ends = 0
        """Last parts of a body."""
        self.left = False
        self._leaving: asyncio.Future[None] = loop.create_future()
        self._body: bytes | None = json.dumps(self._asked()).encode()
        self._reads = asyncio.Event()
        self._reads.set()
        self.watch = ResponseWatch(wire)

    def _asked(self) -> dict[str, Any]:
        asked = {**_BODIES[self.wire], "stream": self.stream}
        if not self.stream:
            asked.pop("stream_options", None)
        return asked

    @property
    def bytes(self) -> bytes:
        """All that arrived."""
        return b"".join(self.sent)

    @property
    def reads(self) -> bool:
        """Whether it takes what is sent."""
        return self._reads.is_set()

    async def run(self, app: Any) -> None:
        """Send the request and take the response."""
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": PATHS[self.wire],
            "raw_path": PATHS[self.wire].encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        await app(scope, self.watch.receiving(self._receive), self.watch.sending(self._send))

    def leave(self) -> None:
        """Close the connection."""
        if not self.left:
            self.left = True
            self._leaving.set_result(None)
            self._reads.set()

    def read(self, reads: bool) -> None:
        """Begin or stop to take what is sent."""
        (self._reads.set if reads else self._reads.clear)()

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.shield(self._leaving)
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self._reads.wait()
        assert not self.ends, f"{message['type']} after the end of the response"
        if message["type"] == "http.response.body":
            self.sent.append(bytes(message.get("body", b"")))
            self.ends += not message.get("more_body", False)


@dataclass(slots=True, eq=False)
class Asked:
    """A block that waits for its verdict."""

    block: Block
    ctx: StreamContext
    answer: asyncio.Future[Verdict | None]
    marks: set[str] = field(default_factory=set)


class Waiting(Policy):
    """Handles kinds of blocks as it is told; what it holds waits until the test says what becomes of it."""

    handles = dict.fromkeys(BlockKind, Hold())

    def __init__(self, handles: Mapping[BlockKind, Handling]) -> None:
        self.handles = handles  # type: ignore[misc]  # one policy object, with handlings of its own
        self.asked: list[Asked] = []
        self.failing = False
        """Whether the next fragment that it looks at makes it fail."""

    async def on_block_complete(self, block: Block, ctx: StreamContext) -> Verdict | None:
        """Wait for the verdict."""
        if not isinstance(self.handles.get(block.kind), Hold):
            return None
        asked = Asked(block, ctx, asyncio.get_running_loop().create_future())
        self.asked.append(asked)
        return await asked.answer

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        """Look at it, or fail."""
        if self.failing and read_part(chunk).text:
            self.failing = False
            msg = "it fails here"
            raise ValueError(msg)


HANDLINGS: Final[Mapping[str, Handling | None]] = {"hold": Hold(), "observe": Observe(), "transform": Transform(), "pass": None}
VERDICTS: Final = ("allow", "none", "deny", "replace", "stop", "raise", "cancel")


def verdict_of(name: str) -> Verdict | None:
    """Return the verdict of a name that is one."""
    match name:
        case "allow":
            return Allow()
        case "deny":
            return Deny("it was denied")
        case "replace":
            return Replace([Block(kind=BlockKind.TEXT, text="written anew")])
        case "stop":
            return Stop("it was stopped")
        case _:
            return None
