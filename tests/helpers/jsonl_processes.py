"""Recorders of JSONL, in this process and in others that are started for it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from luthien_asgi.jsonl import JsonlRecorder

__all__ = ["command", "recording"]

_PROGRAM = """
import asyncio, json, os, resource, signal, sys
sys.path[:] = json.loads(sys.argv[2])
from luthien_asgi.jsonl import JsonlRecorder, RecorderError
from luthien_asgi.recorder import Begin, Transaction

path = sys.argv[1]

def begin(identity, text="x"):
    return Begin(id=identity, at=0, wire="openai", path="/", model="m", stream=True, client="", request={"text": text})

def end(identity):
    return Transaction(begin(identity)).end("completed")

def ready():
    print(flush=True)
    sys.stdin.readline()
"""


def command(path: Path, body: str) -> list[str]:
    """Return what runs a program in another process.

    It has the record's `path`, `begin(identity, text)` and `end(identity)` for the recorder, and `ready()`, which says that it
    has come so far and waits for a line.
    """
    return [sys.executable, "-c", _PROGRAM + body, str(path), json.dumps(sys.path)]


@asynccontextmanager
async def recording(path: Path, **options: Any) -> AsyncIterator[JsonlRecorder]:
    """Run a recorder in this process. It has ten seconds to close."""
    recorder = JsonlRecorder(path, **options)
    await recorder.start()
    try:
        yield recorder
    finally:
        async with asyncio.timeout(10):
            await recorder.aclose()
