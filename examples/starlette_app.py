r"""A Starlette app that is a gateway, too.

Run it:

    export OPENAI_API_KEY=sk-...  LUTHIEN_CLIENT_KEY=a-key-you-make-up
    uvicorn --app-dir examples starlette_app:app

Call it; its own route answers as before:

    curl -N localhost:8000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' \
      -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "What is foo?"}]}'

The trap: middleware is a list from the outside to the inside, and what the gateway answers never gets further in. CORS headers
have to be added outside of it; the other way round the browser gets none.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

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


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("This is the app.")


gateway = Middleware(
    LuthienMiddleware,
    policy=ReplaceText(replacements=[["foo", "bar"]]),
    backend=LiteLLMBackend(model_list=MODELS),
    auth=KeyAuth([os.environ["LUTHIEN_CLIENT_KEY"]]),
)
app = Starlette(routes=[Route("/", home)], middleware=[Middleware(CORSMiddleware, allow_origins=["*"]), gateway])
