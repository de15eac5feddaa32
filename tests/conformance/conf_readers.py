"""The readers: the official SDKs for Python in this process, those for TypeScript in one of Node's.

Strategy: a reader is asked for an answer at a URL, as a stream that its SDK accumulates or as one body, and gives the SDK's own
object as JSON values, or `{"error": …}`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, cast

import anthropic
import openai

__all__ = ["CLIENTS", "NodeReader", "PythonReader", "Reader", "install", "node_missing", "request_of"]

CLIENTS: Final = ("openai", "anthropic", "responses")
_NODE: Final = Path(__file__).parent / "node"
_OPTIONS: Final[Mapping[str, Any]] = {"api_key": "k", "max_retries": 0}
_ASKED: Final = [{"role": "user", "content": "x"}]


def request_of(client: str, model: str, choices: int = 1) -> dict[str, Any]:
    """Return the least that a client of this format may ask, for as many choices as the recording has.

    A response is one choice, whatever the recording has.
    """
    if client == "anthropic":
        return {"model": model, "max_tokens": 64, "messages": _ASKED}
    if client == "responses":
        return {"model": model, "input": _ASKED}
    return {"model": model, "messages": _ASKED, **({"n": choices} if choices > 1 else {})}


class Reader(Protocol):
    """Reads one answer."""

    def read(self, client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        """Return what the SDK made of the answer at the URL."""
        ...


class PythonReader:
    """openai-python and anthropic-python."""

    def read(self, client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        """Return what the SDK made of the answer at the URL."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return _PYTHON[client, stream](url, dict(request))
            except Exception as error:  # whatever an accumulator raises
                return {"error": f"{type(error).__name__}: {error}"}


def _dumped(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = value.model_dump(mode="json", exclude_unset=True, warnings=False)
    return found


def _openai_stream(url: str, request: dict[str, Any]) -> dict[str, Any]:
    with openai.OpenAI(base_url=f"{url}/v1", **_OPTIONS) as client:
        options: Any = {"include_usage": True}
        with client.chat.completions.stream(**request, stream_options=options) as stream:
            for _ in stream:
                pass
            # `get_final_completion` raises for `length`, which is an end like another here.
            return _dumped(stream.current_completion_snapshot)


def _openai_body(url: str, request: dict[str, Any]) -> dict[str, Any]:
    with openai.OpenAI(base_url=f"{url}/v1", **_OPTIONS) as client:
        return _dumped(client.chat.completions.create(**request))


def _anthropic_stream(url: str, request: dict[str, Any]) -> dict[str, Any]:
    with anthropic.Anthropic(base_url=url, **_OPTIONS) as client, client.beta.messages.stream(**request) as stream:
        return _dumped(stream.get_final_message())


def _anthropic_body(url: str, request: dict[str, Any]) -> dict[str, Any]:
    with anthropic.Anthropic(base_url=url, **_OPTIONS) as client:
        return _dumped(client.beta.messages.create(**request))


def _responses_stream(url: str, request: dict[str, Any]) -> dict[str, Any]:
    with openai.OpenAI(base_url=f"{url}/v1", **_OPTIONS) as client, client.responses.stream(**request) as stream:
        # `get_final_response` raises for an incomplete one, which is an end like another here.
        *_, last = stream
        return _dumped(cast("Any", last).response)


def _responses_body(url: str, request: dict[str, Any]) -> dict[str, Any]:
    with openai.OpenAI(base_url=f"{url}/v1", **_OPTIONS) as client:
        return _dumped(client.responses.create(**request))


_PYTHON: Final[Mapping[tuple[str, bool], Callable[[str, dict[str, Any]], dict[str, Any]]]] = {
    ("openai", True): _openai_stream,
    ("openai", False): _openai_body,
    ("anthropic", True): _anthropic_stream,
    ("anthropic", False): _anthropic_body,
    ("responses", True): _responses_stream,
    ("responses", False): _responses_body,
}


def node_missing() -> str:
    """Return why the SDKs for TypeScript cannot be asked, or nothing."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found on the path" if missing else ""


def install(folder: Path) -> str:
    """Put the SDKs for TypeScript into a folder outside the tree, where they stay; return why that cannot be, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (_NODE / "package.json").read_bytes()
    kept, done = folder / "package.json", folder / "installed"
    if done.is_file() and done.read_bytes() == wanted:
        return ""
    kept.write_bytes(wanted)
    quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    ran = subprocess.run(["npm", "install", *quiet], cwd=folder, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        return f"npm install gave up: {ran.stderr.strip()[-300:]}"
    done.write_bytes(wanted)
    return ""


class NodeReader:
    """openai-node and @anthropic-ai/sdk, in one process that is asked line by line."""

    def __init__(self, folder: Path) -> None:
        shutil.copy(_NODE / "reader.mjs", folder)
        self._process = subprocess.Popen(
            ["node", "reader.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def read(self, client: str, url: str, request: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        """Return what the SDK made of the answer at the URL."""
        asking, answering = self._process.stdin, self._process.stdout
        if asking is None or answering is None:
            raise RuntimeError("the process has no pipes")
        asking.write(json.dumps({"client": client, "url": url, "stream": stream, "request": request}) + "\n")
        asking.flush()
        found: dict[str, Any] = json.loads(answering.readline())
        return found

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=20)
        if self._process.stdout is not None:
            self._process.stdout.close()
