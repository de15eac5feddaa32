"""The command line: `demo`, `serve`, `reload`, `check`, `policies` and `validate`.

Exit status: 0 for success, 1 for what failed at run time and for a stream with errors, 2 for a wrong command line,
configuration or file, 130 for Ctrl-C.
Progress and errors go to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from luthien_asgi import __version__
from luthien_asgi.errors import ConfigError
from luthien_asgi.logs import printable as harmless

if TYPE_CHECKING:
    from rich.console import Console

    from luthien_asgi.config import Config
    from luthien_asgi.policy import Policy

__all__ = ["main"]

FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130
IMPORT_THREAD: Final = "luthien-import-litellm"
"""The name of the thread in `luthien_asgi.backend.hygiene`, which is not imported for this."""
BROKEN_PIPE: Final = 141
"""What a shell reports for a program that SIGPIPE ended (128 + 13)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        parser.print_help(sys.stderr)
        return WRONG
    parsed = parser.parse_args(given)
    command: Callable[[argparse.Namespace], int] = parsed.command
    of_others = _imports()
    try:
        status = command(parsed)
        sys.stdout.flush()
        _leave_an_import(status, of_others)
    except ConfigError as error:
        _complain(error)
        return WRONG
    except KeyboardInterrupt:
        _leave_an_import(INTERRUPTED, of_others)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def _imports() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == IMPORT_THREAD}


def _leave_an_import(status: int, of_others: set[threading.Thread]) -> None:
    """End the process at once if the command still imports LiteLLM in its thread, for whose end the interpreter would wait.

    An import that went on before the command is that of a program which called `main`, and the process is that program's.
    """
    if _imports() - of_others:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _say(text: object) -> None:
    sys.stdout.write(f"{harmless(str(text))}\n")


