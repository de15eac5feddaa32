"""The servers that are measured, each under uvicorn with uvloop and httptools in a process of its own.

    luthien    LuthienMiddleware several times over, by the path's first segment: `none` has no policy and records nothing,
               `jsonl` records into a file, the others have a policy of `policies.py`
    plain      a handler as one would write it first: `litellm.acompletion(stream=True)` iterated into an EventSourceResponse
    relay      Starlette and httpx passing on the provider's bytes unread: the floor

Run as `python apps.py NAME --upstream PORT --records FILE [--cpu N] [--profile FILE]`; the first line of its output is the
port. It ends with its standard input. With `--profile` cProfile watches the event loop's thread, and FILE has the result then.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from policies import POLICIES
from processes import announce, leash, pin, wait_for_parent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

BURST: Final = (200, 0)
"""Deltas of a stream, and milliseconds between them."""
PACED: Final = (100, 20)
CALLING: Final = (100, 20, "call")
"""The same, and a tool call at the end."""
Shape = tuple[int, int] | tuple[int, int, str]

_PROVIDERS: Final = {"openai": "/v1", "anthropic": ""}
_TIMEOUT: Final = 120.0
_CONNECTIONS: Final = 1000


def model_name(provider: str, shape: Shape) -> str:
    """Return the model that a client of the middleware asks for."""
    return "-".join([provider, *map(str, shape)])


def luthien(upstream: str, records: Path) -> Any:
    """Return the middleware, each layer with a path of its own."""
    from luthien_asgi import JsonlRecorder, LiteLLMBackend, LuthienMiddleware, Paths

    models = [_model(upstream, provider, shape) for provider in _PROVIDERS for shape in (BURST, PACED)]
    models.append(_model(upstream, "openai", CALLING))
    layers: dict[str, dict[str, Any]] = {
        "none": {},
        "jsonl": {"recorder": JsonlRecorder(records)},
        **{name: {"policy": make()} for name, make in POLICIES.items()},
    }
    app: Any = Starlette()
    for name, options in layers.items():
        paths = Paths(chat=f"/{name}/v1/chat/completions", messages=f"/{name}/v1/messages", count_tokens=None)
        app = LuthienMiddleware(app, backend=LiteLLMBackend(model_list=models), auth=None, paths=paths, **options)
    return app


def _model(upstream: str, provider: str, shape: Shape) -> dict[str, Any]:
    base = "/".join([upstream, *map(str, shape)]) + _PROVIDERS[provider]
    return {
        "model_name": model_name(provider, shape),
        "litellm_params": {"model": f"{provider}/x", "api_base": base, "api_key": "k"},
    }


def plain(upstream: str, records: Path) -> Any:
    """Return the handler that one would write first."""
    import litellm
    from sse_starlette import EventSourceResponse

    async def answer(request: Request) -> Response:
        body = await request.json()
        base = f"{upstream}/{request.path_params['shape']}/v1"
        chunks = await litellm.acompletion(model="openai/x", api_base=base, api_key="k", messages=body["messages"], stream=True)

        async def events() -> AsyncIterator[dict[str, str]]:
            async for chunk in chunks:
                yield {"data": chunk.model_dump_json(exclude_none=True)}
            yield {"data": "[DONE]"}

        return EventSourceResponse(events())

    return Starlette(routes=[Route("/{shape:path}/v1/chat/completions", answer, methods=["POST"])])


def relay(upstream: str, records: Path) -> Any:
    """Return the floor."""
    import httpx

    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    client = httpx.AsyncClient(timeout=_TIMEOUT, limits=limits)

    async def answer(request: Request) -> Response:
        asked = client.build_request("POST", upstream + request.url.path, content=await request.body())
        response = await client.send(asked, stream=True)

        async def parts() -> AsyncIterator[bytes]:
            try:
                async for part in response.aiter_raw():
                    yield part
            finally:
                await response.aclose()

        return StreamingResponse(parts(), media_type="text/event-stream")

    return Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])


class _Server(uvicorn.Server):
    """Says its port once it listens; stops when the parent lets go."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        announce(self.servers[0].sockets[0].getsockname()[1])


def _serve(app: Any) -> None:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, loop="uvloop", http="httptools", lifespan="on", access_log=False, log_level="warning"
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
    builders = {"luthien": luthien, "plain": plain, "relay": relay}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=builders)
    parser.add_argument("--upstream", type=int, required=True, help="the provider's port")
    parser.add_argument("--records", type=Path, required=True, help="the file of the JSONL recorder")
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    pin(arguments.cpu)
    built = builders[arguments.name](f"http://127.0.0.1:{arguments.upstream}", arguments.records)
    if arguments.profile:
        _serve_profiled(built, arguments.profile)
    else:
        leash()
        _serve(built)
