"""What the score card is made on: a provider on loopback that replays recordings, and the real middleware in front of it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn

from luthien_asgi import LiteLLMBackend, LuthienMiddleware
from luthien_asgi.testing import ScriptedProvider, recording

__all__ = ["Recording", "Stage", "recordings", "stage"]

_NOT_CHAT: Final = "openai-responses"
_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded stream of a provider."""

    name: str
    path: Path

    @property
    def wire(self) -> str:
        """The wire it was recorded on."""
        return "anthropic" if self.name.startswith("anthropic/") else "openai"


def recordings() -> list[Recording]:
    """Return the recorded chat streams in a fixed order; none where the folder is not there."""
    root = Path(os.environ.get("LUTHIEN_RECORDED") or Path(__file__).parents[3] / "shared" / "recorded")
    paths = [path for path in sorted(root.glob("*/*.*")) if path.parent.name != _NOT_CHAT]
    return [Recording(str(path.relative_to(root)), path) for path in paths]


class Stage:
    """Replays one recording at a time: `provider_url` gives it as it is, `url` through the middleware."""

    def __init__(self, provider: ScriptedProvider, url: str) -> None:
        self._provider = provider
        self.provider_url, self.url = provider.url, url

    def replay(self, recorded: Recording) -> list[bytes]:
        """Answer with this recording from now on; return its events as they are sent."""
        raw = recording(recorded.path)
        self._provider.script = raw
        return raw.events


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "lifespan":
        raise LookupError(scope["path"])
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})


@contextmanager
def stage() -> Iterator[Stage]:
    """Run both servers."""
    provider = ScriptedProvider([])
    provider.start_in_thread()
    try:
        models = [
            {"model_name": "openai", "litellm_params": {"model": "openai/m", "api_base": f"{provider.url}/v1", "api_key": "k"}},
            {"model_name": "anthropic", "litellm_params": {"model": "anthropic/m", "api_base": provider.url, "api_key": "k"}},
        ]
        with _served(LuthienMiddleware(_nothing, backend=LiteLLMBackend(model_list=models), auth=None)) as url:
            yield Stage(provider, url)
    finally:
        provider.stop()


@contextmanager
def _served(app: Any) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    quiet: Any = {"log_level": "critical", "access_log": False, "timeout_graceful_shutdown": 5, "loop": "asyncio"}
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", **quiet))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=_SECONDS)
