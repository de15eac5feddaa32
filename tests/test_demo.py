"""The demonstration: it shows both sides, keeps the denied call from the clients, and ends by itself."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from typing import Final

import httpx
import pytest
from rich.console import Console

from luthien_asgi import demo
from luthien_asgi.cli import main
from luthien_asgi.demo import conversation, run, stage
from luthien_asgi.demo.screen import Board
from luthien_asgi.errors import ConfigError
from luthien_asgi.logs import printable
from luthien_asgi.progress import working
from luthien_asgi.serving import ServeError
from luthien_asgi.testing import Answer, ErrorEvent, Failure, ScriptedProvider, Truncate

START_SECONDS: Final = 60.0


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, legacy_windows=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def sides(text: str) -> tuple[str, str]:
    """Return what stands in the left and in the right column."""
    rows = [line.split("│") for line in text.splitlines() if line.count("│") == 3]
    return "\n".join(row[1] for row in rows), "\n".join(row[2] for row in rows)


def shown(**environ: str) -> subprocess.CompletedProcess[str]:
    """Run the demonstration from a cold start; it ends by itself."""
    command = [sys.executable, "-m", "luthien_asgi", "demo"]
    environ = {**os.environ, "COLUMNS": "160", **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=START_SECONDS, check=False)


@pytest.mark.litellm
def test_both_sides_are_shown_and_the_denied_call_is_on_one_only() -> None:
    """Without a terminal: plain text, four turns, status 0; the show is on stdout, the progress on stderr."""
    done = shown()
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Loading LiteLLM …\nLoading LiteLLM: done after ")
    assert len(done.stderr.splitlines()) == 2
    for client_name in ("An OpenAI client", "An Anthropic client"):
        assert f"{client_name}, turn 1" in done.stdout
        assert f"{client_name}, turn 2: the history is accepted" in done.stdout
    model, client = sides(done.stdout)
    assert model.count('bash {"command":"rm -rf /"}') == 2
    assert "rm -rf" not in client
    assert client.count("[A policy denied the call of bash") == 2
    assert client.count('list_files {"path":"/home/user"}') == 2
    assert client.count("Thank you. The tool said:") == 2
    assert client.count("The user wants me to tidy up.") == 2
    assert "No client got any part of that call" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.litellm
def test_on_a_terminal_it_is_shown_as_it_happens() -> None:
    """The same tables, drawn again and again; without colour where `NO_COLOR` says so."""
    done = shown(FORCE_COLOR="1", NO_COLOR="1", TERM="xterm")
    assert done.returncode == 0, done.stderr
    assert "both conversations went on" in done.stdout
    assert done.stdout.count("what the client got") > 4
    assert "\x1b[31m" not in done.stdout


@pytest.mark.parametrize("client", conversation.CLIENTS, ids=lambda client: client.title)
@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Failure(529), "answered 529"),
        (Answer("Hello", faults=[ErrorEvent(after=2)]), "the answer broke off"),
        (Answer("Hello", faults=[Truncate(after=2)]), "the answer broke off"),
    ],
)
def test_a_turn_that_fails_is_an_error(client: conversation.Client, reply: Answer | Failure, message: str) -> None:
    """It is not shown as a good one. The client talks to the provider itself here."""
    with ScriptedProvider(reply) as provider, pytest.raises(ServeError, match=message):
        conversation.talk(client, url=provider.url, board=Board(), stage=lambda _: nullcontext())


def test_a_denied_call_that_reaches_a_client_is_status_1() -> None:
    """The demonstration checks what it claims."""
    board, out = Board(), console()
    board.open("title", "question").add("client", "tool_call", 'bash {"command":"rm -rf /"}')
    assert run._verdict(board, out) == 1
    assert "that must not happen" in written(out)


def test_what_a_model_writes_cannot_draw_on_the_terminal() -> None:
    """Neither escape sequences nor markup do anything."""
    board, out = Board(), console(terminal=True)
    scene = board.open("title", "question")
    scene.add("model", "text", "\x1b[2J[bold]x[/bold] \x9b\r\u202e")
    out.print(scene)
    assert r"\x1b[2J[bold]x[/bold] \x9b\r\u202e" in written(out)


def test_line_ends_stay() -> None:
    """They are what a text is made of."""
    assert printable("a\nb\tc") == "a\nb\\tc"


def test_blocks_of_one_kind_stay_apart_when_they_begin_anew() -> None:
    """Two calls are two lines."""
    board = Board()
    scene = board.open("title", "question")
    board.model_says("tool_call", "a ", new=True)
    board.model_says("tool_call", "{}", new=False)
    board.model_says("tool_call", "b ", new=True)
    assert scene.text_of("model") == "a {}\nb "


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_and_elsewhere(terminal: bool) -> None:
    """A spinner, or lines."""
    out = console(terminal=terminal)
    with working("Loading [it]", console=out):
        assert terminal or written(out) == "Loading [it] …\n"
    assert "Loading [it]: " in written(out)


def test_a_gateway_that_does_not_start_is_an_error() -> None:
    """The port is free again afterwards."""

    class Broken(stage.Gateway):
        def __init__(self) -> None: ...

        async def __call__(self, scope: stage.Scope, receive: stage.Receive, send: stage.Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "broken"})

    with pytest.raises(ServeError, match="did not start"), stage.running_gateway(Broken(), port=0, console=console()):
        pytest.fail("it started")


def test_the_demonstration_is_for_this_machine_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Its key is known to everybody."""
    with pytest.raises(ConfigError, match="on this machine only"):
        demo.serve(host="0.0.0.0", port=0, console=console())
    assert main(["demo", "--serve", "--host", "0.0.0.0"]) == 2
    assert "on this machine only" in capsys.readouterr().err


def test_a_port_in_use_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """In both forms."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["demo", "--serve", "--port", port]) == 1
        assert main(["demo", "--port", port]) == 1
    assert capsys.readouterr().err.count(f"cannot listen on 127.0.0.1, port {port}") == 2


@pytest.mark.servers
async def test_demo_serve_stays_up_until_it_is_stopped() -> None:
    """It says how to call it, answers, and ends with status 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "luthien_asgi", "demo", "--serve", "--port", "0", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            text = (await process.stdout.readuntil(b"Ctrl-C ends it.")).decode()
            url = text.partition("curl -N ")[2].partition("/v1")[0]
            assert f"ANTHROPIC_BASE_URL={url} " in text
            body = {"model": "claude-demo", "max_tokens": 99, "messages": [{"role": "user", "content": "Tidy up."}]}
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = (await client.post(f"{url}/v1/messages", json=body, timeout=START_SECONDS)).json()
            process.send_signal(signal.SIGINT)
            await process.communicate()
        assert process.returncode == 0
        assert [block["name"] for block in answer["content"] if block["type"] == "tool_use"] == ["list_files"]
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
