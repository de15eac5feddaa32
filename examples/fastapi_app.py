r"""A FastAPI app that is a gateway, too.

Run it:

    pip install fastapi
    export ANTHROPIC_API_KEY=sk-ant-...  LUTHIEN_CLIENT_KEY=a-key-you-make-up
    uvicorn --app-dir examples fastapi_app:app

Call it in either format; any format works with any provider:

    curl -N localhost:8000/v1/messages -H "x-api-key: $LUTHIEN_CLIENT_KEY" -H 'content-type: application/json' \
      -d '{"model": "claude", "max_tokens": 99, "stream": true, "messages": [{"role": "user", "content": "Clean up my disk."}]}'

The trap: `add_middleware` puts the last one added outermost. So the gateway is added first, and what has to see its answers
(CORS, access logs) afterwards.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from luthien_asgi import KeyAuth, LiteLLMBackend, LuthienMiddleware
from luthien_asgi.policies import DenyTools

MODELS = [
    {
        "model_name": "claude",
        "litellm_params": {
            "model": "anthropic/claude-sonnet-5",
            "api_key": "os.environ/ANTHROPIC_API_KEY",
            "api_base": os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        },
    }
]

app = FastAPI()
app.add_middleware(
    LuthienMiddleware,
    policy=DenyTools(patterns={"bash": r"\brm\s+-\w*[rf]"}, message="Not allowed: {name} would delete files."),
    backend=LiteLLMBackend(model_list=MODELS),
    auth=KeyAuth({"my-laptop": os.environ["LUTHIEN_CLIENT_KEY"]}),
)
app.add_middleware(CORSMiddleware, allow_origins=["*"])


@app.get("/hello")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
