"""The servers that are ours to start, each under uvicorn with uvloop and httptools in a process of its own.

    luthien            LuthienMiddleware several times over, by the path's first segment, one a layer of `layers.py`
    plain, raw, aio    what it is measured against: `floors.py`

Run as `python apps.py NAME --upstream PORT --records DIR [--profile FILE]`; the first line of its output is the port. It ends
with its standard input. With `--profile` cProfile watches the event loop's thread, and FILE has the result then.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import threading
from pathlib import Path
from typing import Any

import layers
import uvicorn
from floors import FLOORS
from processes import announce, leash, wait_for_parent


class _Server(uvicorn.Server):
    """Says its port once it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        announce(self.servers[0].sockets[0].getsockname()[1])


def _serve(app: Any, *, lifespan: bool) -> None:
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http="httptools",
        lifespan="on" if lifespan else "off",
        access_log=False,
        log_level="warning",
    )
    _Server(config).run()


def _serve_profiled(app: Any, file: Path) -> None:
    profile = cProfile.Profile()
    profile.enable()
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http="httptools", access_log=False, log_level="warning")
    server = _Server(config)

    def stop() -> None:
        wait_for_parent()
        server.should_exit = True

    threading.Thread(target=stop, daemon=True).start()
    asyncio.run(server.serve())
    profile.disable()
    profile.dump_stats(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["luthien", *FLOORS])
    parser.add_argument("--upstream", type=int, required=True, help="the provider's port")
    parser.add_argument("--records", type=Path, required=True, help="the directory of the JSONL recorders' files")
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    upstream = f"http://127.0.0.1:{arguments.upstream}"
    built = layers.app(upstream, arguments.records) if arguments.name == "luthien" else FLOORS[arguments.name](upstream)
    if arguments.profile:
        _serve_profiled(built, arguments.profile)
    else:
        leash()
        _serve(built, lifespan=arguments.name != "aio")
