r"""The gateway around ASGI apps of other frameworks: a Falcon app, and one without any framework.

Run it:

    pip install falcon
    export OPENAI_API_KEY=sk-...  LUTHIEN_CLIENT_KEY=a-key-you-make-up
    uvicorn --app-dir examples around_any_asgi_app:falcon_app        # or around_any_asgi_app:bare_app

Call it:

    curl -N localhost:8000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "openai/gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "Say hello."}]}'

The trap: wrap the finished app, and point the server at the wrapped one. All other paths, methods, websockets and the lifespan
reach the inner app as if nothing were there.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import falcon.asgi

from luthien_asgi import KeyAuth, LiteLLMBackend, LuthienMiddleware
from luthien_asgi.policies import UpperCase

Message = MutableMapping[str, Any]
BASE = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
PARAMS = {"model": "openai/*", "api_key": "os.environ/OPENAI_API_KEY", "api_base": BASE}


def with_gateway(app: Any) -> LuthienMiddleware:  # noqa: ANN401 - each framework has a type of its own for an ASGI app
    backend = LiteLLMBackend(model_list=[{"model_name": "openai/*", "litellm_params": PARAMS}])
    return LuthienMiddleware(app, policy=UpperCase(), backend=backend, auth=KeyAuth([os.environ["LUTHIEN_CLIENT_KEY"]]))


class Hello:
    async def on_get(self, request: falcon.asgi.Request, response: falcon.asgi.Response) -> None:
        response.media = {"hello": "from Falcon"}


async def bare(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        return  # a server takes this for "no lifespan, no websockets"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"from nobody's framework"})


inner = falcon.asgi.App()
inner.add_route("/hello", Hello())
falcon_app = with_gateway(inner)
bare_app = with_gateway(bare)
