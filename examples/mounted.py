r"""The gateway under a path of a larger app: `/llm/v1/chat/completions`.

Run it:

    export OPENAI_API_KEY=sk-...  LUTHIEN_CLIENT_KEY=a-key-you-make-up
    uvicorn --app-dir examples mounted:app

Call it:

    curl -N localhost:8000/llm/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "Hi."}]}'

The trap: no lifespan reaches a mounted app. The gateway then opens at its first request, which waits some seconds for LiteLLM,
and nobody closes it. So the outer app's lifespan calls `open()`, which begins to import it, and `aclose()`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount, Router

from luthien_asgi import KeyAuth, LiteLLMBackend, LuthienMiddleware
from luthien_asgi.policies import ReplaceText

MODELS = [
    {
        "model_name": "fast",
        "litellm_params": {
            "model": "openai/gpt-4o-mini",
            "api_key": "os.environ/OPENAI_API_KEY",
            "api_base": os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        },
    }
]
gateway = LuthienMiddleware(
    Router(),  # what is below /llm and not the gateway's: here nothing
    policy=ReplaceText(replacements=[["foo", "bar"]]),
    backend=LiteLLMBackend(model_list=MODELS),
    auth=KeyAuth([os.environ["LUTHIEN_CLIENT_KEY"]]),
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await gateway.open()
    yield
    await gateway.aclose()


app = Starlette(routes=[Mount("/llm", app=gateway)], lifespan=lifespan)
