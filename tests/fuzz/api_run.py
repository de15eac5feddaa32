"""Run schemathesis against a real gateway: requests that fit the OpenAPI document, and requests that do not.

    python tests/fuzz/api_run.py [--examples 100] [--seed 1] [further options of `schemathesis run`]

A gateway on loopback serves two models, one on each wire, of a scripted provider that real LiteLLM calls. No request may get a
5xx, a refusal has the shape of the client's format, an answer fits its schema, what does not fit the document is refused, and
nobody gets in without the right key. The exit status is schemathesis's.

Two of its checks are left out: `unsupported_method`, because another method belongs to the wrapped app, and
`positive_data_acceptance`, because the conversion to the other wire refuses with a 400 what it has no words for.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from api_document import document

from luthien_asgi import Approvals, JsonlRecorder, KeyAuth, Limits, LiteLLMBackend, LuthienMiddleware, Paths, StreamSettings
from luthien_asgi.policies import DenyTools
from luthien_asgi.testing import Answer, ScriptedProvider, ToolCall

_CLIENT: Final = "client-key-0123456789"
_OPERATOR: Final = "operator-key-0123456789"
_CHECKS: Final = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "negative_data_rejection,ignored_auth"
)
_START: Final = 60.0
"""Seconds for a server to begin: the first one imports LiteLLM."""
_CONFIG: Final = f"""\
[auth.openapi.clientKey]
bearer = "{_CLIENT}"

[auth.openapi.operatorKey]
bearer = "{_OPERATOR}"

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, 431]
"""


def main() -> int:
    """Run, and return schemathesis's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100, help="requests of each route and phase")
    parser.add_argument("--seed", type=int, default=1)
    asked, further = parser.parse_known_args()
    with (
        ScriptedProvider(Answer("Hel", "lo", ToolCall("call_1", "get_weather", {"city": "Oslo"}))) as provider,
        _serving(provider) as url,
    ):
        return _schemathesis(url, asked.examples, asked.seed, further)


def _schemathesis(url: str, examples: int, seed: int, further: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        schema, config = Path(folder, "openapi.json"), Path(folder, "schemathesis.toml")
        schema.write_text(json.dumps(_for_this_gateway()))
        config.write_text(_CONFIG)
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", str(schema), "--url", url]
        options = ["--checks", _CHECKS, "--max-examples", str(examples), "--seed", str(seed), "--warnings", "off"]
        return subprocess.run([*command, *options, "--generation-database", "none", *further], check=False, cwd=folder).returncode


def _for_this_gateway() -> dict[str, Any]:
    """Return the document with the names of this gateway's models, so that most requests reach one."""
    made = document()
    for name, schema in made["components"]["schemas"].items():
        if name.endswith("Request"):
            schema["properties"]["model"] = {"enum": ["gpt", "claude"]}
    return made


@contextmanager
def _serving(provider: ScriptedProvider) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _served(_app(provider, Path(folder) / "transactions.jsonl"))


def _served(app: LuthienMiddleware) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, loop="asyncio"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + _START
    while not server.started and time.monotonic() < until:
        thread.join(timeout=0.05)
    try:
        yield "http://{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join(timeout=_START)


def _app(provider: ScriptedProvider, record: Path) -> LuthienMiddleware:
    key = {"api_key": "sk-provider"}
    models = [
        {"model_name": "gpt", "litellm_params": {"model": "openai/gpt-4o", "api_base": f"{provider.url}/v1", **key}},
        {"model_name": "claude", "litellm_params": {"model": "anthropic/claude-sonnet-4-5", "api_base": provider.url, **key}},
    ]
    return LuthienMiddleware(
        _not_found,
        backend=LiteLLMBackend(models),
        policy=DenyTools(names=["get_weather"], server_tools="pass"),
        auth=KeyAuth({"client": _CLIENT}),
        approvals=Approvals(auth=KeyAuth({"operator": _OPERATOR})),
        operators=KeyAuth({"operator": _OPERATOR}),
        recorder=JsonlRecorder(record),
        paths=Paths(models="/v1/models", approvals="/luthien/approvals", records="/luthien/records", health="/luthien/health"),
        limits=Limits(body_bytes=1 << 20),
        settings=StreamSettings(stall_timeout=20, first_chunk_timeout=20, usage_timeout=1),
    )


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything else, and the server's lifespan."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"not found"})


if __name__ == "__main__":
    sys.exit(main())
