"""The gateway with a window in it: what a leak check has to see of a server process. For the laboratory alone.

`GET /lab/state` returns what the process holds (tasks by coroutine, files and sockets by kind, threads by name, slots). `POST
/lab/file-size` sets how large a file of the process may become (`RLIMIT_FSIZE`), which is a full disk for whoever writes one; -1
lifts that. Everything else is the gateway that `LUTHIEN_CONFIG` describes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from luthien_asgi.server import app as gateway

LISTEN: Final = "0A"
STATES: Final = {"01": "", "0A": " listening"}
"""Of /proc/net/tcp; every other state is that of a connection which one side has closed."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or not scope["path"].startswith("/lab/"):
        await gateway(scope, receive, send)
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/lab/file-size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(body), resource.RLIM_INFINITY))
    answer = json.dumps(_state()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _state() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "tasks": Counter(_name(task) for task in asyncio.all_tasks()),
        "threads": Counter(re.sub(r"[_-]?\d+( \(.*\))?$", "", thread.name) for thread in threading.enumerate()),
        "files": Counter(_descriptors()),
        "slots": _slots(),
    }


def _name(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", task.get_coro()))


def _slots() -> int:
    """How many transactions the middleware counts as under way."""
    built = gateway._app
    return 0 if built is None else int(built._generations.current.middleware.slots.taken)


def _descriptors() -> list[str]:
    sockets, kinds = _sockets(), []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue  # that of the listing itself
        inode = re.fullmatch(r"socket:\[(\d+)\]", target)
        kinds.append(sockets.get(inode[1], "socket of no connection") if inode else _plain(target))
    return [kind for kind in kinds if not kind.startswith("/proc/")]


def _plain(target: str) -> str:
    """Return what a file is, without what differs from one process to the next."""
    return re.sub(r":?\[?\d+\]?$", "", re.sub(r"wgunicorn-\w+", "wgunicorn", target))


def _sockets() -> Mapping[str, str]:
    """Return what each TCP socket of the machine is, by inode: at whose port, and whether it still is a connection."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {_port(line[1]) for line in lines if line[3] == LISTEN}
    return {line[9]: _kind(line, ours) for line in lines}


def _kind(line: list[str], listening: set[int]) -> str:
    local, remote, state = _port(line[1]), _port(line[2]), STATES.get(line[3], " half closed")
    side = f"from a client at {local}" if local in listening else f"to {remote}"
    return f"socket {side}{state}"


def _port(address: str) -> int:
    return int(address.split(":")[1], 16)
