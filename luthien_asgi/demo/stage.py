"""What the demonstration runs on: the scripted provider, the gateway in front of it, and a policy that lets one watch."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import uvicorn
from rich.console import Console

from luthien_asgi.approvals import Approvals
from luthien_asgi.blocks import BlockKind
from luthien_asgi.chunks import Chunk, read_part
from luthien_asgi.config import Config
from luthien_asgi.context import StreamContext
from luthien_asgi.demo.screen import Board
from luthien_asgi.middleware import ASGIApp, Message, Receive, Scope, Send
from luthien_asgi.policies import DenyTools
from luthien_asgi.policy import Handling, Observe, Policy
from luthien_asgi.progress import working
from luthien_asgi.server import Gateway, create_app
from luthien_asgi.serving import ServeError, bind, server_for, url_of

__all__ = ["DANGEROUS", "MESSAGE", "gateway_for", "running_gateway", "watched_policy"]

DANGEROUS: Final = {"bash": r"\brm\s+-\w*[rf]"}
"""The demonstration's rule: no recursive or forced deletion."""
MESSAGE: Final = "[A policy denied the call of {name}: it would have deleted files.]"
_START_SECONDS: Final = 60.0
"""LiteLLM's import takes about ten seconds on two cores."""
_STOP_SECONDS: Final = 5.0


class _Watched(DenyTools):
    """`DenyTools` that shows what it sees."""

    handles: ClassVar[Mapping[BlockKind, Handling]] = {
        BlockKind.THINKING: Observe(),
        BlockKind.TEXT: Observe(),
        **DenyTools.handles,
    }

    def __init__(self, board: Board) -> None:
        super().__init__(patterns=DANGEROUS, message=MESSAGE)
        self._board = board

    def on_chunk_added(self, chunk: Chunk, ctx: StreamContext) -> None:
        """Show the chunk on the model's side; the chunk itself goes on as it is."""
        del ctx
        part = read_part(chunk)
        if part.kind is not None and (part.text or part.name):
            self._board.model_says(str(part.kind), f"{part.name} {part.text}" if part.name else part.text, new=bool(part.name))


def watched_policy(board: Board) -> Policy:
    """Return the demonstration's policy; what the model says appears on the board."""
    return _Watched(board)


def gateway_for(provider_url: str, policy: Policy, approvals: Approvals | None = None) -> Gateway:
    """Return a gateway to a scripted provider: `gpt-…` speaks the OpenAI wire, `claude-…` the Anthropic one."""
    models = [_model("gpt-*", "openai", f"{provider_url}/v1"), _model("claude-*", "anthropic", provider_url)]
    return create_app(Config(file="demo", model_list=models, policy=policy, approvals=approvals))


def _model(name: str, provider: str, url: str) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": f"{provider}/{name}", "api_base": url, "api_key": "demo"}}


@contextmanager
def running_gateway(gateway: Gateway, *, port: int, console: Console) -> Iterator[str]:
    """Run a gateway in a thread while the block runs; yields its URL. Raises `ServeError` when it does not start."""
    sock = bind("127.0.0.1", port)
    started: queue.SimpleQueue[bool] = queue.SimpleQueue()
    server = server_for(_announcing(gateway, started), drain_timeout=1, log_level="warning")
    thread = threading.Thread(target=_serve, args=(server, sock, started), name="gateway", daemon=True)
    thread.start()
    try:
        with working("Loading LiteLLM", console=console):
            _wait_for(started)
        yield url_of(sock)
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS)
        sock.close()


def _wait_for(started: queue.SimpleQueue[bool]) -> None:
    try:
        good = started.get(timeout=_START_SECONDS)
    except queue.Empty:
        raise ServeError(f"the gateway did not start within {_START_SECONDS:.0f} s") from None
    if not good:
        raise ServeError("the gateway did not start")


def _serve(server: uvicorn.Server, sock: socket.socket, started: queue.SimpleQueue[bool]) -> None:
    # uvicorn exits, which is meant for processes, when an app does not start.
    with contextlib.suppress(SystemExit):
        server.run(sockets=[sock])
    started.put(False)


def _announcing(gateway: Gateway, started: queue.SimpleQueue[bool]) -> ASGIApp:
    """Tell when the gateway is ready: its socket listens from the beginning."""

    async def announcing(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await gateway.start()
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                started.put(True)

        await gateway(scope, receive, watched if scope["type"] == "lifespan" else send)

    return announcing
