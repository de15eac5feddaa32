"""Counting input tokens."""

from __future__ import annotations

from typing import Any

from luthien_asgi import jsontext
from luthien_asgi.backend.arguments import minimal_arguments, secrets_of
from luthien_asgi.backend.attempt import Engine
from luthien_asgi.backend.calling import anthropic_body
from luthien_asgi.backend.capture import Outgoing
from luthien_asgi.backend.models import Deployment
from luthien_asgi.backend.protocol import BackendCall
from luthien_asgi.backend.recover import recover
from luthien_asgi.backend.rewrite import count_rewrite, sent_headers
from luthien_asgi.errors import BackendError
from luthien_asgi.wire.estimate import estimate_tokens

__all__ = ["count"]


async def count(engine: Engine | None, deployment: Deployment, call: BackendCall) -> int:
    """Return the number of input tokens. Raises `BackendError` when the provider refuses; estimates never fail."""
    if deployment.wire != "anthropic" or engine is None:
        return int(estimate_tokens(call.request))
    return await _counted(engine, deployment, call)


async def _counted(engine: Engine, deployment: Deployment, call: BackendCall) -> int:
    body = anthropic_body(engine, deployment, call).params
    credential = call.credential if deployment.passthrough else None
    timeout = engine.settings.first_chunk_timeout
    arguments = minimal_arguments(deployment, credential=credential, stream=True, timeout=timeout)
    rewrite = count_rewrite(body, sent_headers(deployment, call), call.query)
    ssl_verify = deployment.params.get("ssl_verify")
    outgoing = Outgoing(engine.pool.connections(ssl_verify=ssl_verify), rewrite)
    handler = engine.pool.handler(ssl_verify=ssl_verify, outgoing=outgoing)
    try:
        # `stream=True` leaves the response to us: LiteLLM does not look for a message in it.
        await engine.litellm.acompletion(**arguments, client=handler)
        return _number(await handler.response.aread())
    except Exception as error:
        raise recover(error, secrets=secrets_of(deployment, call.credential), wire="anthropic") from None
    finally:
        if handler.response is not None:
            await handler.response.aclose()


def _number(body: bytes) -> int:
    document: Any = jsontext.loads(body)
    found = document.get("input_tokens") if isinstance(document, dict) else None
    if not isinstance(found, int):
        raise BackendError("the provider's token count is not understood")
    return found
