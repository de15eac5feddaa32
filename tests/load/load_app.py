"""`luthien_asgi.server:app`, which says in each answer's `x-pid` who gave it, and on a socket what its process holds.

The socket is `<pid>.sock` in the folder that LUTHIEN_LOAD names: whoever connects gets one JSON object. So each worker of a
server is asked by itself, and without HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final

from luthien_asgi.server import app as gateway

_kept: Final[list[asyncio.Server]] = []
"""An event loop does not keep a server from being collected."""
_NUMBER: Final = re.compile(r"[\d_-]+(?= |$)")
"""Of a thread in its name."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    async def sending(message: Any) -> None:
        if message["type"] == "lifespan.startup.complete":
            _kept.append(await asyncio.start_unix_server(_tell, Path(os.environ["LUTHIEN_LOAD"]) / f"{os.getpid()}.sock"))
        elif message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-pid", b"%d" % os.getpid())]}
        await send(message)

    await gateway(scope, receive, sending)


async def _tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(json.dumps(_state()).encode())
    writer.close()


def _state() -> dict[str, Any]:
    """Return what this process holds."""
    slots = gateway._app._generations.current.middleware.slots
    taken = max(slots.taken, slots.of("load"))
    return {
        "slots": taken,
        "tasks": len(asyncio.all_tasks()),
        "files": _files(),
        "threads": Counter(_NUMBER.sub("", thread.name) for thread in threading.enumerate()),
        "objects": {} if taken else _objects(),
        "blocks": sys.getallocatedblocks(),
    }


def _objects() -> dict[str, int]:
    """Return the package's objects by type; in a quiet process only: another thread's half-made tuple must not be seen."""
    gc.collect()
    named = ((str(type(value).__module__), type(value).__qualname__) for value in gc.get_objects())
    return Counter(f"{module}.{name}" for module, name in named if module.startswith("luthien_asgi"))


def _files() -> dict[str, int]:
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            name, _, rest = str(entry.readlink()).partition(":")
            kinds[name if rest else "file"] += 1
        except OSError:
            continue
    return kinds
