"""The two forms of the demonstration: one that ends by itself, and one that stays up to be tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx
from rich.console import Console
from rich.live import Live

from luthien_asgi import serving
from luthien_asgi.demo.conversation import CLIENTS, talk
from luthien_asgi.demo.play import play
from luthien_asgi.demo.scenes import SCENES
from luthien_asgi.demo.screen import Board, Scene
from luthien_asgi.demo.stage import DANGEROUS, MESSAGE, gateway_for, running_gateway, watched_policy
from luthien_asgi.errors import ConfigError
from luthien_asgi.policies import DenyTools
from luthien_asgi.progress import working
from luthien_asgi.serving import ServeError
from luthien_asgi.testing.provider import ScriptedProvider
from luthien_asgi.testing.scripts import demo_script

__all__ = ["serve", "show", "show_policy"]

_DENIED: Final = "rm -rf"
_FRAMES_PER_SECOND: Final = 12
_TRY: Final = """
The model is scripted: it wants to list files, and to delete some. The policy denies the second. Try it with

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "gpt-demo", "stream": true, "messages": [{{"role": "user", "content": "Please tidy up."}}]}}'

  curl -N {url}/v1/messages -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' \\
    -d '{{"model": "claude-demo", "max_tokens": 99, "stream": true, "messages": [{{"role": "user", "content": "Tidy up."}}]}}'

or with the SDKs:

  openai.OpenAI(base_url="{url}/v1", api_key="demo").chat.completions.create(model="gpt-demo", messages=[...])
  anthropic.Anthropic(base_url="{url}", api_key="demo").messages.create(model="claude-demo", max_tokens=99, messages=[...])

or with Claude Code:

  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN=demo ANTHROPIC_MODEL=claude-demo claude

Ctrl-C ends it.
"""


def show(*, port: int = 0, console: Console, out: Console | None = None, pace: float = 0.03) -> int:
    """Run both conversations and show both sides of each turn; return the exit status.

    The status is 1 when a denied call reached a client. `console` takes the progress, `out` (by default stdout) the show.
    """
    out = out if out is not None else Console()
    board = Board()
    with ScriptedProvider(demo_script(pace=pace), strict=True) as provider:
        gateway = gateway_for(provider.url, watched_policy(board))
        with running_gateway(gateway, port=port, console=console) as url:
            try:
                _play(url, board, out)
            except httpx.HTTPError as error:
                raise ServeError(f"the gateway cannot be reached: {error}") from error
    return _verdict(board, out)


def show_policy(name: str, *, port: int = 0, console: Console, out: Console | None = None, pace: float = 0.03) -> int:
    """Show one of the policies that ship at work; return the exit status.

    The status is 1 when something reached whom it must not reach, or a client did not get what the policy lets it have.
    """
    out = out if out is not None else Console()
    found = play(name, stage=lambda scene: _stage(scene, out), port=port, console=console, pace=pace)
    for complaint in found:
        out.print(complaint, style="bold red", highlight=False, markup=False)
    if not found:
        out.print(SCENES[name].look, style="bold green", highlight=False, markup=False)
        out.print(f"Next: luthien-asgi policies {name}, for what it takes.", highlight=False)
    return 1 if found else 0


def _play(url: str, board: Board, out: Console) -> None:
    for client in CLIENTS:
        talk(client, url=url, board=board, stage=lambda scene: _stage(scene, out))


@contextmanager
def _stage(scene: Scene, out: Console) -> Iterator[None]:
    """Show a scene: as it happens on a terminal, when it is complete elsewhere."""
    if out.is_terminal:
        with Live(scene, console=out, refresh_per_second=_FRAMES_PER_SECOND):
            yield
    else:
        yield
        out.print(scene)


def _verdict(board: Board, out: Console) -> int:
    if board.reached_clients(_DENIED):
        out.print("The denied call reached a client: that must not happen.", style="bold red", highlight=False)
        return 1
    out.print(
        "The model asked to run `rm -rf /`. No client got any part of that call, and both conversations went on.",
        style="bold green",
        highlight=False,
    )
    out.print("Next: luthien-asgi demo --serve, to try it with clients of your own.", highlight=False)
    return 0


def serve(*, host: str, port: int, console: Console, out: Console | None = None) -> int:
    """Serve the demonstration until Ctrl-C, and say how to call it. Raises `ConfigError` for an address others can reach."""
    if not serving.is_loopback(host):
        raise ConfigError(f"the demonstration listens on this machine only, not on {host}")
    out = out if out is not None else Console()
    sock = serving.bind(host, port)
    with ScriptedProvider(demo_script()) as provider:
        gateway = gateway_for(provider.url, DenyTools(patterns=DANGEROUS, message=MESSAGE))

        async def prepare() -> None:
            with working("Loading LiteLLM", console=console):
                await gateway.start()
            out.print(_TRY.format(url=serving.url_of(sock)), markup=False, highlight=False, soft_wrap=True)

        return serving.run(serving.server_for(gateway, drain_timeout=1), sock, before=prepare)
