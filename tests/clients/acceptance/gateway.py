"""The gateway under test: `luthien-asgi serve` as a process of its own, with a configuration file, and a tap in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from acceptance.cases import DENIAL, DEPLOYMENTS, FORBIDDEN, JUDGE
from acceptance.wiretap import Wiretap

__all__ = ["CLIENT_KEY", "PROVIDER_KEY", "Gateway", "gateways", "serving"]

CLIENT_KEY: Final = "sk-client-of-the-gateway"
PROVIDER_KEY: Final = "sk-gateway-at-the-provider"
_HERE: Final = Path(__file__).parents[1]
_START_SECONDS: Final = 90.0
"""LiteLLM's import takes ten seconds on a free core."""
_STOP_SECONDS: Final = 20.0
_POLICIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "allow": {"class": "acceptance.policies.AllowTools"},
    "deny": {
        "class": "luthien_asgi.policies.DenyTools",
        # Codex offers a web search, which no pattern could look into: it is left out.
        "config": {"patterns": {"*": FORBIDDEN}, "message": DENIAL, "server_tools": "strip"},
    },
    "judge": {"class": "luthien_asgi.policies.ToolCallJudge", "config": {"model": JUDGE, "message": DENIAL}},
}


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway as the clients reach it."""

    url: str
    tap: Wiretap


@contextlib.contextmanager
def gateways(provider_url: str, folder: Path) -> Iterator[Mapping[str, Gateway]]:
    """Run the allowing, the denying and the judging gateway while the block runs, all in front of one provider."""
    with contextlib.ExitStack() as stack:
        models = [_model(name, deployment, provider_url) for name, deployment in DEPLOYMENTS.items()]
        configs = {name: {"model_list": models, "policy": policy} for name, policy in _POLICIES.items()}
        started = {name: stack.enter_context(_process(name, config, folder)) for name, config in configs.items()}
        for port, log in started.values():
            _wait_ready(port, log)
        yield {name: _tapped(port, stack) for name, (port, _) in started.items()}


@contextlib.contextmanager
def serving(name: str, config: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Run one gateway while the block runs; yields its URL."""
    with _process(name, config, folder) as (port, log):
        _wait_ready(port, log)
        yield f"http://127.0.0.1:{port}"


def _model(name: str, deployment: str, provider_url: str) -> dict[str, Any]:
    base = provider_url if deployment.startswith("anthropic/") else f"{provider_url}/v1"
    return {"model_name": name, "litellm_params": {"model": deployment, "api_base": base, "api_key": PROVIDER_KEY}}


@contextlib.contextmanager
def _process(name: str, config: Mapping[str, Any], folder: Path) -> Iterator[tuple[int, Path]]:
    """Start a gateway; yields its port and its log at once, `_wait_ready` waits for it."""
    records = folder / f"records-{name}.jsonl"
    whole = {
        "auth": {"keys": {"client": CLIENT_KEY}},
        **config,
        "record": {"sink": "luthien_asgi.jsonl.JsonlRecorder", "config": {"path": str(records)}},
    }
    file = folder / f"gateway-{name}.yaml"
    file.write_text(json.dumps(whole, indent=2))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / f"gateway-{name}.log"
    path = os.pathsep.join(filter(None, [str(_HERE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "luthien_asgi", "serve", "--config", str(file), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=output, stderr=output)
    try:
        yield port, log
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(port: int, log: Path) -> None:
    """Wait until the gateway answers. Raises `RuntimeError` with its log when it does not."""
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=_START_SECONDS) as client:
            client.get(f"http://127.0.0.1:{port}/luthien/health").raise_for_status()
    except httpx.HTTPError as error:
        msg = f"the gateway did not start ({error!r}):\n{log.read_text(errors='replace')[-4000:]}"
        raise RuntimeError(msg) from None


def _tapped(port: int, stack: contextlib.ExitStack) -> Gateway:
    tap = stack.enter_context(Wiretap(port))
    return Gateway(tap.url, tap)