def _complain(error: object) -> None:
    sys.stderr.write(f"{harmless(str(error))}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="luthien-asgi", description="A policy between your programs and any language model.")
    parser.add_argument("--version", action="version", version=f"luthien-asgi {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands.add_parser("demo", help="see a policy at work; nothing to configure, nothing leaves this machine"))
    _add_serve(commands.add_parser("serve", help="run the gateway"))
    _add_reload(commands.add_parser("reload", help="have the servers of a configuration take its file anew"))
    _add_check(commands.add_parser("check", help="say what is wrong with a configuration; nothing starts"))
    _add_policies(commands.add_parser("policies", help="list the policies that ship, and what each takes"))
    _add_validate(commands.add_parser("validate", help="say what is wrong with a stream that you recorded"))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--policy", metavar="NAME", help="show this policy at work: one of those that `policies` lists")
    form.add_argument("--serve", action="store_true", help="stay up, and say how to call it")
    parser.add_argument(
        "--host", default="127.0.0.1", help="with --serve: a loopback address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=_port, default=None, help="port to listen on (default: any free one; with --serve 4000)")
    parser.set_defaults(command=_demo)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, in YAML")
    parser.add_argument("--host", help="address to listen on (default: the configuration's, or 127.0.0.1)")
    parser.add_argument("--port", type=_port, help="port to listen on (default: the configuration's, or 4000)")
    parser.set_defaults(command=_serve)


def _add_reload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration that they were started with")
    parser.set_defaults(command=_reload)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, in YAML")
    parser.set_defaults(command=_check)


def _add_policies(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="say all about this one: one that ships, or module.Class")
    parser.add_argument("--json", action="store_true", help="print JSON, with a JSON Schema of each configuration")
    parser.set_defaults(command=_policies)


def _add_validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="an event stream, a log of its events, `curl -i` output, a body; - for stdin"
    )
    parser.add_argument(
        "--wire",
        choices=["auto", "openai", "anthropic", "responses"],
        default="auto",
        help="the format (default: told from the data)",
    )
    parser.add_argument(
        "--provider", action="store_true", help="a provider's own stream: what providers are known to do is a warning"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_validate)


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")


def _demo(arguments: argparse.Namespace) -> int:
    from luthien_asgi import demo

    if arguments.serve:
        return _ran(
            lambda console: demo.serve(
                host=arguments.host, port=4000 if arguments.port is None else arguments.port, console=console
            )
        )
    if arguments.policy:
        return _ran(lambda console: demo.show_policy(arguments.policy, port=arguments.port or 0, console=console))
    return _ran(lambda console: demo.show(port=arguments.port or 0, console=console))


def _serve(arguments: argparse.Namespace) -> int:
    config = _loaded(arguments.config)
    host = arguments.host or config.host
    port = config.port if arguments.port is None else arguments.port
    if complaint := _refusal(config, host):
        raise ConfigError(f"{config.file}: {complaint}")
    for warning in config.warnings:
        _complain(f"{warning} (warning)")
    return _ran(lambda console: _run_gateway(config, host, port, console))


def _run_gateway(config: Config, host: str, port: int, console: Console) -> int:
    from luthien_asgi import server, serving
    from luthien_asgi.errors import ApiError
    from luthien_asgi.stop_signals import on_hangup

    sock = serving.bind(host, port)
    gateway = server.create_app(config, follow=True)
    gateway.refuses = lambda new: _refusal(new, host)

    async def prepare() -> None:
        await gateway.open()
        on_hangup(gateway.reload)
        console.print(f"Serving on {serving.url_of(sock)}; loading LiteLLM …", markup=False, highlight=False)

    async def warm_up() -> None:
        began = time.monotonic()
        with contextlib.suppress(ApiError):  # which is in the log
            await gateway.start()
            console.print(f"LiteLLM is ready after {time.monotonic() - began:.1f} s", markup=False, highlight=False)

    running = serving.server_for(gateway, drain_timeout=config.settings.drain_timeout)
    gateway.took = lambda new: serving.drains_for(running, new.settings.drain_timeout)
    return serving.run(running, sock, before=prepare, beside=warm_up)


def _ran(run: Callable[[Console], int]) -> int:
    """Run what serves; its failures are messages."""
    from rich.console import Console

    from luthien_asgi.serving import ServeError

    console = Console(stderr=True)
    try:
        return run(console)
    except (ServeError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        console.print(f"luthien-asgi: {error}", markup=False, highlight=False, soft_wrap=True)
        return FAILED


def _refusal(config: Config, host: str) -> str:
    from luthien_asgi.serving import is_loopback

    if config.auth is not None or is_loopback(host) or not config.spends_server_keys:
        return ""
    return (
        f"{host} can be reached from other machines, and whoever comes would spend the server's keys: add auth: {{keys: [...]}}"
    )


def _reload(arguments: argparse.Namespace) -> int:
    import asyncio

    from luthien_asgi.control import ask_all, folder_of

    answers = asyncio.run(ask_all(arguments.config))
    for answer in answers:
        if answer.silent:
            _complain("a server did not answer")
        elif answer.problems:
            _complain(f"process {answer.pid}: refused, {answer.version} stays:\n{answer.problems}")
        else:
            _say(f"process {answer.pid}: {answer.version}")
    if not answers:
        _complain(f"luthien-asgi: no server of yours runs with {arguments.config} (looked in {folder_of(arguments.config)})")
    if any(answer.problems for answer in answers):
        return WRONG
    return FAILED if not answers or any(answer.silent for answer in answers) else 0


def _check(arguments: argparse.Namespace) -> int:
    from luthien_asgi.server import create_app

    try:
        config = _loaded(arguments.config)
    except ConfigError as error:
        _say(error)
        return WRONG
    for warning in config.warnings:
        _say(f"{warning} (warning)")
    if complaint := _refusal(config, config.host):
        _say(f"{config.file}: {complaint}")
        return WRONG
    try:
        create_app(config)  # made, not started: it has checks of its own
    except ConfigError as error:
        _say(f"{config.file}: {error}")
        return WRONG
    _print_summary(config)
    return 0


def _print_summary(config: Config) -> None:
    from luthien_asgi.listing import summary

    _say(f"{config.file}: good")
    for word, what in summary(config):
        _say(f"  {word:8} {what}")


def _policies(arguments: argparse.Namespace) -> int:
    from luthien_asgi import listing

    chosen = [_policy_class(arguments.name)] if arguments.name else listing.shipped()
    if arguments.json:
        import json

        described = [listing.described(cls) for cls in chosen]
        _say(json.dumps(described[0] if arguments.name else described, indent=2))
    elif arguments.name:
        _say("\n".join(listing.policy_as_text(chosen[0], _example_of(chosen[0]))).rstrip())
    else:
        _say("\n".join(listing.policies_as_text()).rstrip())
    return 0


def _policy_class(name: str) -> type[Policy]:
    from luthien_asgi.config_policies import find_policy
    from luthien_asgi.plugins import PluginError

    _look_here()
    try:
        return find_policy(name)
    except PluginError as error:
        raise ConfigError(f"luthien-asgi: {error}") from None


def _example_of(cls: type[Policy]) -> Mapping[str, Any] | None:
    """Return the configuration of a policy's demonstration."""
    from luthien_asgi.demo.scenes import SCENES

    scene = SCENES.get(cls.__name__)
    return scene.config if scene is not None and cls.__module__.startswith("luthien_asgi.") else None


def _validate(arguments: argparse.Namespace) -> int:
    from luthien_asgi.testing.inspecting import UnreadableError, inspect
    from luthien_asgi.testing.showing import as_json, as_text, printable

    name = "stdin" if arguments.file == "-" else arguments.file
    wire = None if arguments.wire == "auto" else arguments.wire
    try:
        with contextlib.ExitStack() as opened:
            file = sys.stdin.buffer if arguments.file == "-" else opened.enter_context(open(arguments.file, "rb"))  # noqa: PTH123
            found = inspect(file, wire=wire, strict=not arguments.provider)
    except (UnreadableError, OSError) as error:
        _complain(f"{printable(name)}: {printable(getattr(error, 'strerror', None) or str(error))}")
        return WRONG
    if arguments.json:
        import json

        _say(json.dumps(as_json(name, found), indent=2))
    else:
        _say("\n".join(as_text(name, found)))
    return FAILED if any(violation.severity == "error" for violation in found.violations) else 0


def _loaded(path: str) -> Config:
    from luthien_asgi.config import load

    _look_here()
    return load(path)


def _look_here() -> None:
    """As with `python -m` and uvicorn: policies of one's own are found beside where one works."""
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, here)
