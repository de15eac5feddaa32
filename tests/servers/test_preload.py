"""A master process that imports LiteLLM for its workers: safe to fork, and cheap for each worker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from luthien_asgi.testing import Answer, ScriptedProvider, accumulate_openai

pytestmark = [pytest.mark.servers, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

EXAMPLE = Path(__file__).parents[2] / "examples" / "gunicorn.conf.py"
HOOKS = """
import json, os
example_on_starting = on_starting

def open_files():
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if os.path.exists(link))

def on_starting(server):
    before = open_files()
    example_on_starting(server)
    threads, opened = len(os.listdir("/proc/self/task")), [name for name in open_files() if name not in before]
    with open(os.environ["SEEN"], "w") as seen:
        json.dump({"threads": threads, "opened": opened}, seen)
"""
APP = """
import os
from luthien_asgi.server import app as inner

async def app(scope, receive, send):
    async def saying(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-pid", str(os.getpid()).encode())]
        await send(message)
    await inner(scope, receive, saying)
"""
OWN_IMPORT = "import luthien_asgi.server as s; s.preload(); print(open('/proc/self/smaps_rollup').read())"
TRIES = 300
"""New connections until each worker has had one: the system hands them out as it likes."""


def private(rollup: str) -> int:
    """Return the kilobytes of a process that no other process shares."""
    return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))


@contextlib.contextmanager
def gunicorn(worker: str, folder: Path, provider: str) -> Iterator[str]:
    """Run two workers under the example's settings; yields their URL."""
    settings, config = folder / "gunicorn.conf.py", folder / "luthien.yaml"
    settings.write_text(EXAMPLE.read_text() + HOOKS)
    (folder / "told.py").write_text(APP)
    gpt = f"{{model_name: gpt, litellm_params: {{model: openai/x, api_base: '{provider}/v1', api_key: k}}}}"
    claude = f"{{model_name: claude, litellm_params: {{model: anthropic/x, api_base: '{provider}', api_key: k}}}}"
    config.write_text(f"model_list: [{gpt}, {claude}]\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    told = {"BIND": address, "WEB_CONCURRENCY": "2", "LUTHIEN_CONFIG": str(config), "SEEN": str(folder / "seen.json")}
    command = [sys.executable, "-m", "gunicorn", "-c", str(settings), "-k", worker, "--graceful-timeout", "1", "told:app"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **told, "PYTHONPATH": paths}, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def ask_each(url: str, workers: int) -> set[int]:
    """Have every worker answer from both providers; returns their process ids."""
    answered: dict[str, set[str]] = {}
    for number in range(TRIES):
        model = ("gpt", "claude")[number % 2]
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        # Connecting is tried again in growing steps until the server listens.
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as client:
            got = client.post(url + "/v1/chat/completions", json=body)
        assert accumulate_openai(got.content).body["choices"][0]["message"]["content"] == "Hello", got.text
        answered.setdefault(got.headers["x-pid"], set()).add(model)
        if len(answered) == workers and all(len(models) == 2 for models in answered.values()):
            return {int(pid) for pid in answered}
    pytest.fail(f"only {answered} answered")


@pytest.mark.parametrize("worker", ["asgi", "uvicorn_worker.UvicornWorker"])
def test_workers_share_what_their_master_imported(worker: str, tmp_path: Path) -> None:
    """One thread in the master before it forks, and no file but that of the last good configuration, which has no name.

    Every worker answers, and has little of its own.
    """
    with ScriptedProvider(Answer("Hello")) as provider, gunicorn(worker, tmp_path, provider.url) as url:
        workers = ask_each(url, 2)
        own = [private(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in workers]
    opened = ["/memfd:luthien-last-good (deleted)"]
    assert json.loads((tmp_path / "seen.json").read_text()) == {"threads": 1, "opened": opened}
    alone = subprocess.run([sys.executable, "-c", OWN_IMPORT], capture_output=True, text=True, check=True, timeout=120)
    assert max(own) < private(alone.stdout) / 2, (own, private(alone.stdout))
