"""Clients are installed here and nowhere else: npm packages and virtual environments in a folder that outlives the run.

The folder is `LUTHIEN_CLIENTS_CACHE`, or `luthien-asgi-clients` in the user's cache. Versions are pinned: what fails today and
did not yesterday is the gateway's doing. `--latest` asks for the newest ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["NODE_CLIENTS", "PACKAGES", "MissingError", "install", "source"]

_INSTALL_SECONDS: Final = 900.0
_SUITE: Final = (
    "pytest>=9",
    "pytest-asyncio>=1",
    "pytest-xdist>=3.6",
    "dirty-equals>=0.6",
    "inline-snapshot>=0.28",
    "respx>=0.22",
    "rich>=14",
)
"""What the SDKs' own tests need."""
_PYTHON: Final = ("langchain-anthropic==1.7.7", "langchain-openai==1.7.3", "pydantic-ai-slim[anthropic,openai]==2.68.0")
"""The clients in Python, which share an environment."""
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "claude-code": ("@anthropic-ai/claude-code@2.1.197",),
    "codex": ("@openai/codex@0.169.0",),
    "vercel": ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/anthropic@3.0.138"),
    "pydantic-ai": _PYTHON,
    "langchain": _PYTHON,
    "sdk-openai": ("openai[aiohttp]==2.54.0", *_SUITE),
    "sdk-anthropic": ("anthropic[aiohttp]==2.12.0", "http-snapshot[httpx]==0.1.9", *_SUITE),
}
NODE_CLIENTS: Final = frozenset({"claude-code", "codex", "vercel"})


class MissingError(RuntimeError):
    """What the client needs is not on this machine; the message says what."""


def install(client: str, *, latest: bool = False) -> Path:
    """Return the folder where a client is installed, installing it first where it is not.

    Raises `MissingError` where node or npm is missing, and `RuntimeError` when an installation fails.
    """
    packages = tuple(map(_unpinned, PACKAGES[client])) if latest else PACKAGES[client]
    name = "python" if PACKAGES[client] is _PYTHON else client
    folder = _cache() / (f"{name}-latest" if latest else name)
    mark = folder / ".installed"
    wanted = "\n".join(packages)
    if latest or not mark.is_file() or mark.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (_npm if client in NODE_CLIENTS else _venv)(folder, packages)
        mark.write_text(wanted)
    elif client in NODE_CLIENTS:
        _node()
    return folder


def source(package: str) -> Path:
    """Return the folder with a package's source distribution, fetching it first where it is not there."""
    folder = _cache() / "sources"
    unpacked = folder / package.replace("==", "-")
    if not unpacked.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-binary", ":all:", "--no-deps", "--dest", str(folder)]
        _run([sys.executable, "-m", "pip", "download", *options, package])
        with tarfile.open(f"{unpacked}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return unpacked


def _cache() -> Path:
    own = os.environ.get("LUTHIEN_CLIENTS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luthien-asgi-clients"


def _unpinned(package: str) -> str:
    """Return the package without its version: npm's `name@1`, also where the name begins with an @, and pip's `name==1`."""
    name = package.partition("==")[0]
    scope, at, rest = name.rpartition("@")
    return scope if at and scope and rest[:1].isdigit() else name


def _npm(folder: Path, packages: Sequence[str]) -> None:
    _node()
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError("npm is not installed")
    # Scripts of packages are not run: a binary comes as a package of its own.
    _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder), *packages])


def _node() -> None:
    if shutil.which("node") is None:
        raise MissingError("node is not installed")


def _venv(folder: Path, packages: Sequence[str]) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile", *packages])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode:
        msg = f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}"
        raise RuntimeError(msg)
