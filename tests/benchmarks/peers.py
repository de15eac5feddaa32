"""Other people's gateways, installed where one says, each in an environment of its own, and started to be measured.

    python tests/benchmarks/peers.py install --into DIR [NAME ...]

Then `LUTHIEN_BENCH_PEERS=DIR` lets the benchmark measure what is there. Nothing of it is a dependency of the project.

    tensorzero   the wheel holds the whole gateway (Rust); it runs in a Python process that does nothing else, observability off
    litellm      LiteLLM's proxy, without a database
    portkey      Portkey's gateway, on node
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import shapes
from shapes import Shape

__all__ = ["PEERS", "VARIABLE", "Peer", "installed"]

VARIABLE: Final = "LUTHIEN_BENCH_PEERS"
_HERE: Final = Path(__file__).parent
_PORTKEY: Final = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "^1.15.2"},
    # Later ones hand a fetched response's headers on as they are, and the gateway fails when it adds its own to them.
    "overrides": {"@hono/node-server": "1.13.8"},
}
_LITELLM_KEY: Final = f"sk-{secrets.token_hex(16)}"
"""Without a key it does not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A gateway: how to install, start and ask it. Each function is given the directory of its environment first."""

    name: str
    title: str
    install: Callable[[Path], None]
    marker: str
    """A file that is there when it is installed."""
    start: Callable[[Path, Path, int], tuple[list[str], int]]
    """Write its configuration into a directory, given the provider's port; return the command, and its port (0: it says)."""
    model: Callable[[Shape], str]
    paths: Mapping[str, str]
    """By the client's format."""
    version: Callable[[Path], str]
    headers: Callable[[Shape, int], Mapping[str, str]] = field(default=lambda shape, provider: {})


def installed(directory: Path | None) -> list[Peer]:
    """Return the gateways that are there."""
    return [peer for peer in PEERS.values() if directory and (directory / peer.name / peer.marker).exists()]


def _run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd, stdin=subprocess.DEVNULL)


def _pip(requirement: str) -> Callable[[Path], None]:
    def install(home: Path) -> None:
        _run([sys.executable, "-m", "venv", home])
        _run([home / "bin" / "python", "-m", "pip", "install", "--quiet", requirement])

    return install


def _pip_version(package: str) -> Callable[[Path], str]:
    code = f"from importlib.metadata import version; print(version({package!r}))"

    def version(home: Path) -> str:
        return subprocess.run([home / "bin" / "python", "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    return version


def _install_portkey(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text(json.dumps(_PORTKEY))
    _run(["npm", "install", "--no-fund", "--no-audit", "--loglevel=error"], cwd=home)


def _portkey_version(home: Path) -> str:
    return str(json.loads((home / "node_modules/@portkey-ai/gateway/package.json").read_text())["version"])


def _start_tensorzero(home: Path, directory: Path, provider: int) -> tuple[list[str], int]:
    lines = ["[gateway]", "observability.enabled = false"]
    for shape in shapes.ALL:
        lines += [
            f'[models."{shape.name}"]',
            'routing = ["scripted"]',
            f'[models."{shape.name}".providers.scripted]',
            'type = "openai"',
            'model_name = "x"',
            f'api_base = "http://127.0.0.1:{provider}/{shape.path}/v1/"',
            'api_key_location = "none"',
        ]
    config = directory / "tensorzero.toml"
    config.write_text("\n".join(lines) + "\n")
    return [str(home / "bin" / "python"), str(_HERE / "tensorzero_server.py"), str(config)], 0


def _start_litellm(home: Path, directory: Path, provider: int) -> tuple[list[str], int]:
    models = [
        {
            "model_name": shape.name,
            "litellm_params": {
                "model": "openai/gpt-4o-mini",
                "api_base": f"http://127.0.0.1:{provider}/{shape.path}/v1",
                "api_key": "k",
            },
        }
        for shape in shapes.ALL
    ]
    # Otherwise the proxy takes Anthropic's format to the Responses API, which the scripted provider does not have.
    settings = {"use_chat_completions_url_for_anthropic_messages": True}
    config = directory / "litellm.yaml"
    content = {"model_list": models, "litellm_settings": settings, "general_settings": {"master_key": _LITELLM_KEY}}
    config.write_text(json.dumps(content))  # JSON is YAML
    port = _free_port()
    command = [home / "bin" / "litellm", "--config", config, "--host", "127.0.0.1", "--port", port, "--telemetry", "False"]
    return [str(part) for part in command], port


def _start_portkey(home: Path, directory: Path, provider: int) -> tuple[list[str], int]:
    port = _free_port()
    script = home / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", str(script), f"--port={port}", "--headless"], port


def _portkey_headers(shape: Shape, provider: int) -> Mapping[str, str]:
    host = f"http://127.0.0.1:{provider}/{shape.path}/v1"
    return {"x-portkey-provider": "openai", "x-portkey-custom-host": host, "authorization": "Bearer k"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(
            name="tensorzero",
            title="TensorZero",
            install=_pip("tensorzero==2026.6.0"),
            marker="bin/python",
            start=_start_tensorzero,
            model=lambda shape: f"tensorzero::model_name::{shape.name}",
            paths={"openai": "/openai/v1/chat/completions"},
            version=_pip_version("tensorzero"),
        ),
        Peer(
            name="litellm",
            title="LiteLLM's proxy",
            install=_pip("litellm[proxy]"),
            marker="bin/litellm",
            start=_start_litellm,
            model=lambda shape: shape.name,
            paths={"openai": "/v1/chat/completions", "anthropic": "/v1/messages"},
            version=_pip_version("litellm"),
            headers=lambda shape, provider: {"authorization": f"Bearer {_LITELLM_KEY}"},
        ),
        Peer(
            name="portkey",
            title="Portkey",
            install=_install_portkey,
            marker="node_modules/@portkey-ai/gateway/build/start-server.js",
            start=_start_portkey,
            model=lambda shape: "x",
            paths={"openai": "/v1/chat/completions"},
            version=_portkey_version,
            headers=_portkey_headers,
        ),
    )
}


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["install"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; all where none is given")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_intermixed_args()
    for name in arguments.names or PEERS:
        if name == "portkey" and shutil.which("npm") is None:
            sys.stdout.write("portkey: left out, npm is not here\n")
            continue
        home = arguments.into.resolve() / name
        PEERS[name].install(home)
        sys.stdout.write(f"{name} {PEERS[name].version(home)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
